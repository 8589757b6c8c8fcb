"""The phantom: the bodies are AMOS-like, the scans vary, the files are what AMOS's are."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from duomod.datasets.importers import list_cases
from duomod.datasets.phantom import PhantomCase, make_case, preset_spec, write_phantom
from duomod.datasets.phantom.anatomy import PHASES, draw_person
from duomod.datasets.phantom.settings import PhantomSettings
from duomod.datasets.phantom.shapes import Ellipsoid, Points, Tube, smooth_field
from duomod.datasets.recognise import resolve_spec
from duomod.errors import InputError
from duomod.locks import LOCK, locked
from duomod.settings import checked
from duomod.workspace import read_json, write_json


def phantom(out: Path, **options: object) -> Path:
    return write_phantom(checked(PhantomSettings, {"out": out, **options}))


TINY, AMOS = preset_spec("tiny"), preset_spec("amos")


@pytest.fixture(scope="module")
def tiny_cases() -> list[PhantomCase]:
    return [make_case(0, index, "tiny") for index in range(16)]


@pytest.fixture(scope="module")
def amos_cases() -> list[PhantomCase]:
    return [make_case(0, index, "amos") for index in (3, 7, 10)]


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("phantom") / "raw", cases=6, seed=1, preset="tiny", unlabeled=2)


def millilitres(case: PhantomCase, classes: int) -> np.ndarray:
    return np.bincount(case.labels.ravel(), minlength=classes) * np.prod(case.spacing) / 1000


def centre_lps(case: PhantomCase, label: int) -> np.ndarray:
    """Patient position of a class's centre, by the direction matrix as ITK defines it."""
    index_xyz = np.argwhere(case.labels == label).mean(0)[::-1]
    direction = np.reshape(case.direction, (3, 3))
    return np.asarray(case.origin) + direction @ (index_xyz * np.asarray(case.spacing))


def test_an_ellipsoid_has_its_volume_and_its_surface() -> None:
    axis = np.arange(-30, 31, dtype=np.float32)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = Ellipsoid((1, 2, 3), (20, 12, 8), (10, 20, 30)).distance(Points(x, y, z))
    assert (distance < 0).sum() == pytest.approx(4 / 3 * np.pi * 20 * 12 * 8, rel=0.03)


def test_a_straight_tube_measures_the_distance_to_its_axis() -> None:
    x = np.array([0.0, 5.0, 9.0], dtype=np.float32)
    zero = np.zeros(3, dtype=np.float32)
    distance = Tube(((0, 0, -50), (0, 0, 0), (0, 0, 50)), (5,)).distance(Points(x, zero, zero))
    np.testing.assert_allclose(distance, [-5, 0, 4], atol=1e-4)


def test_a_smooth_field_belongs_to_the_world_and_not_to_the_grid() -> None:
    fine, coarse = np.arange(-60, 60, 2.0), np.arange(-60, 60, 6.0)
    one = smooth_field(np.random.default_rng(3), (fine, fine, fine), 12)
    other = smooth_field(np.random.default_rng(3), (coarse, coarse, coarse), 12)
    np.testing.assert_allclose(one[::3, ::3, ::3], other, atol=1e-5)
    assert one.std() == pytest.approx(1, abs=0.15)


def test_the_same_seed_gives_the_same_voxels_and_another_seed_another_person(amos_cases: list[PhantomCase]) -> None:
    cases = [make_case(5, 3, "tiny"), make_case(5, 3, "tiny"), make_case(5, 4, "tiny"), make_case(6, 3, "tiny")]
    digests = [case.image.tobytes() + case.labels.tobytes() for case in cases]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    again = make_case(0, 3, "amos")
    assert again.image.tobytes() == amos_cases[0].image.tobytes()
    assert again.labels.tobytes() == amos_cases[0].labels.tobytes()


