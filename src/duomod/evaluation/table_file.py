"""Tables that people have: CSV from any program in any encoding, and workbooks, read as text, cell by cell.

Nothing is guessed about a cell here: ``001``, ``NA``, ``1e5`` and ``TRUE`` stay what was written, so that a case id is
never taken for a number. Rows are numbered as a spreadsheet shows them.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duomod.errors import InputError

#: No table of results is larger; a file that is, is something else and would fill the memory.
_LARGEST_BYTES = 100 * 2**20
#: A workbook is packed XML, about ten times its size.
_LARGEST_UNPACKED = 2**30
_MOST_COLUMNS = 4096
_SEPARATORS = (",", ";", "\t", "|")
#: What the first bytes of a file that is no text say it is, and what to do.
_OTHER_FILES = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as .xlsx or .csv",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"%PDF": "a PDF",
}
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "--", "#n/a"}
_INFINITE = {"inf", "+inf", "-inf", "infinity", "-infinity", "∞", "-∞"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA_NUMBER = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
#: More problems of one table than this are counted, not listed.
_LISTED = 10


@dataclass(frozen=True)
class Row:
    """One row: its number in the file (the header is usually 1), and a text for every column."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """A table as text.

    Attributes:
        path: Where it was read.
        sha256: Of the bytes that were read.
        columns: Heads without blanks around them; each is there once, and none is empty save where pandas writes its
            row numbers.
        rows: Those with anything in them.
        notes: What the reader should be told: sheets that were not read.
    """

    path: Path
    sha256: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of a column, row by row."""
        index = self.columns.index(name)
        return tuple(row.cells[index] for row in self.rows)


def read_table(source: Path) -> TextTable:
    """Read a workbook, or a CSV: separated by comma, semicolon, tab or bar; UTF-8, UTF-16, Latin-1, BOM or not.

    Raises:
        InputError: missing, empty, too large, not a table, a column twice, or rows of another length than the header.
    """
    try:
        size = source.stat().st_size
        if not source.is_file():
            raise InputError(f"{source}: not a file; give the table itself")
        if size > _LARGEST_BYTES:
            raise InputError(f"{source}: {size / 2**20:,.0f} MB is too large for a table; give the table of results")
        data = source.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{source}: file not found") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None
    notes: tuple[str, ...] = ()
    numbered: Iterable[tuple[int, list[str]]]
    if data.startswith(b"PK\x03\x04"):
        numbered, notes = _workbook_rows(source, data)
    elif source.suffix.lower() == ".xlsx" and data.strip():
        raise InputError(f"{source}: cannot be read as a table (not a workbook); name a text file .csv")
    else:
        numbered = _text_rows(source, data)
    filled = [(number, cells) for number, cells in numbered if any(cells)]
    if not filled:
        raise InputError(f"{source}: cannot be read as a table (it is empty)")
    columns, rows = _even(source, filled[0][1], filled[1:])
    return TextTable(source, hashlib.sha256(data).hexdigest(), columns, rows, notes)


def _even(source: Path, head: list[str], body: list[tuple[int, list[str]]]) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Header and rows of one length. Empty cells beyond the header are what spreadsheets leave; all else is wrong."""
    while not head[-1]:
        head.pop()
    twice = sorted({name for name in head if name and head.count(name) > 1}) if len(set(head)) < len(head) else []
    problems = [f"{source}: the column '{name}' is there twice; keep one of them" for name in twice]
    if len(head) > _MOST_COLUMNS:
        raise InputError(f"{source}: {len(head)} columns; at most {_MOST_COLUMNS} are read")
    rows, width = [], len(head)
    for number, cells in body:
        if len(cells) < width or any(cells[width:]):
            hint = "decimal commas? save it with semicolons, or with points" if len(cells) > width else "cut off?"
            problems.append(f"{source}: row {number} has {len(cells)} cells, the header has {width} ({hint})")
        rows.append(Row(number, tuple(cells[:width])))
    if problems:
        raise InputError(listed(problems))
    return tuple(head), tuple(rows)


def _text_rows(source: Path, data: bytes) -> Iterator[tuple[int, list[str]]]:
    text = _decoded(source, data)
    if named := re.match(r"sep=(.)\r?\n", text):  # how Excel is told about the separator
        separator, text = named[1], text[named.end() :]
    else:
        separator = _separator(next((line for line in text.splitlines() if line.strip()), ""))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    first = 2 if named else 1
    try:
        for cells in reader:
            yield reader.line_num + first - 1, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise InputError(f"{source}: cannot be read as a table (row {reader.line_num + first - 1}: {error})") from None


def _decoded(source: Path, data: bytes) -> str:
    """The file's text: by its BOM, by UTF-16's zeros, as UTF-8, or as what western Windows writes.

    Raises:
        InputError: it is no text.
    """
    other = next((what for start, what in _OTHER_FILES.items() if data.startswith(start)), None)
    if other is None:
        for encoding in _encodings(data):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if not re.search(r"[\x00-\x08\x0e-\x1f]", text):
                return text
    raise InputError(f"{source}: cannot be read as a table ({other or 'it is no text'})")


def _encodings(data: bytes) -> tuple[str, ...]:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return ("utf-32",)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    even, odd = data[:400:2].count(0), data[1:400:2].count(0)
    if odd > 10 * even or even > 10 * odd:
        return ("utf-16-le" if odd > even else "utf-16-be",)
    return ("utf-8-sig", "cp1252", "latin-1")


def _separator(header: str) -> str:
    """The character that splits a header into most columns, quoted heads aside."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_SEPARATORS, key=bare.count)


