"""An array stored in another order is brought back exactly, and a grid over other voxels is not taken for it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.grid import Geometry
from duomod.datasets.reorder import reordering

ANGLES = {"straight": (0.0, 0.0, 0.0), "oblique": (0.1, -0.2, 0.3), "far": (0.7, 0.6, 0.75)}
WAYS = [(order, ends) for order in itertools.permutations(range(3)) for ends in itertools.product((1, -1), repeat=3)]


def image(angles: tuple[float, float, float]) -> sitk.Image:
    voxels = np.random.default_rng(0).integers(0, 9, (4, 5, 6)).astype(np.uint8)
    found = sitk.GetImageFromArray(voxels)
    found.SetSpacing((0.7, 1.1, 2.5))
    found.SetOrigin((-31.0, 12.5, 800.25))
    found.SetDirection(sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix())
    return found


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
@pytest.mark.parametrize(("order", "ends"), WAYS)
def test_every_order_and_direction_is_brought_back(
    angles: tuple[float, float, float], order: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    original = image(angles)
    # SimpleITK's own filters, which move the header with the voxels, are the oracle.
    stored = sitk.PermuteAxes(original, order)[tuple(slice(None, None, end) for end in ends)]
    way = reordering(Geometry.of(stored), Geometry.of(original))
    assert way is not None
    np.testing.assert_array_equal(way.of(sitk.GetArrayFromImage(stored)), sitk.GetArrayFromImage(original))
    grid = way.of_grid(Geometry.of(stored))
    assert grid.size == original.GetSize()
    assert grid.spacing == original.GetSpacing()
    np.testing.assert_allclose(grid.origin, original.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(grid.direction, original.GetDirection(), atol=1e-12)


def test_other_voxels_are_not_the_same() -> None:
    original = image(ANGLES["straight"])
    flipped = original[::-1]
    for change in (
        lambda other: other.SetOrigin((-31.0, 12.5, 800.25)),  # the header was not moved with the voxels
        lambda other: other.SetSpacing((0.7, 1.1, 2.6)),
        lambda other: other.SetDirection(sitk.Euler3DTransform((0, 0, 0), 0.2, 0, 0).GetMatrix()),
    ):
        other = sitk.Image(flipped)
        change(other)
        assert reordering(Geometry.of(other), Geometry.of(original)) is None
    assert reordering(Geometry.of(flipped[:, :, 1:]), Geometry.of(original)) is None


def test_it_says_what_it_does() -> None:
    original = Geometry.of(image(ANGLES["straight"]))
    assert str(reordering(Geometry.of(image(ANGLES["straight"])[:, ::-1]), original)) == "y from the other end"
    moved = Geometry.of(sitk.PermuteAxes(image(ANGLES["straight"]), (1, 0, 2)))
    assert str(reordering(moved, original)) == "y stored as x, x stored as y"
