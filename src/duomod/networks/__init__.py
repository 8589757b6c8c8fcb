"""Stage 4: the networks and their registry."""
