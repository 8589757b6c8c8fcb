"""Tables as people have them: one content in many forms reads alike, what cannot be a result is refused by place."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from duomod.errors import InputError
from duomod.evaluation.results import ResultTable, read_result

HEAD = "Filename,Dice_Class1,ASD_Class1\n"
PLAIN = HEAD + "é.nii.gz,0.875,1.5\nb.nii.gz,,2\n"


def written(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder: Path, content: str | bytes, name: str = "table.csv") -> ResultTable:
    return read_result(written(folder, content, name))


def refusal(folder: Path, content: str | bytes, name: str = "table.csv") -> str:
    with pytest.raises(InputError) as caught:
        read(folder, content, name)
    assert all(name in problem or problem.startswith("...") for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace(",", ";").replace(".5", ",5").replace("0.", "0,"),
        '"Filename","Dice_Class1","ASD_Class1"\n"é.nii.gz","0,875","1,5"\n"b.nii.gz","","2"\n',
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\n\n") + ",,\n \n",
        PLAIN.replace("\n", ",,\n"),
        PLAIN.replace(",,", ",NA,").replace(",", " , "),
        " filename , dice class 1,ASD_CLASS01\n" + PLAIN.partition("\n")[2],
        "\ufeff" + PLAIN,
        "".join(f"{start},{line}\n" for start, line in zip(("", "0", "1"), PLAIN.splitlines(), strict=True)),
        *(PLAIN.encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1")),
    ],
)
def test_one_table_in_many_forms(tmp_path: Path, content: str | bytes) -> None:
    found = read(tmp_path, content)
    assert found.cases == ("é.nii.gz", "b.nii.gz")
    np.testing.assert_array_equal(found.values["Dice"], [[0.875], [np.nan]])
    np.testing.assert_array_equal(found.values["ASD"], [[1.5], [2.0]])
    assert found.notes == ()


def test_ids_stay_what_was_written(tmp_path: Path) -> None:
    ids = ("001", "NA", "1e5", "TRUE", "null", "1_0", "-")
    assert read(tmp_path, HEAD + "".join(f"{name},0.5,1\n" for name in ids)).cases == ids


def test_accents_written_in_two_ways_are_one(tmp_path: Path) -> None:
    assert read(tmp_path, HEAD + "cafe\u0301,0.5,1\n").cases == ("caf\u00e9",)
    assert "appear twice" in refusal(tmp_path, HEAD + "cafe\u0301,0.5,1\ncaf\u00e9,0.5,1\n")


@pytest.mark.parametrize(
    "name", ["Mean", "AVERAGE:", "std", "Mean ± SD", "total", "Average over 12 cases", "mean (n=3)"]
)
def test_rows_of_averages_are_left_out_and_named(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, f"{HEAD}a,0.5,1\n{name},87.5 ± 2.0,x\n")
    assert (found.cases, found.values["Dice"].tolist()) == (("a",), [[0.5]])
    assert found.notes == (f"{found.path}: '{name}' (row 3) left out: no case but an average",)


@pytest.mark.parametrize("name", ["mean_1", "max.nii.gz", "standard_case_2", "total7", "Maximilian"])
def test_cases_that_sound_like_averages_are_cases(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, f"{HEAD}{name},0.5,1\n").cases == (name,)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1.5,1\nb,0.9,1\nc,0.8,1\n", "row 2 (a), column Dice_Class1: 1.5 is no Dice, which is from 0 to 1"),
        ("a,0.9,1\nb,-0.1,1\n", "row 3 (b), column Dice_Class1: -0.1 is no Dice"),
        ("a,inf,1\n", "row 2 (a), column Dice_Class1: inf is no Dice"),
        ("a,0.9,-2\n", "row 2 (a), column ASD_Class1: -2 is no ASD, which is 0 or more"),
        (
            "a,87.5,1\nb,93,1\nc,0.5,1\n",
            "Dice looks like per cent (2 of 3 values are above 1, such as 87.5 in row 2 (a)",
        ),
        ("a,87.5 %,1\n", "row 2 (a), column Dice_Class1: '87.5 %' is in per cent"),
        ("a,good,1\n", "row 2 (a), column Dice_Class1: 'good' is not a number"),
        ("a,1_0,1\n", "'1_0' is not a number"),
        ("a,0x1,1\n", "'0x1' is not a number"),
        ("a,0.5,1\na,0.6,1\n", "appear twice: a (rows 2 and 3)"),
        ("a.nii.gz,0.5,1\na,0.6,1\n", "appear twice: a.nii.gz and a (rows 2 and 3)"),
        (",0.5,1\n", "row 2 names no case"),
        ("a,0.5\n", "row 2 has 2 cells, the header has 3 (cut off?)"),
        ("a,0,5,1,5\n", "row 2 has 5 cells, the header has 3 (decimal commas?"),
        ('a,"0,5",1.5\n', "row 2 has a decimal comma, row 2 a decimal point"),
    ],
)
def test_rows_that_cannot_be_are_refused_by_place(tmp_path: Path, rows: str, message: str) -> None:
    assert message in refusal(tmp_path, HEAD + rows)


def test_all_wrong_cells_are_told_at_once_and_many_are_counted(tmp_path: Path) -> None:
    text = refusal(tmp_path, HEAD + "".join(f"c{i},0.5,bad\n" for i in range(14)) + "x,5,1\nx,0.4,1\n")
    assert "appear twice: x" in text
    text = refusal(tmp_path, HEAD + "".join(f"c{i},0.5,bad\n" for i in range(14)))
    assert text.count("is not a number") == 10
    assert text.endswith("... and 4 more like these")


def test_single_precision_may_round_beyond_one_and_infinite_distances_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "a,1.0000001,inf\n")
    assert found.values["Dice"].tolist() == [[1.0000001]]
    assert math.isnan(found.values["ASD"][0, 0])
    assert found.notes == (f"{found.path}: infinite values left out of all means: a ASD_Class1",)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("Filename,Dice_Class1,Dice_Class1", "the column 'Dice_Class1' is there twice"),
        ("Filename,Dice_Class1,dice class 01", "the columns 'Dice_Class1' and 'dice class 01' are the same"),
        ("Filename,Dice_Class1,Dice_Class3", "without a gap; it lacks Dice_Class2"),
        ("Filename,Dice_Class1,Dice_Class0", "column 'Dice_Class0': classes go from 1 to 255"),
        ("Filename,Dice_Class1,Dice_Class2000000000", "column 'Dice_Class2000000000': classes go from 1 to 255"),
        (f"Filename,Dice_Class1,Dice_Class{'9' * 5000}", "classes go from 1 to 255"),
        ("Filename,x,y", "no column such as Dice_Class1"),
        ("case,Dice_Class1,y", "has no column 'Filename' (its columns: 'case', 'Dice_Class1', 'y')"),
        ("Filename" + ",x" * 5000, "at most 4096"),
    ],
)
def test_headers_that_cannot_be(tmp_path: Path, head: str, message: str) -> None:
    assert message in refusal(tmp_path, f"{head}\na{',0.5' * head.count(',')}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\n \n", "empty"),
        (HEAD.encode(), "has no case"),
        (bytes(range(256)) * 10, "no text"),
        (b"Filename" + bytes(100_000), "no text"),
        (b"\x1f\x8b\x08abc", "a gzip file"),
        (b"\xd0\xcf\x11\xe0abc", "an old Excel file"),
        (b"PK\x03\x04abc", "cannot be read as a table"),
        (b"Filename,Dice_Class1\n" + b"a" * 200_000 + b",1\n", "row 2: field larger"),
        (b'Filename,Dice_Class1\n"a,1\nb,2\n', "the header has 2"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path, content)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with open(path, "wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(InputError, match=r"2,048 MB is too large for a table"):
        read_result(path)
    with pytest.raises(InputError, match="not a file"):
        read_result(tmp_path)
    with pytest.raises(InputError, match="file not found"):
        read_result(tmp_path / "none.csv")


def test_many_rows_take_seconds(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "".join(f"case_{i},0.{i:06d},{i}\n" for i in range(100_000)))
    began = time.process_time()
    found = read_result(path)
    assert time.process_time() - began < 10
    assert found.values["ASD"].sum() == 4999950000


def workbook(path: Path, *rows: tuple[object, ...], id_format: str = "General") -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.active["A2"].number_format = id_format
    book.save(path)
    return path


class TestWorkbooks:
    head = ("Filename", "Dice_Class1", "ASD_Class1")

    def test_numbers_texts_and_blanks(self, tmp_path: Path) -> None:
        found = read_result(workbook(tmp_path / "t.xlsx", self.head, (1, 0.5, 2), ("b", "0.25", None), ("c",)))
        assert found.cases == ("1", "b", "c")
        np.testing.assert_array_equal(found.values["Dice"], [[0.5], [0.25], [np.nan]])

    def test_an_id_shown_with_zeros_has_them(self, tmp_path: Path) -> None:
        assert read_result(workbook(tmp_path / "t.xlsx", self.head, (1, 0.5, 2), id_format="000")).cases == ("001",)

    def test_a_formula_without_value_is_no_blank(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"row 2, column 2: the formula =1/2 was never computed"):
            read_result(workbook(tmp_path / "t.xlsx", self.head, ("a", "=1/2", 1)))

    def test_names_do_not_decide_what_a_file_is(self, tmp_path: Path) -> None:
        content = workbook(tmp_path / "t.xlsx", self.head, ("a", 0.5, 1)).read_bytes()
        assert read(tmp_path, content, "t.csv").cases == ("a",)
        assert "not a workbook" in refusal(tmp_path, PLAIN, "u.xlsx")
