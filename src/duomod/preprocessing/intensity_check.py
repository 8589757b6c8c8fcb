"""Whether a scan's voxels can be what they are taken for: Hounsfield units (CT), or MR intensities.

Everything later believes the voxels: a CT in 0..1 would be stored as zeros and ones, one without its rescale intercept
would saturate the window, and both give a mask that looks like one. Real scans pass: crops without air, padding, metal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.spec import Modality

#: Shares and whether voxels are whole numbers are those of a sample of about so many voxels; extremes are of all.
_SAMPLE = 2_000_000

#: HU of air in and around a body, and of soft tissue (fat to contrast-filled vessels).
_AIR = (-1100.0, -850.0)
_SOFT = (-250.0, 350.0)
#: Where soft tissue lies if the rescale intercept of -1024 was lost.
_SHIFTED_SOFT = (800.0, 1300.0)

#: Below this there is no tissue of any kind: what has one single value there is padding (-2000, -3024, -32768).
_NO_TISSUE = -1100.0

#: A larger range than any normalised scan has (z-scores reach about 15), and a smaller one than any CT in HU has.
_NORMALISED_RANGE = 20.0
#: Fewer distinct whole numbers from 0 on are classes, not intensities.
_FEW_VALUES = 32
#: Values of an image of 8 bits, with some room for resampling.
_EIGHT_BITS = (-5.0, 260.0)

#: A CT that was not cut to a window has air and bone.
_WHOLE_RANGE = 1500.0

#: What a CT may hold at all: int16 is what is stored, and metal stays far below.
_PLAUSIBLE = (-5000.0, 32767.0)


@dataclass(frozen=True)
class Intensities:
    """Facts about a scan's voxels.

    Attributes:
        low: Smallest value.
        high: Largest value.
        padding: The one value far below air that fills what was not scanned; None where there is none.
        inner_low: Smallest value besides the padding.
        whole: Whether all are whole numbers.
        distinct: How many different values a sample of the voxels has, besides the padding.
        spread: From the 1st to the 99th percentile, without the padding.
        cut: Share that the smaller of these two has: exactly the smallest value, and exactly the largest.
        negative: Share below -20, where fat and air are; without the padding, as the next ones.
        air: Share between -1100 and -850.
        soft: Share between -250 and 350.
        shifted: Share between 800 and 1300.
    """

    low: float
    high: float
    padding: float | None
    inner_low: float
    whole: bool
    distinct: int
    spread: float
    cut: float
    negative: float
    air: float
    soft: float
    shifted: float

    @classmethod
    def of(cls, array: NDArray[np.generic]) -> Intensities:
        """Facts about an array of finite numbers of any shape; a sample of equal steps stands for a large one."""
        flat = array.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
        padded = low < _NO_TISSUE
        inner = sample[sample > low] if padded else sample
        # Padding is one value with nothing near it; without it the scan goes on.
        if not inner.size or (padded and inner.min() < low + 100):
            padded, inner = False, sample
        first, last = np.percentile(inner, [1, 99])
        return cls(
            low=low,
            high=high,
            padding=low if padded else None,
            inner_low=float(inner.min()) if padded else low,
            whole=flat.dtype.kind in "iub" or bool((sample == np.rint(sample)).all()),
            distinct=int(np.unique(inner).size),
            spread=float(last - first),
            cut=float(min(np.mean(inner == inner.min()), np.mean(inner == inner.max()))),
            negative=float(np.mean(inner < -20)),
            air=_share(inner, _AIR),
            soft=_share(inner, _SOFT),
            shifted=_share(inner, _SHIFTED_SOFT),
        )

    @property
    def surely_hu(self) -> bool:
        """Whether they can be nothing but Hounsfield units: whole numbers with air at -1000 and soft tissue at 0."""
        return self.whole and self.inner_low <= -900 and self.air >= 0.02 and self.soft >= 0.02

    @property
    def range(self) -> str:
        """``-1024 to 3071``: the values besides the padding."""
        return f"{self.inner_low:g} to {self.high:g}"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or doubtful with a scan's voxels.

    Attributes:
        kind: The same for all scans with the same fault.
        text: The fault as a sentence about one scan.
        fatal: A mask made from it would be wrong.
    """

    kind: str
    text: str
    fatal: bool


#: So many scans with the same fault are named.
_SHOWN = 12

#: How a user insists, in the words of the messages.
INSIST = "--accept_intensities takes it as it is"


def findings(found: Intensities, modality: Modality) -> list[Finding]:
    """What is wrong or doubtful with voxels that are taken for Hounsfield units (CT) or MR intensities.

    At most one finding is fatal, the one that explains most.
    """
    if found.low == found.high:
        # Not refused: its mask is as empty as the scan, and nobody takes it for one of organs.
        return [Finding("constant", f"every voxel is {found.low:g}: there is nothing to be seen in it", False)]
    fatal = _wrong_ct(found) if modality == "CT" else _wrong_mr(found)
    if fatal is not None:
        return [fatal]
    return _doubtful_ct(found) if modality == "CT" else _doubtful_mr(found)


