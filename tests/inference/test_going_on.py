"""A prediction that was interrupted, or made with other settings, goes on where it must."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from toy_model import (
    info,
    predict,
    write_scan,
)

import duomod.inference.predict as module
from duomod.errors import DuomodError
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint
from duomod.workspace import PREDICTED


class TestGoingOn:
    def call(self, raw: Path, checkpoint: Path, out: Path, **changes) -> None:
        settings = {"model_path": checkpoint, "output_path": out, "input_path": raw / "imagesTr", **changes}
        predict(**settings)

    def stamps(self, out: Path) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}

    def test_finished_cases_are_kept_and_missing_ones_made(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.call(raw, checkpoint, out)
        before = self.stamps(out)
        content = (out / "a_002.nii.gz").read_bytes()
        (out / "a_002.nii.gz").unlink()
        self.call(raw, checkpoint, out)
        after = self.stamps(out)
        assert {name for name in after if after[name] != before[name]} == {"a_002.nii.gz"}
        assert (out / "a_002.nii.gz").read_bytes() == content
        self.call(raw, checkpoint, out, resume=False)
        assert all(self.stamps(out)[name] != after[name] for name in after)

    def test_other_settings_or_another_checkpoint_make_all_anew(
        self, raw: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        self.call(raw, checkpoint, out)
        stamps = [self.stamps(out)]
        self.call(raw, checkpoint, out, overlap=0.25)
        stamps.append(self.stamps(out))
        torch.manual_seed(1)
        other = tmp_path / "other.pth"
        save_checkpoint(other, build_method(info()), info())
        self.call(raw, other, out, overlap=0.25)
        stamps.append(self.stamps(out))
        for name in stamps[0]:
            assert len({each[name] for each in stamps}) == 3

    def test_a_changed_scan_is_predicted_again(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        scans, out = tmp_path / "scans", tmp_path / "out"
        shutil.copytree(raw, scans)
        self.call(scans, checkpoint, out)
        before = self.stamps(out)
        write_scan(scans / "imagesTr" / "a_001_0000.nii.gz", 5)
        self.call(scans, checkpoint, out)
        after = self.stamps(out)
        assert {name for name in after if after[name] != before[name]} == {"a_001.nii.gz"}

    def test_an_interrupted_run_leaves_no_older_results(
        self, raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        self.call(raw, checkpoint, out)
        wanted = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
        self.call(raw, checkpoint, out, overlap=0.0)
        original, done = module.labels_on_grid, []

        def dies(*args):
            if done:
                raise KeyboardInterrupt
            done.append(1)
            return original(*args)

        monkeypatch.setattr(module, "labels_on_grid", dies)
        with pytest.raises(KeyboardInterrupt):
            self.call(raw, checkpoint, out)
        assert [path.name for path in out.iterdir() if path.name != PREDICTED] == ["a_001.nii.gz"]
        monkeypatch.undo()
        self.call(raw, checkpoint, out)
        assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == wanted

    def test_a_full_gpu_is_said_in_words(
        self, raw: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_, **__):
            raise torch.OutOfMemoryError

        monkeypatch.setattr(module, "predict_probabilities", full)
        with pytest.raises(DuomodError, match=r"a_001: the GPU's memory is too small"):
            self.call(raw, checkpoint, tmp_path / "out")
