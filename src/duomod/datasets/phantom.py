"""The built-in phantom: an abdominal CT-like world with the organs of AMOS, written as NIfTI in AMOS's layout.

It stands in for real data in the demo and the tests. ``amos`` draws the 15 organs at their real volumes; ``tiny`` draws
the same bodies coarsely and labels seven of the organs. `phantom_anatomy` holds the anatomy, this file the scanner:
field of view, voxels, blur, noise, orientation and files.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from duomod.console import progress, say
from duomod.datasets.phantom_anatomy import ORGANS, Phase, draw_organs, draw_person, draw_trunk
from duomod.datasets.phantom_shapes import Array, Canvas, Labels, Points, smooth_field
from duomod.datasets.spec import DatasetSpec, load_spec
from duomod.errors import DuomodError, InputError, nearest_name
from duomod.workspace import atomic_path, read_json, write_json

Preset = Literal["amos", "tiny"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

#: Counts up whenever the drawing changes, so that a folder is never completed with cases of another world.
VERSION = 1
SETTINGS_FILE = "phantom.json"


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
    return load_spec(_scanner(preset).dataset)


def make_case(seed: int, index: int, preset: Preset = "amos") -> PhantomCase:
    """Draw one scan. The same arguments always give the same voxels.

    Args:
        seed: The population's seed, >= 0.
        index: The person's number in it, >= 0.
        preset: ``amos`` or ``tiny``.

    Raises:
        InputError: unknown preset.
    """
    scanner = _scanner(preset)
    # One generator a purpose: more draws for the one do not change the other.
    for_scan, for_body, for_shapes, for_organs, for_noise = (
        np.random.default_rng([seed, index, purpose]) for purpose in range(5)
    )
    phase: Phase = ("native", "arterial", "portal")[int(for_scan.choice(3, p=scanner.phases))]
    person = draw_person(for_body, phase, scanner.spread)
    size = for_body.normal(1.0, 0.045) * np.exp(for_body.normal(0, 0.025, 3))
    axes, spacing_mm = _field_of_view(for_scan, scanner, size)

    bend = [
        5.0 * smooth_field(for_shapes, axes, 110) + 1.6 * smooth_field(for_shapes, axes, 45) for _ in range(3)
    ]
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


def _scanner(preset: str) -> Scanner:
    for name, scanner in SCANNERS.items():
        if name == preset:
            return scanner
    raise InputError(f"unknown phantom preset '{preset}'.{nearest_name(preset, PRESETS)} Known: {', '.join(PRESETS)}.")


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
    z, y, x = np.meshgrid(*canvas.axes, indexing="ij", sparse=True)
    # The couch is flat where the patient lies and does not bend with the patient.
    couch = np.maximum(np.abs(y - 168 + 0.0006 * x**2) - 3.5, np.abs(x) - 190)
    empty = canvas.image < -950
    image = np.where(empty & (couch < 0), np.float32(-150), canvas.image)
    # A slice averages over its thickness, the kernel blurs in the plane: partial volume at every boundary.
    image = gaussian_filter(image, (0.45, 0.5, 0.5))
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    grain = 0.6 * grain + 1.9 * gaussian_filter(grain, (0.3, 0.9, 0.9))
    image += np.float32(noise_hu) * grain / grain.std()
    return np.clip(image, -1024, 3071).astype(np.float32)


def _oriented(
    image: Array,
    labels: Labels,
    spacing_mm: tuple[float, float, float],
    axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    orientation: str,
    facts: dict[str, Any],
) -> PhantomCase:
    """Store arrays given in LPS order so that image axes x, y and z run towards the three letters of ``orientation``."""
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


@dataclass(frozen=True)
class _Settings:
    """What a phantom folder was asked to hold; kept in it."""

    cases: int
    unlabeled: int
    seed: int
    preset: Preset
    version: int = VERSION

    def plan(self) -> list[tuple[str, str, bool]]:
        """Return (case id, ``Tr`` or ``Va``, labelled) of every case; a case's place in the list is its index."""
        held_out = max(round(0.25 * self.cases), 2 if self.cases >= 6 else 1 if self.cases >= 2 else 0)
        roles = [("Tr", True)] * (self.cases - held_out) + [("Va", True)] * held_out + [("Tr", False)] * self.unlabeled
        prefix = _scanner(self.preset).id_prefix
        return [(f"{prefix}_{number:04d}", *role) for number, role in enumerate(roles, start=1)]


