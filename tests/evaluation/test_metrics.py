"""Shapes whose metrics are known by hand, a brute-force definition, and independent implementations as oracles."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from duomod.errors import InputError
from duomod.evaluation import metrics as package
from duomod.evaluation.metrics import ASD_VARIANTS, METRICS, Metric, Pair, registry, select_metrics, surfaces
from duomod.evaluation.metrics.asd import assd, mean_of_means
from duomod.evaluation.metrics.base import Measure
from duomod.evaluation.metrics.overlap import class_dice
from duomod.evaluation.metrics.surfaces import BoolArray, Spacing, surface, surface_distances
from duomod.evaluation.policy import OrganStatus, get_policy
from duomod.evaluation.scoring import score_classes

ISOTROPIC = (1.0, 1.0, 1.0)


def box(shape: tuple[int, int, int], low: tuple[int, int, int], high: tuple[int, int, int]) -> BoolArray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def ellipsoid(shape: tuple[int, int, int], centre: tuple[float, ...], radii: tuple[float, ...]) -> BoolArray:
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grids, centre, radii, strict=True)) <= 1


def score(
    prediction: BoolArray,
    truth: BoolArray,
    spacing: Spacing = ISOTROPIC,
    tolerance: float = 1.0,
    metrics: Sequence[Metric] = tuple(METRICS.values()),
) -> dict[str, float]:
    (only,) = score_classes(
        prediction.astype(np.uint8), truth.astype(np.uint8), spacing, 2, metrics, get_policy("default"), [tolerance]
    )
    return only.values


def itk_average_hausdorff(prediction: BoolArray, truth: BoolArray, spacing: Spacing = ISOTROPIC) -> float:
    return score(prediction, truth, spacing, metrics=[ASD_VARIANTS["itk_average_hausdorff"]])["ITKAverageHausdorff"]


def brute_force(prediction: BoolArray, truth: BoolArray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Directed distances by the definition: surface voxels found one by one, all pairs compared."""

    def points(mask: BoolArray) -> np.ndarray:
        found = []
        for z, y, x in np.argwhere(mask):
            for dz, dy, dx in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                near = (z + dz, y + dy, x + dx)
                outside = any(i < 0 or i >= n for i, n in zip(near, mask.shape, strict=True))
                if outside or not mask[near]:
                    found.append((z, y, x))
                    break
        return np.asarray(found) * spacing

    p, t = points(prediction), points(truth)
    table = np.linalg.norm(p[:, None] - t[None], axis=2)
    return table.min(axis=1), table.min(axis=0)


class TestShapesKnownByHand:
    cube = box((40, 40, 40), (10, 10, 10), (24, 24, 24))

    def test_box_two_voxels_longer_on_one_face(self) -> None:
        # 14^3 has 14^3 - 12^3 = 1016 surface voxels, 16x14x14 has 16*14*14 - 14*12*12 = 1120.
        longer = box((40, 40, 40), (10, 10, 10), (26, 24, 24))
        values = score(longer, self.cube)
        assert values["ASD"] == pytest.approx(0.322, abs=5e-4)
        assert values["Dice"] == pytest.approx(2 * 14 / (14 + 16))
        assert values["IoU"] == pytest.approx(14 / 16)
        assert values["Precision"] == pytest.approx(14 / 16)
        assert values["Recall"] == 1.0
        assert values["HD"] == 2.0
        assert values["VolumeDifference"] == pytest.approx(2 * 14 * 14 / 1000)

    def test_box_shifted_by_two_voxels(self) -> None:
        values = score(np.roll(self.cube, 2, axis=0), self.cube)
        assert values["ASD"] == pytest.approx(0.677, abs=5e-4)
        assert values["HD"] == 2.0
        assert values["Dice"] == pytest.approx(12 / 14)
        assert values["VolumeDifference"] == 0

    def test_the_reference_average_is_diluted_by_the_volume(self) -> None:
        longer = box((40, 40, 40), (10, 10, 10), (26, 24, 24))
        shifted = np.roll(self.cube, 2, axis=0)
        assert itk_average_hausdorff(longer, self.cube) == pytest.approx(0.094, abs=5e-4)
        assert itk_average_hausdorff(shifted, self.cube) == pytest.approx(0.214, abs=5e-4)

    def test_two_single_voxels(self) -> None:
        a, b = box((5, 5, 9), (1, 1, 1), (2, 2, 2)), box((5, 5, 9), (1, 1, 5), (2, 2, 6))
        values = score(a, b, (3.0, 2.0, 0.5), tolerance=2.0)
        assert values["ASD"] == values["HD"] == values["HD95"] == values["ASDOneWay"] == 2.0
        assert values["NSD"] == 1.0
        assert score(a, b, (3.0, 2.0, 0.5), tolerance=1.9)["NSD"] == 0.0

    def test_a_tolerance_of_whole_voxels_includes_them(self) -> None:
        a, b = box((5, 5, 9), (1, 1, 1), (2, 2, 2)), box((5, 5, 9), (1, 1, 4), (2, 2, 5))
        assert score(a, b, (1.0, 1.0, 0.7), tolerance=2.1)["NSD"] == 1.0

    def test_a_mask_that_fills_the_image_has_its_surface_at_the_border(self) -> None:
        assert np.count_nonzero(surface(np.ones((4, 5, 6), bool))) == 4 * 5 * 6 - 2 * 3 * 4

    def test_pooled_and_mean_of_means_differ_when_the_surfaces_do(self) -> None:
        longer = box((40, 40, 40), (10, 10, 10), (26, 24, 24))
        distances = surface_distances(longer, self.cube, ISOTROPIC)
        assert mean_of_means(distances) == pytest.approx(0.31829, abs=1e-5)
        assert assd(distances) == pytest.approx(0.32210, abs=1e-5)


