"""Facts about methods for ``duomod methods``: counted on the meta device, measured on this machine, never guessed."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from duomod.config import NetworkConfig
from duomod.console import progress as progress_display
from duomod.methods.base import Batch, Method, MethodContext, Progress
from duomod.methods.registry import available_methods, load_method
from duomod.methods.settings import MethodsSettings
from duomod.networks.registry import build_network
from duomod.networks.vnet import initialise
from duomod.sampling.views import with_views
from duomod.workers import Task, run_apart
from duomod.workspace import write_json

#: What every relative number is relative to.
BASELINE = "supervised"
STORED = "measurements.json"

_SMALL = NetworkConfig.model_validate(
    {"filters": 8, "levels": 4, "norm": "instance", "dropout_bottleneck": 0.0, "dropout_last": 0.0}
)


@dataclass(frozen=True)
class MethodFacts:
    """One line of ``duomod methods``.

    ``trained`` and ``total`` count parameters of the whole method, teachers included in ``total`` only.
    ``relative_time`` and ``relative_memory`` are those of a training step, supervised being 1; None: not measured.
    """

    name: str
    title: str
    paper: str
    year: int
    networks: str
    trained: int
    total: int
    relative_time: float | None
    relative_memory: float | None
    summary: str


@dataclass(frozen=True)
class StepCost:
    """What one training step costs: ``milliseconds`` (the fastest) and ``mebibytes`` (peak beyond the process itself).

    On a CPU the milliseconds are processor time of one thread, which other work on the machine disturbs least.
    """

    milliseconds: float
    mebibytes: float


def build(name: str, network: NetworkConfig, classes: int) -> Method:
    """A method with fresh weights, on the current default device."""

    def make(init: Any = "default", *, in_channels: int = 1, kind: str | None = None) -> Any:
        config = network.model_copy(update={"name": kind}) if kind else network
        return initialise(build_network(config, in_channels, classes), init)

    cls = load_method(name)
    return cls(cls.Config.preset("default"), MethodContext(classes, torch.ones(classes, dtype=torch.float64), make))


def facts(names: Sequence[str], network: NetworkConfig | None = None, classes: int = 16) -> list[MethodFacts]:
    """Facts of methods with a network (default: the full V-Net); no memory is spent on weights.

    Raises:
        InputError: unknown method.
    """
    stored = stored_measurements().get("relative", {})
    rows = []
    for name in names:
        with torch.device("meta"):
            method = build(name, network or NetworkConfig.model_validate({}), classes)
        cost = stored.get(name, {})
        rows.append(
            MethodFacts(
                name=name,
                title=method.info.title,
                paper=method.info.paper,
                year=method.info.year,
                networks=describe_networks(method),
                trained=sum(p.numel() for p in method.parameters() if p.requires_grad),
                total=sum(p.numel() for p in method.parameters()),
                relative_time=cost.get("time"),
                relative_memory=cost.get("memory"),
                summary=method.info.summary,
            )
        )
    return rows


def describe_networks(method: Method) -> str:
    """The networks in words, such as ``2 x VNet`` or ``VNet + teacher``."""
    trained: dict[str, int] = {}
    followers = 0
    for module in {id(m): m for m in method.published_modules().values()}.values():
        if any(p.requires_grad for p in module.parameters()):
            kind = type(module).__name__
            trained[kind] = trained.get(kind, 0) + 1
        else:
            followers += 1
    words = [kind if count == 1 else f"{count} x {kind}" for kind, count in trained.items()]
    return " + ".join([*words, *(["teacher"] if followers else [])])


def stored_measurements() -> dict[str, Any]:
    """The measurements that come with the package: ``conditions`` and ``relative`` (method -> time, memory); or {}."""
    file = resources.files("duomod.methods").joinpath(STORED)
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def measure(
    names: Sequence[str],
    *,
    network: NetworkConfig | None = None,
    patch: tuple[int, int, int] = (32, 48, 48),
    classes: int = 16,
    steps: int = 5,
    device: str = "cpu",
) -> dict[str, StepCost]:
    """Measure a training step (2 labelled + 2 unlabelled patches, forward, backward, optimizer) of each method.

    Each method has a fresh process, one after the other, so that its peak memory is its own. The step measured lies in
    the middle of training, where every term of a method is switched on.

    Args:
        names: Methods; the baseline is added.
        network: Default: a V-Net of 8 filters, without dropout.
        patch: Voxels, z y x.
        classes: Background included.
        steps: Steps timed, after two that are not.
        device: Torch device.

    Raises:
        DuomodError: a method's process died.
    """
    config = network or _SMALL
    wanted = list(dict.fromkeys([BASELINE, *names]))
    costs = {}
    with progress_display("measuring", len(wanted), 0) as advance:
        for name in wanted:
            call = partial(_measure_one, name, config, patch, classes, steps, device)
            costs[name] = run_apart(Task(f"the step of {name}", call))
            advance(name)
    return costs


def _measure_one(
    name: str, network: NetworkConfig, patch: tuple[int, int, int], classes: int, steps: int, device: str
) -> StepCost:
    on_gpu = torch.device(device).type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    torch.set_num_threads(1)
    # The baseline of the memory: a small convolution first, so that the libraries' own buffers are not counted.
    nn.Conv3d(1, 1, 3).to(device)(torch.zeros(1, 1, 8, 8, 8, device=device)).sum().backward()
    before = _peak_memory(on_gpu)
    torch.manual_seed(0)
    method = build(name, network, classes).to(device).train()
    unlabelled = torch.rand(2, 1, *patch) if method.uses_unlabelled else None
    plain = Batch(torch.rand(2, 1, *patch), torch.randint(classes, (2, *patch)), unlabelled)
    batch = with_views(plain, method.view_settings(method.config), seed=0).to(torch.device(device))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    times = []
    for step in range(steps + 2):
        # Step 500 of 1000 and on: past every start-up phase.
        position = Progress(500 + step, 1000, 10)
        began = clock()
        optimizer.zero_grad(set_to_none=True)
        method(batch, position).loss.backward()
        optimizer.step()
        method.after_step(position)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(1000 * (clock() - began))
    return StepCost(min(times[2:]), _peak_memory(on_gpu) - before)


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


def relative(costs: Mapping[str, StepCost]) -> dict[str, dict[str, float]]:
    """Time and memory of each method's step relative to the baseline's."""
    base = costs[BASELINE]
    return {
        name: {
            "time": round(cost.milliseconds / base.milliseconds, 2),
            "memory": round(cost.mebibytes / base.mebibytes, 2),
        }
        for name, cost in costs.items()
    }


def store_measurements(costs: Mapping[str, StepCost], conditions: str, path: Path | None = None) -> Path:
    """Write measurements to where ``duomod methods`` reads them (or to ``path``), with the conditions in words."""
    target = path or Path(str(resources.files("duomod.methods").joinpath(STORED)))
    content = {
        "conditions": conditions,
        "relative": relative(costs),
        "measured": {name: asdict(cost) for name, cost in costs.items()},
    }
    write_json(target, content)
    return target


def run_methods(settings: MethodsSettings) -> list[MethodFacts]:
    """Facts of all methods by name, or of one; a broken plug-in is reported by name and left out.

    Raises:
        InputError: unknown method.
    """
    return sorted(facts([settings.name] if settings.name else list(available_methods())), key=lambda row: row.name)


def listing(rows: Sequence[MethodFacts]) -> str:
    """The table ``duomod methods`` prints."""
    stored = stored_measurements()
    head = ["method", "year", "networks", "parameters", "time", "memory", "what it does"]
    table = [
        [
            row.name,
            str(row.year),
            row.networks,
            f"{row.trained / 1e6:.1f} M",
            "-" if row.relative_time is None else f"{row.relative_time:.1f}",
            "-" if row.relative_memory is None else f"{row.relative_memory:.1f}",
            row.summary,
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in [head, *table]
    ]
    papers = [f"{row.name}: {row.paper}" for row in rows]
    conditions = stored.get("conditions", "not measured")
    note = f"Trained parameters, at 32 filters and 16 classes. Time and memory of a step: {BASELINE} = 1, measured"
    return "\n".join([*lines, "", f"{note} ({conditions}).", "", *papers])
