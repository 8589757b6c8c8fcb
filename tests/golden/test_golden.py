"""Every array of the reference implementation's numbers, compared (README.md here says how they were made)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from duomod.inference.sliding_window import predict_probabilities
from duomod.losses.class_weights import descending_ranks, rlm_weights
from duomod.losses.dice import dice_ce, ga_dice
from duomod.losses.gace import gace
from duomod.methods.base import Batch, MethodContext, Progress
from duomod.methods.dhc import DiffDW, DistDW
from duomod.methods.duomodnet import DAFR, RLM, DuoModNet, DuoModNetConfig, class_gains, jensen_shannon
from duomod.methods.shared.two_networks import MeanLogits
from duomod.networks.vnet import VNet, settings_from_state
from duomod.training.checkpoint import load_predictor

pytestmark = pytest.mark.golden


def steps(arrays: dict[str, np.ndarray], key: str) -> Iterator[int]:
    step = 0
    while f"{key}{step}" in arrays:
        yield step
        step += 1


def close(ours: Tensor, theirs: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=tolerance)


def test_rlm_weights(numbers: Any) -> None:
    arrays = numbers.arrays("rlm_weights.npz")
    compared = 0
    for key in arrays:
        if key.endswith("_p"):
            continue
        case, floor, dice, kind = key.split("_")
        ce_weight, dice_weight = rlm_weights(torch.tensor(arrays[f"{case}_p"]), float(floor.removeprefix("floor")))
        if kind == "dice" and dice == "dice0":  # RLM without Dice weights: all ones
            dice_weight = torch.ones_like(dice_weight)
        close(ce_weight if kind == "ce" else dice_weight, arrays[key], 1e-5)
        compared += 1
    assert compared == sum(not key.endswith("_p") for key in arrays) > 0


def test_rlm_sequence(numbers: Any) -> None:
    arrays = numbers.arrays("rlm_sequence.npz")
    counts = np.bincount(arrays["labels"].ravel(), minlength=len(arrays["init"]))
    context = MethodContext(len(counts), torch.tensor(counts), lambda *a, **k: None)
    close(context.class_distribution(), arrays["init"], 1e-6)
    rlm = RLM(context.class_distribution(), floor=0.2, momentum=0.99)
    for t in steps(arrays, "logits"):
        rlm.update(torch.tensor(arrays[f"logits{t}"]).softmax(1))
        ce_weight, dice_weight = rlm.weights()
        close(rlm.distribution, arrays[f"dist{t}"], 1e-5)
        close(ce_weight, arrays[f"ce{t}"], 1e-5)
        close(dice_weight, arrays[f"dice{t}"], 1e-5)
    assert t >= 1


def test_dafr_sequence(numbers: Any) -> None:
    arrays = numbers.arrays("dafr_sequence.npz")
    distribution = torch.tensor(arrays["dist"])
    np.testing.assert_array_equal(descending_ranks(distribution).numpy(), arrays["ranks"])
    dafr = DAFR(len(distribution), clamp=False)
    gains = class_gains(distribution, "head")
    for t in steps(arrays, "za"):
        za, zb = torch.tensor(arrays[f"za{t}"]), torch.tensor(arrays[f"zb{t}"])
        gamma = dafr.gain(jensen_shannon(za.softmax(1), zb.softmax(1)), za.argmax(1), gains)
        close(gamma, arrays[f"gamma{t}"], 1e-5)
        close(gamma.unsqueeze(1) * torch.tensor(arrays[f"feat{t}"]), arrays[f"out{t}"], 1e-5)
        close(dafr.minimum, arrays[f"min{t}"], 2e-7)
        close(dafr.maximum, arrays[f"max{t}"], 1e-6)
    assert t >= 1


def test_losses_and_their_gradients(numbers: Any) -> None:
    arrays = numbers.arrays("losses.npz")
    target = torch.tensor(arrays["target"])[:, 0]
    w_ce, w_dice = torch.tensor(arrays["w_ce"]), torch.tensor(arrays["w_dice"])
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "dice_ce": lambda z: dice_ce(z, target, absent="constant"),
        "dice_ce_weighted": lambda z: dice_ce(z, target, ce_weight=w_ce, dice_weight=w_dice, absent="constant"),
        "ga_dice": lambda z: ga_dice(z.softmax(1), target),
        "gace10": lambda z: gace(z, target, 10),
        "gace100": lambda z: gace(z, target, 100),
    }
    for name, compute in losses.items():
        logits = torch.tensor(arrays["logits"], requires_grad=True)
        loss = compute(logits)
        loss.backward()
        close(loss, arrays[name], 1e-5)
        assert logits.grad is not None
        close(logits.grad, arrays[f"{name}_grad"], 1e-6)


def test_dhc_weights(numbers: Any) -> None:
    arrays = numbers.arrays("dhc_weights.npz")
    counts = torch.tensor(arrays["dist_init_counts"])
    # Ours follows shares of one step's voxels; the reference follows counts.
    distribution = DistDW(counts / arrays["zu0"][:, 0].size, momentum=0.99)
    difficulty = DiffDW(len(counts), accumulate=50)
    for t in steps(arrays, "zu"):
        found = distribution.update(torch.tensor(arrays[f"zu{t}"]).argmax(1))
        close(found, arrays[f"distdw{t}"], 1e-5)
        found = difficulty.update(torch.tensor(arrays[f"zl{t}"]).argmax(1), torch.tensor(arrays[f"yl{t}"])[:, 0])
        close(found, arrays[f"diffdw{t}"], 1e-5)
    assert t >= 1


def vnet_for(state: dict[str, Tensor]) -> VNet:
    settings = settings_from_state(state)
    network = VNet(
        int(settings["in_channels"]),
        int(settings["num_classes"]),
        int(settings["filters"]),
        dropout_bottleneck=0,
        dropout_last=0,
        levels=int(settings["levels"]),
    )
    network.load_state_dict(state)
    return network


def test_published_vnet(numbers: Any) -> None:
    arrays = numbers.arrays("vnet_forward.npz")
    network = vnet_for(numbers.states("vnet_f4_c6_official.pth")["A"]).eval()
    with torch.no_grad():
        features = network.features(torch.tensor(arrays["x"]))
        close(features, arrays["features"], 1e-5)
        close(network.head(features), arrays["logits"], 1e-5)
        close(network(torch.tensor(arrays["x"])), arrays["logits"], 1e-5)


def test_the_published_checkpoint_loads(numbers: Any, tmp_path: Path) -> None:
    state = numbers.states("vnet_f4_c6_official.pth")
    torch.save(state, tmp_path / "published.pth")
    predictor, info = load_predictor(tmp_path / "published.pth")
    assert (info.num_classes, info.network.filters) == (6, 4)
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(predictor(x), vnet_for(state["A"]).eval()(x))


def test_sliding_window_label_map_is_identical(numbers: Any) -> None:
    arrays = numbers.arrays("sliding_window.npz")
    state = numbers.states("vnet_f4_c6_official.pth")
    model = MeanLogits(vnet_for(state["A"]), vnet_for(state["B"])).eval()
    z, y, x = (int(v) for v in arrays["patch"])
    probabilities = predict_probabilities(
        model, arrays["volume"][0, 0], (z, y, x), overlap=float(arrays["overlap"]), blending="uniform"
    )
    np.testing.assert_array_equal(probabilities.argmax(0).numpy(), arrays["labels"])


@pytest.fixture
def two_threads() -> Iterator[None]:
    """The numbers were made with two threads. How a sum is split among threads rounds it differently, and on these tiny
    inputs (four values per channel at the bottleneck's batch norm) a training step amplifies that a thousandfold."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_whole_training_steps(numbers: Any, two_threads: None) -> None:
    arrays = numbers.arrays("duomod_steps.npz")
    start = numbers.states("duomod_step_init.pth")
    end = numbers.states("duomod_step_final.pth")
    networks = iter([vnet_for(start["A"]), vnet_for(start["B"])])
    classes = len(arrays["dist0"])
    config = DuoModNetConfig.preset(
        "reference", {"consistency_weight": float(arrays["cps_w"]), "rampup": 0, "dafr_start": 100}
    )
    method = DuoModNet(
        config, MethodContext(classes, torch.tensor(arrays["dist0"]), lambda init="default", **_: next(networks))
    )
    method.rlm.distribution.copy_(torch.tensor(arrays["dist0"]))
    used_weights: list[tuple[Tensor, Tensor]] = []
    gains: list[Tensor] = []
    compute_weights, compute_gains = method._class_weights, method._gains

    def record_weights(za: Tensor, zb: Tensor) -> tuple[Tensor, Tensor]:
        used_weights.append(compute_weights(za, zb))  # type: ignore[arg-type]
        return used_weights[-1]

    def record_gains(za: Tensor, zb: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        result = compute_gains(za, zb, strength)
        gains.append(result[0])
        return result

    method._class_weights, method._gains = record_weights, record_gains  # type: ignore[method-assign, assignment]
    method.train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=3e-5)
    for t in steps(arrays, "xl"):
        batch = Batch(
            torch.tensor(arrays[f"xl{t}"]), torch.tensor(arrays[f"yl{t}"])[:, 0].long(), torch.tensor(arrays[f"xu{t}"])
        )
        output = method(batch, Progress(int(arrays[f"epoch{t}"]), total_steps=500, steps_per_epoch=1))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        close(output.parts["supervised"], arrays[f"sup{t}"], 1e-4)
        close(output.parts["cps"], arrays[f"cps{t}"], 1e-4)
        close(output.loss, arrays[f"total{t}"], 1e-4)
        close(used_weights[-1][0], arrays[f"w_ce{t}"], 1e-5)
        close(used_weights[-1][1], arrays[f"w_dice{t}"], 1e-5)
        close(method.rlm.distribution, arrays[f"dist_after{t}"], 1e-5)
        if f"gammaA{t}" in arrays:
            close(gains[-1], arrays[f"gammaA{t}"], 1e-5)
    for key, network in method.published_modules().items():
        state = network.state_dict()
        assert set(state) == set(end[key])
        for name, expected in end[key].items():
            close(state[name].float(), expected.float().numpy(), 1e-4)


def test_the_edition_is_the_full_set(golden: Path, edition: Any) -> None:
    for file in golden.glob("*.npz"):
        assert edition.identical(edition.arrays(edition.NUMBERS, file.name), edition.arrays(golden, file.name))
    for file in golden.glob("*.pth"):
        ours, theirs = (edition.states(folder, file.name) for folder in (edition.NUMBERS, golden))
        assert ours.keys() == theirs.keys() == {"A", "B"}
        for network in ours:
            assert ours[network].keys() == theirs[network].keys()
            assert all(torch.equal(ours[network][key], theirs[network][key]) for key in ours[network])


def test_every_file_of_the_edition_is_compared_and_all_are_small(edition: Any) -> None:
    files = list(edition.NUMBERS.iterdir())
    tests = Path(__file__).read_text(encoding="utf-8")
    assert files
    assert [file.name for file in files if f'"{file.stem}.' not in tests] == []
    assert sum(file.stat().st_size for file in files) <= 2_000_000
