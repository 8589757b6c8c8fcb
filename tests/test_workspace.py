"""Files are whole or not there, whoever is killed and whatever the disk does; and the reason is told."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from duomod.errors import InputError, explain_disk_error
from duomod.workspace import atomic_path, part_folder, sweep_parts, write_text

WRITE = """
import sys
from pathlib import Path
from duomod.workspace import atomic_path, part_folder
with atomic_path(Path(sys.argv[1]) / "big.pth") as part, part_folder(Path(sys.argv[1])) as folder:
    part.write_bytes(b"half")
    (folder / "page").write_bytes(b"half")
    print("begun", flush=True)
    sys.stdin.read()
"""


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".part-*"))


class TestParts:
    def test_those_of_a_living_process_stay_and_those_of_a_killed_one_go(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", WRITE, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        sweep_parts(tmp_path)
        assert len(parts(tmp_path)) == 2
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert len(parts(tmp_path)) == 2
        sweep_parts(tmp_path, tmp_path / "not there")
        assert not parts(tmp_path)

    def test_the_first_thing_that_is_written_into_a_folder_sweeps_it(self, tmp_path: Path) -> None:
        for folder in ("tables", "report"):
            (tmp_path / folder / ".part-abcdefgh").mkdir(parents=True)
            (tmp_path / folder / ".part-abcdefgh" / "page").touch()
            (tmp_path / folder / ".part-12345678.nii.gz").touch()
        write_text(tmp_path / "tables" / "result.csv", "")
        with part_folder(tmp_path / "report"):
            assert len(parts(tmp_path / "report")) == 1
        assert [path.name for path in tmp_path.glob("*/*")] == ["result.csv"]

    def test_a_user_s_file_of_a_similar_name_stays(self, tmp_path: Path) -> None:
        for name in (".part-1", ".part-of-my-notes", ".partial", "part-abcdefgh", ".part-ABCDEFGH"):
            (tmp_path / name).touch()
        sweep_parts(tmp_path)
        assert len(list(tmp_path.iterdir())) == 5

    def test_without_locks_only_old_ones_go(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("duomod.workspace.hold", lambda handle, wait=False: None)
        for name, age in (("abcdefgh", 3600), ("12345678", 3 * 24 * 3600)):
            path = tmp_path / f".part-{name}.pth"
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
        sweep_parts(tmp_path)
        assert [path.name for path in parts(tmp_path)] == [".part-abcdefgh.pth"]
        write_text(tmp_path / "text", "whole")
        assert (tmp_path / "text").read_text() == "whole"

    def test_a_finished_file_is_the_target_and_no_part(self, tmp_path: Path) -> None:
        with part_folder(tmp_path) as folder:
            write_text(folder / "a", "whole")
            os.replace(folder / "a", tmp_path / "a")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


#: Fails a write halfway, as a full disk does. numpy keeps the reason to itself; ITK has an error of its own.
LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from duomod.errors import explain_disk_error
from duomod.workspace import atomic_path
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
def numpy(path): np.zeros(40000).tofile(path)
def archive(path): np.savez(path, a=np.zeros(40000))
def own_error(path):
    try:
        numpy(path)
    except OSError:
        raise RuntimeError("it did not work")
for write in (numpy, archive, own_error):
    try:
        with atomic_path(Path(sys.argv[1]) / "a.npz") as part:
            write(part)
    except OSError as error:
        print(explain_disk_error(error))
"""


class TestErrors:
    def test_every_failed_write_has_the_file_the_reason_and_what_to_do(self, tmp_path: Path) -> None:
        done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
        said = "File too large. The file is larger than the system allows (ulimit -f): raise that limit and run the"
        expected = f"{tmp_path / 'a.npz'}: {said} command again."
        assert done.stdout.splitlines() == [expected] * 3, done.stderr
        assert not list(tmp_path.iterdir())

    def test_a_write_that_fails_for_no_known_reason_is_told_too(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="could not be written whole") as failed, atomic_path(tmp_path / "a"):
            raise OSError("40000 requested and 1000 written")
        assert str(explain_disk_error(failed.value)).startswith(f"{tmp_path / 'a'}: it could not be written whole (4")

    def test_what_is_no_error_of_writing_stays_what_it_is(self, tmp_path: Path) -> None:
        for error in (ValueError("wrong shape"), InputError("bad data"), KeyboardInterrupt()):
            with pytest.raises(type(error)) as raised, atomic_path(tmp_path / "a"):
                raise error
            assert raised.value is error
        with pytest.raises(FileNotFoundError) as missing, atomic_path(tmp_path / "a"):
            np.load(tmp_path / "input.npy")
        assert missing.value.filename == str(tmp_path / "input.npy")
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_may_not_be_written_to_names_the_target(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**where: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".part-12345678"))

        monkeypatch.setattr("tempfile.mkstemp", refuse)
        with pytest.raises(PermissionError) as refused:
            write_text(tmp_path / "a.txt", "")
        assert str(explain_disk_error(refused.value)).startswith(f"{tmp_path / 'a.txt'}: Permission denied. You may")

    def test_an_error_that_is_about_no_file_is_not_explained(self) -> None:
        assert explain_disk_error(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")) is None
        assert explain_disk_error(OSError("a message alone")) is None
        assert "shorter" in str(explain_disk_error(OSError(errno.ENAMETOOLONG, "File name too long", "x")))
        assert str(explain_disk_error(OSError(errno.ENXIO, "No such device", "x"))).startswith("x: No such device. The")
