"""The cases on which each method did worst, with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duomod.console import progress
from duomod.evaluation.aggregate import mean_defined
from duomod.report.overlays import write_overlay
from duomod.report.sources.collect import Collection, Method
from duomod.report.sources.files import CaseFiles
from duomod.report.sources.records import LeftOut
from duomod.report.sources.scans import Overlay, label_array, read_case

PICTURES = "pictures"


@dataclass(frozen=True)
class WorstCase:
    """A case on which a method did badly.

    Attributes:
        case: Its id.
        dice: Mean foreground Dice over the seeds, in [0, 1].
        seed: The seed that did worst on it, which is the one pictured.
        seed_dice: Its Dice.
        picture: Path of the picture inside the report, or None if scan, truth or prediction were not found.
        planes: What the picture's rows show.
    """

    case: str
    dice: float
    seed: str
    seed_dice: float
    picture: str | None
    planes: tuple[str, ...]


def worst_cases(
    collection: Collection, files: Sequence[CaseFiles], count: int, folder: Path
) -> tuple[dict[str, list[WorstCase]], list[LeftOut]]:
    """Find each method's worst cases by mean foreground Dice, worst first, and write their pictures.

    Args:
        collection: The methods.
        files: Where the cases' files are.
        count: How many cases of each method.
        folder: The report's folder.

    Returns:
        The cases by method, and what of them could not be read.
    """
    left_out: list[LeftOut] = []
    by_case = {entry.case: entry for entry in files}
    chosen = {method.name: _lowest(method, count) for method in collection.methods}
    found: dict[str, list[WorstCase]] = {}
    with progress("pictures", sum(map(len, chosen.values()))) as advance:
        for number, method in enumerate(collection.methods):
            found[method.name] = []
            for place, index in enumerate(chosen[method.name]):
                target = folder / PICTURES / f"{number + 1}_{place + 1}.png"
                worst, problems = _worst_case(method, index, by_case[method.cases[index]], target)
                found[method.name].append(worst)
                left_out += problems
                advance(method.name)
    return found, left_out


def _lowest(method: Method, count: int) -> list[int]:
    """Indices of the cases with the lowest Dice; cases in which nothing is defined are left out."""
    dice = mean_defined(method.per_case, axis=1)
    return [int(i) for i in np.argsort(dice, kind="stable") if np.isfinite(dice[i])][:count]


def _worst_case(method: Method, index: int, files: CaseFiles, target: Path) -> tuple[WorstCase, list[LeftOut]]:
    by_seed = mean_defined(method.values["Dice"][:, index], axis=1)
    worst = int(np.nanargmin(by_seed))
    seed = method.seeds[worst].name
    prediction = files.predictions.get((method.name, seed))
    picture: str | None = None
    planes: tuple[str, ...] = ()
    overlays = [Overlay(seed, prediction)] if prediction is not None and files.truth is not None else []
    problems: list[str] = []
    source = files.source(overlays, len(method.summary.classes))
    if source is not None and overlays:
        images, problems = read_case(source)
        if images is not None and images.truth is not None and images.predictions:
            truth, predicted = map(label_array, images.maps)
            planes = write_overlay(target, images.scan, truth, predicted, modality=images.modality)
            picture = f"{PICTURES}/{target.name}"
    dice = float(mean_defined(method.per_case[index], axis=0))
    found = WorstCase(files.name, dice, seed, float(by_seed[worst]), picture, planes)
    return found, [files.left_out(problem) for problem in problems]
