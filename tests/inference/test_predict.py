"""Label maps on exactly the scans' grids, from scans and from preprocessed cases, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn
from toy_model import (
    CASES,
    SPEC,
    assert_nearly_equal,
    hu_volume,
    info,
    predict,
    problems_of,
    raw_file,
    voxels,
    write_scan,
)

import duomod.inference.predict as module
from duomod.datasets.grid import Geometry
from duomod.errors import InputError
from duomod.inference.predict import predict_image
from duomod.inference.settings import WindowSettings
from duomod.training.build import build_method
from duomod.training.checkpoint import save_checkpoint


def listed(path: Path, *cases: str) -> Path:
    path.write_text("\n".join(cases) + "\n", encoding="utf-8")
    return path


class ByBrightness(nn.Module):
    """Class 1 from -25 HU, class 2 from 175 HU, sharply: the window [-125, 275] maps them to 0.25 and 0.75."""

    outputs_probabilities = True

    def forward(self, x: Tensor) -> Tensor:
        label = (x > 0.25).long() + (x > 0.75).long()
        return nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the checkpoint's network by one whose answer is known."""
    monkeypatch.setattr(module, "predictor_of", lambda *_, **__: (ByBrightness().eval(), info()))


def dice(a: np.ndarray, b: np.ndarray, label: int) -> float:
    return 2 * ((a == label) & (b == label)).sum() / ((a == label).sum() + (b == label).sum())


class TestPredictImage:
    @pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "ILA"])
    @pytest.mark.parametrize("blending", ["uniform", "gaussian"])
    def test_finds_the_bright_organ_in_any_orientation(self, orientation: str, blending: str) -> None:
        image = sitk.GetImageFromArray(np.ascontiguousarray(hu_volume(0, (30, 34, 28)).transpose(2, 1, 0)))
        image.SetSpacing((2.4, 2.1, 3.3))
        image = sitk.DICOMOrient(image, orientation)
        result = predict_image(ByBrightness(), info(), image, WindowSettings.model_validate({"blending": blending}))
        assert Geometry.of(result) == Geometry.of(image)
        assert result.GetPixelID() == sitk.sitkUInt8
        hu = sitk.GetArrayFromImage(image)
        expected = (hu > -25).astype(int) + (hu > 175)
        assert dice(sitk.GetArrayFromImage(result), expected, 1) > 0.95
        assert dice(sitk.GetArrayFromImage(result), expected, 2) > 0.95

    def test_a_scan_smaller_than_the_patch(self) -> None:
        image = sitk.GetImageFromArray(np.linspace(230, 280, 60).reshape(3, 4, 5).astype(np.int16))
        assert (sitk.GetArrayFromImage(predict_image(ByBrightness(), info(), image)) == 2).all()

    def test_mr_is_normalised_by_case(self) -> None:
        rng = np.random.default_rng(0)
        scan = rng.uniform(0, 0.2, (20, 20, 20))
        scan[:, :, 10:] += 0.8
        images = [sitk.GetImageFromArray((scan * scale).astype(np.float32)) for scale in (1.0, 5000.0)]
        for image in images:
            image.SetSpacing(SPEC.spacing)
        one, other = (sitk.GetArrayFromImage(predict_image(ByBrightness(), info(), i, modality="MR")) for i in images)
        assert np.array_equal(one, other)
        assert (one[:, :, -8:] == 2).all()

    def test_needs_to_know_the_training_data(self) -> None:
        with pytest.raises(InputError, match="trained on"):
            predict_image(ByBrightness(), info(spec=None), sitk.Image((8, 8, 8), sitk.sitkInt16))


