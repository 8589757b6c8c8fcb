"""Methods against a baseline: numbers, sentences, and what may not be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from duomod.errors import InputError
from duomod.evaluation.compare import run_compare
from duomod.evaluation.comparison import ComparisonFile
from duomod.evaluation.results import build_frame, write_frame
from duomod.evaluation.settings import AggregateSettings, CompareSettings
from duomod.evaluation.summary_files import run_aggregate, sources_path
from duomod.settings import checked


def compare(tables: list[Path], **options: object) -> Path:
    return run_compare(checked(CompareSettings, {"tables": tables, **options}))


CASES = [f"case_{i:02d}.nii.gz" for i in range(12)]


def make_method(
    root: Path,
    name: str,
    gain: float,
    *,
    seeds: int = 3,
    cases: list[str] = CASES,
    noise: float = 0.01,
    absent: int | None = None,
) -> Path:
    """A method's seeds and aggregated table: 15 classes, Dice ``gain`` above a level that belongs to case and class."""
    level = np.random.default_rng(0).uniform(0.4, 0.7, (len(cases), 15))
    for seed in range(seeds):
        rng = np.random.default_rng([seed, len(name), round(gain * 1000) % 97])
        dice = level + gain + rng.normal(0, noise, level.shape)
        if absent is not None:
            dice[:, absent - 1] = np.nan
        folder = root / name / f"seed_{seed}"
        folder.mkdir(parents=True)
        write_frame(build_frame(cases, {"Dice": dice, "ASD": 10 * (1 - dice)}), folder / "result.csv")
    run_aggregate(AggregateSettings(method_base_dir=root / name, dataset="amos22"))
    return root / name / f"{name}_aggregated_metrics.csv"


def comparisons(output: Path) -> ComparisonFile:
    return ComparisonFile.model_validate_json((output / "comparison.json").read_text())


def test_a_better_method_is_called_better_with_its_difference(tmp_path: Path) -> None:
    tables = [make_method(tmp_path, "new", 0.05), make_method(tmp_path, "old", 0.0)]
    text = compare(tables, baseline="old", output=tmp_path / "out", resamples=500).read_text()
    found = {(c.metric, c.scope): c for c in comparisons(tmp_path / "out").comparisons}
    assert len(found) == 2 * (2 + 15)
    dice, asd = found["Dice", "foreground"], found["ASD", "tail"]
    assert dice.difference == pytest.approx(5.0, abs=0.3)
    assert dice.ci_low < 5.0 < dice.ci_high
    assert dice.n == 12
    assert dice.p_wilcoxon == pytest.approx(2 / 2**12)
    assert dice.p_wilcoxon_holm == pytest.approx(2 * 2 / 2**12)
    assert dice.rank_biserial == 1.0
    assert asd.difference == pytest.approx(-0.5, abs=0.05)
    assert asd.rank_biserial == -1.0
    assert asd.sentence.startswith("new is better than old on tail ASD by 0.5")
    assert float(asd.sentence.split("[")[1].split(",")[0]) > 0
    assert "new is better than old on foreground Dice by 5." in text
    assert "p < 0.001 (Wilcoxon, Holm over 2), n = 12." in text
    assert len(pd.read_csv(tmp_path / "out" / "comparison.csv")) == len(found)
    assert not list((tmp_path / "out").glob("critical_difference*"))


def test_equal_methods_are_not_called_different(tmp_path: Path) -> None:
    tables = [make_method(tmp_path, "one", 0.0, noise=0.05), make_method(tmp_path, "other", 0.0, noise=0.05)]
    text = compare(tables, baseline="other", output=tmp_path / "out", resamples=300).read_text()
    assert "No difference shown between one and other on foreground Dice" in text
    assert "too small" not in text


def test_too_few_cases_are_said_to_be_too_few(tmp_path: Path) -> None:
    few = CASES[:4]
    tables = [make_method(tmp_path, "new", 0.1, cases=few), make_method(tmp_path, "old", 0.0, cases=few)]
    text = compare(tables, baseline="old", output=tmp_path / "out", resamples=300).read_text()
    assert "n = 4 is too small to show one: the smallest p possible is 0.25" in text
    assert "is better" not in text


def test_three_methods_are_ranked_and_drawn(tmp_path: Path) -> None:
    tables = [make_method(tmp_path, name, gain) for name, gain in (("best", 0.1), ("middle", 0.05), ("low", 0.0))]
    text = compare(tables, baseline="low", output=tmp_path / "out", metrics=["Dice"], resamples=300).read_text()
    assert "Average ranks on tail Dice: best 1.00, middle 2.00, low 3.00" in text
    drawn = sorted(path.name for path in (tmp_path / "out").glob("critical_difference*"))
    assert drawn == [f"critical_difference_Dice_{s}.{e}" for s in ("foreground", "tail") for e in ("png", "svg")]
    svg = (tmp_path / "out" / drawn[1]).read_text()
    assert svg.lstrip().startswith("<?xml")
    assert comparisons(tmp_path / "out").comparisons[0].family == 4


