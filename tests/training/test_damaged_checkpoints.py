"""Checkpoints from strangers and from broken disks: one line that names the file, nothing run, nothing allocated."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from duomod.config import NetworkConfig
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.training.build import build_method, with_networks
from duomod.training.checkpoint import RESUME_KEY, read_checkpoint, save_checkpoint
from duomod.training.load import load_predictor, load_weights, resumed_state
from duomod.training.model_info import INFO_KEY, ModelInfo
from duomod.training.optim import restore_optimizer
from duomod.workspace import sha256

Content = dict[str, Any]

NETWORK = NetworkConfig(filters=4, levels=2, norm="instance")
INFO = with_networks(
    ModelInfo(
        method="cps",
        network=NETWORK,
        num_classes=3,
        patch=(8, 8, 8),
        spec=DatasetSpec(name="toy", classes=("background", "a", "b")),
        step=5,
    )
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "good.pth"
    save_checkpoint(path, build_method(INFO), INFO)
    return path


@pytest.fixture
def changed(good: Path, tmp_path: Path) -> Callable[[Callable[[Content], object]], Path]:
    """Write the good checkpoint with a change of its content."""

    def change(apply: Callable[[Content], object]) -> Path:
        content = torch.load(good, weights_only=True)
        apply(content)
        torch.save(content, tmp_path / "bad.pth")
        return tmp_path / "bad.pth"

    return change


def said(**facts: object) -> Callable[[Content], object]:
    """Change the description of the model."""
    return lambda content: content.update({INFO_KEY: json.dumps({**json.loads(content[INFO_KEY]), **facts})})


def of_spec(**facts: object) -> Callable[[Content], object]:
    return lambda content: said(spec={**json.loads(content[INFO_KEY])["spec"], **facts})(content)


def of_network(**facts: object) -> Callable[[Content], object]:
    return said(network={**NETWORK.model_dump(), **facts})


def first(content: Content) -> str:
    return str(next(iter(content["A"])))


WRONG: dict[str, Callable[[Content], object]] = {
    "weights a list": lambda c: c.update(A=[1]),
    "weights a tensor": lambda c: c.update(A=torch.ones(2)),
    "weights a number": lambda c: c.update(A=3),
    "weights nested": lambda c: c.update(A={"x": {"y": c["A"]}}),
    "a weight a text": lambda c: c["A"].update({first(c): "x"}),
    "a weight a list": lambda c: c["A"].update({first(c): [1.0]}),
    "a weight without a name": lambda c: c["A"].update({7: torch.ones(1)}),
    "a weight missing": lambda c: c["A"].pop(first(c)),
    "a weight too many": lambda c: c["A"].update(more=torch.ones(1)),
    "a weight of another shape": lambda c: c["A"].update({first(c): torch.ones(3)}),
    "a weight of no shape": lambda c: c["A"].update({first(c): torch.tensor(1.0)}),
    "a weight of a billion values": lambda c: c["A"].update({first(c): torch.zeros(1).expand(10**9)}),
    "a complex weight": lambda c: c["A"].update({first(c): c["A"][first(c)].to(torch.complex64)}),
    "a sparse weight": lambda c: c["A"].update({first(c): c["A"][first(c)].flatten(1).to_sparse()}),
    "NaN": lambda c: c["B"][first(c)].view(-1)[1].fill_(torch.nan),
    "infinity": lambda c: c["B"][first(c)].fill_(torch.inf),
    "a network missing": lambda c: c.pop("B"),
    "info no text": lambda c: c.update({INFO_KEY: 3}),
    "info a tensor": lambda c: c.update({INFO_KEY: torch.ones(1)}),
    "info no JSON": lambda c: c.update({INFO_KEY: "{"}),
    "info a list": lambda c: c.update({INFO_KEY: "[1]"}),
    "info nested": lambda c: c.update({INFO_KEY: "[" * 100_000}),
    "info empty": lambda c: c.update({INFO_KEY: "{}"}),
    "info with a field too many": said(code="x.py"),
    "info a huge number": lambda c: c.update({INFO_KEY: c[INFO_KEY].replace('"step":5', '"step":1' + "0" * 5000)}),
    "patch 0": said(patch=[0, 16, 16]),
    "patch negative": said(patch=[-5, 16, 16]),
    "patch huge": said(patch=[100_000] * 3),
    "patch of 8 billion voxels": said(patch=[2000] * 3),
    "patch of 2 numbers": said(patch=[16, 16]),
    "patch fractional": said(patch=[8.5, 16, 16]),
    "classes negative": said(num_classes=-3),
    "classes 1": said(num_classes=1),
    "classes a billion": said(num_classes=10**9),
    "classes not those of the weights": said(num_classes=4, spec=None),
    "classes not those of the data": said(num_classes=4),
    "channels 0": said(in_channels=0),
    "channels a million": said(in_channels=10**6),
    "channels not those of the weights": said(in_channels=2),
    "filters 0": of_network(filters=0),
    "filters a million": of_network(filters=10**6),
    "filters ten thousand": of_network(filters=10**4),
    "filters not those of the weights": of_network(filters=8),
    "levels a hundred": of_network(levels=100),
    "norm unknown": of_network(norm="x"),
    "network unknown": of_network(name="../x"),
    "network of another kind": of_network(name="unet"),
    "method unknown": said(method="../../x"),
    "method empty": said(method=""),
    "method not a text": said(method=3),
    "method of other weights": said(method="supervised"),
    "method settings unknown": said(method_settings={"x": 1}),
    "method settings wrong": said(method_settings={"consistency_weight": "x"}),
    "step negative": said(step=-1),
    "plugin not a text": said(plugin=3),
    "predictor without networks": said(plugin="x.py", predictor={"networks": []}),
    "predictor of unknown weights": said(
        plugin="x.py", predictor={"networks": [{"key": "C", "form": "plain", "in_channels": 1}]}
    ),
    "predictor of a huge input": said(
        plugin="x.py", predictor={"networks": [{"key": "A", "form": "plain", "in_channels": 10**9}]}
    ),
    "modality unknown": said(modalities=["PET"]),
    "spacing 0": of_spec(spacing=[0, 1, 1]),
    "spacing absurd": of_spec(spacing=[1e-9, 1, 1]),
    "spacing infinite": of_spec(spacing=[1e308, 1, 1]),
    "window turned round": of_spec(window=[100, -100]),
    "classes without names": of_spec(classes=[]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_content_is_one_line(name: str, changed: Callable[[Callable[[Content], object]], Path]) -> None:
    path = changed(WRONG[name])
    with pytest.raises(InputError) as caught:
        load_predictor(path)
    assert len(caught.value.problems) <= 4
    for line in caught.value.problems:
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
        assert len(line) < 600


@pytest.mark.parametrize("numbers", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_refused(
    numbers: str, changed: Callable[[Callable[[Content], object]], Path]
) -> None:
    path = changed(lambda c: c.update({INFO_KEY: c[INFO_KEY].replace('"spacing":[1.5', f'"spacing":[{numbers}')}))
    with pytest.raises(InputError, match=r"bad\.pth: its description of the model is damaged"):
        load_predictor(path)


def test_the_good_one_loads(good: Path) -> None:
    network, info = load_predictor(good)
    assert info == INFO
    assert network(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_every_flipped_bit_of_a_record_is_noticed(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    path = tmp_path / "flipped.pth"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        places = [record.header_offset + 200 + record.file_size // 2 for record in archive.infolist()]
    noticed, whole = [], read_checkpoint(good)
    for place in [*places, *range(900, len(data), len(data) // 60)]:
        flipped = bytearray(data)
        flipped[min(place, len(data) - 1)] ^= 16
        path.write_bytes(flipped)
        try:
            loaded = read_checkpoint(path)
        except InputError as error:
            noticed.append(str(error))
        else:  # padding between records, which nobody reads
            assert [*loaded["A"]] == [*whole["A"]]
            assert all(torch.equal(loaded["A"][name], whole["A"][name]) for name in whole["A"])
    assert len(noticed) > 40
    assert all("flipped.pth: " in text for text in noticed)


def test_every_length_is_one_line(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut\.pth: not a checkpoint"):
            read_checkpoint(path)


def test_records_that_grow_in_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    with pytest.raises(InputError, match=r"bomb\.pth: .*compressed"):
        read_checkpoint(path)


def test_the_hash_is_that_of_the_bytes_that_were_loaded(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(good.read_bytes())
    loaded = read_checkpoint(path)
    path.write_bytes(b"another file by now")
    assert loaded.sha256 == sha256(good)


RESUME: dict[str, Any] = {"method": {}, "optimizer": {}, "scaler": {}, "state": {"step": 3}}


@pytest.mark.parametrize(
    "resume",
    [
        [1],
        {},
        {**RESUME, "optimizer": 3},
        {**RESUME, "method": {"x": "y"}},
        {**RESUME, "method": {"x": torch.tensor([1.0, torch.nan])}},
        {**RESUME, "state": {"step": -1}},
        {**RESUME, "state": {"step": "x"}},
        {**RESUME, "state": {}},
    ],
)
def test_a_state_that_cannot_be_resumed_is_one_line(
    resume: object, changed: Callable[[Callable[[Content], object]], Path]
) -> None:
    path = changed(lambda c: c.update({RESUME_KEY: resume}))
    with pytest.raises(InputError, match=r"bad\.pth: the state to go on from is damaged.*") as caught:
        resumed_state(path, INFO)
    assert len(caught.value.problems) == 1


def test_a_sound_state_is_given_back(changed: Callable[[Callable[[Content], object]], Path]) -> None:
    assert resumed_state(changed(lambda c: c.update({RESUME_KEY: RESUME})), INFO) == RESUME
    assert resumed_state(changed(lambda c: None), INFO) is None


def _stepped(name: str) -> torch.optim.Optimizer:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    kinds = {
        "sgd": torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1),
        "adamw": torch.optim.AdamW([weight], lr=0.1),
    }
    weight.grad = torch.ones_like(weight)
    kinds[name].step()
    return kinds[name]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimizer_takes_only_a_state_of_its_kind(name: str) -> None:
    good = _stepped(name).state_dict()
    restore_optimizer(_stepped(name), copy.deepcopy(good))
    remembered = next(iter(good["state"][0]))
    wrong: list[dict[str, Any]] = [
        {**good, "state": [1]},
        {**good, "state": {0: 3}},
        {**good, "state": {0: {remembered: torch.ones(2)}}},
        {**good, "state": {0: {remembered: "x"}}},
        {**good, "param_groups": [{**good["param_groups"][0], "weight_decay": "x"}]},
        {**good, "param_groups": [{k: v for k, v in good["param_groups"][0].items() if k != "lr"}]},
        {**good, "param_groups": 3},
    ]
    for state in wrong:
        with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
            restore_optimizer(_stepped(name), copy.deepcopy(state))


def test_a_buffer_that_begins_with_infinity_may_keep_it() -> None:
    class Lowest(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("lowest", torch.tensor(torch.inf))
            self.weight = torch.nn.Parameter(torch.ones(2))

    module = Lowest()
    load_weights({"A": module}, {"A": module.state_dict()}, Path("x.pth"))
    bad = {**module.state_dict(), "weight": torch.tensor([torch.inf, 0.0])}
    with pytest.raises(InputError, match=r"x\.pth: the weights 'A' are not finite \(1 tensors, the first is weight\)"):
        load_weights({"A": Lowest()}, {"A": bad}, Path("x.pth"))
