"""Stage 1: what a data set is, whether it is sound, which cases are labelled."""