def _wrong_ct(found: Intensities) -> Finding | None:
    values = found.range
    if found.inner_low >= 0 and found.whole and found.distinct <= _FEW_VALUES and found.high < 256:
        return _labels(found)
    narrow = found.spread < _NORMALISED_RANGE and not found.whole and found.inner_low > -100
    if narrow or found.high - found.inner_low < _NORMALISED_RANGE:
        text = f"voxels of {values} are no Hounsfield units (HU): they seem to be normalised; give the scan in HU"
        return Finding("normalised", text, True)
    if found.inner_low >= _EIGHT_BITS[0] and found.high <= _EIGHT_BITS[1]:
        text = (
            f"voxels of {values} and none below 0 HU: an image of 8 bits, or cut to a window and scaled; give the scan"
            " in Hounsfield units"
        )
        return Finding("8 bits", text, True)
    if found.negative < 1e-2 and found.shifted >= 0.05:
        text = (
            f"voxels of {values}, {found.shifted:.0%} of them between 800 and 1300 HU and almost none below -20 HU:"
            " its rescale intercept (-1024) is lost; export it again in Hounsfield units"
        )
        return Finding("intercept", text, True)
    if found.inner_low >= 0 and not _only_soft_tissue(found):
        text = (
            f"voxels of {values}, so none is below 0 HU, as fat and air are: no CT in Hounsfield units; export it again"
            " with its rescale intercept, or say that it is MR"
        )
        return Finding("not negative", text, True)
    return None


def _only_soft_tissue(found: Intensities) -> bool:
    """Whether a CT may be cut out of soft tissue, without air and fat; an MR scan has a background of 0."""
    return found.inner_low >= 20 and found.soft >= 0.9


def _wrong_mr(found: Intensities) -> Finding | None:
    if found.surely_hu:
        text = (
            f"voxels of {found.range} with air at -1000 and soft tissue around 0: this is a CT in HU, not MR;"
            " correct what says that it is MR"
        )
        return Finding("HU", text, True)
    if found.inner_low == 0 and found.whole and found.distinct <= _FEW_VALUES and found.high < 256:
        return _labels(found)
    return None


def _labels(found: Intensities) -> Finding:
    text = f"only {found.distinct} different whole numbers, {found.range}: a label map, not a scan"
    return Finding("labels", text, True)


def _doubtful_ct(found: Intensities) -> list[Finding]:
    doubts = []
    if found.inner_low >= 0:
        text = f"voxels of {found.range}: none is below 0 HU, as fat and air are (its rescale intercept lost?)"
        doubts.append(Finding("no fat, no air", text, False))
    if found.inner_low < _PLAUSIBLE[0] or found.high > _PLAUSIBLE[1]:
        text = f"voxels of {found.range}: a CT has none below {_PLAUSIBLE[0]:g} or above {_PLAUSIBLE[1]:g} HU"
        doubts.append(Finding("beyond", text, False))
    if found.cut >= 0.005 and found.high - found.inner_low < _WHOLE_RANGE:
        text = f"cut to a window: many voxels are exactly {found.inner_low:g} HU and many exactly {found.high:g} HU"
        doubts.append(Finding("cut", text, False))
    if found.soft < 0.005:
        text = f"only {found.soft:.1%} of the voxels lie between -250 and 350 HU, where soft tissue is"
        doubts.append(Finding("no soft tissue", text, False))
    return doubts


def _doubtful_mr(found: Intensities) -> list[Finding]:
    if found.low < 0:
        text = f"voxels of {found.low:g} to {found.high:g}: MR has none below 0 as a rule (normalised before, or a CT?)"
        return [Finding("negative MR", text, False)]
    return []


def of_set(by_scan: Sequence[tuple[str, Finding]], scans: int) -> list[str]:
    """The findings of a whole set as lines: one a scan, or one for all scans with the same fault where they are many.

    Args:
        by_scan: A scan's file and what was found of it.
        scans: How many scans the set has.
    """
    lines = []
    for kind in dict.fromkeys(finding.kind for _, finding in by_scan):
        alike = [(name, finding) for name, finding in by_scan if finding.kind == kind]
        insist = f" ({INSIST})" if alike[0][1].fatal else ""
        if len(alike) <= 3:
            lines += [f"{name}: {finding.text}{insist}" for name, finding in alike]
            continue
        shown = ", ".join(Path(name).name for name, _ in alike[1:_SHOWN])
        more = f" and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
        name, finding = alike[0]
        lines.append(f"{name}: {finding.text}; {len(alike)} of {scans} scans are like this ({shown}{more}){insist}")
    return lines


def _share(values: NDArray[np.float64], limits: tuple[float, float]) -> float:
    return float(np.mean((values >= limits[0]) & (values <= limits[1])))
