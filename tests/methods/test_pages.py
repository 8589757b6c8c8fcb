"""docs/methods: a page a method that names every setting of it truthfully, and citations that lead somewhere.

The tables of settings are made from the methods; after a change of a setting, write them anew:

    python tests/methods/test_pages.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from duomod.config import PRESETS, TrainConfig, train_config
from duomod.methods.base import MethodConfig
from duomod.methods.registry import METHODS, builtin_names
from duomod.sampling.transforms.base import Transform

REPOSITORY = Path(__file__).parents[2]
PAGES = REPOSITORY / "docs" / "methods"
SOURCES = ("src", "tests", "docs", "benchmarks")


def shown(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(entry, Transform) for entry in value):
        return ", ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{before}{name}.")
        else:
            yield before + name, value


def at(config: TrainConfig, dotted: str) -> Any:
    value: Any = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def training_rows(changes: Mapping[str, Any], word: str) -> list[list[str]]:
    plain, published = train_config("default"), train_config("reference", changes)
    return [[f"`{name}`{word}", shown(at(plain, name)), shown(at(published, name))] for name, _ in leaves(changes)]


def method_rows(config: type[MethodConfig]) -> list[list[str]]:
    """Setting, default, reference, meaning: its own settings, and shared ones whose values are its own."""
    plain, published = config.preset("default"), config.preset("reference")
    shared = MethodConfig.preset("default"), MethodConfig.preset("reference")
    rows = []
    for name, field in config.model_fields.items():
        values = [getattr(plain, name), getattr(published, name)]
        if name not in MethodConfig.model_fields or values != [getattr(each, name) for each in shared]:
            rows.append([f"`{name}`", *map(shown, values), field.description or ""])
    return [*rows, *([*row, ""] for row in training_rows(config.reference_training, " (training)"))]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


SETTINGS = ["setting", "`default`", "`reference`", "what it is"]


def expected_tables(name: str) -> list[str]:
    """The tables of settings that a page (a method's, or ``README``) should hold."""
    if name == "README":
        plain, published = MethodConfig.preset("default"), MethodConfig.preset("reference")
        shared = [
            [f"`{name}`", shown(getattr(plain, name)), shown(getattr(published, name)), field.description or ""]
            for name, field in MethodConfig.model_fields.items()
        ]
        return [table(SETTINGS, shared), table(SETTINGS[:3], training_rows(PRESETS["reference"], ""))]
    rows = method_rows(METHODS.load(name).Config)
    return [table(SETTINGS, rows)] if rows else []


def found_tables(text: str) -> list[str]:
    """The tables of settings in a page."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [each.strip() for each in found if each.startswith("| setting |")]


def write_tables() -> None:
    """Put the right tables of settings where a page has others."""
    for path in PAGES.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for old, new in zip(found_tables(text), expected_tables(path.stem), strict=True):
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_every_method_has_a_page_and_every_page_a_method() -> None:
    assert sorted(path.stem for path in PAGES.iterdir()) == sorted([*builtin_names(), "README"])


@pytest.mark.parametrize("name", [*builtin_names(), "README"])
def test_a_page_names_every_setting_with_its_values(name: str) -> None:
    assert found_tables(page(name)) == expected_tables(name), "run: python tests/methods/test_pages.py"


@pytest.mark.parametrize("name", builtin_names())
def test_every_setting_has_a_meaning(name: str) -> None:
    fields = METHODS.load(name).Config.model_fields
    assert [setting for setting, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("name", builtin_names())
def test_a_page_gives_equations_settings_and_the_paper(name: str) -> None:
    text, info = page(name), METHODS.load(name).info
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert {"Settings", "Sources"} <= set(headings)
    assert {"Equations", "Loss"} & set(headings)
    if "implementation" not in info.paper:
        assert info.paper.split(",")[0].split(" and ")[0].removesuffix(" et al.") in text


def test_the_index_lists_all_methods() -> None:
    lines = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (.+) \|$", page("README"), re.MULTILINE)
    assert lines == [(name, name, METHODS.load(name).info.summary) for name in builtin_names()]


def test_links_between_the_pages_lead_to_a_section() -> None:
    for path in PAGES.iterdir():
        for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", path.read_text(encoding="utf-8")):
            goal = (PAGES / target).resolve() if target else path
            assert goal.is_file(), f"{path.name}: {target}"
            headings = re.findall(r"^#+ (.+)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, f"{path.name}: {target}#{anchor}"


def citations() -> Iterator[tuple[Path, str]]:
    for folder in SOURCES:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in {".py", ".md"} and path != Path(__file__):
                yield path, path.read_text(encoding="utf-8")


def test_citations_lead_to_a_section() -> None:
    found = 0
    for path, text in citations():
        for cited, section in re.findall(r"docs/methods/(\w+)\.md, ([\w -]+)", text):
            found += 1
            headings = re.findall(r"^## (.+)$", page(cited), re.MULTILINE)
            assert any(section.strip().startswith(heading) for heading in headings), f"{path}: {cited}, {section}"
    assert found > 40


def test_no_file_cites_pages_of_another_place() -> None:
    elsewhere = re.compile(r"METHODS (?:part )?\d|METHODS" + r"\.md")
    assert [str(path) for path, text in citations() if elsewhere.search(text)] == []


if __name__ == "__main__":
    write_tables()
