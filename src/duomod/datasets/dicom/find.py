"""From a folder tree to the DICOM series in it. Content decides what is DICOM, not names; only headers are read."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from duomod.datasets.case_names import is_scan
from duomod.datasets.dicom.header import Header, Unusable, quiet, read_header, text
from duomod.datasets.dicom.series import Candidate, Series
from duomod.datasets.dicom.stack import named, sentences
from duomod.errors import InputError

#: A name that is a hash or a number of a patient archive.
_HASH = re.compile(r"[0-9A-Fa-f-]{6,}")

#: So many sentences about files that are not read, one a folder.
_MOST_FOLDERS = 20


@dataclass
class Found:
    """What a folder tree holds.

    Attributes:
        series: The series that can be used.
        problems: What is wrong with the others, and with what may be part of one; each names folder and files.
        left_out: Sentences about files and series that are not read because they are something else.
        files: All files that these say something about.
    """

    series: list[Series] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)


@dataclass
class _Tree:
    """The files of a tree, sorted by what they are."""

    slices: list[Header] = field(default_factory=list)
    others: list[Header] = field(default_factory=list)
    damaged: list[tuple[Path, Unusable]] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)


@quiet()
def find_series(path: Path, chosen: str | None = None) -> Found:
    """Look for DICOM series in a file, a folder and all folders below.

    Each series is a case. Its id is the path of its folder from ``path`` on (or the name of ``path``), with the series'
    number where several are chosen from one folder.

    Args:
        path: A file, or a folder.
        chosen: UID, number or description of the series to take. None: the only one of each folder.

    Returns:
        Everything empty where there is no DICOM file.
    """
    tree = _sort(path)
    found = Found(files={header.path for header in (*tree.slices, *tree.others)} | {one for one, _ in tree.damaged})
    everything = _candidates(tree, found)
    # An overview that is a series of its own is no scan; within a series, its other orientation is refused.
    candidates = [one for one in everything if not all(header.is_localizer for header in one.headers)]
    _add_doubtful(tree, candidates, found)
    taken = _choose(path, candidates, chosen, found)
    _account(path, tree, candidates, found)
    if chosen is not None and taken:
        rest = [one for one in candidates if one not in taken]
        found.left_out += [f"{path}: not chosen by --series {chosen}: {_list(rest)}"] if rest else []
    ids = _case_ids(path, taken)
    for candidate, case_id in zip(taken, ids, strict=True):
        try:
            found.series.append(candidate.check(case_id))
        except InputError as error:
            found.problems += error.problems
    return found


def _walk(path: Path) -> Iterator[Path]:
    """Regular files below a path, each folder once even where links go in a circle."""
    if not path.is_dir():
        yield path
        return
    seen = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        where = Path(folder)
        seen.add(where.resolve())
        folders[:] = [name for name in sorted(folders) if (where / name).resolve() not in seen]
        yield from (where / name for name in sorted(names) if (where / name).is_file())


def _sort(path: Path) -> _Tree:
    tree = _Tree()
    for one in _walk(path):
        try:
            header = read_header(one)
            if header is None:
                tree.foreign.append(one)
            else:
                (tree.slices if header.is_slice else tree.others).append(header)
        except Unusable as reason:
            tree.damaged.append((one, reason))
    return tree


def _candidates(tree: _Tree, found: Found) -> list[Candidate]:
    """Slices by series."""
    groups: dict[tuple[Path, str], list[Header]] = defaultdict(list)
    for header in tree.slices:
        uid = text(header.data, "SeriesInstanceUID")
        # Where UIDs were taken out, the number is what is left.
        groups[header.path.parent, uid or f"number {text(header.data, 'SeriesNumber')}"].append(header)
    by_uid: dict[str, list[list[Header]]] = defaultdict(list)
    for (_, uid), headers in groups.items():
        by_uid[uid].append(headers)
    candidates = []
    for uid, parts in by_uid.items():
        named_uid = "" if uid.startswith("number") else uid
        candidates += [Candidate(named_uid, part) for part in (_join(parts, found) if named_uid else parts)]
    return candidates


def _join(parts: list[list[Header]], found: Found) -> list[list[Header]]:
    """One series from several folders, unless they hold copies of it."""
    if len(parts) == 1:
        return parts
    uids = [{text(header.data, "SOPInstanceUID") for header in part} for part in parts]
    if any("" in each for each in uids) or all(each == uids[0] for each in uids):
        return parts
    if sum(map(len, uids)) == len(set().union(*uids)):
        return [[header for part in parts for header in part]]
    folders = ", ".join(f"{part[0].path.parent} ({len(part)} files)" for part in parts)
    found.left_out.append(f"parts of one series that overlap, taken for a scan each: {folders}")
    return parts


def _add_doubtful(tree: _Tree, candidates: Sequence[Candidate], found: Found) -> None:
    """Hand each file that may be a slice to the series it may be of."""
    homeless: dict[Path, list[tuple[Path, Unusable]]] = defaultdict(list)
    for path, reason in tree.damaged:
        mine = [one for one in candidates if path.parent in one.folders]
        for candidate in mine:
            candidate.wrong.append((path, reason))
        if not mine:
            homeless[path.parent].append((path, reason))
    for folder, wrong in homeless.items():
        found.problems += sentences(folder, wrong)
    for candidate in candidates:
        uid = candidate.uid
        for header in tree.others:
            if uid and header.pixels and text(header.data, "SeriesInstanceUID") == uid:
                reason = Unusable(f"another kind of object ({header.kind_name})", "keep one stack only")
                candidate.wrong.append((header.path, reason))
        for path in tree.foreign:
            if path.parent in candidate.folders and _looks_like_one(path, candidate):
                found.files.add(path)
                what = "an empty file" if path.stat().st_size == 0 else "no DICOM content"
                candidate.wrong.append(
                    (path, Unusable(f"{what}, though named like a slice,", "copy it again or remove it"))
                )


def _looks_like_one(path: Path, candidate: Candidate) -> bool:
    """Whether a file that is not DICOM has a name like the slices beside it, up to the digits."""

    def shape(name: str) -> str:
        return re.sub(r"\d+", "0", name)

    if path.name.startswith(".") or is_scan(path):
        return False
    names = [header.path.name for header in candidate.headers]
    shapes = {shape(name) for name in names}
    # With an ending more: packed, or not downloaded to its end.
    if shape(path.name) in shapes or shape(path.stem) in shapes:
        return True
    endings = {Path(name).suffix.lower() for name in names}
    if path.suffix:
        return path.suffix.lower() in endings
    return bool(_HASH.fullmatch(path.name)) and any(map(_HASH.fullmatch, names))


def _choose(path: Path, candidates: list[Candidate], chosen: str | None, found: Found) -> list[Candidate]:
    """The series to read: the chosen ones, or all where each folder has one."""
    if chosen is not None:
        return _chosen(path, candidates, chosen, found)
    together: dict[Path, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        for folder in candidate.folders:
            together[folder].append(candidate)
    crowded = {folder: ones for folder, ones in together.items() if len(ones) > 1}
    for folder, ones in crowded.items():
        found.problems.append(
            f"{folder}: holds {len(ones)} DICOM series; choose one with --series, or put each in a folder of its own:"
            f" {_list(ones)}"
        )
    refused = {id(one) for ones in crowded.values() for one in ones}
    return [one for one in candidates if id(one) not in refused]


def _chosen(path: Path, candidates: list[Candidate], chosen: str, found: Found) -> list[Candidate]:
    wanted = chosen.strip()
    fits = [one for one in candidates if wanted and wanted in (one.uid, one.number, one.description)]
    if not fits:
        fits = [one for one in candidates if wanted and wanted.casefold() == one.description.casefold()]
    if not fits and candidates:
        found.problems.append(
            f"{path}: no series '{chosen}'; give the UID, number or description of one: {_list(candidates)}"
        )
    # In a folder of patients the same number or description chooses one series of each.
    scans: dict[str, list[Candidate]] = defaultdict(list)
    for one in fits:
        scans[text(one.headers[0].data, "StudyInstanceUID") or str(one.folder)].append(one)
    # Copies in several folders have one UID; each is a case.
    ambiguous = [ones for ones in scans.values() if len({one.uid or one.title for one in ones}) > 1]
    for ones in ambiguous:
        found.problems.append(
            f"{ones[0].folder}: '{chosen}' means {len(ones)} series; give the UID of one: {_list(ones)}"
        )
    return [one for one in fits if not any(one in ones for ones in ambiguous)]


def _list(candidates: Sequence[Candidate]) -> str:
    shown = [one.title for one in candidates[:20]]
    return "; ".join(shown) + (f"; {len(candidates) - 20} more" if len(candidates) > 20 else "")


def _account(path: Path, tree: _Tree, candidates: Sequence[Candidate], found: Found) -> None:
    """Say folder by folder which files are no slices, of the whole tree if there is a series in it."""
    suspects = {one for candidate in candidates for one, _ in candidate.wrong}
    used = {header.path for candidate in candidates for header in candidate.headers}
    kinds = {header.path: header.kind_name for header in tree.others}
    kinds |= {header.path: "localizer" for header in tree.slices if header.path not in used and header.is_localizer}
    if not kinds and not candidates:
        return
    # Scans in the folder itself are read otherwise.
    foreign = [
        one for one in tree.foreign if not one.name.startswith(".") and not (one.parent == path and is_scan(one))
    ]
    if candidates:
        kinds |= dict.fromkeys(foreign, "not DICOM")
        found.files |= set(foreign)
    left: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for one, kind in kinds.items():
        if one not in suspects:
            left[one.parent][kind].append(one)
    total = Counter(one.parent for one in found.files)
    slices = Counter(one.parent for one in used)
    texts = []
    for folder, by_kind in sorted(left.items()):
        files = f"{total[folder]} file{'' if total[folder] == 1 else 's'}, {slices[folder]} used as DICOM slices"
        others = ", ".join(f"{named(ones, folder)} ({kind})" for kind, ones in by_kind.items())
        texts.append(f"{folder}: {files}; not read: {others}")
    if not candidates and not found.problems:
        found.problems.append(
            f"{path}: no DICOM slices of a scan; {'; '.join(texts[:_MOST_FOLDERS])}; give the folder of a series"
        )
        return
    found.left_out += texts[:_MOST_FOLDERS]
    if len(texts) > _MOST_FOLDERS:
        found.left_out.append(f"{path}: {len(texts) - _MOST_FOLDERS} more folders with files that are not read")


def _case_ids(path: Path, taken: Sequence[Candidate]) -> list[str]:
    """A name for each series, unique and fit for a file name."""
    whole = path.resolve()
    # The name of a file, or of an archive that was unpacked to a folder of its name, without the ending.
    top = re.sub(r"\.(dcm|ima|dicom|zip)$", "", whole.name, flags=re.IGNORECASE)
    names = []
    for candidate in taken:
        below = candidate.folder.relative_to(path).parts if path.is_dir() else ()
        names.append(_safe("_".join(below) or top))
    ids: list[str] = []
    for name, candidate in zip(names, taken, strict=True):
        tries = [name] if names.count(name) == 1 else [f"{name}_{_safe(candidate.number)}"] if candidate.number else []
        tries += [f"{name}_{number}" for number in range(1, len(taken) + 2)]
        ids.append(next(one for one in tries if one not in ids))
    return ids


def _safe(name: str) -> str:
    """A name without what a file system or a list of cases could stumble on."""
    clean = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)
    return clean.strip(" .")[:120] or "scan"
