"""Damaged inputs for ``fuzz.py``: a small sound set made by duomod's commands, and seeded ways to spoil its files."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from duomod.cli import main

Random = np.random.Generator

TRAINING = (
    "--model supervised --labeled_count 2 --preset compact --precision fp32 --patch 8,16,16 --max_epochs 1"
    " --steps_per_epoch 1 --set network.filters=2 --set network.levels=2 --gpu"
)
SCAN, SERIES = "scan.nii.gz", "series"


def make_base(folder: Path) -> None:
    """Write a sound data set, a model, its predictions and tables, a DICOM series and texts into ``folder``."""
    raw, pre, runs = folder / "raw", folder / "pre", folder / "runs" / "method"
    _run("phantom", raw, "--cases", 4, "--preset", "tiny", "--workers", 1)
    _run("preprocess", "--data_path", raw, "--output_path", pre, "--spacing", "12,12,12", "--workers", 1)
    first = runs / "seed_0"
    _run("train", *TRAINING.split(), "", "--data_path", pre, "--output_dir", first)
    shutil.copytree(first / "ckpts", folder / "ckpts")
    model = folder / "ckpts" / "best_model.pth"
    _run("predict", "--input", raw / "imagesVa", "--model", model, "--output", first / "predictions", "--gpu", "")
    _run("evaluate", first / "predictions", raw / "labelsVa", "--output_csv", first / "result.csv", "--workers", 1)
    shutil.copytree(first, runs / "seed_1")
    shutil.copytree(runs, other := runs.with_name("other"))
    for method in (runs, other):
        _run("aggregate", "--method_base_dir", method)
    image = nib.load(sorted((raw / "imagesTr").iterdir())[0])
    small = np.asarray(image.dataobj)[:20, :18, :16].astype(np.int16)
    nib.save(nib.Nifti1Image(small, image.affine), folder / SCAN)
    _write_series(small, folder / SERIES)
    (folder / "list.txt").write_text("\n".join(sorted(json.loads(_text(pre / "splits/made.json"))["order"])) + "\n")
    (folder / "description.yaml").write_text(_DESCRIPTION)
    (folder / "experiment.yaml").write_text(_EXPERIMENT.replace("ROOT", str(folder)))


def _run(*arguments: object) -> None:
    try:
        main(list(map(str, arguments)))
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"the sound set could not be made: {arguments[0]}") from None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


_DESCRIPTION = """name: mine
classes: [background, a, b, c, d, e, f, g]
tail_classes: [g]
spacing: [12, 12, 12]
window: [-125, 275]
patch: [8, 16, 16]
modality: CT
folders: {val_images: imagesVa, val_labels: labelsVa}
split: {eval: Va, test: 0.25, same_person: [[a, b]]}
"""
_EXPERIMENT = """gt_path: ROOT/raw/labelsVa
seeds: [0, 1]
gpu: ''
stages: {training: true, inference: true, evaluation: true, aggregation: true}
training:
  data_path: ROOT/pre
  preset: compact
  labeled_count: 2
  settings: {max_epochs: 1, optim: {base_lr: 0.01}}
methods:
  - {name: supervised, log_root: ROOT/logs/supervised, nii_path: ROOT/raw/imagesVa}
