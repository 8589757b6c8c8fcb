"""Writing label maps. The place in the world is taken over from the scan's header bit for bit."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from duomod.datasets.case_names import is_nifti
from duomod.datasets.grid import Geometry
from duomod.datasets.scan import to_array
from duomod.workspace import atomic_path

_HEADER_BYTES = 348
_UINT8 = 2  # NIfTI datatype code


def write_labels(labels: sitk.Image, target: Path, scan: Path | None = None) -> None:
    """Write a uint8 label map as ``.nii.gz``, atomically.

    ITK rewrites orientations (as a quaternion in float32), which moves an oblique grid by about 1e-7. So the fields
    that place the grid are copied from the scan's own header; every reader then sees the scan's grid exactly.

    Args:
        labels: 3D, uint8.
        target: File name, ending in ``.nii.gz``.
        scan: NIfTI-1 file of the same grid. None (a DICOM series, say): the header is made from ``labels``.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    voxels: NDArray[np.uint8] = to_array(labels).astype(np.uint8, copy=False)
    template = _made_header(Geometry.of(labels)) if scan is None or not is_nifti(scan) else _read_header(scan)
    # The zero time stamp makes equal label maps equal files.
    content = gzip.compress(_label_header(template, labels.GetSize()) + voxels.tobytes(), compresslevel=6, mtime=0)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _read_header(scan: Path) -> bytes:
    with gzip.open(scan) if scan.name.endswith(".gz") else open(scan, "rb") as stream:
        return stream.read(_HEADER_BYTES)


def _made_header(geometry: Geometry) -> bytes:
    """The header that ITK gives one voxel there."""
    voxel = geometry.apply_to(sitk.Image((1, 1, 1), sitk.sitkUInt8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voxel.nii"
        sitk.WriteImage(voxel, str(path))
        return _read_header(path)


def _label_header(template: bytes, size: tuple[int, ...]) -> bytes:
    """A NIfTI-1 header for uint8 voxels; spacing, units, qform and sform are the template's."""
    order = "<" if struct.unpack_from("<i", template)[0] == _HEADER_BYTES else ">"
    header = bytearray(_HEADER_BYTES)
    struct.pack_into(f"{order}i", header, 0, _HEADER_BYTES)
    struct.pack_into(f"{order}8h", header, 40, 3, *size, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, _UINT8, 8)
    struct.pack_into(f"{order}2f", header, 108, _HEADER_BYTES + 4, 1.0)  # start of the voxels, slope
    # Nothing else is copied: free text of a scan's header may name the patient.
    for start, stop in ((76, 92), (123, 124), (252, 328)):  # pixdim[0..3], units, qform and sform
        header[start:stop] = template[start:stop]
    description = b"duomod label map"
    header[148 : 148 + len(description)] = description
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(4)