def test_amos_organs_have_amos_volumes(amos_cases: list[PhantomCase]) -> None:
    volumes = np.array([millilitres(case, AMOS.num_classes) for case in amos_cases])
    typical = dict(zip(AMOS.classes, np.max(volumes, axis=0), strict=True))
    smallest = min(np.median(volumes[:, AMOS.classes.index(f"{side} adrenal gland")]) for side in ("left", "right"))
    assert np.median(volumes[:, AMOS.classes.index("liver")]) / smallest > 200
    for name, low, high in (
        ("liver", 900, 2200), ("spleen", 90, 350), ("left kidney", 100, 300), ("stomach", 150, 700),
        ("pancreas", 30, 120), ("aorta", 40, 150), ("inferior vena cava", 40, 150), ("gallbladder", 10, 60),
        ("esophagus", 5, 30), ("duodenum", 30, 110), ("left adrenal gland", 2, 12),
    ):  # fmt: skip
        assert low < typical[name] < high, name


def test_tiny_has_a_head_and_a_tail(tiny_cases: list[PhantomCase]) -> None:
    voxels = np.median([np.bincount(case.labels.ravel(), minlength=TINY.num_classes) for case in tiny_cases], axis=0)
    named = dict(zip(TINY.classes, voxels, strict=True))
    assert named["liver"] / named["adrenal glands"] > 100
    assert named["adrenal glands"] >= 30


def test_tiny_grids_are_small_and_anisotropic_and_varied(tiny_cases: list[PhantomCase]) -> None:
    sizes = np.array([sorted(case.image.shape) for case in tiny_cases])
    assert sizes.min() >= 20
    assert sizes.max() <= 80
    assert len({case.spacing for case in tiny_cases}) > 12
    assert any(max(case.spacing) / min(case.spacing) > 1.1 for case in tiny_cases)


def test_every_organ_is_usually_there_and_sometimes_not_or_cut(tiny_cases: list[PhantomCase]) -> None:
    volumes = np.array([millilitres(case, TINY.num_classes) for case in tiny_cases])[:, 1:]
    assert ((volumes > 0).mean(0) > 0.6).all()
    touches_an_end = 0
    for case in tiny_cases:
        head_axis = int(np.argmax(np.abs(np.reshape(case.direction, (3, 3))[2])))
        along = np.moveaxis(case.labels, 2 - head_axis, 0)
        liver, kidney = TINY.classes.index("liver"), TINY.classes.index("right kidney")
        touches_an_end += any(np.isin(end, (liver, kidney)).any() for end in (along[0], along[-1]))
    assert touches_an_end >= 2
    assert (volumes == 0).any()


def test_amos_scans_sometimes_leave_out_the_pelvis(amos_cases: list[PhantomCase]) -> None:
    bladder = AMOS.classes.index("bladder")
    assert any((case.labels == bladder).sum() == 0 for case in amos_cases)


def test_an_absent_organ_is_not_labelled(amos_cases: list[PhantomCase]) -> None:
    absent = [(case, AMOS.classes.index(name)) for case in amos_cases for name in case.facts["absent"]]
    assert absent
    for case, label in absent:
        assert not (case.labels == label).any()


def test_orientations_vary_and_are_proper_axes(tiny_cases: list[PhantomCase]) -> None:
    assert len({case.facts["orientation"] for case in tiny_cases}) >= 4
    for case in tiny_cases:
        direction = np.reshape(case.direction, (3, 3))
        np.testing.assert_array_equal(direction @ direction.T, np.eye(3))


def test_left_is_the_patients_left(tiny_cases: list[PhantomCase]) -> None:
    for case in tiny_cases:
        centre = {
            name: centre_lps(case, index)
            for index, name in enumerate(TINY.classes)
            if index and (case.labels == index).any()
        }
        if {"left kidney", "right kidney"} <= set(centre):
            assert centre["left kidney"][0] > 20
            assert centre["right kidney"][0] < -20
        assert centre["spleen"][0] > 40  # left
        assert centre["liver"][0] < -20  # right
        assert centre["aorta"][1] > centre["liver"][1]  # behind


def test_labels_lie_inside_the_body(tiny_cases: list[PhantomCase], amos_cases: list[PhantomCase]) -> None:
    for case in [*tiny_cases, *amos_cases]:
        left_right = 2 - int(np.argmax(np.abs(np.reshape(case.direction, (3, 3))[0])))
        labelled = np.moveaxis(case.labels, left_right, -1) > 0
        # Within a row from right to left, the body runs from the first to the last voxel that is not air.
        body = np.moveaxis(case.image, left_right, -1) > -400
        inside = np.maximum.accumulate(body, -1) & np.maximum.accumulate(body[..., ::-1], -1)[..., ::-1]
        assert inside[labelled].mean() > 0.999


