"""Stage 3: patches, augmentation, and the labelled and unlabelled streams."""
