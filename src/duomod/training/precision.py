"""Device and number format: what is asked for, and what the machine can do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from duomod.console import say
from duomod.errors import InputError


def choose_device(gpu: str) -> torch.device:
    """Return the device for ``--gpu``: "" for the CPU, or a GPU's number.

    Falls back to the CPU, and says so in one line, where no GPU is present.

    Raises:
        InputError: not a number, or a GPU that the machine does not have.
    """
    if gpu.strip() == "":
        say("running on the CPU (--gpu is empty)")
        return torch.device("cpu")
    try:
        index = int(gpu.split(",")[0])
    except ValueError:
        raise InputError(f"--gpu '{gpu}': give the number of a GPU, or \"\" for the CPU") from None
    if not torch.cuda.is_available():
        say("running on the CPU (no GPU present)")
        return torch.device("cpu")
    if not 0 <= index < torch.cuda.device_count():
        raise InputError(f"--gpu {index}: this machine has GPUs 0 to {torch.cuda.device_count() - 1}")
    return torch.device("cuda", index)


@cache
def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; elsewhere bf16 is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_dtype(precision: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> torch.dtype | None:
    """Return the autocast type, or None for plain float32.

    ``auto``: bf16 where the device has it, else fp16 on CUDA (with a gradient scaler) and float32 on the CPU.

    Raises:
        InputError: fp16 on a CPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if _cpu_has_bf16() else None
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    """The autocast context for a type chosen by :func:`choose_dtype`."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def lay_out(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to its device; on the CPU to the channels-last layout too, in which convolutions are fastest."""
    module = module.to(device)
    if device.type == "cpu":
        # torch's signature omits 5-D layouts that the function accepts.
        module = module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return module
