"""Overlap and surface metrics of label maps, from one distance map per class and side on the cropped box.

Conventions. A *surface voxel* belongs to the mask and has at least one of its six face neighbours outside it; what lies
beyond the image's border counts as outside (as in MONAI and medpy). Distances run between voxel centres, in mm. The
average symmetric surface distance pools the distances of both surfaces: (sum over P + sum over T) / (|P| + |T|).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from duomod.errors import InputError, nearest_name
from duomod.evaluation.policy import EmptyPolicy, OrganStatus, organ_status

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Box = tuple[slice, ...]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Metric:
    """What a metric is called, what it means and how it is shown.

    Attributes:
        name: How it is asked for.
        column: Prefix of its columns in a result file: ``<column>_Class1``.
        title: Head of its column in tables, with the unit.
        kind: ``overlap`` (0 to 1), ``distance`` (0 upwards) or ``volume`` (ml).
        higher_is_better: None where neither is (a signed difference).
        scale: Factor for display (100 for per cent).
        decimals: Decimals in tables.
        meaning: The definition in words, written into result files.
    """

    name: str
    column: str
    title: str
    kind: Literal["overlap", "distance", "volume"]
    higher_is_better: bool | None
    scale: float
    decimals: int
    meaning: str


def _overlap(name: str, column: str, meaning: str) -> Metric:
    return Metric(name, column, f"{column} (%)", "overlap", True, 100.0, 2, meaning)


def _distance(name: str, column: str, meaning: str, unit: str = "mm") -> Metric:
    return Metric(name, column, f"{column} ({unit})", "distance", False, 1.0, 3, meaning)


_ASSD = "average symmetric surface distance in mm: mean over the voxels of both surfaces together"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _overlap("dice", "Dice", "Dice coefficient: 2 |P and T| / (|P| + |T|)"),
        _overlap("iou", "IoU", "intersection over union: |P and T| / |P or T|"),
        _overlap("precision", "Precision", "share of predicted voxels that are true: |P and T| / |P|"),
        _overlap("recall", "Recall", "share of true voxels that are predicted: |P and T| / |T|"),
        _distance("asd", "ASD", _ASSD),
        _distance("asd_one_way", "ASDOneWay", "mean distance in mm from the predicted surface to the true surface"),
        _distance("hd95", "HD95", "larger of the two directed 95th percentiles of the surface distances, in mm"),
        _distance("hd", "HD", "Hausdorff distance: largest surface distance in mm"),
        _overlap(
            "nsd",
            "NSD",
            "normalised surface Dice: share of the voxels of both surfaces within the tolerance of the other one",
        ),
        Metric(
            "volume_difference",
            "VolumeDifference",
            "VolumeDifference (ml)",
            "volume",
            None,
            1.0,
            2,
            "predicted minus true volume in ml",
        ),
    )
}

#: What the metric called ``asd`` may be. Only ``assd`` fills columns named ASD; the others carry their own names.
ASD_VARIANTS: dict[str, Metric] = {
    "assd": METRICS["asd"],
    "assd_mean_of_means": _distance(
        "asd",
        "ASSDMeanOfMeans",
        "average symmetric surface distance in mm as medpy has it: mean of the two directed means",
    ),
    "one_way": _distance("asd", "ASDOneWay", METRICS["asd_one_way"].meaning),
    "itk_average_hausdorff": _distance(
        "asd",
        "ITKAverageHausdorff",
        "SimpleITK's GetAverageHausdorffDistance in mm: mean of the two directed averages over ALL voxels of the masks,"
        " voxels in the overlap counting 0. A volume average, not a surface distance",
    ),
}


def select_metrics(names: Sequence[str], asd: str = "assd") -> list[Metric]:
    """Return the metrics that were asked for, with the chosen variant in place of ``asd``.

    Raises:
        InputError: lists every unknown name; no metric is given twice.
    """
    problems = [
        f"unknown metric '{name}'.{nearest_name(name, METRICS)} Known: {', '.join(METRICS)}."
        for name in names
        if name not in METRICS
    ]
    if asd not in ASD_VARIANTS:
        problems.append(
            f"unknown ASD variant '{asd}'.{nearest_name(asd, ASD_VARIANTS)} Known: {', '.join(ASD_VARIANTS)}."
        )
    if not names:
        problems.append(f"no metric chosen; known: {', '.join(METRICS)}")
    if problems:
        raise InputError(problems)
    chosen = [ASD_VARIANTS[asd] if name == "asd" else METRICS[name] for name in dict.fromkeys(names)]
    if len({metric.column for metric in chosen}) != len(chosen):
        raise InputError("asd=one_way and the metric asd_one_way are the same thing; leave one out")
    return chosen


def surface(mask: BoolArray) -> BoolArray:
    """Return the surface voxels of a mask (D, H, W): those with a face neighbour outside. The border is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        here, there = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
        here[0] = False
        here[-1] = False
    return mask ^ inner


