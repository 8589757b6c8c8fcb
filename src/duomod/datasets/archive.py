"""Scans in a zip archive: unpacked into a temporary folder, after everything that it says about itself was checked."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duomod.datasets.case_names import shown
from duomod.datasets.folder import listed
from duomod.errors import InputError
from duomod.workspace import part_folder

#: More is no study of a patient.
_MOST_FILES, _MOST_BYTES = 200_000, 200 << 30

#: Left free on the disk that is unpacked to, bytes.
_SPARE = 256 << 20

_CHUNK = 1 << 20


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder of an archive's content, which is removed at the end; anything but a zip archive is itself.

    The folder is named like the archive, so that messages name it; or it is the only folder in that. Its files are as
    old as the archive, so that the same archive is the same input again.

    Raises:
        InputError: damaged, encrypted, or it holds names that lead out of it, links, several files of one name, or more
            than the disk or the bounds allow. Nothing is unpacked then.
    """
    if not path.is_file() or not (zipfile.is_zipfile(path) or path.suffix.lower() == ".zip"):
        yield path
        return
    with part_folder(Path(tempfile.gettempdir())) as temporary:
        folder = temporary / path.name
        folder.mkdir()
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(path, archive, folder)
        except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
            raise InputError(f"{path}: damaged, or not a zip archive ({error}); copy it again, or unpack it") from None
        yield _only_folder(folder)


def _unpack(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    entries = {info: _place(info) for info in archive.infolist() if not info.is_dir() and not _is_of_a_mac(info)}
    problems = _problems(entries)
    size = sum(info.file_size for info in entries)
    room = min(_MOST_BYTES, shutil.disk_usage(folder).free - _SPARE)
    if len(entries) > _MOST_FILES or size > room:
        problems.append(
            f"{len(entries):,} files of {size / 1e9:,.1f} GB, where there is room for {_MOST_FILES:,} of"
            f" {max(room, 0) / 1e9:,.1f} GB in {folder.parent.parent}; unpack it, and give the folder"
        )
    if problems:
        raise InputError([f"{path}: {problem}" for problem in problems])
    facts = path.stat()
    damaged = []
    for info, place in entries.items():
        target = folder.joinpath(*place)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, open(target, "xb") as output:
                shutil.copyfileobj(source, output, _CHUNK)
        except (zipfile.BadZipFile, EOFError, zlib.error):
            damaged.append(shown(info.filename))
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{path}: {shown(info.filename)} is a file and a folder; unpack it by hand") from None
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    if damaged:
        raise InputError(f"{path}: damaged in {listed(damaged)}; copy the archive again")


def _place(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """The parts of an entry's path; some programs write backslashes."""
    return tuple(info.orig_filename.replace("\\", "/").split("/"))


def _is_of_a_mac(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is one that Macs add to every archive and nobody put there."""
    place = _place(info)
    return place[0] == "__MACOSX" or place[-1] in (".DS_Store", "Thumbs.db")


def _problems(entries: dict[zipfile.ZipInfo, tuple[str, ...]]) -> list[str]:
    """What forbids unpacking, each kind with the names."""
    kinds = {
        "names that lead out of it or cannot be file names": [
            info
            for info, place in entries.items()
            if any(part in ("", ".", "..") or not part.isprintable() for part in place) or ":" in place[0]
        ],
        "links": [info for info in entries if stat.S_ISLNK(info.external_attr >> 16)],
        "encrypted files": [info for info in entries if info.flag_bits & 1],
    }
    count = Counter(entries.values())
    kinds["several files of one name"] = [info for info, place in entries.items() if count[place] > 1]
    return [
        f"holds {kind} ({listed([shown(info.orig_filename) for info in infos])}); unpack it by hand and give the folder"
        for kind, infos in kinds.items()
        if infos
    ]


def _only_folder(folder: Path) -> Path:
    """Go down as long as there is one folder and nothing beside it."""
    while True:
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        (folder,) = inside
