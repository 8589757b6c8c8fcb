"""Surfaces of label maps: their size, their place, and how many triangles they have."""

from __future__ import annotations

import numpy as np
import pytest

from duomod.report.viewer.surfaces import meshes

SPACING = (1.0, 1.5, 2.0)  # x, y, z in mm


def test_a_ball_s_surface_has_its_size_and_place() -> None:
    z, y, x = np.indices((40, 40, 40))
    ball = ((z * 2 - 40) ** 2 + (y * 1.5 - 30) ** 2 + (x - 20) ** 2 < 12**2).astype(np.uint8)
    (mesh,) = meshes(ball, SPACING, 2)
    assert mesh is not None
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), [20, 30, 40], atol=0.5)
    radii = np.linalg.norm(mesh.vertices - [20, 30, 40], axis=1)
    assert radii.mean() == pytest.approx(12, abs=0.6)
    # Closed and facing outwards: the signed volume is that of the ball.
    corners = mesh.vertices[mesh.triangles].astype(float)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.06)


def test_one_voxel_has_a_surface_and_an_absent_class_has_none() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[4, 4, 4] = 2
    first, second = meshes(labels, SPACING, 3)
    assert first is None
    assert second is not None
    np.testing.assert_allclose(second.vertices.mean(axis=0), [4, 6, 8], atol=0.1)


def test_a_large_organ_is_coarsened_until_a_browser_can_turn_it() -> None:
    labels = (np.random.default_rng(0).random((60, 60, 60)) > 0.5).astype(np.uint8)
    (mesh,) = meshes(labels, SPACING, 2)
    assert mesh is not None
    assert 0 < len(mesh.triangles) <= 20_000
