"""The methods' own V-Nets have the published sizes and behave as docs/methods says; MONAI's fit in as well."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.networks.registry import build_network, network_names, published_as_vnet
from duomod.networks.vnet import VNet, settings_from_state
from duomod.networks.vnet_decoupled import VNetDecoupled, reversal_strength, reverse_gradient
from duomod.networks.vnet_dycon import VNetDyCON
from duomod.networks.vnet_skcdf import AttentionBlock, ChannelAttention, VNetSKCDF

VARIANTS = ["vnet_decoupled", "vnet_dycon", "vnet_skcdf"]
TINY: dict[str, Any] = {"filters": 4, "levels": 3, "dropout_bottleneck": 0.0, "dropout_last": 0.0}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tiny(name: str, classes: int = 5, **settings: Any) -> Any:
    torch.manual_seed(0)
    return build_network(NetworkConfig.model_validate({"name": name, **TINY, **settings}), 1, classes)


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        dst, dycon, skcdf = VNetDecoupled(), VNetDyCON(), VNetSKCDF()
    assert count(dst) == 54_343_984
    assert [count(d) for d in (dst.decoder, dst.decoder_pseudo, dst.decoder_worst)] == [8_282_896] * 3
    assert count(dycon) == 61_249_056
    assert count(dycon.aspp) == 23_074_816
    assert count(skcdf) == 50_917_584
    assert count(skcdf.encoder) == 29_495_296
    assert [count(skcdf.decoder_l), count(skcdf.decoder_u)] == [8_283_424] * 2
    assert [count(skcdf.cross_attention_local), count(skcdf.cross_attention_global)] == [2_362_000, 2_493_440]


def test_embeddings_of_a_full_patch() -> None:
    with torch.device("meta"):
        logits, features = VNetDyCON().embed(torch.empty(2, 1, 64, 128, 128))
    assert logits.shape == (2, 16, 64, 128, 128)
    assert features.shape == (2, 256, 8, 16, 16)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "settings", [{}, {"norm": "instance"}, {"norm": "none", "levels": 2}, {"norm": "group", "filters": 16}]
)
def test_variants_work_at_other_settings_and_sizes(name: str, settings: dict[str, Any]) -> None:
    network = tiny(name, **settings).eval()
    x = torch.rand(1, 1, 13, 17, 15)
    with torch.no_grad():
        z = network(x)
        assert z.shape == (1, 5, 13, 17, 15)
        torch.testing.assert_close(network.head(network.features(x)), z)


def test_reversed_gradient() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(x.grad, torch.full((2, 3), -0.3))


def test_reversal_warms_up() -> None:
    assert reversal_strength(0) == 0
    assert reversal_strength(500) == pytest.approx(0.2 / (1 + 2.718281828**-1) - 0.1)
    assert reversal_strength(10_000) == pytest.approx(0.1, abs=1e-6)


def test_only_the_worst_decoder_is_reversed() -> None:
    network = tiny("vnet_decoupled").eval()
    x = torch.rand(1, 1, 16, 16, 16)
    first = network.block_one.conv[0].weight

    def gradient(branch: int, reversal: float) -> Tensor:
        (found,) = torch.autograd.grad(network.branches(x, reversal)[branch].square().mean(), first)
        return found

    # with lambda = -1 nothing is reversed
    torch.testing.assert_close(gradient(2, 0.1), -0.1 * gradient(2, -1.0))
    for branch in (0, 1):
        torch.testing.assert_close(gradient(branch, 0.1), gradient(branch, -1.0))
    torch.testing.assert_close(network.branches(x, 0.1)[0], network(x))


def test_signed_distance_head_is_not_trained() -> None:
    network = tiny("vnet_dycon")
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        "out_conv.weight",
        "out_conv.bias",
    ]
    distance = network.signed_distance(network.features(torch.rand(2, 1, 16, 16, 16)))
    assert distance.shape == (2, 5, 16, 16, 16)
    assert distance.abs().max() <= 1


@pytest.mark.parametrize("heads_first", [True, False])
def test_channel_attention_head_by_head(heads_first: bool) -> None:
    channels, heads = 3, 2
    attention = ChannelAttention(channels, heads, 0.0, heads_first)
    x = torch.randn(1, 1, 5, channels)
    mixed = torch.zeros(5, channels * heads)
    for head in range(heads):
        rows = [head * channels + c if heads_first else c * heads + head for c in range(channels)]
        q, k, v = (x[0, 0] @ linear.weight[rows].T for linear in (attention.q, attention.k, attention.v))
        scores = q.T @ k
        scores = (scores - scores.mean()) / (scores.var(unbiased=False) + 1e-5).sqrt()
        for c in range(channels):
            mixed[:, c * heads + head] = v @ scores.softmax(1)[c]
    torch.testing.assert_close(attention.itself(x)[0, 0], mixed @ attention.out.weight.T)


def test_tokens_go_back_to_their_voxels() -> None:
    block = AttentionBlock(channels=2, kernel=(2, 2, 2), whole=False)
    with torch.no_grad():
        block.token_learner.proj.weight.copy_(torch.eye(8).view(8, 1, 2, 2, 2))
        block.token_learner.proj.bias.zero_()
    x = torch.randn(3, 2, 4, 6, 2)
    torch.testing.assert_close(block._to_map(block.token_learner(x), x.shape[2:]), x)


def test_unlabelled_path_treats_patches_one_by_one() -> None:
    network = tiny("vnet_skcdf").eval()
    x = torch.rand(3, 1, 16, 16, 16)
    torch.testing.assert_close(network.unlabelled(x)[0][:1], network(x[:1]))


@pytest.mark.parametrize("labelled", [1, 2])
def test_labelled_path_crosses_but_sends_no_gradient_into_unlabelled_patches(labelled: int) -> None:
    network = tiny("vnet_skcdf").eval()
    x = torch.rand(3, 1, 16, 16, 16, requires_grad=True)
    z, balanced = network.labelled(x, labelled)
    assert z.shape == balanced.shape == (3, 5, 16, 16, 16)
    (back,) = torch.autograd.grad(z[:labelled].square().sum(), x, retain_graph=True)
    assert not back[labelled:].any()
    (back,) = torch.autograd.grad(z[labelled:].square().sum(), x)
    assert back[:labelled].any()
    other = x.detach().clone()
    other[labelled:] = torch.rand_like(other[labelled:])
    assert not torch.allclose(network.labelled(other, labelled)[0][:labelled], z[:labelled])


def test_user_networks() -> None:
    assert {"resunet", "segresnet", "swinunetr", "vnet"} <= set(network_names())
    assert not set(VARIANTS) & set(network_names())
    with pytest.raises(InputError, match="segresnet"):
        tiny("segresnett")


@pytest.mark.parametrize("name", ["resunet", "segresnet"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_monai_networks_fit_the_interface(name: str, norm: str) -> None:
    network = tiny(name, norm=norm)
    x = torch.rand(2, 1, 13, 17, 15)
    z = network(x)
    assert z.shape == (2, 5, 13, 17, 15)
    z.square().mean().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None]
    network.eval()
    torch.testing.assert_close(network.head(network.features(x)), network(x))


def test_swin_unetr_fits_the_interface() -> None:
    pytest.importorskip("einops", reason="SwinUNETR needs einops")
    network = tiny("swinunetr", norm="instance").eval()
    with torch.no_grad():
        features = network.features(torch.rand(1, 1, 12, 20, 16))
        assert network.head(features).shape == (1, 5, 12, 20, 16)


def test_residual_unet_has_the_shape_of_the_m_preset() -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig(name="resunet"), 1, 16)
        convolutions = [m for m in network.body.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
        assert sorted({m.out_channels for m in convolutions}) == [32, 64, 128, 256, 320]
        deepest = network.body.bottleneck(torch.empty(1, 320, 4, 8, 8))
    assert deepest.shape == (1, 320, 4, 4, 4)


@pytest.mark.parametrize(
    ("names", "method"),
    [
        ({"A": "vnet_decoupled", "B": "vnet_decoupled"}, "dst"),
        ({"model": "vnet_dycon", "ema_model": "vnet_dycon"}, "dycon"),
        ({"A": "vnet_skcdf", "B": "vnet_skcdf"}, "skcdf"),
        ({"A": "vnet", "B": "vnet"}, "cps"),
        ({"model": "vnet", "ema_model": "vnet"}, "uamt"),
        ({"model": "vnet"}, "supervised"),
    ],
)
def test_published_checkpoints_are_recognised(names: dict[str, str], method: str) -> None:
    content = {key: tiny(name, classes=6).state_dict() for key, name in names.items()}
    found, state = published_as_vnet(content)
    assert found == method
    expected = {"in_channels": 1, "filters": 4, "num_classes": 6, "levels": 3, "norm": "batch"}
    assert settings_from_state(state) == expected


def test_published_slcnet_is_recognised_by_its_inputs() -> None:
    networks = {"A": VNet(1, 6, 4, levels=3), "B": VNet(7, 6, 4, levels=3)}
    found, state = published_as_vnet({key: network.state_dict() for key, network in networks.items()})
    assert found == "slcnet"
    assert settings_from_state(state)["in_channels"] == 1
