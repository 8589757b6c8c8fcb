"""Scans that could not be predicted: what went wrong, in sentences that name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from duomod.errors import DuomodError, InputError, explain_disk_error, in_one_line
from duomod.failure import write_log
from duomod.inference.inputs import Case
from duomod.inference.modality import AmbiguousError, ambiguous

#: How torch and ITK say that the computer's memory is used up.
_NO_MEMORY = ("DefaultCPUAllocator", "Failed to allocate memory")


@dataclass(frozen=True)
class Failure:
    """A scan that could not be predicted.

    Attributes:
        case: Its id; None where it has none.
        file: The file or folder.
        problems: Sentences, each of which names the file.
        wrong_input: The user's to mend.
        ambiguous: Nothing tells whether it is CT or MR.
    """

    case: str | None
    file: Path
    problems: tuple[str, ...]
    wrong_input: bool = True
    ambiguous: bool = False


def failure_of(case: Case, error: Exception) -> Failure:
    """What went wrong with one scan, in sentences that name it. What nobody foresaw is written into a log."""
    name, file = case.case_id, case.source
    if isinstance(error, AmbiguousError):
        return Failure(name, file, tuple(ambiguous([str(file)])), ambiguous=True)
    if isinstance(error, InputError):
        return Failure(name, file, error.problems)
    if isinstance(error, OSError):
        return Failure(name, file, (explain_disk_error(error) or f"{file}: cannot be read ({error})",))
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        text = f'{name}: the GPU\'s memory is too small; use a smaller --batch_size, or the CPU (--gpu "")'
    elif isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        text = f"{name}: the computer's memory is too small for it; free some, or use a smaller --batch_size"
    elif isinstance(error, DuomodError):
        text = f"{name}: {error}"
    else:
        log = write_log(error)
        where = f"; the details are in {log}" if log else ""
        text = f"{file}: {type(error).__name__}: {in_one_line(str(error))}{where}"
    return Failure(name, file, (text,), wrong_input=False)


def lines_of(failures: Sequence[Failure]) -> list[str]:
    """All problems, one a line; the scans of which nothing tells what they are, together in the last one."""
    unclear = [str(one.file) for one in failures if one.ambiguous]
    return [text for one in failures if not one.ambiguous for text in one.problems] + ambiguous(unclear)
