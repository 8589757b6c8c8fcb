"""Where a grid lies, and when two grids are the same: one tolerance, a share of the voxel, at its borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from duomod.datasets.grid import SAME_WITHIN, Geometry, read_geometry

SIZE = (31, 41, 51)
SPACING = (0.8, 0.5, 2.0)
JUST_BELOW, JUST_ABOVE = 0.98 * SAME_WITHIN, 1.02 * SAME_WITHIN


def geometry(size=SIZE, spacing=SPACING, origin=(0.0, 0.0, 0.0), turn: np.ndarray | None = None) -> Geometry:
    flat = (np.eye(3) if turn is None else turn).ravel().tolist()
    return Geometry(size=size, spacing=spacing, origin=origin, direction=tuple(flat))


def shifted(share: float) -> Geometry:
    """Moved along the longest voxel edge by a share of the shortest one."""
    return geometry(origin=(0.0, 0.0, share * min(SPACING)))


def stretched(share: float) -> Geometry:
    """The last slice lies a share of the shortest edge too far; the first one where it was."""
    return geometry(spacing=(*SPACING[:2], SPACING[2] + share * min(SPACING) / (SIZE[2] - 1)))


def turned(share: float) -> Geometry:
    """Turned about x so that the farthest corner moves by a share of the shortest edge."""
    radius = np.hypot((SIZE[1] - 1) * SPACING[1], (SIZE[2] - 1) * SPACING[2])
    angle = 2 * np.arcsin(share * min(SPACING) / radius / 2)
    return geometry(turn=Rotation.from_euler("x", angle).as_matrix())


KINDS = {"origin": shifted, "spacing": stretched, "direction": turned}


class TestSame:
    @pytest.mark.parametrize("kind", KINDS)
    def test_just_within_the_tolerance_is_the_same(self, kind: str) -> None:
        assert KINDS[kind](JUST_BELOW).differences(geometry()) == []
        assert geometry().differences(KINDS[kind](JUST_BELOW)) == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_just_beyond_the_tolerance_is_told_by_what_differs(self, kind: str) -> None:
        for one, other in ((KINDS[kind](JUST_ABOVE), geometry()), (geometry(), KINDS[kind](JUST_ABOVE))):
            what, how_far = one.differences(other)
            assert what.startswith(f"{kind} (")
            assert how_far == "voxels lie up to 0.0255 mm apart"

    def test_a_spacing_that_is_right_for_few_slices_is_wrong_for_many(self) -> None:
        few, many = ((31, 41, 11), (31, 41, 1001))
        other = (0.8, 0.5, 2.001)
        assert geometry(few, other).differences(geometry(few)) == []
        assert geometry(many, other).differences(geometry(many))[0] == "spacing (0.8, 0.5, 2.001) against (0.8, 0.5, 2)"

    def test_small_differences_that_add_up_are_all_named(self) -> None:
        both = geometry(spacing=stretched(0.6 * SAME_WITHIN).spacing, origin=shifted(0.6 * SAME_WITHIN).origin)
        found = both.differences(geometry())
        assert [text.split(" ")[0] for text in found] == ["spacing", "origin", "voxels"]
        against = geometry(spacing=stretched(0.6 * SAME_WITHIN).spacing, origin=shifted(-0.6 * SAME_WITHIN).origin)
        assert against.differences(geometry()) == []  # the far end comes back

    def test_another_size_is_another_grid_wherever_it_lies(self) -> None:
        assert geometry((31, 41, 52)).differences(geometry()) == ["size (31, 41, 52) against (31, 41, 51)"]
        moved = geometry((31, 41, 52), origin=(0.0, 5.0, 0.0))
        assert [text.split(" ")[0] for text in moved.differences(geometry())] == ["size", "origin", "voxels"]

    def test_half_a_voxel_is_far_too_much(self) -> None:
        assert shifted(0.5).differences(geometry())

    @pytest.mark.parametrize("seed", range(20))
    def test_headers_of_five_decimals_over_a_whole_ct_are_the_same(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        turn = Rotation.random(random_state=seed).as_matrix()
        edges = tuple(rng.uniform((0.69, 0.69, 0.9), (0.71, 0.71, 1.1)).tolist())
        exact = geometry((512, 512, 600), edges, tuple(rng.uniform(-300, 300, 3).tolist()), turn)
        rounded = geometry(
            exact.size,
            tuple(round(v, 5) for v in exact.spacing),
            tuple(round(v, 5) for v in exact.origin),
            np.round(turn, 5),
        )
        assert rounded.differences(exact) == []

    def test_four_decimals_over_a_whole_ct_are_not(self) -> None:
        exact = geometry((512, 512, 600), (0.70005, 0.70005, 1.00005))
        assert geometry(exact.size, (0.7, 0.7, 1.0)).differences(exact)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0.0, 0.2))
    def test_the_corners_decide_for_all_voxels(self, seed: int, size_mm: float) -> None:
        rng = np.random.default_rng(seed)
        turn = Rotation.random(random_state=seed).as_matrix()
        one = geometry((5, 4, 6), tuple(rng.uniform(0.5, 3, 3).tolist()), (1.0, 2.0, 3.0), turn)
        other = geometry(
            one.size,
            tuple((np.array(one.spacing) + rng.normal(0, size_mm / 20, 3)).tolist()),
            tuple((np.array(one.origin) + rng.normal(0, size_mm / 4, 3)).tolist()),
            turn @ Rotation.from_rotvec(rng.normal(0, size_mm / 40, 3)).as_matrix(),
        )
        index = np.stack(np.meshgrid(*map(np.arange, one.size), indexing="ij"), -1).reshape(-1, 3)
        places = [index @ grid.matrix.T + np.array(grid.origin) for grid in (one, other)]
        farthest = np.linalg.norm(places[0] - places[1], axis=1).max()
        same = farthest <= SAME_WITHIN * min(*one.spacing, *other.spacing)
        assert (one.differences(other) == []) == same
        assert (other.differences(one) == []) == same


class TestGeometry:
    def test_survives_json(self) -> None:
        grid = geometry(turn=Rotation.random(random_state=0).as_matrix())
        assert Geometry.model_validate_json(grid.model_dump_json()) == grid

    def test_an_image_on_it_has_it_exactly(self) -> None:
        grid = geometry(origin=(-3.0, 4.5, 5.25), turn=Rotation.random(random_state=1).as_matrix())
        assert Geometry.of(grid.image_of(np.zeros(grid.shape, np.uint8))) == grid

    def test_an_array_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            geometry().image_of(np.zeros(SIZE, np.uint8))

    def test_index_to_world_is_itks(self) -> None:
        grid = geometry(origin=(-3.0, 4.5, 5.25), turn=Rotation.random(random_state=2).as_matrix())
        image = grid.image_of(np.zeros(grid.shape, np.uint8))
        world = grid.matrix @ (3, 7, 11) + np.array(grid.origin)
        assert np.allclose(world, image.TransformIndexToPhysicalPoint((3, 7, 11)), rtol=0, atol=1e-9)

    def test_read_from_a_file(self, tmp_path: Path) -> None:
        quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix().round()
        grid = geometry(origin=(-3.0, 4.0, 5.0), turn=quarter)
        sitk.WriteImage(grid.image_of(np.zeros(grid.shape, np.uint8)), str(tmp_path / "a.nii.gz"))
        assert read_geometry(tmp_path / "a.nii.gz").differences(grid) == []
