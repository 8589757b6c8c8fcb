"""Steps as data: a command line, what it needs, and how one sees that it is done. A plan is a checked list of them."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from duomod.errors import InputError, nearest_name


class Kind(StrEnum):
    """What a step does."""

    PREPROCESS = "preprocess"
    TRAIN = "train"
    PREDICT = "predict"
    EVALUATE = "evaluate"
    AGGREGATE = "aggregate"
    COMPARE = "compare"
    REPORT = "report"


@dataclass(frozen=True)
class Step:
    """One command of an experiment.

    Attributes:
        name: What messages call it; unique in a plan.
        kind: What it does.
        argv: The command line as it is printed: ``("duomod", "train", "--model", "cps", ...)``.
        needs: Steps that must have succeeded before; if one fails, this step is skipped.
        after: Steps that must have ended before, well or not: an average is taken over the seeds that there are.
        requires: Files and folders that must be there when it starts.
        reads: Further ones that its result depends on.
        done: Files and folders that are there when it has succeeded.
        gpus: GPUs it uses, where there are any.
        run: Folder of the training run, for its progress.
    """

    name: str
    kind: Kind
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    requires: tuple[Path, ...] = ()
    reads: tuple[Path, ...] = ()
    done: tuple[Path, ...] = ()
    gpus: int = 0
    run: Path | None = None

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All that its result depends on."""
        return (*self.requires, *self.reads)

    @property
    def command(self) -> list[str]:
        """What is run: ``argv``, with this very Python and package in place of the word ``duomod``."""
        if self.argv[0] == "duomod":
            return [sys.executable, "-m", *self.argv]
        return list(self.argv)

    def shell_line(self, environment: Mapping[str, str] | None = None) -> str:
        """``argv`` as a line that can be pasted into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
        return " ".join([*assignments, shlex.join(self.argv)])


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which they can be run.

    Raises:
        InputError: lists every name that is there twice, every unknown need, and steps that wait for each other.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError(problems)

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """The steps by name."""
        return {step.name: step for step in self.steps}

    def _problems(self) -> Iterator[str]:
        slugs = Counter(step.slug for step in self.steps)
        twice = sorted({step.name for step in self.steps if slugs[step.slug] > 1})
        if twice:
            yield f"steps with one name (or one file name): {', '.join(twice)}"
            return
        unknown = False
        for step in self.steps:
            for need in (*step.needs, *step.after):
                if need not in self.by_name:
                    unknown = True
                    nearest = nearest_name(need, self.by_name)
                    yield f"step '{step.name}' waits for '{need}', which is not a step.{nearest}"
        if not unknown and (circle := self._circle()):
            yield f"steps wait for each other: {' -> '.join(circle)}"
        elif not unknown and (late := self._out_of_order()):
            yield late

    def _circle(self) -> list[str]:
        """Names of steps that wait for each other, the first again at the end; empty if there are none."""
        left = {step.name: {*step.needs, *step.after} for step in self.steps}
        while free := [name for name, waits in left.items() if not waits & left.keys()]:
            for name in free:
                del left[name]
        if not left:
            return []
        path = [next(iter(left))]
        while path.count(path[-1]) == 1:
            path.append(min(left[path[-1]] & left.keys()))
        return path[path.index(path[-1]) :]

    def _out_of_order(self) -> str | None:
        seen: set[str] = set()
        for step in self.steps:
            late = [need for need in (*step.needs, *step.after) if need not in seen]
            if late:
                return f"step '{step.name}' is listed before '{late[0]}', for which it waits"
            seen.add(step.name)
        return None

    def script(self, environment: Mapping[str, str] | None = None) -> str:
        """All commands in order, each with its title as a comment: can be pasted into a shell."""
        return "\n".join(f"# {step.name}\n{step.shell_line(environment)}" for step in self.steps)


def levels(plan: Plan) -> list[list[Step]]:
    """Steps by how many others must come before them; steps of one level do not wait for each other."""
    depth: dict[str, int] = {}
    for step in plan.steps:
        depth[step.name] = 1 + max((depth[need] for need in (*step.needs, *step.after)), default=-1)
    return [[step for step in plan.steps if depth[step.name] == level] for level in sorted(set(depth.values()))]
