"""The training loop. It knows no method: a method gives a loss, the loop does the rest."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duomod.config import TrainConfig
from duomod.console import progress as progress_display
from duomod.datasets.splits import Split
from duomod.errors import DuomodError
from duomod.methods.base import Batch, Method, Progress
from duomod.preprocessing.store import Store
from duomod.sampling.streams import Crop, batches
from duomod.seeding import torch_seed
from duomod.training.checkpoint import ModelInfo, save_checkpoint
from duomod.training.optim import build_optimizer, learning_rate
from duomod.training.precision import autocast
from duomod.training.stopping import Interrupted, resume_command, stop_requests
from duomod.training.trackers import Sums, Trackers
from duomod.training.validate import validate


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
    learner = Learner(run, resume)
    state = learner.state
    crop = Crop(run.info.patch, run.seed, run.config.sampling, run.config.augment)
    steps = range(state.step, run.total_steps)
    workers, views = run.config.sampling.workers, run.method.view_settings(run.method.config)
    stream = batches(run.store, run.split, crop, steps, run.method.uses_unlabelled, workers, views)
    sums, note = Sums(), ""
    with (
        Trackers(run.folder, state.step) as trackers,
        progress_display(f"{run.info.method}, seed {run.seed}", run.total_steps, state.step) as advance,
        stop_requests() as stop,
    ):
        run.method.train()
        for batch in stream:
            sums.add(learner.step(batch))
            epoch_ends = state.step % run.steps_per_epoch == 0 or state.step == run.total_steps
            stopping = stop.requested
            if epoch_ends or stopping:
                note = _record(run, learner, sums.means(run.store.spec.classes), trackers)
                finished = epoch_ends and _validate_if_due(run, state, trackers)
                learner.save()
                if finished:
                    trackers.log(f"stopped early: no improvement in {state.without_improvement} validations")
                    break
            advance(note)
            if stopping:
                trackers.log(f"interrupted after step {state.step} of {run.total_steps}; the state is saved")
                raise Interrupted(f"to go on, run: {resume_command()}")
        _conclude(run, state, trackers)
    return state


class Learner:
    """What a step changes: the method's weights, the optimizer, the gradient scaler and the run's state."""

    def __init__(self, run: Run, resume: dict[str, Any] | None) -> None:
        self.run = run
        self.optimizer = build_optimizer(run.method, run.config.optim)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype is torch.float16)
        self.state = State()
        #: Learning rate of the last step.
        self.rate = 0.0
        if resume is not None:
            run.method.load_state_dict(resume["method"])
            self.optimizer.load_state_dict(resume["optimizer"])
            self.scaler.load_state_dict(resume["scaler"])
            self.state = State(**resume["state"])

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step; returns the loss and its parts, detached, on the device."""
        run, method, optim = self.run, self.run.method, self.run.config.optim
        progress = Progress(self.state.step, run.schedule_steps, run.steps_per_epoch)
        self.rate = learning_rate(optim, self.state.step, run.schedule_steps, run.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        torch.manual_seed(torch_seed(run.seed, "step", self.state.step))
        with autocast(run.device, run.dtype):
            output = method(batch.to(run.device), progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(output.loss).backward()
        if optim.clip_gradient is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(method.parameters(), optim.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        method.after_step(progress)
        self.state.step += 1
        return {"loss": output.loss.detach(), **output.parts}

    def save(self) -> None:
        """Write ``ckpts/last.pth``: the model, and all that resuming needs."""
        run = self.run
        resume = {
            "method": run.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "state": asdict(self.state),
        }
        info = run.info.model_copy(update={"step": self.state.step})
        save_checkpoint(run.folder / "ckpts" / "last.pth", run.method, info, resume)


def _record(run: Run, learner: Learner, numbers: dict[str, float], trackers: Trackers) -> str:
    """Record the means of the steps so far; returns the note beside the progress bar."""
    state = learner.state
    trackers.scalars(state.step - 1, {**numbers, "learning_rate": learner.rate})
    if not math.isfinite(numbers["loss"]):
        raise DuomodError(
            f"{run.folder}: the loss became {numbers['loss']} in the steps before {state.step};"
            " ckpts/last.pth holds the last good state. Try --precision fp32 or a lower learning rate."
        )
    return f"loss {numbers['loss']:.3f}" + (f" dice {state.best_dice:.3f}" if state.best_dice >= 0 else "")


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
        _save_best(run, state, mean)
    else:
        state.without_improvement += 1
    trackers.log(
        f"epoch {epoch}: validation Dice {mean:.4f}{' (best so far)' if improved else ''},"
        f" {time.monotonic() - began:.1f} s",
        show=False,
    )
    return rule.patience is not None and state.without_improvement >= rule.patience


def _conclude(run: Run, state: State, trackers: Trackers) -> None:
    """Say how the run ended; where nothing could be validated, the last model is the best."""
    best = f", best validation Dice {state.best_dice:.4f} after step {state.best_step}"
    if state.best_dice < 0:
        trackers.log("no evaluation cases: best_model.pth is the last model")
        _save_best(run, state, None)
        best = ""
    trackers.log(f"done: {state.step} steps{best}")


def _save_best(run: Run, state: State, dice: float | None) -> None:
    info = run.info.model_copy(update={"step": state.step, "validation_dice": dice})
    save_checkpoint(run.folder / "ckpts" / "best_model.pth", run.method, info)
