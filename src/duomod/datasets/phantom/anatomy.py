"""The built-in phantom's average body, and how one person differs from it.

Coordinates as in `shapes` (LPS, mm); z = 0 is the height of the renal hila, y = 0 the middle of the trunk.
Sizes and places follow an adult abdominal CT; CT numbers follow the textbook values of three contrast phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from duomod.datasets.phantom.shapes import Ellipsoid, Shape, Tube

Phase = Literal["native", "arterial", "portal"]
PHASES: tuple[Phase, ...] = ("native", "arterial", "portal")

#: Mean CT number (HU) of each tissue in the native, arterial and portal venous phase.
TISSUE_HU: dict[str, tuple[float, float, float]] = {
    "spleen": (47, 118, 126),
    "right kidney": (33, 140, 165),
    "left kidney": (33, 140, 165),
    "gallbladder": (9, 10, 11),
    "esophagus": (38, 50, 58),
    "liver": (56, 68, 103),
    "stomach": (42, 62, 72),
    "aorta": (42, 290, 152),
    "inferior vena cava": (40, 80, 135),
    "pancreas": (40, 98, 90),
    "right adrenal gland": (28, 78, 74),
    "left adrenal gland": (28, 78, 74),
    "duodenum": (36, 62, 68),
    "bladder": (6, 7, 9),
    "prostate/uterus": (40, 58, 78),
    "skin": (20, 25, 30),
    "fat": (-102, -102, -100),
    "muscle": (54, 58, 62),
    "bone": (190, 195, 200),
    "cortical bone": (480, 480, 480),
    "disc": (78, 80, 82),
    "lung": (-845, -840, -835),
    "heart": (42, 200, 140),
    "portal vein": (42, 95, 168),
    "bowel": (38, 68, 74),
}


@dataclass(frozen=True)
class Organ:
    """An organ of the average body.

    ``place_mm``, ``size_sd`` and ``turn_degrees`` are the standard deviations of its individual place, of the
    logarithm of its individual size, and of its individual rotation. ``rough_mm`` is how deep its surface varies,
    ``fat_mm`` the layer of fat it lies in, ``clearance_mm`` its least distance from the wall of the trunk, ``absent``
    how often a person lacks it.
    """

    parts: tuple[Shape, ...]
    place_mm: float = 4.0
    size_sd: float = 0.07
    turn_degrees: float = 5.0
    rough_mm: float = 2.0
    fat_mm: float = 0.0
    clearance_mm: float = 2.0
    absent: float = 0.0


_LEFT_ADRENAL = (
    Ellipsoid((33, 40, 44), (3.2, 12, 17), (0, 0, -32)),
    Ellipsoid((24, 41, 44), (3.1, 11, 17), (0, 0, 28)),
)
_RIGHT_ADRENAL = (
    Ellipsoid((-30, 37, 52), (3.7, 13, 18), (0, 0, 32)),
    Ellipsoid((-22, 41, 52), (3.4, 11, 17), (0, 0, -16)),
)

#: In the order they are painted: where two overlap, the later one takes the place.
ORGANS: dict[str, Organ] = {
    "liver": Organ(
        (
            Ellipsoid((-82, 0, 60), (68, 82, 82), (0, 12, 0)),
            Ellipsoid((-8, -38, 74), (74, 36, 40), (0, 10, 10)),
        ),
        place_mm=5,
        size_sd=0.06,
        rough_mm=4,
    ),
    "spleen": Organ((Ellipsoid((96, 46, 60), (29, 52, 56), (25, 0, 22)),), size_sd=0.09, absent=0.03),
    "stomach": Organ(
        (Tube(((56, 12, 98), (62, -18, 70), (52, -46, 38), (14, -58, 14), (-14, -46, 8)), (34, 33, 27, 19, 13)),),
        place_mm=5,
        size_sd=0.09,
        rough_mm=3,
    ),
    "right kidney": Organ(
        (Ellipsoid((-62, 46, -20), (29, 30, 57), (8, 10, 25)),), place_mm=6, fat_mm=5, clearance_mm=5, absent=0.02
    ),
    "left kidney": Organ(
        (Ellipsoid((64, 43, 2), (29, 30, 58), (8, -10, -25)),), place_mm=6, fat_mm=5, clearance_mm=5, absent=0.02
    ),
    "bladder": Organ((Ellipsoid((0, -42, -262), (42, 35, 36)),), place_mm=4, size_sd=0.16, turn_degrees=3, rough_mm=1),
    "prostate/uterus": Organ((Ellipsoid((0, -4, -292), (26, 21, 24)),), place_mm=4, size_sd=0.08, fat_mm=2),
    "pancreas": Organ(
        (Tube(((-30, -6, -20), (-20, -14, -2), (8, -18, 10), (40, 2, 22), (76, 20, 36)), (14, 12, 9.5, 10, 9)),),
        size_sd=0.06,
        turn_degrees=4,
        rough_mm=2.5,
        fat_mm=3,
    ),
    "duodenum": Organ(
        (
            Tube(
                (
                    (-18, -44, 8),
                    (-42, -30, 10),
                    (-50, -4, -8),
                    (-46, 2, -40),
                    (-26, 4, -60),
                    (6, 2, -60),
                    (26, -12, -44),
                ),
                (10, 11, 10.5, 10.5, 10, 9.5, 9),
            ),
        ),
        size_sd=0.06,
        turn_degrees=4,
        fat_mm=2,
    ),
    "gallbladder": Organ(
        (Ellipsoid((-58, -34, 14), (15, 15, 30), (35, 0, 20)),),
        place_mm=5,
        size_sd=0.11,
        turn_degrees=10,
        rough_mm=1,
        absent=0.08,
    ),
    "esophagus": Organ(
        (Tube(((3, 10, 240), (2, 14, 180), (8, 10, 130), (18, 4, 106), (34, 2, 94)), (8, 8, 8, 8, 8.5)),),
        place_mm=2,
        turn_degrees=2,
        rough_mm=1.2,
        fat_mm=2.5,
        clearance_mm=-30,
    ),
    "inferior vena cava": Organ(
        (Tube(((-16, 28, -105), (-20, 25, -40), (-23, 20, 20), (-24, 12, 75), (-20, -2, 118)), (9, 10, 11, 12, 12)),),
        place_mm=2,
        size_sd=0.05,
        turn_degrees=1.5,
        rough_mm=1.2,
        fat_mm=1.5,
        clearance_mm=-30,
    ),
    "aorta": Organ(
        (Tube(((22, 36, 240), (17, 34, 150), (9, 28, 70), (5, 24, 0), (4, 26, -95)), (12.5, 12, 11, 9.5, 8.5)),),
        place_mm=2,
        size_sd=0.05,
        turn_degrees=1.5,
        rough_mm=0.5,
        fat_mm=1.5,
        clearance_mm=-30,
    ),
    "right adrenal gland": Organ(
        _RIGHT_ADRENAL, place_mm=3, size_sd=0.08, turn_degrees=7, rough_mm=0.7, fat_mm=4, absent=0.02
    ),
    "left adrenal gland": Organ(
        _LEFT_ADRENAL, place_mm=3, size_sd=0.08, turn_degrees=7, rough_mm=0.7, fat_mm=4, absent=0.02
    ),
}

COLON = Tube(
    (
        (-104, 28, -150), (-106, 22, -90), (-98, 8, -48), (-62, -52, -40), (0, -74, -52), (62, -62, -20),
        (104, -8, 18), (108, 34, -40), (102, 40, -130), (62, 20, -200), (12, 20, -222), (0, 46, -262), (0, 52, -350),
    ),
    (23, 23, 20, 18, 17, 18, 17, 16, 16, 16, 18, 20, 17),
)  # fmt: skip
LIVER_VESSELS = (
    Tube(((-14, -6, -10), (-22, -6, 16), (-42, -8, 42), (-72, 0, 56), (-104, 14, 62)), (6.5, 7, 6, 4.5, 3)),
    Tube(((-42, -8, 42), (-20, -30, 62), (14, -44, 76)), (5, 4, 3)),
    Tube(((-24, 8, 96), (-60, 6, 94), (-98, 18, 76)), (5, 4.5, 3)),
    Tube(((-24, 6, 98), (-44, -34, 88), (-60, -52, 62)), (5, 4, 3)),
)
SMALL_VESSELS = (
    Tube(((-14, -8, 2), (6, -4, 14), (40, 14, 28), (86, 34, 46)), (5, 4.5, 4, 3)),
    Tube(((-14, -8, 0), (-10, -18, -60), (10, -20, -120)), (5.5, 5, 3)),
    Tube(((6, 16, 12), (6, -4, -20), (8, -14, -90)), (3.5, 3.5, 2.5)),
    Tube(((4, 26, -92), (34, 34, -150), (58, 10, -220), (72, -40, -310)), (6, 5.5, 5, 4.5)),
    Tube(((4, 26, -92), (-32, 34, -150), (-58, 10, -220), (-72, -40, -310)), (6, 5.5, 5, 4.5)),
)


@dataclass(frozen=True)
class Person:
    """What is drawn once for a person; lengths in mm."""

    phase: Phase
    fat_mm: float
    hu: Mapping[str, float]
    absent: frozenset[str]
    gas_level_mm: float
    oral_contrast: bool
    rib_offset_mm: float


def draw_person(rng: np.random.Generator, phase: Phase, spread: float) -> Person:
    """Draw what is individual to a person apart from the shapes.

    Args:
        rng: Source of chance.
        phase: The contrast phase of the scan.
        spread: 1 for the full variation of tissues between people, less for a more uniform group.
    """
    enhanced = float(np.clip(rng.normal(1.0, 0.14 * spread), 0.7, 1.3))
    hu = {}
    for name, by_phase in TISSUE_HU.items():
        uptake = by_phase[PHASES.index(phase)] - by_phase[0]
        own = 0.0 if name in ("fat", "skin", "lung", "gallbladder", "bladder") else 4.0
        hu[name] = by_phase[0] + enhanced * uptake + rng.normal(0, own + 1.0) * spread
    if rng.random() < 0.15 * spread:
        hu["liver"] -= rng.uniform(15, 35)  # fatty liver
    for left, right in (("left kidney", "right kidney"), ("left adrenal gland", "right adrenal gland")):
        hu[left] = hu[right]
    absent = frozenset(name for name, organ in ORGANS.items() if rng.random() < organ.absent)
    if {"left kidney", "right kidney"} <= absent:
        absent -= {"left kidney"}
    return Person(
        phase=phase,
        fat_mm=float(np.clip(rng.lognormal(np.log(17), 0.4), 7, 42)),
        hu=hu,
        absent=absent,
        gas_level_mm=float(rng.uniform(-62, -28)),
        oral_contrast=bool(rng.random() < 0.25 * spread),
        rib_offset_mm=float(rng.uniform(0, 27)),
    )
