"""The list of faults stays current. The faults themselves are run by ``make mutants``, not here."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

RUN = runpy.run_path(str(Path(__file__).with_name("run.py")))
REPOSITORY: Path = RUN["REPOSITORY"]
MUTANTS: list[Any] = RUN["load_mutants"]()


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_can_be_put_in(mutant: Any) -> None:
    faulty = mutant.applied(REPOSITORY)
    assert faulty != (REPOSITORY / "src" / "duomod" / mutant.file).read_text(encoding="utf-8")
    compile(faulty, mutant.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_the_tests_that_must_kill_it_are_there(mutant: Any) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, *names = test.split("::")
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        for name in names:
            assert re.search(rf"^\s*(def|class) {re.escape(name.split('[')[0])}\b", text, re.MULTILINE), test


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len(MUTANTS) >= 25
    assert not [name for name, count in Counter(m.name for m in MUTANTS).items() if count > 1]
