"""Mix-ups that make a good prediction score badly: labels exchanged (left and right, above all), an image mirrored.

All of it is looked for only where the Dice is low, from counts of a class's own box or a thinned volume, so that an
evaluation takes no longer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from duomod.evaluation.metrics.overlap import dice

if TYPE_CHECKING:
    from duomod.datasets.grid import Geometry

#: A Dice below this asks for an explanation; one explains it that raises it by ``GAIN``.
LOW, GAIN = 0.5, 0.3
#: A class that is another's in most cases is told from this Dice on.
_FITS = 0.5
#: A volume is thinned to about so many voxels before all ways of mirroring are tried.
_THINNED = 500_000
_MOST_CASES = 5
_WORLD = ("left-right", "front-back", "head-foot")


class Fit(BaseModel):
    """In one case: what is predicted as one class lies where another one is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: int
    true: int
    dice: float
    dice_if: float


class Mirror(BaseModel):
    """In one case: the foreground's Dice as it is and if the prediction is mirrored along axes of the world."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    axes: str
    dice: float
    dice_if: float


class MixUp(BaseModel):
    """What a set of cases seems to have wrong, with the mean Dice over the cases that show it, as it is and if mended.

    ``kind`` is ``exchanged`` (both ways between the two ``classes``), ``taken for`` (the first lies where the second
    is) or ``mirrored`` (``axes``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    classes: tuple[str, ...] = ()
    axes: str = ""
    cases: tuple[str, ...]
    total: int
    dice: float
    dice_if: float

    def __str__(self) -> str:
        if self.kind == "mirrored":
            condition = f"the predictions are mirrored ({self.axes})"
        elif self.kind == "exchanged":
            condition = f"{self.classes[0]} and {self.classes[1]} are exchanged in the predictions"
        else:
            condition = f"what the predictions call {self.classes[0]} is {self.classes[1]}"
        more = ", ..." if len(self.cases) > _MOST_CASES else ""
        return (
            f"Dice {self.dice_if:.2f} instead of {self.dice:.2f} if {condition} ({len(self.cases)} of {self.total}"
            f" cases: {', '.join(self.cases[:_MOST_CASES])}{more})"
        )


def fits(predicted: Sequence[int], true: Sequence[int], common: Sequence[Sequence[int]]) -> list[Fit]:
    """Which predicted classes lie where another class is.

    Args:
        predicted: Voxels of each class 0, 1, ... of the prediction.
        true: The same of the truth.
        common: Of each class of the prediction, its voxels in each class of the truth; empty where nobody asked.
    """
    found = []
    for label, row in enumerate(common):
        if label == 0 or not len(row):
            continue
        values = [0.0, *(dice(predicted[label], true[other], row[other]) for other in range(1, len(row)))]
        best = max(range(len(values)), key=values.__getitem__)
        if values[best] >= values[label] + GAIN:
            found.append(Fit(predicted=label, true=best, dice=values[label], dice_if=values[best]))
    return found


def mirror(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], grid: Geometry, as_it_is: float
) -> Mirror | None:
    """How a prediction has to be mirrored to fit; None where no way of it is clearly better.

    All seven ways are tried on a thinned volume; where a voxel's class differs it does not count.

    Args:
        prediction: Label map (D, H, W), not empty.
        truth: Label map of the same shape.
        grid: Where both lie.
        as_it_is: Dice of the foreground, classes told apart.
    """
    step = max(1, round((truth.size / _THINNED) ** (1 / 3)))
    total = int(np.count_nonzero(prediction) + np.count_nonzero(truth))
    thin = truth[::step, ::step, ::step]
    inside = thin > 0

    def turned(ends: Sequence[int]) -> npt.NDArray[np.uint8]:
        z, y, x = (slice(None, None, end) for end in ends)
        return prediction[z, y, x]

    def roughly(ends: Sequence[int]) -> int:
        return int(np.count_nonzero((turned(ends)[::step, ::step, ::step] == thin) & inside))

    best = max(itertools.product((1, -1), repeat=3), key=roughly)
    if best == (1, 1, 1):
        return None
    mirrored = 2 * int(np.count_nonzero((turned(best) == truth) & (truth > 0))) / total
    if mirrored < as_it_is + GAIN:
        return None
    # The array's axes are z, y, x; the grid's columns are x, y, z.
    along = np.abs(grid.matrix).argmax(axis=0)[::-1]
    axes = ", ".join(sorted({_WORLD[axis] for axis, end in zip(along.tolist(), best, strict=True) if end < 0}))
    return Mirror(axes=axes, dice=as_it_is, dice_if=mirrored)


def sided(one: str, other: str) -> bool:
    """Whether two class names differ in the side alone: left and right, l and r, lh and rh."""

    def parts(name: str) -> tuple[str, ...]:
        spread = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
        return tuple({"l": "left", "r": "right", "lh": "left", "rh": "right"}.get(w, w) for w in _words(spread))

    left, right = sorted((parts(one), parts(other)), key=lambda words: "right" in words)
    return left != right and "left" in left and tuple("right" if w == "left" else w for w in left) == right


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def mix_ups(
    cases: Sequence[str], found: Sequence[Sequence[Fit]], mirrors: Sequence[Mirror | None], classes: Sequence[str]
) -> list[MixUp]:
    """What a set seems to have wrong.

    Args:
        cases: Names.
        found: What :func:`fits` says of each.
        mirrors: What :func:`mirror` says of each.
        classes: Names, background first.
    """
    pairs: dict[tuple[int, int], dict[str, list[Fit]]] = {}
    for case, ones in zip(cases, found, strict=True):
        for fit in ones:
            key = (min(fit.predicted, fit.true), max(fit.predicted, fit.true))
            pairs.setdefault(key, {}).setdefault(case, []).append(fit)
    result = []
    for (a, b), shown in sorted(pairs.items()):
        everything = [fit for ones in shown.values() for fit in ones]
        both = any(len(ones) == 2 for ones in shown.values()) or sided(classes[a], classes[b])
        often = 2 * len(shown) >= len(cases) and min(fit.dice_if for fit in everything) >= _FITS
        if both or often:
            first = everything[0]
            names = (classes[a], classes[b]) if both else (classes[first.predicted], classes[first.true])
            result.append(_mix_up("exchanged" if both else "taken for", tuple(shown), len(cases), everything, names))
    for axes in dict.fromkeys(one.axes for one in mirrors if one):
        alike = {case: one for case, one in zip(cases, mirrors, strict=True) if one and one.axes == axes}
        result.append(_mix_up("mirrored", tuple(alike), len(cases), [*alike.values()], (), axes))
    return result


def _mix_up(
    kind: str,
    shown: tuple[str, ...],
    total: int,
    ones: Sequence[Fit | Mirror],
    classes: tuple[str, ...],
    axes: str = "",
) -> MixUp:
    as_it_is, mended = (float(np.mean([getattr(one, name) for one in ones])) for name in ("dice", "dice_if"))
    return MixUp(kind=kind, classes=classes, axes=axes, cases=shown, total=total, dice=as_it_is, dice_if=mended)
