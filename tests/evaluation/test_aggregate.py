"""Averages over seeds worked out by hand, the published text form, and what is said about gaps."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from duomod.cli import app
from duomod.errors import InputError
from duomod.evaluation.aggregate import Summary
from duomod.evaluation.results import build_frame, read_result, write_frame
from duomod.evaluation.settings import AggregateSettings
from duomod.evaluation.summary_files import run_aggregate, sources_path
from duomod.settings import checked
from duomod.workspace import read_json


def aggregate(method_base_dir: Path, **options: object) -> Path:
    return run_aggregate(checked(AggregateSettings, {"method_base_dir": method_base_dir, **options}))


def read_summary(path: Path) -> Summary:
    return checked(Summary, read_json(path))


#: Two seeds, two cases, two classes; class 2 is undefined in the second case.
DICE = ([[0.8, 0.5], [0.6, math.nan]], [[0.9, 0.7], [0.7, math.nan]])
ASD = ([[1.0, 3.0], [2.0, math.nan]], [[1.2, 4.0], [2.2, math.nan]])
CASES = ("a.nii.gz", "b.nii.gz")


def write_seeds(base: Path, suffix: str = ".csv") -> Path:
    for seed, (dice, asd) in enumerate(zip(DICE, ASD, strict=True)):
        folder = base / f"seed_{seed}"
        folder.mkdir(parents=True)
        frame = build_frame(CASES, {"Dice": np.asarray(dice), "ASD": np.asarray(asd)})
        write_frame(frame, folder / f"result{suffix}")
    return base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_seeds(tmp_path / "logs" / "mymethod")


class TestNumbers:
    def test_means_and_sample_std_over_seeds(self, base: Path) -> None:
        summary = read_summary(aggregate(base).with_suffix(".json"))
        dice = summary.metrics["Dice"]
        assert [s.mean for s in dice.per_class] == pytest.approx([0.75, 0.6])
        assert [s.std for s in dice.per_class] == pytest.approx([0.1 / math.sqrt(2), 0.2 / math.sqrt(2)])
        # Classes within a case first: seed 0 has cases 0.65 and 0.6, seed 1 has 0.8 and 0.7.
        assert dice.foreground.mean == pytest.approx((0.625 + 0.75) / 2)
        assert dice.foreground.std == pytest.approx(0.125 / math.sqrt(2))
        assert summary.metrics["ASD"].foreground.mean == pytest.approx((2.0 + 2.4) / 2)
        assert dice.tail is None
        # Over the seed-averaged cases 0.725 and 0.65.
        assert dice.quartiles == pytest.approx((0.66875, 0.6875, 0.70625))
        assert dice.class_quartiles[0] == pytest.approx((0.7, 0.75, 0.8))
        assert summary.worst_cases == (("b.nii.gz", "Dice 65.00 %"), ("a.nii.gz", "Dice 72.50 %"))

    def test_population_std_is_recorded(self, base: Path) -> None:
        target = aggregate(base, ddof=0)
        summary = read_summary(target.with_suffix(".json"))
        assert summary.metrics["Dice"].per_class[0].std == pytest.approx(0.05)
        assert summary.ddof == 0
        assert "ddof=0" in target.read_text()

    def test_per_case_values_averaged_over_seeds(self, base: Path) -> None:
        aggregate(base)
        table = read_result(base / "mymethod_aggregated_metrics.csv")
        np.testing.assert_allclose(table.values["Dice"], [[0.85, 0.6], [0.65, np.nan]])
        assert table.cases == CASES

    def test_the_tables_behind_it_are_named_relative_to_it(self, base: Path) -> None:
        aggregate(base)
        facts = json.loads(sources_path(base / "mymethod_aggregated_metrics.csv").read_text())
        assert facts["seeds"] == {"seed_0": "seed_0/result.csv", "seed_1": "seed_1/result.csv"}
        assert facts["method"] == "mymethod"

    def test_workbooks_give_the_same(self, base: Path, tmp_path: Path) -> None:
        other = write_seeds(tmp_path / "xlsx" / "mymethod", ".xlsx")
        one, two = (read_summary(aggregate(folder).with_suffix(".json")) for folder in (base, other))
        assert one.metrics["Dice"].foreground == two.metrics["Dice"].foreground

    def test_names_and_tail_of_a_data_set(self, tmp_path: Path) -> None:
        values = np.linspace(0.1, 0.85, 16)[:15]
        for seed in (0, 1):
            folder = tmp_path / "m" / f"seed_{seed}"
            folder.mkdir(parents=True)
            write_frame(
                build_frame(["a", "b"], {"Dice": np.stack([values, values + 0.1 * seed])}), folder / "result.csv"
            )
        target = aggregate(tmp_path / "m", dataset="amos22")
        summary = read_summary(target.with_suffix(".json"))
        tail = [values[i - 1] for i in (4, 5, 11, 12, 13)]
        assert summary.metrics["Dice"].tail.mean == pytest.approx(np.mean(tail) + 0.025)
        assert "Avg Tail Dice" in target.read_text()

    def test_a_seed_that_lacks_a_case_is_said(self, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        frame = pd.read_csv(base / "seed_1" / "result.csv")
        frame.iloc[:1].to_csv(base / "seed_1" / "result.csv", index=False)
        target = aggregate(base)
        assert "seed_1 has no b.nii.gz" in target.read_text()
        assert "seed_1 has no b.nii.gz" in capsys.readouterr().err
        table = read_result(base / "mymethod_aggregated_metrics.csv")
        np.testing.assert_allclose(table.values["Dice"][1], [0.6, np.nan])

    def test_infinite_values_count_as_undefined(self, base: Path) -> None:
        frame = pd.read_csv(base / "seed_0" / "result.csv")
        frame.loc[0, "ASD_Class1"] = np.inf
        frame.to_csv(base / "seed_0" / "result.csv", index=False)
        summary = read_summary(aggregate(base).with_suffix(".json"))
        assert summary.metrics["ASD"].per_class[0].mean == pytest.approx((2.0 + 1.7) / 2)

    def test_groups_of_a_case_table(self, base: Path, tmp_path: Path) -> None:
        (tmp_path / "cases.csv").write_text("case,scanner\na,one\nb,two\n")
        summary = read_summary(aggregate(base, group_table=tmp_path / "cases.csv").with_suffix(".json"))
        assert [(g.column, g.value, g.cases) for g in summary.groups] == [("scanner", "one", 1), ("scanner", "two", 1)]
        assert summary.groups[0].foreground["Dice"].mean == pytest.approx(0.725)
        (tmp_path / "cases.csv").write_text("case,scanner\na,one\n")
        with pytest.raises(InputError, match="no row for b"):
            aggregate(base, group_table=tmp_path / "cases.csv")


PUBLISHED = """\
📊 Aggregated Summary Results (Mean ± Std from 2 seeds)
Method Base Directory: ./logs/mymethod
======================================================================

