"""Damaged files through the real commands: nothing may end in a traceback, hang, or be read otherwise without a word.

    python benchmarks/fuzz.py                      # 1,000 NIfTI, 300 DICOM, 300 texts, 100 checkpoints; writes fuzz.md
    python benchmarks/fuzz.py --quick              # 5 of each; exit code 1 if any is wrong
    python benchmarks/fuzz.py --only text --seed 7 --keep /tmp/wrong

An input is made from (seed, kind, number), so that one can be made again: ``--only nifti --first 412 --count 1``. Each
runs in a process of its own with limits on time and memory: ``duomod.cli.main`` in a forked child that has everything
imported, one of a hundred through a fresh ``python -m duomod``. Accepted scans are compared with nibabel and pydicom.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One thread, before the libraries are loaded: a forked child must not inherit pools whose threads it does not have.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")

import numpy as np
from fuzz_inputs import Trial, make_base
from fuzz_trials import TRIALS

from duomod.cli import main as duomod
from duomod.commands import COMMANDS, runner

COUNTS = {"nifti": 1000, "dicom": 300, "text": 300, "checkpoint": 100}
#: What an input may come to. The first two are right.
OUTCOMES = ("refused", "accepted", "traceback", "no memory", "hang", "killed", "other geometry")
SECONDS, BYTES = 120, 4 << 30
FRESH_EVERY = 100


@dataclass(frozen=True)
class Result:
    """What became of one input: one of :data:`OUTCOMES`, what was changed, and the last words."""

    kind: str
    number: int
    outcome: str
    what: str
    words: str


def main() -> None:
    """Make the inputs, run them, print what was wrong and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TRIALS, help="one kind")
    parser.add_argument("--count", type=int, help="inputs of each kind, instead of 1,000, 300, 300, 100")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--quick", action="store_true", help="5 of each kind, no table")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that were wrong")
    parser.add_argument("--output", type=Path, help="table; default: fuzz.md beside this script, after a whole run")
    arguments = parser.parse_args()
    kinds = [arguments.only] if arguments.only else list(TRIALS)
    count = 5 if arguments.quick else arguments.count
    whole = count is None and arguments.only is None and arguments.first == 0
    for command in COMMANDS:
        runner(command)  # imported here once, not in every child
    began = time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        base = Path(name) / "base"
        base.mkdir()
        _in_child(lambda: make_base(base), Path(name) / "making", 600)
        if not (base / "experiment.yaml").is_file():
            raise SystemExit((Path(name) / "making" / "words.txt").read_text(errors="replace"))
        for kind in kinds:
            last = arguments.first + (COUNTS[kind] if count is None else count)
            for number in range(arguments.first, last):
                result = run_one(kind, number, arguments.seed, base, Path(name) / "work", fresh=not arguments.quick)
                results.append(result)
                if result.outcome not in OUTCOMES[:2]:
                    print(f"{kind} {number}: {result.outcome}: {result.what}\n    {result.words}", flush=True)
                    if arguments.keep:
                        shutil.copytree(
                            Path(name) / "work", arguments.keep / f"{kind}_{number}", dirs_exist_ok=True, symlinks=True
                        )
                shutil.rmtree(Path(name) / "work", ignore_errors=True)
    text = table(results, arguments.seed, time.monotonic() - began)
    print(text)
    target = arguments.output or (Path(__file__).with_suffix(".md") if whole else None)
    if target is not None:
        target.write_text(text, encoding="utf-8")
        print(target)
    sys.exit(any(result.outcome not in OUTCOMES[:2] for result in results))


def run_one(kind: str, number: int, seed: int, base: Path, work: Path, fresh: bool) -> Result:
    """Make one input, run its command, and say what became of it."""
    work.mkdir()
    note = work / "trial.json"
    is_fresh = fresh and number % FRESH_EVERY == FRESH_EVERY - 1

    def child() -> None:
        rng = np.random.default_rng([seed, list(TRIALS).index(kind), number])
        trial: Trial = TRIALS[kind](base, work, rng)
        note.write_text(json.dumps({"what": trial.what, "command": trial.command}))
        code = _fresh(trial.command) if is_fresh else _code_of(lambda: duomod(trial.command))
        difference = trial.difference() if code == 0 else None
        note.write_text(json.dumps({"what": trial.what, "code": code, "difference": difference}))

    status = _in_child(child, work, SECONDS)
    facts: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {"what": "not made"}
    words = (work / "words.txt").read_text(encoding="utf-8", errors="replace")
    last = " | ".join(words.strip().splitlines()[-3:])[-400:]
    outcome = _outcome(status, facts.get("code"), words, facts.get("difference"))
    return Result(kind, number, outcome, facts["what"], facts.get("difference") or last)


def _outcome(status: int | None, code: int | None, words: str, difference: str | None) -> str:
    if status is None:
        return "hang"
    if os.WIFSIGNALED(status):
        return "killed"
    if "Traceback" in words or "something unforeseen" in words or code is None or code not in (0, 1, 2):
        return "traceback"
    if "not enough memory" in words:
        return "no memory"
    if difference:
        return "other geometry"
    return "accepted" if code == 0 else "refused"


def _code_of(call: Callable[[], None]) -> int:
    try:
        call()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _fresh(command: list[str]) -> int:
    """The same in a new interpreter, whose words come to the same place."""
    return subprocess.run([sys.executable, "-m", "duomod", *command]).returncode


def _in_child(work: Callable[[], None], folder: Path, seconds: float) -> int | None:
    """Run something in a forked process with limits; returns its wait status, or None where it had to be killed."""
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        words = os.open(folder / "words.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(words, 1)
        os.dup2(words, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        tempfile.tempdir = str(folder)
        code = _code_of(lambda: _shown(work))
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    latest = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > latest:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return status


def _shown(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        import traceback

        traceback.print_exc()
        raise SystemExit(1) from None


def table(results: list[Result], seed: int, seconds: float) -> str:
    """The counts in Markdown, with what was wrong below."""
    import nibabel
    import pydicom
    import SimpleITK
    import torch

    counts = {kind: Counter(r.outcome for r in results if r.kind == kind) for kind in TRIALS}
    lines = [
        "# Damaged inputs\n",
        "Seeded damage to files that duomod reads, each through a command; accepted scans are compared with nibabel",
        "and pydicom, voxels and geometry. `traceback` to `other geometry` must be 0.\n",
        "```\npython "
        + " ".join(["benchmarks/fuzz.py", *sys.argv[1:]])
        + f"   # seed {seed}, {seconds / 60:.0f} minutes",
        f"Python {platform.python_version()}, numpy {np.__version__}, nibabel {nibabel.__version__},"
        f" pydicom {pydicom.__version__}, SimpleITK {SimpleITK.__version__}, torch {torch.__version__}\n```\n",
        f"| inputs | made | {' | '.join(OUTCOMES)} |",
        "|---|---:" + "|---:" * len(OUTCOMES) + "|",
    ]
    for kind, found in counts.items():
        if found:
            lines.append(f"| {kind} | {found.total()} | {' | '.join(str(found[outcome]) for outcome in OUTCOMES)} |")
    wrong = [r for r in results if r.outcome not in OUTCOMES[:2]]
    lines += ["", *(f"* {r.kind} {r.number}: {r.outcome}: {r.what}" for r in wrong)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
