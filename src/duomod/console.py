"""What people see: one console, and progress bars that become plain lines when the output is not a terminal."""

from __future__ import annotations

import codecs
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

#: What our own texts hold beyond ASCII, in letters that every console has.
_PLAIN_LETTERS = {"±": "+-", "×": "x", "≥": ">=", "≤": "<=", "→": "->", "…": "...", "–": "-", "—": "-", "³": "3"}


def _legible(letter: str, encoding: str) -> bytes:
    """A character as bytes of an encoding that may not have it: a file name's byte that is no text by its number."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}".encode(encoding)
    return _PLAIN_LETTERS.get(letter, letter).encode(encoding, "replace")


def take_any_text() -> None:
    """Let standard output and error take every text, whatever their encoding: no command fails because of its words.

    Where the encoding is not Unicode, our own signs are written in ASCII even if it has them: what a program writes in
    one code page is often read in another. Other letters, those of file names, are as the encoding has them.
    """
    for stream in (sys.stdout, sys.stderr):
        # Not every stand-in for a console can change: a test's, a notebook's, or none at all.
        if not hasattr(stream, "reconfigure"):
            continue
        encoding = codecs.lookup(stream.encoding).name

        def stand_in(error: UnicodeError, encoding: str = encoding) -> tuple[bytes, int]:
            if not isinstance(error, UnicodeEncodeError):
                raise error
            letters = error.object[error.start : error.end]
            return b"".join(_legible(letter, encoding) for letter in letters), error.end

        codecs.register_error(f"duomod-{encoding}", stand_in)
        unicode = encoding.startswith("utf") or "a".encode(encoding) != b"a"
        stream.reconfigure(encoding=None if unicode else "ascii", errors=f"duomod-{encoding}")


#: Results go to standard output, everything about the way there to standard error.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def plain() -> None:
    """Print plain lines even on a terminal: for processes that share it with others."""
    global err
    err = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=False)


def say(message: str) -> None:
    """Print one line about the work in progress (standard error, no markup)."""
    err.print(message, markup=False)


#: How a plain line says how far it is: ``12/40``, often with the seconds left.
_PROGRESS = re.compile(r"\b(\d+)/(\d+)(?:, (\d+) s left)?\b")


def progress_in(text: str) -> tuple[int, int, float | None] | None:
    """What the last of :func:`progress`'s plain lines in a text says: done, total, and seconds left if it says so."""
    found = _PROGRESS.findall(text)
    if not found:
        return None
    done, total, left = found[-1]
    return int(done), int(total), float(left) if left else None


class Advance(Protocol):
    """Moves a progress display on by one unit, with an optional note (a loss, a case's name)."""

    def __call__(self, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Advance]:
    """A progress display with the time left: a bar on a terminal, else a plain line at most every ten seconds."""
    if err.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=err, refresh_per_second=4) as bar:
            task = bar.add_task(title, total=total, completed=start, note="")

            def advance_bar(note: str = "") -> None:
                bar.update(task, advance=1, note=note)

            yield advance_bar
        return

    began = last = time.monotonic()
    done = start

    def advance_line(note: str = "") -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done == total or now - last >= 10:
            last = now
            left = (now - began) / max(done - start, 1) * (total - done)
            say(f"{title}: {done}/{total}, {left:.0f} s left {note}".rstrip())

    yield advance_line