def write_phantom(
    out: Path, *, cases: int, seed: int, preset: Preset = "amos", unlabeled: int = 0, workers: int = 1
) -> Path:
    """Write a phantom data set in AMOS's layout; run again, it completes what is missing.

    A quarter of the cases (at least two of six or more) goes to ``imagesVa``/``labelsVa``, the rest to
    ``imagesTr``/``labelsTr``. Images are int16 HU, labels uint8.

    Args:
        out: The folder; new, empty, or a phantom of the same settings.
        cases: Labelled cases in all, >= 1.
        seed: Seed of the population, >= 0.
        preset: ``amos`` or ``tiny``.
        unlabeled: Further training cases, written without a label file.
        workers: Processes; 1 stays in this one.

    Returns:
        ``out``.

    Raises:
        InputError: a number out of range, an unknown preset, or a folder that holds something else.
        DuomodError: a worker process died.
    """
    out = Path(out)
    scanner = _scanner(preset)
    problems = [
        f"phantom: {name} must be at least {least}, not {value}"
        for name, value, least in (("cases", cases, 1), ("seed", seed, 0), ("unlabeled", unlabeled, 0))
        if value < least
    ]
    if preset == "amos" and cases + unlabeled > 499:
        problems.append("phantom: preset amos holds at most 499 cases, because AMOS ids of 500 and above mean MR")
    if problems:
        raise InputError(problems)
    settings = _Settings(cases, unlabeled, seed, preset)
    _claim(out, settings)

    plan = settings.plan()
    missing = [index for index, (case_id, role, _) in enumerate(plan) if not _image_path(out, role, case_id).exists()]
    if len(missing) < len(plan):
        say(f"phantom: {len(plan) - len(missing)} of {len(plan)} cases are already in {out}")
    with progress("phantom", total=len(plan), start=len(plan) - len(missing)) as advance:
        if workers <= 1 or len(missing) <= 1:
            for index in missing:
                _write_case(out, settings, index)
                advance(plan[index][0])
        else:
            context = multiprocessing.get_context("spawn")
            with _named_death(out), ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
                jobs = {pool.submit(_write_case, out, settings, index): index for index in missing}
                for job in as_completed(jobs):
                    job.result()
                    advance(plan[jobs[job]][0])
    write_json(out / "dataset.json", _dataset_json(settings, load_spec(scanner.dataset)))
    return out


@contextmanager
def _named_death(out: Path) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise DuomodError(
            f"{out}: a worker process ended unexpectedly (perhaps for lack of memory); "
            "run the same command again with fewer workers, it goes on where it stopped"
        ) from None


def _claim(out: Path, settings: _Settings) -> None:
    """Make the folder this phantom's, or check that it is."""
    marker = out / SETTINGS_FILE
    if marker.exists():
        found, wanted = read_json(marker), asdict(settings)
        if found != wanted:
            found = found if isinstance(found, dict) else {}
            differing = [f"{name} {found.get(name)} (asked for: {wanted[name]})" for name in wanted
                         if found.get(name) != wanted[name]]
            raise InputError(
                f"{out}: holds a phantom of other settings: {', '.join(differing)}. Choose a new folder or delete it."
            )
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder for the phantom")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: the folder is not empty and holds no phantom; give a new or an empty folder")
    write_json(marker, asdict(settings))


def _image_path(out: Path, role: str, case_id: str) -> Path:
    return out / f"images{role}" / f"{case_id}.nii.gz"


def _write_case(out: Path, settings: _Settings, index: int) -> None:
    case_id, role, labelled = settings.plan()[index]
    case = make_case(settings.seed, index, settings.preset)
    # The image comes last and marks the case as done: a label without an image is noticed, an image without a label
    # would pass for an unlabelled case.
    if labelled:
        _write_nifti(out / f"labels{role}" / f"{case_id}.nii.gz", case.labels, case)
    _write_nifti(_image_path(out, role, case_id), np.rint(case.image).astype(np.int16), case)


def _write_nifti(target: Path, voxels: NDArray[Any], case: PhantomCase) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(case.spacing)
    image.SetOrigin(case.origin)
    image.SetDirection(case.direction)
    with atomic_path(target) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _dataset_json(settings: _Settings, spec: DatasetSpec) -> dict[str, Any]:
    """The description in AMOS's style: labels by number, cases listed with relative paths."""
    plan = settings.plan()

    def listed(role: str) -> list[dict[str, str]]:
        return [
            {"image": f"./images{role}/{case_id}.nii.gz", "label": f"./labels{role}/{case_id}.nii.gz"}
            for case_id, its_role, labelled in plan
            if its_role == role and labelled
        ]

    training, validation = listed("Tr"), listed("Va")
    return {
        "name": f"duomod phantom ({settings.preset})",
        "description": f"Synthetic abdominal CT, seed {settings.seed}; made by duomod phantom, no patient data",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(index): name for index, name in enumerate(spec.classes)},
        "numTraining": len(training),
        "numValidation": len(validation),
        "numTest": 0,
        "training": training,
        "validation": validation,
        "test": [],
        "unlabeled": [f"./imagesTr/{case_id}.nii.gz" for case_id, _, labelled in plan if not labelled],
    }
