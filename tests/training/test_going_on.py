"""A run that was stopped, moved or damaged goes on to the same end, or is refused in a line that says what is left."""

from __future__ import annotations

import builtins
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import duomod.training.setup
from duomod.errors import InputError, explain_disk_error
from duomod.methods.base import StepOutput
from duomod.settings import checked
from duomod.training.checkpoint import read_checkpoint
from duomod.training.run import Run, State
from duomod.training.settings import TrainSettings
from duomod.training.setup import run_train

SMALL: dict[str, Any] = {
    "max_epochs": 3,
    "steps_per_epoch": 1,
    "patch": [8, 8, 8],
    "precision": "fp32",
    "network": {"name": "unet", "filters": 2, "levels": 2, "norm": "instance"},
    "validation": {"every_epochs": 1},
}


def train(data: Path, folder: Path, model: str = "supervised", **changes: Any) -> Path:
    settings = {**SMALL, **changes.pop("settings", {})}
    options = {"labeled_count": 2, "gpu": "", **changes}
    given = {"model": model, "data_path": data, "output_dir": folder, "settings": settings, **options}
    return run_train(checked(TrainSettings, given))


def outcome(folder: Path) -> tuple[Any, ...]:
    """What a run left that a user may rely on."""
    last, best = (read_checkpoint(folder / "ckpts" / f"{name}.pth") for name in ("last", "best_model"))
    manifest = json.loads((folder / "train_manifest.json").read_text())
    weights = [{key: value.tolist() for key, value in content["model"].items()} for content in (last, best)]
    facts = [json.loads(content["duomod"])["step"] for content in (last, best)]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return weights, facts, last["resume"]["state"], manifest["steps"], manifest["best_validation_dice"], lines