"""


def _write_series(voxels: np.ndarray[Any, Any], folder: Path) -> None:
    """A CT series of a file a slice in explicit little endian, whose elements :func:`spoil_dicom` can take apart."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir()
    for number in range(8):
        meta = FileMetaDataset()
        name, path = UID(f"1.2.3.{number + 1}"), folder / f"{number:03d}.dcm"
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = name
        data = FileDataset(path, Dataset(), file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, name, "CT"
        data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = "p", "1.2.9", "1.2.3"
        data.SeriesNumber, data.InstanceNumber = 1, number + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [5, -7, 2.5 * number], [1, 0, 0, 0, 1, 0]
        data.SliceThickness, data.PixelSpacing = 2.5, [1.5, 1.5]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = voxels.shape[1], voxels.shape[0]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = (voxels[:, :, number].T.astype(np.int32) + 1024).clip(0, 4095).astype("<u2").tobytes()
        data.save_as(path, enforce_file_format=True)


#: Fields of a NIfTI-1 header: name -> (offset, struct code, count).
_FIELDS = {
    "sizeof_hdr": (0, "i", 1), "dim": (40, "h", 8), "intent_code": (68, "h", 1), "datatype": (70, "h", 1),
    "bitpix": (72, "h", 1), "pixdim": (76, "f", 8), "vox_offset": (108, "f", 1), "scl_slope": (112, "f", 1),
    "scl_inter": (116, "f", 1), "xyzt_units": (123, "B", 1), "cal_max": (124, "f", 1), "descrip": (148, "B", 80),
    "qform_code": (252, "h", 1), "sform_code": (254, "h", 1), "quatern": (256, "f", 3), "qoffset": (268, "f", 3),
    "srow": (280, "f", 12), "magic": (344, "B", 4), "extension": (348, "B", 4),
}  # fmt: skip
_ODD = {
    "f": (0.0, -0.0, -1.0, 1.0, 2.0, 0.5, 1e-9, 1e9, 1e38, float("nan"), float("inf"), float("-inf")),
    "h": (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 256, 512, 768, 1024, 1280, 2304, 32767, -32768),
    "i": (0, 348, 540, 1543569408, -1, 2**31 - 1),
    "B": (0, 1, 2, 3, 10, 110, 255),
}


def spoil_nifti(source: Path, target: Path, rng: Random) -> str:
    """Write a damaged copy of a NIfTI file; returns what was done."""
    data = bytearray(gzip.decompress(source.read_bytes()))
    way = rng.choice(["field", "fields", "bits", "cut", "packed", "whole"], p=[0.4, 0.25, 0.12, 0.08, 0.08, 0.07])
    if way in ("field", "fields"):
        done = [_spoil_field(data, rng) for _ in range(1 if way == "field" else int(rng.integers(2, 5)))]
    elif way == "bits":
        places = rng.integers(0, 352, int(rng.integers(1, 6)))
        for place in places:
            data[place] ^= 1 << int(rng.integers(8))
        done = [f"bits flipped at {sorted(places.tolist())}"]
    elif way == "cut":
        length = int(rng.choice([0, 1, 100, 347, 348, 351, 352, 400, len(data) - 1, len(data) // 2]))
        data = data[:length] if rng.random() < 0.7 else data + bytes(length)
        done = [f"{len(data)} bytes"]
    else:
        done = []
    packed = gzip.compress(bytes(data), mtime=0)
    if way == "packed":
        packed, done = spoil_bytes(packed, rng)
    elif way == "whole":
        kind = rng.choice(["plain", "twice", "tail", "two members", "nothing", "swapped"])
        done = [str(kind)]
        packed = {
            "plain": bytes(data), "twice": gzip.compress(packed), "tail": packed + b"tail" * 5, "nothing": b"",
            "two members": packed + packed, "swapped": gzip.compress(_swapped(bytes(data))),
        }[str(kind)]  # fmt: skip
    target.write_bytes(packed)
    return "; ".join(done)


def _spoil_field(data: bytearray, rng: Random) -> str:
    name = str(rng.choice(list(_FIELDS)))
    offset, code, count = _FIELDS[name]
    index = int(rng.integers(count))
    place = offset + index * struct.calcsize(code)
    old = struct.unpack_from(f"<{code}", data, place)[0]
    scaled = old * rng.choice([-1, 2, 0.5, 1.01]) if code == "f" else old + rng.choice([-1, 1])
    new = scaled if rng.random() < 0.3 else rng.choice(_ODD[code])
    try:
        struct.pack_into(f"<{code}", data, place, float(new) if code == "f" else int(new))
    except (struct.error, OverflowError):
        data[place] ^= 0xFF
    return f"{name}[{index}]: {old} -> {struct.unpack_from(f'<{code}', data, place)[0]}"


def _swapped(data: bytes) -> bytes:
    """The same header in the other byte order; the voxels stay."""
    header = bytearray(data)
    for offset, code, count in _FIELDS.values():
        values = struct.unpack_from(f"<{count}{code}", data, offset)
        struct.pack_into(f">{count}{code}", header, offset, *values)
    return bytes(header)


def spoil_bytes(content: bytes, rng: Random) -> tuple[bytes, list[str]]:
    """Flip, cut, repeat or overwrite bytes; returns the new content, and what was done."""
    data = bytearray(content)
    way, size = str(rng.choice(["flip", "cut", "repeat", "noise", "zeros"])), max(1, len(data))
    start = int(rng.integers(size))
    end = min(size, start + int(rng.integers(1, 200)))
    if way == "flip" and data:
        data[start % len(data)] ^= 1 << int(rng.integers(8))
    elif way == "cut":
        del data[start:]
    elif way == "repeat":
        data[start:start] = data[start:end]
    else:
        data[start:end] = rng.bytes(end - start) if way == "noise" else bytes(end - start)
    return bytes(data), [f"{way} at {start}..{end}"]


_DICOM_TEXTS = (
    "", "0", "-1", "1", "2", "nan", "inf", "1e400", "abc", "1\\1", "1\\0\\0\\0\\1\\0", "0\\0\\0", "9" * 40, "-0", "MR",
    "RGB", "1.2.840.10008.1.2.4.50", "MONOCHROME1", "ORIGINAL\\PRIMARY\\LOCALIZER", "x\\y\\z",
)  # fmt: skip


def spoil_dicom(folder: Path, rng: Random) -> str:
    """Damage a series in place: elements of one slice or of all, bytes, or whole files; returns what was done."""
    files = sorted(folder.iterdir())
    way = rng.choice(["element", "elements", "bytes", "files"], p=[0.55, 0.15, 0.18, 0.12])
    chosen = files if rng.random() < 0.35 else [files[int(rng.choice([0, len(files) // 2, len(files) - 1]))]]
    if way == "files":
        kind = str(rng.choice(["gone", "empty", "foreign", "twice", "renamed"]))
        first = chosen[0]
        if kind == "gone":
            first.unlink()
        elif kind == "empty":
            first.write_bytes(b"")
        elif kind == "foreign":
            (folder / "notes.dcm").write_bytes(rng.bytes(300))
        elif kind == "twice":
            shutil.copy(first, folder / "copy.dcm")
        else:
            first.rename(folder / "IM1")
        return f"{kind}: {first.name}"
    if way == "bytes":
        for path in chosen:
            content = path.read_bytes()
            head, done = spoil_bytes(content[128:900], rng)
            path.write_bytes(content[:128] + head + content[900:])
        return f"{len(chosen)} files, {done[0]}"
    state, done = int(rng.integers(2**31)), []
    for path in chosen:
        same = np.random.default_rng(state)
        content = path.read_bytes()
        done = []
        for _ in range(1 if way == "element" else 3):
            content, what = _spoil_element(content, same)
            done.append(what)
        path.write_bytes(content)
    return f"{len(chosen)} files, {'; '.join(done)}"


def _spoil_element(content: bytes, rng: Random) -> tuple[bytes, str]:
    elements = _elements(content)
    start, value, end, name, kind = elements[int(rng.integers(len(elements)))]
    way = str(rng.choice(["gone", "twice", "value", "value", "value"]))
    if way != "value":
        return content[:start] + content[start:end] * (2 if way == "twice" else 0) + content[end:], f"{name} {way}"
    if kind in ("US", "SS"):
        new = struct.pack("<H", int(rng.choice([0, 1, 2, 3, 8, 12, 15, 16, 32, 255, 4096, 65535])))
    elif kind in ("OW", "OB"):
        new = content[value:end][: int(rng.integers(end - value))]
    else:
        new = str(rng.choice(_DICOM_TEXTS)).encode()
    new += b" " * (len(new) % 2)
    length = struct.pack("<I", len(new)) if kind in ("OW", "OB") else struct.pack("<H", len(new))
    return content[: value - len(length)] + length + new + content[end:], f"{name} = {new[:40]!r}"


def _elements(content: bytes) -> list[tuple[int, int, int, str, str]]:
    """(start, start of the value, end, name, kind) of every element behind the preamble."""
    found, place = [], 132
    while place + 8 <= len(content):
        group, element = struct.unpack_from("<HH", content, place)
        kind = content[place + 4 : place + 6].decode("latin-1")
        long = kind in ("OB", "OW", "UN", "SQ", "UT")
        value = place + (12 if long else 8)
        length = struct.unpack_from("<I" if long else "<H", content, value - (4 if long else 2))[0]
        if not kind.isalpha() or value + length > len(content):
            break
        found.append((place, value, value + length, f"({group:04x},{element:04x})", kind))
        place = value + length
    return found


_TOKENS = (
    "NaN", "-Infinity", "1e999", "-1", "0", "999999999999999999999999", "9" * 5000, "null", "true", '""', "[]", "{}",
    '"../../x"', '"/etc/passwd"', '"a\\u0000b"', '"\\ud800"', "[" * 3000, "2020-01-01", "!!python/object:x.y {}",
    "&a [*a]", "'", '"', "\t", "%", "1.5", "Dice_Class99999", "x" * 3000, "é", "130", "97,5", "=1+1",
)  # fmt: skip
_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def spoil_text(path: Path, rng: Random) -> str:
    """Damage a text file in place; returns what was done."""
    content = path.read_bytes()
    way = str(rng.choice(["bytes", "token", "token", "token", "lines", "coding", "whole"]))
    if way == "bytes":
        new, done = spoil_bytes(content, rng)
    elif way == "coding":
        coding = str(rng.choice(["utf-8-sig", "utf-16", "utf-32", "latin-1", "crlf"]))
        text = content.decode() + ("é" if coding == "latin-1" else "")
        new = text.replace("\n", "\r\n").encode() if coding == "crlf" else text.encode(coding)
        done = [coding]
    elif way == "whole":
        kinds: dict[str, bytes | str] = {
            "empty": b"",
            "blank": b"\n \n",
            "list": b"[1, 2]",
            "number": b"7",
            "deep": b"[" * 9000,
            "bomb": _BOMB,
        }
        kind = str(rng.choice(list(kinds)))
        value = kinds[kind]
        new, done = value.encode() if isinstance(value, str) else value, [kind]
    elif way == "lines":
        lines = content.splitlines(keepends=True) or [b""]
        index = int(rng.integers(len(lines)))
        kind = str(rng.choice(["twice", "gone", "doubled"]))
        lines[index : index + 1] = {"twice": lines[index : index + 1] * 2, "gone": [], "last": [], "doubled": lines}[
            kind
        ]
        new, done = b"".join(lines), [f"line {index + 1} {kind}"]
    else:
        text = content.decode()
        words = [(start, end) for start, end in _words(text)] or [(0, 0)]
        start, end = words[int(rng.integers(len(words)))]
        token = str(rng.choice(_TOKENS))
        new, done = (text[:start] + token + text[end:]).encode(), [f"{text[start:end]!r} -> {token[:40]!r}"]
    path.write_bytes(new)
    return f"{path.name}: {'; '.join(done)}"


def _words(text: str) -> list[tuple[int, int]]:
    import re

    return [match.span() for match in re.finditer(r'"[^"]*"|[^\s,:\[\]{}"]+', text)]


def spoil_checkpoint(path: Path, rng: Random) -> str:
    """Damage a checkpoint in place: its bytes, its tensors, or the description in it; returns what was done."""
    way = str(rng.choice(["bytes", "tensor", "tensor", "entry", "info", "info", "info", "kind"]))
    if way == "bytes":
        new, done = spoil_bytes(path.read_bytes(), rng)
        path.write_bytes(new)
        return done[0]
    import torch

    content = torch.load(path, weights_only=True)
    if way == "kind":
        odd: list[Any] = [[], None, 3, {"duomod": content["duomod"]}, {}, {1: 2}, torch.zeros(3), "text", {"model": {}}]
        chosen = int(rng.integers(len(odd)))
        torch.save(odd[chosen], path)
        return f"holds {type(odd[chosen]).__name__} {chosen}"
    if way == "info":
        side = path.with_suffix(".json")
        side.write_text(content["duomod"], encoding="utf-8")
        what = spoil_text(side, rng)
        content["duomod"] = side.read_bytes().decode("utf-8", "replace")
    else:
        states = [value for value in content.values() if isinstance(value, dict)] or [content]
        state = states[int(rng.integers(len(states)))]
        what = _spoil_state(state, way, rng, torch)
    torch.save(content, path)
    return what


def _spoil_state(state: dict[Any, Any], way: str, rng: Random, torch: Any) -> str:
    name = list(state)[int(rng.integers(len(state)))]
    changes: dict[str, Callable[[Any], Any]] = {
        "NaN": lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t - 10**9,
        "inf": lambda t: t * float("inf"),
        "flat": lambda t: t.flatten(),
        "more": lambda t: torch.cat([t.reshape(-1), t.reshape(-1)]),
        "double": lambda t: t.double(),
        "complex": lambda t: t.to(torch.complex64),
        "int": lambda t: t.int(),
        "empty": lambda t: t.reshape(-1)[:0],
        "list": lambda t: t.tolist() if hasattr(t, "tolist") else [t],
        "text": lambda t: "x",
    }
    if way == "entry":
        value = state.pop(name)
        if rng.random() < 0.5:
            state[f"{name}x"] = value
        return f"{name} gone or renamed"
    kind = str(rng.choice(list(changes)))
    if kind in ("list", "text") or hasattr(state[name], "reshape"):
        state[name] = changes[kind](state[name])
    return f"{name}: {kind}"


@dataclass(frozen=True)
class Trial:
    """One damaged input and the command that meets it.

    Attributes:
        what: What was changed.
        command: Arguments of ``duomod``.
        difference: Says what of an accepted input was read otherwise than by another reader; None where nothing was,
            or where a sentence names it.
    """

    what: str
    command: list[str]
    difference: Callable[[], str | None]
