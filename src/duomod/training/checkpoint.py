"""The checkpoint file: plain tensors and one JSON string; pickled objects never."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from duomod.errors import InputError, in_one_line
from duomod.methods.base import Method
from duomod.training.model_info import INFO_KEY, ModelInfo
from duomod.workspace import atomic_path

RESUME_KEY = "resume"


def save_checkpoint(path: Path, method: Method, info: ModelInfo, resume: dict[str, Any] | None = None) -> None:
    """Write a checkpoint atomically: the networks under their published keys, the info, and what resuming needs."""
    content: dict[str, Any] = {key: module.state_dict() for key, module in method.published_modules().items()}
    content[INFO_KEY] = info.model_dump_json()
    if resume is not None:
        content[RESUME_KEY] = resume
    # Through memory: torch turns a full disk into an internal error that says nothing of it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


class Checkpoint(dict[str, Any]):
    """What a checkpoint file holds: state dicts by key, the info as text, what resuming needs.

    Attributes:
        sha256: Of the very bytes that it was made from, whatever the file holds by now.
        size: How many they are.
    """

    def __init__(self, content: Mapping[str, Any], data: bytes) -> None:
        super().__init__(content)
        self.sha256, self.size = hashlib.sha256(data).hexdigest(), len(data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint file to the CPU without running any code in it.

    The file is read once. Its records' checksums are verified, which torch does not do.

    Raises:
        InputError: missing, not a checkpoint, truncated, changed since it was written, or holding a pickled object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        data = path.read_bytes()
    except MemoryError:
        size = path.stat().st_size >> 20
        raise InputError(f"{path}: {size:,} MiB, more than this computer's memory; no checkpoint is so large") from None
    packed = data.startswith(b"PK")
    damage = _damage(data) if packed else None
    if damage is not None:
        raise InputError(f"{path}: not a checkpoint, or a damaged one ({damage}); take another copy of the file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own message says what is wrong with the file
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if packed or "GLOBAL" in str(error) or "global" in str(error):
            raise InputError(
                f"{path}: this checkpoint holds a pickled object, which could run code when opened; it is refused."
                " Save it again as plain state dicts of tensors."
            ) from None
        raise InputError(f"{path}: not a checkpoint (it cannot be read by torch)") from None
    except Exception as error:  # whatever torch's reader makes of a stranger's bytes
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or a truncated one ({in_one_line(reason)})") from None
    if not isinstance(content, dict) or not any(isinstance(value, dict) for value in content.values()):
        raise InputError(f"{path}: not a checkpoint of a segmentation model (expected state dicts such as 'A' and 'B')")
    return Checkpoint({str(key): value for key, value in content.items()}, data)


def _damage(data: bytes) -> str | None:
    """What is wrong with the archive that torch writes: plain records, each with its checksum; None if nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                return "its records are compressed, as torch never writes them"
            # Records that share their bytes would take far more memory than the file.
            if sum(record.file_size for record in records) > len(data):
                return "its records are larger than the file"
            changed = archive.testzip()
    except Exception as error:  # whatever the reader makes of a stranger's bytes
        return in_one_line(str(error)[:200]) or type(error).__name__
    return (
        None if changed is None else f"its record {in_one_line(changed)} has another checksum than when it was written"
    )
