"""What a training step of each method costs on this machine."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from duomod.config import NetworkConfig
from duomod.console import progress as progress_display
from duomod.methods.base import Batch, Progress
from duomod.methods.catalog.facts import build
from duomod.methods.catalog.measurements import BASELINE, RelativeCost
from duomod.sampling.views import with_views
from duomod.workers import Task, run_apart

NETWORK = NetworkConfig(filters=8, levels=4, norm="instance", dropout_bottleneck=0.0, dropout_last=0.0)


@dataclass(frozen=True)
class StepCost:
    """What one training step costs: ``milliseconds`` (the fastest) and ``mebibytes`` (peak beyond the process itself).

    On a CPU the milliseconds are processor time of one thread, which other work on the machine disturbs least.
    """

    milliseconds: float
    mebibytes: float


@dataclass(frozen=True)
class Conditions:
    """What is trained where: 2 labelled + 2 unlabelled patches with a V-Net of 8 filters, without dropout.

    Attributes:
        patch: Voxels, z y x.
        classes: Background included.
        steps: Steps timed, after two that are not.
        device: Torch device.
    """

    patch: tuple[int, int, int] = (32, 48, 48)
    classes: int = 16
    steps: int = 5
    device: str = "cpu"

    def __str__(self) -> str:
        size = " x ".join(map(str, self.patch))
        where, clock = ("one GPU", "wall-clock time") if self.on_gpu else ("one CPU thread", "processor time")
        return (
            f"{where}, V-Net with {NETWORK.filters} filters and {NETWORK.levels} levels, 2 + 2 patches of {size}"
            f" (supervised: 2), {self.classes} classes, float32; {clock}"
        )

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return torch.device(self.device).type == "cuda"


def measure(names: Sequence[str], conditions: Conditions) -> dict[str, StepCost]:
    """Measure a training step (forward, backward, optimizer) of each method; the baseline is added.

    Each method has a fresh process, one after the other, so that its peak memory is its own. The step measured lies in
    the middle of training, where every term of a method is switched on.

    Raises:
        DuomodError: a method's process died.
    """
    wanted = list(dict.fromkeys([BASELINE, *names]))
    costs = {}
    with progress_display("measuring", len(wanted), 0) as advance:
        for name in wanted:
            costs[name] = run_apart(Task(f"the step of {name}", partial(_measure_one, name, conditions)))
            advance(name)
    return costs


def _measure_one(name: str, conditions: Conditions) -> StepCost:
    device, size, classes = torch.device(conditions.device), conditions.patch, conditions.classes
    clock = time.perf_counter if conditions.on_gpu else time.process_time
    torch.set_num_threads(1)
    # The baseline of the memory: a small convolution first, so that the libraries' own buffers are not counted.
    nn.Conv3d(1, 1, 3).to(device)(torch.zeros(1, 1, 8, 8, 8, device=device)).sum().backward()
    before = _peak_memory(conditions.on_gpu)
    torch.manual_seed(0)
    method = build(name, NETWORK, classes).to(device).train()
    unlabelled = torch.rand(2, 1, *size) if method.uses_unlabelled else None
    plain = Batch(torch.rand(2, 1, *size), torch.randint(classes, (2, *size)), unlabelled)
    batch = with_views(plain, method.view_settings(method.config), seed=0).to(device)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    times = []
    for step in range(conditions.steps + 2):
        # Step 500 of 1000 and on: past every start-up phase.
        position = Progress(500 + step, 1000, 10)
        began = clock()
        optimizer.zero_grad(set_to_none=True)
        method(batch, position).loss.backward()
        optimizer.step()
        method.after_step(position)
        if conditions.on_gpu:
            torch.cuda.synchronize()
        times.append(1000 * (clock() - began))
    return StepCost(min(times[2:]), _peak_memory(conditions.on_gpu) - before)


def _peak_memory(on_gpu: bool) -> float:
    """MiB: the largest so far, of the GPU's tensors or of this process."""
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: Linux lets a new process inherit its parent's maximum.
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)


def relative(costs: Mapping[str, StepCost]) -> dict[str, RelativeCost]:
    """Time and memory of each method's step relative to the baseline's."""
    base = costs[BASELINE]
    return {
        name: RelativeCost(
            time=round(cost.milliseconds / base.milliseconds, 2), memory=round(cost.mebibytes / base.mebibytes, 2)
        )
        for name, cost in costs.items()
    }
