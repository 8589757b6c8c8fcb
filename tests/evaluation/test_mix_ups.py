"""Why a good prediction scores badly is told: truths stored in another order, labels exchanged, images mirrored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.grid import Geometry
from duomod.evaluation.evaluate import run_evaluate
from duomod.evaluation.mix_ups import mirror, sided
from duomod.evaluation.results import ResultInfo, read_result
from duomod.evaluation.settings import EvaluateSettings
from duomod.settings import checked

CLASSES = ("background", "left kidney", "right kidney", "liver", "spleen")
CASES = ("a.nii.gz", "b.nii.gz", "c.nii.gz")


def body(seed: int) -> np.ndarray:
    """Organs of different sizes, none the mirror of another, shifted a little from case to case."""
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[3:9, 14:19, 3:8] = 1
    labels[4:11, 13:18, 19:25] = 2
    labels[11:18, 3:12, 16:27] = 3
    labels[12:16, 8:14, 2:8] = 4
    return np.roll(labels, seed % 2, axis=0)


def near(labels: np.ndarray) -> np.ndarray:
    """A prediction that is one voxel off."""
    return np.roll(labels, 1, axis=1)


def exchanged(labels: np.ndarray, *pairs: tuple[int, int]) -> np.ndarray:
    table = np.arange(len(CLASSES), dtype=np.uint8)
    for a, b in pairs:
        table[[a, b]] = table[[b, a]]
    return table[labels]


def save(path: Path, image: np.ndarray | sitk.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, np.ndarray):
        image = sitk.GetImageFromArray(image)
        image.SetSpacing((0.8, 0.9, 2.5))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for seed, name in enumerate(CASES):
        save(tmp_path / "truth" / name, body(seed))
        save(tmp_path / "predictions" / name, near(body(seed)))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {name: i for i, name in enumerate(CLASSES)}}))
    return tmp_path / "predictions", tmp_path / "truth"


def evaluate(folders: tuple[Path, Path], name: str = "result.csv") -> Path:
    settings = {"pred_path": folders[0], "gt_path": folders[1], "workers": 1, "metrics": ["dice", "asd", "hd95", "nsd"]}
    return run_evaluate(checked(EvaluateSettings, {**settings, "output_csv": folders[0].parent / name}))


def info(result: Path) -> ResultInfo:
    found = read_result(result).info
    assert found is not None
    return found


def test_a_truth_stored_from_the_other_end_gives_the_same_numbers_and_is_named(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = evaluate(folders, "plain.csv")
    assert info(expected).reordered == {}
    for name, change in (("a.nii.gz", (1, -1, 1)), ("b.nii.gz", (-1, -1, -1))):
        stored = sitk.ReadImage(str(folders[1] / name))
        save(folders[1] / name, stored[tuple(slice(None, None, end) for end in change)])
    save(folders[1] / "c.nii.gz", sitk.PermuteAxes(sitk.ReadImage(str(folders[1] / "c.nii.gz")), (2, 0, 1)))
    found = evaluate(folders)
    assert found.read_bytes() == expected.read_bytes()
    ways = ("y from the other end", "x from the other end, y from the other end, z from the other end")
    moved = "y stored as x, z stored as y, x stored as z"
    assert info(found).reordered == dict(zip(CASES, (*ways, moved), strict=True))
    assert f"read in the prediction's ({ways[0]}): a.nii.gz." in capsys.readouterr().err


def test_kidneys_exchanged_in_the_predictions_are_told_with_the_dice_they_would_have(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = read_result(evaluate(folders, "plain.csv")).values["Dice"]
    for seed, name in enumerate(CASES):
        save(folders[0] / name, exchanged(near(body(seed)), (1, 2)))
    (one,) = info(evaluate(folders)).mix_ups
    assert (one.kind, one.classes, one.cases, one.total) == ("exchanged", CLASSES[1:3], CASES, 3)
    assert one.dice == 0
    assert one.dice_if == pytest.approx(expected[:, :2].mean(), abs=1e-12)
    sentence = (
        f"Dice {one.dice_if:.2f} instead of 0.00 if left kidney and right kidney are exchanged in the predictions"
    )
    assert f"Mixed up? {sentence} (3 of 3 cases: a.nii.gz, b.nii.gz, c.nii.gz)." in capsys.readouterr().err


def test_one_case_of_many_is_enough_and_one_kidney_too(folders: tuple[Path, Path]) -> None:
    lone = body(1)
    lone[lone == 2] = 0
    save(folders[1] / "b.nii.gz", lone)
    save(folders[0] / "b.nii.gz", exchanged(near(lone), (1, 2)))
    (one,) = info(evaluate(folders)).mix_ups
    assert (one.kind, one.cases, one.total) == ("exchanged", ("b.nii.gz",), 3)


def test_other_labels_exchanged_or_renumbered_are_told(folders: tuple[Path, Path]) -> None:
    for seed, name in enumerate(CASES):
        save(folders[0] / name, exchanged(near(body(seed)), (3, 4)))
    assert [one.classes for one in info(evaluate(folders)).mix_ups] == [("liver", "spleen")]
    turn = np.asarray([0, 2, 3, 4, 1], np.uint8)
    for seed, name in enumerate(CASES):
        save(folders[0] / name, turn[near(body(seed))])
    found = {(one.kind, one.classes) for one in info(evaluate(folders)).mix_ups}
    assert ("taken for", ("liver", "right kidney")) in found
    assert ("exchanged", ("left kidney", "right kidney")) in found


@pytest.mark.parametrize(
    ("ends", "axes"), [((1, 1, -1), "left-right"), ((-1, 1, 1), "head-foot"), ((1, -1, -1), "front-back, left-right")]
)
def test_a_mirrored_prediction_is_told(folders: tuple[Path, Path], ends: tuple[int, ...], axes: str) -> None:
    for seed, name in enumerate(CASES):
        save(folders[0] / name, np.ascontiguousarray(near(body(seed))[tuple(slice(None, None, end) for end in ends)]))
    found = [one for one in info(evaluate(folders)).mix_ups if one.kind == "mirrored"]
    assert [(one.axes, one.cases) for one in found] == [(axes, CASES)]
    assert found[0].dice_if > 0.6


def test_axes_are_those_of_the_world_not_of_the_array() -> None:
    image = sitk.PermuteAxes(sitk.GetImageFromArray(body(0)), (1, 2, 0))
    truth = sitk.GetArrayFromImage(image)
    # The world's left-right is the array's first axis now.
    found = mirror(np.ascontiguousarray(truth[::-1]), truth, Geometry.of(image), 0.0)
    assert found is not None
    assert (found.axes, found.dice_if) == ("left-right", 1.0)


def test_good_and_hopeless_predictions_are_not_accused(folders: tuple[Path, Path]) -> None:
    assert info(evaluate(folders)).mix_ups == ()
    rng = np.random.default_rng(0)
    for name in CASES:
        save(folders[0] / name, rng.integers(0, 5, body(0).shape).astype(np.uint8))
    assert info(evaluate(folders)).mix_ups == ()
    for name in CASES:
        save(folders[0] / name, np.zeros_like(body(0)))
    assert info(evaluate(folders)).mix_ups == ()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("left kidney", "right kidney", True),
        ("Kidney_L", "Kidney_R", True),
        ("kidneyRight", "kidneyLeft", True),
        ("ctx-lh-insula", "ctx-rh-insula", True),
        ("femur_left", "femur_right", True),
        ("left kidney", "right lung", False),
        ("liver", "spleen", False),
        ("left kidney", "left lung", False),
        ("kidney", "right kidney", False),
    ],
)
def test_sides_are_read_from_names(one: str, other: str, expected: bool) -> None:
    assert sided(one, other) == sided(other, one) == expected
