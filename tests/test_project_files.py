"""What the files beside the code say of it is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import duomod

REPOSITORY = Path(__file__).parents[1]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["version"] == duomod.__version__


def test_the_changelog_has_this_version_below_what_is_unreleased() -> None:
    releases = re.findall(r"(?m)^## (\S+)", read("CHANGELOG.md"))
    assert releases[:2] == ["Unreleased", duomod.__version__]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_file_and_folder_that_is_named_exists(page: str) -> None:
    named = re.findall(r"`((?:src|tests|docs)/[\w./<>]+)`|\]\(([\w./-]+)\)", read(page))
    places = {(path or link).partition("<")[0] for path, link in named}
    assert [place for place in sorted(places) if not (REPOSITORY / place).exists()] == []


def test_the_workflow_runs_on_the_versions_that_the_package_accepts() -> None:
    jobs = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]
    (oldest,) = re.findall(r'requires-python = ">=([\d.]+)"', read("pyproject.toml"))
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == oldest
    assert jobs["test"]["steps"][-1]["run"].startswith("make test")
