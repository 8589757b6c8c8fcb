"""What every network must do, checked on tiny random input. ``duomod check-network NAME`` runs it; so do our tests.

A network that passes can be trained, saved, validated and used for prediction with any method that asks for no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from duomod.config import NetworkConfig
from duomod.conformance import Result, check_rules, demand, first_of, reload_into
from duomod.networks.base import Network, crop, pad_to_stride
from duomod.networks.registry import NETWORKS, build_network, only_network
from duomod.networks.settings import CheckNetworkSettings
from duomod.networks.shallow_bf16 import guard_shallow_convolutions

CLASSES = 3
#: Nothing is divisible here, and the last is smaller than most strides.
SIZES = ((16, 16, 16), (13, 17, 15), (5, 9, 6))


@dataclass(frozen=True)
class Subject:
    """The network under test. ``name`` is for messages only."""

    kind: type[Network]
    name: str

    def build(self, channels: int = 1, classes: int = CLASSES, seed: int = 0, norm: str = "instance") -> Network:
        """The network, tiny and without dropout, with fresh weights, in train mode."""
        torch.manual_seed(seed)
        settings = {"name": self.name, "filters": 4, "levels": 3, "norm": norm}
        config = NetworkConfig.model_validate({**settings, "dropout_bottleneck": 0.0, "dropout_last": 0.0})
        return build_network(config, channels, classes, kind=self.kind).train()


def _image(size: Sequence[int], channels: int = 1, patches: int = 1) -> Tensor:
    return torch.rand((patches, channels, *size), generator=torch.Generator().manual_seed(1))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def any_size(subject: Subject) -> None:
    """Images of any size give logits of that size, finite everywhere."""
    network = subject.build().eval()
    for size in SIZES:
        logits = network(_image(size))
        wanted = (1, CLASSES, *size)
        demand(tuple(logits.shape) == wanted, f"an image of {size} gives {tuple(logits.shape)}, not {wanted}")
        demand(bool(logits.isfinite().all()), f"an image of {size} gives logits that are not finite")


@torch.no_grad()
def forward_is_the_head_on_the_features(subject: Subject) -> None:
    """``forward(x)`` is ``head(features(x))``; features have ``width`` channels and the image's size."""
    network, image = subject.build().eval(), _image(SIZES[1])
    features = network.features(image)
    wanted = (1, network.width, *SIZES[1])
    demand(tuple(features.shape) == wanted, f"features have the shape {tuple(features.shape)}, not {wanted}")
    demand(_same(network.head(features), network(image)), "the head on the features is not what forward gives")


@torch.no_grad()
def features_are_the_decoder_on_the_encoder(subject: Subject) -> None:
    """``features(x)`` is ``decode(encode(x))``, cut to the image's size."""
    network, image = subject.build().eval(), _image(SIZES[1])
    decoded = network.decode(network.encode(image))
    demand(_same(crop(decoded, image), network.features(image)), "decode(encode(x)) is not what features gives")