class TestFromScans:
    def test_a_folder_of_scans(self, raw: Path, checkpoint: Path, tmp_path: Path, bright: None) -> None:
        out = predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=raw / "imagesTr")
        assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"{case}.nii.gz" for case in CASES]
        for case in CASES:
            scan = raw_file(raw, case)
            result = sitk.ReadImage(str(out / f"{case}.nii.gz"))
            assert result.GetPixelID() == sitk.sitkUInt8
            # To the last bit, for ITK and for nibabel, oblique or not.
            assert Geometry.of(result) == Geometry.of(sitk.ReadImage(str(scan)))
            assert np.array_equal(nibabel.load(out / f"{case}.nii.gz").affine, nibabel.load(scan).affine)
            hu = voxels(scan)
            found = voxels(out / f"{case}.nii.gz")
            assert dice(found, (hu > -25).astype(int) + (hu > 175), 1) > 0.9
            assert dice(found, (hu > -25).astype(int) + (hu > 175), 2) > 0.85

    def test_one_file(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        out = predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=raw_file(raw, "a_002"))
        assert [path.name for path in out.glob("*.nii.gz")] == ["a_002.nii.gz"]

    def test_strictly_all_bad_scans_are_named_and_nothing_is_written(
        self, raw: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        scans = tmp_path / "scans"
        shutil.copytree(raw / "imagesTr", scans)
        whole = (scans / "a_001_0000.nii.gz").read_bytes()
        (scans / "a_001_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
        (scans / "b_0000.nii.gz").touch()
        nan = np.full((5, 5, 5), np.nan, np.float32)
        nibabel.save(nibabel.Nifti1Image(nan, np.eye(4)), scans / "c.nii.gz")
        call = {"model_path": checkpoint, "output_path": tmp_path / "out", "input_path": scans}
        text = problems_of(lambda: predict(**call, strict=True))
        assert len(text.splitlines()) == 3
        for part in (
            "a_001_0000.nii.gz: the file is truncated",
            "b_0000.nii.gz: the file is empty",
            "c.nii.gz: 125 voxel",
        ):
            assert part in text
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("ending", [".nii", ".NII.GZ", ".nrrd", ".mha"])
    def test_scans_in_other_files(self, ending: str, raw: Path, checkpoint: Path, tmp_path: Path, bright: None) -> None:
        image = sitk.ReadImage(str(raw_file(raw, "a_001")))
        (tmp_path / "in").mkdir()
        sitk.WriteImage(image, str(tmp_path / "in" / f"x{ending.lower()}"))
        if ending != ending.lower():
            (tmp_path / "in" / f"x{ending.lower()}").rename(tmp_path / "in" / f"x{ending}")
        for name, given in (("folder", tmp_path / "in"), ("file", tmp_path / "in" / f"x{ending}")):
            out = predict(model_path=checkpoint, output_path=tmp_path / name, input_path=given)
            result = sitk.ReadImage(str(out / "x.nii.gz"))
            assert_nearly_equal(Geometry.of(result), Geometry.of(image))
            assert dice(sitk.GetArrayFromImage(result), (sitk.GetArrayFromImage(image) > 175) * 2, 2) > 0.85

    def test_two_files_of_one_case(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        shutil.copy(raw_file(raw, "a_001"), tmp_path / "a_001_0000.nii.gz")
        shutil.copy(raw_file(raw, "a_001"), tmp_path / "a_001.nii.gz")
        text = problems_of(lambda: predict(model_path=checkpoint, output_path=tmp_path / "o", input_path=tmp_path))
        assert "2 files of the case a_001: a_001.nii.gz, a_001_0000.nii.gz; keep one of them" in text

    def test_scans_are_never_overwritten(self, checkpoint: Path, tmp_path: Path) -> None:
        scan = write_scan(tmp_path / "x.nii.gz", 0)
        before = scan.read_bytes()
        for given in (tmp_path, scan):
            text = problems_of(lambda g=given: predict(model_path=checkpoint, output_path=tmp_path, input_path=g))
            assert "must not overwrite" in text
        assert scan.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["x.nii.gz"]

    @pytest.mark.parametrize(("name", "message"), [("missing", "no such file or folder"), ("empty", "holds no scan")])
    def test_nothing_to_predict(self, checkpoint: Path, tmp_path: Path, name: str, message: str) -> None:
        (tmp_path / "empty").mkdir()
        text = problems_of(
            lambda: predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=tmp_path / name)
        )
        assert message in text
        assert name in text

    def test_a_published_checkpoint_needs_a_description(
        self, raw: Path, checkpoint: Path, description: str, tmp_path: Path
    ) -> None:
        published = tmp_path / "published.pth"
        content = torch.load(checkpoint, weights_only=True)
        torch.save({key: value for key, value in content.items() if isinstance(value, dict)}, published)
        call = {"model_path": published, "output_path": tmp_path / "out", "input_path": raw_file(raw, "a_001")}
        assert "--dataset" in problems_of(lambda: predict(**call))
        predict(**call, dataset=description)
        predict(model_path=checkpoint, output_path=tmp_path / "own", input_path=raw_file(raw, "a_001"))
        assert np.array_equal(voxels(tmp_path / "out" / "a_001.nii.gz"), voxels(tmp_path / "own" / "a_001.nii.gz"))


class TestFromPreprocessed:
    def test_equals_prediction_from_the_scans(
        self, raw: Path, preprocessed: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        scans = raw / "imagesTr"
        a = predict(model_path=checkpoint, output_path=tmp_path / "a", input_path=scans)
        b = predict(
            model_path=checkpoint,
            output_path=tmp_path / "b",
            npy_path=preprocessed / "imagesTr",
            original_nii_path=scans,
        )
        c = predict(model_path=checkpoint, output_path=tmp_path / "c", npy_path=preprocessed)
        for case in CASES:
            name = f"{case}.nii.gz"
            assert (a / name).read_bytes() == (b / name).read_bytes()
            assert len(np.unique(voxels(a / name))) > 1
            # Without the scan's header: the same up to how ITK rounds orientations.
            assert np.array_equal(voxels(a / name), voxels(c / name))
            grids = [Geometry.of(sitk.ReadImage(str(folder / name))) for folder in (a, c)]
            assert_nearly_equal(*grids)

    def test_only_the_cases_of_a_list(self, preprocessed: Path, checkpoint: Path, tmp_path: Path) -> None:
        (preprocessed / "splits" / "mine.txt").write_text("a_003\na_001\n", encoding="utf-8")
        call = {"model_path": checkpoint, "npy_path": preprocessed / "imagesTr"}
        out = predict(**call, output_path=tmp_path / "a", split="mine")
        assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a_001.nii.gz", "a_003.nii.gz"]
        out = predict(**call, output_path=tmp_path / "b", cases=listed(tmp_path / "one.txt", "a_002"))
        assert [path.name for path in out.glob("*.nii.gz")] == ["a_002.nii.gz"]
        text = problems_of(lambda: predict(**call, output_path=tmp_path / "c", split="mime"))
        assert "mime.txt" in text
        assert "Did you mean 'mine'?" in text
        text = problems_of(
            lambda: predict(
                **call, output_path=tmp_path / "c", cases=listed(tmp_path / "two.txt", "a_002", "a_009", "b")
            )
        )
        assert "'a_009'" in text
        assert "'b'" in text

    def test_all_missing_and_foreign_scans_are_named(
        self, raw: Path, preprocessed: Path, checkpoint: Path, tmp_path: Path
    ) -> None:
        scans = tmp_path / "scans"
        shutil.copytree(raw / "imagesTr", scans)
        (scans / "a_001_0000.nii.gz").unlink()
        shutil.copy(raw_file(raw, "a_001"), scans / "a_003_0000.nii.gz")
        text = problems_of(
            lambda: predict(
                model_path=checkpoint,
                output_path=tmp_path / "out",
                npy_path=preprocessed / "imagesTr",
                original_nii_path=scans,
                strict=True,
            )
        )
        assert len(text.splitlines()) == 2
        assert f"{scans / 'a_001_0000.nii.gz'}: file not found" in text
        assert f"{scans / 'a_003_0000.nii.gz'}: not the scan that was preprocessed: origin" in text
        assert not (tmp_path / "out").exists()

    def test_a_raw_folder_is_refused(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        for path in (raw / "imagesTr", raw, raw / "nowhere"):
            text = problems_of(lambda p=path: predict(model_path=checkpoint, output_path=tmp_path / "o", npy_path=p))
            assert str(raw) in text

    def test_another_spacing_than_in_training_is_refused(self, preprocessed: Path, tmp_path: Path) -> None:
        other = info(spec=SPEC.model_copy(update={"spacing": (3.0, 3.0, 3.0)}))
        path = tmp_path / "model.pth"
        save_checkpoint(path, build_method(other), other)
        text = problems_of(
            lambda: predict(model_path=path, output_path=tmp_path / "out", npy_path=preprocessed / "imagesTr")
        )
        assert "1.5 x 1.5 x 2 mm" in text
        assert "--spacing 3,3,3" in text


class TestCheckpoint:
    def test_another_number_of_classes(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        call = {"model_path": checkpoint, "output_path": tmp_path / "out", "input_path": raw / "imagesTr"}
        text = problems_of(lambda: predict(**call, num_classes=16, method="cps"))
        assert f"{checkpoint}: the checkpoint has 3 classes, but --num_classes is 16" in text
        assert f"{checkpoint}: a checkpoint of the method 'supervised', not 'cps'" in text
        text = problems_of(lambda: predict(**call, dataset="amos"))
        assert "3 classes, but the data set amos22 has 16" in text
        predict(**call, num_classes=3, method="supervised")

    def test_not_one(self, raw: Path, tmp_path: Path) -> None:
        path = tmp_path / "best_model.pth"
        path.write_text("hello", encoding="utf-8")
        text = problems_of(lambda: predict(model_path=path, output_path=tmp_path / "out", input_path=raw / "imagesTr"))
        assert f"{path}: not a checkpoint" in text

    @pytest.mark.parametrize(
        "wrong", [{"overlap": 1.0}, {"blending": "linear"}, {"batch_size": 0}, {"precision": "int8"}, {"split": "test"}]
    )
    def test_wrong_settings(self, raw: Path, checkpoint: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
        text = problems_of(
            lambda: predict(model_path=checkpoint, output_path=tmp_path / "out", input_path=raw / "imagesTr", **wrong)
        )
        assert next(iter(wrong)) in text

    def test_scans_and_arrays_exclude_each_other(self, raw: Path, checkpoint: Path, tmp_path: Path) -> None:
        call = {"model_path": checkpoint, "output_path": tmp_path / "out"}
        for given in ({}, {"input_path": raw, "npy_path": raw}):
            assert "--npy_path" in problems_of(lambda g=given: predict(**call, **g))


def test_probabilities_can_be_kept(raw: Path, checkpoint: Path, tmp_path: Path, bright: None) -> None:
    out = predict(
        model_path=checkpoint, output_path=tmp_path, input_path=raw_file(raw, "a_001"), save_probabilities=True
    )
    with np.load(out / "probabilities" / "a_001.npz") as stored:
        assert stored["probabilities"].dtype == np.float16
        assert np.allclose(stored["probabilities"].astype(np.float32).sum(0), 1)
        assert tuple(stored["spacing_mm"]) == SPEC.spacing
