"""One step as a process of its own, with its log and its record. All executors run steps this way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from duomod.errors import DuomodError
from duomod.experiments import guard
from duomod.experiments.records import HEARTBEAT, SILENCE, Record, Records, born, failure, fingerprint
from duomod.experiments.steps import Step

#: Exit code of a command that saved its state when it was asked to stop, and those of one that was ended at once.
SAVED = 130
ENDED = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)
#: Seconds between two looks at a process.
LOOK = 0.1


@dataclass(eq=False)
class StepProcess:
    """A step being run.

    Its process leads a group of its own, so that Ctrl-C in a terminal reaches it only through us, and so that all it
    started can be ended with it, also if this process is killed.

    Attributes:
        step: What is run.
        records: Where its log and record go.
        environment: Changes of the environment.
        stopping: It was asked to stop.
    """

    step: Step
    records: Records
    environment: Mapping[str, str] = field(default_factory=dict)
    stopping: bool = False

    def start(self) -> None:
        """Start the process; its log goes on after those of earlier attempts.

        Raises:
            DuomodError: another process runs the step.
        """
        with self.records.starting():
            before = self.records.read(self.step)
            if before is not None and before.state == "running":
                raise DuomodError(f"is being run by process {before.pid} on {before.host}; wait for it, or end it")
            self._start(before)
        self._touched = time.monotonic()

    def _start(self, before: Record | None) -> None:
        log = self.records.log(self.step)
        with open(log, "ab") as errors, open(self.records.output(self.step), "wb") as output:
            errors.write(f"$ {self.step.shell_line(self.environment)}\n".encode())
            errors.flush()
            log_start = errors.tell()
            inputs = fingerprint(self.step.inputs)
            self._process = subprocess.Popen(
                self.step.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        _guard_knows(f"+{self._process.pid}")
        self._record = Record(
            step=self.step.name,
            argv=self.step.argv,
            state="running",
            host=socket.gethostname(),
            pid=self._process.pid,
            born=born(self._process.pid),
            attempt=before.attempt + 1 if before and before.state == "interrupted" else 1,
            started=time.time(),
            log_start=log_start,
            inputs=inputs,
        )
        self.records.write(self.step, self._record)

    def poll(self) -> Record | None:
        """Look whether it has ended; returns the final record then, and None while it runs."""
        if self._record.state != "running":
            return self._record
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self._touched > HEARTBEAT:
                self.records.touch(self.step)
                self._touched = time.monotonic()
            return None
        self._kill_group()  # a command that crashed may have left workers behind
        _guard_knows(f"-{self._process.pid}")
        self._record = self._ended(code)
        self.records.write(self.step, self._record)
        return self._record

    def wait(self) -> Record:
        """Wait for the end; if waiting is interrupted, the step is stopped first."""
        try:
            while (record := self.poll()) is None:
                time.sleep(LOOK)
        except BaseException:
            self.terminate()
            self.finish()
            raise
        return record

    def terminate(self) -> None:
        """Ask it to stop: a training saves its state and ends."""
        self.stopping = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def finish(self, grace: float = guard.GRACE) -> Record:
        """Give it time to stop, then kill it and all it started."""
        latest = time.monotonic() + grace
        while (record := self.poll()) is None:
            if time.monotonic() > latest:
                self._kill_group()
            time.sleep(LOOK)
        return record

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _ended(self, code: int) -> Record:
        missing = [str(path) for path in self.step.done if not path.exists()]
        changes: dict[str, object] = {"finished": time.time(), "exit_code": code}
        if code == 0 and not missing:
            return self._record.model_copy(
                update={**changes, "state": "done", "outputs": fingerprint(self.step.done)},
            )
        if code == SAVED or (self.stopping and code in ENDED):
            return self._record.model_copy(update={**changes, "state": "interrupted"})
        reason = f"it ended well, but there is no {', '.join(missing)}" if code == 0 else self._reason(code)
        return self._record.model_copy(update={**changes, "state": "failed", "reason": reason})

    def _reason(self, code: int) -> str:
        log = bytes_since(self.records.log(self.step), self._record.log_start)
        said = failure(log.decode("utf-8", errors="replace"))
        return said if code > 0 else f"ended by signal {signal.Signals(-code).name}; the log's last line: {said}"


def run_step(process: StepProcess) -> None:
    """Run a step to its end: what executors hand to other hosts.

    If an earlier attempt is still being ended (its host was lost, or it is saving its state), that is waited for.

    Raises:
        DuomodError: it failed or was interrupted.
    """
    latest = time.monotonic() + guard.GRACE + SILENCE
    while (before := process.records.read(process.step)) is not None and before.state == "running":
        if time.monotonic() > latest:
            raise DuomodError(f"{process.step.name}: is being run by process {before.pid} on {before.host}")
        time.sleep(LOOK)
    process.start()
    record = process.wait()
    if record.state != "done":
        raise DuomodError(record.reason or record.state)


def bytes_since(path: Path, start: int) -> bytes:
    """What stands in a file from a position on."""
    with open(path, "rb") as stream:
        stream.seek(start)
        return stream.read()


@cache
def _guard() -> subprocess.Popen[bytes]:
    """The process that ends our steps if we are killed; one for this process."""
    return subprocess.Popen(
        [sys.executable, "-I", guard.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _guard_knows(line: str) -> None:
    stream = _guard().stdin
    assert stream is not None
    with contextlib.suppress(BrokenPipeError):  # someone ended the guard: we can still end our steps ourselves
        stream.write(f"{line}\n".encode())
        stream.flush()
