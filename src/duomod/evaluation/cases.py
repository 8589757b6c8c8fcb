"""One case: find its two files, read them, check that they fit, score every class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from duomod.console import say
from duomod.datasets.case_names import SCAN_ENDINGS, case_id
from duomod.datasets.folder import content, without_suffix
from duomod.datasets.grid import Geometry
from duomod.datasets.labels import Labels, read_labels
from duomod.datasets.reorder import Reordering, reordering
from duomod.datasets.scan import say_doubts
from duomod.errors import InputError
from duomod.evaluation.metrics import Metric
from duomod.evaluation.metrics.overlap import dice
from duomod.evaluation.mix_ups import LOW, Fit, Mirror, fits, mirror
from duomod.evaluation.policy import OrganStatus, get_policy
from duomod.evaluation.protocols import DHC_GRID, score_dhc
from duomod.evaluation.scoring import ClassScores, absent_class, score_classes
from duomod.evaluation.settings import TOLERANCE_MM
from duomod.version import __version__


@dataclass(frozen=True)
class Settings:
    """Everything besides the two files that a case's scores depend on.

    Attributes:
        metrics: What to compute.
        policy: Name of the empty-class policy.
        protocol: ``default`` or ``dhc``.
        num_classes: Background included; None: as many as the labels show.
        tolerances_mm: NSD tolerance: one value for all classes, or one per class 1, 2, ...
        label_merges: Raw label value -> class index.
    """

    metrics: tuple[Metric, ...]
    policy: str
    protocol: str = "default"
    num_classes: int | None = None
    tolerances_mm: tuple[float, ...] = (TOLERANCE_MM,)
    label_merges: Mapping[int, int] = field(default_factory=dict)

    def digest(self) -> str:
        """Return a short identity: other settings, or another version of the package, have another one."""
        data = json.dumps([__version__, asdict(self)], sort_keys=True, default=str)
        return hashlib.sha256(data.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pair:
    """The two files of a case; ``prediction`` is None when it is missing and that was allowed."""

    name: str
    prediction: Path | None
    truth: Path

    def key(self, settings: Settings) -> str:
        """Return the identity of what is scored: both files' size and time of change, and the settings."""
        parts = [settings.digest()]
        for path in (self.prediction, self.truth):
            facts = path.stat() if path else None
            parts.append(f"{facts.st_size}-{facts.st_mtime_ns}" if facts else "missing")
        return "/".join(parts)