def test_classes_that_no_case_has_are_left_out_of_the_correction(tmp_path: Path) -> None:
    tables = [make_method(tmp_path, "new", 0.05, absent=15), make_method(tmp_path, "old", 0.0, absent=15)]
    compare(tables, baseline="old", output=tmp_path / "out", metrics=["Dice"], resamples=200)
    last = comparisons(tmp_path / "out").comparisons[-1]
    assert (last.n, last.family, math.isnan(last.p_wilcoxon)) == (0, 14, True)
    assert "nothing can be said" in last.sentence


def test_without_the_seeds_it_still_works_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = [make_method(tmp_path, "new", 0.05), make_method(tmp_path, "old", 0.0)]
    sources_path(tables[0]).unlink()
    compare(tables, baseline="old", output=tmp_path / "out", dataset="amos22", resamples=200)
    assert "single seeds are unknown" in capsys.readouterr().err


def test_a_table_that_was_edited_is_refused(tmp_path: Path) -> None:
    tables = [make_method(tmp_path, "new", 0.05), make_method(tmp_path, "old", 0.0)]
    whole = tables[0].read_bytes()
    tables[0].write_bytes(whole.replace(b"0.6", b"0.9", 1))
    with pytest.raises(InputError, match=r"new_aggregated_metrics\.csv: was changed after it was written"):
        compare(tables, baseline="old", output=tmp_path / "out")
    tables[0].write_bytes(whole)
    seed = tables[1].parent / "seed_1" / "result.csv"
    seed.write_bytes(seed.read_bytes().replace(b"0.6", b"0.9", 1))
    with pytest.raises(InputError, match=r"seed_1/result\.csv: has changed since .*; aggregate again"):
        compare(tables, baseline="old", output=tmp_path / "out")


def test_what_is_not_in_the_comparison_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = [make_method(tmp_path, "new", 0.05), make_method(tmp_path, "old", 0.0)]
    make_method(tmp_path, "forgotten", 0.1).unlink()
    (tmp_path / "old" / "seed_3").mkdir()
    (tmp_path / "old" / "seed_3" / "result.csv").write_bytes((tmp_path / "old/seed_2/result.csv").read_bytes())
    (tmp_path / "new" / "seed_3" / "ckpts").mkdir(parents=True)
    run_aggregate(AggregateSettings(method_base_dir=tmp_path / "new", dataset="amos22"))
    capsys.readouterr()
    text = compare(tables, baseline="old", output=tmp_path / "out", resamples=200).read_text()
    said = " ".join(capsys.readouterr().err.split())
    for note in (
        "new: seed_3 has no result.csv or result.xlsx (its training has not ended)",
        "seed_3/result.csv is not in old_aggregated_metrics.csv; aggregate again to take it in",
        "forgotten: a method with seeds and no aggregated table; it is not compared",
    ):
        assert note in text, note
        assert note in said, note


def test_a_record_that_is_something_else_is_refused_in_a_line(tmp_path: Path) -> None:
    tables = [make_method(tmp_path, "new", 0.05), make_method(tmp_path, "old", 0.0)]
    for content in ("[1]", '{"method": 5, "seeds": []}', '{"seeds": {}}'):
        sources_path(tables[0]).write_text(content)
        with pytest.raises(InputError, match="not of an aggregated table; aggregate again"):
            compare(tables, baseline="old", output=tmp_path / "out")


@pytest.mark.parametrize("cases", [CASES[:1], CASES[:2]])
def test_few_cases_give_sentences_and_no_error(tmp_path: Path, cases: list[str]) -> None:
    tables = [make_method(tmp_path, name, 0.1 * i, cases=cases, seeds=2) for i, name in enumerate("abc")]
    text = compare(tables, baseline="a", output=tmp_path / "out", resamples=200).read_text()
    assert ("nothing can be said" if len(cases) == 1 else "too small to show one") in text


def test_all_that_cannot_be_compared_is_listed(tmp_path: Path) -> None:
    good = make_method(tmp_path, "good", 0.0)
    other = make_method(tmp_path, "other", 0.0, cases=[*CASES[1:], "case_99.nii.gz"])
    facts = json.loads(sources_path(other).read_text())
    facts["conventions"] = {"empty_policy": "reference"}
    sources_path(other).write_text(json.dumps(facts))
    facts = json.loads(sources_path(good).read_text())
    facts["conventions"] = {"empty_policy": "default"}
    sources_path(good).write_text(json.dumps(facts))
    with pytest.raises(InputError) as caught:
        compare([good, other], baseline="godo", output=tmp_path / "out")
    text = str(caught.value)
    for part in ("Did you mean 'good'", "without case_00.nii.gz; with case_99.nii.gz besides", "(empty_policy)"):
        assert part in text, part
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metrics": ["Dise"]}, "Did you mean 'Dice'"), ({"alpha": 0.0}, "alpha"), ({"resamples": 5}, "equal to 100")],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    tables = [make_method(tmp_path, "new", 0.05), make_method(tmp_path, "old", 0.0)]
    with pytest.raises(InputError, match=message):
        compare(tables, baseline="old", output=tmp_path / "out", **options)


def test_one_table_and_two_of_one_name(tmp_path: Path) -> None:
    table = make_method(tmp_path, "one", 0.0)
    with pytest.raises(InputError, match="at least two"):
        compare([table], baseline="one", output=tmp_path / "out")
    with pytest.raises(InputError, match="a method called 'one'"):
        compare([table, table], baseline="one", output=tmp_path / "out")
