from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from duomod.config import OptimConfig, train_config
from duomod.errors import InputError
from duomod.methods.base import MethodContext
from duomod.methods.cps import CPS
from duomod.networks.shallow_bf16 import ShallowSafeConv3d, guard_shallow_convolutions, shallow_bf16_is_broken
from duomod.networks.vnet import VNet
from duomod.training.build import build_method, with_networks
from duomod.training.checkpoint import INFO_KEY, read_checkpoint, save_checkpoint
from duomod.training.load import load_predictor
from duomod.training.model_info import ModelInfo
from duomod.training.optim import learning_rate
from duomod.training.precision import (
    choose_device,
    choose_dtype,
)


class TestSchedules:
    def test_poly_falls_from_the_first_step(self) -> None:
        config = OptimConfig(base_lr=1.0)
        assert learning_rate(config, 0, 100, 10) == 1
        assert learning_rate(config, 50, 100, 10) == pytest.approx(0.5**0.9)
        assert 0 < learning_rate(config, 99, 100, 10) < 0.02

    def test_the_reference_runs_two_epochs_at_the_first_rate(self) -> None:
        config = OptimConfig(base_lr=1.0, schedule="poly_late")
        rates = [learning_rate(config, epoch * 10, 100, 10) for epoch in range(10)]
        assert rates[0] == rates[1] == 1
        assert rates[2] == pytest.approx(0.9**0.9)

    def test_the_reference_s_last_of_501_epochs_runs_at_a_five_hundredth(self) -> None:
        config = train_config("reference")
        assert config.max_epochs == 500
        assert config.final_epoch
        rate = learning_rate(config.optim, 500 * 10, 500 * 10, 10)
        assert rate == pytest.approx(0.03 * (1 / 500) ** 0.9)

    def test_one_cycle_rises_and_falls(self) -> None:
        config = OptimConfig(base_lr=1.0, schedule="one_cycle")
        rates = [learning_rate(config, step, 100, 10) for step in range(100)]
        assert rates[0] == pytest.approx(1 / 25)
        assert rates[30] == pytest.approx(1)
        assert rates[99] < 0.01
        assert rates.index(max(rates)) == 30


class TestConfig:
    def test_every_unknown_setting_is_named(self) -> None:
        with pytest.raises(InputError) as caught:
            train_config("default", {"optim": {"speed": 1}, "max_epoch": 3})
        assert "optim.speed" in str(caught.value)
        assert "max_epoch" in str(caught.value)

    def test_unknown_presets_get_a_suggestion(self) -> None:
        with pytest.raises(InputError, match="Did you mean 'compact'"):
            train_config("compct")

    def test_changes_keep_the_rest_of_the_preset(self) -> None:
        config = train_config("compact", {"optim": {"base_lr": 0.5}})
        assert config.optim.base_lr == 0.5
        assert config.optim.name == "adamw"


