from __future__ import annotations

import numpy as np
import pytest
import torch

from duomod.sampling.transforms.affine import Affine
from duomod.sampling.transforms.base import PatchInfo, SpatialChange
from duomod.sampling.transforms.geometry import Geometry
from duomod.seeding import generator

IMAGE, LABEL = torch.rand(2, 5, 6, 7), torch.randint(0, 4, (5, 6, 7))


def matrices(count: int, **settings: float) -> np.ndarray:
    transform = Affine.model_validate(settings)
    return np.array([transform.draw(generator(0, "test", i), PatchInfo()).geometry.matrix for i in range(count)])


def test_no_rotation_and_no_scale_changes_nothing() -> None:
    image, label = Affine(rotate_degrees=0, scale=0).draw(generator(0, "test"), PatchInfo(2)).apply(IMAGE, LABEL)
    assert torch.equal(image, IMAGE)
    assert label is not None
    assert torch.equal(label, LABEL)


def test_a_quarter_turn_is_a_rotation_in_voxels() -> None:
    # x y z: output (x, y) reads input (-y, x)
    turn = SpatialChange(Geometry(((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))))
    image, label = torch.rand(1, 3, 5, 5), torch.randint(0, 4, (3, 5, 5))
    warped, moved = turn.apply(image, label)
    torch.testing.assert_close(warped, torch.rot90(image, 1, (2, 3)), atol=1e-5, rtol=0)
    assert moved is not None
    assert torch.equal(moved, torch.rot90(label, 1, (1, 2)))


def test_a_turn_of_an_oblong_patch_is_one_in_voxels_too() -> None:
    """A bright voxel four to the right of the centre stands four below it after a quarter turn."""
    turn = SpatialChange(Geometry(((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))))
    image = torch.zeros(1, 3, 21, 11)
    image[0, 1, 10, 9] = 1
    where = turn.apply(image, None)[0].gt(0.5).nonzero().tolist()
    assert where == [[0, 1, 6, 5]]


def test_angles_and_zooms_reach_what_was_asked_for_and_no_more() -> None:
    turns = matrices(400, rotate_degrees=20, scale=0)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    angles = np.degrees(np.arcsin(-turns[:, 2, 0]))  # about y
    assert 18 < np.abs(angles).max() <= 20
    zooms = 1 / np.cbrt(np.linalg.det(matrices(400, rotate_degrees=20, scale=0.25)))
    assert zooms.min() == pytest.approx(0.75, abs=0.02)
    assert zooms.max() == pytest.approx(1.25, abs=0.02)


def test_a_zoom_magnifies() -> None:
    closer = SpatialChange(Geometry(((0.4, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.4))))
    label = torch.zeros(17, 17, 17, dtype=torch.int64)
    label[6:11, 6:11, 6:11] = 1
    _, larger = closer.apply(torch.zeros(1, 17, 17, 17), label)
    assert larger is not None
    assert larger.sum() == 13**3  # 2.5 voxels from the centre are 6.25
