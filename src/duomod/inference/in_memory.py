"""Images in memory: SimpleITK's, nibabel's, or an array with its place in the world; label maps go back in that kind.

SimpleITK's world is LPS, nibabel's RAS: x and y change sign between the two. Arrays of nibabel and of the triple are
indexed (x, y, z), SimpleITK's (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

from duomod.errors import InputError

Matrix = NDArray[np.float64]

#: An array indexed (x, y, z), the voxel size in mm (None: the matrix's), and the 4x4 matrix from voxel index to RAS
#: millimetres (None: axes along the world's, origin 0).
ArrayScan = tuple[ArrayLike, Sequence[float] | None, ArrayLike | None]

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
#: How far from right angles, and from the spacing given, a matrix may be, relatively: headers in float32 are.
_ROUNDING = 1e-3


@runtime_checkable
class NibabelImage(Protocol):
    """What is used of nibabel's images, and what others that have it are taken for."""

    @property
    def affine(self) -> ArrayLike | None: ...

    @property
    def dataobj(self) -> ArrayLike: ...


Scan: TypeAlias = sitk.Image | NibabelImage | ArrayScan


def to_itk(scan: Scan) -> sitk.Image:
    """Return a scan as a SimpleITK image on the same grid.

    Raises:
        InputError: not one of the three kinds, not 3D numbers, values that are not finite, or a matrix that is
            singular, sheared or of another voxel size than the one given.
    """
    if isinstance(scan, sitk.Image):
        return _checked(scan)
    if isinstance(scan, tuple):
        if len(scan) != 3:
            raise InputError(f"the scan is a tuple of {len(scan)}: give (array, spacing in mm, affine)")
        return _from_array(*scan)
    if isinstance(scan, NibabelImage):
        return _from_array(scan.dataobj, None, scan.affine)
    raise InputError(
        f"a scan cannot be a {type(scan).__name__};"
        " give a SimpleITK image, a nibabel image, or (array, spacing, affine)"
    )


def like_scan(labels: sitk.Image, scan: Scan) -> sitk.Image | NibabelImage | NDArray[np.uint8]:
    """Return a label map in the kind of the scan it belongs to: for a triple, the array indexed (x, y, z)."""
    if isinstance(scan, sitk.Image):
        return labels
    array: NDArray[np.uint8] = np.ascontiguousarray(sitk.GetArrayFromImage(labels).astype(np.uint8, copy=False).T)
    if isinstance(scan, tuple):
        return array
    import nibabel

    image = nibabel.Nifti1Image(array, np.asarray(scan.affine, dtype=float))
    header = getattr(scan, "header", None)
    if isinstance(header, nibabel.Nifti1Header):
        # The codes say which world the matrix leads to (scanner, template); nothing else is taken over: free text of a
        # scan's header may name the patient.
        image.header.set_xyzt_units(*header.get_xyzt_units())
        image.set_sform(image.affine, int(header["sform_code"]))
        if int(header["qform_code"]):
            image.set_qform(header.get_qform(), int(header["qform_code"]))
    return image


def _checked(image: sitk.Image) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(image)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"the scan has {image.GetDimension()} dimensions of {image.GetPixelIDTypeAsString()}; give 3D")
    _check_finite(values)
    return image


def _check_finite(values: NDArray[np.generic]) -> None:
    if values.dtype.kind not in "iufb":
        raise InputError(f"the scan's voxels are of type {values.dtype}; give real numbers")
    bad = int(np.count_nonzero(~np.isfinite(values))) if values.dtype.kind == "f" else 0
    if bad:
        raise InputError(f"{bad} voxel(s) of the scan are NaN or infinite; repair them first")


def _from_array(values: ArrayLike, spacing_mm: Sequence[float] | None, affine: ArrayLike | None) -> sitk.Image:
    array = np.asarray(values)
    if array.ndim != 3 or not array.size:
        raise InputError(f"the scan's array has the shape {array.shape}; give a 3D array indexed (x, y, z)")
    _check_finite(array)
    matrix = _affine(spacing_mm) if affine is None else np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError("the affine must be a 4x4 matrix of finite numbers, from voxel index to RAS millimetres")
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    if not sizes.all():
        raise InputError("the affine gives a voxel no extent along an axis; give the scan's own")
    if spacing_mm is not None and not np.allclose(sizes, spacing_mm, rtol=_ROUNDING, atol=0):
        raise InputError(
            f"the spacing {tuple(map(float, spacing_mm))} mm disagrees with the affine's voxel size"
            f" {tuple(sizes.round(6).tolist())} mm; correct one, or give None for the spacing"
        )
    direction: Matrix = matrix[:3, :3] / sizes
    if not np.allclose(direction.T @ direction, np.eye(3), rtol=0, atol=_ROUNDING):
        raise InputError("the affine is sheared (its axes are not at right angles); resample the scan first")
    # ITK takes only exact right angles; the nearest ones differ by rounding.
    left, _, right = np.linalg.svd(direction)
    image = sitk.GetImageFromArray(np.ascontiguousarray(_itk_type(array).T))
    image.SetSpacing(sizes.tolist())
    image.SetOrigin((_RAS_TO_LPS @ matrix[:3, 3]).tolist())
    image.SetDirection((_RAS_TO_LPS @ left @ right).ravel().tolist())
    return image


def _itk_type(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """ITK has no half floats, long doubles or booleans."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _affine(spacing_mm: Sequence[float] | None) -> Matrix:
    if spacing_mm is None:
        raise InputError("give the scan's spacing in mm or its affine: without either, its size is unknown")
    values = np.asarray(spacing_mm, dtype=np.float64)
    if values.shape != (3,) or not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"spacing {spacing_mm}: give three positive numbers in mm, (x, y, z)")
    return np.diag([*values, 1.0])
