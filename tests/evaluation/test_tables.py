"""One table of several methods, in every format."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from duomod.errors import InputError
from duomod.evaluation.results import build_frame, write_frame
from duomod.evaluation.settings import AggregateOptions
from duomod.evaluation.tables import (
    as_latex,
    as_markdown,
    latex_escaped,
    method_table,
    side_by_side,
    summaries_of,
    write_tables,
)

#: Dice and ASD of class 1 per method, the same in both cases; seeds differ by ±0.01 and ±0.1.
METHODS = {"a_1": (0.80, 2.0), "b%": (0.90, 3.0), "c": (0.70, math.nan)}


@pytest.fixture
def bases(tmp_path: Path) -> list[Path]:
    for name, (dice, asd) in METHODS.items():
        for seed, sign in enumerate((-1, 1)):
            values = {"Dice": np.full((2, 1), dice + sign * 0.01), "ASD": np.full((2, 1), asd + sign * 0.1)}
            folder = tmp_path / name / f"seed_{seed}"
            folder.mkdir(parents=True)
            write_frame(build_frame(["x", "y"], values), folder / "result.csv")
    return [tmp_path / name for name in METHODS]


def test_latex_marks_best_bold_and_second_underlined_in_the_right_direction(bases: list[Path]) -> None:
    lines = as_latex(method_table(summaries_of(bases))).splitlines()
    rows = [line for line in lines if line.startswith("class")]
    assert rows == [
        r"class\_1 & $\underline{80.00 \pm 1.41}$ & $\mathbf{90.00 \pm 1.41}$ & $70.00 \pm 1.41$ \\",
        r"class\_1 & $\mathbf{2.000 \pm 0.141}$ & $\underline{3.000 \pm 0.141}$ & n/a \\",
    ]
    assert r" & a\_1 & b\% & c \\" in lines
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrr}", r"\end{tabular}"):
        assert rule in lines, rule


def test_values_that_look_equal_share_no_mark(bases: list[Path]) -> None:
    for seed in (0, 1):
        (bases[0] / f"seed_{seed}" / "result.csv").write_bytes((bases[1] / f"seed_{seed}" / "result.csv").read_bytes())
    table = as_markdown(method_table(summaries_of(bases)))
    assert "**90.00" not in table
    assert "<u>" not in table


def test_markdown(bases: list[Path]) -> None:
    lines = as_markdown(method_table(summaries_of(bases))).splitlines()
    assert lines[:3] == ["| | a_1 | b% | c |", "|---|---:|---:|---:|", "| **Dice (%)** | | | |"]
    assert lines[3] == "| class_1 | <u>80.00 ± 1.41</u> | **90.00 ± 1.41** | 70.00 ± 1.41 |"


def test_numbers_in_csv_and_workbook(bases: list[Path], tmp_path: Path) -> None:
    outputs = [tmp_path / f"table{suffix}" for suffix in (".txt", ".md", ".tex", ".csv", ".xlsx")]
    write_tables(summaries_of(bases), outputs)
    assert all(path.stat().st_size for path in outputs)
    csv, xlsx = pd.read_csv(outputs[3]), pd.read_excel(outputs[4])
    pd.testing.assert_frame_equal(csv, xlsx, check_dtype=False)
    assert csv.loc[0, "b% mean"] == pytest.approx(90.0)
    assert csv.loc[0, "b% std"] == pytest.approx(100 * 0.01 * math.sqrt(2))


def test_side_by_side_lists_every_class_and_average(bases: list[Path]) -> None:
    text = side_by_side(bases)
    assert text.splitlines()[0].split() == ["Mean", "±", "std", "|", "a_1", "|", "b%", "|", "c"]
    assert sum("foreground average" in line for line in text.splitlines()) == 2
    assert "Mean ± std (ddof=1) over seeds (2)." in text


def test_an_unknown_format_and_missing_results(bases: list[Path], tmp_path: Path) -> None:
    summaries = summaries_of(bases)
    with pytest.raises(InputError, match="must end with"):
        write_tables(summaries, [tmp_path / "table.docx"])
    for base in bases[:2]:
        (base / "seed_0" / "result.csv").unlink()
    with pytest.raises(InputError) as caught:
        summaries_of(bases)
    assert len(caught.value.problems) == 2


def test_summaries_with_other_settings_are_not_mixed(bases: list[Path]) -> None:
    mixed = [summaries_of(bases[:1])[0], summaries_of(bases[1:2], AggregateOptions(ddof=0))[0]]
    with pytest.raises(InputError, match="other ddof"):
        method_table(mixed)


def test_latex_escapes() -> None:
    assert latex_escaped(r"a_b & 5 % \x {y} ~^#$") == (
        r"a\_b \& 5 \% \textbackslash{}x \{y\} \textasciitilde{}\textasciicircum{}\#\$"
    )
