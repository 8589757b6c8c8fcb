"""Steps for tests: each takes a moment, needs no torch and notes when it ran."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duomod.experiments.executor import Executor
from duomod.experiments.executors.local import Local, LocalSettings
from duomod.experiments.records import Records
from duomod.experiments.schedule import Schedule
from duomod.experiments.steps import Kind, Plan, Step


@dataclass(frozen=True)
class Workshop:
    """A folder in which steps leave files."""

    folder: Path

    @property
    def records(self) -> Records:
        return Records(self.folder / ".steps")

    def step(self, name: str, code: str = "", *, kind: Kind = Kind.TRAIN, seconds: float = 0.0, **more: Any) -> Step:
        """A step that notes when it began and ended, runs code, and leaves a file of its name."""
        target = str(self.folder / name)
        text = f"""
import os, sys, time
began = time.time()
{code}
time.sleep({seconds})
open({target!r}, 'a').write(f'{{began}} {{time.time()}}' + chr(10))
print("result of {name}")
print({target!r})
"""
        return Step(name, kind, (sys.executable, "-c", text), done=(Path(target),), **more)

    def times(self, name: str) -> list[tuple[float, float]]:
        """When the attempts of a step began and ended."""
        lines = (self.folder / name).read_text(encoding="utf-8").splitlines()
        return [(float(began), float(ended)) for began, ended in map(str.split, lines)]

    def local(self, jobs: int = 1, gpus: tuple[int, ...] = ()) -> Local:
        return Local(LocalSettings(gpus=gpus), self.records, jobs)

    def run(self, *steps: Step, executor: Executor | None = None) -> None:
        Schedule(Plan(steps), executor or self.local(), self.records).run()


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether a condition comes true within some time."""
    latest = time.monotonic() + seconds
    while time.monotonic() < latest:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
