"""Where the tests find the reference numbers and the real data, and threads that fit a shared machine."""

from __future__ import annotations

import locale
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

REPOSITORY = Path(__file__).parents[1]

# Tests run in several processes at once; more threads each would only fight.
torch.set_num_threads(1)


def golden_folder() -> Path:
    """The folder with the reference implementation's numbers."""
    return Path(os.environ.get("DUOMOD_GOLDEN", REPOSITORY.parent / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = golden_folder()
    if not folder.is_dir():
        pytest.skip(f"no reference numbers at {folder}; set DUOMOD_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("DUOMOD_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DUOMOD_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Whatever ran before, and in whatever order: a test that fails once fails again."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def write_dicom() -> Callable[[sitk.Image, Path], None]:
    """``write_dicom(scan, folder)`` writes a scan as a CT series, a file a slice."""

    def write(scan: sitk.Image, folder: Path) -> None:
        folder.mkdir()
        before = locale.setlocale(locale.LC_ALL)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        direction = scan.GetDirection()
        scan = sitk.Cast(scan, sitk.sitkInt16)
        for number in range(scan.GetDepth()):
            part = scan[:, :, number : number + 1]
            tags = {
                "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
                "0008|0018": f"1.2.3.{number + 1}",
                "0008|0060": "CT",
                "0020|000d": "1.2.9",
                "0020|000e": "1.2.3",
                "0020|0013": str(number + 1),
                "0020|0032": "\\".join(map(str, part.GetOrigin())),
                "0020|0037": "\\".join(str(direction[i]) for i in (0, 3, 6, 1, 4, 7)),
            }
            for tag, value in tags.items():
                part.SetMetaData(tag, value)
            writer.SetFileName(str(folder / f"{number:03d}.dcm"))
            writer.Execute(part)
        locale.setlocale(locale.LC_ALL, before)  # writing DICOM sets the process to plain C: texts would be ASCII

    return write
