"""The training loop. It knows no method: a method gives a loss, the loop does the rest."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duomod.config import TrainConfig
from duomod.console import progress as progress_display
from duomod.datasets.splits import Split
from duomod.errors import DuomodError
from duomod.methods.base import Method, Progress
from duomod.preprocessing.store import Store
from duomod.sampling.streams import Crop, batches
from duomod.seeding import torch_seed
from duomod.training.checkpoint import save_checkpoint
from duomod.training.model_info import ModelInfo
from duomod.training.optim import build_optimizer, learning_rate
from duomod.training.precision import autocast
from duomod.training.trackers import Trackers
from duomod.training.validate import validate


class Interrupted(DuomodError):
    """Training was stopped by a signal after its state was saved."""

    exit_code = 130


@dataclass(frozen=True)
class Run:
    """One training run: everything that is fixed before the first step."""

    folder: Path
    method: Method
    info: ModelInfo
    store: Store
    split: Split
    config: TrainConfig
    seed: int
    device: torch.device
    dtype: torch.dtype | None
    total_steps: int
    steps_per_epoch: int

    @property
    def schedule_steps(self) -> int:
        """Length of learning-rate schedule and ramps; a final epoch comes on top of it."""
        return self.total_steps - self.steps_per_epoch * self.config.final_epoch


@dataclass
class State:
    """Where a run stands; with weights and optimizer, all that resuming needs."""

    step: int = 0
    best_dice: float = -1.0
    best_step: int = 0
    without_improvement: int = 0


def fit(run: Run, resume: dict[str, Any] | None) -> State:
    """Train to the end, or until early stopping. Returns the final state.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is in ``ckpts/last.pth``.
        DuomodError: the loss is no longer a number.
    """
    method, config = run.method, run.config
    optimizer = build_optimizer(method, config.optim)
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype is torch.float16)
    state = State()
    if resume is not None:
        method.load_state_dict(resume["method"])
        optimizer.load_state_dict(resume["optimizer"])
        scaler.load_state_dict(resume["scaler"])
        state = State(**resume["state"])

    def save_last() -> None:
        parts = {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
        info = run.info.model_copy(update={"step": state.step})
        save_checkpoint(run.folder / "ckpts" / "last.pth", method, info, {**parts, "state": asdict(state)})

    crop = Crop(run.info.patch, run.seed, config.sampling, config.augment)
    stream = batches(
        run.store,
        run.split,
        crop,
        range(state.step, run.total_steps),
        method.uses_unlabelled,
        config.sampling.workers,
    )
    sums = Sums()
    note = ""
    with (
        Trackers(run.folder, state.step) as trackers,
        progress_display(f"{run.info.method}, seed {run.seed}", run.total_steps, state.step) as advance,
        stop_requests() as stop,
    ):
        method.train()
        for batch in stream:
            position = Progress(state.step, run.schedule_steps, run.steps_per_epoch)
            rate = learning_rate(config.optim, state.step, run.schedule_steps, run.steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_factor", 1.0)
            torch.manual_seed(torch_seed(run.seed, "step", state.step))
            with autocast(run.device, run.dtype):
                output = method(batch.to(run.device), position)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(output.loss).backward()
            if config.optim.clip_gradient is not None:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(method.parameters(), config.optim.clip_gradient)
            scaler.step(optimizer)
            scaler.update()
            method.after_step(position)
            sums.add({"loss": output.loss.detach(), **output.parts})
            state.step += 1

            if state.step % run.steps_per_epoch == 0 or state.step == run.total_steps or stop.requested:
                numbers = sums.means(run.store.spec.classes)
                trackers.scalars(state.step - 1, {**numbers, "learning_rate": rate})
                if not math.isfinite(numbers["loss"]):
                    raise DuomodError(
                        f"{run.folder}: the loss became {numbers['loss']} in the steps before {state.step};"
                        " ckpts/last.pth holds the last good state. Try --precision fp32 or a lower learning rate."
                    )
                note = f"loss {numbers['loss']:.3f}" + (f" dice {state.best_dice:.3f}" if state.best_dice >= 0 else "")
                finished = False
                if state.step % run.steps_per_epoch == 0 or state.step == run.total_steps:
                    finished = _validate_if_due(run, state, trackers)
                save_last()
                if finished:
                    trackers.log(f"stopped early: no improvement in {state.without_improvement} validations")
                    break
            advance(note)
            if stop.requested:
                trackers.log(f"interrupted after step {state.step} of {run.total_steps}; the state is saved")
                raise Interrupted(f"to go on, run: {resume_command()}")
        if state.best_dice < 0:
            trackers.log("no evaluation cases: best_model.pth is the last model")
            save_checkpoint(
                run.folder / "ckpts" / "best_model.pth", method, run.info.model_copy(update={"step": state.step})
            )
        trackers.log(
            f"done: {state.step} steps"
            + (
                f", best validation Dice {state.best_dice:.4f} after step {state.best_step}"
                if state.best_dice >= 0
                else ""
            )
        )
    return state


def _validate_if_due(run: Run, state: State, trackers: Trackers) -> bool:
    """Validate where the settings say so; keep the best model. Returns whether to stop early."""
    rule = run.config.validation
    epoch = math.ceil(state.step / run.steps_per_epoch)
    last = state.step == run.total_steps
    dense = rule.dense_from_epoch is not None and epoch >= rule.dense_from_epoch
    if not run.split.eval or not (epoch % rule.every_epochs == 0 or dense or last):
        return False
    began = time.monotonic()
    dice = validate(
        run.method.predictor(),
        run.store,
        run.split.eval,
        run.info.patch,
        rule.overlap,
        run.device,
        run.dtype,
        rule.both_empty,
    )
    run.method.train()
    mean = float(np.nanmean(dice)) if np.isfinite(dice).any() else 0.0
    named = zip(run.store.spec.classes[1:], dice, strict=True)
    per_class = {f"val_dice/{name}": float(d) for name, d in named if np.isfinite(d)}
    trackers.scalars(state.step - 1, {"val_dice": mean, **per_class})
    improved = mean > state.best_dice
    if improved:
        state.best_dice, state.best_step, state.without_improvement = mean, state.step, 0
        info = run.info.model_copy(update={"step": state.step, "validation_dice": mean})
        save_checkpoint(run.folder / "ckpts" / "best_model.pth", run.method, info)
    else:
        state.without_improvement += 1
    trackers.log(
        f"epoch {epoch}: validation Dice {mean:.4f}{' (best so far)' if improved else ''},"
        f" {time.monotonic() - began:.1f} s",
        show=False,
    )
    return rule.patience is not None and state.without_improvement >= rule.patience


class Sums:
    """Running sums of logged parts; they stay on the device until an epoch's means are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        """Add one step's parts: scalars, or one value per class."""
        for name, value in parts.items():
            total, count = self._sums.get(name, (torch.zeros_like(value), 0))
            self._sums[name] = (total + value, count + 1)

    def means(self, classes: Sequence[str]) -> dict[str, float]:
        """Return the means and start again; a value per class becomes ``name/class``. The host waits for the device."""
        result = {}
        for name, (total, count) in self._sums.items():
            mean = (total / count).tolist()
            if isinstance(mean, list):
                result.update({f"{name}/{label}": value for label, value in zip(classes, mean, strict=True)})
            else:
                result[name] = mean
        self._sums = {}
        return result


@dataclass
class StopRequest:
    """Set by the first Ctrl-C or SIGTERM."""

    requested: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request that the loop honours after the running step; a second one kills."""
    stop = StopRequest()

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        for known, handler in previous.items():
            signal.signal(known, handler)

    previous: dict[signal.Signals, Any] = {}
    try:
        for known in (signal.SIGINT, signal.SIGTERM):
            previous[known] = signal.signal(known, request)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        pass
    try:
        yield stop
    finally:
        for known, handler in previous.items():
            signal.signal(known, handler)


def resume_command() -> str:
    """The command line that was typed, with ``--resume``."""
    kept = [argument for argument in sys.argv if argument not in ("--overwrite", "--resume")]
    return shlex.join([*kept, "--resume"])
