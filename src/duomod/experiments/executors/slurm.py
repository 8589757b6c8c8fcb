"""On a SLURM cluster, through submitit: one array job for steps of a kind, and dependencies between the arrays.

A job that SLURM asks to stop (SIGTERM, at preemption and before the time limit) lets its step save and end, and asks to
be queued again; the step then goes on where it was.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from duomod.errors import InputError
from duomod.experiments.executor import Executor, Result
from duomod.experiments.process import LOOK, StepProcess, run_step
from duomod.experiments.records import Records
from duomod.experiments.steps import Kind, Plan, Step, levels
from duomod.settings import Settings

#: In a job's environment: the signal at which submitit's job asks to be queued again.
_SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"


class SlurmSettings(Settings):
    """Settings of the executor ``slurm``."""

    partition: str | None = Field(None, description="Partition.")
    time: int = Field(24 * 60, ge=1, description="Minutes a job may take; it is queued again when they are over.")
    memory_gb: float = Field(16.0, gt=0, description="Memory of a job.")
    cores: int = Field(4, ge=1, description="CPU cores of a job.")
    gpus: int = Field(1, ge=0, description="GPUs of a training or prediction, where the experiment's gpu is not empty.")
    requeues: int = Field(20, ge=0, description="How often a job may reach its time limit.")
    at_once: int = Field(256, ge=1, description="Jobs of an array at the same time.")
    setup: tuple[str, ...] = Field((), description="Shell lines before the command, e.g. module load cuda.")
    extra: dict[str, Any] = Field({}, description="Further sbatch options by name, e.g. {account: x, qos: long}.")
    cluster: Literal["slurm", "local"] = Field("slurm", description="local: submitit's stand-in on this machine.")


class StepJob:
    """What a job runs. submitit calls ``checkpoint`` at SIGTERM and queues what it returns."""

    def __init__(self, step: Step, records: Records, folder: Path) -> None:
        self.step = step
        self.records = records
        self.folder = folder

    def __call__(self) -> None:
        os.chdir(self.folder)
        self.process = StepProcess(self.step, self.records)
        run_step(self.process)

    def checkpoint(self) -> Any:
        """The same job again; None (do not queue again) if it is being cancelled."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        self.process.finish()
        return None if _cancelled() else DelayedSubmission(StepJob(self.step, self.records, self.folder))


