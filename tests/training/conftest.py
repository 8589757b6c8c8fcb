"""Scans that can be read by eye, and a method with one parameter that writes down what the loop does to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from duomod.config import train_config
from duomod.datasets.splits import Split
from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.preprocessing.preprocess import run_preprocess
from duomod.preprocessing.settings import PreprocessSettings
from duomod.preprocessing.store import Store
from duomod.training.checkpoint import read_checkpoint
from duomod.training.loop import fit
from duomod.training.model_info import ModelInfo
from duomod.training.run import Run, State
from duomod.training.settings import OnNan

SHAPE = (12, 16, 16)
SPLIT = Split("by hand", ("case_0", "case_1"), ("case_2", "case_3", "case_4"), ("case_5", "case_6"), ("case_7",))
SPEC = {
    "name": "grey_levels",
    "classes": ["background", "organ", "speck"],
    "modality": "CT",
    "spacing": [1.0, 1.0, 1.0],
    "window": [0, 100],
    "patch": list(SHAPE),
    "split": {"eval": "Va", "test": "Ts", "order": "sorted"},
}


def write_case(folder: Path, number: int, role: str) -> None:
    """A body in air. The body's grey level is the case's: 0.1 (number + 1) as a network sees it.

    The organ, elsewhere in the next case, has four layers of equal size, 0.03 to 0.06 brighter than the body. The speck
    has a voxel more in every case, is 0.08 brighter, and in training cases only.
    """
    image = np.full(SHAPE, -1000, dtype=np.int16)
    label = np.zeros(SHAPE, dtype=np.uint8)
    level = 10 * (number + 1)
    image[2:10, 4:12, 4:12] = level
    columns = slice(4 + number % 3, 10 + number % 3)
    for layer in range(4):
        image[4 + layer, 5:11, columns] = level + 3 + layer
    label[4:8, 5:11, columns] = 1
    if role == "Tr":
        speck = (9, 11, slice(11 - number, 12))
        image[speck], label[speck] = level + 8, 2
    for kind, array in (("images", image), ("labels", label)):
        (folder / f"{kind}{role}").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(array), folder / f"{kind}{role}" / f"case_{number}.nii.gz")


@pytest.fixture(scope="session")
def grey_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preprocessed data set of :data:`SPLIT`: cases 0 to 4 to train on, 5 and 6 to validate, 7 to test."""
    folder = tmp_path_factory.mktemp("grey_levels")
    for number in range(8):
        write_case(folder / "raw", number, "Tr" if number < 5 else "Va" if number < 7 else "Ts")
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    return run_preprocess(
        PreprocessSettings(
            data_path=folder / "raw", output_path=folder / "data", dataset=str(folder / "spec.yaml"), workers=1
        )
    )


def case_of(image: Tensor) -> int:
    """Which case an image or patch was cut from, by its darkest body voxel."""
    return int(image[image > 0.05].min() * 10 + 1e-3) - 1


