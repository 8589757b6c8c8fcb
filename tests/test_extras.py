"""Without the optional packages: what needs them says so in one line, before it begins; everything else imports."""

from __future__ import annotations

import ast
import re
import subprocess
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


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["report", "logs", "--output", "out"], "duomod report"),
        (["view", "scan.nii.gz", "--no_browser"], "duomod view"),
        (["demo", "--output", "out"], "duomod demo"),
        (["compare", "a.csv", "b.csv", "c.csv", "--baseline", "a", "--output", "out"], "a comparison of more than two"),
    ],
)
def test_a_command_that_draws_stops_before_it_begins(tmp_path: Path, arguments: list[str], what: str) -> None:
    without = f"import sys; sys.modules.update(dict.fromkeys({list(REPORT_PACKAGES)}))"
    code = f"{without}; from duomod.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert what in done.stderr
    assert "needs matplotlib, plotly, scikit-image: pip install 'duomod[report]'" in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
