"""Every network passes the conformance suite; and for every rule there is a network that breaks it, and only it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from duomod.config import NetworkConfig
from duomod.conformance import Result
from duomod.networks.base import Network
from duomod.networks.conformance import RULES, any_size, check_network
from duomod.networks.registry import NETWORKS


def failures(results: Sequence[Result]) -> list[str]:
    return [f"{r.rule}: {r.message}" for r in results if not r.passed]


@pytest.mark.parametrize("name", NETWORKS.names())
def test_network_conforms(name: str) -> None:
    if name == "swinunetr":
        pytest.importorskip("einops", reason="SwinUNETR needs einops")
    assert not failures(check_network(NETWORKS.load(name), name))


class Sound(Network):
    """A network without fault, for the broken ones to break: two levels."""

    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = config.filters
        self.in_channels, self.num_classes = in_channels, num_classes
        self.stride, self.widths, self.width = (2, 2, 2), (width, 2 * width), width
        self.fine = nn.Conv3d(in_channels, width, 3, padding=1)
        self.down = nn.Conv3d(width, 2 * width, 2, stride=2)
        self.up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
        self.head: nn.Module = nn.Conv3d(width, num_classes, 1)

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        fine = functional.leaky_relu(self.fine(x))
        return [fine, functional.leaky_relu(self.down(fine))]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return functional.leaky_relu(self.up(maps[1])) + maps[0]


class DividesByTheSmallestSize(Sound):
    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = super().forward(x)
        return z / (min(x.shape[2:]) > 5)


class CropsOddSizes(Sound):
    """Features and forward agree, but the size is not the image's."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x)[:, :, : x.shape[2] // 2 * 2]


class DoublesItsLogits(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class ScalesItsFeatures(Sound):
    def features(self, x: Tensor) -> Tensor:
        return 1.5 * super().features(x)


class OverstatesItsStride(Sound):
    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__(config, in_channels, num_classes)
        self.stride = (4, 4, 4)


class MisstatesItsWidths(Sound):
    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__(config, in_channels, num_classes)
        self.widths = (config.filters, config.filters)


class LooksAtOneChannel(Sound):
    def encode_padded(self, x: Tensor) -> list[Tensor]:
        return super().encode_padded(x[:, :1].expand_as(x))


class KnowsThreeClasses(Sound):
    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__(config, in_channels, num_classes)
        self.head = nn.Conv3d(config.filters, 3, 1)


class LooksAtTheWholeBatch(Sound):
    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        features = super().decode(maps)
        return features - features.mean(0, keepdim=True) / 2


class HasIdleParameter(Sound):
    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__(config, in_channels, num_classes)
        self.idle = nn.Parameter(torch.zeros(3, 3))


class OverflowsInBf16(Sound):
    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = super().forward(x)
        return z / (z.dtype is not torch.bfloat16)


class NeedsTwoPatches(Sound):
    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        features = super().decode(maps)
        return features + 1e-3 * features.detach().var(0) if self.training else features


class KeepsATensorOutsideItsBuffers(Sound):
    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__(config, in_channels, num_classes)
        self.factors = torch.rand(1)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return super().decode(maps) * (1 + self.factors)


BROKEN: list[tuple[type[Network], str]] = [
    (DividesByTheSmallestSize, "any_size"),
    (DoublesItsLogits, "forward_is_the_head_on_the_features"),
    (ScalesItsFeatures, "features_are_the_decoder_on_the_encoder"),
    (OverstatesItsStride, "stride_and_widths_are_true"),
    (MisstatesItsWidths, "stride_and_widths_are_true"),
    (LooksAtOneChannel, "one_and_two_channels"),
    (KnowsThreeClasses, "any_number_of_classes"),
    (LooksAtTheWholeBatch, "eval_is_deterministic"),
    (HasIdleParameter, "every_parameter_learns"),
    (OverflowsInBf16, "bf16_works"),
    (NeedsTwoPatches, "batch_of_one"),
    (KeepsATensorOutsideItsBuffers, "state_survives"),
]


def test_a_sound_network_passes_every_rule() -> None:
    assert not failures(check_network(Sound))


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize(("network", "rule"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_network_fails_exactly_its_rule(network: type[Network], rule: str) -> None:
    results = check_network(network)
    assert [r.rule for r in results if not r.passed] == [rule], failures(results)
    assert next(r.message for r in results if r.rule == rule)


def test_a_network_of_another_size_than_the_image_is_found_out() -> None:
    assert "any_size" in [r.rule for r in check_network(CropsOddSizes) if not r.passed]


def test_every_rule_has_a_network_that_breaks_it() -> None:
    assert {rule for _, rule in BROKEN} == {rule.__name__ for rule in RULES}


def test_what_is_missing_is_named() -> None:
    class Empty(Network):
        def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
            super().__init__()

    assert all(not result.passed and result.message for result in check_network(Empty))


def test_checking_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_network(Sound, rules=[any_size])
    assert torch.equal(torch.rand(3), expected)