class Gauge(nn.Module):
    """The recorder's predictor: finds the share ``recall`` of the organ, by its grey level."""

    def __init__(self, seen: list[tuple[bool, Tensor]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.recall, self._seen = 1.0, seen

    def forward(self, x: Tensor) -> Tensor:
        self._seen.append((self.training, x))
        above = x * 10 - torch.floor(x * 10 + 1e-3)
        organ = (above > 0.65 - 0.4 * self.recall) & (above < 0.7)
        return 50.0 * torch.cat([~organ, organ, torch.zeros_like(organ)], 1)


@dataclass
class Step:
    """What one call of a method's ``forward`` was given."""

    progress: Progress
    training: bool
    batch: Batch
    weight: float
    draw: float

    @property
    def labelled_cases(self) -> set[int]:
        """The cases of the labelled patches."""
        return {case_of(image) for image in self.batch.image_l}

    @property
    def unlabelled_cases(self) -> set[int]:
        """The cases of the unlabelled patches."""
        return {case_of(image) for image in self.batch.unlabelled()}


@dataclass
class Records:
    """What the loop did to the method, in order, and what it left behind."""

    folder: Path
    steps: list[Step] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    gradients: list[float | None] = field(default_factory=list)
    after: list[tuple[Progress, float]] = field(default_factory=list)
    looks: list[tuple[bool, Tensor]] = field(default_factory=list)
    state: State | None = None

    @property
    def weights(self) -> list[float]:
        """The weight that each step started with."""
        return [step.weight for step in self.steps]

    @property
    def cases_looked_at(self) -> list[int]:
        """The cases that were predicted, in order."""
        return [case_of(image) for _, image in self.looks]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def checkpoint(self, name: str) -> tuple[float, ModelInfo, dict[str, Any]]:
        """The weight, the description and the resuming part of ``ckpts/<name>.pth``."""
        content = read_checkpoint(self.folder / "ckpts" / f"{name}.pth")
        info = ModelInfo.model_validate_json(content["duomod"])
        return content["model"]["weight"].item(), info, content.get("resume", {})


class Recorder(Method):
    """loss = slope(step) * weight: the gradient is known, the rest is written down."""

    latest_loss: Tensor
    info = MethodInfo(title="Recorder", paper="none", year=2026, summary="writes down what the loop does to it")
    views = ("strong",)

    def __init__(self, records: Records, slopes: Callable[[int], float], recalls: Sequence[float]) -> None:
        super().__init__(MethodConfig(), MethodContext(3, torch.ones(3), lambda *a, **k: nn.Identity()))
        self.records = records
        self.gauge = Gauge(records.looks)
        self._slopes, self._recalls = slopes, list(recalls)
        self.register_buffer("latest_loss", torch.zeros(()))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        weight = self.gauge.weight
        training = self.training and self.gauge.training
        self.records.steps.append(Step(progress, training, batch, weight.item(), torch.rand(()).item()))
        loss = self._slopes(progress.step) * weight
        self.latest_loss = loss.detach()
        return StepOutput(loss, {"progress": torch.tensor(float(progress.step))})

    def after_step(self, progress: Progress) -> None:
        self.records.after.append((progress, self.gauge.weight.item()))

    def predictor(self) -> nn.Module:
        self.gauge.recall = self._recalls.pop(0) if self._recalls else 1.0
        return self.gauge

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.gauge}


@dataclass
class Record:
    """``record(...)`` trains a :class:`Recorder` in ``tmp_path``; ``record.latest`` is there even if training failed.

    Options: ``slopes``, the gradient of each step; ``recalls``, how much of the organ each validation finds;
    ``settings`` (nested); ``resume``, the part of a checkpoint that resuming needs; and what a run is made of.
    """

    data: Path
    folder: Path
    latest: Records = field(init=False)

    def __call__(
        self,
        slopes: Callable[[int], float] = lambda step: 1.0,
        recalls: Sequence[float] = (),
        resume: dict[str, Any] | None = None,
        seed: int = 0,
        split: Split = SPLIT,
        dtype: torch.dtype | None = None,
        on_nan: OnNan = "stop",
        **settings: Any,
    ) -> Records:
        settings = {"max_epochs": 3, "steps_per_epoch": 2, "augment": {"flip_x": "none"}, **settings}
        config = train_config("default", settings)
        store = Store.open(self.data)
        patch = config.patch or store.spec.patch
        info = ModelInfo(method="recorder", network=config.network, num_classes=3, patch=patch, spec=store.spec)
        self.latest = Records(self.folder)
        run = Run(
            folder=self.folder,
            method=Recorder(self.latest, slopes, recalls),
            info=info,
            store=store,
            split=split,
            config=config,
            seed=seed,
            device=torch.device("cpu"),
            dtype=dtype,
            total_steps=(config.max_epochs + config.final_epoch) * settings["steps_per_epoch"],
            steps_per_epoch=settings["steps_per_epoch"],
            on_nan=on_nan,
        )
        self.latest.state = fit(run, resume)
        return self.latest

    def before_update(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Write down what the optimizer is about to use."""
        (group,) = optimizer.param_groups
        (weight,) = group["params"]
        self.latest.rates.append(group["lr"])
        self.latest.gradients.append(None if weight.grad is None else weight.grad.item())


@pytest.fixture
def record(grey_levels: Path, tmp_path: Path) -> Iterator[Record]:
    recording = Record(grey_levels, tmp_path)
    handle = register_optimizer_step_pre_hook(recording.before_update)
    yield recording
    handle.remove()
