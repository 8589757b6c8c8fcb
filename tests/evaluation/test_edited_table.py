"""Numbers that the recorded hash does not belong to are never printed beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.errors import InputError
from duomod.evaluation.evaluate import run_evaluate
from duomod.evaluation.results import organs_path, read_organs, read_result
from duomod.evaluation.settings import EvaluateSettings


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A table of two cases and two classes; Dice 0.75 for the first class of b."""
    for folder, shift in (("truth", 0), ("predictions", 1)):
        (tmp_path / folder).mkdir()
        for case in ("a", "b"):
            labels = np.zeros((8, 8, 8), np.uint8)
            labels[0, 0, 0] = 2
            first = 2 + shift * (case == "b")
            labels[2:6, 2:6, first : first + 4] = 1
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / folder / f"{case}.nii.gz"))
    folders = {"pred_path": tmp_path / "predictions", "gt_path": tmp_path / "truth"}
    return run_evaluate(EvaluateSettings(**folders, workers=1, num_classes=3))


def test_a_table_or_its_organs_that_were_changed_are_refused(result: Path) -> None:
    assert len(read_organs(result)) == 4
    for path, read in ((result, read_result), (organs_path(result), read_organs)):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"a.nii.gz", b"A.nii.gz"))
        with pytest.raises(InputError, match=rf"{path.name}: was changed after it was written .*result\.json"):
            read(result)
        path.write_bytes(whole)
        read(result)


def test_without_its_description_it_is_a_table_made_elsewhere(result: Path) -> None:
    result.write_bytes(result.read_bytes().replace(b"0.75", b"0.95"))
    result.with_suffix(".json").unlink()
    found = read_result(result)
    assert found.info is None
    assert found.values["Dice"][1, 0] == 0.95


def test_organs_that_are_something_else(result: Path) -> None:
    result.with_suffix(".json").unlink()
    assert read_organs(result.with_name("other.csv")) is None
    organs_path(result).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="its columns are not Filename, Class"):
        read_organs(result)
    head = "Filename,Class,Name,Status,True_ml,Predicted_ml\n"
    organs_path(result).write_text(head + "a,1,x,gone,1,1\na,y,x,missed,1,1\n")
    with pytest.raises(InputError, match=r"row 2: 'gone' is not a valid OrganStatus.*\n.*row 3"):
        read_organs(result)
