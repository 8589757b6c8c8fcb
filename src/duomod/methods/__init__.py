"""Stage 6: the semi-supervised methods, one file each."""
