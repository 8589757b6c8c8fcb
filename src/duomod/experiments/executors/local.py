"""On this machine: several steps at the same time, each with a GPU or a share of the cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence

from pydantic import Field

from duomod.errors import DuomodError
from duomod.experiments.executor import Executor, Result
from duomod.experiments.guard import GRACE
from duomod.experiments.process import StepProcess
from duomod.experiments.records import Record, Records
from duomod.experiments.steps import Step
from duomod.settings import Settings


class LocalSettings(Settings):
    """Settings of the executor ``local``."""

    gpus: tuple[int, ...] = Field(
        (), description="GPUs; each has one training or prediction at a time. None: the experiment's gpu."
    )


class Local(Executor):
    """``jobs`` steps at the same time, or one on each GPU and ``jobs`` of those that use none."""

    Config = LocalSettings

    def __init__(self, settings: LocalSettings, records: Records, jobs: int) -> None:
        super().__init__(settings, records, jobs)
        self._gpus = list(settings.gpus)
        self._waiting: deque[Step] = deque()
        self._running: dict[StepProcess, int | None] = {}
        self._refused: list[Result] = []

    @property
    def environment(self) -> Mapping[str, str]:
        """A share of the cores, where several steps share them.

        A small network does not fill several cores: one run per core is faster than one run on all.
        """
        at_once = self.jobs + len(self._gpus)
        if at_once == 1:
            return {}
        threads = str(max(1, (os.cpu_count() or 1) // at_once))
        return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), threads)

    def submit(self, steps: Sequence[Step]) -> None:
        self._waiting.extend(steps)
        self._start()

    def results(self) -> list[Result]:
        ended = [(process, record) for process in self._running if (record := process.poll()) is not None]
        for process, _ in ended:
            del self._running[process]
        self._start()
        refused, self._refused = self._refused, []
        return [*(result_of(record) for _, record in ended), *refused]

    def stop(self) -> None:
        self._waiting.clear()
        for process in self._running:
            process.terminate()
        grace = GRACE
        for process in list(self._running):
            try:
                process.finish(grace)
            except (KeyboardInterrupt, SystemExit):  # a second Ctrl-C or SIGTERM: no more time
                grace = 0.0
                process.finish(grace)
            del self._running[process]

    def _start(self) -> None:
        """Start what there is room for, in the order of submission."""
        for step in list(self._waiting):
            free, gpu = self._place(step)
            if not free:
                continue
            self._waiting.remove(step)
            visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
            process = StepProcess(step, self.records, {**self.environment, **visible})
            try:
                process.start()
            except DuomodError as error:
                self._refused.append(Result(step.name, False, str(error)))
            else:
                self._running[process] = gpu

    def _place(self, step: Step) -> tuple[bool, int | None]:
        """Whether there is room for a step, and on which GPU."""
        if step.gpus and self._gpus:
            gpu = next((gpu for gpu in self._gpus if gpu not in self._running.values()), None)
            return gpu is not None, gpu
        without = sum(gpu is None for gpu in self._running.values())
        return without < self.jobs, None


def result_of(record: Record) -> Result:
    """The result that a final record tells of."""
    return Result(record.step, record.state == "done", record.reason or record.state)