class TestProperties:
    shape = (9, 12, 10)

    @settings(max_examples=40, deadline=None)
    @given(
        arrays(bool, (4, 5, 3)).filter(np.any),
        arrays(bool, (4, 5, 3)).filter(np.any),
        st.tuples(*[st.sampled_from([0.5, 1.0, 0.7, 3.0])] * 3),
    )
    def test_distances_are_those_of_the_definition(self, p: BoolArray, t: BoolArray, spacing: Spacing) -> None:
        distances = surface_distances(p, t, spacing)
        expected = brute_force(p, t, spacing)
        np.testing.assert_allclose(np.sort(distances.pred_to_truth), np.sort(expected[0]), rtol=1e-6)
        np.testing.assert_allclose(np.sort(distances.truth_to_pred), np.sort(expected[1]), rtol=1e-6)

    def test_a_perfect_prediction(self) -> None:
        mask = ellipsoid(self.shape, (4, 6, 5), (3, 4, 4))
        values = score(mask, mask)
        assert values == {m.column: 1.0 if m.kind == "overlap" else 0.0 for m in METRICS.values()}

    def test_swapping_the_sides_keeps_symmetric_metrics_and_swaps_precision_and_recall(self) -> None:
        a, b = ellipsoid(self.shape, (4, 6, 5), (3, 4, 4)), ellipsoid(self.shape, (5, 5, 5), (3, 3, 4))
        one, other = score(a, b, (2.0, 1.0, 0.8)), score(b, a, (2.0, 1.0, 0.8))
        for name in ("Dice", "IoU", "ASD", "HD95", "HD", "NSD"):
            assert one[name] == pytest.approx(other[name]), name
        assert one["Precision"] == pytest.approx(other["Recall"])
        assert one["VolumeDifference"] == pytest.approx(-other["VolumeDifference"])

    def test_distances_scale_with_the_voxel_size(self) -> None:
        a, b = ellipsoid(self.shape, (4, 6, 5), (3, 4, 4)), ellipsoid(self.shape, (5, 5, 5), (3, 3, 4))
        once, thrice = score(a, b, (2.0, 1.0, 0.8), 1.0), score(a, b, (6.0, 3.0, 2.4), 3.0)
        for name in ("ASD", "ASDOneWay", "HD95", "HD"):
            assert thrice[name] == pytest.approx(3 * once[name], rel=1e-6)
        assert thrice["NSD"] == once["NSD"]

    def test_where_a_class_lies_and_what_surrounds_it_is_irrelevant(self) -> None:
        a, b = ellipsoid(self.shape, (4, 6, 5), (3, 4, 4)), ellipsoid(self.shape, (5, 5, 5), (3, 3, 4))
        alone = score(a, b)
        padding = ((3, 1), (2, 8), (0, 5))
        pred, truth = (np.pad(mask.astype(np.uint8) * 2, padding) for mask in (a, b))
        pred[0, 0, 0] = truth[-1, -1, -1] = 1
        scores = score_classes(pred, truth, ISOTROPIC, 4, list(METRICS.values()), get_policy("default"), [1.0] * 3)
        assert scores[1].values == pytest.approx(alone)
        assert [s.status for s in scores] == [OrganStatus.MISPLACED, OrganStatus.DETECTED, OrganStatus.ABSENT]

    @pytest.mark.parametrize("asked_first", ["map", "tree"])
    def test_both_ways_to_find_distances_agree(self, asked_first: str, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = ellipsoid((30, 30, 30), (14, 14, 14), (9, 8, 10)), ellipsoid((30, 30, 30), (15, 16, 13), (8, 9, 10))
        a[0, 0, 0] = b[-1, -1, -1] = True
        expected = brute_force(a, b, (2.0, 0.7, 1.1))
        monkeypatch.setattr(surfaces, "_QUERY_COST", 1e12 if asked_first == "map" else 0.0)
        found = surface_distances(a, b, (2.0, 0.7, 1.1))
        np.testing.assert_allclose(np.sort(found.pred_to_truth), np.sort(expected[0]), rtol=1e-6)
        np.testing.assert_allclose(np.sort(found.truth_to_pred), np.sort(expected[1]), rtol=1e-6)

    def test_volumes_are_in_millilitres(self) -> None:
        pred, truth = box((10, 10, 10), (0, 0, 0), (5, 5, 4)), box((10, 10, 10), (0, 0, 0), (5, 5, 8))
        (only,) = score_classes(
            pred.astype(np.uint8),
            truth.astype(np.uint8),
            (2.0, 1.0, 5.0),
            2,
            select_metrics(["volume_difference"]),
            get_policy("default"),
            [1.0],
        )
        assert (only.predicted_ml, only.true_ml) == pytest.approx((1.0, 2.0))
        assert only.values["VolumeDifference"] == pytest.approx(-1.0)


class TestIndependentImplementations:
    shape = (20, 40, 36)
    spacing = (3.0, 0.8, 1.1)

    @pytest.fixture
    def pair(self) -> tuple[BoolArray, BoolArray]:
        rng = np.random.default_rng(1)
        pred, truth = ellipsoid(self.shape, (9, 20, 18), (7, 14, 12)), ellipsoid(self.shape, (10, 21, 17), (8, 12, 13))
        # Ragged surfaces, a hole and a far speck: not only smooth shapes.
        return pred ^ (surface(pred) & (rng.random(self.shape) < 0.3)) | box(self.shape, (0, 0, 0), (1, 2, 1)), truth

    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_monai_surface_distance_hausdorff_and_surface_dice(self, pair: tuple[BoolArray, BoolArray]) -> None:
        monai = pytest.importorskip("monai.metrics")
        import torch

        pred, truth = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in pair)
        options = {"include_background": True, "spacing": self.spacing}
        values = score(*pair, self.spacing, tolerance=1.5)
        asd = monai.compute_average_surface_distance
        assert values["ASD"] == pytest.approx(asd(pred, truth, symmetric=True, **options).item(), rel=1e-5)
        assert values["ASDOneWay"] == pytest.approx(asd(pred, truth, symmetric=False, **options).item(), rel=1e-5)
        hausdorff = monai.compute_hausdorff_distance
        assert values["HD"] == pytest.approx(hausdorff(pred, truth, **options).item(), rel=1e-5)
        assert values["HD95"] == pytest.approx(hausdorff(pred, truth, percentile=95, **options).item(), rel=1e-5)
        nsd = monai.compute_surface_dice(pred, truth, class_thresholds=[1.5], **options).item()
        assert values["NSD"] == pytest.approx(nsd, rel=1e-5)

    def test_simpleitk_average_hausdorff_and_dice(self, pair: tuple[BoolArray, BoolArray]) -> None:
        images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in pair]
        for image in images:
            image.SetSpacing(self.spacing[::-1])
        hausdorff, overlap = sitk.HausdorffDistanceImageFilter(), sitk.LabelOverlapMeasuresImageFilter()
        hausdorff.Execute(*images)
        overlap.Execute(images[1], images[0])
        assert itk_average_hausdorff(*pair, self.spacing) == pytest.approx(
            hausdorff.GetAverageHausdorffDistance(), rel=1e-5
        )
        assert score(*pair, self.spacing)["Dice"] == pytest.approx(overlap.GetDiceCoefficient(1))
        assert score(*pair, self.spacing)["IoU"] == pytest.approx(overlap.GetJaccardCoefficient(1))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_surface_distance_package_agrees_on_extents_and_weighs_by_area(self) -> None:
        """Its surface runs between voxels and is weighted by area: only the largest distance is exactly comparable."""
        peer = pytest.importorskip("surface_distance.metrics")
        pred, truth = box((12, 30, 30), (2, 5, 5), (8, 20, 20)), box((12, 30, 30), (2, 5, 9), (8, 20, 24))
        distances = peer.compute_surface_distances(truth, pred, self.spacing)
        values = score(pred, truth, self.spacing)
        assert peer.compute_robust_hausdorff(distances, 100) == pytest.approx(values["HD"], rel=1e-6)
        # On a smooth shape in isotropic voxels the conventions come close, but are not the same number.
        pred, truth = (
            ellipsoid((44, 52, 50), (20, 25, 25), (15, 20, 18)),
            ellipsoid((44, 52, 50), (24, 25, 25), (15, 20, 18)),
        )
        distances = peer.compute_surface_distances(truth, pred, ISOTROPIC)
        theirs = np.mean(peer.compute_average_surface_distance(distances))
        ours = score(pred, truth)["ASD"]
        assert ours == pytest.approx(theirs, rel=0.2)
        assert ours != pytest.approx(theirs, rel=0.005)


