"""Where a run's numbers go: ``metrics.jsonl`` (the truth), ``train.log`` and TensorBoard (copies for people)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import torch
from torch import Tensor

from duomod.console import say
from duomod.errors import InputError
from duomod.workspace import METRICS, parse_json, write_text


class Trackers:
    """Writes a run's numbers. On resuming, what an interrupted run wrote after its last checkpoint is dropped first."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._jsonl = folder / METRICS
        _drop_from(self._jsonl, first_step)
        self._metrics = open(self._jsonl, "a", encoding="utf-8")  # noqa: SIM115  (closed in __exit__)
        self._log = open(folder / "train.log", "a", encoding="utf-8")  # noqa: SIM115
        self._board: Any = SummaryWriter(folder / "tensorboard", purge_step=first_step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers at a step."""
        _append(self._metrics, json.dumps({"step": step, **values}))
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def log(self, message: str, show: bool = True) -> None:
        """Write a line to ``train.log`` with the time, and to the console."""
        _append(self._log, f"{datetime.now().isoformat(sep=' ', timespec='seconds')} {message}")
        if show:
            say(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()
        for stream in (self._metrics, self._log):
            # What could not be written is tried again here; the first error says it all.
            with suppress(OSError) if error is not None else nullcontext():
                stream.close()


def _append(stream: TextIO, line: str) -> None:
    """Write a line now; an error names the file."""
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except OSError as error:
        error.filename = stream.name
        raise


def _drop_from(path: Path, step: int) -> None:
    """Keep the lines of steps before ``step``; a line cut off by a crash goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if parse_json(line, path, finite=False)["step"] < step:
                kept.append(line)
        except (InputError, LookupError, TypeError):
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


class Sums:
    """Running sums of logged parts; they stay on the device until an epoch's means are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        """Add one step's parts: scalars, or one value per class."""
        for name, value in parts.items():
            total, count = self._sums.get(name, (torch.zeros_like(value), 0))
            self._sums[name] = (total + value, count + 1)

    def means(self, classes: Sequence[str]) -> dict[str, float]:
        """Return the means and start again; a value per class becomes ``name/class``. The host waits for the device."""
        result = {}
        for name, (total, count) in self._sums.items():
            mean = (total / count).tolist()
            if isinstance(mean, list):
                result.update({f"{name}/{label}": value for label, value in zip(classes, mean, strict=True)})
            else:
                result[name] = mean
        self._sums = {}
        return result
