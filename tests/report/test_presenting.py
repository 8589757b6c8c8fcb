"""Neither paths nor, if that is asked for, names of cases, people or machines are in any byte of what is written."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import SimpleITK as sitk

from duomod.report.page import run_report
from duomod.report.presenting import Places
from duomod.report.settings import ReportSettings
from duomod.report.viewer.serve import run_view
from duomod.report.viewer.settings import ViewSettings

PEOPLE = {"a": "Doe^Jane_0712", "b": "müller 1957", "c": "MRN-123456"}
SECRETS = ("Jane", "ller 1957", "MRN-123456", "erika", "gpu-box-7", "trained_on_her", "--secret", "x-ray-site")


def texts_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All bytes of our files in a folder; of packed volumes also what is in them."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        yield f"name of {name}", name.encode()
        if path.is_file() and not name.startswith("assets/"):
            content = path.read_bytes()
            yield name, content
            for packed in re.findall(rb'"((?:[A-Za-z0-9+/]{4}){5,}={0,2}[A-Za-z0-9+/=]*)"', content):
                if packed.startswith(b"H4sI"):
                    yield f"packed in {name}", gzip.decompress(base64.b64decode(packed))


def written_forms(text: str) -> set[bytes]:
    """A text as files may hold it: plain, as JSON escapes it, and as HTML does."""
    return {text.encode(), json.dumps(text)[1:-1].encode(), text.replace("^", "&#94;").encode()}


@pytest.fixture(scope="module")
def named_study(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study of conftest.py, its cases named after people and its records full of what names others."""
    root = tmp_path_factory.mktemp("home") / "erika on gpu-box-7"
    shutil.copytree(study, root)
    for path in sorted(root.rglob("*")):
        case, _, ending = path.name.partition(".")
        if case in PEOPLE and path.is_file():
            path.rename(path.with_name(f"{PEOPLE[case]}.{ending}"))
    for path in root.rglob("result*.*"):
        text = path.read_text()
        for case, name in PEOPLE.items():
            text = re.sub(rf"\b{case}\.nii\.gz", f"{name}.nii.gz", text)
        if path.suffix == ".json":
            info = json.loads(text)
            info |= {"truth": str(root / "labels"), "table_sha256": "", "organs_sha256": "", "dataset": "x-ray-site"}
            text = json.dumps(info)
        path.write_text(text)
    for run in root.glob("runs/*/seed_*"):
        scans = {name: str(root / "images" / f"{name}.nii.gz") for name in PEOPLE.values()}
        cases = dict.fromkeys(scans, "what it was made from")
        parts = {"cases": cases, "scans": scans, "modalities": {}, "facts": {}}
        (run / "predictions" / "prediction.json").write_text(json.dumps({"settings": {}, **parts}))
        config = (run / "config.yaml").read_text()
        config += f"data_path: {root}/data of erika\noutput_dir: {run}\noperator: erika\nnotes: [Doe^Jane_0712]\n"
        (run / "config.yaml").write_text(config.replace("labelled: [x, y]", "labelled: [trained_on_her, MRN-123456]"))
        record = json.loads((run / "train_manifest.json").read_text())
        record |= {"command": [f"{root}/bin/duomod", "--secret"], "device": "gpu-box-7", "host": "gpu-box-7"}
        (run / "train_manifest.json").write_text(json.dumps(record))
    # Some of all that can go wrong, whose sentences name files.
    (root / "runs" / "cps" / "seed_0" / "metrics.jsonl").write_text(f'{{"step": 1, "{root}": "erika"}}\n')
    (root / "runs" / "cps" / "seed_1" / "predictions" / f"{PEOPLE['b']}.nii.gz").write_bytes(b"nothing")
    (root / "runs" / "supervised" / "seed_0" / "predictions" / f"{PEOPLE['a']}.nii.gz").unlink()
    strange = root / "runs" / "supervised" / "seed_1" / "predictions"
    shutil.copy(strange / f"{PEOPLE['b']}.nii.gz", strange / "erika_too.nii.gz")
    (root / "runs" / "cps" / "seed_2").mkdir()
    return root


@pytest.mark.parametrize("runs", ["runs", "runs/cps", "runs/*/seed_*"])
def test_no_absolute_path_is_in_a_report(named_study: Path, tmp_path: Path, runs: str) -> None:
    given = tuple(path for path in sorted(named_study.glob(runs)) if path.name != "seed_2")
    run_report(ReportSettings(runs=given, output=tmp_path / "report", all_seeds=True))
    for name, content in texts_in(tmp_path / "report"):
        for path in (named_study, named_study.parent, tmp_path, Path.cwd(), Path.home() / ""):
            if len(path.parts) > 2:
                assert str(path).encode() not in content, (name, path)
    # It says all that it did, below the folders given.
    page = (tmp_path / "report" / "index.html").read_text()
    assert "data_path: data of erika" in page
    assert PEOPLE["b"] in page
    assert runs == "runs/cps" or "does not list: erika_too.nii.gz" in page


