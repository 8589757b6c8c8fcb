"""Without the optional packages: what needs them says so in one line, before it begins; everything else imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import duomod
from duomod.errors import InputError
from duomod.extras import REPORT_PACKAGES, require_report_packages

REPOSITORY = Path(__file__).parents[1]


def test_the_extra_has_the_packages_that_are_asked_for() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {re.split("[<>=!]", one)[0] for one in extras["report"]} == set(REPORT_PACKAGES.values())


def test_no_module_imports_them_at_its_top() -> None:
    for source in Path(duomod.__file__).parent.rglob("*.py"):
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & set(REPORT_PACKAGES), source


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_report_packages("this test")  # all are installed here
    for module in ("plotly", "skimage"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError) as caught:
        require_report_packages("duomod report")
    assert caught.value.problems == ("duomod report needs plotly, scikit-image: pip install 'duomod[report]'",)
