"""Augmentations: one file per transform, named as the file. docs/augmentation.md says how to add one."""
