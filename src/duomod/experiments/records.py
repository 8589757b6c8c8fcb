"""What is known of each step, in one small file a step: written by whoever runs it, read by anyone, on any host.

A step is under way while its process lives (on this host) or its file is touched (on another one); what says that it is
under way and is not, was interrupted.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from duomod.experiments.steps import Step
from duomod.locks import hold
from duomod.version import __version__
from duomod.workspace import write_text

#: Seconds between two signs of life of a running step, and after how many without one it is taken for dead.
HEARTBEAT = 15.0
SILENCE = 60.0

Outcome = Literal["running", "done", "failed", "interrupted"]


class Record(BaseModel):
    """The last attempt at a step. Times are seconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: str
    argv: tuple[str, ...]
    state: Outcome
    duomod: str = __version__
    host: str
    pid: int = Field(gt=0, lt=2**31)
    born: int | None = None
    attempt: int = 1
    started: float
    finished: float | None = None
    exit_code: int | None = None
    reason: str = ""
    log_start: int = 0  #: where the log of this attempt begins, after the command line
    inputs: str = ""
    outputs: str = ""


@dataclass(frozen=True)
class Records:
    """The folder of an experiment's step records and logs."""

    folder: Path

    def path(self, step: Step) -> Path:
        """The record of a step."""
        return self.folder / f"{step.slug}.json"

    def log(self, step: Step) -> Path:
        """What a step says about its work (standard error), all attempts one after another."""
        return self.folder / f"{step.slug}.log"

    def output(self, step: Step) -> Path:
        """What a step's last attempt gave as its result (standard output)."""
        return self.folder / f"{step.slug}.out"

    def read(self, step: Step) -> Record | None:
        """The record of a step; one that was under way and is not any more reads as interrupted."""
        path = self.path(step)
        try:
            record = Record.model_validate_json(path.read_bytes())
            touched = path.stat().st_mtime
        except (OSError, ValidationError):
            return None
        if record.state == "running" and not _alive(record, touched):
            return record.model_copy(update={"state": "interrupted", "finished": touched})
        return record

    def write(self, step: Step, record: Record) -> None:
        """Replace the record of a step."""
        write_text(self.path(step), record.model_dump_json(indent=1) + "\n")

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Wait until no other process, on whatever host, is about to start a step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".starting", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            hold(handle, wait=True)
            yield
        finally:
            os.close(handle)

    def touch(self, step: Step) -> None:
        """Give a sign of life."""
        os.utime(self.path(step))

    def forget(self, step: Step) -> None:
        """Remove the record of a step that is about to be done again."""
        self.path(step).unlink(missing_ok=True)

    def is_done(self, step: Step) -> bool:
        """Whether a step's last attempt succeeded, and command, version, inputs and outputs are what they were then."""
        record = self.read(step)
        return (
            record is not None
            and record.state == "done"
            and record.argv == step.argv
            and record.duomod == __version__
            and all(path.exists() for path in step.done)
            and record.inputs == fingerprint(step.inputs)
            and record.outputs == fingerprint(step.done)
        )


def _alive(record: Record, touched: float) -> bool:
    if record.host == socket.gethostname():
        return record.born == born(record.pid)
    return time.time() - touched < SILENCE


def born(pid: int) -> int | None:
    """When a process of this host began, in the system's own count: tells it from a later one with its number.

    Returns:
        None if there is no such process, 0 where the system does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _alive_without_proc(pid)
    # The program's name, in brackets, may hold blanks; the state and 18 further fields lie between it and the time.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[19])


def _alive_without_proc(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def fingerprint(paths: Sequence[Path]) -> str:
    """Name, size and time of change of files, and of all files in folders, as one hexadecimal number."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.name.startswith(".") or file.is_dir():
                continue
            try:
                found = file.stat()
            except OSError:
                digest.update(f"{file} missing\n".encode())
            else:
                digest.update(f"{file} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def failure(log: str) -> str:
    """What a failed step's log says went wrong: its ``error:`` lines, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            return "\n".join([lines[number].removeprefix("error: "), *lines[number + 1 :]])
    return lines[-1] if lines else "it said nothing"
