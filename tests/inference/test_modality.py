"""CT or MR: never by the digits in a foreign file's name."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from toy_model import SPEC, info, predict, problems_of, voxels

from duomod.datasets.spec import DatasetSpec, Modality
from duomod.datasets.spec import ModalityRule as NumberRule
from duomod.errors import InputError
from duomod.inference.modality import ModalityRule
from duomod.inference.predict import predict_image
from duomod.preprocessing.intensity_check import Intensities
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint
from duomod.workspace import PREDICTED

#: As AMOS: numbers from 500 on are MR.
BOTH = SPEC.model_copy(update={"name": "toys22", "modality_rules": (NumberRule(id_from=500, modality="MR"),)})


def body(air: bool = True) -> np.ndarray:
    rng = np.random.default_rng(0)
    array = rng.normal(40, 15, (24, 26, 18))
    array[6:12, 12:20, 5:12] += 250
    array[3:5] = rng.normal(-100, 10, (2, 26, 18))
    if air:
        array[:3] = rng.normal(-1000, 8, (3, 26, 18))
    return np.rint(array).astype(np.int16)


def mr() -> np.ndarray:
    rng = np.random.default_rng(1)
    array = np.abs(rng.normal(0, 5, (24, 26, 18)))
    array[4:-4, 4:-4] += rng.normal(400, 90, (16, 18, 18))
    return np.rint(np.abs(array)).astype(np.int16)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([2.2, 1.9, 3.3, 1.0])), path)
    return path


def model(folder: Path, *modalities: Modality) -> Path:
    of = info(spec=BOTH, modalities=modalities)
    path = folder / f"{''.join(modalities) or 'unrecorded'}.pth"
    save_checkpoint(path, build_method(of), of)
    return path


def how(out: Path) -> dict[str, tuple[str, str]]:
    record = json.loads((out / PREDICTED).read_text(encoding="utf-8"))
    assert set(record["modalities"]) == set(record["facts"])
    return {case: (modality, record["facts"][case]["told"]) for case, modality in record["modalities"].items()}


NAMES = ("ct_0712", "patient_20240131", "study_7", "toys_0712", "499", "500", "x")


@pytest.mark.parametrize("modalities", [("CT",), ("CT", "MR"), ()])
def test_equal_scans_give_equal_masks_whatever_their_names(
    modalities: tuple[Modality, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        save(tmp_path / "in" / f"{name}.nii.gz", body())
    for name, dataset in (("out", {}), ("named", {"dataset": str(described(tmp_path))})):
        out = predict(
            model_path=model(tmp_path, *modalities), output_path=tmp_path / name, input_path=tmp_path / "in", **dataset
        )
        masks = [voxels(out / f"{case}.nii.gz") for case in NAMES]
        assert all(np.array_equal(a, b) for a, b in itertools.pairwise(masks))
        by = "as the model was trained on nothing else" if modalities == ("CT",) else "by its voxels"
        assert how(out) == dict.fromkeys(NAMES, ("CT", by))
        assert f"1/{len(NAMES)} 499 (CT, {by})" in capsys.readouterr().err


def described(folder: Path) -> Path:
    path = folder / "toys.yaml"
    path.write_text(json.dumps(BOTH.model_dump(mode="json")), encoding="utf-8")
    return path


def test_a_model_of_one_modality_takes_every_scan_as_that(tmp_path: Path) -> None:
    for number, array in (("499", mr()), ("500", mr())):
        save(tmp_path / "in" / f"x_{number}.nii.gz", array)
    out = predict(model_path=model(tmp_path, "MR"), output_path=tmp_path / "out", input_path=tmp_path / "in")
    assert {modality for modality, _ in how(out).values()} == {"MR"}
    save(tmp_path / "in" / "a_ct.nii.gz", body())
    text = problems_of(
        lambda: predict(
            model_path=model(tmp_path, "MR"), output_path=tmp_path / "out", input_path=tmp_path / "in", strict=True
        )
    )
    assert "a_ct.nii.gz: " in text
    assert "a CT in HU, not MR" in text


def test_all_ambiguous_scans_are_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("x_600", "y_7", "z"):
        save(tmp_path / "in" / f"{name}.nii.gz", mr() if name == "z" else body(air=False))
    call = {"model_path": model(tmp_path, "CT", "MR"), "input_path": tmp_path / "in", "output_path": tmp_path / "out"}
    for strict in (False, True):
        (line,) = problems_of(lambda s=strict: predict(**call, strict=s)).splitlines()
        assert all(f"{name}.nii.gz" in line for name in ("x_600", "y_7", "z"))
        assert "--modality CT or --modality MR" in line
    assert not (tmp_path / "out").exists()
    for name in ("x_600", "y_7"):
        (tmp_path / "in" / f"{name}.nii.gz").unlink()
    assert how(predict(**call, modality="MR")) == {"z": ("MR", "as asked")}


def test_numbers_count_for_cases_of_the_set_that_the_user_names(tmp_path: Path) -> None:
    for name in ("toys_0499", "Toys_0500", "other_0500"):
        save(tmp_path / "in" / f"{name}.nii.gz", body(air=False) if "499" in name else mr())
    call = {"model_path": model(tmp_path), "input_path": tmp_path / "in", "dataset": str(described(tmp_path))}
    (line,) = problems_of(lambda: predict(**call, output_path=tmp_path / "out", strict=True)).splitlines()
    assert "other_0500" in line
    assert "toys" not in line.casefold().replace("toys.yaml", "")
    (tmp_path / "in" / "other_0500.nii.gz").unlink()
    assert how(predict(**call, output_path=tmp_path / "out")) == {
        "toys_0499": ("CT", "by its number in toys22"),
        "Toys_0500": ("MR", "by its number in toys22"),
    }


def test_what_the_user_says_is_checked_against_the_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = save(tmp_path / "a.nii.gz", ((body() + 1024) / 4095).astype(np.float32))
    call = {"model_path": model(tmp_path, "CT", "MR"), "input_path": scan, "modality": "CT"}
    text = problems_of(lambda: predict(**call, output_path=tmp_path / "out"))
    assert "a.nii.gz: " in text
    assert "no Hounsfield units" in text
    out = predict(**call, output_path=tmp_path / "out", accept_intensities=True)
    assert how(out) == {"a": ("CT", "as asked")}
    assert "doubtful: " in capsys.readouterr().err
    (doubt,) = json.loads((out / PREDICTED).read_text(encoding="utf-8"))["facts"]["a"]["doubts"]
    assert "no Hounsfield units" in doubt
    text = problems_of(lambda: predict(**{**call, "modality": "MR"}, output_path=save_ct(tmp_path)))
    assert "a CT in HU, not MR" in text


def save_ct(folder: Path) -> Path:
    save(folder / "a.nii.gz", body())
    return folder / "mr_out"


def test_a_dicom_header_counts_before_the_model(
    tmp_path: Path, write_dicom: Callable[[sitk.Image, Path], None]
) -> None:
    image = sitk.GetImageFromArray(body())
    image.SetSpacing((2.0, 2.0, 3.0))
    (tmp_path / "in").mkdir()
    write_dicom(image, tmp_path / "in" / "p_0712")
    call = {"input_path": tmp_path / "in", "output_path": tmp_path / "out"}
    out = predict(**call, model_path=model(tmp_path, "CT", "MR"))
    assert how(out) == {"p_0712": ("CT", "by its DICOM header")}
    text = problems_of(lambda: predict(**{**call, "output_path": tmp_path / "o"}, model_path=model(tmp_path, "MR")))
    assert "CT by its DICOM header, but the model was trained on MR only" in text


class TestInMemory:
    def test_the_same_rule_holds(self) -> None:
        model = build_method(info()).predictor().eval()

        def labels(array: np.ndarray, **how: object) -> np.ndarray:
            image = sitk.GetImageFromArray(array)
            return sitk.GetArrayFromImage(predict_image(model, of, image, **how))

        of = info(spec=BOTH)
        assert np.array_equal(labels(body()), labels(body(), modality="CT"))
        with pytest.raises(InputError, match=r"CT or MR.*modality='CT'"):
            labels(mr())
        with pytest.raises(InputError, match="a CT in HU, not MR"):
            labels(body(), modality="MR")
        of = info(spec=BOTH, modalities=("MR",))
        assert np.array_equal(labels(mr()), labels(mr(), modality="MR"))


def test_what_contradicts_is_said() -> None:
    rule = ModalityRule("CT", ("MR",))
    decided = rule.decide("a", "a", Intensities.of(body()), "MR")
    assert decided.doubts == (
        "a: CT as asked, but the model was trained on MR only",
        "a: CT as asked, but its DICOM header says MR",
    )


def test_old_models_may_have_seen_all_modalities_of_their_data_set() -> None:
    assert ModalityRule.of(info(spec=BOTH)).trained_on == ("CT", "MR")
    assert ModalityRule.of(info()).trained_on == ("CT",)
    assert ModalityRule.of(info(spec=BOTH, modalities=("MR",))).trained_on == ("MR",)
    with_rules = DatasetSpec(
        name="m", classes=("a", "b"), modality="MR", modality_rules=(NumberRule(id_from=1, modality="CT"),)
    )
    assert ModalityRule.of(info(spec=with_rules)).trained_on == ("CT", "MR")
