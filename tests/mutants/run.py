"""Puts one fault at a time into a copy of the package and runs the tests that must notice: ``make mutants``.

The faults are in the TOML files beside this one. A fault whose text is not in its file exactly once is an error, so
that the list stays current.

    python tests/mutants/run.py [--jobs 2] [WORDS OF A NAME]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

REPOSITORY = Path(__file__).parents[2]
#: What a copy of the tree does not need.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "demo", "build", "dist")
#: Processes are forked from one that has imported what takes seconds, but nothing of the package.
STARTED = multiprocessing.get_context("forkserver")
PRELOADED = ["pytest", "torch", "torch.utils.tensorboard", "numpy", "pandas", "scipy", "SimpleITK", "pydantic", "yaml"]
#: Longest time of a mutant's tests; the slowest take a tenth of it.
TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Mutant:
    """One fault: ``find`` (exactly once in ``file``, below src/duomod) becomes ``replace``; ``tests`` must fail."""

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def applied(self, tree: Path) -> str:
        """The file's text with the fault.

        Raises:
            ValueError: the text is not there exactly once.
        """
        text = (tree / "src" / "duomod" / self.file).read_text(encoding="utf-8")
        if text.count(self.find) != 1:
            raise ValueError(f"'{self.name}': {self.file} has its text {text.count(self.find)} times, not once")
        return text.replace(self.find, self.replace)


def load_mutants() -> list[Mutant]:
    """All mutants, in the files' order."""
    mutants = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            tests = entry.pop("tests")
            mutants.append(Mutant(**entry, tests=(tests,) if isinstance(tests, str) else tuple(tests)))
    return mutants


def run_tests(tree: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests in a tree; returns pytest's exit code (-1: no end) and its output."""
    report = tree.parent / "output.txt"
    process = STARTED.Process(target=_pytest, args=(tree, tests, report))
    process.start()
    process.join(TIMEOUT_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return -1, f"no end after {TIMEOUT_SECONDS} s"
    return process.exitcode, report.read_text(encoding="utf-8", errors="replace")


def _pytest(tree: Path, tests: list[str], report: Path) -> None:
    """In a process of its own: the tree's package, one thread, output into a file, pytest's exit code."""
    output = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(tree)
    # A stale .pyc would hide a fault of the same length and second.
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONPATH=str(tree / "src"), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    sys.path.insert(0, str(tree / "src"))
    import pytest

    code = pytest.main(["-q", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def check(mutant: Mutant, tree: Path) -> tuple[bool, str]:
    """Whether the tests notice the fault, and which one did, or what went wrong."""
    target = tree / "src" / "duomod" / mutant.file
    sound = target.read_text(encoding="utf-8")
    try:
        target.write_text(mutant.applied(tree), encoding="utf-8")
        code, output = run_tests(tree, list(mutant.tests))
    except ValueError as error:
        return False, str(error)
    finally:
        target.write_text(sound, encoding="utf-8")
    failed = re.search(r"^FAILED (\S+)", output, re.MULTILINE)
    if code == 1 and failed:
        return True, failed.group(1).removeprefix("tests/")
    if code == 0:
        return False, "SURVIVED"
    return False, f"ERROR (pytest ended with {code}): {output.strip().splitlines()[-1:]}"


def main() -> int:
    """Run the mutants and print a table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Put faults into the package; the tests must notice each.")
    parser.add_argument("words", nargs="*", help="only mutants whose name or file has one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [m for m in load_mutants() if not options.words or any(w in f"{m.file} {m.name}" for w in options.words)]
    if not chosen:
        parser.error("no mutant of that name")
    began = time.monotonic()
    STARTED.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            trees.put(Path(shutil.copytree(REPOSITORY, Path(folder) / str(job) / "tree", ignore=LEFT_OUT)))
        tree = trees.get()
        code, output = run_tests(tree, sorted({test for mutant in chosen for test in mutant.tests}))
        trees.put(tree)
        if code != 0:
            print(f"{output}\nThe tests fail without any fault; mend them first.")
            return 1

        def one(mutant: Mutant) -> bool:
            start, tree = time.monotonic(), trees.get()
            try:
                killed, verdict = check(mutant, tree)
            finally:
                trees.put(tree)
            print(f"{mutant.name:70} {time.monotonic() - start:5.1f} s  {verdict}", flush=True)
            return killed

        with ThreadPoolExecutor(options.jobs) as pool:
            killed = list(pool.map(one, chosen))
    print(f"{sum(killed)} of {len(killed)} mutants killed in {time.monotonic() - began:.0f} s")
    return 0 if all(killed) else 1


if __name__ == "__main__":
    sys.exit(main())
