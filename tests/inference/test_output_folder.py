"""Whose label maps lie in the output folder: those of one model and one kind of settings; nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_model import info, predict, problems_of, raw_file, write_scan

from duomod.datasets.splits import read_list
from duomod.errors import InputError
from duomod.inference.record import unlisted
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint
from duomod.workspace import PREDICTED


@pytest.fixture
def other(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "other.pth"
    save_checkpoint(path, build_method(info()), info())
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.nii.gz"))


def test_label_maps_of_another_model_are_refused_or_removed(
    raw: Path, checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(model_path=checkpoint, output_path=out, input_path=raw_file(raw, "a_001"), save_probabilities=True)
    call = {"model_path": other, "output_path": out, "input_path": raw_file(raw, "a_002")}
    text = problems_of(lambda: predict(**call))
    assert "of another model" in text
    assert "a_001.nii.gz" in text
    assert "--overwrite" in text
    assert names(out) == ["a_001.nii.gz"]
    predict(**call, overwrite=True)
    assert names(out) == ["a_002.nii.gz"]
    assert not (out / "probabilities" / "a_001.npz").exists()
    assert list(json.loads((out / PREDICTED).read_text(encoding="utf-8"))["cases"]) == ["a_002"]


def test_other_settings_are_another_kind_and_probabilities_are_not(raw: Path, checkpoint: Path, tmp_path: Path) -> None:
    call = {"model_path": checkpoint, "output_path": tmp_path / "out"}
    predict(**call, input_path=raw_file(raw, "a_001"))
    assert "other settings" in problems_of(lambda: predict(**call, input_path=raw_file(raw, "a_002"), overlap=0.25))
    predict(**call, input_path=raw_file(raw, "a_002"), save_probabilities=True)
    assert names(tmp_path / "out") == ["a_001.nii.gz", "a_002.nii.gz"]
    assert not unlisted(tmp_path / "out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("manifest", [None, "{", '{"cases": [1]}', '{"cases": {"../a_001": "x"}, "scans": {}}', "[]"])
def test_label_maps_of_unknown_origin_are_never_touched(
    overwrite: bool, manifest: str | None, raw: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name in ("a_001", "mine"):  # one of the very name of a result
        write_scan(out / f"{name}.nii.gz", 0)
    if manifest is not None:
        (out / PREDICTED).write_text(manifest, encoding="utf-8")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    text = problems_of(
        lambda: predict(model_path=checkpoint, output_path=out, input_path=raw / "imagesTr", overwrite=overwrite)
    )
    assert "a_001.nii.gz, mine.nii.gz" in text
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_ids_that_are_paths_never_reach_the_disk(
    raw: Path, preprocessed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    victim = write_scan(tmp_path / "victim" / "x.nii.gz", 0)
    before = victim.read_bytes()
    index = preprocessed / "dataset.json"
    good = index.read_text(encoding="utf-8")
    outputs = tmp_path / "a" / "out"
    try:
        for bad in ("../../victim/x", "/etc/x", "..", ".x", "a\\b", "a\0b", "a/b", "x" * 300, "", "a\nb"):
            content: dict[str, Any] = json.loads(good)
            content["cases"][0]["case_id"] = bad
            index.write_text(json.dumps(content), encoding="utf-8")
            with pytest.raises(InputError, match=r"dataset\.json"):
                predict(model_path=checkpoint, output_path=outputs, npy_path=preprocessed)
    finally:
        index.write_text(good, encoding="utf-8")
    wanted = tmp_path / "cases.txt"
    wanted.write_text("../../victim/x\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"cases\.txt"):
        read_list(wanted)
    # A record in the folder from a stranger: --overwrite removes only what lies in the folder itself.
    outputs.mkdir(parents=True)
    record = {"settings": {}, "cases": {"../../victim/x": "1"}, "scans": {}}
    (outputs / PREDICTED).write_text(json.dumps(record), encoding="utf-8")
    predict(model_path=checkpoint, output_path=outputs, input_path=raw_file(raw, "a_001"), overwrite=True)
    assert victim.read_bytes() == before


def test_links_in_the_folder_are_not_followed_out_of_it(raw: Path, checkpoint: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    call = {"model_path": checkpoint, "output_path": out, "input_path": raw_file(raw, "a_001")}
    predict(**call)
    (out / "a_001.nii.gz").unlink()
    (outside / "x.nii.gz").write_bytes(b"mine")
    (out / "a_001.nii.gz").symlink_to(outside / "x.nii.gz")
    predict(**call, resume=False)
    assert (outside / "x.nii.gz").read_bytes() == b"mine"
    assert not (out / "a_001.nii.gz").is_symlink()
    (out / "probabilities").symlink_to(outside)
    assert "probabilities: is a link" in problems_of(lambda: predict(**call, save_probabilities=True))
    assert sorted(path.name for path in outside.iterdir()) == ["x.nii.gz"]


def test_label_maps_that_the_record_does_not_list_are_named(raw: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=raw_file(raw, "a_001"))
    assert unlisted(out) == []
    write_scan(out / "b.nii.gz", 0)
    write_scan(out / "c.nii", 0)
    assert unlisted(out) == ["b.nii.gz", "c.nii"]
    (out / PREDICTED).unlink()
    assert unlisted(out) == []