class CaseScores(BaseModel):
    """Scores of one case; lists have one entry per class 1, 2, ...; kept on disk while an evaluation runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    key: str
    missing: bool
    values: dict[str, list[float]]
    status: list[OrganStatus]
    predicted_ml: list[float]
    true_ml: list[float]
    reordered: str = ""
    fits: list[Fit] = []
    mirror: Mirror | None = None

    @property
    def num_foreground(self) -> int:
        """Number of classes scored, without the background."""
        return len(self.status)

    def extended(self, num_foreground: int, settings: Settings) -> CaseScores:
        """Return the same with more classes, which are absent from this case."""
        more = num_foreground - self.num_foreground
        absent = absent_class(settings.metrics, get_policy(settings.policy))
        return self.model_copy(
            update={
                "values": {column: row + [absent.values[column]] * more for column, row in self.values.items()},
                "status": self.status + [absent.status] * more,
                "predicted_ml": self.predicted_ml + [0.0] * more,
                "true_ml": self.true_ml + [0.0] * more,
            }
        )


def find_pairs(
    pred_path: Path,
    gt_path: Path,
    *,
    image_suffix: str = "",
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> tuple[list[Pair], list[str]]:
    """Match predictions with truths by case id.

    Args:
        pred_path: Folder of label maps, or one file.
        gt_path: Folder of label maps, or one file.
        image_suffix: Stripped from a name where only that makes it the name of the other folder's file.
        cases: Only these case ids (or file names); files of other cases are then no error.
        allow_missing: Take a case without prediction as one where nothing was predicted.

    Returns:
        The pairs, and one message per missing or extra file.

    Raises:
        InputError: a path does not exist, one is a folder and the other a file, or there is no label map at all.
    """
    absent = [f"{path}: no such file or folder" for path in (pred_path, gt_path) if not path.exists()]
    if absent:
        raise InputError(absent)
    if pred_path.is_dir() != gt_path.is_dir():
        raise InputError(f"{pred_path} and {gt_path}: give two folders, or two files")
    if not gt_path.is_dir():
        say_doubts([pred_path, gt_path])
        return [Pair(gt_path.name, pred_path, gt_path)], []
    found, wanted_maps = content(pred_path), content(gt_path)
    say(found.summary)
    say(wanted_maps.summary)
    problems = [*found.problems, *wanted_maps.problems]
    truths = without_suffix(wanted_maps.files, found.files, image_suffix)
    predictions = without_suffix(found.files, truths, image_suffix)
    if not truths:
        raise InputError(f"{gt_path}: holds no label map ({', '.join(SCAN_ENDINGS)})")
    wanted = list(truths)
    if cases is not None:
        wanted = list(without_suffix(dict.fromkeys(map(case_id, cases), pred_path), truths, image_suffix))
        problems += [f"{gt_path}: has no label map of the case {case}" for case in wanted if case not in truths]
        wanted = [case for case in wanted if case in truths]
    else:
        problems += [
            f"{path}: extra file, {gt_path} has no case {case}; remove it, or name the cases to evaluate"
            for case, path in predictions.items()
            if case not in truths
        ]
    if not allow_missing:
        problems += [
            f"{pred_path}: no prediction of the case {case} (truth: {truths[case].name}); add it, or allow missing"
            " predictions to score it as all-missed"
            for case in wanted
            if case not in predictions
        ]
    pairs = [Pair(truths[case].name, predictions.get(case), truths[case]) for case in wanted]
    pairs = [pair for pair in pairs if pair.prediction or allow_missing]
    say_doubts([path for pair in pairs for path in (pair.prediction, pair.truth) if path is not None])
    return pairs, problems


def score_case(pair: Pair, settings: Settings) -> CaseScores:
    """Read and score one case.

    Raises:
        InputError: a file cannot be read, has unknown labels, or the two grids differ; all of it is listed.
    """
    key = pair.key(settings)
    problems: list[str] = []
    maps: list[tuple[Labels, Geometry]] = []
    for path in (pair.truth, pair.prediction):
        if path is not None:
            try:
                maps.append(read_labels(path, settings.num_classes, settings.label_merges))
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    truth, geometry = maps[0]
    prediction, pred_geometry = maps[-1] if pair.prediction else (np.zeros_like(truth), geometry)
    # DHC's predictions lie on its own grid and are compared with the truth resized to it.
    on_dhc_grid = settings.protocol == "dhc" and prediction.shape == DHC_GRID
    order: Reordering | None = None
    if not on_dhc_grid and (differences := pred_geometry.differences(geometry)):
        order = reordering(geometry, pred_geometry)
        if order is None:
            raise InputError(f"{pair.prediction}: not on the grid of {pair.truth}: {'; '.join(differences)}")
        # The truth, so that every sum runs over the voxels in the order in which it would without the other storage.
        truth, geometry = order.of(truth), order.of_grid(geometry)
    classes = settings.num_classes or int(max(truth.max(), prediction.max())) + 1
    scores: list[ClassScores]
    if settings.protocol == "dhc":
        scores = score_dhc(prediction, truth, classes, settings.metrics)
    else:
        x, y, z = geometry.spacing
        one_for_all = len(settings.tolerances_mm) == 1
        tolerances = settings.tolerances_mm * (classes - 1) if one_for_all else settings.tolerances_mm
        policy = get_policy(settings.policy)
        scores = score_classes(prediction, truth, (z, y, x), classes, settings.metrics, policy, tolerances)
    return CaseScores(
        name=pair.name,
        key=key,
        missing=pair.prediction is None,
        values={metric.column: [score.values[metric.column] for score in scores] for metric in settings.metrics},
        status=[score.status for score in scores],
        predicted_ml=[score.predicted_ml for score in scores],
        true_ml=[score.true_ml for score in scores],
        reordered=str(order or ""),
        **_mixed_up(prediction, truth, geometry, scores) if settings.protocol == "default" else {},
    )


def _mixed_up(
    prediction: Labels, truth: Labels, grid: Geometry, scores: Sequence[ClassScores]
) -> dict[str, list[Fit] | Mirror | None]:
    """Fields of a case's scores that say why its Dice is low, where labels or sides were mixed up."""
    predicted, true, common = (sum(score.voxels[i] for score in scores) for i in range(3))
    overall = dice(predicted, true, common) if predicted and true else 1.0
    counts = [[0, *(score.voxels[i] for score in scores)] for i in range(2)]
    return {
        "fits": fits(counts[0], counts[1], [(), *(score.lies_in for score in scores)]),
        "mirror": mirror(prediction, truth, grid, overall) if overall < LOW else None,
    }
