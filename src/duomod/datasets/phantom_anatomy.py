"""The built-in phantom's average body, and how one person differs from it.

Coordinates as in `phantom_shapes` (LPS, mm); z = 0 is the height of the renal hila, y = 0 the middle of the trunk.
Sizes and places follow an adult abdominal CT; CT numbers follow the textbook values of three contrast phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from duomod.datasets.phantom_shapes import (
    Array,
    Canvas,
    Ellipsoid,
    Points,
    Shape,
    Slices,
    Tube,
    rotation_matrix,
)

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
                ((-18, -44, 8), (-42, -30, 10), (-50, -4, -8), (-46, 2, -40), (-26, 4, -60), (6, 2, -60), (26, -12, -44)),
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

_COLON = Tube(
    (
        (-104, 28, -150), (-106, 22, -90), (-98, 8, -48), (-62, -52, -40), (0, -74, -52), (62, -62, -20),
        (104, -8, 18), (108, 34, -40), (102, 40, -130), (62, 20, -200), (12, 20, -222), (0, 46, -262), (0, 52, -350),
    ),
    (23, 23, 20, 18, 17, 18, 17, 16, 16, 16, 18, 20, 17),
)  # fmt: skip
_LIVER_VESSELS = (
    Tube(((-14, -6, -10), (-22, -6, 16), (-42, -8, 42), (-72, 0, 56), (-104, 14, 62)), (6.5, 7, 6, 4.5, 3)),
    Tube(((-42, -8, 42), (-20, -30, 62), (14, -44, 76)), (5, 4, 3)),
    Tube(((-24, 8, 96), (-60, 6, 94), (-98, 18, 76)), (5, 4.5, 3)),
    Tube(((-24, 6, 98), (-44, -34, 88), (-60, -52, 62)), (5, 4, 3)),
)
_SMALL_VESSELS = (
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


def _ellipse(points: Points, x_mm: Array | float, y_mm: Array | float, power: float = 2.3) -> Array:
    """Signed distance from an upright superelliptical cylinder around the origin, mm."""
    norm = (np.abs(points.x / x_mm) ** power + np.abs(points.y / y_mm) ** power) ** (1 / power) + 1e-6
    away = np.sqrt(points.x**2 + points.y**2) + 1e-3
    return np.asarray(away * (1 - 1 / norm), dtype=np.float32)


def _pillar(points: Points, x: float, y: Array | float, x_mm: Array | float, y_mm: Array | float) -> Array:
    return _ellipse(Points(points.x - np.float32(x), np.asarray(points.y - y), points.z), x_mm, y_mm, 2.0)


def draw_trunk(canvas: Canvas, person: Person, texture: Array) -> tuple[Array, Array]:
    """Paint skin, fat, muscle, lungs, heart and bones, and clear the room for the organs.

    Args:
        canvas: Receives the paint.
        person: Supplies tissues and the thickness of fat.
        texture: Smooth random field over the grid (D, H, W), standard deviation 1.

    Returns:
        The signed distances (D, H, W), mm, to the wall of the trunk's cavity and to the diaphragm (negative below it).
    """
    p, hu, whole = canvas.points, person.hu, canvas.everywhere
    waist = np.exp(-(((p.z + 70) / 70) ** 2))
    hips = 1 / (1 + np.exp((p.z + 190) / 25))
    muscle = _ellipse(p, 146 - 8 * waist + 14 * hips, 101 - 4 * waist + 6 * hips) + canvas.surface
    # Fat is thicker at the flanks and hips than over the ribs, and thicker behind in front of thin people.
    thickness = person.fat_mm * (0.8 + 0.35 * waist + 0.5 * hips + 0.15 * np.abs(p.x) / 150)
    skin = muscle - thickness
    cavity = muscle + (14 + 26 * hips)
    chest_top = np.clip((p.z - 60) / 120, 0, 1)
    cavity += 6 * chest_top

    canvas.paint(whole, skin, hu["skin"])
    canvas.paint(whole, skin + 2.5, hu["fat"] + 9 * texture)
    canvas.paint(whole, muscle, hu["muscle"] + 5 * texture)
    canvas.paint(whole, np.abs(muscle + 7) - 1.5 - 1.5 * texture, hu["fat"] + 40)  # planes between the muscles
    canvas.paint(whole, cavity, hu["fat"] + 9 * texture)

    # The diaphragm: a dome on each side, falling away along the wall (the recess where the lung overlaps the liver).
    right = 122 - 0.007 * ((p.x + 66) ** 2 + (p.y + 8) ** 2)
    left = 110 - 0.007 * ((p.x - 66) ** 2 + (p.y + 8) ** 2)
    recess = 48 * np.exp(np.clip(cavity, -200, 0) / 8)
    diaphragm = p.z - (np.maximum(np.maximum(right, left), 84) - recess) + canvas.surface
    lungs = np.maximum(cavity + 2, 3 - diaphragm)
    midline = np.minimum(_pillar(p, 4, 26, 36, 44), _pillar(p, 6, -40, 40, 60))
    lungs = np.maximum(lungs, -midline).astype(np.float32)
    canvas.paint(whole, lungs, hu["lung"] + 45 * texture)
    canvas.paint(whole, lungs + 4, hu["lung"] + 45 * texture + 260 * np.clip(texture - 1.3, 0, 1.5))
    thin = np.maximum(np.abs(diaphragm + 1) - 2, cavity + 1)
    canvas.paint(whole, thin.astype(np.float32), hu["muscle"] - 10)

    heart = Ellipsoid((24, -34, 150), (56, 44, 46), (0, 20, 25))
    where = canvas.region(*heart.box())
    distance = np.maximum(heart.distance(canvas.at(where)), 4 - diaphragm[where])
    canvas.paint(where, distance, hu["muscle"] + 30)
    canvas.paint(where, distance + 11, hu["heart"])

    _draw_bones_and_muscles(canvas, person, cavity, texture)
    return cavity, diaphragm.astype(np.float32)


def _draw_bones_and_muscles(canvas: Canvas, person: Person, cavity: Array, texture: Array) -> None:
    p, hu, whole = canvas.points, person.hu, canvas.everywhere
    bone = hu["bone"] + 35 * texture
    lumbar = np.clip((-p.z + 20) / 120, 0, 1)  # the psoas begins at the first lumbar vertebra and grows downwards
    curve = 52 - 10 * np.exp(-(((p.z + 60) / 90) ** 2)) + 26 * np.clip((-170 - p.z) / 80, 0, 1)
    for side in (-1, 1):
        psoas = _pillar(p, side * 42, curve - 4, 8 + 12 * lumbar, 8 + 16 * lumbar) + canvas.surface
        psoas = np.maximum(np.maximum(psoas, p.z - 25), -290 - p.z).astype(np.float32)
        canvas.paint(whole, psoas, hu["muscle"] + 4 * texture)
        back = _pillar(p, side * 33, curve + 42, 32, 19) + canvas.surface
        canvas.paint(whole, back.astype(np.float32), hu["muscle"] - 4 + 10 * texture)
        hip = Ellipsoid((side * 92, 26, -222), (58, 62, 78), (12, 0, side * 20))
        where = canvas.region(*hip.box())
        shell = np.abs(hip.distance(canvas.at(where)) + 5) - 5
        outer = 20 - side * canvas.at(where).x + 0.4 * np.abs(canvas.at(where).z + 200)
        shell = np.maximum(shell, np.maximum(outer + 40, -40 - canvas.at(where).y)).astype(np.float32)
        canvas.paint(where, shell, hu["cortical bone"])
        canvas.paint(where, shell + 3, bone[where])
        head = Ellipsoid((side * 92, 8, -300), (25, 25, 25))
        where = canvas.region(*head.box())
        canvas.paint(where, head.distance(canvas.at(where)), hu["cortical bone"])
        canvas.paint(where, head.distance(canvas.at(where)) + 3, bone[where] + 60)

    level = np.abs(np.mod(p.z + person.rib_offset_mm + 17, 34) - 17)
    body = _pillar(p, 0, curve, 22, 16)
    canvas.paint(whole, body, hu["disc"])
    vertebra = np.maximum(body - 1, level - 13.5).astype(np.float32)
    canvas.paint(whole, vertebra, hu["cortical bone"] - 120)
    canvas.paint(whole, vertebra + 3, bone)
    arch = np.minimum(
        np.maximum(_pillar(p, 0, curve + 26, 17, 13), -_pillar(p, 0, curve + 25, 10, 8)),
        np.maximum(
            np.minimum(_pillar(p, 0, curve + 46, 4, 16), _pillar(p, 0, curve + 22, 34, 4.5)),
            level - 8,
        ),
    ).astype(np.float32)
    canvas.paint(whole, arch, hu["cortical bone"] - 60)
    canvas.paint(whole, _pillar(p, 0, curve + 25, 10, 8), 25.0)
    # Ribs run round the wall, lower in front than behind, and end at the costal margin.
    turn = np.mod(p.z - 0.5 * p.y + person.rib_offset_mm, 27) - 13.5
    rib = np.maximum(np.abs(cavity - 5) - 3.5, np.abs(turn) - 5.5)
    rib = np.maximum(rib, -25 - 0.65 * p.y - p.z).astype(np.float32)
    canvas.paint(whole, rib, hu["cortical bone"] - 100)
    canvas.paint(whole, rib + 2.5, bone)


def draw_organs(
    canvas: Canvas,
    person: Person,
    rng: np.random.Generator,
    classes: Mapping[str, int],
    cavity: Array,
    diaphragm: Array,
    texture: Array,
) -> None:
    """Paint bowel, vessels and all organs; those in ``classes`` are labelled, the others are unlabelled surroundings.

    Args:
        canvas: Receives the paint and the labels.
        person: Tissues and absent organs.
        rng: Source of the individual places, sizes and rotations.
        classes: Class index by organ name; two organs may share one.
        cavity: Signed distance to the trunk's cavity (D, H, W), mm.
        diaphragm: Signed distance to the diaphragm, negative below (D, H, W), mm.
        texture: Smooth random field (D, H, W), standard deviation 1.
    """
    # Chance is drawn for every organ in turn, present or not, so that one absence does not change the others.
    poses = {
        name: (
            rng.normal(0, organ.place_mm, 3),
            float(np.exp(np.clip(rng.normal(0, organ.size_sd), -2 * organ.size_sd, 2 * organ.size_sd))),
            rotation_matrix(rng.normal(0, organ.turn_degrees, 3)),
        )
        for name, organ in ORGANS.items()
    }
    _draw_bowel(canvas, person, rng, cavity, texture)
    for vessel in _SMALL_VESSELS:
        where = canvas.region(*vessel.box())
        distance = np.maximum(vessel.distance(canvas.at(where)), cavity[where])
        tissue = "portal vein" if vessel in _SMALL_VESSELS[:2] else "aorta"
        canvas.paint(where, distance, person.hu[tissue])

    for name, organ in ORGANS.items():
        if name in person.absent:
            continue
        where, distance = _organ_distance(canvas, organ, *poses[name])
        if distance.size == 0:
            continue
        distance = np.maximum(distance + organ.rough_mm * canvas.surface[where] / 3, cavity[where] + organ.clearance_mm)
        if name in ("liver", "spleen", "stomach"):
            distance = np.maximum(distance, diaphragm[where] + 3)
        distance = distance.astype(np.float32)
        if organ.fat_mm:
            canvas.paint(where, distance - organ.fat_mm, person.hu["fat"] + 9 * texture[where], 0)
        canvas.paint(where, distance, person.hu[name] + 4 * texture[where], classes.get(name, 0))
        _draw_inside(canvas, person, name, where, distance, poses[name][0], texture)


def _organ_distance(
    canvas: Canvas, organ: Organ, shift: np.ndarray, size: float, rotation: np.ndarray
) -> tuple[Slices, Array]:
    """Distance to an organ moved by ``shift``, grown by ``size`` and rotated about its middle."""
    boxes = [part.box() for part in organ.parts]
    low, high = np.min([box[0] for box in boxes], axis=0), np.max([box[1] for box in boxes], axis=0)
    middle = (low + high) / 2
    grown = (high - low) / 2 * size + np.abs(shift) + organ.fat_mm
    where = canvas.region(middle - grown, middle + grown)
    local = canvas.at(where).moved(rotation.T / size, middle + shift)
    local = Points(*(axis + np.float32(centre) for axis, centre in zip(local, middle, strict=True)))
    distances = [part.distance(local) for part in organ.parts]
    return where, np.asarray(np.minimum.reduce(distances) * np.float32(size), dtype=np.float32)


def _draw_inside(
    canvas: Canvas, person: Person, name: str, where: Slices, distance: Array, shift: np.ndarray, texture: Array
) -> None:
    """Paint what is not uniform within an organ; the labels stay, but for the kidney's sinus."""
    p, hu, rough = canvas.at(where), person.hu, texture[where]
    if name == "liver":
        for vessel in _LIVER_VESSELS:
            inside = np.maximum(vessel.distance(p), distance + 4).astype(np.float32)
            canvas.paint(where, inside, hu["portal vein"] - 8)
    elif name in ("right kidney", "left kidney"):
        medulla = {"native": 0.0, "arterial": -70.0, "portal": -18.0}[person.phase]
        canvas.paint(where, distance + 8 + 2 * rough, hu[name] + medulla)
        side = -1 if name == "right kidney" else 1
        sinus = Ellipsoid((side * 45 + shift[0], 36 + shift[1], (-20, 2)[side > 0] + shift[2]), (14, 9, 22))
        canvas.paint(where, sinus.distance(p) + 2 * rough, hu["fat"] + 45, 0)
    elif name == "stomach":
        content = 150.0 if person.oral_contrast else 22.0
        canvas.paint(where, distance + 5, content + 14 * rough)
        gas = np.maximum(distance + 5, p.y - np.float32(person.gas_level_mm)).astype(np.float32)
        canvas.paint(where, gas, -950.0)
    elif name == "duodenum":
        canvas.paint(where, distance + 4, (130.0 if person.oral_contrast else 28.0) + 14 * rough)
    elif name == "esophagus":
        canvas.paint(where, distance + 6 + 2 * rough, -120.0)
    elif name == "gallbladder":
        canvas.paint(where, np.abs(distance + 1) - 0.8, hu["bowel"])