def _workbook_rows(source: Path, data: bytes) -> tuple[list[tuple[int, list[str]]], tuple[str, ...]]:
    """The rows of a workbook's first sheet, and a note where there are more.

    Raises:
        InputError: not a workbook, or a formula whose value was never computed.
    """
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            unpacked = sum(part.file_size for part in packed.infolist())
        if unpacked > _LARGEST_UNPACKED:
            raise InputError(f"{source}: unpacks to {unpacked / 2**30:,.0f} GB, too large for a table")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        rows = list(_sheet_rows(book.worksheets[0]))
        width = len(rows[0][1]) if rows else 0
        rows = [(number, cells + [""] * (width - len(cells))) for number, cells in rows]
        if any("" in cells for _, cells in rows):
            formulas = openpyxl.load_workbook(io.BytesIO(data), read_only=True).worksheets[0]
            _check_computed(source, rows, _sheet_rows(formulas))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, openpyxl and its XML parsers each have their own ways to refuse a broken file
        raise InputError(f"{source}: cannot be read as a table ({error})") from error
    names = [sheet.title for sheet in book.worksheets]
    note = f"{source}: only the first of its sheets ({', '.join(names)}) is read"
    return rows, (note,) if len(names) > 1 else ()


def _sheet_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    sheet.reset_dimensions()  # what a file says about its size is not to be believed
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        texts = [_cell_text(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if texts:
            yield number, texts


def _cell_text(cell: Any) -> str:
    value = cell.value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        whole = str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
        # A number shown with leading zeros (format 000) is an id.
        return whole.zfill(len(cell.number_format)) if set(cell.number_format) == {"0"} else whole
    return "" if value is None else str(value).strip()


def _check_computed(
    source: Path, rows: Iterable[tuple[int, list[str]]], formulas: Iterable[tuple[int, list[str]]]
) -> None:
    """Refuse formulas without a value: programs that write workbooks do not compute them, and they look like blanks."""
    values = dict(rows)
    problems = [
        f"{source}: row {number}, column {index + 1}: the formula {text} was never computed; open and save it in a"
        " spreadsheet, or write numbers"
        for number, cells in formulas
        for index, text in enumerate(cells)
        if text.startswith("=") and not (values.get(number, []) + [""] * len(cells))[index]
    ]
    if problems:
        raise InputError(listed(problems))


def listed(problems: Sequence[str]) -> list[str]:
    """The first problems of a table, and how many more there are."""
    more = len(problems) - _LISTED
    return [*problems[:_LISTED], f"... and {more} more like these"] if more > 0 else list(problems)


class Numbers:
    """Reads the numbers of one table: with decimal commas where it has them, and then without decimal points."""

    def __init__(self) -> None:
        self._points = self._commas = 0

    def read(self, text: str, row: int) -> float:
        """The number that a cell holds; NaN for an empty cell, NA and the like; infinities stay.

        Args:
            text: Without blanks around it.
            row: Its number, for :meth:`mixed`.

        Raises:
            ValueError: it holds no number; the message is a sentence without the cell's place.
        """
        if _NUMBER.fullmatch(text):
            if "." in text:
                self._points = self._points or row
            return float(text)
        lower = text.lower()
        if lower in _MISSING:
            return math.nan
        if lower in _INFINITE:
            return -math.inf if lower.startswith("-") else math.inf
        if _COMMA_NUMBER.fullmatch(text):
            self._commas = self._commas or row
            return float(text.replace(",", "."))
        if text.endswith("%"):
            raise ValueError(f"'{text}' is in per cent; write it from 0 to 1, without the sign")
        raise ValueError(f"'{text}' is not a number; correct it, or leave the cell empty to leave it out")

    def mixed(self) -> str:
        """Where decimal commas and points were both seen; empty where only one was."""
        both = self._points and self._commas
        return f"row {self._commas} has a decimal comma, row {self._points} a decimal point" if both else ""
