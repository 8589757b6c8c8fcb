"""Suites of rules that a method or a network must keep: one function per rule, one result per rule."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

SubjectT = TypeVar("SubjectT")


@dataclass(frozen=True)
class Result:
    """Outcome of one rule."""

    rule: str
    passed: bool
    message: str = ""


class ConformanceError(Exception):
    """A rule is broken; the message says how."""


def demand(condition: bool, message: str) -> None:
    """Raise :class:`ConformanceError` unless the condition holds."""
    if not condition:
        raise ConformanceError(message)


def first_of(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def reload_into(fresh: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state into a module of other weights by way of a file.

    Raises:
        ConformanceError: it holds more than tensors, or does not fit.
    """
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        fresh.load_state_dict(torch.load(file, weights_only=True))
    except Exception as error:  # whatever it is, it breaks the rule
        raise ConformanceError(f"the state does not load into a fresh copy: {error}") from error


def check_rules(subject: SubjectT, rules: Sequence[Callable[[SubjectT], None]]) -> list[Result]:
    """Check every rule, in order; the random state is left as it was.

    An exception inside the subject counts against the rule it came from.
    """
    results = []
    with torch.random.fork_rng(devices=[]):
        for rule in rules:
            try:
                rule(subject)
                results.append(Result(rule.__name__, True))
            except ConformanceError as violation:
                results.append(Result(rule.__name__, False, str(violation)))
            except Exception as error:  # a crash in one rule is its result; the others are still checked
                results.append(Result(rule.__name__, False, f"{type(error).__name__}: {error}"))
    return results