def _cancelled() -> bool:
    """Whether SLURM stops this job for good: it says so to whoever asks for the job's state."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    try:
        state = subprocess.run(
            ["squeue", "--noheader", "--jobs", job, "--format", "%T"], capture_output=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return state.strip().startswith(("CANCELLED", "COMPLETING"))


class Slurm(Executor):
    """Hands all steps over at once; SLURM holds each back until those that it needs have succeeded."""

    Config = SlurmSettings

    def __init__(self, settings: SlurmSettings, records: Records, jobs: int) -> None:
        super().__init__(settings, records, jobs)
        self.queues = settings.cluster == "slurm"
        self.jobs_of: dict[str, Any] = {}
        self._open: dict[str, Any] = {}
        self._steps: dict[str, Step] = {}

    def submit(self, steps: Sequence[Step]) -> None:
        for kind, group in groupby(self._in_levels(steps), key=lambda step: (step.kind, step.gpus)):
            self._submit_array(kind[0], list(group))

    def results(self) -> list[Result]:
        ended = {name: job for name, job in self._open.items() if job.done()}
        for name in ended:
            del self._open[name]
        return [self._result(name, job) for name, job in ended.items()]

    def stop(self) -> None:
        for job in self._open.values():
            job.cancel(check=False)
        while not self.queues and not all(job.done() for job in self._open.values()):
            time.sleep(LOOK)
        self._open.clear()

    def _result(self, name: str, job: Any) -> Result:
        if job.exception() is None:
            return Result(name, True)
        record = self.records.read(self._steps[name])
        if record is not None and record.state in ("failed", "interrupted"):
            return Result(name, False, record.reason or f"{record.state}; it was job {job.job_id}")
        return Result(name, False, f"its job {job.job_id} ended without a result; see {job.paths.stderr}")

    def _in_levels(self, steps: Sequence[Step]) -> list[Step]:
        """The steps so that those of a kind that do not wait for each other stand together."""
        names = {step.name for step in steps}
        inner = [_within(step, names) for step in steps]
        by_name = {step.name: step for step in steps}
        return [by_name[step.name] for level in levels(Plan(tuple(inner))) for step in sorted(level, key=_by_kind)]

    def _submit_array(self, kind: Kind, steps: list[Step]) -> None:
        executor = self.submitit_executor(kind, steps)
        here = Path.cwd()
        with executor.batch():
            jobs = [executor.submit(StepJob(step, self.records, here)) for step in steps]
        for step, job in zip(steps, jobs, strict=True):
            self.jobs_of[step.name] = self._open[step.name] = job
            self._steps[step.name] = step

    def submitit_executor(self, kind: Kind, steps: Sequence[Step]) -> Any:
        """submitit's executor for an array of steps of one kind.

        Raises:
            InputError: submitit is not installed, there is no SLURM here, or ``extra`` has an option that is none.
        """
        try:
            import submitit
        except ImportError:
            raise InputError("the executor 'slurm' needs submitit: pip install 'duomod[slurm]'") from None
        settings: SlurmSettings = self.settings
        folder = self.records.folder / "slurm"
        if settings.cluster == "local":
            stand_in = submitit.LocalExecutor(folder)
            stand_in.update_parameters(timeout_min=settings.time)
            return stand_in
        try:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.requeues)
        except RuntimeError as error:
            raise InputError(f"the executor 'slurm': {error}") from None
        options: dict[str, Any] = {
            "job_name": f"duomod-{kind}",
            "partition": settings.partition,
            "time": settings.time,
            "mem": f"{round(settings.memory_gb * 1024)}M",
            "cpus_per_task": settings.cores,
            "gpus_per_node": settings.gpus if steps[0].gpus and settings.gpus else None,
            "array_parallelism": settings.at_once,
            "setup": [f"export {_SIGNAL}=TERM", *settings.setup],
            "dependency": self._dependency(steps),
            "additional_parameters": {
                "requeue": True,
                "signal": "TERM@120",
                "kill-on-invalid-dep": "yes",
                **settings.extra,
            },
        }
        executor.update_parameters(**{name: value for name, value in options.items() if value is not None})
        return executor

    def _dependency(self, steps: Sequence[Step]) -> str | None:
        """What SLURM waits for: of each task the same task of an earlier array, or single jobs."""
        needs = [self._ids(step.needs) for step in steps]
        after = [self._ids(step.after) for step in steps]
        array = _corresponding(needs)
        if array is not None and not any(after):
            return f"aftercorr:{array}"
        parts = []
        for word, ids in (("afterok", needs), ("afterany", after)):
            if wanted := dict.fromkeys(job for of_step in ids for job in of_step):
                parts.append(":".join([word, *wanted]))
        return ",".join(parts) or None

    def _ids(self, names: Sequence[str]) -> list[str]:
        return [str(self._open[name].job_id) for name in names if name in self._open]


def _corresponding(needs: Sequence[Sequence[str]]) -> str | None:
    """The array whose task i each step i needs, and nothing else; None if it is not so."""
    if len(needs) < 2 or any(len(of_step) != 1 for of_step in needs):
        return None
    arrays = {of_step[0].split("_")[0] for of_step in needs}
    if len(arrays) != 1 or [of_step[0].partition("_")[2] for of_step in needs] != [str(i) for i in range(len(needs))]:
        return None
    return arrays.pop()


def _within(step: Step, names: set[str]) -> Step:
    """A step that waits only for steps of a set."""
    return replace(
        step,
        needs=tuple(name for name in step.needs if name in names),
        after=tuple(name for name in step.after if name in names),
    )


def _by_kind(step: Step) -> tuple[str, int]:
    return step.kind, step.gpus
