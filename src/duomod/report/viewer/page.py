"""A folder that shows one case and opens offline: its files read, its classes named, its page written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from duomod.console import say
from duomod.datasets.case_names import case_id
from duomod.datasets.spec import Modality, load_spec, numbered_classes
from duomod.errors import InputError
from duomod.evaluation.naming import Naming, find_naming
from duomod.report.assets import copy_assets
from duomod.report.sources.scans import CaseImages, CaseSource, Overlay, label_array, read_case
from duomod.report.templates import render
from duomod.report.viewer.case import write_case
from duomod.report.viewer.settings import ViewSettings
from duomod.version import __version__
from duomod.workspace import write_text


def check_files(config: ViewSettings) -> None:
    """Make sure that all files are there, before anything is done with them.

    Raises:
        InputError: names every file that is not.
    """
    given = (config.case, *config.pred, *([config.gt] if config.gt else []))
    if problems := [f"{path}: file not found" for path in given if not path.exists()]:
        raise InputError(problems)


def view_page(folder: Path, config: ViewSettings) -> Path:
    """Write a folder that shows one case and opens offline.

    Args:
        folder: Target; made if it is not there.
        config: The case's files. Each prediction is called after its file, or where files are alike after what differs
            in their paths. ``config.dataset`` names the classes; by default a dataset.json near the label maps does,
            else they have numbers.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: a file is missing, cannot be read, has unknown labels or lies on another grid; all such files are
            listed.
    """
    check_files(config)
    maps = [path for path in (config.gt, *config.pred) if path is not None]
    naming = find_naming(maps[-1], maps[0], config.dataset, None) if maps else Naming()
    titles = _numbered(config.pred) if config.anonymous else _titles(config.pred)
    source = CaseSource(
        config.case,
        config.gt,
        [Overlay(title, path) for title, path in zip(titles, config.pred, strict=True)],
        naming.num_classes,
        _described_modality(config.dataset),
        naming.label_merges,
    )
    images, problems = read_case(source)
    if problems or images is None:
        raise InputError(problems)
    for sentence in images.doubts:
        say(sentence)
    name = "case_001" if config.anonymous else case_id(config.case.name)
    copy_assets(folder / "assets")
    write_case(folder / "cases" / "1.js", name, images, naming.classes or numbered_classes(_classes_in(images)))
    page = folder / "index.html"
    write_text(page, render("view.html.j2", case=name, version=__version__))
    return page


def _titles(paths: Sequence[Path]) -> list[str]:
    """File names without endings; where two are alike, the parts of the paths that differ, else numbers too."""
    titles = [case_id(path.name) for path in paths]
    if len(set(titles)) == len(titles):
        return titles
    parts = [[*path.absolute().parent.parts, title] for path, title in zip(paths, titles, strict=True)]
    shared = 0  # folders that all paths begin with
    while len({tuple(part[: shared + 1]) for part in parts}) == 1 and min(map(len, parts)) > shared + 1:
        shared += 1
    alike = 0  # ... and parts that all end with
    while len({tuple(part[-alike - 1 :]) for part in parts}) == 1 and min(map(len, parts)) > shared + alike + 1:
        alike += 1
    titles = ["/".join(part[shared : len(part) - alike]) for part in parts]
    if len(set(titles)) < len(titles):
        titles = [f"{title} ({number})" for number, title in enumerate(titles, start=1)]
    return titles


def _numbered(paths: Sequence[Path]) -> list[str]:
    """Names that say nothing about the files."""
    return ["prediction"] if len(paths) == 1 else [f"prediction {number}" for number in range(1, len(paths) + 1)]


def _classes_in(images: CaseImages) -> int:
    """As many classes as the label maps show, and at least two."""
    return max(2, *(int(label_array(one).max()) + 1 for one in images.maps)) if images.maps else 2


def _described_modality(dataset: str | None) -> Modality | None:
    """What a description says of all its scans; None where it goes by ids: a foreign scan's says nothing."""
    if dataset is None or dataset.endswith(".json"):
        return None
    spec = load_spec(dataset)
    return None if spec.modality_rules else spec.modality
