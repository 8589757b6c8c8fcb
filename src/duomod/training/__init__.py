"""Stage 7: the training loop and what it needs."""