class TestChoice:
    def test_unknown_names_are_listed_together_with_the_nearest(self) -> None:
        with pytest.raises(InputError) as caught:
            select_metrics(["dise", "dice"], asd="asssd")
        assert len(caught.value.problems) == 2
        assert "Did you mean 'dice'?" in caught.value.problems[0]
        assert "Did you mean 'assd'?" in caught.value.problems[1]

    def test_variants_never_use_the_column_of_the_default(self) -> None:
        columns = {name: metric.column for name, metric in ASD_VARIANTS.items()}
        assert columns.pop("assd") == "ASD"
        assert "ASD" not in columns.values()
        assert len(set(columns.values())) == len(columns)

    def test_the_same_thing_under_two_names_is_refused(self) -> None:
        with pytest.raises(InputError, match="the same thing"):
            select_metrics(["asd", "asd_one_way"], asd="one_way")

    def test_nothing_chosen_is_refused(self) -> None:
        with pytest.raises(InputError, match="no metric chosen"):
            select_metrics([])


class TestANewMetricIsANewFile:
    NEW = """
from duomod.evaluation.metrics.base import Measure, overlap

MEASURES = (Measure(overlap("specificity", "{column}", "invented"), lambda pair: 0.25),)
"""

    def measures(self, folder: Path, column: str, monkeypatch: pytest.MonkeyPatch) -> list[Measure]:
        (folder / "specificity.py").write_text(self.NEW.format(column=column))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, "duomod.evaluation.metrics.specificity", raising=False)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
        try:
            return registry.measures_in(package.__path__)
        finally:
            sys.dont_write_bytecode = kept
            sys.modules.pop("duomod.evaluation.metrics.specificity")

    def test_it_is_found_beside_the_others_and_computed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.measures(tmp_path, "Specificity", monkeypatch)
        assert {m.metric.name for m in found} == {*METRICS, "specificity"}
        mask = np.ones((2, 2, 2), bool)
        assert registry.by_column(found)["Specificity"].compute(Pair(mask, mask, ISOTROPIC, 1.0, 8, 8, 8)) == 0.25

    def test_a_column_that_another_metric_fills_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(InputError, match="two metrics fill the column Dice"):
            registry.by_column(self.measures(tmp_path, "Dice", monkeypatch))

    def test_a_name_that_another_metric_has_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.measures(tmp_path, "Specificity", monkeypatch)
        assert list(registry.by_name(found)).count("specificity") == 1
        with pytest.raises(InputError, match="two metrics are called 'specificity'"):
            registry.by_name([*found, *self.measures(tmp_path, "Other", monkeypatch)])

    @pytest.mark.parametrize("text", ["def helper(): ...", "MEASURES = 5", "MEASURES = (1, 2)"])
    def test_a_file_without_measures_is_named(self, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self, "NEW", text, raising=False)
        with pytest.raises(InputError, match=r"specificity\.py: has no MEASURES, a tuple of Measure"):
            self.measures(tmp_path, "Specificity", monkeypatch)


class TestClassDice:
    def test_known_by_hand(self) -> None:
        truth = np.array([[[0, 1, 1, 2]]], np.uint8)
        prediction = np.array([[[0, 1, 0, 0]]], np.uint8)
        dice = class_dice(prediction, truth, 4)
        assert dice[:3].tolist() == [2 / 4, 2 / 3, 0]
        assert np.isnan(dice[3])

    @settings(max_examples=40, deadline=None)
    @given(arrays(np.uint8, (2, 3, 4, 5), elements=st.integers(0, 4)))
    def test_training_and_evaluation_agree_to_the_last_bit(self, maps: np.ndarray) -> None:
        prediction, truth = maps
        chosen, policy = select_metrics(["dice"]), get_policy("default")
        scored = score_classes(prediction, truth, ISOTROPIC, 5, chosen, policy, [1.0] * 4)
        assert np.array_equal(
            class_dice(prediction, truth, 5)[1:], [one.values["Dice"] for one in scored], equal_nan=True
        )