class TestPrecision:
    def test_an_empty_gpu_is_the_cpu_and_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert choose_device("") == torch.device("cpu")
        assert "CPU" in capsys.readouterr().err

    def test_a_gpu_that_is_no_number_is_refused(self) -> None:
        with pytest.raises(InputError, match="number of a GPU"):
            choose_device("first")

    def test_fp16_needs_a_gpu(self) -> None:
        with pytest.raises(InputError, match="fp16"):
            choose_dtype("fp16", torch.device("cpu"))

    def test_guarded_networks_have_right_bf16_gradients_at_depth_two(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv3d(64, 64, 3, padding=1))
        keys = list(network.state_dict())
        x = torch.randn(1, 64, 2, 4, 4)
        network(x).square().sum().backward()
        exact = network[0].weight.grad.clone()
        network.zero_grad()
        guard_shallow_convolutions(network, torch.device("cpu"), torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = network(x)
        y.float().square().sum().backward()
        assert ((network[0].weight.grad - exact).norm() / exact.norm()).item() < 0.05
        assert list(network.state_dict()) == keys
        assert isinstance(network[0], ShallowSafeConv3d) == shallow_bf16_is_broken()


def small_info(**changes: object) -> ModelInfo:
    config = train_config(
        "default", {"network": {"filters": 4, "levels": 3, "dropout_last": 0, "dropout_bottleneck": 0}}
    )
    values = {"method": "cps", "network": config.network, "num_classes": 3, "patch": (8, 8, 8), **changes}
    return ModelInfo.model_validate(values)


class TestCheckpoints:
    def test_what_is_saved_predicts_the_same(self, tmp_path: Path) -> None:
        info = small_info()
        method = build_method(info).eval()
        save_checkpoint(tmp_path / "a.pth", method, info)
        predictor, loaded = load_predictor(tmp_path / "a.pth")
        x = torch.rand(1, 1, 8, 8, 8)
        torch.testing.assert_close(predictor(x), method.predictor()(x))
        assert loaded == info

    def test_published_checkpoints_without_our_info_load(self, tmp_path: Path) -> None:
        context = MethodContext(5, torch.ones(5), lambda init="default", **_: VNet(1, 5, 4))
        method = CPS(CPS.Config(), context).eval()
        torch.save({"A": method.A.state_dict(), "B": method.B.state_dict()}, tmp_path / "published.pth")
        predictor, info = load_predictor(tmp_path / "published.pth")
        assert (info.num_classes, info.network.filters, info.method) == (5, 4, "cps")
        x = torch.rand(1, 1, 16, 16, 16)
        torch.testing.assert_close(predictor(x), method.predictor()(x))

    @pytest.mark.parametrize("method", ["dst", "dycon", "skcdf", "urpc"])
    def test_older_checkpoints_of_methods_that_ignored_the_network_load(self, tmp_path: Path, method: str) -> None:
        """With the preset compact they said U-Net, but held V-Nets."""
        trained = build_method(small_info(method=method)).eval()
        said = small_info(method=method)
        said = said.model_copy(update={"network": said.network.model_copy(update={"name": "unet"})})
        save_checkpoint(tmp_path / "a.pth", trained, said)
        content = torch.load(tmp_path / "a.pth", weights_only=True)
        facts = json.loads(content[INFO_KEY])
        for newer in ("networks", "in_channels"):
            del facts[newer]
        torch.save({**content, INFO_KEY: json.dumps(facts)}, tmp_path / "a.pth")
        predictor, info = load_predictor(tmp_path / "a.pth")
        assert (info.network.name, info.in_channels) == ("vnet", 1)
        x = torch.rand(1, 1, 8, 8, 8)
        torch.testing.assert_close(predictor(x), trained.predictor()(x))

    @pytest.mark.parametrize(
        ("method", "networks"),
        [
            ("cps", "2 x UNet"),
            ("dst", "2 x UNet with 3 decoders"),
            ("dycon", "UNet with projection + teacher"),
            ("skcdf", "UNet with attention and 2 decoders"),
            ("urpc", "UNet"),
        ],
    )
    def test_the_networks_that_were_built_are_recorded(self, method: str, networks: str) -> None:
        compact = train_config("compact", {"network": {"filters": 4, "levels": 3}}).network
        info = small_info(method=method, network=compact)
        before = torch.get_rng_state()
        assert with_networks(info).networks == networks
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nothing\.pth: no such checkpoint"):
            read_checkpoint(tmp_path / "nothing.pth")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x04garbage"])
    def test_what_is_no_checkpoint_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.pth: not a checkpoint"):
            read_checkpoint(tmp_path / "bad.pth")

    def test_a_truncated_checkpoint_is_named(self, tmp_path: Path) -> None:
        info = small_info()
        save_checkpoint(tmp_path / "a.pth", build_method(info), info)
        whole = (tmp_path / "a.pth").read_bytes()
        (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"a\.pth: not a checkpoint"):
            read_checkpoint(tmp_path / "a.pth")

    def test_a_pickled_object_is_refused_and_not_run(self, tmp_path: Path) -> None:
        marker = tmp_path / "was_run"
        torch.save({"A": Evil(marker)}, tmp_path / "evil.pth")
        with pytest.raises(InputError, match="pickled object"):
            read_checkpoint(tmp_path / "evil.pth")
        assert not marker.exists()
        assert pickle.loads(pickle.dumps(Evil(marker))) is None  # the trap itself works
        assert marker.exists()

    def test_a_tensor_alone_is_no_model(self, tmp_path: Path) -> None:
        torch.save(torch.zeros(3), tmp_path / "t.pth")
        with pytest.raises(InputError, match="not a checkpoint of a segmentation model"):
            read_checkpoint(tmp_path / "t.pth")

    def test_weights_of_another_shape_are_explained(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "a.pth", build_method(small_info()), small_info(num_classes=4))
        with pytest.raises(InputError, match="do not fit the network"):
            load_predictor(tmp_path / "a.pth")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.marker,))
