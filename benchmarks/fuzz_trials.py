"""What ``fuzz.py`` tries: which damaged file goes through which command, and what another reader says of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from fuzz_inputs import SCAN, SERIES, TRAINING, Random, Trial, spoil_checkpoint, spoil_dicom, spoil_nifti, spoil_text

from duomod.datasets.dicom.find import find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.datasets.scan import image_problems

Array = np.ndarray[Any, Any]


def _nothing() -> None:
    return None


def nifti(base: Path, work: Path, rng: Random) -> Trial:
    """A damaged NIfTI file as a scan to predict, as a label map to score, or in a set to preprocess."""
    model = base / "ckpts" / "best_model.pth"
    use = str(rng.choice(["predict", "evaluate", "preprocess"], p=[0.6, 0.2, 0.2]))
    if use == "predict":
        path = work / "scan.nii.gz"
        what = spoil_nifti(base / SCAN, path, rng)
        command = ["predict", "--input", path, "--model", model, "--output", work / "masks", "--gpu", ""]
        return Trial(what, list(map(str, command)), lambda: _nifti_difference(path, work))
    if use == "evaluate":
        (source,) = sorted((base / "raw/labelsVa").iterdir())[:1]
        (work / "p").mkdir()
        (work / "t").mkdir()
        path = work / "t" / source.name
        shutil.copy(source, work / "p" / source.name)
        what = spoil_nifti(source, path, rng)
        command = ["evaluate", work / "p", work / "t", "--output_csv", work / "r.csv", "--workers", "1"]
        return Trial(what, list(map(str, command)), lambda: _nifti_difference(path, work))
    raw = work / "raw"
    shutil.copytree(base / "raw", raw)
    path = sorted((raw / str(rng.choice(["imagesTr", "labelsTr"]))).iterdir())[0]
    what = f"{path.parent.name}: {spoil_nifti(path, path, rng)}"
    command = ["preprocess", "--data_path", raw, "--output_path", work / "pre", "--spacing", "12,12,12"]
    return Trial(what, [*map(str, command), "--workers", "1"], lambda: _nifti_difference(path, work))


def _nifti_difference(path: Path, work: Path) -> str | None:
    """What nibabel reads otherwise, unless a sentence named the file."""
    image, problems = image_problems(path)
    if image is None or problems:
        return f"the reader refuses it, the command did not: {problems}"
    try:
        other = nib.load(path)
        affine, voxels = other.affine, np.asarray(other.get_fdata())
    except Exception as error:
        return f"nibabel refuses it: {error}"
    ours: Array = np.asarray(_array(image), dtype=float).T
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    edge = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).T
    corners[:3] *= (np.array([ours.shape]) - 1).T
    moved = float(np.abs((matrix - affine) @ corners).max()) / edge
    if _named(path, work):
        return None
    if ours.shape != voxels.shape or moved > 0.05:
        return f"nibabel's grid differs by {moved:.2f} voxels: {ours.shape}, {voxels.shape}"
    if not np.allclose(ours, voxels, rtol=1e-5, atol=1e-3, equal_nan=True):
        return f"nibabel's voxels differ by up to {np.nanmax(np.abs(ours - voxels)):g}"
    return None


def _array(image: Any) -> Array:
    import SimpleITK as sitk

    array: Array = sitk.GetArrayFromImage(image)
    return array


def _named(path: Path, work: Path) -> bool:
    """Whether what the command said names the file."""
    return path.name in (work / "words.txt").read_text(encoding="utf-8", errors="replace")


def dicom(base: Path, work: Path, rng: Random) -> Trial:
    """A damaged series to predict."""
    folder = work / SERIES
    shutil.copytree(base / SERIES, folder)
    what = spoil_dicom(folder, rng)
    model = base / "ckpts" / "best_model.pth"
    command = ["predict", "--input", folder, "--model", model, "--output", work / "masks", "--gpu", ""]
    return Trial(what, list(map(str, command)), lambda: _dicom_difference(folder, work))


def _dicom_difference(folder: Path, work: Path) -> str | None:
    """What pydicom alone reads otherwise: every file a slice, in the order of their places, rescaled one by one."""
    words = (work / "words.txt").read_text(encoding="utf-8", errors="replace")
    image = read_series(find_series(folder).series[0])
    slices = []
    for path in sorted(folder.iterdir()):
        try:
            data = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in data.file_meta:  # it can be seen how the elements are written
                data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            place = np.array(data.ImagePositionPatient, float)
            axes = np.array(data.ImageOrientationPatient, float)
            pixels = data.pixel_array.astype(float) * float(data.get("RescaleSlope", 1) or 1)
            pixels = pixels + float(data.get("RescaleIntercept", 0) or 0)
        except Exception as error:
            if path.name in words:
                continue
            return f"{path.name}: pydicom refuses it and nothing is said: {error}"
        slices.append((float(np.cross(axes[:3], axes[3:]) @ place), pixels, place, data))
    if any(name.name in words for name in folder.iterdir()):
        return None
    slices.sort(key=lambda one: one[0])
    ours = np.asarray(_array(image), dtype=float)
    theirs = np.stack([one[1] for one in slices])
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-3):
        return f"pydicom's voxels differ: {ours.shape}, {theirs.shape}"
    data, first, last = slices[0][3], slices[0][2], slices[-1][2]
    spacing = [float(data.PixelSpacing[1]), float(data.PixelSpacing[0])]
    spacing.append(float(np.linalg.norm(last - first)) / max(1, len(slices) - 1))
    if not np.allclose(image.GetSpacing(), spacing, rtol=1e-3) or not np.allclose(image.GetOrigin(), first, atol=1e-2):
        return f"pydicom's grid differs: spacing {image.GetSpacing()}, {spacing}; origin {image.GetOrigin()}, {first}"
    return None


def text(base: Path, work: Path, rng: Random) -> Trial:
    """A damaged text in the place where a command reads it."""
    kinds = list(_TEXTS)
    command, path = _TEXTS[kinds[int(rng.integers(len(kinds)))]](base, work)
    return Trial(spoil_text(path, rng), list(map(str, command)), _nothing)


Placed = tuple[list[Any], Path]


def _preprocess(base: Path, work: Path, *more: Any) -> list[Any]:
    shutil.copytree(base / "raw", work / "raw")
    return ["preprocess", "--data_path", work / "raw", "--output_path", work / "out", "--spacing", "12,12,12",
            "--workers", "1", *more]  # fmt: skip


def _raw_index(base: Path, work: Path) -> Placed:
    return _preprocess(base, work), work / "raw/dataset.json"


def _description(base: Path, work: Path) -> Placed:
    path = shutil.copy(base / "description.yaml", work)
    return _preprocess(base, work, "--dataset", path), Path(path)


def _raw_list(base: Path, work: Path) -> Placed:
    command = _preprocess(base, work)
    (work / "raw/splits").mkdir()
    return command, Path(shutil.copy(base / "list.txt", work / "raw/splits/test.txt"))


def _experiment(base: Path, work: Path) -> Placed:
    path = shutil.copy(base / "experiment.yaml", work)
    return ["pipeline", path, "--dry_run"], Path(path)


def _store(base: Path, work: Path, name: str) -> Placed:
    shutil.copytree(base / "pre", work / "pre")
    model = base / "ckpts" / "best_model.pth"
    command = ["predict", "--npy_path", work / "pre", "--model", model, "--output", work / "masks", "--gpu", ""]
    return [*command, "--split", "labeled_all"], work / "pre" / name


def _beside(base: Path, work: Path, name: str, command: str) -> Placed:
    runs = work / "runs"
    shutil.copytree(base / "runs", runs)
    method = runs / "method"
    path = sorted(method.rglob(name))[0]
    if command == "report":
        return ["report", method, "--output", work / "report", "--no_viewer", "--worst", "0"], path
    if command == "compare":
        tables = [runs / one / f"{one}_aggregated_metrics.csv" for one in ("method", "other")]
        return ["compare", *tables, "--baseline", "other", "-o", work / "c", "--resamples", "100"], path
    if command == "train":
        folders = ["--data_path", base / "pre", "--output_dir", method / "seed_0"]
        return ["train", *TRAINING.split(), "", *folders, "--resume"], path
    return ["aggregate", "--method_base_dir", method], path


_TEXTS: dict[str, Callable[[Path, Path], Placed]] = {
    "raw dataset.json": _raw_index,
    "description": _description,
    "raw list": _raw_list,
    "experiment": _experiment,
    "dataset.json": lambda base, work: _store(base, work, "dataset.json"),
    "list": lambda base, work: _store(base, work, "splits/labeled_all.txt"),
    "config.yaml": lambda base, work: _beside(base, work, "config.yaml", "report"),
    "resumed config.yaml": lambda base, work: _beside(base, work, "config.yaml", "train"),
    "metrics.jsonl": lambda base, work: _beside(base, work, "metrics.jsonl", "report"),
    "prediction.json": lambda base, work: _beside(base, work, "prediction.json", "report"),
    "train_manifest.json": lambda base, work: _beside(base, work, "train_manifest.json", "report"),
    "organs": lambda base, work: _beside(base, work, "result_organs.csv", "report"),
    "result.csv": lambda base, work: _beside(base, work, "result.csv", "aggregate"),
    "result.json": lambda base, work: _beside(base, work, "result.json", "aggregate"),
    "aggregated table": lambda base, work: _beside(base, work, "method_aggregated_metrics.csv", "compare"),
    "sources": lambda base, work: _beside(base, work, "method_aggregated_metrics_sources.json", "compare"),
}


def checkpoint(base: Path, work: Path, rng: Random) -> Trial:
    """A damaged checkpoint that predicts."""
    path = Path(shutil.copy(base / "ckpts" / "best_model.pth", work))
    what = spoil_checkpoint(path, rng)
    command = ["predict", "--input", base / SCAN, "--model", path, "--output", work / "masks", "--gpu", ""]
    return Trial(what, list(map(str, command)), _nothing)


TRIALS: dict[str, Callable[[Path, Path, Random], Trial]] = {
    "nifti": nifti,
    "dicom": dicom,
    "text": text,
    "checkpoint": checkpoint,
}
