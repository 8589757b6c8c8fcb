"""How far an experiment is, read from its folders alone: while any process or cluster runs it, and afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from duomod.console import out, progress_in
from duomod.errors import InputError
from duomod.experiments.planning import plan_of
from duomod.experiments.records import Record, Records
from duomod.experiments.settings import StatusSettings, load_pipeline
from duomod.experiments.steps import Kind, Plan, Step
from duomod.workspace import CONFIG, METRICS, read_json_lines, read_yaml

State = Literal["done", "running", "waiting", "failed", "skipped", "interrupted"]
#: What a log says last is in its last bytes.
_TAIL = 8192
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "skipped": "yellow", "interrupted": "magenta"}


@dataclass(frozen=True)
class Row:
    """One step. ``seconds`` it took or has taken so far, ``seconds_left`` as far as it can be told."""

    step: str
    state: State
    done: int | None = None
    total: int | None = None
    best_dice: float | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    note: str = ""


def run_status(settings: StatusSettings) -> list[Row]:
    """Where each step of an experiment stands.

    Raises:
        InputError: lists every wrong field of the file.
    """
    config = load_pipeline(settings.config)
    return status_of(plan_of(config), Records(config.steps))


def status_of(plan: Plan, records: Records) -> list[Row]:
    """Where each step of a plan stands."""
    rows: dict[str, Row] = {}
    for step in plan.steps:
        lost = next((need for need in step.needs if rows[need].state in ("failed", "skipped")), None)
        rows[step.name] = _row(step, records, lost)
    return list(rows.values())


def _row(step: Step, records: Records, lost: str | None) -> Row:
    record = records.read(step)
    if record is None or record.argv != step.argv:
        # Done by hand, or before there were records.
        if step.done and all(path.exists() for path in step.done):
            return Row(step.name, "done", *_trained(step))
        return Row(step.name, "skipped" if lost else "waiting", note=f"{lost} failed" if lost else "")
    end = record.finished or time.time()
    seconds = end - record.started
    done, total, best = _trained(step)
    left = None
    if record.state == "running":
        done, total, left = _under_way(records.log(step), record, done, total)
    note = record.reason.splitlines()[-1] if record.reason else ""
    return Row(step.name, record.state, done, total, best, seconds, left, note)


def _under_way(
    log: Path, record: Record, done: int | None, total: int | None
) -> tuple[int | None, int | None, float | None]:
    """Progress and seconds left by the log's last line about it; a training's own numbers before there is one."""
    said = progress_in(_last_of(log, record.log_start))
    if said is None:
        return done, total, None
    done, total, left = said
    taken = time.time() - record.started
    if left is None:
        return done, total, taken / done * (total - done) if done else None
    return done, total, max(0.0, left - (time.time() - log.stat().st_mtime))


def _last_of(log: Path, start: int) -> str:
    try:
        with open(log, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(start, size - _TAIL))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _trained(step: Step) -> tuple[int | None, int | None, float | None]:
    """Steps done, steps in all and the best validation Dice so far, from a training's folder."""
    if step.kind is not Kind.TRAIN or step.run is None:
        return None, None, None
    done, best = None, None
    for numbers in _metrics(step.run / METRICS):
        done = int(numbers["step"]) + 1
        dice = numbers.get("val_dice")
        if isinstance(dice, int | float) and (best is None or dice > best):
            best = dice
    return done, _steps_in_all(step.run / CONFIG), best


def _metrics(path: Path) -> Iterator[dict[str, float]]:
    try:
        records = read_json_lines(path)
    except InputError:  # not there yet, or damaged: the table goes without
        return
    yield from (record for record in records if isinstance(record.get("step"), int))


def _steps_in_all(path: Path) -> int | None:
    try:
        run = read_yaml(path)
        return int((run["train"]["max_epochs"] + run["train"]["final_epoch"]) * run["steps_per_epoch"])
    except (InputError, KeyError, TypeError, ValueError, OverflowError):
        return None


def finished(rows: list[Row]) -> bool:
    """Whether nothing is under way or to come."""
    return not any(row.state in ("running", "waiting") for row in rows)


def watch(settings: StatusSettings, rows: list[Row]) -> list[Row]:
    """Show the table until all is over, or until Ctrl-C; returns the last rows."""
    try:
        with Live(table(rows), console=out, refresh_per_second=2, transient=True) as live:
            while not finished(rows):
                time.sleep(1)
                rows = run_status(settings)
                live.update(table(rows))
    except KeyboardInterrupt:
        pass
    return rows


def table(rows: list[Row]) -> Group:
    """The rows as a table, and a line that counts them."""
    shown = Table("step", "state", "progress", "best Dice", "time", "left", "", box=None, pad_edge=False)
    for row in rows:
        shown.add_row(
            Text(row.step),
            Text(row.state, style=_COLOURS.get(row.state, "")),
            f"{row.done}/{row.total}" if row.done is not None and row.total else "",
            f"{row.best_dice:.4f}" if row.best_dice is not None else "",
            clock(row.seconds),
            clock(row.seconds_left),
            Text(row.note),
        )
    return Group(shown, Text(summary(rows)))


def summary(rows: list[Row]) -> str:
    """How many steps are in which state."""
    counts = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    return f"{len(rows)} steps: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def clock(seconds: float | None) -> str:
    """A time as ``h:mm:ss`` or ``m:ss``."""
    if seconds is None:
        return ""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def as_text(rows: list[Row]) -> str:
    """The table as plain lines, as wide as it needs to be."""
    from rich.console import Console

    wide = Console(width=max(len(row.note) for row in rows) + 200 if rows else 80, highlight=False)
    with wide.capture() as capture:
        wide.print(table(rows))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
