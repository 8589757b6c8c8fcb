"""Writing label maps. The place in the world is taken over from the scan's header bit for bit."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nibabel import Nifti1Header
from numpy.typing import NDArray

from duomod.datasets.case_names import is_nifti
from duomod.datasets.grid import Geometry
from duomod.datasets.scan import open_nifti, to_array
from duomod.workspace import atomic_path

#: Fields that say where the grid lies, beside the spacing in ``pixdim``.
_PLACE = (
    "xyzt_units",
    "qform_code",
    "sform_code",
    *("quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


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


def _read_header(scan: Path) -> Nifti1Header:
    with open_nifti(scan) as stream:
        return Nifti1Header(stream.read(Nifti1Header.sizeof_hdr), check=False)


def _made_header(geometry: Geometry) -> Nifti1Header:
    """The header that ITK gives one voxel there."""
    voxel = geometry.apply_to(sitk.Image((1, 1, 1), sitk.sitkUInt8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voxel.nii"
        sitk.WriteImage(voxel, str(path))
        return _read_header(path)


def _label_header(template: Nifti1Header, size: tuple[int, ...]) -> bytes:
    """A NIfTI-1 header for uint8 voxels; spacing, units, qform and sform are the template's.

    Nothing else is copied: free text of a scan's header may name the patient.
    """
    header = Nifti1Header(bytes(Nifti1Header.sizeof_hdr), template.endianness, check=False)
    header["sizeof_hdr"] = Nifti1Header.sizeof_hdr
    header["dim"] = (3, *size, 1, 1, 1, 1)
    header.set_data_dtype(np.uint8)
    header["vox_offset"] = Nifti1Header.sizeof_hdr + 4
    header["scl_slope"] = 1
    header["pixdim"][:4] = template["pixdim"][:4]
    for field in _PLACE:
        header[field] = template[field]
    header["descrip"] = b"duomod label map"
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4)
