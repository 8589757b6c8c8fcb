"""One broken scan stops no other: what failed is said at the end and written beside the masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from toy_model import info, predict, problems_of, raw_file, write_scan

import duomod.inference.predict as module
from duomod.errors import DuomodError, InputError
from duomod.inference.record import FAILED
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint
from duomod.workspace import PREDICTED


@pytest.fixture
def scans(raw: Path, tmp_path: Path) -> Path:
    """Three sound scans, a truncated one, an empty one, one of NaN, and one of a single value."""
    folder = tmp_path / "scans"
    shutil.copytree(raw / "imagesTr", folder)
    whole = raw_file(raw, "a_001").read_bytes()
    (folder / "b_1_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "b_2_0000.nii.gz").touch()
    scaled = np.linspace(0, 1, 125, dtype=np.float32).reshape(5, 5, 5)  # no HU
    for name, voxels in (("b_3", np.full_like(scaled, np.nan)), ("b_4", scaled)):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{name}_0000.nii.gz")
    return folder


def failed(out: Path) -> dict[str, list[str]]:
    rows = json.loads((out / FAILED).read_text(encoding="utf-8"))["failed"]
    assert all(Path(row["file"]).name.startswith(row["case"]) for row in rows)
    return {row["case"]: row["problems"] for row in rows}


def test_the_others_are_predicted(scans: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = {"model_path": checkpoint, "output_path": out, "input_path": scans}
    with pytest.raises(DuomodError, match="4 of 7 scans could not be predicted") as caught:
        predict(**call)
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a_001.nii.gz", "a_002.nii.gz", "a_003.nii.gz"]
    said = str(caught.value)
    assert set(failed(out)) == {"b_1", "b_2", "b_3", "b_4"}
    for problems in failed(out).values():
        assert all(problem in said for problem in problems)
    assert "125 voxel(s) are NaN" in said or "NaN" in said
    # What is repaired is predicted by the next run, which keeps the rest.
    before = (out / "a_001.nii.gz").stat().st_mtime_ns
    for number in (1, 2, 3):
        write_scan(scans / f"b_{number}_0000.nii.gz", number)
    with pytest.raises(DuomodError, match="1 of 7 scans could not be predicted"):
        predict(**call)
    assert set(failed(out)) == {"b_4"}
    (scans / "b_4_0000.nii.gz").unlink()
    predict(**call)
    assert not (out / FAILED).exists()
    assert len(list(out.glob("*.nii.gz"))) == 6
    assert (out / "a_001.nii.gz").stat().st_mtime_ns == before


def test_equal_to_a_run_without_the_broken_ones(raw: Path, scans: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DuomodError):
        predict(model_path=checkpoint, output_path=tmp_path / "a", input_path=scans)
    predict(model_path=checkpoint, output_path=tmp_path / "b", input_path=raw / "imagesTr")
    for path in (tmp_path / "b").glob("*.nii.gz"):
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()


def test_nothing_to_predict_is_wrong_input_and_writes_nothing(scans: Path, checkpoint: Path, tmp_path: Path) -> None:
    for path in scans.glob("a_*"):
        path.unlink()
    with pytest.raises(InputError) as caught:
        predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=scans)
    assert len(caught.value.problems) == 4
    assert not (tmp_path / "out").exists()


def test_an_older_mask_of_a_scan_that_is_broken_by_now_goes(raw: Path, checkpoint: Path, tmp_path: Path) -> None:
    scans = shutil.copytree(raw / "imagesTr", tmp_path / "scans")
    call = {"model_path": checkpoint, "output_path": tmp_path / "out", "input_path": scans}
    predict(**call)
    (scans / "a_002_0000.nii.gz").write_bytes(b"")
    with pytest.raises(DuomodError, match="1 of 3 scans"):
        predict(**call)
    assert not (tmp_path / "out" / "a_002.nii.gz").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError(), r"a_002: the GPU's memory is too small"),
        (MemoryError(), r"a_002: the computer's memory is too small"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), r"a_002: the computer's memory"),
        (
            ZeroDivisionError("nobody foresaw this"),
            r"a_002_0000\.nii\.gz: ZeroDivisionError: nobody foresaw this; .*log",
        ),
    ],
)
def test_whatever_happens_to_one_scan(
    error: Exception, words: str, raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = module.predict_probabilities, []

    def second_fails(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return original(*args, **options)

    monkeypatch.setattr(module, "predict_probabilities", second_fails)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out = tmp_path / "out"
    with pytest.raises(DuomodError, match=words):
        predict(model_path=checkpoint, output_path=out, input_path=raw / "imagesTr")
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a_001.nii.gz", "a_003.nii.gz"]
    assert set(failed(out)) == {"a_002"}


def test_a_damaged_array_stops_no_other(preprocessed: Path, checkpoint: Path, tmp_path: Path) -> None:
    data = shutil.copytree(preprocessed, tmp_path / "data")
    array = data / "imagesTr" / "a_002.npy"
    content = bytearray(array.read_bytes())
    content[-9] ^= 1
    array.write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(DuomodError, match=r"1 of 3 scans could not.*\n.*a_002\.npy: is not what was written"):
        predict(model_path=checkpoint, output_path=out, npy_path=data)
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a_001.nii.gz", "a_003.nii.gz"]
    text = problems_of(lambda: predict(model_path=checkpoint, output_path=tmp_path / "o", npy_path=data, strict=True))
    assert "a_002.npy" in text
    assert not (tmp_path / "o").exists()


def test_a_scan_that_goes_while_it_is_predicted_stops_no_other(
    raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = shutil.copytree(raw / "imagesTr", tmp_path / "scans")
    original = module.labels_on_grid

    def meanwhile(*args):
        (scans / "a_001_0000.nii.gz").unlink(missing_ok=True)
        return original(*args)

    monkeypatch.setattr(module, "labels_on_grid", meanwhile)
    with pytest.raises(DuomodError, match=r"1 of 3 scans could not.*\n.*a_001_0000\.nii\.gz"):
        predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=scans)
    assert set(failed(tmp_path / "out")) == {"a_001"}


def test_a_full_disk_stops_everything(
    raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_labels", full)
    with pytest.raises(OSError, match="No space"):
        predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=raw / "imagesTr")


class NotFinite(torch.nn.Module):
    """NaN in one voxel of one class."""

    outputs_probabilities = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = torch.full((len(x), 3, *x.shape[2:]), 1 / 3)
        result[0, 1, 3, 3, 3] = torch.nan
        return result


def test_probabilities_that_are_not_finite_are_no_mask(
    raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "predictor_of", lambda *_, **__: (NotFinite().eval(), info()))
    with pytest.raises(DuomodError, match="a_001: the model's probabilities are not finite"):
        predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=raw_file(raw, "a_001"))
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_weights_that_are_not_finite_are_noticed_when_they_are_loaded(raw: Path, tmp_path: Path) -> None:
    method = build_method(info())
    next(iter(method.parameters())).data.view(-1)[0] = torch.nan
    path = tmp_path / "nan.pth"
    save_checkpoint(path, method, info())
    text = problems_of(lambda: predict(model_path=path, output_path=tmp_path / "out", input_path=raw / "imagesTr"))
    assert "nan.pth: the weights 'model' are not finite" in text
    assert not (tmp_path / "out").exists()


def test_the_hash_is_that_of_the_weights_that_predicted(
    raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that replaces the checkpoint meanwhile changes neither the masks nor what is recorded of them."""
    model = tmp_path / "model.pth"
    shutil.copy(checkpoint, model)
    original = module.scan_cases

    def meanwhile(*args, **options):
        save_checkpoint(model, build_method(info()), info(step=7))
        return original(*args, **options)

    monkeypatch.setattr(module, "scan_cases", meanwhile)
    out = predict(model_path=model, output_path=tmp_path / "out", input_path=raw / "imagesTr")
    monkeypatch.undo()
    before = json.loads((out / PREDICTED).read_text(encoding="utf-8"))["settings"]["model_sha256"]
    right = predict(model_path=checkpoint, output_path=tmp_path / "right", input_path=raw / "imagesTr")
    assert before == json.loads((right / PREDICTED).read_text(encoding="utf-8"))["settings"]["model_sha256"]
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    predict(model_path=model, output_path=out, input_path=raw / "imagesTr")  # the new checkpoint: all anew
    assert all(path.stat().st_mtime_ns != stamps[path.name] for path in out.glob("*.nii.gz"))
