"""Stage 2: from raw scans to arrays on one grid, and the way back."""
