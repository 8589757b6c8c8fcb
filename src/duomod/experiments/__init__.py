"""Stage 11: whole experiments: the pipeline over methods and seeds, the demo."""
