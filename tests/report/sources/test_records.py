"""What lies beside a result table and is damaged, made up or far too much: left out and named, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from duomod.errors import InputError
from duomod.evaluation.results import read_result
from duomod.report.sources.records import Beside, read_beside, read_curves, read_settings

DEEP = "[" * 100_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ALIASED_TEXT = f"a: &a {'x' * 50_000}\nb: [{','.join(['*a'] * 1000)}]\n"
ORGANS = "Filename,Class,Name,Status,True_ml,Predicted_ml\n"

DAMAGED: dict[str, list[str | bytes]] = {
    "metrics.jsonl": [
        "[1]\n[2]\n",
        '{"loss": 1}\n',
        '{"step": "one", "loss": 1}\n',
        '{"step": true, "loss": 1}\n',
        '{"step": -1, "loss": 1}\n',
        '{"step": 1, "loss": 2}\n{"step": 2, "lo\n{"step": 3, "loss": 1}\n',
        b'{"step": 1, "\xff": 1}\n{"step": 2}\n',
        '{"step": 1, "loss": ' + "9" * 5000 + '}\n{"step": 2}\n',
        '{"step": 1, "loss": "low"}\n',
        '{"step": 1, "loss": NaN}\n',
        '{"step": 1, "loss": 1e400}\n',
        '{"step": 1, "loss": [1]}\n',
        DEEP + "\n" + DEEP,
        b"\x00\x01\x02" * 100,
    ],
    "config.yaml": [
        "a: [1",
        "[1]",
        "text",
        b"a: \xff",
        "!!python/object/apply:os.system [echo]",
        "a: " + DEEP,
        "a: " + "9" * 5000,
        "a: .nan",
        BOMB,
        ALIASED_TEXT,
    ],
    "train_manifest.json": [
        "{",
        "[1]",
        '{"seconds": [1]}',
        '{"seconds": "90"}',
        '{"seconds": -1}',
        '{"seconds": NaN}',
        '{"best_validation_dice": {}}',
        '{"best_validation_dice": 71.7}',
        '{"steps": 1e400}',
        '{"steps": true}',
        '{"device": 5}',
        '{"torch": "' + "x" * 10_000 + '"}',
        DEEP,
        b"\x89PNG",
    ],
    "predictions/prediction.json": [
        "[]",
        '{"scans": [1]}',
        '{"scans": {"a": 5}}',
        '{"scans": "x"}',
        '{"settings": "x"}',
        '{"settings": {"model_sha256": 5}}',
        '{"settings": {"spec": "x"}}',
        '{"settings": {"spec": {"name": "x", "classes": ["a"]}}}',
        DEEP,
    ],
    "result_organs.csv": [
        "a,b\n1,2\n",
        ORGANS + "a.nii.gz,7,liver,missed,1,0\n",
        ORGANS + "a.nii.gz,0,liver,missed,1,0\n",
        ORGANS + "a.nii.gz,one,liver,missed,1,0\n",
        ORGANS + "a.nii.gz,1,liver,gone,1,0\n",
        ORGANS + "a.nii.gz,1,liver,missed,-1,0\n",
        ORGANS + "a.nii.gz,1,liver,missed,much,0\n",
        ORGANS + "other.nii.gz,1,liver,missed,1,0\n",
        b"\x00\x01\x02" * 100,
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "result.csv").write_text("Filename,Dice_Class1,Dice_Class2\na.nii.gz,0.9,0.8\n")
    return tmp_path


def beside(run: Path) -> Beside:
    return read_beside(read_result(run / "result.csv"), "cps, seed_0")


CASES = [pytest.param(name, text, id=f"{name}-{i}") for name, texts in DAMAGED.items() for i, text in enumerate(texts)]


@pytest.mark.parametrize(("name", "text"), CASES)
def test_it_is_left_out_and_named(run: Path, name: str, text: str | bytes) -> None:
    (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found = beside(run)
    assert {(one.of, one.what) for one in found.left_out} == {("cps, seed_0", name)}
    for one in found.left_out:
        assert "\n" not in str(one)
        assert 5 < len(one.reason) < 1000
    nothing = Beside()
    assert (found.curves, found.settings, found.training) == (nothing.curves, nothing.settings, nothing.training)
    assert (found.organs, found.prediction) == (nothing.organs, nothing.prediction)


def test_what_is_not_there_is_no_fault(run: Path) -> None:
    assert beside(run) == Beside(predictions=run / "predictions")


def test_the_rest_of_a_log_with_odd_values_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN, "note": "x"}\n{"step": 3, "loss": 1, "lo')
    curves, problems = read_curves(log)
    assert curves == {"loss": ([1], [2.0])}
    assert problems == ["1 value(s) of 'loss' are no finite numbers", "1 value(s) of 'note' are no finite numbers"]


def test_settings_are_copies_without_aliases(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {b: [1, 2.5, true, null, text]}\nc: *a\n3: 4\nday: 2026-01-01\n")
    settings = read_settings(path)
    inner = {"b": [1, 2.5, True, None, "text"]}
    assert settings == {"a": inner, "c": inner, "3": 4, "day": "2026-01-01"}
    assert settings["a"] is not settings["c"]
    path.write_text(BOMB)
    with pytest.raises(InputError, match="values"):
        read_settings(path)
