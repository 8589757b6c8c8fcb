"""What commands print: tables with the path of the result last, or one JSON document and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.cli import app, main

Capture = pytest.CaptureFixture[str]


def shown(capsys: Capture, *arguments: str | Path) -> str:
    app([str(argument) for argument in arguments], standalone_mode=False)
    return capsys.readouterr().out


def document(capsys: Capture, *arguments: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(shown(capsys, *arguments, "--json"))
    return content


def label_maps(folder: Path, shift: int) -> Path:
    folder.mkdir(parents=True)
    for case, place in (("a", 2), ("b", 4)):
        array = np.zeros((12, 12, 12), np.uint8)
        array[place + shift : place + 4 + shift, 2:6, 2:6] = 1
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{case}.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods of two evaluated seeds."""
    root = tmp_path_factory.mktemp("methods")
    truth = label_maps(root / "truth", 0)
    for method, shifts in (("near", (0, 1)), ("far", (2, 3))):
        for seed, shift in enumerate(shifts):
            run = root / method / f"seed_{seed}"
            folders = [str(label_maps(run / "predictions", shift)), str(truth)]
            app(
                ["evaluate", *folders, "--output_csv", str(run / "result.csv"), "--workers", "1"], standalone_mode=False
            )
        app(["aggregate", "--method_base_dir", str(root / method)], standalone_mode=False)
    return root


def test_evaluate(methods: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["evaluate", methods / "near/seed_1/predictions", methods / "truth", "--output_csv", tmp_path / "r.csv"]
    table = shown(capsys, *command).splitlines()
    assert table[0].startswith("Class")
    assert table[-1] == str(tmp_path / "r.csv")
    found = document(capsys, *command)
    assert found["result"] == str(tmp_path / "r.csv")
    assert found["values"]["Dice"] == {"a.nii.gz": [0.75], "b.nii.gz": [0.75]}
    assert found["conventions"]["empty_policy"] == "default"


def test_evaluate_writes_undefined_values_as_null(tmp_path: Path, capsys: Capture) -> None:
    maps = label_maps(tmp_path / "maps", 0)
    found = document(capsys, "evaluate", maps, maps, "--num_classes", "3", "--output_csv", tmp_path / "r.csv")
    assert found["values"]["Dice"]["a.nii.gz"] == [1.0, None]


def test_aggregate_and_its_tables(methods: Path, tmp_path: Path, capsys: Capture) -> None:
    outputs = ["--table", tmp_path / "means.csv", "--table", tmp_path / "means.md"]
    table = shown(capsys, "aggregate", "--method_base_dir", methods / "near", *outputs).splitlines()
    assert any("Avg Foreground Dice" in line for line in table)
    assert table[-1] == str(methods / "near/near_summary_results.txt")
    assert "| class_1 |" in (tmp_path / "means.md").read_text()
    assert (tmp_path / "means.csv").is_file()
    found = document(capsys, "aggregate", "--method_base_dir", methods / "near")
    assert found["result"] == table[-1]
    assert found["metrics"]["Dice"]["foreground"]["mean"] == pytest.approx(0.875)


def test_compare(methods: Path, tmp_path: Path, capsys: Capture) -> None:
    tables = [methods / name / f"{name}_aggregated_metrics.csv" for name in ("near", "far")]
    command = ["compare", *tables, "--baseline", "far", "-o", tmp_path / "out", "--resamples", "100"]
    assert shown(capsys, *command).splitlines()[-1] == str(tmp_path / "out/comparison.txt")
    found = document(capsys, *command)
    assert found["result"] == str(tmp_path / "out/comparison.txt")
    assert {comparison["method"] for comparison in found["comparisons"]} == {"near"}


def test_methods(capsys: Capture) -> None:
    assert shown(capsys, "methods").startswith("method ")
    names = [method["name"] for method in document(capsys, "methods")["methods"]]
    assert names == sorted(names)
    assert "duomodnet" in names


def test_check_method_passes_and_fails_with_an_exit_code(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duomod.methods import conformance

    monkeypatch.setattr(conformance, "RULES", conformance.RULES[:1])
    monkeypatch.setattr(conformance.check_method, "__defaults__", (None, conformance.RULES[:1]))
    assert shown(capsys, "check-method", "supervised") == "passed  finite_loss\n"
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from duomod.methods.supervised import Supervised\n"
        "class Bad(Supervised):\n    def forward(self, batch, progress):\n        raise ValueError('no')\n"
    )
    with pytest.raises(SystemExit) as caught:
        main(["check-method", "--plugin", str(plugin), "--json"])
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rules"] == [{"rule": "finite_loss", "passed": False, "message": "ValueError: no"}]
    assert "1 of 1 rules failed: finite_loss" in printed.err


@pytest.mark.parametrize("arguments", [["check-method"], ["check-method", "cps", "--plugin", "x.py"]])
def test_check_method_needs_one_method(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--plugin" in capsys.readouterr().err


def test_the_version(capsys: Capture) -> None:
    assert shown(capsys, "--version").startswith("duomod ")
