"""The reference implementation's numbers in a small edition: results as they are, inputs made from their seeds again.

    python tests/golden/edition.py FULL_SET

makes ``numbers/*.npz`` from the full set and refuses where an input made from its seed differs from the set's in a bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from duomod.networks.builder import initialise
from duomod.networks.vnet import VNet

Arrays = dict[str, np.ndarray]
States = dict[str, dict[str, Tensor]]

NUMBERS = Path(__file__).parent / "numbers"
OFFICIAL, INITIAL, FINAL = "vnet_f4_c6_official.pth", "duomod_step_init.pth", "duomod_step_final.pth"


def arrays(folder: Path, name: str) -> Arrays:
    """All arrays of ``name`` (an ``.npz``) in ``folder``, and in the edition the inputs from their seeds."""
    with np.load(folder / name) as data:
        stored = dict(data)
    return {**seeded_inputs().get(name, {}), **stored} if folder == NUMBERS else stored


def states(folder: Path, name: str) -> States:
    """State dicts by network (``A``, ``B``), as the reference's checkpoint ``name`` holds them."""
    if folder != NUMBERS:
        content: States = torch.load(folder / name, weights_only=True)
        return content
    if name == FINAL:
        with np.load((folder / name).with_suffix(".npz")) as data:
            return _nested({key: torch.from_numpy(data[key]) for key in data})
    return _SEEDED_WEIGHTS[name]()


@cache
def seeded_inputs() -> Mapping[str, Arrays]:
    """The random inputs by file: one stream of torch's generator from seed 100, drawn in this order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100)
        drawn: dict[str, dict[str, Tensor]] = {
            "rlm_sequence.npz": {f"logits{t}": torch.randn(2, 6, 4, 5, 6) * 3 for t in range(5)},
            "dafr_sequence.npz": _dafr_inputs(),
            "losses.npz": _loss_inputs(),
            "dhc_weights.npz": _dhc_inputs(),
            "vnet_forward.npz": {"x": torch.randn(1, 1, 16, 32, 32)},
            "sliding_window.npz": {"volume": torch.randn(1, 1, 20, 41, 50)},
            "duomod_steps.npz": _step_inputs(),
        }
    return {name: {key: tensor.numpy() for key, tensor in tensors.items()} for name, tensors in drawn.items()}


def _dafr_inputs() -> dict[str, Tensor]:
    """Features, and logits of two networks that disagree more and more; class 4 does not occur in call 1."""
    drawn = {}
    for t in range(4):
        drawn[f"feat{t}"], za = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 6, 4, 5, 6) * 2
        zb = za + torch.randn(2, 6, 4, 5, 6) * (0.3 + t)
        if t == 1:
            za[:, 4] -= 50
            zb[:, 4] -= 50
        drawn[f"za{t}"], drawn[f"zb{t}"] = za, zb
    return drawn


def _loss_inputs() -> dict[str, Tensor]:
    """Class 4 of five does not occur in the truth."""
    return {
        "logits": torch.randn(2, 5, 6, 7, 8) * 2,
        "target": torch.randint(0, 4, (2, 1, 6, 7, 8)),
        "w_ce": torch.rand(5) + 0.2,
        "w_dice": torch.rand(5) + 0.2,
    }


def _dhc_inputs() -> dict[str, Tensor]:
    """The labelled logits come closer to the truth from update to update."""
    drawn = {}
    for t in range(4):
        drawn[f"zu{t}"], zl = torch.randn(2, 5, 4, 5, 6) * 2, torch.randn(2, 5, 4, 5, 6) * 2
        label = torch.randint(0, 5, (2, 1, 4, 5, 6))
        drawn[f"zl{t}"] = zl + t * nn.functional.one_hot(label[:, 0], 5).movedim(-1, 1)
        drawn[f"yl{t}"] = label
    return drawn


def _step_inputs() -> dict[str, Tensor]:
    drawn = {}
    for t in range(4):
        drawn[f"xl{t}"], drawn[f"xu{t}"] = torch.rand(2, 1, 16, 16, 16), torch.rand(2, 1, 16, 16, 16)
        drawn[f"yl{t}"] = torch.randint(0, 6, (2, 1, 16, 16, 16)).to(torch.uint8)
    return drawn


def official_weights() -> States:
    """A V-Net of 4 filters with PyTorch's initial weights and random batch normalisation; ``A`` and ``B`` alike."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(101)
        network = VNet(1, 6, 4)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return {key: network.state_dict() for key in ("A", "B")}


def initial_weights() -> States:
    """Two V-Nets of 2 filters as the reference starts them: ``A`` Kaiming, ``B`` Xavier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(102)
        a, b = VNet(1, 6, 2), VNet(1, 6, 2)
        initialise(a, "kaiming")
        initialise(b, "xavier")
    return {"A": a.state_dict(), "B": b.state_dict()}


_SEEDED_WEIGHTS: Mapping[str, Callable[[], States]] = {OFFICIAL: official_weights, INITIAL: initial_weights}


def _flat(content: States) -> Arrays:
    return {f"{network}.{key}": value.numpy() for network, state in content.items() for key, value in state.items()}


def _nested(flat: Mapping[str, Tensor]) -> States:
    content: States = {}
    for key, value in flat.items():
        network, _, name = key.partition(".")
        content.setdefault(network, {})[name] = value
    return content


def identical(ours: Arrays, theirs: Arrays) -> bool:
    """Whether two sets of arrays agree in names, types and every bit."""
    return ours.keys() == theirs.keys() and all(
        ours[key].dtype == theirs[key].dtype and np.array_equal(ours[key], theirs[key]) for key in ours
    )


def make(full: Path, target: Path = NUMBERS) -> None:
    """Write the edition of the full set ``full`` to ``target``.

    Raises:
        ValueError: an input made from its seed is not the set's, by name.
    """
    for name, maker in _SEEDED_WEIGHTS.items():
        if not identical(_flat(maker()), _flat(states(full, name))):
            raise ValueError(f"{name}: not what its seed makes here")
    target.mkdir(parents=True, exist_ok=True)
    np.savez_compressed((target / FINAL).with_suffix(".npz"), **_flat(states(full, FINAL)))  # type: ignore[arg-type]
    for file in sorted(full.glob("*.npz")):
        with np.load(file) as data:
            content = dict(data)
        seeded = seeded_inputs().get(file.name, {})
        if not identical(seeded, {key: content[key] for key in seeded}):
            raise ValueError(f"{file.name}: inputs are not what their seed makes here")
        results = {key: value for key, value in content.items() if key not in seeded}
        np.savez_compressed(target / file.name, **results)  # type: ignore[arg-type]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
