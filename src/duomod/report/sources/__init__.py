"""What is shown: scores, curves and settings from run folders, and the scans and label maps behind them."""