@torch.no_grad()
def stride_and_widths_are_true(subject: Subject) -> None:
    """The first map is at full resolution, the last coarser by ``stride``; ``widths`` are the maps' channels."""
    network, image = subject.build().eval(), _image(SIZES[1])
    padded = tuple(pad_to_stride(image, network.stride, network.two_voxels).shape[2:])
    maps = network.encode(image)
    widths = tuple(m.shape[1] for m in maps)
    demand(widths == network.widths, f"the maps have {widths} channels, but widths are {network.widths}")
    demand(tuple(maps[0].shape[2:]) == padded, f"the first map has the size {tuple(maps[0].shape[2:])}, not {padded}")
    deepest = tuple(length // step for length, step in zip(padded, network.stride, strict=True))
    found = tuple(maps[-1].shape[2:])
    demand(found == deepest, f"the stride is {network.stride}, so {padded} gives {deepest}; the last map has {found}")


@torch.no_grad()
def one_and_two_channels(subject: Subject) -> None:
    """Images of one and of two channels work, and both channels count."""
    for channels in (1, 2):
        network = subject.build(channels).eval()
        demand(network.in_channels == channels, f"in_channels is {network.in_channels}, not {channels}")
        network(_image(SIZES[0], channels))
    image = _image(SIZES[0], 2)
    other = torch.cat([image[:, :1], 1 - image[:, 1:]], dim=1)
    demand(not torch.equal(network(image), network(other)), "the second channel changes nothing")


def any_number_of_classes(subject: Subject) -> None:
    """Two classes and sixteen work."""
    for classes in (2, 16):
        network = subject.build(classes=classes).eval()
        demand(network.num_classes == classes, f"num_classes is {network.num_classes}, not {classes}")
        with torch.no_grad():
            found = network(_image(SIZES[0])).shape[1]
        demand(found == classes, f"with {classes} classes there are logits of {found}")


@torch.no_grad()
def eval_is_deterministic(subject: Subject) -> None:
    """In eval mode an image has one answer, whichever images are beside it."""
    network, image = subject.build().eval(), _image(SIZES[0], patches=2)
    first = network(image)
    demand(torch.equal(first, network(image)), "in eval mode the network gives two answers to one image")
    demand(_same(first[:1], network(image[:1])), "in eval mode an image's logits depend on the others of the batch")


def _gradients(network: Network, image: Tensor, dtype: torch.dtype | None) -> Tensor:
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
        logits: Tensor = network(image)
    torch.autograd.backward(logits.float().square().mean())
    return logits


def every_parameter_learns(subject: Subject) -> None:
    """A gradient reaches every trainable parameter."""
    network = subject.build()
    _gradients(network, _image((24, 24, 24), patches=2), None)
    idle = [
        name
        for name, p in network.named_parameters()
        # A bias before a normalisation has a gradient of zero by nature; a weight has not.
        if p.requires_grad and (p.grad is None or (p.ndim > 1 and not bool(p.grad.any())))
    ]
    demand(not idle, f"trained parameters without a gradient: {first_of(idle)}")


def bf16_works(subject: Subject) -> None:
    """In bf16 autocast, logits and gradients are finite."""
    network = subject.build()
    guard_shallow_convolutions(network, torch.device("cpu"), torch.bfloat16)
    logits = _gradients(network, _image((24, 24, 24), patches=2), torch.bfloat16)
    demand(bool(logits.isfinite().all()), "in bf16 the logits are not finite")
    bad = [n for n, p in network.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    demand(not bad, f"in bf16 these gradients are not finite: {first_of(bad)}")


def batch_of_one(subject: Subject) -> None:
    """One small patch can be trained on, with instance and with batch normalisation."""
    for norm in ("instance", "batch"):
        network = subject.build(norm=norm)
        logits = _gradients(network, _image(SIZES[0]), None)
        demand(bool(logits.isfinite().all()), f"with {norm} normalisation and one patch the logits are not finite")


@torch.no_grad()
def state_survives(subject: Subject) -> None:
    """Saved and loaded into a network of other weights, it gives the same logits bit for bit."""
    network, image = subject.build(), _image(SIZES[1])
    network(_image((24, 24, 24), patches=2))  # moves running statistics, where there are some
    loaded = subject.build(seed=1)
    reload_into(loaded, network.state_dict())
    demand(
        torch.equal(network.eval()(image), loaded.eval()(image)),
        "after save and load the logits differ: state outside parameters and buffers",
    )


Rule = Callable[[Subject], None]
RULES: tuple[Rule, ...] = (
    any_size,
    forward_is_the_head_on_the_features,
    features_are_the_decoder_on_the_encoder,
    stride_and_widths_are_true,
    one_and_two_channels,
    any_number_of_classes,
    eval_is_deterministic,
    every_parameter_learns,
    bf16_works,
    batch_of_one,
    state_survives,
)


def run_check_network(settings: CheckNetworkSettings) -> list[Result]:
    """The suite on a network by name, or on that of a Python file.

    Raises:
        InputError: unknown network, or a file without exactly one.
    """
    name = settings.name or ""
    plugin = settings.plugin or (Path(name) if name.endswith(".py") else None)
    return check_network(only_network(plugin)) if plugin else check_network(NETWORKS.load(name), name)


def check_network(kind: type[Network], name: str | None = None, rules: Sequence[Rule] = RULES) -> list[Result]:
    """Run the conformance suite on a network.

    Args:
        kind: Its class.
        name: Its name in ``--network``; default: the class's.
        rules: Which rules to check.

    Returns:
        One result per rule, in order. An exception inside the network counts against the rule it came from.
    """
    return check_rules(Subject(kind, name or kind.__name__), rules)
