"""Carries out a plan: what is done is left alone, what fails is reported, the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from duomod.console import out, say
from duomod.errors import DuomodError
from duomod.experiments.executor import Executor, Result
from duomod.experiments.process import LOOK, bytes_since
from duomod.experiments.records import Records
from duomod.experiments.steps import Kind, Plan, Step
from duomod.training.stopping import stop_requests

#: Steps whose result is a text that people want to read at once.
_READABLE = {Kind.EVALUATE, Kind.AGGREGATE, Kind.COMPARE}


class StepsFailed(DuomodError):
    """Some steps of a plan failed; the others are done."""


class PlanInterrupted(DuomodError):
    """Ctrl-C or SIGTERM; everything that ran has been ended."""

    exit_code = 130


@dataclass
class Schedule:
    """One run of a plan.

    Attributes:
        plan: What is to be done.
        executor: What runs the steps.
        records: Of the steps.
        failed: Why a step failed, by its name, in the order of the failures.
    """

    plan: Plan
    executor: Executor
    records: Records
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pending = {step.name: step for step in self.plan.steps}
        self._running: dict[str, Step] = {}
        self._done: set[str] = set()
        self._skipped: dict[str, str] = {}
        self._follower = Follower(self.records)

    def run(self) -> None:
        """Run everything that can be run.

        Raises:
            StepsFailed: exit code 1; lists what failed and what was skipped for it, after everything else was done.
            PlanInterrupted: exit code 130.
        """
        for step in self.plan.steps:
            record = self.records.read(step)
            if record is not None and record.state in ("failed", "interrupted"):
                self.records.forget(step)
        with stop_requests() as stop:
            try:
                self._dispatch()
                while self._running:
                    time.sleep(LOOK)
                    self._follower.show(self._running.values())
                    if stop.requested:
                        say("stopping: no new steps; those that run are asked to save and end")
                        raise PlanInterrupted
                    for result in self.executor.results():
                        self._take(result)
                    self._dispatch()
            finally:
                self.executor.stop()
        if self.failed:
            count = f"{len(self.failed)} step(s) failed; everything else is done"
            lines = [f"{name}: {reason}" for name, reason in {**self.failed, **self._skipped}.items()]
            raise StepsFailed("\n".join([count, *lines]))

    def _dispatch(self) -> None:
        """Hand over every step that can be run now; settle those that need not or cannot."""
        ready: list[Step] = []
        for step in list(self._pending.values()):
            if not self._settled(step) and self._is_free(step, ready):
                ready.append(step)
        for step in ready:
            del self._pending[step.name]
            self._running[step.name] = step
        if ready:
            self.executor.submit(ready)

    def _settled(self, step: Step) -> bool:
        """Whether a step needs no run: it is done, cannot be started, or waits for one that failed."""
        lost = next((need for need in step.needs if need in self.failed or need in self._skipped), None)
        if lost is not None:
            self._skip(step, lost)
            return True
        if any(need not in self._done for need in step.needs) or any(not self._ended(name) for name in step.after):
            return False
        missing = next((path for path in step.requires if not path.exists()), None)
        if missing is not None:
            what = "missing seed" if step.kind in (Kind.PREDICT, Kind.EVALUATE) else "missing"
            self._fail(step, f"{what}: {missing} does not exist")
            return True
        record = self.records.read(step)
        if record is not None and record.state == "running":
            self._fail(step, f"is being run by process {record.pid} on {record.host}; wait for it, or end it")
            return True
        if self.records.is_done(step):
            say(f"── {step.name}: done already")
            del self._pending[step.name]
            self._done.add(step.name)
            return True
        return False

    def _is_free(self, step: Step, ready: list[Step]) -> bool:
        """Whether all that a step waits for has ended, or is in the executor's hands and that can wait for it."""
        handed_over = {*self._running, *(other.name for other in ready)} if self.executor.queues else set()
        return all(need in self._done or need in handed_over for need in step.needs) and all(
            self._ended(name) or name in handed_over for name in step.after
        )

    def _ended(self, name: str) -> bool:
        return name in self._done or name in self.failed or name in self._skipped

    def _take(self, result: Result) -> None:
        step = self._running.pop(result.step, None)
        if step is None:  # skipped in the meantime
            return
        self._follower.show([step])
        if result.succeeded:
            self._done.add(step.name)
            self._show_result(step)
        else:
            self._fail(step, result.reason)

    def _show_result(self, step: Step) -> None:
        record = self.records.read(step)
        if record is not None and record.finished is not None:
            say(f"   done: {step.name}, {record.finished - record.started:.0f} s")
        if step.kind in _READABLE and self.records.output(step).is_file():
            text = self.records.output(step).read_text(encoding="utf-8", errors="replace").rstrip()
            # The last line is the path of the command's result; ours comes last of all.
            out.print("\n".join(text.splitlines()[:-1]), markup=False)

    def _fail(self, step: Step, reason: str) -> None:
        say(f"   failed: {step.name}: {reason}")
        self._pending.pop(step.name, None)
        self.failed[step.name] = reason
        for waiting in list(self._running.values()):  # handed over before, to an executor that queues
            if step.name in waiting.needs:
                del self._running[waiting.name]
                self._skip(waiting, step.name)

    def _skip(self, step: Step, lost: str) -> None:
        reason = f"skipped because {lost} failed" if lost in self.failed else self._skipped[lost]
        say(f"   {step.name}: {reason}")
        self._pending.pop(step.name, None)
        self._skipped[step.name] = reason
        for waiting in list(self._running.values()):
            if step.name in waiting.needs:
                del self._running[waiting.name]
                self._skip(waiting, step.name)


class Follower:
    """Shows what running steps write to their logs, wherever they run, each line with the step's name."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._attempt: dict[str, float] = {}
        self._read: dict[str, int] = {}
        self._over: set[tuple[str, float]] = set()

    def show(self, steps: Iterable[Step]) -> None:
        """Print which have begun, and the whole lines they have written, since the last call."""
        for step in steps:
            record = self._records.read(step)
            if record is None or (step.name, record.started) in self._over:
                continue
            if self._attempt.get(step.name) != record.started:
                say(f"── {step.name}")
                self._attempt[step.name] = record.started
                self._read[step.name] = record.log_start
            try:
                new = bytes_since(self._records.log(step), self._read[step.name])
            except FileNotFoundError:  # another host has made it, and this one does not see it yet
                continue
            if record.state != "running":  # what is written from now on belongs to the next attempt
                self._over.add((step.name, record.started))
            whole = new[: new.rfind(b"\n") + 1]
            self._read[step.name] += len(whole)
            for line in whole.decode("utf-8", errors="replace").splitlines():
                if line.strip():
                    say(f"   {step.name} | {line}")