@pytest.mark.parametrize("name", ["spleen", "liver", "aorta", "left kidney"])
def test_tissues_have_their_ct_numbers(amos_cases: list[PhantomCase], name: str) -> None:
    for case in amos_cases:
        inside = sitk.GetArrayFromImage(
            sitk.BinaryErode(sitk.GetImageFromArray((case.labels == AMOS.classes.index(name)).astype(np.uint8)))
        ).astype(bool)
        assert inside.sum() > 100
        # The kidney's medulla takes up less contrast than its cortex.
        slack = 30 if "kidney" in name else 12
        assert np.median(case.image[inside]) == pytest.approx(case.facts["tissue_hu"][name], abs=slack)


def test_contrast_phases_change_vessels_more_than_muscle() -> None:
    native, arterial, portal = (
        {name: np.mean([draw_person(np.random.default_rng(n), phase, 1.0).hu[name] for n in range(50)])
         for name in ("aorta", "liver", "muscle")}
        for phase in PHASES
    )  # fmt: skip
    assert arterial["aorta"] > portal["aorta"] + 80 > native["aorta"] + 120
    assert portal["liver"] > arterial["liver"] + 20 > native["liver"] + 20
    assert abs(arterial["muscle"] - native["muscle"]) < 15


def test_the_folder_is_laid_out_as_amos_is(tiny_folder: Path) -> None:
    names = {folder: sorted(path.name for path in (tiny_folder / folder).iterdir()) for folder in
             ("imagesTr", "labelsTr", "imagesVa", "labelsVa")}  # fmt: skip
    assert names["labelsTr"] == [f"phantom_000{n}.nii.gz" for n in (1, 2, 3, 4)]
    assert names["imagesTr"] == [f"phantom_000{n}.nii.gz" for n in (1, 2, 3, 4, 7, 8)]
    assert names["imagesVa"] == names["labelsVa"] == ["phantom_0005.nii.gz", "phantom_0006.nii.gz"]
    description = read_json(tiny_folder / "dataset.json")
    assert description["labels"] == {str(i): name for i, name in enumerate(TINY.classes)}
    assert (description["numTraining"], description["numValidation"], len(description["unlabeled"])) == (4, 2, 2)
    for entry in description["training"] + description["validation"]:
        assert (tiny_folder / entry["image"]).is_file()
        assert (tiny_folder / entry["label"]).is_file()


def test_the_folder_is_recognised_by_the_importer(tiny_folder: Path) -> None:
    spec = resolve_spec(tiny_folder, None, None)
    assert spec.name == "phantom_tiny"
    cases, problems = list_cases(tiny_folder, spec)
    assert problems == []
    assert sum(case.label is None for case in cases) == 2
    assert len(cases) == 8


def test_simpleitk_and_nibabel_see_the_same_scan(tiny_folder: Path) -> None:
    for name in ("imagesTr/phantom_0001", "labelsTr/phantom_0001", "imagesVa/phantom_0006"):
        path = tiny_folder / f"{name}.nii.gz"
        ours, theirs = sitk.ReadImage(str(path)), nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(theirs.dataobj).T, sitk.GetArrayFromImage(ours))
        corner = [size - 1 for size in ours.GetSize()]
        at_corner = np.array(ours.TransformIndexToPhysicalPoint(corner)) * (-1, -1, 1)  # LPS to RAS
        np.testing.assert_allclose(theirs.affine @ [*corner, 1], [*at_corner, 1], atol=1e-2)
        wanted = sitk.sitkUInt8 if "labels" in name else sitk.sitkInt16
        assert ours.GetPixelID() == wanted


