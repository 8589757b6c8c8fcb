"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import duomod

PACKAGE = Path(duomod.__file__).parent
STAGES = (
    "datasets",
    "preprocessing",
    "sampling",
    "networks",
    "losses",
    "methods",
    "training",
    "inference",
    "evaluation",
    "report",
    "experiments",
)
#: Stated in the module's own docstring.
EXCEPTIONS = {("training/validate.py", "inference")}


def imported_stages(source: Path) -> set[str]:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return {m.split(".")[1] for m in modules if m.startswith("duomod.") and m.split(".")[1] in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_a_later_one(stage: str) -> None:
    allowed = set(STAGES[: STAGES.index(stage) + 1])
    for source in (PACKAGE / stage).rglob("*.py"):
        name = source.relative_to(PACKAGE).as_posix()
        later = {found for found in imported_stages(source) - allowed if (name, found) not in EXCEPTIONS}
        assert not later, f"{name} imports the later stage(s) {sorted(later)}"


def test_there_is_no_drawer_for_leftovers() -> None:
    names = {path.stem for path in PACKAGE.rglob("*")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"], ["demo", "--help"]])
def test_help_loads_nothing_heavy_and_shows_an_example(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom duomod.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "Example: duomod" in done.stdout


def test_every_command_has_help_with_an_example() -> None:
    from duomod.cli import app

    assert app.registered_commands
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__, command.name
        assert (command.epilog or "").startswith(f"Example: duomod {command.name}"), command.name
