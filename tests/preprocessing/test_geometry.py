"""Grids: one orientation, one spacing, and the exact way back."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from duomod.datasets.grid import Geometry
from duomod.datasets.scan import to_array
from duomod.preprocessing.geometry import canonical, labels_on_grid, resample_image, resample_label, working_geometry

AXIS_ALIGNED = [
    np.array([np.eye(3)[:, axis] * sign for axis, sign in zip(axes, signs, strict=True)]).T
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def geometry(size=(9, 10, 11), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None) -> Geometry:
    flat = np.eye(3).ravel() if direction is None else np.asarray(direction).ravel()
    return Geometry(size=size, spacing=spacing, origin=origin, direction=tuple(flat.tolist()))


def oblique(seed: int) -> np.ndarray:
    return Rotation.random(random_state=seed).as_matrix()


def random_geometry(rng: np.random.Generator, direction: np.ndarray, largest: int = 14) -> Geometry:
    return geometry(
        tuple(rng.integers(3, largest, 3).tolist()),
        tuple(rng.uniform(0.6, 3.5, 3).tolist()),
        tuple(rng.normal(0, 50, 3).tolist()),
        direction,
    )


def random_probabilities(
    rng: np.random.Generator, classes: int, shape: tuple[int, ...], sharpness: float
) -> np.ndarray:
    logits = rng.normal(0, sharpness, (classes, *shape))
    shares = np.exp(logits - logits.max(0))
    return (shares / shares.sum(0)).astype(np.float32)


def brute_force(probabilities: np.ndarray, working: Geometry, target: Geometry) -> np.ndarray:
    """Every class on the whole target grid, then the largest."""
    resampled = [
        sitk.GetArrayFromImage(
            sitk.Resample(
                working.image_of(share),
                target.size,
                sitk.Transform(),
                sitk.sitkLinear,
                target.origin,
                target.spacing,
                target.direction,
                0.0,
                sitk.sitkFloat32,
                True,
            )
        )
        for share in probabilities
    ]
    return np.argmax(resampled, axis=0).astype(np.uint8)


class TestCanonical:
    @pytest.mark.parametrize("direction", AXIS_ALIGNED)
    def test_every_orientation_becomes_ras_and_no_voxel_moves(self, direction: np.ndarray) -> None:
        grid = geometry((4, 5, 6), (1.0, 2.0, 3.0), (7.0, -8.0, 9.0), direction)
        image = grid.image_of(np.arange(120, dtype=np.int16).reshape(grid.shape))
        turned = canonical(image)
        assert turned.GetDirection() == RAS
        for index in [(0, 0, 0), (3, 4, 5), (1, 2, 3)]:
            point = image.TransformIndexToPhysicalPoint(index)
            assert turned[turned.TransformPhysicalPointToIndex(point)] == image[index]

    def test_an_oblique_grid_turns_by_axes_only(self) -> None:
        grid = random_geometry(np.random.default_rng(3), oblique(3))
        turned = canonical(grid.image_of(np.zeros(grid.shape, np.int16)))
        # Each of its axes is one of the old ones or its opposite, and points mostly to the right, front and top.
        old, new = (np.reshape(g, (3, 3)) for g in (grid.direction, turned.GetDirection()))
        assert np.allclose(np.sort(np.abs(old.T @ new), axis=0), np.sort(np.eye(3), axis=0))
        assert (np.diag(new @ np.diag([-1, -1, 1])) > 0).all()


class TestResample:
    def test_the_grid_keeps_origin_and_direction_and_rounds_its_size(self) -> None:
        grid = geometry((10, 20, 30), (0.7, 0.8, 5.0), (1.0, 2.0, 3.0), oblique(4))
        image = grid.image_of(np.zeros(grid.shape, np.int16))
        for spacing in [(1.5, 1.5, 2.0), (0.35, 3.0, 7.0), (100.0, 100.0, 1000.0)]:
            expected = working_geometry(grid, spacing)
            assert Geometry.of(resample_image(image, spacing, 0.0)) == expected
            assert Geometry.of(resample_label(image, spacing)) == expected
        assert working_geometry(grid, (1.5, 1.5, 2.0)).size == (5, 11, 75)
        assert working_geometry(grid, (100.0, 100.0, 1000.0)).size == (1, 1, 1)

    def test_the_same_spacing_changes_nothing(self) -> None:
        grid = geometry((5, 6, 7), (0.9, 0.8, 3.1), direction=oblique(5))
        voxels = np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)
        assert np.allclose(to_array(resample_image(grid.image_of(voxels), grid.spacing, -1024)), voxels, atol=1e-2)
        assert np.array_equal(to_array(resample_label(grid.image_of(voxels), grid.spacing)), voxels)

    def test_a_ramp_keeps_its_value_at_every_place(self) -> None:
        grid = geometry((20, 8, 8), (1.0, 1.0, 1.0), (100.0, 0.0, 0.0))
        ramp = np.broadcast_to(100 + np.arange(20, dtype=np.float32), grid.shape)
        result = resample_image(grid.image_of(np.ascontiguousarray(ramp)), (1.5, 1.0, 1.0), -1024.0)
        assert np.allclose(to_array(result)[0, 0], 100 + 1.5 * np.arange(13))

    def test_beyond_the_scan_lies_what_was_asked_for(self) -> None:
        grid = geometry((4, 4, 3), (1.0, 1.0, 5.0))
        # 15 mm in slices of 2 mm: 8 slices, the last centred 14 mm up, where the scan ends at 12.5 mm.
        result = to_array(resample_image(grid.image_of(np.full(grid.shape, 40, np.int16)), (1.0, 1.0, 2.0), -1024.0))
        assert result.shape[0] == 8
        assert (result[:-1] == 40).all()
        assert (result[-1] == -1024).all()

    def test_labels_keep_their_values(self) -> None:
        grid = geometry((9, 9, 9))
        labels = np.random.default_rng(0).choice([0, 3, 250], grid.shape).astype(np.uint8)
        assert set(np.unique(to_array(resample_label(grid.image_of(labels), (0.6, 1.7, 0.9))))) <= {0, 3, 250}


class TestLabelsOnGrid:
    @pytest.mark.parametrize("seed", range(12))
    @pytest.mark.parametrize("sharpness", [0.2, 2.0, 6.0])
    def test_equals_brute_force_on_unrelated_oblique_grids(self, seed: int, sharpness: float) -> None:
        rng = np.random.default_rng(seed)
        working, target = random_geometry(rng, oblique(seed)), random_geometry(rng, oblique(seed + 100))
        # Partly overlapping: the nearest-edge continuation is tested as well.
        target = target.model_copy(update={"origin": tuple(np.add(working.origin, rng.normal(0, 5, 3)).tolist())})
        probabilities = random_probabilities(rng, int(rng.integers(2, 9)), working.shape, sharpness)
        expected = brute_force(probabilities, working, target)
        assert np.array_equal(labels_on_grid(probabilities, working, target), expected)

    @pytest.mark.parametrize("seed", range(8))
    def test_equals_brute_force_where_small_organs_lie_in_a_background(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        target = random_geometry(rng, AXIS_ALIGNED[rng.integers(48)] if seed % 2 else oblique(seed), 30)
        scan = canonical(target.image_of(np.zeros(target.shape, np.uint8)))
        working = working_geometry(Geometry.of(scan), (1.5, 1.5, 2.0))
        logits = rng.normal(0, 0.5, (6, *working.shape))
        logits[0] += 4
        for organ in range(1, 6):
            corner = rng.integers(0, np.maximum(np.array(working.shape) - 3, 1))
            logits[(organ, *(slice(c, c + 3) for c in corner))] += 9
        probabilities = np.exp(logits) / np.exp(logits).sum(0)
        expected = brute_force(probabilities.astype(np.float32), working, target)
        assert len(np.unique(expected)) > 2
        assert np.array_equal(labels_on_grid(probabilities, working, target), expected)

    def test_a_target_far_away_takes_the_nearest_edge(self) -> None:
        # The working grid is tiny against the target: its border must be continued over all of it.
        working = geometry((2, 1, 1), (0.01, 0.01, 0.01))
        target = geometry((40, 3, 3), (50.0, 50.0, 50.0), (-1000.0, 0.0, 0.0))
        probabilities = np.array([[[[0.9, 0.1]]], [[[0.1, 0.9]]]], np.float32)
        result = labels_on_grid(probabilities, working, target)
        assert (result[:, :, :20] == 0).all()
        assert (result[:, :, 21:] == 1).all()

    def test_on_the_same_grid_it_is_the_argmax(self) -> None:
        rng = np.random.default_rng(0)
        grid = random_geometry(rng, oblique(9))
        probabilities = random_probabilities(rng, 5, grid.shape, 1.0)
        assert np.array_equal(labels_on_grid(probabilities, grid, grid), probabilities.argmax(0))

    def test_ties_go_to_the_lower_class(self) -> None:
        grid = geometry((3, 3, 3))
        assert (labels_on_grid(np.full((4, 3, 3, 3), 0.25, np.float32), grid, grid) == 0).all()

    def test_probabilities_are_interpolated_not_labels(self) -> None:
        # Voxels at 0 and 10 mm with probabilities 0.9 and 0.3 of class 1: it wins up to 6.67 mm, not up to 5 mm.
        working = geometry((2, 1, 1), (10.0, 1.0, 1.0))
        target = geometry((11, 1, 1))
        probabilities = np.array([[[[0.1, 0.7]]], [[[0.9, 0.3]]]], np.float32)
        assert labels_on_grid(probabilities, working, target).ravel().tolist() == [1] * 7 + [0] * 4

    @pytest.mark.parametrize("direction", AXIS_ALIGNED)
    def test_a_sphere_comes_back_from_every_orientation(self, direction: np.ndarray) -> None:
        target = geometry((26, 30, 20), (1.2, 1.0, 1.6), (5.0, -7.0, 30.0), direction)
        z, y, x = np.meshgrid(*(np.arange(n) for n in target.shape), indexing="ij")
        # Off-centre, so that a flipped axis would miss.
        far = ((x - 10) * 1.2) ** 2 + ((y - 17) * 1.0) ** 2 + ((z - 8) * 1.6) ** 2
        truth = (far < 8.0**2).astype(np.uint8)
        scan = canonical(target.image_of(truth.astype(np.float32)))
        resampled = resample_image(scan, (1.5, 1.5, 2.0), 0.0)
        organ = to_array(resampled)
        result = labels_on_grid(np.stack([1 - organ, organ]), Geometry.of(resampled), target)
        assert result.shape == truth.shape
        assert 2 * (result & truth).sum() / (result.sum() + truth.sum()) > 0.95

    def test_memory_does_not_grow_with_the_number_of_classes(self) -> None:
        working, target = geometry((8, 8, 8), (8.0, 8.0, 8.0)), geometry((64, 64, 64))

        def peak(classes: int) -> int:
            probabilities = random_probabilities(np.random.default_rng(0), classes, working.shape, 3.0)
            tracemalloc.start()
            labels_on_grid(probabilities, working, target)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most

        few, many = peak(2), peak(40)
        # The running maximum alone takes four bytes a voxel; 40 maps would take 160.
        assert few > 4 * 64**3
        assert many < 1.1 * few
