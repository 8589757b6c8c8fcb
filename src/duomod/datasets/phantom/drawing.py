"""Paints one person of the built-in phantom: first the trunk, then bowel, vessels and organs.

Coordinates and distances as in `shapes` (LPS, mm); the average body is in `anatomy`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from duomod.datasets.phantom.anatomy import COLON, LIVER_VESSELS, ORGANS, SMALL_VESSELS, Organ, Person
from duomod.datasets.phantom.shapes import Array, Canvas, Ellipsoid, Points, Slices, Tube, rotation_matrix


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
    for vessel in SMALL_VESSELS:
        where = canvas.region(*vessel.box())
        distance = np.maximum(vessel.distance(canvas.at(where)), cavity[where])
        tissue = "portal vein" if vessel in SMALL_VESSELS[:2] else "aorta"
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
    canvas: Canvas, organ: Organ, shift: NDArray[np.float64], size: float, rotation: NDArray[np.float64]
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
    canvas: Canvas,
    person: Person,
    name: str,
    where: Slices,
    distance: Array,
    shift: NDArray[np.float64],
    texture: Array,
) -> None:
    """Paint what is not uniform within an organ; the labels stay, but for the kidney's sinus."""
    p, hu, rough = canvas.at(where), person.hu, texture[where]
    if name == "liver":
        for vessel in LIVER_VESSELS:
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
    loops: list[tuple[Tube, float, float]] = [(COLON, 3.5, -520.0)]
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
        mixed = np.where(texture[where] > 0.2, inside, 40.0) if tube is COLON else inside + 10 * texture[where]
        canvas.paint(where, distance + 3.5, np.asarray(mixed, dtype=np.float32))