def _draw_bowel(canvas: Canvas, person: Person, rng: np.random.Generator, cavity: Array, texture: Array) -> None:
    """Paint colon and small bowel: unlabelled, and in places hard to tell from duodenum and pancreas."""
    loops: list[tuple[Tube, float, float]] = [(_COLON, 3.5, -520.0)]
    for _ in range(5):
        steps = rng.normal(0, 1, (13, 3))
        path = np.cumsum(steps, axis=0)
        path = (path - path.mean(0)) / (path.std(0) + 0.3) * (50, 26, 42) + (4, -34, -120)
        inside = float(rng.choice([20.0, 25.0, 160.0 if person.oral_contrast else 30.0, -250.0]))
        loops.append((Tube(tuple((float(x), float(y), float(z)) for x, y, z in path), (12.0,)), 1.5, inside))
    for tube, rough_mm, inside in loops:
        where = canvas.region(*tube.box())
        distance = tube.distance(canvas.at(where)) + np.float32(rough_mm) * texture[where]
        distance = np.maximum(distance, cavity[where] + 2).astype(np.float32)
        canvas.paint(where, distance, person.hu["bowel"])
        mixed = np.where(texture[where] > 0.2, inside, 40.0) if tube is _COLON else inside + 10 * texture[where]
        canvas.paint(where, distance + 3.5, np.asarray(mixed, dtype=np.float32))
