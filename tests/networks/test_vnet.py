from __future__ import annotations

import pytest
import torch

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.networks.builder import initialise
from duomod.networks.registry import build_network
from duomod.networks.vnet import VNet
from duomod.networks.vnet_published import settings_from_state


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("filters", "in_channels", "parameters"), [(32, 1, 37_778_192), (16, 1, 9_449_104), (32, 17, 37_792_016)]
)
def test_parameter_counts_of_the_paper(filters: int, in_channels: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(VNet(in_channels, 16, filters)) == parameters


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(16, 16, 16), (17, 19, 23), (5, 9, 16)])
def test_any_size_comes_back_at_that_size(levels: int, size: tuple[int, int, int]) -> None:
    network = VNet(1, 3, 4, levels=levels).eval()
    assert network(torch.randn(1, 1, *size)).shape == (1, 3, *size)
    assert network.features(torch.randn(1, 1, *size)).shape == (1, 4, *size)


def test_forward_is_the_head_on_the_features() -> None:
    network = VNet(1, 3, 4).eval()
    x = torch.randn(2, 1, 16, 16, 16)
    torch.testing.assert_close(network(x), network.head(network.features(x)))


def test_settings_are_read_off_a_state_dict() -> None:
    settings = settings_from_state(VNet(2, 5, 4, levels=4).state_dict())
    assert settings == {"in_channels": 2, "filters": 4, "num_classes": 5, "levels": 4, "norm": "batch"}


def test_the_two_initialisations_differ_and_leave_biases_alone() -> None:
    torch.manual_seed(0)
    a = initialise(VNet(1, 2, 16), "kaiming")
    b = initialise(VNet(1, 2, 16), "xavier")
    weight_a, weight_b = (n.get_submodule("block_five.conv.3").weight for n in (a, b))
    # fan-in 256*27: Kaiming sqrt(2/fan), Xavier sqrt(2/(fan_in+fan_out)) = sqrt(1/fan)
    assert weight_a.std().item() == pytest.approx((2 / (256 * 27)) ** 0.5, rel=0.02)
    assert weight_b.std().item() == pytest.approx((1 / (256 * 27)) ** 0.5, rel=0.02)


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'vnet'"):
        build_network(NetworkConfig(name="vnett"), 1, 2)
