"""Any network in the forms that methods need: of the published sizes for a V-Net, behaving as docs/methods says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.networks.base import Network, StagedNetwork
from duomod.networks.builder import NetworkBuilder
from duomod.networks.channel_attention import AttentionBlock, ChannelAttention
from duomod.networks.decoupled import DecoupledNetwork, reversal_strength, reverse_gradient
from duomod.networks.projected import ProjectedNetwork
from duomod.networks.registry import NETWORKS, build_network
from duomod.networks.two_paths import TwoPathNetwork
from duomod.networks.vnet import VNet
from duomod.networks.vnet_published import VNetDecoupled, VNetDyCON, published_as_vnet, settings_from_state

FORMS: list[type[Network]] = [DecoupledNetwork, ProjectedNetwork, TwoPathNetwork, StagedNetwork]
DIVISIBLE = ["vnet", "unet", "resunet", "segresnet"]
TINY: dict[str, Any] = {"filters": 4, "levels": 3, "dropout_bottleneck": 0.0, "dropout_last": 0.0}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tiny(name: str, form: type[Network] = Network, classes: int = 5, **settings: Any) -> Any:
    torch.manual_seed(0)
    return build_network(NetworkConfig.model_validate({"name": name, **TINY, **settings}), 1, classes, form)


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        dst, dycon = VNetDecoupled(NetworkConfig(), 1, 16), VNetDyCON(NetworkConfig(), 1, 16)
        skcdf: Any = build_network(NetworkConfig(), 1, 16, TwoPathNetwork)
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
        logits, features = VNetDyCON(NetworkConfig(), 1, 16).embed(torch.empty(2, 1, 64, 128, 128))
    assert logits.shape == (2, 16, 64, 128, 128)
    assert features.shape == (2, 256, 8, 16, 16)


def test_state_dict_keys_are_the_reference_s() -> None:
    prefixes = {
        DecoupledNetwork: {"block", "decoder", "decoder_pseudo", "decoder_worst"},
        ProjectedNetwork: {"block", "out_conv", "out_conv2", "aspp", "projection"},
        TwoPathNetwork: {"encoder", "decoder_l", "decoder_u", "cross_attention_local", "cross_attention_global"},
        Network: {"block", "out_conv"},
    }
    for form, expected in prefixes.items():
        keys = tiny("vnet", form).state_dict()
        assert {"block" if key.startswith("block_") else key.split(".")[0] for key in keys} == expected
    assert {"decoder_l.out_conv9.weight", "decoder_u.block_five.conv.0.weight"} <= tiny(
        "vnet", TwoPathNetwork
    ).state_dict().keys()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "settings", [{}, {"norm": "instance"}, {"norm": "none", "levels": 2}, {"norm": "group", "filters": 16}]
)
@pytest.mark.parametrize("name", DIVISIBLE)
def test_forms_work_at_other_settings_and_sizes(name: str, form: type[Network], settings: dict[str, Any]) -> None:
    network = tiny(name, form, **settings).eval()
    assert isinstance(network, form)
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
    network = tiny("vnet", DecoupledNetwork).eval()
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
    network = tiny("vnet", ProjectedNetwork)
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        "out_conv.weight",
        "out_conv.bias",
    ]


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
    network = tiny("vnet", TwoPathNetwork).eval()
    x = torch.rand(3, 1, 16, 16, 16)
    torch.testing.assert_close(network.unlabelled(x)[0][:1], network(x[:1]))


@pytest.mark.parametrize("labelled", [1, 2])
def test_labelled_path_crosses_but_sends_no_gradient_into_unlabelled_patches(labelled: int) -> None:
    network = tiny("vnet", TwoPathNetwork).eval()
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
    assert {"resunet", "segresnet", "swinunetr", "vnet"} <= set(NETWORKS.names())
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
        network: Any = build_network(NetworkConfig(name="resunet"), 1, 16)
        convolutions = [m for m in network.body.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
        assert sorted({m.out_channels for m in convolutions}) == [32, 64, 128, 256, 320]
        deepest = network.body.bottleneck(torch.empty(1, 320, 4, 8, 8))
    assert deepest.shape == (1, 320, 4, 4, 4)


@pytest.mark.parametrize("name", DIVISIBLE)
def test_every_decoder_of_a_decoupled_network_is_its_own(name: str) -> None:
    network = tiny(name, DecoupledNetwork).eval()
    x = torch.rand(1, 1, 13, 17, 15)
    main, pseudo, worst = network.branches(x, 0.1)
    torch.testing.assert_close(main, network(x))
    assert main.shape == pseudo.shape == worst.shape == (1, 5, 13, 17, 15)
    assert not torch.allclose(main, pseudo)
    assert not torch.allclose(pseudo, worst)
    pseudo.square().mean().backward()
    touched = {key.split(".")[0] for key, p in network.named_parameters() if p.grad is not None}
    assert "decoder_pseudo" in touched
    assert not touched & {"decoder", "decoder_worst"}


@pytest.mark.parametrize("name", [*DIVISIBLE, "swinunetr"])
def test_stages_go_from_coarse_to_the_features(name: str) -> None:
    if name == "swinunetr":
        pytest.importorskip("einops", reason="SwinUNETR needs einops")
    network = tiny(name, StagedNetwork, norm="instance").eval()
    x = torch.rand(1, 1, 32, 64, 32)
    maps = network.encode(x)
    assert [m.shape[1] for m in maps] == list(network.widths)
    stages = network.stages(maps)
    assert [s.shape[1] for s in stages] == list(network.stage_widths)
    assert [s.shape[3] for s in stages] == sorted(s.shape[3] for s in stages)
    torch.testing.assert_close(stages[-1], network.features(x))


@pytest.mark.parametrize("form", [DecoupledNetwork, TwoPathNetwork])
def test_what_a_network_cannot_offer_is_refused_with_those_that_can(form: type[Network]) -> None:
    pytest.importorskip("einops", reason="SwinUNETR needs einops")
    with pytest.raises(InputError, match="swinunetr cannot be built with several decoders") as caught:
        tiny("swinunetr", form)
    assert all(name in str(caught.value) for name in DIVISIBLE)


def test_a_builder_gives_what_was_asked_for() -> None:
    config = NetworkConfig.model_validate({"name": "unet", **TINY})
    build = NetworkBuilder(config, in_channels=2, num_classes=3)
    assert build().in_channels == 2
    assert build("kaiming", in_channels=7)(torch.rand(1, 7, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
    assert isinstance(build("xavier", DecoupledNetwork), DecoupledNetwork)
    assert build("default", ProjectedNetwork).description == "UNet with projection"


@pytest.mark.parametrize(
    ("forms", "method"),
    [
        ({"A": DecoupledNetwork, "B": DecoupledNetwork}, "dst"),
        ({"model": ProjectedNetwork, "ema_model": ProjectedNetwork}, "dycon"),
        ({"A": TwoPathNetwork, "B": TwoPathNetwork}, "skcdf"),
        ({"A": Network, "B": Network}, "cps"),
        ({"model": Network, "ema_model": Network}, "uamt"),
        ({"model": Network}, "supervised"),
    ],
)
def test_published_checkpoints_are_recognised(forms: dict[str, type[Network]], method: str) -> None:
    content = {key: tiny("vnet", form, classes=6).state_dict() for key, form in forms.items()}
    found, state = published_as_vnet(content)
    assert found == method
    expected = {"in_channels": 1, "filters": 4, "num_classes": 6, "levels": 3, "norm": "batch"}
    assert settings_from_state(state) == expected


def test_published_slcnet_is_recognised_by_its_inputs() -> None:
    networks = {"A": VNet(1, 6, 4, levels=3), "B": VNet(7, 6, 4, levels=3)}
    found, state = published_as_vnet({key: network.state_dict() for key, network in networks.items()})
    assert found == "slcnet"
    assert settings_from_state(state)["in_channels"] == 1
