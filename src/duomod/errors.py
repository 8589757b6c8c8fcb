"""The two kinds of error a user can meet, and the exit codes that go with them."""

from __future__ import annotations

import difflib
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


def nearest_name(wrong: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name closest to ``wrong``, or an empty string."""
    matches = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""
