"""A zip archive is unpacked only if all of it can be, into a folder that is gone afterwards."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from duomod.datasets import archive
from duomod.datasets.archive import unpacked
from duomod.errors import InputError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where archives are unpacked to; nothing may be left there, nor anything appear beside it."""
    folder = tmp_path / "temporary" / "place"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert [path.name for path in folder.parent.iterdir()] == ["place"]


def packed(path: Path, files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as content:
        for name, data in files.items():
            content.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught, unpacked(path):
        pass
    (text,) = caught.value.problems
    assert text.startswith(f"{path}: ")
    return text


def test_the_content_and_nothing_else(tmp_path: Path, place: Path) -> None:
    files = {"a/1.dcm": b"one", "a/b/2.dcm": b"two" * 100_000, "c.txt": b"", "inner.zip": b"PK"}
    path = packed(tmp_path / "scan.zip", files | {"__MACOSX/a/._1.dcm": b"x", "a/.DS_Store": b"x"})
    with unpacked(path) as folder:
        assert folder.name == "scan.zip"
        found = {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
        assert found == files
        assert {one.stat().st_mtime_ns for one in folder.rglob("*") if one.is_file()} == {path.stat().st_mtime_ns}
        assert folder.is_relative_to(place)


def test_it_is_gone_after_an_error_too(tmp_path: Path, place: Path) -> None:
    path = packed(tmp_path / "scan.zip", {"a": b"1"})
    with pytest.raises(KeyboardInterrupt), unpacked(path):
        raise KeyboardInterrupt


def test_the_only_folder_is_the_content(tmp_path: Path, place: Path) -> None:
    with unpacked(packed(tmp_path / "scan.zip", {"john/ct/1.dcm": b"1", "john/ct/2.dcm": b"2"})) as folder:
        assert (folder.name, len(list(folder.iterdir()))) == ("ct", 2)


def test_backslashes_of_windows(tmp_path: Path, place: Path) -> None:
    path = packed(tmp_path / "scan.zip", {"a/1.dcm": b"1", "b": b"2"})
    path.write_bytes(path.read_bytes().replace(b"a/1.dcm", b"a\\1.dcm"))
    with unpacked(path) as folder:
        assert (folder / "a" / "1.dcm").read_bytes() == b"1"


def test_whatever_is_no_archive_is_itself(tmp_path: Path, place: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(b"x" * 400)
    for path in (tmp_path, tmp_path / "scan.nii", tmp_path / "missing"):
        with unpacked(path) as same:
            assert same == path


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/out", "C:/out", "..\\out", "a//b", "./a", "a/.", "bad\x07name", "a\x00.dcm"]
)
def test_names_that_lead_elsewhere(tmp_path: Path, place: Path, name: str) -> None:
    path = packed(tmp_path / "scan.zip", {"good.dcm": b"1", "x" * len(name): b"2"})
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    assert "names that lead out of it or cannot be file names" in refusal(path)


def test_links(tmp_path: Path, place: Path) -> None:
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w") as content:
        link = zipfile.ZipInfo("passwords")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(link, "/etc/passwd")
    assert "holds links (passwords)" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_several_files_of_one_name(tmp_path: Path, place: Path) -> None:
    path = packed(tmp_path / "scan.zip", {"a": b"1"})
    with zipfile.ZipFile(path, "a") as content:
        content.writestr("a", b"2")
    assert "several files of one name (a, a)" in refusal(path)


def test_a_file_that_is_a_folder(tmp_path: Path, place: Path) -> None:
    assert "is a file and a folder" in refusal(packed(tmp_path / "scan.zip", {"a": b"1", "a/b": b"2"}))


def test_encrypted(tmp_path: Path, place: Path) -> None:
    path = packed(tmp_path / "scan.zip", {"a": b"1"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # in the file's own header, and in the list at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted files (a)" in refusal(path)


@pytest.mark.parametrize(("bound", "value"), [("_MOST_FILES", 2), ("_MOST_BYTES", 1000)])
def test_more_than_there_is_room_for(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(archive, bound, value)
    path = packed(tmp_path / "scan.zip", {str(number): bytes(500) for number in range(3)})
    assert "unpack it, and give the folder" in refusal(path)


def test_a_header_that_lies_about_the_size(tmp_path: Path, place: Path) -> None:
    """No more than it says is ever written."""
    path = packed(tmp_path / "scan.zip", {"a": bytes(1 << 20)})
    size = (1 << 20).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (100).to_bytes(4, "little")))
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("kind", ["cut", "flipped", "no archive"])
def test_damaged(tmp_path: Path, place: Path, kind: str) -> None:
    path = packed(tmp_path / "scan.zip", {"a.dcm": bytes(range(256)) * 9, "b.dcm": b"2"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    if kind == "flipped":
        data[200] ^= 1
    path.write_bytes({"cut": data[:-30], "flipped": data, "no archive": b"hello"}[kind])
    text = refusal(path)
    assert ("damaged in a.dcm" if kind == "flipped" else "damaged, or not a zip archive") in text
