"""The built-in phantom's scanner: what a preset's scans look like, and how one is drawn from (seed, index)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from duomod.datasets.phantom.anatomy import ORGANS, PHASES, draw_person
from duomod.datasets.phantom.drawing import draw_organs, draw_trunk
from duomod.datasets.phantom.settings import Preset
from duomod.datasets.phantom.shapes import Array, Canvas, Labels, Points, smooth_field
from duomod.datasets.spec import DatasetSpec, load_spec
from duomod.errors import InputError, unknown_name

PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(frozen=True)
class Scanner:
    """How a preset's scans vary. Ranges are uniform; lengths in mm; z is 0 at the renal hila, positive to the head.

    ``cut`` is how often the field of view leaves out part of the abdomen. ``spread`` scales how much tissues differ
    between people (see `draw_person`).
    """

    dataset: str
    id_prefix: str
    in_plane_mm: tuple[float, float]
    slice_mm: tuple[float, ...]
    width_mm: tuple[float, float]
    top_mm: tuple[float, float]
    bottom_mm: tuple[float, float]
    cut: float
    cut_top_mm: tuple[float, float]
    cut_bottom_mm: tuple[float, float]
    phases: tuple[float, float, float]
    noise_hu: tuple[float, float]
    spread: float
    orientations: tuple[str, ...]


SCANNERS: Mapping[Preset, Scanner] = MappingProxyType(
    {
        "amos": Scanner(
            dataset="amos22",
            id_prefix="amos",
            in_plane_mm=(2.3, 3.0),
            slice_mm=(3.0, 4.0, 5.0, 5.0),
            width_mm=(350, 430),
            top_mm=(135, 185),
            bottom_mm=(-345, -318),
            cut=0.35,
            cut_top_mm=(70, 125),
            cut_bottom_mm=(-240, -90),
            phases=(0.15, 0.2, 0.65),
            noise_hu=(12, 22),
            spread=1.0,
            orientations=("LPS", "RAS", "LAS", "RAI", "LPS", "RAS", "PSR", "LSA"),
        ),
        "tiny": Scanner(
            dataset="phantom_tiny",
            id_prefix="phantom",
            in_plane_mm=(5.0, 6.0),
            slice_mm=(5.0, 6.0, 7.0),
            width_mm=(345, 365),
            top_mm=(125, 150),
            bottom_mm=(-135, -105),
            cut=0.2,
            cut_top_mm=(70, 110),
            cut_bottom_mm=(-70, -20),
            phases=(0.0, 0.15, 0.85),
            noise_hu=(7, 12),
            spread=0.7,
            orientations=("LPS", "RAS", "LAS", "RAI", "LPS", "RAS", "PSR", "LSA"),
        ),
    }
)


class PhantomCase(NamedTuple):
    """One scan. Arrays are (D, H, W), the slowest image axis first, as SimpleITK's array views are."""

    image: Array  # CT numbers in HU, float32
    labels: Labels  # class indices of the preset's data set description, uint8
    spacing: tuple[float, float, float]  # mm along image axes x, y, z (W, H, D)
    origin: tuple[float, float, float]  # patient position (LPS, mm) of the first voxel
    direction: tuple[float, ...]  # 3x3, row by row, as SimpleITK takes it
    facts: dict[str, Any]  # what was drawn: phase, orientation, absent organs ...


def preset_spec(preset: Preset) -> DatasetSpec:
    """Return the description of a preset's data set.

    Raises:
        InputError: unknown preset.
    """
    return load_spec(scanner_of(preset).dataset)


def make_case(seed: int, index: int, preset: Preset = "amos") -> PhantomCase:
    """Draw one scan. The same arguments always give the same voxels.

    Args:
        seed: The population's seed, >= 0.
        index: The person's number in it, >= 0.
        preset: ``amos`` or ``tiny``.

    Raises:
        InputError: unknown preset.
    """
    scanner = scanner_of(preset)
    # One generator a purpose: more draws for the one do not change the other.
    for_scan, for_body, for_shapes, for_organs, for_noise = (
        np.random.default_rng([seed, index, purpose]) for purpose in range(5)
    )
    phase = PHASES[int(for_scan.choice(3, p=scanner.phases))]
    person = draw_person(for_body, phase, scanner.spread)
    size = for_body.normal(1.0, 0.045) * np.exp(for_body.normal(0, 0.025, 3))
    axes, spacing_mm = _field_of_view(for_scan, scanner, size)

    bend = [5.0 * smooth_field(for_shapes, axes, 110) + 1.6 * smooth_field(for_shapes, axes, 45) for _ in range(3)]
    z, y, x = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True)
    place = (x - bend[0], y - bend[1], z - bend[2])
    canvas = Canvas(
        axes=axes,
        points=Points(*(axis / np.float32(s) for axis, s in zip(place, size, strict=True))),
        size=size,
        surface=1.2 * smooth_field(for_shapes, axes, 26),
        edge_mm=spacing_mm[0],
    )
    texture = smooth_field(for_shapes, axes, 9)
    cavity, diaphragm = draw_trunk(canvas, person, texture)
    spec = load_spec(scanner.dataset)
    draw_organs(canvas, person, for_organs, organ_classes(spec), cavity, diaphragm, texture)
    noise_hu = float(for_scan.uniform(*scanner.noise_hu))
    image = _scan(canvas, for_noise, noise_hu)
    orientation = scanner.orientations[int(for_scan.integers(len(scanner.orientations)))]
    facts = {
        "phase": phase,
        "orientation": orientation,
        "absent": sorted(person.absent),
        "tissue_hu": {name: round(value, 1) for name, value in person.hu.items()},
        "fat_mm": round(person.fat_mm, 1),
        "noise_hu": round(noise_hu, 1),
    }
    return _oriented(image, canvas.labels, spacing_mm, axes, orientation, facts)


