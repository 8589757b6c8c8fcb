"""Whole training runs on the tiny phantom: real files, real processes, real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom.settings import PhantomSettings
from duomod.errors import InputError
from duomod.inference.predict import run_predict
from duomod.inference.settings import PredictSettings
from duomod.locks import locked
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.settings import checked
from duomod.training.checkpoint import read_checkpoint
from duomod.training.load import load_predictor
from duomod.training.settings import TrainSettings
from duomod.training.setup import run_train

SMALL: dict[str, Any] = {
    "max_epochs": 4,
    "steps_per_epoch": 3,
    "patch": [16, 16, 16],
    "precision": "fp32",
    "network": {"name": "vnet", "filters": 4, "levels": 3, "dropout_last": 0.3},
    "validation": {"every_epochs": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    raw = write_phantom(PhantomSettings(out=folder / "raw", cases=8, preset="tiny"))
    return run_preprocess(PreprocessSettings(data_path=raw, output_path=folder / "data"))


def train(data: Path, output: Path, model: str = "duomodnet", **changes: Any) -> Path:
    settings = {**SMALL, **changes.pop("settings", {})}
    options = {"labeled_count": 2, "gpu": "", "preset": "compact", **changes}
    given = {"model": model, "data_path": data, "output_dir": output, "settings": settings, **options}
    return run_train(checked(TrainSettings, given))


def weights(run: Path) -> dict[str, torch.Tensor]:
    resume = read_checkpoint(run / "ckpts" / "last.pth")["resume"]
    return {**resume["method"], "step": torch.tensor(resume["state"]["step"])}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_reference_preset_takes_a_method_s_own_training_settings_and_a_final_epoch(
    data: Path, tmp_path: Path
) -> None:
    small = {"network": {"filters": 2, "norm": "batch"}, "patch": [16, 16, 16], "max_epochs": 1, "steps_per_epoch": 2}
    runs = {}
    for model in ("cps", "slcnet", "dmd"):
        train(data, tmp_path / model, model, preset="reference", settings=small)
        runs[model] = yaml.safe_load((tmp_path / model / "config.yaml").read_text())["train"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "cps" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 3, "one epoch of two steps, and the final one"
    assert runs["cps"]["optim"]["schedule"] == "poly_late"
    assert runs["cps"]["validation"]["patience"] == 50
    assert runs["slcnet"]["optim"]["schedule"] == "poly"
    assert not runs["slcnet"]["final_epoch"]
    assert runs["dmd"]["validation"]["patience"] == 49


def test_a_run_records_and_prints_the_networks_it_trains(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = train(data, tmp_path / "run", "dst", settings={"network": {"name": "unet", "filters": 4, "levels": 3}})
    networks = "2 x UNet with 3 decoders"
    assert load_predictor(best)[1].networks == networks
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["networks"] == networks
    assert json.loads((tmp_path / "run" / "train_manifest.json").read_text())["networks"] == networks
    assert f"{networks} of " in capsys.readouterr().err


def test_a_network_that_cannot_be_had_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("einops", reason="SwinUNETR needs einops")
    with pytest.raises(InputError, match="swinunetr cannot be built with several decoders"):
        train(data, tmp_path / "run", "skcdf", settings={"network": {"name": "swinunetr", "filters": 8}})
    assert not (tmp_path / "run").exists()


def test_a_run_begun_when_the_network_was_ignored_is_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    """Before, this method trained a V-Net where the settings said U-Net; nothing recorded it."""
    unet = {"network": {"name": "unet", "filters": 4, "levels": 3}}
    train(data, tmp_path / "old", "urpc")
    train(data, tmp_path / "run", "urpc", settings=unet)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    del config["networks"]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    old = read_checkpoint(tmp_path / "old" / "ckpts" / "last.pth")
    info = json.loads(old["duomod"])
    info["network"]["name"] = "unet"
    del info["networks"]
    torch.save({**old, "duomod": json.dumps(info)}, tmp_path / "run" / "ckpts" / "last.pth")
    (tmp_path / "run" / "train_manifest.json").unlink()
    with pytest.raises(InputError, match="begun with the network vnet, but now the method builds UNet"):
        train(data, tmp_path / "run", "urpc", settings=unet, resume=True)


@pytest.fixture(scope="module")
def two_channels(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data with a second channel: the first, upside down."""
    copy = tmp_path_factory.mktemp("two") / "data"
    shutil.copytree(data, copy)
    for file in copy.glob("images*/*.npy"):
        array = np.load(file)
        np.save(file, np.stack([array, array[::-1]]))
    index = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**index, "channels": 2}))
    return copy


