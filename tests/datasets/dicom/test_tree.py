"""A folder tree becomes series: every file in it is used, named as something else, or a reason to refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_series import CORONAL, Spoil, save, slices, write
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
)

from duomod.datasets.dicom.find import Found, find_series
from duomod.datasets.dicom.pixels import read_series
from duomod.errors import InputError


def ids(found: Found) -> list[str]:
    return [series.case_id for series in found.series]


def titled(number: int, description: str, study: str = "1.2") -> Spoil:
    def spoil(data: Dataset, _: int) -> None:
        data.SeriesNumber, data.SeriesDescription, data.StudyInstanceUID = number, description, study

    return spoil


def localizer(data: Dataset, _: int) -> None:
    data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def other(kind: str, **elements: object) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality, data.SeriesInstanceUID = kind, "5.1", "OT", "5"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


class TestWhatIsDicom:
    def test_names_and_endings_do_not_matter(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices(), name="CT.1.2.840.{:d}")
        assert ids(find_series(folder)) == ["scan"]

    def test_files_without_preamble(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices())
        for path in folder.iterdir():
            content = path.read_bytes()
            path.write_bytes(content[content.index(b"\x08\x00\x08\x00") :])  # without the file's own group 2, too
        found = find_series(folder)
        assert (ids(found), found.problems) == (["scan"], [])

    def test_a_file_that_only_has_the_name(self, tmp_path: Path) -> None:
        (tmp_path / "a.dcm").write_text("no")
        assert find_series(tmp_path) == Found()

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "p" / "scan", slices())
        (folder / "up").symlink_to(tmp_path)
        assert ids(find_series(tmp_path)) == ["p_scan"]


class TestWhatElseIsThere:
    def test_it_is_named_and_counted(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices())
        for name, kind in {
            "DICOMDIR": MediaStorageDirectoryStorage,
            "dose": XRayRadiationDoseSRStorage,
            "state": GrayscaleSoftcopyPresentationStateStorage,
        }.items():
            save(folder / name, other(kind))
        picture = other(SecondaryCaptureImageStorage, Rows=1, Columns=1, BitsAllocated=8, PixelData=b"\0\0")
        save(folder / "picture.dcm", picture)
        contours = other(SegmentationStorage, Rows=1, Columns=1, BitsAllocated=8, PixelData=b"\0\0")
        save(folder / "liver.dcm", contours)
        write(tmp_path / "scan", slices(CORONAL, uid="1.2.4")[:1], localizer, name="scout{}.dcm")
        (folder / "notes.txt").write_text("")
        (folder / ".DS_Store").write_text("x")
        found = find_series(folder)
        assert (ids(found), found.problems) == (["scan"], [])
        (text,) = found.left_out
        assert text.startswith(f"{folder}: 13 files, 6 used as DICOM slices; not read: ")
        for words in (
            "DICOMDIR (Media Storage Directory)",
            "dose (X-Ray Radiation Dose SR)",
            "state (Grayscale Softcopy Presentation State)",
            "picture.dcm (Secondary Capture Image)",
            "liver.dcm (Segmentation)",
            "scout0.dcm (localizer)",
            "notes.txt (not DICOM)",
        ):
            assert words in text

    def test_files_beside_the_folders_of_series(self, tmp_path: Path) -> None:
        write(tmp_path / "p1" / "scan", slices())
        (tmp_path / "p1" / "report.pdf").write_text("x")
        (tmp_path / "p1" / "liver.nii.gz").write_text("x")
        (tmp_path / "top.nii.gz").write_text("x")  # not this part's
        found = find_series(tmp_path)
        assert found.left_out == [
            f"{tmp_path / 'p1'}: 2 files, 0 used as DICOM slices; not read: liver.nii.gz, report.pdf (not DICOM)"
        ]

    def test_only_other_objects(self, tmp_path: Path) -> None:
        save(tmp_path / "dose", other(XRayRadiationDoseSRStorage))
        found = find_series(tmp_path)
        assert found.series == []
        (text,) = found.problems
        assert "no DICOM slices of a scan" in text
        assert "dose (X-Ray Radiation Dose SR)" in text

    def test_captures_that_say_where_they_lie_are_slices(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, _: int) -> None:
            data.SOPClassUID = SecondaryCaptureImageStorage

        assert ids(find_series(write(tmp_path / "scan", slices(), spoil))) == ["scan"]

    def test_another_object_with_pixels_in_the_same_series(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices())
        last = slices()[5]
        last.SOPClassUID = SegmentationStorage
        save(folder / "I005.dcm", last)
        (text,) = find_series(folder).problems
        assert text == f"{folder}: another kind of object (Segmentation) in I005.dcm; keep one stack only"


class TestDamaged:
    @pytest.mark.parametrize("name", ["I000.dcm", "I003.dcm", "I005.dcm"])
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "an empty file, though named like a slice"),
            (b"<html>404", "no DICOM content, though named like a slice"),
            (bytes(700), "no DICOM content, though named like a slice"),
            (bytes(128) + b"DICM", "a file that ends before its pixel data"),
            (None, "a file that ends before its pixel data"),
        ],
    )
    def test_first_middle_and_last_slice(self, tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
        folder = write(tmp_path / "scan", slices())
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) - 120] if content is None else content)
        found = find_series(folder)
        assert found.series == []
        (text,) = found.problems
        assert text.startswith(f"{folder}: {words}")
        assert f" in {name};" in text

    def test_cut_anywhere(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices())
        whole = (folder / "I005.dcm").read_bytes()
        for size in range(len(whole)):
            (folder / "I005.dcm").write_bytes(whole[:size])
            found = find_series(folder)
            problems = found.problems
            if found.series:  # the header is whole, its pixels are not
                with pytest.raises(InputError) as caught:
                    read_series(found.series[0])
                problems = list(caught.value.problems)
            assert any("I005.dcm" in text for text in problems), size

    def test_names_without_an_ending(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "scan", slices(), name="IM{:02d}")
        (folder / "IM06").write_bytes(b"")
        (folder / "README").write_bytes(b"")
        (text,) = find_series(folder).problems
        assert "IM06" in text
        assert "README" not in text

    @pytest.mark.parametrize(
        ("slices_are", "damaged"),
        [
            ("I{:03d}.dcm", "I006.dcm.part"),
            ("I{:03d}.dcm", "I006.dcm.gz"),
            ("I{:03d}.dcm", "other.DCM"),
            ("{:08x}c0ffee", "00c0ffee00"),
            ("CT.1.2.840.{:d}", "CT.1.2.840.77"),
        ],
    )
    def test_names_that_a_slice_may_have(self, tmp_path: Path, slices_are: str, damaged: str) -> None:
        folder = write(tmp_path / "scan", slices(), name=slices_are)
        (folder / damaged).write_bytes(b"?")
        (text,) = find_series(folder).problems
        assert f" in {damaged};" in text

    def test_it_concerns_the_series_in_its_own_folder(self, tmp_path: Path) -> None:
        write(tmp_path / "good", slices(uid="1.2.3"))
        write(tmp_path / "bad", slices(uid="1.2.4"))
        (tmp_path / "bad" / "I002.dcm").write_bytes(bytes(128) + b"DICM\2")
        (tmp_path / "alone").mkdir()
        (tmp_path / "alone" / "x").write_bytes(bytes(128) + b"DICM\2")
        found = find_series(tmp_path)
        assert ids(found) == ["good"]
        assert sorted(text.partition(":")[0] for text in found.problems) == [
            str(tmp_path / "alone"),
            str(tmp_path / "bad"),
        ]

    def test_everything_that_is_wrong_is_said_at_once(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, number: int) -> None:
            if number == 1:
                del data.PixelSpacing
            if number == 2:
                data.PhotometricInterpretation = "RGB"

        folder = write(tmp_path / "scan", slices(), spoil)
        (folder / "I003.dcm").write_bytes(b"")
        texts = find_series(folder).problems
        assert [text.partition(" in ")[2].partition(";")[0] for text in texts] == ["I003.dcm", "I001.dcm", "I002.dcm"]


class TestCases:
    def test_patients_studies_and_series(self, tmp_path: Path) -> None:
        for patient in ("p1", "p2"):
            for number in (1, 2):
                uid = f"1.2.{patient[1]}.{number}"
                write(tmp_path / patient / "study" / f"s{number}", slices(uid=uid), titled(number, "x", patient[1]))
        found = find_series(tmp_path)
        assert ids(found) == ["p1_study_s1", "p1_study_s2", "p2_study_s1", "p2_study_s2"]
        assert (found.problems, found.left_out) == ([], [])

    def test_ids_are_unique_and_fit_for_file_names(self, tmp_path: Path) -> None:
        write(tmp_path / "a" / "b", slices(uid="1.1"), titled(7, ""))
        write(tmp_path / "a_b", slices(uid="1.2"), titled(8, ""))
        write(tmp_path / "c: d*?", slices(uid="1.3"))
        write(tmp_path / ".hidden", slices(uid="1.4"))
        assert sorted(ids(find_series(tmp_path))) == ["a_b_7", "a_b_8", "c_ d__", "hidden"]

    def test_a_series_spread_over_folders_is_one(self, tmp_path: Path) -> None:
        write(tmp_path / "scan" / "0001", slices()[:4])
        write(tmp_path / "scan" / "0002", slices()[4:])
        (series,) = find_series(tmp_path).series
        assert (series.case_id, series.geometry.size) == ("scan", (4, 5, 6))

    def test_copies_in_several_folders_are_a_case_each(self, tmp_path: Path) -> None:
        write(tmp_path / "a", slices())
        write(tmp_path / "b", slices())
        write(tmp_path / "c", slices()[:4])
        found = find_series(tmp_path)
        assert ids(found) == ["a", "b", "c"]
        (text,) = found.left_out
        assert "parts of one series that overlap" in text

    def test_uids_that_were_taken_out(self, tmp_path: Path) -> None:
        def spoil(data: Dataset, _: int) -> None:
            data.SeriesInstanceUID = data.SOPInstanceUID = data.StudyInstanceUID = ""

        write(tmp_path / "a", slices(), spoil)
        write(tmp_path / "b", slices(), spoil)
        assert ids(find_series(tmp_path)) == ["a", "b"]

    def test_several_in_one_folder_are_listed(self, tmp_path: Path) -> None:
        write(tmp_path / "p1", [*slices(uid="1.1"), *slices(uid="1.2", modality="MR")[:3]])
        write(tmp_path / "p2", slices(uid="1.3"))
        found = find_series(tmp_path)
        assert ids(found) == ["p2"]
        assert found.problems == [
            f"{tmp_path / 'p1'}: holds 2 DICOM series; choose one with --series, or put each in a folder of its own:"
            " 1.1 (CT, number 3, 'Thorax', 6 files); 1.2 (MR, number 3, 'Thorax', 3 files)"
        ]


class TestChosen:
    def flat(self, folder: Path) -> Path:
        """Two good series and a broken one in one folder, told apart by nothing but their headers."""
        write(folder, slices(uid="1.1"), titled(1, "Thorax soft"), name="a{}.dcm")
        write(folder, slices(uid="1.2"), titled(2, "Thorax bone"), name="b{}.dcm")
        return write(folder, slices(uid="1.3")[:1], titled(3, "Thorax soft"), name="c{}.dcm")

    @pytest.mark.parametrize("chosen", ["1.2", "2", "Thorax bone", "thorax BONE"])
    def test_by_uid_number_or_description(self, tmp_path: Path, chosen: str) -> None:
        found = find_series(self.flat(tmp_path / "p"), chosen)
        (series,) = found.series
        assert (series.case_id, series.planes[0].path.name) == ("p", "b0.dcm")
        assert found.problems == []
        assert found.left_out == [
            f"{tmp_path / 'p'}: not chosen by --series {chosen}: 1.1 (CT, number 1, 'Thorax soft', 6 files);"
            " 1.3 (CT, number 3, 'Thorax soft', 1 file)"
        ]

    @pytest.mark.parametrize(
        ("chosen", "words"), [("Thorax soft", "means 2 series"), ("4", "no series '4'"), ("", "no")]
    )
    def test_what_is_ambiguous_or_unknown_is_listed(self, tmp_path: Path, chosen: str, words: str) -> None:
        found = find_series(self.flat(tmp_path / "p"), chosen)
        assert found.series == []
        (text,) = found.problems
        assert words in text
        assert "1.1 (CT, number 1, 'Thorax soft', 6 files)" in text

    def test_one_of_each_patient(self, tmp_path: Path) -> None:
        for patient in ("p1", "p2"):
            for number, name in ((1, "soft"), (2, "bone")):
                uid = f"1.2.{patient[1]}.{number}"
                write(
                    tmp_path / patient, slices(uid=uid), titled(number, name, "1.2." + patient[1]), name=name + "{}.dcm"
                )
        found = find_series(tmp_path, "bone")
        assert (ids(found), found.problems) == (["p1", "p2"], [])
        assert all("bone" in plane.path.name for series in found.series for plane in series.planes)

    def test_a_series_in_its_own_folder_is_chosen_from_a_patient(self, tmp_path: Path) -> None:
        for number in (1, 2):
            write(tmp_path / f"s{number}", slices(uid=f"1.{number}"), titled(number, "x"))
        assert ids(find_series(tmp_path, "2")) == ["s2"]
        (text,) = find_series(tmp_path, "x").problems
        assert "'x' means 2 series; give the UID of one" in text


def test_a_localizer_within_the_series_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "scan", slices())
    scout = slices(CORONAL)[0]
    scout.SOPInstanceUID = "1.2.3.77"
    localizer(scout, 0)
    save(folder / "I006.dcm", scout)
    (text,) = find_series(folder).problems
    assert "slices of different orientation (a localizer among them? I006.dcm)" in text


def test_the_kinds_of_object_are_real_ones() -> None:
    assert slices()[0].SOPClassUID == CTImageStorage
