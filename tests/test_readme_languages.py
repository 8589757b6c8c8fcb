"""README.zh-CN.md says what README.md says: the same sections, lists and tables, code, and links."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NAMES = ("README.md", "README.zh-CN.md")


@pytest.fixture(scope="module")
def texts() -> tuple[str, str]:
    english, chinese = ((REPOSITORY / name).read_text(encoding="utf-8") for name in NAMES)
    return english, chinese


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code(block: str) -> list[str]:
    """The commands of a block; comments and <what is to be filled in> are in the reader's language."""
    lines = [re.sub(r"<[^>]*>", "<>", re.sub(r"(^|\s)#.*", "", line)).rstrip() for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_sections_are_the_same(texts: tuple[str, str]) -> None:
    english, chinese = (
        [len(marks) for marks in re.findall(r"^(#+) ", prose(text), flags=re.MULTILINE)] for text in texts
    )
    assert len(english) > 3
    assert english == chinese


def test_every_section_has_as_many_points_and_rows(texts: tuple[str, str]) -> None:
    counts = [
        [
            (len(re.findall(r"(?m)^- ", part)), len(re.findall(r"(?m)^\|", part)))
            for part in re.split(r"(?m)^#+ ", prose(text))
        ]
        for text in texts
    ]
    assert counts[0] == counts[1]


def test_the_code_blocks_are_the_same(texts: tuple[str, str]) -> None:
    english, chinese = ([code(block) for block in blocks(text)] for text in texts)
    assert len(english) > 3
    assert english == chinese


def test_the_comments_in_the_code_are_as_many(texts: tuple[str, str]) -> None:
    english, chinese = ([block.count("# ") for block in blocks(text)] for text in texts)
    assert english == chinese


def test_commands_in_the_text_and_links_are_the_same(texts: tuple[str, str]) -> None:
    for pattern in (r"`([^`<>]+)`", r"\]\(([^)]+)\)"):
        english, chinese = (
            Counter(" ".join(found.split()) for found in re.findall(pattern, prose(text)) if found not in NAMES)
            for text in texts
        )
        assert english == chinese