def test_files_hold_what_make_case_draws(tiny_folder: Path) -> None:
    case = make_case(1, 4, "tiny")
    image = sitk.ReadImage(str(tiny_folder / "imagesVa" / "phantom_0005.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.rint(case.image))
    np.testing.assert_allclose(image.GetSpacing(), case.spacing, atol=1e-4)
    np.testing.assert_allclose(image.GetOrigin(), case.origin, atol=1e-3)


def test_an_interrupted_phantom_is_completed_and_a_whole_one_left_alone(tmp_path: Path) -> None:
    out = phantom(tmp_path / "raw", cases=3, seed=0, preset="tiny")
    kept, lost = out / "imagesTr" / "phantom_0001.nii.gz", out / "imagesTr" / "phantom_0002.nii.gz"
    before, stamp = sitk.GetArrayFromImage(sitk.ReadImage(str(lost))), kept.stat().st_mtime_ns
    lost.unlink()
    (out / "dataset.json").unlink()
    phantom(out, cases=3, seed=0, preset="tiny")
    assert (out / "dataset.json").is_file()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(lost))), before)
    assert kept.stat().st_mtime_ns == stamp


def test_two_workers_write_the_same_as_one(tmp_path: Path, tiny_folder: Path) -> None:
    out = phantom(tmp_path / "raw", cases=3, seed=1, preset="tiny", workers=2)
    for name in ("phantom_0001", "phantom_0002"):
        one, two = (sitk.ReadImage(str(folder / "imagesTr" / f"{name}.nii.gz")) for folder in (out, tiny_folder))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(two))


def test_a_folder_of_other_settings_or_content_is_refused(tmp_path: Path) -> None:
    out = phantom(tmp_path / "raw", cases=1, seed=0, preset="tiny")
    with pytest.raises(InputError, match="seed 0 \\(asked for: 1\\)"):
        phantom(out, cases=1, seed=1, preset="tiny")
    write_json(tmp_path / "other" / "notes.json", {})
    with pytest.raises(InputError, match="not empty"):
        phantom(tmp_path / "other", cases=1, seed=0, preset="tiny")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.json"]
    with pytest.raises(InputError, match="is a file"):
        phantom(tmp_path / "other" / "notes.json", cases=1, seed=0, preset="tiny")


def test_wrong_numbers_are_reported_together_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        phantom(tmp_path / "raw", cases=0, seed=-1, preset="tiny", unlabeled=-1)
    assert len(error.value.problems) == 3
    with pytest.raises(InputError, match="499"):
        phantom(tmp_path / "raw", cases=400, seed=0, preset="amos", unlabeled=100)
    with pytest.raises(InputError, match="Did you mean 'tiny'"):
        phantom(tmp_path / "raw", cases=1, seed=0, preset="tyni")  # type: ignore[arg-type]
    assert not (tmp_path / "raw").exists()


LIMITED = """
import resource, sys
from duomod.datasets.phantom import write_phantom
from duomod.datasets.phantom.settings import PhantomSettings

kib = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))
try:
    write_phantom(PhantomSettings(out=sys.argv[1], cases=2, preset="tiny", workers=1))
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.parametrize("kib", [1, 10, 60])
def test_a_scan_that_does_not_fit_is_not_there_in_part(kib: int, tmp_path: Path) -> None:
    """A limit on the size of files stops a writer in the middle, as a full disk does; ITK says nothing of it."""
    whole = phantom(tmp_path / "whole", cases=2, preset="tiny")
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(out), str(kib)], capture_output=True, text=True)
    number, file = done.stdout.split()
    assert int(number) == errno.EFBIG
    assert str(out) in file
    for path in out.rglob("*.nii.gz"):
        assert path.read_bytes() == (whole / path.relative_to(out)).read_bytes()
    assert not list(out.rglob(".part-*"))
    phantom(out, cases=2, preset="tiny")
    scans = sorted(path.relative_to(whole) for path in whole.rglob("*.nii.gz"))
    assert sorted(path.relative_to(out) for path in out.rglob("*.nii.gz")) == scans
    assert all((out / scan).read_bytes() == (whole / scan).read_bytes() for scan in scans)


def test_a_second_phantom_in_the_folder_is_refused_and_a_killed_one_is_completed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        locked(out, "a phantom"),
        pytest.raises(InputError, match=f"out: a phantom is running.*process {os.getpid()} "),
    ):
        phantom(out, cases=2, preset="tiny")
    # What a kill leaves before the first file is whole.
    out.mkdir()
    (out / LOCK).write_text("")
    (out / ".part-abcdefgh.json").write_text("half")
    phantom(out, cases=2, preset="tiny")
    assert len(list(out.rglob("*.nii.gz"))) == 4
    assert not [path for path in out.rglob(".*") if path.is_file()]