def test_an_anonymous_report_names_nobody(
    named_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = run_report(ReportSettings(runs=(named_study / "runs",), output=tmp_path / "report", anonymous=True))
    for name, content in texts_in(tmp_path / "report"):
        for secret in (*SECRETS, *PEOPLE.values(), str(named_study)):
            for form in written_forms(secret):
                assert form not in content, (name, secret)
    text = page.read_text()
    for number in (1, 2, 3):
        assert f"case_00{number}" in text
    # What was left out is there, without its reason; that is told where the report is made.
    assert "case case_003" in text
    said = capsys.readouterr().err
    assert f"{PEOPLE['b']}.nii.gz: not a gzip file" in said
    assert "does not list: erika_too.nii.gz" in said
    # The numbers are the same as in the report with names.
    record = json.loads(page.with_name("report.json").read_text())
    run_report(ReportSettings(runs=(named_study / "runs",), output=tmp_path / "named", worst=0, viewer=False))
    other = json.loads((tmp_path / "named" / "report.json").read_text())
    for method, content in record["methods"].items():
        assert content["summary"]["metrics"] == other["methods"][method]["summary"]["metrics"]
        assert content["seeds"]["seed_0"]["settings"]["method.strength"] is not None
    assert record["comparisons"] == other["comparisons"]


def test_methods_of_one_name_are_told_apart_by_numbers_in_an_anonymous_report(
    named_study: Path, tmp_path: Path
) -> None:
    for person in ("erika", "jane"):
        shutil.copytree(named_study / "runs" / "cps", tmp_path / person / "cps")
    runs = (tmp_path / "erika" / "cps", tmp_path / "jane" / "cps")
    page = run_report(ReportSettings(runs=runs, output=tmp_path / "report", anonymous=True, viewer=False))
    assert list(json.loads(page.with_name("report.json").read_text())["methods"]) == ["cps (1)", "cps (2)"]
    assert not any(b"erika" in content or b"jane" in content for _, content in texts_in(page.parent))


def test_methods_of_other_cases_are_shown_side_by_side_and_the_reason_is_said(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("cps", "supervised"):
        shutil.copytree(study / "runs" / method, tmp_path / "runs" / method)
    for path in (tmp_path / "runs" / "cps").glob("seed_*/result.csv"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        info = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**info, "table_sha256": ""}))
    for anonymous in (False, True):
        output = tmp_path / f"report_{anonymous}"
        given = ReportSettings(runs=(tmp_path / "runs",), output=output, anonymous=anonymous, viewer=False, worst=0)
        section = run_report(given).read_text().partition('<section id="comparison">')[2].partition("</section>")[0]
        assert ("c.nii.gz" in section) is not anonymous
        assert str(tmp_path) not in section
        assert "c.nii.gz" in capsys.readouterr().err


def test_an_anonymous_page_of_one_case_names_nobody(named_study: Path, tmp_path: Path) -> None:
    case = f"{PEOPLE['a']}.nii.gz"
    pred = tuple(named_study / "runs" / name / "seed_1" / "predictions" / case for name in ("cps", "supervised"))
    given = {"case": named_study / "images" / case, "gt": named_study / "labels" / case, "pred": pred}
    run_view(ViewSettings(**given, output=tmp_path / "page", anonymous=True))
    for name, content in texts_in(tmp_path / "page"):
        for secret in (*SECRETS, *PEOPLE.values(), str(named_study)):
            for form in written_forms(secret):
                assert form not in content, (name, secret)
    script = (tmp_path / "page" / "cases" / "1.js").read_text()
    assert script.startswith('DuomodViewer.add("case_001"')
    assert '"prediction 1"' in script


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data of/erika/scan 1.nii.gz: damaged", "scan 1.nii.gz: damaged"),
        ("/data of/erika/sub/scan.nii.gz", "sub/scan.nii.gz"),
        ("lies on another grid than /else/where/b.nii.gz, too", "lies on another grid than b.nii.gz, too"),
        (r"C:\Users\erika\a.nii.gz is gone", "a.nii.gz is gone"),
        ("file:///home/erika/a.nii.gz", "a.nii.gz"),
        ("2 |P and T| / (|P| + |T|), n/a, 1/2, cps/seed_0", "2 |P and T| / (|P| + |T|), n/a, 1/2, cps/seed_0"),
    ],
)
def test_paths_in_sentences_are_shortened(text: str, shown: str) -> None:
    assert Places([Path("/data of/erika")]).shortened(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/data of/AMOS 22/", "AMOS 22"),
        ("/", "/"),
        ("~/data", "data"),
        (r"D:\data of\x", "x"),
        ("logs/cps", "logs/cps"),
        ("2 x VNet", "2 x VNet"),
    ],
)
def test_a_setting_that_is_a_path_is_its_last_name(value: str, shown: str) -> None:
    assert Places([]).setting(value) == shown


def test_the_packed_volumes_are_looked_into(named_study: Path, tmp_path: Path) -> None:
    """The test above would be none if it did not find volumes."""
    run_view(ViewSettings(case=named_study / "images" / f"{PEOPLE['a']}.nii.gz", output=tmp_path / "page"))
    found = dict(texts_in(tmp_path / "page"))
    size = sitk.ReadImage(str(named_study / "images" / f"{PEOPLE['a']}.nii.gz")).GetNumberOfPixels()
    assert len(found["packed in cases/1.js"]) == 2 * size
