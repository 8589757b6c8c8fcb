"""The two kinds of error a user can meet, and the exit codes that go with them."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence


class DuomodError(Exception):
    """Something failed that is not the user's doing (exit code 1)."""

    exit_code = 1


class InputError(DuomodError):
    """Wrong use or bad data (exit code 2).

    Args:
        problems: One message, or several; each names the file and says what to do. All problems that can be found
            are collected before this is raised, so that a folder is repaired in one pass.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


def in_one_line(text: str, most: int = 200) -> str:
    """Return a text from outside as a message can show it: control characters written out, cut after ``most``."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}..."


def nearest_name(wrong: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name closest to ``wrong``, or an empty string.

    Among thousands of names (the cases of a large data set) none is looked for: it would take seconds.
    """
    names = list(known)
    matches = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5) if len(names) <= 2000 else []
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown_name(what: str, wrong: str, known: Iterable[str]) -> str:
    """Return the sentence about a name that is none of the known ones: the nearest of them, and the list."""
    names = list(known)
    return f"unknown {what} '{wrong}'.{nearest_name(wrong, names)} Known: {', '.join(names)}"


_FULL = "free some space and run the command again; it goes on where it stopped."
_PERMISSION = "You may not read or write there: choose another folder or ask for its permissions."
#: What a user can do about a file-system error that is not duomod's doing (exit code 2).
_DISK_ERRORS = {
    errno.ENOSPC: f"The disk is full: {_FULL}",
    errno.EDQUOT: f"The disk quota is used up: {_FULL}",
    errno.EFBIG: "The file is larger than the system allows (ulimit -f): raise that limit and run the command again.",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "This is a read-only file system: choose another output folder.",
    errno.ENOENT: "There is no such file or folder: check the path.",
    errno.ENOTDIR: "A file is in the way of a folder: choose another output folder.",
    errno.EISDIR: "A folder is in the way of a file: choose another output path.",
    errno.EEXIST: "A file is in the way of a folder: choose another output folder.",
    errno.ENOTEMPTY: "Something is in the folder that was to go: move it away, or choose another output folder.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
    errno.EIO: "The disk failed, or is full: check it and run the command again; it goes on where it stopped.",
    errno.ESTALE: "The network drive was lost: check it and run the command again; it goes on where it stopped.",
    errno.EMFILE: "Too many files are open (ulimit -n): raise that limit, or use fewer workers.",
    errno.ENFILE: "Too many files are open on this machine: close something, or use fewer workers.",
    errno.ENOMEM: "There is not enough memory: use fewer workers, or a machine with more.",
    errno.ELOOP: "The links lead round in a circle: check the path.",
}


def explain_disk_error(error: OSError) -> str | None:
    """Return one line with the file, what is wrong and what to do; None if it is not about a file."""
    if error.errno is None or (error.errno not in _DISK_ERRORS and error.filename is None):
        return None
    what_to_do = _DISK_ERRORS.get(error.errno, "The system refuses this: check the path, or choose another one.")
    named = error.filename if error.filename is not None else "output"
    return f"{named}: {error.strerror}. {what_to_do}"
