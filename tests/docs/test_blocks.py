"""The shell and Python blocks of the README and of ``docs/*.md`` run, on tiny data that lie where the page says.

But for :data:`LEFT_OUT`. YAML and TOML blocks are checked against what reads them; ``json`` and ``text`` only show.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel

from duomod.config import TrainConfig
from duomod.datasets.spec import DatasetSpec
from duomod.experiments.settings import PipelineConfig
from duomod.settings import checked
from duomod.workspace import parse_yaml

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAGES += [name for name in ("CONTRIBUTING.md",) if (ROOT / name).is_file()]
LANGUAGES = {"bash", "python", "yaml", "toml", "json", "text"}

#: What is appended to a command, so that it takes seconds. It wins over the page's own option of that name.
APPENDED = {
    "train": "--max_epochs 1 --steps_per_epoch 1 --patch 8,16,16 --precision fp32"
    " --set network.filters=2 --set network.levels=2 --set network.norm=instance",
    "phantom": "--cases 4 --unlabeled 1 --preset tiny",
    "compare": "--resamples 200",
    "view": "--output page",
}

#: The same for single pages.
APPENDED_ON = {"docs/results.md": {"phantom": "--cases 4"}}

#: What a page finds in its working folder: name there -> name in the lab, or a file of the repository.
GIVEN = {
    "README.md": {
        "Dataset/AMOS22": "raw",
        "logs/amos/supervised": "runs/supervised",
        "scans/patient_01.nii.gz": "raw/imagesVa/amos_0020.nii.gz",
    },
    "docs/add-a-method.md": {"data/amos": "preprocessed"},
    "docs/add-a-network.md": {"data/amos": "preprocessed"},
    "docs/evaluation.md": {
        "predictions": "runs/cps/seed_0/predictions",
        "labelsTs": "raw/labelsVa",
        "logs/amos/cps": "runs/cps",
        "logs/amos/duomodnet": "runs/duomodnet",
    },
    "docs/pipeline.md": {
        "Dataset/AMOS22": "raw",
        "Dataset/AMOS22_preprocessed": "preprocessed",
        "logs/amos/cps": "runs/cps",
        "logs/amos/duomodnet": "runs/duomodnet",
        "logs/amos/supervised": "runs/supervised",
        "run_unified_pipeline.sh": "/run_unified_pipeline.sh",
    },
    "docs/prediction.md": {"scans": "raw/imagesVa", "best_model.pth": "runs/cps/seed_0/ckpts/best_model.pth"},
    "docs/report.md": {f"runs/{name}": f"runs/{name}" for name in ("supervised", "cps", "duomodnet")},
    "docs/results.md": {"ct": "raw", "ct/dicom": "dicom"},
    "docs/training.md": {"DATA": "preprocessed"},
    "docs/viewer.md": {
        "scan.nii.gz": "raw/imagesVa/amos_0020.nii.gz",
        "prediction.nii.gz": "runs/cps/seed_0/predictions/amos_0020.nii.gz",
        "truth.nii.gz": "raw/labelsVa/amos_0020.nii.gz",
    },
}

#: Blocks that a page wants saved: (page, language) -> file names, in the page's order.
SAVED = {
    ("docs/add-a-method.md", "python"): ["ict.py"],
    ("docs/add-a-network.md", "python"): ["two_levels.py"],
    ("docs/pipeline.md", "yaml"): ["experiment.yaml"],
}

#: What reads the YAML blocks of a page. Later blocks of a page change single sections of the first.
READ_BY: dict[str, type[BaseModel]] = {
    "docs/augmentation.md": TrainConfig,
    "docs/data.md": DatasetSpec,
    "docs/pipeline.md": PipelineConfig,
}
#: Entry point groups that are looked up.
GROUPS = {f"duomod.{group}" for group in ("methods", "networks", "transforms", "executors")}

#: Pages whose commands each start from what is given, instead of from what the commands before left.
APART = {"docs/pipeline.md"}

#: Lines that cannot run here, with the reason. Nothing else is left out.
LEFT_OUT = {
    "git clone": "needs the address of a repository",
    "make ": "installs an environment of its own; what it runs is run by these tests",
    "pip install": "needs a package index",
    "python benchmarks/methods.py phantom": "trains for an hour; tests/benchmarks starts the script",
    "python benchmarks/": "takes hours, on data that are not shipped; tests/benchmarks starts every script",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    source = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", source, flags=re.DOTALL | re.MULTILINE)
    return [Block(page, source[: m.start()].count("\n") + 1, m.group(2), m.group(3)) for m in found]


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "yaml" for b in blocks(page))])
def test_yaml_is_what_a_model_reads(page: str) -> None:
    first, *others = [
        parse_yaml(block.text, f"{page}:{block.line}") for block in blocks(page) if block.language == "yaml"
    ]
    for change in ({}, *others):
        checked(READ_BY[page], {**first, **change}, source=f"{page}: ")


def test_toml_names_groups_that_are_looked_up() -> None:
    found = [tomllib.loads(block.text) for page in PAGES for block in blocks(page) if block.language == "toml"]
    assert len(found) > 3
    assert {group for table in found for group in table["project"]["entry-points"]} == GROUPS


def commands(text: str) -> str:
    """A block's lines without those that cannot run here."""
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith(tuple(LEFT_OUT)))


def prelude(page: str) -> str:
    """A shell function in place of ``duomod`` that appends what makes a command short."""
    appended = APPENDED | APPENDED_ON.get(page, {})
    cases = [f'    {name}) command duomod "$@" {extra} ;;' for name, extra in appended.items()]
    lines = [
        "set -euo pipefail",
        "duomod() {",
        '  case "$1" in',
        *cases,
        '    *) command duomod "$@" ;;',
        "  esac",
        "}",
    ]
    return "\n".join(lines) + "\n"


def run_bash(block: Block, folder: Path) -> None:
    """Run a block's commands as they are written, but for :data:`APPENDED` and :data:`LEFT_OUT`."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", prelude(block.page) + commands(block.text)],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"{block.page}, line {block.line}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


def prepare(page: str, lab: Path, folder: Path) -> None:
    """Put what the page takes for granted into its working folder."""
    for name, source in GIVEN.get(page, {}).items():
        origin = ROOT / source[1:] if source.startswith("/") else lab / source
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(origin, target)
        else:
            shutil.copy(origin, target)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page: str) -> None:
    assert not [f"line {b.line}: '{b.language}'" for b in blocks(page) if b.language not in LANGUAGES]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in ("bash", "python") for b in blocks(page))]
)
def test_what_a_page_says_works(page: str, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(page, lab, tmp_path)
    monkeypatch.chdir(tmp_path)
    saved = {language: list(names) for (of, language), names in SAVED.items() if of == page}
    namespace: dict[str, object] = {"__name__": page}
    for block in blocks(page):
        if saved.get(block.language):
            (tmp_path / saved[block.language].pop(0)).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            run_bash(block, tmp_path)
            if page in APART:
                prepare(page, lab, tmp_path)
        elif block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec", dont_inherit=True), namespace)
    assert not any(saved.values())