@pytest.mark.parametrize("model", ["cps", "slcnet", "fixmatch"])
def test_two_channels_from_the_store_to_the_prediction(
    data: Path, two_channels: Path, tmp_path: Path, model: str
) -> None:
    best = train(two_channels, tmp_path / "run", model)
    predictor, info = load_predictor(best)
    assert info.in_channels == 2
    image = torch.rand(1, 2, 16, 16, 16)
    changed = torch.cat([image[:, :1], 1 - image[:, 1:]], dim=1)
    with torch.no_grad():
        assert not torch.equal(predictor(image), predictor(changed))

    def predict(**source: Path) -> Path:
        given = {"model_path": best, "output_path": tmp_path / "out", "gpu": "", **source}
        return run_predict(checked(PredictSettings, given))

    written = predict(npy_path=two_channels / "imagesVa")
    assert len(list(written.glob("*.nii.gz"))) == len(list((two_channels / "imagesVa").glob("*.npy"))) > 0
    with pytest.raises(InputError, match="images of 1 channel, but the model takes 2"):
        predict(npy_path=data / "imagesVa")
    with pytest.raises(InputError, match="images of 1 channel, but the model takes 2"):
        predict(input_path=data.parent / "raw" / "imagesVa")


@pytest.mark.parametrize("preset", ["reference", "compact"])
def test_a_run_folder_of_version_0_1_is_known_again(data: Path, tmp_path: Path, preset: str) -> None:
    """Its augmentation is written as six settings instead of a list."""
    small = {"max_epochs": 1, "steps_per_epoch": 1}
    train(data, tmp_path, "supervised", preset=preset, settings=small)
    path = tmp_path / "config.yaml"
    written = yaml.safe_load(path.read_text())
    keys = ("flip_x", "flip_y", "rotate_degrees", "scale", "affine_probability", "intensity")
    values = {"reference": ("plain", True, 0.0, 0.0, 0.0, 0.0), "compact": ("none", False, 10.0, 0.1, 0.3, 0.3)}
    written["train"]["augment"] = dict(zip(keys, values[preset], strict=True))
    path.write_text(yaml.safe_dump(written))
    train(data, tmp_path, "supervised", preset=preset, settings=small, resume=True)
    written["train"]["augment"]["flip_y"] = not values[preset][1]
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(InputError, match=r"augment\.transforms"):
        train(data, tmp_path, "supervised", preset=preset, settings=small, resume=True)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(data, folder)
    return folder


class TestARun:
    def test_it_leaves_everything_the_design_promises(self, uninterrupted: Path) -> None:
        for name in ("config.yaml", "ckpts/best_model.pth", "ckpts/last.pth", "metrics.jsonl", "train.log"):
            assert (uninterrupted / name).stat().st_size > 0, name
        assert list((uninterrupted / "tensorboard").glob("events*"))
        assert json.loads((uninterrupted / "train_manifest.json").read_text())["steps"] == 12
        assert yaml.safe_load((uninterrupted / "config.yaml").read_text())["method"]["direction"]

    def test_metrics_hold_losses_and_validation_of_each_class(self, uninterrupted: Path) -> None:
        rows = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if "loss" in row] == [2, 5, 8, 11]
        validations = [row for row in rows if "val_dice" in row]
        assert [row["step"] for row in validations] == [5, 11]
        assert any(key.startswith("val_dice/") for key in validations[0])

    def test_the_checkpoint_says_all_that_prediction_needs(self, uninterrupted: Path) -> None:
        for name in ("best_model.pth", "last.pth"):
            predictor, info = load_predictor(uninterrupted / "ckpts" / name)
            assert info.spec is not None
            assert predictor(torch.rand(1, 1, 16, 16, 16)).shape == (1, info.num_classes, 16, 16, 16)

    def test_the_same_seed_gives_the_same_weights(self, data: Path, uninterrupted: Path, tmp_path: Path) -> None:
        train(data, tmp_path / "again")
        assert same(weights(tmp_path / "again"), weights(uninterrupted))

    def test_another_seed_gives_others(self, data: Path, uninterrupted: Path, tmp_path: Path) -> None:
        train(data, tmp_path / "other", seed=1)
        assert not same(weights(tmp_path / "other"), weights(uninterrupted))

    def test_a_finished_run_is_left_alone(self, data: Path, uninterrupted: Path) -> None:
        before = (uninterrupted / "ckpts" / "last.pth").stat().st_mtime_ns
        train(data, uninterrupted)
        assert (uninterrupted / "ckpts" / "last.pth").stat().st_mtime_ns == before

    def test_other_settings_are_refused_by_name(self, data: Path, uninterrupted: Path) -> None:
        with pytest.raises(InputError, match=r"train\.max_epochs: was 4, now 5"):
            train(data, uninterrupted, settings={"max_epochs": 5})

    @pytest.mark.parametrize("model", ["supervised", "cps"])
    def test_other_methods_train(self, data: Path, tmp_path: Path, model: str) -> None:
        assert train(data, tmp_path / model, model, settings={"max_epochs": 1}).is_file()

    def test_early_stopping_counts_validations(self, data: Path, tmp_path: Path) -> None:
        settings = {
            "max_epochs": 50,
            "steps_per_epoch": 1,
            "validation": {"every_epochs": 1, "patience": 2},
            "optim": {"base_lr": 1e-12},
        }
        train(data, tmp_path / "run", "supervised", settings=settings)
        assert json.loads((tmp_path / "run" / "train_manifest.json").read_text())["steps"] < 50


