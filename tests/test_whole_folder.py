"""A folder is replaced by a new one only if nothing of anyone's is lost, and whenever the process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from duomod import whole_folder as folders
from duomod.errors import InputError
from duomod.whole_folder import check_replaceable, replaced_folder, write_record

RECORD = "report.json"


def write(output: Path, text: str) -> None:
    with replaced_folder(output, RECORD, "report") as folder:
        (folder / "assets").mkdir()
        (folder / "assets" / "page.js").write_text(text)
        (folder / "index.html").write_text(text)
        write_record(folder, RECORD, {"duomod": "1", "numbers": {1: (0.1, None), 10: -0.0, 2: 1e22}})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["swapped", "renamed"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to exchange folders: that of Linux, and that of all others."""
    if request.param == "renamed":
        monkeypatch.setattr(folders, "_swapped", lambda first, second: False)


@pytest.mark.usefixtures("swap")
def test_an_older_one_is_replaced_whole_and_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "report", "first")
    write(tmp_path / "report", "second")
    assert content(tmp_path / "report")["assets/page.js"] == b"second"
    assert os.listdir(tmp_path) == ["report"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    write(tmp_path / "report", "first")
    assert (tmp_path / "report" / "index.html").is_file()


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in it would find themselves in one that is gone."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="current folder"):
        check_replaceable(Path(), RECORD, "report")


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "report").symlink_to("elsewhere")
    write(tmp_path / "report", "first")
    write(tmp_path / "report", "second")
    assert (tmp_path / "report").is_symlink()
    assert (tmp_path / "elsewhere" / "index.html").read_text() == "second"


def edit(path: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)

    return change


def link(folder: Path) -> None:
    (folder / "index.html").rename(folder.parent / "page.html")
    (folder / "index.html").symlink_to(folder.parent / "page.html")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a note": (edit("notes.txt", "from the meeting"), r"notes\.txt: is not of the report"),
    "a note deep inside": (edit("assets/mine/a.txt", "x"), r"a\.txt: is not of the report"),
    "an empty folder": (lambda folder: (folder / "mine").mkdir(), r"mine: a folder that is not of the report"),
    "a hidden file": (edit(".gitignore", "*"), r"\.gitignore: is not of the report"),
    "a page with remarks": (edit("index.html", "edited"), r"index\.html: was changed"),
    "a link in a file's place": (link, r"index\.html: is not of the report"),
    "an edited record": (
        lambda folder: edit(RECORD, (folder / RECORD).read_text().replace("0.1", "0.2"))(folder),
        r"report\.json: was changed",
    ),
    "someone else's record": (edit(RECORD, '{"title": "my report"}'), r"report\.json: not the list of files"),
    "a record that is no JSON": (edit(RECORD, "{"), r"report\.json: not a valid JSON"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_of_the_older_one_is_named_and_kept(tmp_path: Path, what: str) -> None:
    change, named = CHANGES[what]
    write(tmp_path / "report", "first")
    change(tmp_path / "report")
    before = content(tmp_path)
    with pytest.raises(InputError, match=named):
        check_replaceable(tmp_path / "report", RECORD, "report")
    with pytest.raises(InputError, match=named):
        write(tmp_path / "report", "second")
    assert content(tmp_path) == before


def test_a_folder_with_any_report_json_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / RECORD).write_text('{"duomod": "1", "files": {}}')
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError):
        write(tmp_path / "thesis", "first")
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years of work"


def test_a_file_and_many_files_in_the_way_are_refused_in_short(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a folder"):
        check_replaceable(tmp_path / "file", RECORD, "report")
    write(tmp_path / "report", "first")
    for number in range(30):
        (tmp_path / "report" / f"{number}.txt").write_text("x")
    with pytest.raises(InputError) as caught:
        check_replaceable(tmp_path / "report", RECORD, "report")
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1].endswith("and 20 more")


@pytest.mark.usefixtures("swap")
def test_what_comes_in_while_the_new_one_is_made_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "report"
    write(output, "first")
    # After the last look before the exchange.
    monkeypatch.setattr(folders, "check_replaceable", lambda *_: edit("notes.txt", "late")(output))
    write(output, "second")
    assert (output / "index.html").read_text() == "second"
    assert (tmp_path / "report.older" / "notes.txt").read_text() == "late"


def test_a_failure_leaves_the_older_one_alone(tmp_path: Path) -> None:
    write(tmp_path / "report", "first")
    before = content(tmp_path)
    whole = replaced_folder(tmp_path / "report", RECORD, "report")
    (whole.__enter__() / "index.html").write_text("half")
    assert whole.__exit__(RuntimeError, RuntimeError("disk"), None) is not True
    assert content(tmp_path) == before


#: Ends the process at the n-th of the calls that change what stands where.
KILLED = """
import os, sys, pathlib
sys.path.insert(0, {tests!r})
from duomod import whole_folder as folders
from test_whole_folder import write
left = {number}
def dying(call):
    def now(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **named)
    return now
pathlib.Path.rename = dying(pathlib.Path.rename)
folders._swapped = dying(folders._swapped) if {swap} else (lambda *_: False)
folders._foreign = dying(folders._foreign)
write(pathlib.Path({output!r}), "second")
"""


@pytest.mark.parametrize("swap", [True, False])
def test_one_of_both_stands_whenever_it_is_killed(tmp_path: Path, swap: bool) -> None:
    codes = []
    for number in range(7):
        output = tmp_path / str(number) / "report"
        write(output, "first")
        script = KILLED.format(tests=str(Path(__file__).parent), number=number, swap=swap, output=str(output))
        codes.append(subprocess.run([sys.executable, "-c", script], check=False).returncode)
        # Between two renames the older one is beside its place, under a name that says so.
        found = output if output.exists() else output.with_name("report.older")
        assert content(found)["index.html"] in (b"first", b"second")
        check_replaceable(found, RECORD, "report")
    assert set(codes) == {0, 9}
