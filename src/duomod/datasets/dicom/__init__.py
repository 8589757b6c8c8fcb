"""Scans that come as DICOM: slices become a volume on a regular grid, or a sentence about what is wrong with them.

`find` looks through a folder tree and sorts its files into series, `header` reads one file, `planes` says where each
slice lies, `stack` makes sure that they are one regular grid, `pixels` and `codec` read the voxels.
"""
