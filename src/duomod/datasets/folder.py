"""What a folder of scans or label maps holds: the files of each case, and every file that is not read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duomod.datasets.case_names import case_id, check_case_id, is_scan, shown
from duomod.errors import InputError

#: At most so many names are listed in a sentence.
_MOST_NAMES = 10


@dataclass(frozen=True)
class Content:
    """What a folder holds.

    Attributes:
        folder: The folder.
        files: Scans or label maps by case id, in the order of their names.
        unread: Names of the other entries; of a sub-folder with a slash and the number of scans in it.
        problems: Sentences about files that should be read and cannot be told apart, or whose name is no case id.
        total: Number of files in the folder itself, hidden ones included; a ``.mhd`` and its voxels are one.
    """

    folder: Path
    files: dict[str, Path]
    unread: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    total: int = 0

    @property
    def summary(self) -> str:
        """One line: how many files there are, how many of them are used, and the names of the others."""
        text = f"{self.folder}: {self.total} file{'' if self.total == 1 else 's'}, {len(self.files)} used"
        return f"{text}; not read: {listed(self.unread)}" if self.unread else text


def content(folder: Path, image_suffix: str = "") -> Content:
    """Look into a folder of scans or label maps; sub-folders are named and not entered.

    Args:
        folder: One that does not exist is an empty one.
        image_suffix: Stripped from names to get the case id; label maps have none.

    Raises:
        InputError: the folder cannot be listed.
    """
    if not folder.is_dir():
        return Content(folder, {})
    by_id: dict[str, list[Path]] = {}
    unread: list[str] = []
    problems: list[str] = []
    total = 0
    entries = _entries(folder)
    names = {path.name for path in entries}
    for path in entries:
        is_folder = path.is_dir()
        total += not is_folder
        if is_folder and is_scan(path):
            problems.append(f"{shown(path)}: a folder that is named like a scan; move the file in it to {folder}")
        elif is_folder:
            unread.append(_of_folder(path))
        elif is_scan(path):
            try:
                by_id.setdefault(check_case_id(case_id(path.name, image_suffix)), []).append(path)
            except ValueError as error:
                problems.append(f"{shown(path)}: {error}; rename the file")
        elif _is_voxels_of_mhd(path, names):
            total -= 1
        else:
            unread.append(shown(path.name))
    problems += [
        f"{folder}: {len(paths)} files of the case {case}: {listed([path.name for path in paths])}; keep one of them"
        for case, paths in by_id.items()
        if len(paths) > 1
    ]
    return Content(folder, {case: paths[0] for case, paths in by_id.items()}, tuple(unread), tuple(problems), total)


def without_suffix(files: Mapping[str, Path], partners: Collection[str], image_suffix: str) -> dict[str, Path]:
    """Files by case id, where an id that has no partner loses the image suffix if it has one then.

    The suffix belongs to names of images; some data sets name their label maps just like them.
    """
    renamed = {}
    for case, path in files.items():
        short = case.removesuffix(image_suffix)
        alone = case not in partners and short in partners and short not in files
        renamed[short if alone else case] = path
    return renamed


def listed(names: Sequence[str]) -> str:
    """Names in one line, the first ten of them where there are many."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); ask for its permissions") from None


def _of_folder(folder: Path) -> str:
    """A sub-folder's name, with the number of scans that lie in it."""
    try:
        scans = sum(map(is_scan, folder.iterdir()))
    except OSError:
        scans = 0
    return f"{shown(folder.name)}/" + (f" ({scans} scan{'' if scans == 1 else 's'})" if scans else "")


def _is_voxels_of_mhd(path: Path, names: set[str]) -> bool:
    """Whether a file holds the voxels of a MetaImage header beside it, with which it is read."""
    return path.suffix.lower() in (".raw", ".zraw") and any(f"{path.stem}{end}" in names for end in (".mhd", ".MHD"))
