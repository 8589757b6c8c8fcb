"""Methods from outside: the one in docs/add-a-method.md, as a package and as a single file; and broken ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from duomod.config import NetworkConfig
from duomod.datasets.grid import Geometry
from duomod.datasets.index import FORMAT
from duomod.datasets.spec import DatasetSpec
from duomod.errors import InputError
from duomod.methods import registry
from duomod.methods.conformance import check_method
from duomod.networks import registry as networks
from duomod.networks.conformance import check_network
from duomod.preprocessing.store import CaseRecord, case_files
from duomod.settings import checked
from duomod.training.build import build_method, with_networks
from duomod.training.checkpoint import read_checkpoint, save_checkpoint
from duomod.training.load import load_predictor
from duomod.training.model_info import ModelInfo
from duomod.training.settings import TrainSettings
from duomod.training.setup import run_train
from duomod.workspace import sha256

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
NETWORK_PAGE = PAGE.with_name("add-a-network.md")


def block(language: str, page: Path = PAGE) -> str:
    """A page's only code block in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed by pip into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(block("toml"), encoding="utf-8")
    (source / "duomod_ict").mkdir()
    (source / "duomod_ict" / "__init__.py").write_text(block("python"), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run([*pip, *options, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_the_page_stays_short() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 100


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preprocessed data set of six cases: a bright box in each."""
    folder = tmp_path_factory.mktemp("data")
    spec = DatasetSpec(name="boxes", title="Boxes", classes=["background", "box"], patch=(16, 16, 16))
    side, rng, records = 18, np.random.default_rng(0), []
    grid = Geometry(size=(side,) * 3, spacing=(2.0,) * 3, origin=(0.0,) * 3, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    for number in range(6):
        case = f"box_{number:04d}"
        label = np.zeros((side,) * 3, np.uint8)
        corner = 2 + number
        label[corner : corner + 7, corner : corner + 7, 4:12] = 1
        image = (rng.normal(0, 20, label.shape) + 150 * label).astype(np.int16)
        files = case_files(folder, case, "Tr", labelled=True)
        for file in files.values():
            file.parent.mkdir(exist_ok=True)
        np.save(files["image"], image)
        np.save(files["label"], label)
        everywhere = np.argwhere(label >= 0).astype(np.int32)
        np.savez(files["coords"], **{"1": np.argwhere(label == 1).astype(np.int32), "-1": everywhere})
        record = CaseRecord(
            case_id=case,
            role="Tr",
            labelled=True,
            modality="CT",
            shape=label.shape,
            original=grid,
            working=grid,
            voxels=tuple(int(n) for n in np.bincount(label.ravel())),
            intensity={},
            image_sha256="",
            label_sha256="",
            source=f"imagesTr/{case}.nii.gz",
        )
        records.append(record.model_dump(mode="json"))
    index = {"format": FORMAT, "spec": spec.model_dump(mode="json"), "cases": records}
    (folder / "dataset.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def train(data: Path, run: Path, **options: object) -> Path:
    """Six training steps with a tiny network."""
    settings = {
        "max_epochs": 2,
        "steps_per_epoch": 3,
        "network": {"filters": 4, "levels": 3},
        "validation": {"every_epochs": 2},
    }
    always = {"gpu": "", "preset": "compact", "settings": settings, "labeled_count": 2}
    return run_train(checked(TrainSettings, {"data_path": data, "output_dir": run, **always, **options}))


def test_a_separate_package_adds_a_method_that_conforms_and_trains(
    installed: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ict" not in registry.METHODS.names()
    monkeypatch.syspath_prepend(str(installed))
    assert "ict" in registry.METHODS.names()
    assert not [r for r in check_method(registry.METHODS.load("ict")) if not r.passed]
    best = train(data, tmp_path / "run", model="ict", method_settings={"spread": 0.5})
    predictor, info = load_predictor(best)
    assert info.method == "ict"
    assert info.method_settings["spread"] == 0.5
    assert predictor(torch.rand(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


def test_a_single_file_trains_as_a_plugin_and_predicts_without_it(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "ict.py"
    file.write_text(block("python"), encoding="utf-8")
    best = train(data, tmp_path / "run", model="ict", plugin=file, method_settings={"class_weights": "rlm"})
    predictor, info = load_predictor(best)
    assert (info.plugin, info.plugin_sha256) == ("ict.py", sha256(file))
    patch = torch.rand(1, 1, 16, 16, 16)
    with_it, _ = load_predictor(best, plugin=file)
    assert predictor(patch).shape == (1, 2, 16, 16, 16)
    assert torch.equal(predictor(patch), with_it(patch))


OWN_PREDICTOR = """
class Sharp(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 2 * self.network(x)


class Mine(ICT):
    def predictor(self):
        return Sharp(self.teacher.network)


del ICT
"""


def test_a_plugin_s_own_predictor_needs_the_plugin(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, marker = tmp_path / "mine.py", tmp_path / "was_run"
    file.write_text(f"{block('python')}\n{OWN_PREDICTOR}", encoding="utf-8")
    best = train(data, tmp_path / "run", model="mine", plugin=file)
    assert load_predictor(best, plugin=file)[1].method == "mine"
    file.write_text(f"open({str(marker)!r}, 'w')\n{file.read_text(encoding='utf-8')}", encoding="utf-8")
    with pytest.raises(InputError, match=r"'mine' was trained with the plug-in mine\.py.*--plugin"):
        load_predictor(best)
    assert not marker.exists()
    assert "not the same file" not in capsys.readouterr().err
    load_predictor(best, plugin=file)
    assert marker.exists()
    assert "not the same file" in capsys.readouterr().err


@pytest.mark.parametrize("plugin", ["evil.py", "/tmp/evil.py", "../evil.py"])
def test_a_plugin_that_a_checkpoint_names_is_never_run(
    plugin: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "was_run"
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "evil.py").write_text(
            f"open({str(marker)!r}, 'w')\n"
            "from duomod.methods.supervised import Supervised\nclass E(Supervised): pass\n",
            encoding="utf-8",
        )
    monkeypatch.chdir(folder)
    best = train(data, tmp_path / "run", model="supervised")
    content = torch.load(best, weights_only=True)
    named = plugin.replace("/tmp", str(tmp_path))
    info = json.dumps({**json.loads(content["duomod"]), "plugin": named})
    torch.save({**content, "duomod": info}, best)
    with pytest.raises(InputError, match=r"plug-in evil\.py"):
        load_predictor(best)
    assert not marker.exists()
    load_predictor(best, plugin=folder / "evil.py")  # what the user names is run
    assert marker.exists()


def test_a_plugin_given_to_a_model_without_one_is_refused_unrun(data: Path, tmp_path: Path) -> None:
    file, marker = tmp_path / "mine.py", tmp_path / "was_run"
    file.write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    best = train(data, tmp_path / "run", model="supervised")
    with pytest.raises(InputError, match="leave --plugin out"):
        load_predictor(best, plugin=file)
    assert not marker.exists()


@pytest.mark.parametrize("method", ["cps", "dst", "dycon", "urpc", "uamt", "skcdf", "slcnet"])
def test_what_predicts_a_method_is_recognised_as_stock(method: str, tmp_path: Path) -> None:
    """A plug-in that only re-names a method of duomod's predicts without it, to the bit; slcnet's pair is its own."""
    file = tmp_path / "mine.py"
    origin = registry.METHODS.load(method)
    file.write_text(
        f"from {origin.__module__} import {origin.__name__} as Base\nclass Mine(Base): pass\n", encoding="utf-8"
    )
    network = NetworkConfig(name="unet", filters=4, levels=3, norm="instance")
    info = with_networks(ModelInfo(method="mine", network=network, num_classes=3, patch=(16, 16, 16)), file)
    built = build_method(info, plugin=file)
    save_checkpoint(tmp_path / "a.pth", built, info)
    if method == "slcnet":
        with pytest.raises(InputError, match="plug-in"):
            load_predictor(tmp_path / "a.pth")
        return
    patch = torch.rand(1, 1, 16, 16, 16)
    predictor, _ = load_predictor(tmp_path / "a.pth")
    with torch.inference_mode():
        assert torch.equal(predictor(patch), built.predictor().eval()(patch))


def test_the_page_s_settings_are_a_methods(tmp_path: Path) -> None:
    file = tmp_path / "ict.py"
    file.write_text(block("python"), encoding="utf-8")
    cls = registry.load_plugin(file)
    assert cls.info.title == "ICT"
    assert cls.Config.preset("reference").model_dump()["decay"] == 0.999


def lay_metadata(site: Path, name: str, group: str, target: str) -> None:
    """Lay a package's metadata into a folder as pip does."""
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[duomod.{group}]\n{name} = {target}\n", encoding="utf-8")


def broken_package(site: Path, name: str, module: str | None, target: str) -> None:
    """Lay a package's metadata, and its module if it has one."""
    lay_metadata(site, name, "methods", target)
    if module is not None:
        (site / f"{name}_module.py").write_text(module, encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "target", "reason"),
    [
        (None, "no_such_module_at_all:Method", "no_such_module_at_all"),
        ("raise RuntimeError('half written')\n", "wreck_module:Method", "half written"),
        ("Method = 3\n", "wreck_module:Method", "subclass"),
        ("Method = 3\n", "wreck_module:Other", "Other"),
    ],
    ids=["missing module", "fails on import", "not a method", "missing class"],
)
def test_a_broken_package_is_named_and_stops_nothing_else(
    module: str | None,
    target: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken_package(tmp_path, "wreck", module, target)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wreck_module", raising=False)
    found = registry.METHODS.available()
    assert "wreck" not in found
    assert set(found) == set(registry.builtin_names())
    message = capsys.readouterr().err
    assert "wreck" in message
    assert reason in message
    with pytest.raises(InputError, match="wreck"):
        registry.METHODS.load("wreck")
    assert registry.METHODS.load("cps").info.title == "CPS"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library_at_all\n", "no_such_library_at_all"),
        ("def broken(:\n", "invalid syntax"),
        ("x = 1\n", "exactly one subclass of Method, found 0"),
        (
            "from duomod.methods.base import Method\nclass Mine(Method):\n    def forward(self, *step): ...\n",
            "Mine lacks predictor, published_modules",
        ),
    ],
    ids=["missing library", "syntax error", "no method", "half a method"],
)
def test_a_broken_file_is_named(code: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code, encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.py") as caught:
        registry.load_plugin(file)
    assert reason in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.py: no such Python file"):
        registry.load_plugin(tmp_path / "nowhere.py")


class TestNetworks:
    """The network of docs/add-a-network.md, as a file and as a package."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "two_levels.py"
        path.write_text(block("python", NETWORK_PAGE), encoding="utf-8")
        return path

    def test_the_page_s_network_conforms(self, file: Path) -> None:
        assert not [r for r in check_network(networks.only_network(file)) if not r.passed]

    def test_a_file_with_a_network_trains_any_method(self, file: Path, data: Path, tmp_path: Path) -> None:
        best = train(data, tmp_path / "run", model="cps", plugin=file)
        content = read_checkpoint(best)
        with pytest.raises(InputError, match=r"plug-in two_levels\.py"):
            load_predictor(best)
        predictor, info = load_predictor(best, plugin=file)
        assert (info.method, info.network.name, info.networks) == ("cps", "TwoLevels", "2 x TwoLevels")
        assert {key.split(".")[0] for key in content["A"]} == {"fine", "coarse", "up", "join", "head"}
        assert predictor(torch.rand(1, 1, 9, 16, 16)).shape == (1, 2, 9, 16, 16)

    def test_a_file_with_both_trains_its_method_with_its_network(self, file: Path, data: Path, tmp_path: Path) -> None:
        both = tmp_path / "both.py"
        both.write_text(f"{file.read_text(encoding='utf-8')}\n\n{block('python')}", encoding="utf-8")
        _, info = load_predictor(train(data, tmp_path / "run", model="ict", plugin=both), plugin=both)
        assert info.networks == "TwoLevels + teacher"

    def test_what_the_network_cannot_offer_is_refused_before_anything_is_written(
        self, file: Path, data: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=r"the network TwoLevels cannot be built with several decoders.*unet"):
            train(data, tmp_path / "run", model="dst", plugin=file)
        assert not (tmp_path / "run").exists()

    def test_a_package_adds_a_network(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lay_metadata(file.parent, "two_levels", "networks", "two_levels:TwoLevels")
        assert "two_levels" not in networks.NETWORKS.names()
        monkeypatch.syspath_prepend(str(file.parent))
        assert "two_levels" in networks.NETWORKS.names()
        built = networks.build_network(NetworkConfig(name="two_levels", filters=4), 1, 3)
        assert built.description == "TwoLevels"
        sys.modules.pop("two_levels")

    def test_a_broken_package_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lay_metadata(tmp_path, "wreck", "networks", "no_such_module_at_all:Network")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(InputError, match="network 'wreck' from the package entry point"):
            networks.NETWORKS.load("wreck")

    def test_a_file_with_neither_is_named(self, data: Path, tmp_path: Path) -> None:
        file = tmp_path / "neither.py"
        file.write_text("x = 1\n", encoding="utf-8")
        with pytest.raises(InputError, match="exactly one subclass of Method, found 0"):
            train(data, tmp_path / "run", model="cps", plugin=file)
