"""The checkpoint file: plain tensors and one JSON string; pickled objects never."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from duomod.errors import InputError
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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint file to the CPU without running any code in it.

    Raises:
        InputError: missing, not a checkpoint, truncated, or holding a pickled object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own message says what is wrong with the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "GLOBAL" in str(error) or "global" in str(error):
            raise InputError(
                f"{path}: this checkpoint holds a pickled object, which could run code when opened; it is refused."
                " Save it again as plain state dicts of tensors."
            ) from None
        raise InputError(f"{path}: not a checkpoint (it cannot be read by torch)") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or a truncated one ({reason})") from None
    if not isinstance(content, dict) or not any(isinstance(value, dict) for value in content.values()):
        raise InputError(f"{path}: not a checkpoint of a segmentation model (expected state dicts such as 'A' and 'B')")
    return content
