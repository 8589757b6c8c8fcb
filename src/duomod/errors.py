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
    """Return `` Did you mean 'x'?`` for the known name closest to ``wrong``, or an empty string."""
    matches = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown_name(what: str, wrong: str, known: Iterable[str]) -> str:
    """Return the sentence about a name that is none of the known ones: the nearest of them, and the list."""
    names = list(known)
    return f"unknown {what} '{wrong}'.{nearest_name(wrong, names)} Known: {', '.join(names)}"


#: What a user can do about a file-system error that is not duomod's doing (exit code 2).
_DISK_ERRORS = {
    errno.ENOSPC: "The disk is full: free some space and run the command again; it goes on where it stopped.",
    errno.EDQUOT: "The disk quota is used up: free some space and run the command again; it goes on where it stopped.",
    errno.EFBIG: "The file is larger than the system allows (ulimit -f): raise that limit and run the command again.",
    errno.EACCES: "You may not read or write there: choose another folder or ask for its permissions.",
    errno.EPERM: "You may not read or write there: choose another folder or ask for its permissions.",
    errno.EROFS: "This is a read-only file system: choose another output folder.",
    errno.ENOENT: "There is no such file or folder: check the path.",
    errno.ENOTDIR: "A file is in the way of a folder: choose another output folder.",
    errno.EISDIR: "A folder is in the way of a file: choose another output path.",
    errno.EEXIST: "A file is in the way of a folder: choose another output folder.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
}


def explain_disk_error(error: OSError) -> str | None:
    """Return one line with the file, what is wrong and what to do; None if the error is not one a user can mend."""
    if error.errno not in _DISK_ERRORS:
        return None
    return f"{error.filename or 'output'}: {error.strerror}. {_DISK_ERRORS[error.errno]}"