def organ_classes(spec: DatasetSpec) -> dict[str, int]:
    """Return the class index of every organ that a description labels; plural classes hold both sides' organs."""
    found = {name: spec.classes.index(name) for name in ORGANS if name in spec.classes}
    for index, name in enumerate(spec.classes):
        for side in ("right", "left"):
            if f"{side} {name.removesuffix('s')}" in ORGANS:
                found[f"{side} {name.removesuffix('s')}"] = index
    return found


def scanner_of(preset: str) -> Scanner:
    """Return a preset's scanner.

    Raises:
        InputError: unknown preset; the nearest name is suggested.
    """
    if preset in PRESETS:
        return SCANNERS[preset]
    raise InputError(unknown_name("phantom preset", preset, PRESETS))


def _field_of_view(
    rng: np.random.Generator, scanner: Scanner, size: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], tuple[float, float, float]]:
    """Draw the grid: voxel positions along z, y and x (mm) and the spacing (x, y, z; mm)."""
    in_plane_mm = round(float(rng.uniform(*scanner.in_plane_mm)), 3)
    slice_mm = float(rng.choice(scanner.slice_mm))
    width_mm, top_mm, bottom_mm = (
        float(rng.uniform(*bounds)) for bounds in (scanner.width_mm, scanner.top_mm, scanner.bottom_mm)
    )
    is_cut, cut_above = rng.random() < scanner.cut, rng.random() < 0.4
    cut_top_mm, cut_bottom_mm = float(rng.uniform(*scanner.cut_top_mm)), float(rng.uniform(*scanner.cut_bottom_mm))
    if is_cut and cut_above:
        top_mm = cut_top_mm
    elif is_cut:
        bottom_mm = cut_bottom_mm
    slices = round((top_mm - bottom_mm) * size[2] / slice_mm)
    across = round(width_mm / in_plane_mm)
    z = bottom_mm * size[2] + slice_mm * np.arange(slices)
    shift_x, shift_y = rng.normal(0, 6, 2)
    centred = in_plane_mm * (np.arange(across) - (across - 1) / 2)
    return (z, centred + shift_y, centred + shift_x), (in_plane_mm, in_plane_mm, slice_mm)


def _scan(canvas: Canvas, rng: np.random.Generator, noise_hu: float) -> Array:
    """Turn the painted tissues into a CT: couch, blur, grainy noise, 12-bit limits."""
    _, y, x = np.meshgrid(*canvas.axes, indexing="ij", sparse=True)
    # The couch is flat where the patient lies and does not bend with the patient.
    couch = np.maximum(np.abs(y - 168 + 0.0006 * x**2) - 3.5, np.abs(x) - 190)
    empty = canvas.image < -950
    image = np.where(empty & (couch < 0), np.float32(-150), canvas.image)
    # A slice averages over its thickness, the kernel blurs in the plane: partial volume at every boundary.
    image = gaussian_filter(image, (0.45, 0.5, 0.5))
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    grain = 0.6 * grain + 1.9 * gaussian_filter(grain, (0.3, 0.9, 0.9))
    image += np.float32(noise_hu) * grain / grain.std()
    return np.asarray(np.clip(image, -1024, 3071), dtype=np.float32)


def _oriented(
    image: Array,
    labels: Labels,
    spacing_mm: tuple[float, float, float],
    axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    orientation: str,
    facts: dict[str, Any],
) -> PhantomCase:
    """Store arrays given in LPS order so that image axes x, y, z run towards the three letters of ``orientation``."""
    origin_mm = [0.0, 0.0, 0.0]
    direction = np.zeros((3, 3))
    order, flips = [], []
    for image_axis, letter in enumerate(orientation):
        patient_axis = next(i for i, pair in enumerate(("LR", "PA", "SI")) if letter in pair)
        sign = 1 if letter in "LPS" else -1
        direction[patient_axis, image_axis] = sign
        positions = axes[2 - patient_axis]
        origin_mm[patient_axis] = float(positions[0] if sign > 0 else positions[-1])
        order.append(2 - patient_axis)
        flips.append(slice(None, None, sign))
    # Arrays list the slowest image axis (z) first.
    order, flips = order[::-1], flips[::-1]
    return PhantomCase(
        image=np.ascontiguousarray(image.transpose(order)[tuple(flips)]),
        labels=np.ascontiguousarray(labels.transpose(order)[tuple(flips)]),
        spacing=tuple(spacing_mm[2 - axis] for axis in order[::-1]),  # type: ignore[arg-type]
        origin=(origin_mm[0], origin_mm[1], origin_mm[2]),
        direction=tuple(direction.ravel().tolist()),
        facts=facts,
    )
