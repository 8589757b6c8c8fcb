"""Colours that colour-blind readers can tell apart, and marks that tell the same things apart in grey.

Methods: Okabe and Ito's set (Color Universal Design, 2008), with a marker and a dash each. Organs: twenty colours of
alternating lightness in the spirit of Tol's sets; an organ is always named beside its colour.
"""

from __future__ import annotations

METHODS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B5CF6", "#7A7A7A")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

#: In the error overlay: missed voxels and voxels too many. Also hatched differently where they are drawn.
FALSE_NEGATIVE, FALSE_POSITIVE = "#0072B2", "#E69F00"


def method_colour(index: int) -> str:
    """Colour of the method with this position; from the ninth on they repeat, with another marker and dash."""
    return METHODS[index % len(METHODS)]


def method_marker(index: int) -> str:
    """Plotly marker symbol; the open form from the ninth method on."""
    return MARKERS[index % len(MARKERS)] + ("-open" if (index // len(METHODS)) % 2 else "")


def method_dash(index: int) -> str:
    """Plotly line dash."""
    return DASHES[index % len(DASHES)]


#: Organs, from class 1 on. Neighbours in the list differ in hue and in lightness.
ORGANS = (
    "#E69F00", "#56B4E9", "#CC3311", "#117733", "#F0E442", "#882255", "#44AA99", "#EE8866", "#4477AA", "#BBCC33",
    "#AA3377", "#99DDFF", "#997700", "#FFAABB", "#0F7F7F", "#DDCC77", "#6A3D9A", "#B5E0B0", "#CC6677", "#7FA3FF",
)  # fmt: skip


def organ_colour(label: int) -> str:
    """Colour of a class index from 1 on; they repeat after twenty."""
    return ORGANS[(label - 1) % len(ORGANS)]
