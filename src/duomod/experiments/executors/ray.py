"""On a Ray cluster: one remote task a step, with its resources; one whose node is lost is started again on another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from duomod.errors import InputError
from duomod.experiments.executor import Executor, Result
from duomod.experiments.process import StepProcess, run_step
from duomod.experiments.records import Records
from duomod.experiments.steps import Step
from duomod.settings import Settings

#: A loopback address that Ray, unlike 127.0.0.1, does not replace by one that other hosts can reach.
LOOPBACK = "127.0.0.2"


class RaySettings(Settings):
    """Settings of the executor ``ray``."""

    address: str | None = Field(
        None, description="Of a running cluster (host:port), or auto: this host's; none: one is started on this host."
    )
    cores: float = Field(1.0, gt=0, description="CPU cores of a step.")
    gpus: float = Field(
        1.0, ge=0, description="GPUs of a training or prediction, where experiment and cluster have any."
    )
    retries: int = Field(3, ge=0, description="How often a step is started again when its node is lost.")


class Ray(Executor):
    """Every node must see the experiment's folders under the same paths, and have duomod installed."""

    Config = RaySettings

    def __init__(self, settings: RaySettings, records: Records, jobs: int) -> None:
        super().__init__(settings, records, jobs)
        self._tasks: dict[Any, str] = {}
        self._connected = False

    def submit(self, steps: Sequence[Step]) -> None:
        import ray

        self._connect()
        here = Path.cwd()
        # Without this, a step would wait for ever for what the cluster does not have; it runs on the CPU instead.
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = self.settings.gpus if resources.get("GPU") else 0
        for step in steps:
            remote = ray.remote(_run).options(
                num_cpus=self.settings.cores,
                num_gpus=gpus if step.gpus else 0,
                max_retries=self.settings.retries,
                name=step.name,
            )
            self._tasks[remote.remote(step, self.records, here)] = step.name

    def results(self) -> list[Result]:
        import ray

        if not self._tasks:
            return []
        ended, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        return [_result(self._tasks.pop(task), task) for task in ended]

    def stop(self) -> None:
        if not self._connected:
            return
        import ray

        for task in self._tasks:
            ray.cancel(task)
        if self._tasks:  # a training saves its state first
            ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=None)
        self._tasks.clear()
        ray.shutdown()
        self._connected = False

    def _connect(self) -> None:
        if self._connected:
            return
        # Ray reads it when it is imported; nothing about the use of a cluster leaves it.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError:
            raise InputError("the executor 'ray' needs Ray: pip install 'duomod[ray]'") from None
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        address = self.settings.address
        if address is None:
            options |= {"include_dashboard": False, "_node_ip_address": LOOPBACK}
        try:
            ray.init(address or "local", **options)
        except ConnectionError as error:
            raise InputError(f"the executor 'ray': no cluster at {address} ({error})") from None
        self._connected = True


def _run(step: Step, records: Records, folder: Path) -> None:
    os.chdir(folder)
    run_step(StepProcess(step, records))


def _result(name: str, task: Any) -> Result:
    import ray

    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return Result(name, False, str(error.cause))
    except ray.exceptions.RayError as error:
        return Result(name, False, str(error).strip().splitlines()[0])
    return Result(name, True)