def _by_distance_map(source: BoolArray, target: BoolArray, spacing_mm: Spacing) -> FloatArray:
    """Distances from the voxels of ``source`` to the nearest voxel of ``target`` through a distance map of the box."""
    outside = np.ascontiguousarray(~target).view(np.uint8)
    squared = edt.edtsq(outside, anisotropy=spacing_mm, parallel=1)
    distances: FloatArray = np.sqrt(squared[source], dtype=np.float64)
    return distances


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm between two surfaces, one value per surface voxel, in no particular order."""

    pred_to_truth: FloatArray
    truth_to_pred: FloatArray

    def assd(self) -> float:
        """Mean over both surfaces together."""
        total = float(self.pred_to_truth.sum() + self.truth_to_pred.sum())
        return total / (self.pred_to_truth.size + self.truth_to_pred.size)

    def mean_of_means(self) -> float:
        """Mean of the two directed means."""
        return (float(self.pred_to_truth.mean()) + float(self.truth_to_pred.mean())) / 2

    def one_way(self) -> float:
        """Mean distance from the predicted to the true surface."""
        return float(self.pred_to_truth.mean())

    def hausdorff(self, percentile: float = 100.0) -> float:
        """Larger of the two directed percentiles (0 to 100, linear interpolation)."""
        if percentile == 100.0:
            return float(max(self.pred_to_truth.max(), self.truth_to_pred.max()))
        return float(max(np.percentile(self.pred_to_truth, percentile), np.percentile(self.truth_to_pred, percentile)))

    def nsd(self, tolerance_mm: float) -> float:
        """Share (0 to 1) of both surfaces that lies within ``tolerance_mm`` of the other one."""
        # Distances come from single precision maps: without the slack, 3 * 0.7 mm would miss a tolerance of 2.1 mm.
        limit = tolerance_mm * (1 + 1e-6) + 1e-9
        within = np.count_nonzero(self.pred_to_truth <= limit) + np.count_nonzero(self.truth_to_pred <= limit)
        return within / (self.pred_to_truth.size + self.truth_to_pred.size)


#: A distance map costs about this much per voxel of the box, a nearest-point query this much per surface voxel (ns).
_MAP_COST, _QUERY_COST = 18.0, 2000.0


def surface_distances(prediction: BoolArray, truth: BoolArray, spacing_mm: Spacing) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks.

    Args:
        prediction: Mask (D, H, W), not empty.
        truth: Mask of the same shape, not empty.
        spacing_mm: Voxel size along z, y, x.
    """
    pred_surface, true_surface = surface(prediction), surface(truth)
    surface_voxels = np.count_nonzero(pred_surface) + np.count_nonzero(true_surface)
    if surface_voxels * _QUERY_COST < 2 * prediction.size * _MAP_COST:
        # A few specks far from a small organ make the box huge and nearly empty; asking for the nearest of few points
        # is then many times cheaper than mapping the whole box, and gives the same distances.
        points = [np.argwhere(mask) * np.asarray(spacing_mm) for mask in (pred_surface, true_surface)]
        trees = [KDTree(cloud) for cloud in points]
        return SurfaceDistances(trees[1].query(points[0])[0], trees[0].query(points[1])[0])
    return SurfaceDistances(
        _by_distance_map(pred_surface, true_surface, spacing_mm),
        _by_distance_map(true_surface, pred_surface, spacing_mm),
    )


def itk_average_hausdorff(prediction: BoolArray, truth: BoolArray, spacing_mm: Spacing) -> float:
    """Return SimpleITK's ``GetAverageHausdorffDistance`` in mm: a volume average, not a surface distance."""
    to_truth = _by_distance_map(prediction, truth, spacing_mm)
    to_prediction = _by_distance_map(truth, prediction, spacing_mm)
    return (float(to_truth.mean()) + float(to_prediction.mean())) / 2


@dataclass(frozen=True)
class _Pair:
    """Two masks of one class on their common box, both with voxels in them."""

    prediction: BoolArray
    truth: BoolArray
    spacing_mm: Spacing
    tolerance_mm: float
    counts: tuple[int, int, int]  # predicted, true, common


def dice(predicted: int, true: int, common: int) -> float:
    """Return the Dice coefficient (0 to 1) that belongs to three voxel counts; the first two may not both be 0."""
    return 2 * common / (predicted + true)