@pytest.fixture(scope="module")
def finished(grey_levels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(grey_levels, folder)
    return folder


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """A run that was killed before it could say that it had finished."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "train_manifest.json").unlink()
    return tmp_path / "run"


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def killed_after(number: int) -> Callable[[Any, Any], None]:
    """An ``os.replace`` after whose so-manieth call the process is gone."""
    calls, real = 0, os.replace

    def replace(source: Any, target: Any) -> None:
        nonlocal calls
        real(source, target)
        calls += 1
        if calls == number:
            raise Killed

    return replace


class TestKilled:
    def test_between_any_two_files_it_ends_the_same_after_a_resume(
        self, grey_levels: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kills = 0
        while True:
            folder = tmp_path / str(kills)
            with monkeypatch.context() as patched:
                patched.setattr(os, "replace", killed_after(kills + 1))
                try:
                    train(grey_levels, folder)
                    break
                except Killed:
                    kills += 1
            train(grey_levels, folder, resume=True)
            assert outcome(folder) == outcome(finished), f"killed after file {kills}"
        assert kills >= 6, "config, a state per epoch, at least one best model, the manifest"

    def test_after_early_stopping_it_does_not_train_on(
        self, grey_levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        early = {"max_epochs": 9, "validation": {"every_epochs": 1, "patience": 2}, "optim": {"base_lr": 1e-12}}

        def killed(*_: Any, **__: Any) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(duomod.training.setup, "write_manifest", killed)
            with pytest.raises(Killed):
                train(grey_levels, tmp_path / "run", settings=early)
        train(grey_levels, tmp_path / "run", settings=early, resume=True)
        train(grey_levels, tmp_path / "whole", settings=early)
        assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
        assert json.loads((tmp_path / "run" / "train_manifest.json").read_text())["steps"] == 3


class TestData:
    """They are known by what they are, not by where they lie."""

    def test_a_moved_data_set_is_known_again(
        self, grey_levels: Path, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        moved = tmp_path / "elsewhere"
        shutil.copytree(grey_levels, moved)
        train(moved, unfinished, resume=True)
        assert f"the same data as before, now in {moved}" in capsys.readouterr().err
        assert yaml.safe_load((unfinished / "config.yaml").read_text())["data_path"] == str(moved)
        train(grey_levels, unfinished)  # complete, wherever the data lie

    def test_another_data_set_in_its_place_is_refused(self, grey_levels: Path, tmp_path: Path) -> None:
        data = tmp_path / "data"
        shutil.copytree(grey_levels, data)
        train(data, tmp_path / "run")
        index = json.loads((data / "dataset.json").read_text())
        index["cases"][0]["image_sha256"] = "0" * 64
        (data / "dataset.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match=f"{data} does not hold the data that the run was begun with"):
            train(data, tmp_path / "run", resume=True)

    def test_a_run_of_before_goes_by_the_place(self, grey_levels: Path, unfinished: Path, tmp_path: Path) -> None:
        config = yaml.safe_load((unfinished / "config.yaml").read_text())
        del config["data_sha256"], config["machine"]
        (unfinished / "config.yaml").write_text(yaml.safe_dump(config))
        shutil.copytree(grey_levels, tmp_path / "elsewhere")
        with pytest.raises(InputError, match=f"data_path: was {grey_levels}, now {tmp_path / 'elsewhere'}"):
            train(tmp_path / "elsewhere", unfinished, resume=True)
        train(grey_levels, unfinished, resume=True)


def flip(path: Path) -> None:
    """Turn one bit of a weight over."""
    content = bytearray(path.read_bytes())
    bias = max((value for value in read_checkpoint(path)["model"].values() if value.ndim == 1), key=torch.numel)
    content[content.index(bias.numpy().tobytes())] ^= 1
    path.write_bytes(content)


class TestDamage:
    @pytest.mark.parametrize("content", [None, b"", b"model: [1", b"\x00\xff\xfe", b"- a\n- b\n", b"model: cps\n"])
    def test_settings_that_cannot_be_read_are_refused(
        self, grey_levels: Path, unfinished: Path, content: bytes | None
    ) -> None:
        config = unfinished / "config.yaml"
        config.unlink()
        if content is not None:
            config.write_bytes(content)
        with pytest.raises(InputError, match=str(config)) as refused:
            train(grey_levels, unfinished, resume=True)
        assert len(refused.value.problems) == 1

    def test_a_damaged_state_names_the_checkpoint_that_is_left(self, grey_levels: Path, unfinished: Path) -> None:
        last, best = unfinished / "ckpts" / "last.pth", unfinished / "ckpts" / "best_model.pth"
        flip(last)
        with pytest.raises(InputError, match=f"{last}: .*{best} is whole and can be predicted with"):
            train(grey_levels, unfinished, resume=True)
        flip(best)
        with pytest.raises(InputError, match=f"{last}: .*there is no other checkpoint"):
            train(grey_levels, unfinished, resume=True)

    def test_a_model_is_no_state(self, grey_levels: Path, unfinished: Path) -> None:
        shutil.copy(unfinished / "ckpts" / "best_model.pth", unfinished / "ckpts" / "last.pth")
        with pytest.raises(InputError, match="holds a model, but nothing to go on from"):
            train(grey_levels, unfinished, resume=True)

    def test_a_state_of_something_else_is_refused(self, grey_levels: Path, unfinished: Path) -> None:
        path = unfinished / "ckpts" / "last.pth"
        content = dict(read_checkpoint(path))
        content["resume"]["state"]["moon"] = 1
        torch.save(content, path)
        with pytest.raises(InputError, match=f"{path}: not a state of this run .*moon"):
            train(grey_levels, unfinished, resume=True)

    def test_a_best_model_that_is_missing_is_missed(
        self, grey_levels: Path, finished: Path, unfinished: Path, tmp_path: Path
    ) -> None:
        (unfinished / "ckpts" / "best_model.pth").unlink()
        with pytest.raises(InputError, match=r"best_model\.pth: missing"):
            train(grey_levels, unfinished, resume=True)
        shutil.copy(finished / "train_manifest.json", unfinished)
        with pytest.raises(InputError, match=r"complete, but .*best_model\.pth is missing"):
            train(grey_levels, unfinished)


class TestMachine:
    def test_a_run_goes_on_with_the_threads_that_it_was_begun_with(
        self, grey_levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        real, used = duomod.training.setup.fit, []

        def fit(run: Run, resume: Any) -> State:
            used.append(torch.get_num_threads())
            return real(run, resume)

        monkeypatch.setattr(duomod.training.setup, "fit", fit)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            train(grey_levels, tmp_path / "run")
            config = tmp_path / "run" / "config.yaml"
            assert yaml.safe_load(config.read_text())["machine"]["threads"] == 3
            (tmp_path / "run" / "train_manifest.json").unlink()
            torch.set_num_threads(2)
            config.write_text(config.read_text().replace("device: cpu", "device: NVIDIA H100"))
            train(grey_levels, tmp_path / "run", resume=True)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert used == [3, 3]
        said = capsys.readouterr().err
        assert "computing with 3 threads, as this run was begun (here they would be 2)" in said
        assert "begun with device NVIDIA H100, now cpu: the last digits will not be the same" in said


OWN = """
import torch
from duomod.methods.base import Method, MethodInfo, StepOutput

class Own(Method):
    info = MethodInfo(title="own", paper="none", year=2026, summary="one convolution that pads nothing")
    uses_unlabelled = False

    def __init__(self, config, context):
        super().__init__(config, context)
        self.net = torch.nn.Sequential(torch.nn.Conv3d(1, context.num_classes, 3), torch.nn.ReplicationPad3d(1))

    def forward(self, batch, progress):
        return StepOutput(self.supervised_loss(self.net(batch.image_l), batch.label_l), {})

    def predictor(self):
        return self.net

    def published_modules(self):
        return {"model": self.net}
"""


class TestSmallPatches:
    @pytest.mark.parametrize(
        ("model", "patch", "network", "smallest"),
        [
            ("supervised", [4, 4, 4], {"name": "vnet", "levels": 3, "norm": "batch"}, [8, 8, 8]),
            ("mean_teacher", [4, 2, 4], {"name": "unet", "levels": 3, "norm": "batch"}, [8, 8, 8]),
            ("bcp", [3, 8, 8], {}, [4, 8, 8]),
        ],
    )
    def test_one_that_is_too_small_is_refused_before_anything_is_written(
        self, grey_levels: Path, tmp_path: Path, model: str, patch: list[int], network: Any, smallest: list[int]
    ) -> None:
        one = {"sampling": {"batch": 1}, "network": {**SMALL["network"], **network, "filters": 2}}
        text = ",".join(map(str, smallest))
        with pytest.raises(InputError, match=f"is too small for {model} .* works: --patch {text}$"):
            train(grey_levels, tmp_path / "run", model, settings={**one, "patch": patch})
        assert not (tmp_path / "run").exists()
        assert train(
            grey_levels, tmp_path / "run", model, settings={**one, "patch": smallest, "max_epochs": 1}
        ).is_file()

    @pytest.mark.parametrize("patch", [[1, 1, 1], [5, 7, 3]])
    def test_one_that_can_be_padded_is_taken(self, grey_levels: Path, tmp_path: Path, patch: list[int]) -> None:
        assert train(grey_levels, tmp_path / "run", settings={"patch": patch, "max_epochs": 1}).is_file()

    def test_a_network_of_one_s_own_that_is_none_of_ours_is_tried_as_well(
        self, grey_levels: Path, tmp_path: Path
    ) -> None:
        plugin = tmp_path / "own.py"
        plugin.write_text(OWN, encoding="utf-8")
        with pytest.raises(InputError, match=r"--patch 2,2,2 is too small for own .* works: --patch 4,4,4$"):
            train(grey_levels, tmp_path / "run", "own", plugin=plugin, settings={"patch": [2, 2, 2]})
        settings = {"patch": [4, 4, 4], "max_epochs": 1}
        assert train(grey_levels, tmp_path / "run", "own", plugin=plugin, settings=settings).is_file()


@pytest.mark.parametrize("name", ["step", "loss", "learning_rate", "val_dice", "val_dice/organ"])
def test_a_part_of_a_loss_may_not_have_the_name_of_something_else(name: str) -> None:
    with pytest.raises(InputError, match=f"may not be called '{name}'"):
        StepOutput(torch.zeros(()), {"supervised": torch.zeros(()), name: torch.zeros(())})


def test_a_full_disk_under_the_numbers_is_one_line_that_names_the_file(
    grey_levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here: a file that is always full")
    real = builtins.open

    def full(path: Any, mode: str = "r", **more: Any) -> Any:
        if str(path).endswith("metrics.jsonl") and "a" in mode:
            stream = real("/dev/full", "w", **more)
            stream.buffer.raw.name = str(path)
            return stream
        return real(path, mode, **more)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(OSError, match="No space left") as failed:
        train(grey_levels, tmp_path / "run")
    said = str(explain_disk_error(failed.value))
    assert said.startswith(f"{tmp_path / 'run' / 'metrics.jsonl'}: No space left on device. The disk is full: free")
