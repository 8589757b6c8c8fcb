from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from workshop import Workshop

from duomod.console import progress_in
from duomod.experiments import status
from duomod.experiments.records import SILENCE, Record, born
from duomod.experiments.schedule import StepsFailed
from duomod.experiments.settings import StatusSettings
from duomod.experiments.status import Row, as_text, clock, finished, status_of
from duomod.experiments.steps import Kind, Plan, Step


def rows(workshop: Workshop, *steps: Step) -> dict[str, Row]:
    return {row.step: row for row in status_of(Plan(steps), workshop.records)}


def running(workshop: Workshop, step: Step, log: str = "", **changes: object) -> None:
    """Leave a record as if this very process ran a step."""
    workshop.records.folder.mkdir(parents=True, exist_ok=True)
    workshop.records.log(step).write_text(log)
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "born": born(os.getpid()), "started": time.time() - 60}
    record = Record(step=step.name, argv=step.argv, state="running", **{**facts, **changes})  # type: ignore[arg-type]
    workshop.records.write(step, record)


def test_before_anything_ran_all_steps_wait(workshop: Workshop) -> None:
    found = rows(workshop, workshop.step("a"), workshop.step("b", needs=("a",)))
    assert [row.state for row in found.values()] == ["waiting", "waiting"]
    assert not workshop.records.folder.exists()


def test_done_failed_and_skipped_steps_are_told_apart_with_the_last_words_of_the_failed(workshop: Workshop) -> None:
    steps = (
        workshop.step("good"),
        workshop.step("bad", "print('reading', file=sys.stderr); sys.exit('error: the disk is full')"),
        workshop.step("child", needs=("bad",)),
        workshop.step("grandchild", needs=("child",)),
    )
    with pytest.raises(StepsFailed):
        workshop.run(*steps)
    found = rows(workshop, *steps)
    assert [row.state for row in found.values()] == ["done", "failed", "skipped", "skipped"]
    assert found["bad"].note == "the disk is full"
    assert found["child"].note == "bad failed"
    assert found["good"].seconds is not None
    assert finished(list(found.values()))


def test_what_was_done_by_hand_is_done_and_a_changed_command_waits(workshop: Workshop) -> None:
    step = workshop.step("a")
    (workshop.folder / "a").write_text("")
    assert rows(workshop, step)["a"].state == "done"
    (workshop.folder / "a").unlink()
    running(workshop, step)
    assert rows(workshop, workshop.step("a", "other"))["a"].state == "waiting"


def test_a_running_training_shows_progress_best_dice_and_time_left(workshop: Workshop) -> None:
    run = workshop.folder / "run"
    run.mkdir()
    step = workshop.step("train", kind=Kind.TRAIN, run=run)
    settings = {"train": {"max_epochs": 4, "final_epoch": True}, "steps_per_epoch": 10}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    lines = [{"step": 9, "loss": 1.0}, {"step": 9, "val_dice": 0.5}, {"step": 19, "val_dice": 0.4}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2')
    running(workshop, step)
    row = rows(workshop, step)["train"]
    assert (row.state, row.done, row.total, row.best_dice, row.seconds_left) == ("running", 20, 50, 0.5, None)
    running(workshop, step, log="cps, seed 0: 23/50, 34 s left loss 0.2\n")
    row = rows(workshop, step)["train"]
    assert (row.done, row.total) == (23, 50)
    assert row.seconds_left == pytest.approx(34, abs=2)


def test_the_time_left_of_a_prediction_follows_from_the_time_taken(workshop: Workshop) -> None:
    step = workshop.step("predict", kind=Kind.PREDICT)
    running(workshop, step, log="predicted 3/12 case_07 in 1.2 s\n")
    row = rows(workshop, step)["predict"]
    assert (row.done, row.total) == (3, 12)
    assert row.seconds_left == pytest.approx(180, abs=5)


class TestInterrupted:
    def test_a_process_that_is_gone_was_interrupted(self, workshop: Workshop) -> None:
        step = workshop.step("a")
        running(workshop, step, pid=2**22 + 1)
        assert rows(workshop, step)["a"].state == "interrupted"

    def test_another_process_with_its_number_is_not_it(self, workshop: Workshop) -> None:
        step = workshop.step("a")
        running(workshop, step, born=1)
        assert rows(workshop, step)["a"].state == "interrupted"

    def test_one_on_another_host_lives_while_it_gives_signs(self, workshop: Workshop) -> None:
        step = workshop.step("a")
        running(workshop, step, host="elsewhere", pid=1)
        assert rows(workshop, step)["a"].state == "running"
        silent = time.time() - SILENCE - 1
        os.utime(workshop.records.path(step), (silent, silent))
        assert rows(workshop, step)["a"].state == "interrupted"


def test_the_table_has_a_line_a_step_and_counts_them(workshop: Workshop) -> None:
    shown = as_text(
        [
            Row("cps, seed 0: train", "running", 23, 50, 0.51239, 61.0, 3723.0),
            Row("cps, seed 1: train", "failed", note="the disk is [full]"),
        ]
    )
    lines = shown.splitlines()
    assert re.fullmatch(r"cps, seed 0: train +running +23/50 +0\.5124 +1:01 +1:02:03", lines[1])
    assert re.fullmatch(r"cps, seed 1: train +failed +the disk is \[full\]", lines[2])
    assert lines[-1] == "2 steps: 1 running, 1 failed"


def test_times_are_short() -> None:
    assert [clock(seconds) for seconds in (None, 0, 61, 3600)] == ["", "0:00", "1:01", "1:00:00"]


def test_what_a_progress_line_says_is_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    from duomod.console import progress

    with progress("Evaluating 1/2 of 3", 4, start=2) as advance:
        advance("case")
        advance("case_12/13")
    last = capsys.readouterr().err.splitlines()[-1]
    assert progress_in(last.removesuffix("case_12/13")) == (4, 4, 0.0)
    assert progress_in("nothing to tell") is None


def test_on_a_terminal_the_table_is_kept_up_to_date_until_all_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = [[Row("train", "running", 1, 9)], [Row("train", "done", 9, 9)]]
    monkeypatch.setattr(status, "run_status", lambda settings: later.pop(0))
    monkeypatch.setattr(status, "out", Console(force_terminal=True, width=100))
    rows = status.watch(StatusSettings(config=Path("e.yaml")), [Row("train", "waiting")])
    assert rows == [Row("train", "done", 9, 9)]
    shown = capsys.readouterr().out
    assert "1/9" in shown
    assert not later


def test_the_command_prints_the_table_once_or_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from duomod.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text("gt_path: t\nseeds: [0]\nmethods: [{name: cps, log_root: l/cps, nii_path: i}]\n")
    with pytest.raises(SystemExit):
        main(["status", "e.yaml"])
    assert capsys.readouterr().out.splitlines()[-1] == "3 steps: 3 waiting"
    with pytest.raises(SystemExit):
        main(["status", "e.yaml", "--json"])
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["state"] for step in steps] == ["waiting"] * 3