🔷 Per-Class Metrics:
--------------------------------------------------
Class                  |           Dice (%) |            ASD (mm)
----------------------------------------------------------------
class_1                |     75.00 ±  7.07  |     1.600 ±  0.141
class_2                |     60.00 ± 14.14  |     3.500 ±  0.707

🔷 Overall & Tail Average Metrics:
--------------------------------------------------
Metric                 | Value (Mean ± Std)
--------------------------------------------------
Avg Foreground Dice    | 68.75 ± 8.84
Avg Foreground ASD     | 2.200 ± 0.283
"""


def test_the_text_has_the_published_form(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(base.parents[1])
    target = aggregate(Path("logs/mymethod"))
    assert target.read_text().startswith(PUBLISHED)
    app(["aggregate", "--method_base_dir", "logs/mymethod"], standalone_mode=False)
    assert PUBLISHED in capsys.readouterr().out


class TestProblems:
    def test_too_few_seeds_names_the_one_without_a_result(self, base: Path) -> None:
        (base / "seed_1" / "result.csv").unlink()
        with pytest.raises(InputError, match=r"2 seeds are needed .* 1 found \(seed_0\); seed_1 has no result\.csv"):
            aggregate(base)
        assert "seed_1 has no result.csv" in aggregate(base, min_seeds=1).read_text()

    def test_other_metrics_in_another_seed(self, base: Path) -> None:
        frame = pd.read_csv(base / "seed_1" / "result.csv")
        frame.drop(columns=["ASD_Class1", "ASD_Class2"]).to_csv(base / "seed_1" / "result.csv", index=False)
        with pytest.raises(InputError, match="evaluate both in the same way"):
            aggregate(base)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "cannot be read as a table"),
            ("x,y\n1,2\n", "no column 'Filename'"),
            ("Filename,y\na,2\n", "no column such as Dice_Class1"),
            ("Filename,Dice_Class1,Dice_Class3\na,1,2\n", "without a gap"),
            ("Filename,Dice_Class1\na,1\na,2\n", "appear twice: a"),
            ("Filename,Dice_Class1\na,good\n", "not a number"),
            ("Filename,Dice_Class1\n", "has no case"),
        ],
    )
    def test_broken_tables(self, base: Path, content: str, message: str) -> None:
        (base / "seed_0" / "result.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            aggregate(base)

    def test_no_folder_and_no_seeds(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            aggregate(tmp_path / "nothing")
        with pytest.raises(InputError, match="no folder matches 'seed_"):
            aggregate(tmp_path)


def test_case_ids_of_a_group_table_are_texts(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / "m" / f"seed_{seed}").mkdir(parents=True)
        (tmp_path / "m" / f"seed_{seed}" / "result.csv").write_text("Filename,Dice_Class1\n001.nii.gz,0.5\nNA,0.7\n")
    table = tmp_path / "groups.csv"
    table.write_text("case;scanner;age\n001;GE;1\nNA;;2\n007;GE;3\n")
    summary = read_summary(aggregate(tmp_path / "m", group_table=table).with_suffix(".json"))
    assert [(g.column, g.value, g.cases) for g in summary.groups] == [
        ("scanner", "(empty)", 1),
        ("scanner", "GE", 1),
        ("age", "1", 1),
        ("age", "2", 1),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,scanner\n1,GE\nNA,GE\n", r"no row for 001 in its first column, 'case'; 1 may have lost zeros"),
        ("case,scanner\n001,GE\nNA,GE\n001,Siemens\n", "the case 001 has more than one row"),
        ("case\n001\nNA\n", "has the one column 'case'"),
        ("case,scanner\n001,GE\nNA,GE\n,GE\n", "row 4: no case in the first column"),
    ],
)
def test_group_tables_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    for seed in (0, 1):
        (tmp_path / "m" / f"seed_{seed}").mkdir(parents=True)
        (tmp_path / "m" / f"seed_{seed}" / "result.csv").write_text("Filename,Dice_Class1\n001.nii.gz,0.5\nNA,0.7\n")
    (tmp_path / "groups.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        aggregate(tmp_path / "m", group_table=tmp_path / "groups.csv")


def test_many_cases_and_a_column_of_ages_take_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        (tmp_path / "m" / f"seed_{seed}").mkdir(parents=True)
        rows = "".join(f"case_{i},0.{i:05d}\n" for i in range(30_000 - seed))
        (tmp_path / "m" / f"seed_{seed}" / "result.csv").write_text("Filename,Dice_Class1\n" + rows)
    (tmp_path / "groups.csv").write_text("case,part,age\n" + "".join(f"case_{i},{i % 2},{i}\n" for i in range(30_000)))
    began = time.process_time()
    summary = read_summary(aggregate(tmp_path / "m", group_table=tmp_path / "groups.csv").with_suffix(".json"))
    assert time.process_time() - began < 10
    assert [group.cases for group in summary.groups] == [15_000, 15_000]
    assert "column 'age' has 30000 different values; no groups of it are made" in capsys.readouterr().err


def test_how_far_unfinished_seeds_have_come_is_said(base: Path) -> None:
    for seed, content in {
        2: ["ckpts/last.pth"],
        3: ["ckpts/last.pth", "train_manifest.json"],
        4: ["predictions/prediction.json", "predictions/a.nii.gz"],
        5: ["predictions/prediction.json", "predictions/a.nii.gz", "predictions/b.nii.gz"],
        6: [".result_cases/a.nii.gz.json"],
        7: ["other"],
    }.items():
        for name in content:
            path = base / f"seed_{seed}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"cases": {"a": "", "b": ""}}' if name.endswith("prediction.json") else "")
    missing = read_summary(aggregate(base).with_suffix(".json")).missing
    assert missing == (
        "seed_2 has no result.csv or result.xlsx (its training has not ended)",
        "seed_3 has no result.csv or result.xlsx (trained and not predicted)",
        "seed_4 has no result.csv or result.xlsx (its prediction has not ended: 1 of 2 cases)",
        "seed_5 has no result.csv or result.xlsx (predicted and not evaluated)",
        "seed_6 has no result.csv or result.xlsx (its evaluation has not ended: 1 cases are scored)",
        "seed_7 has no result.csv or result.xlsx",
    )


def test_a_copied_seed_is_doubted(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 4))
    for seed in (0, 1):
        (tmp_path / f"seed_{seed}").mkdir()
        write_frame(build_frame(list("abcde"), {"Dice": values}), tmp_path / f"seed_{seed}" / "result.csv")
    assert "has the values of" in aggregate(tmp_path).read_text()


def test_left_out_rows_are_in_the_summary(base: Path) -> None:
    path = base / "seed_0" / "result.csv"
    path.write_text(path.read_text() + "mean,0.7,0.6,1.5,2\n")
    target = aggregate(base)
    assert read_summary(target.with_suffix(".json")).metrics["Dice"].foreground.mean == pytest.approx(0.6875)
    assert "'mean' (row 4) left out: no case but an average." in target.read_text()