def class_dice(prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int) -> FloatArray:
    """Return Dice per class (C,), background included; NaN where a class is in neither map.

    Args:
        prediction: Label map of any shape, values below ``num_classes``.
        truth: Label map of the same shape.
        num_classes: C.
    """
    maps = (prediction, truth, prediction[prediction == truth])
    counts = (np.bincount(one.ravel(), minlength=num_classes).tolist() for one in maps)
    return np.asarray([dice(p, t, both) if p + t else np.nan for p, t, both in zip(*counts, strict=True)])


_OVERLAPS: dict[str, Callable[[int, int, int], float]] = {
    "Dice": dice,
    "IoU": lambda p, t, both: both / (p + t - both),
    "Precision": lambda p, t, both: both / p,
    "Recall": lambda p, t, both: both / t,
}

_DISTANCES: dict[str, Callable[[SurfaceDistances, float], float]] = {
    "ASD": lambda distances, tolerance: distances.assd(),
    "ASSDMeanOfMeans": lambda distances, tolerance: distances.mean_of_means(),
    "ASDOneWay": lambda distances, tolerance: distances.one_way(),
    "HD95": lambda distances, tolerance: distances.hausdorff(95.0),
    "HD": lambda distances, tolerance: distances.hausdorff(),
    "NSD": lambda distances, tolerance: distances.nsd(tolerance),
}


def _score_pair(pair: _Pair, metrics: Sequence[Metric]) -> dict[str, float]:
    distances: SurfaceDistances | None = None
    scores: dict[str, float] = {}
    for column in (metric.column for metric in metrics):
        if column in _OVERLAPS:
            scores[column] = _OVERLAPS[column](*pair.counts)
        elif column in _DISTANCES:
            if distances is None:
                distances = surface_distances(pair.prediction, pair.truth, pair.spacing_mm)
            scores[column] = _DISTANCES[column](distances, pair.tolerance_mm)
        elif column == "ITKAverageHausdorff":
            scores[column] = itk_average_hausdorff(pair.prediction, pair.truth, pair.spacing_mm)
    return scores


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one case: value per metric column, status, and volumes in ml."""

    values: dict[str, float]
    status: OrganStatus
    predicted_ml: float
    true_ml: float


def absent_class(metrics: Sequence[Metric], policy: EmptyPolicy) -> ClassScores:
    """Return the scores of a class that is in neither mask."""
    values = {m.column: policy.both_overlap if m.kind == "overlap" else policy.both_distance for m in metrics}
    return ClassScores(values, OrganStatus.ABSENT, 0.0, 0.0)


def _union(boxes: Sequence[Box | None]) -> Box | None:
    present = [box for box in boxes if box is not None]
    if not present:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*present, strict=True))


def score_classes(
    prediction: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    num_classes: int,
    metrics: Sequence[Metric],
    policy: EmptyPolicy,
    tolerances_mm: Sequence[float],
) -> list[ClassScores]:
    """Score classes 1 .. ``num_classes`` - 1 of a pair of label maps.

    Args:
        prediction: Label map (D, H, W), values below ``num_classes``.
        truth: Label map of the same shape.
        spacing_mm: Voxel size along z, y, x.
        num_classes: Number of classes, background included.
        metrics: See :func:`select_metrics`.
        policy: What to do when a mask is empty.
        tolerances_mm: NSD tolerance of each class 1 .. ``num_classes`` - 1.
    """
    diagonal_mm = float(np.linalg.norm(np.asarray(truth.shape) * np.asarray(spacing_mm)))
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    # One look at each volume finds every organ's box; all further work happens inside the boxes.
    pred_boxes = ndimage.find_objects(prediction, max_label=num_classes - 1)
    true_boxes = ndimage.find_objects(truth, max_label=num_classes - 1)
    scores = []
    for label in range(1, num_classes):
        box = _union((pred_boxes[label - 1], true_boxes[label - 1]))
        if box is None:
            scores.append(absent_class(metrics, policy))
            continue
        pred_mask, true_mask = prediction[box] == label, truth[box] == label
        predicted, true = int(np.count_nonzero(pred_mask)), int(np.count_nonzero(true_mask))
        common = int(np.count_nonzero(pred_mask & true_mask))
        if predicted and true:
            pair = _Pair(pred_mask, true_mask, spacing_mm, tolerances_mm[label - 1], (predicted, true, common))
            values = _score_pair(pair, metrics)
        else:
            far = policy.distance_when_one_is_empty(diagonal_mm)
            values = {m.column: 0.0 if m.kind == "overlap" else far for m in metrics}
        for metric in metrics:
            if metric.kind == "volume":
                values[metric.column] = (predicted - true) * voxel_ml
        status = organ_status(predicted, true, common)
        scores.append(ClassScores(values, status, predicted * voxel_ml, true * voxel_ml))
    return scores
