"""JSON and YAML from outside: what is read, and the one line for each way of not being readable."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from duomod.documents import MOST_NODES, parse_json, parse_yaml, read_json, read_json_lines, read_yaml
from duomod.errors import InputError

#: Ten million values, were every alias written out.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


def refusal(function: Any, *arguments: Any) -> str:
    began = time.process_time()  # of this process: other work on the machine does not count
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert time.process_time() - began < 20
    (line,) = caught.value.problems
    assert line.isprintable() or "\n" not in line
    assert len(line) < 600
    return line


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("", None),
            ("a: [1, 2.5, yes, null, x]", {"a": [1, 2.5, True, None, "x"]}),
            ("taken: 2020-01-02", {"taken": "2020-01-02"}),
            ("taken: 2020-99-99", {"taken": "2020-99-99"}),
            ("sign: =", {"sign": "="}),
            ("a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: {<<: *a}", {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 1}}),
            ("0: background\n1: liver", {0: "background", 1: "liver"}),
        ],
    )
    def test_is_plain_data(self, text: str, value: object) -> None:
        assert parse_yaml(text, "f.yaml") == value

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: [1", "line 1, column 6: "),
            ("a: 1\nb: 2\na: 3", "line 3, column 1: not valid YAML ('a' is given twice"),
            ("a:\n\t- b", "line 2, column 1: "),
            ("a:\n\t- b", "indent with spaces"),
            ("[" * 5000, "levels"),
            ("- " * 400 + "a", "levels"),
            (BOMB, f"more than {MOST_NODES:,} values"),
            ("[" + "a," * (MOST_NODES + 1) + "]", f"more than {MOST_NODES:,} values"),
            ("&a [*a]", "'*a' stands inside"),
            ("a: *b", "undefined alias"),
            ("a: " + "9" * 5000, "too long"),
            ("a: " + "9" * 30, "too large"),
            ("a: 1:" + "1:" * 100_000 + "1", "too long"),
            ("a: .nan", "line 1, column 4: not valid YAML (.nan is not a finite number)"),
            ("a: -.inf", "not a finite number"),
            ("a: !!python/object:x.y {}", "python/object"),
            ("a: !!int x", "'x' is no int"),
            ("a: !!bool x", "'x' is no bool"),
            ("? [a]\n: b", "a key must be"),
            (r'a: "\ud800"', "surrogate"),
            (r'a: "\0"', "NUL"),
            (r'a: "\U99999999"', "escape"),
            ("a: \x07", "a character that no text has"),
            ("--- 1\n--- 2", "another document"),
            ("%YAML " + "9" * 5000 + ".1\n---\n", "directive"),
        ],
    )
    def test_is_refused_with_the_place(self, text: str, said: str) -> None:
        line = refusal(parse_yaml, text, "f.yaml")
        assert line.startswith("f.yaml: ")
        assert said in line


class TestJson:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "empty"),
            ('{"a": 1,\n "b" 2}', "line 2, column 6: "),
            ('{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
            ("[" * 100_000, "levels"),
            ("[" * 60 + "]" * 60, "levels"),
            ('{"a": NaN}', "NaN is not a number"),
            ('{"a": -Infinity}', "-Infinity is not a number"),
            ('{"a": 1e999}', "1e999 is not a number"),
            ("9" * 5000, "too large"),
            ("9" * 30, "too large"),
            (r'"\u0000"', "NUL"),
            (r'{"\ud800": 1}', "surrogate"),
        ],
    )
    def test_is_refused(self, text: str, said: str) -> None:
        line = refusal(parse_json, text, "f.json")
        assert line.startswith("f.json: ")
        assert said in line

    def test_pairs_of_surrogates_and_written_out_escapes_are_texts(self) -> None:
        assert parse_json(r'["\ud83d\ude00", "\\u0000"]', "f.json") == ["😀", r"\u0000"]

    def test_a_log_may_hold_what_is_no_number_and_end_in_half_a_line(self, tmp_path: Path) -> None:
        log = tmp_path / "metrics.jsonl"
        log.write_text('{"step": 0, "loss": NaN}\n{"step": 1, "loss": 0.1}\n{"step": 2, "lo', encoding="utf-8")
        assert [record["step"] for record in read_json_lines(log)] == [0, 1]
        log.write_text('{"step": 0}\n[1]\n{"step": 2}\n', encoding="utf-8")
        assert f"{log}: line 2 is broken" in refusal(read_json_lines, log)


class TestFiles:
    @pytest.mark.parametrize(("read", "text"), [(read_json, '{"a": "ü"}'), (read_yaml, "a: ü\n")])
    def test_a_byte_order_mark_is_no_content(self, tmp_path: Path, read: Any, text: str) -> None:
        source = tmp_path / "file"
        source.write_text(text, encoding="utf-8-sig")
        assert read(source) == {"a": "ü"}
        for encoding in ("utf-16", "utf-32"):
            source.write_text(text, encoding=encoding)
            assert f"is written in {encoding.upper()}; save it as UTF-8" in refusal(read, source)
        source.write_bytes(text.encode("latin-1"))
        assert "line 1: is not UTF-8 text (byte 0xfc)" in refusal(read, source)
        source.write_bytes(text.encode("utf-16-le"))
        assert "not a text file" in refusal(read, source)

    @pytest.mark.parametrize("read", [read_json, read_yaml])
    def test_what_is_no_file_is_named(self, tmp_path: Path, read: Any) -> None:
        assert refusal(read, tmp_path / "none") == f"{tmp_path / 'none'}: file not found"
        assert f"{tmp_path}: is a folder" in refusal(read, tmp_path)
        assert "cannot be read" in refusal(read, tmp_path / "a\0b")

    def test_the_size_is_bounded(self, tmp_path: Path) -> None:
        source = tmp_path / "large.yaml"
        source.write_bytes(b"a" * (2 << 20))
        assert refusal(read_yaml, source) == f"{source}: is larger than 1 MiB, the most that such a file may have"
