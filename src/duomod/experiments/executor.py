"""What an executor is, and executors by name. A file in ``executors/`` is one; packages add theirs by entry point."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from duomod.experiments.records import Records
from duomod.experiments.steps import Step
from duomod.plugins import Kind, files_in, only_class
from duomod.settings import Settings, checked

_FOLDER = "executors"


@dataclass(frozen=True)
class Result:
    """How a step ended. ``reason`` says why, if not well."""

    step: str
    succeeded: bool
    reason: str = ""


class Executor(ABC):
    """Runs steps and knows nothing else: not what they do, nor why they wait for each other.

    Attributes:
        Config: Model of its settings in an experiment's file.
        queues: Whether it also takes steps whose needs are still to come, and waits for these itself.
    """

    Config: ClassVar[type[Settings]] = Settings
    queues: bool = False

    def __init__(self, settings: Any, records: Records, jobs: int) -> None:
        """
        Args:
            settings: Its own settings, checked.
            records: Where logs and records of the steps go.
            jobs: The experiment's ``jobs``: steps at the same time on one machine.
        """
        self.settings = settings
        self.records = records
        self.jobs = jobs

    @property
    def environment(self) -> Mapping[str, str]:
        """Changes of the environment, the same for every step; shown by ``--dry_run``."""
        return {}

    @abstractmethod
    def submit(self, steps: Sequence[Step]) -> None:
        """Take over steps that can be run now; with ``queues``, also steps that wait for others taken before."""

    @abstractmethod
    def results(self) -> list[Result]:
        """The steps that have ended since the last call; returns at once."""

    @abstractmethod
    def stop(self) -> None:
        """End everything that runs or waits; a training saves its state. Leaves no process behind. May be repeated."""


def _builtin() -> list[str]:
    return files_in(Path(__file__).parent / _FOLDER)


def _load_builtin(name: str) -> type[Executor]:
    return only_class(importlib.import_module(f"{__package__}.{_FOLDER}.{name}"), Executor, name)


EXECUTORS: Kind[Executor] = Kind("executor", "duomod.executors", lambda: Executor, _builtin, _load_builtin)


def executor_settings(given: Mapping[str, Any]) -> tuple[type[Executor], Settings]:
    """Return the executor that an experiment's file names, and its settings.

    Args:
        given: ``{"name": "slurm", "partition": "gpu", ...}``.

    Raises:
        InputError: unknown executor, or lists every wrong setting.
    """
    cls = EXECUTORS.load(str(given["name"]))
    return cls, checked(cls.Config, {k: v for k, v in given.items() if k != "name"}, source="executor: ")