COMMAND = [sys.executable, "-m", "duomod", "train", "--model", "duomodnet", "--preset", "compact", "--gpu", ""]


def command(data: Path, output: Path, *more: str) -> list[str]:
    settings = ["max_epochs=4", "steps_per_epoch=3", "patch=[16,16,16]", "precision=fp32", "network.name=vnet"]
    settings += ["network.filters=4", "network.levels=3", "network.dropout_last=0.3", "validation.every_epochs=2"]
    flags = [part for setting in settings for part in ("--set", setting)]
    return [*COMMAND, "--data_path", str(data), "--output_dir", str(output), "--labeled_count", "2", *flags, *more]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_same_weights(
    data: Path, uninterrupted: Path, tmp_path: Path, how: signal.Signals
) -> None:
    run = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(data, run), stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not (run / "ckpts" / "last.pth").is_file():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    _, messages = process.communicate(timeout=120)
    if how is signal.SIGINT and process.returncode != 0:
        assert process.returncode == 130
        assert "--resume" in messages
        assert "Traceback" not in messages
    done = subprocess.run(command(data, run, "--resume"), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run / "ckpts" / "best_model.pth")
    assert same(weights(run), weights(uninterrupted))
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_checkpoint_that_cannot_be_written_is_one_message_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    # A limit on the size of files fails a write halfway, as a full disk does, without needing one.
    run = tmp_path / "run"
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *command(data, run, "--set", "network.filters=16")]
    done = subprocess.run(limited, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 2, done.stderr
    assert "best_model.pth" in done.stderr or "last.pth" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((run / "ckpts").glob("*"))


class TestWrongUse:
    def test_an_unfinished_run_wants_a_decision(self, data: Path, uninterrupted: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        (run / "ckpts").mkdir(parents=True)
        for name in ("config.yaml", "ckpts/last.pth"):
            (run / name).write_bytes((uninterrupted / name).read_bytes())
        with pytest.raises(InputError, match="add --resume to go on, or --overwrite"):
            train(data, run)

    def test_an_unknown_model_gets_a_suggestion(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"unknown method 'duomodnt'.*Did you mean 'duomodnet'"):
            train(data, tmp_path / "run", "duomodnt")
        assert not (tmp_path / "run").exists()

    def test_a_wrong_number_of_classes_names_both(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"--num_classes 16 disagrees .* 8 classes"):
            train(data, tmp_path / "run", num_classes=16)

    def test_a_missing_split_lists_those_there_are(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="labeled_5p"):
            train(data, tmp_path / "run", labeled_count=None, split="labeled_7x")

    def test_a_folder_that_is_not_preprocessed_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "raw").mkdir()
        with pytest.raises(InputError, match="raw"):
            train(tmp_path / "raw", tmp_path / "run")


class TestOneTrainingPerFolder:
    def test_a_second_one_is_refused_and_does_not_harm_the_first(self, data: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        with locked(run, "a training"):
            (run / "ckpts").mkdir()
            (run / "ckpts" / "last.pth").write_text("of the first")
            for options in ({}, {"overwrite": True}, {"resume": True}, {"seed": 1}):
                with pytest.raises(InputError, match=f"a training is running in this folder .process {os.getpid()} on"):
                    train(data, run, **options)
            assert (run / "ckpts" / "last.pth").read_text() == "of the first"
            assert not (run / "config.yaml").exists()

    def test_what_a_killed_save_left_is_swept(self, data: Path, uninterrupted: Path, tmp_path: Path) -> None:
        shutil.copytree(uninterrupted, tmp_path / "run")
        left = [tmp_path / "run" / place / ".part-abcdefgh.pth" for place in (".", "ckpts")]
        for path in left:
            path.touch()
        train(data, tmp_path / "run")
        assert not [path for path in left if path.exists()]
