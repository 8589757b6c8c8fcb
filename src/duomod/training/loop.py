"""The training loop. It knows no method: a method gives a loss, the loop does the rest."""

from __future__ import annotations

import math
import time
from contextlib import closing
from typing import Any

import numpy as np

from duomod.console import progress as progress_display
from duomod.sampling.streams import batches
from duomod.training.checkpoint import save_checkpoint
from duomod.training.learner import Learner
from duomod.training.run import Run, State
from duomod.training.stopping import Interrupted, StopRequest, resume_command, stop_requests, stoppable
from duomod.training.trackers import Sums, Trackers
from duomod.training.validate import UnsoundError, validate


def fit(run: Run, resume: dict[str, Any] | None) -> State:
    """Train to the end, or until early stopping. Returns the final state.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is in ``ckpts/last.pth``.
        DuomodError: something is no longer a number; nothing of that was saved.
    """
    learner = Learner(run, resume)
    state = learner.state
    with (
        Trackers(run.folder, state.step) as trackers,
        progress_display(f"{run.info.method}, seed {run.seed}", run.total_steps, state.step) as advance,
        stop_requests() as stop,
    ):
        if state.validation_due:
            _validate_and_save(run, learner, trackers, stop)
        # A run that was killed at its very end has only its end to do.
        steps = range(0) if _is_finished(run, state) else range(state.step, run.total_steps)
        workers, views = run.config.sampling.workers, run.method.view_settings(run.method.config)
        stream = batches(run.store, run.split, run.crop, steps, run.method.uses_unlabelled, workers, views)
        sums, note = Sums(), ""
        run.method.train()
        with closing(stream):
            for batch in stream:
                sums.add(learner.step(batch))
                if learner.left_out:
                    trackers.log(f"step {state.step} of {run.total_steps} is left out: {learner.left_out}")
                epoch_ends = state.step % run.steps_per_epoch == 0 or state.step == run.total_steps
                if epoch_ends or stop.requested:
                    learner.demand_numbers()
                    note = _record(learner, sums.means(run.store.spec.classes), trackers)
                    state.validation_due = epoch_ends and _validation_comes(run, state)
                    _validate_and_save(run, learner, trackers, stop)
                advance(note)
                if _is_finished(run, state):
                    break
        _conclude(run, state, trackers)
    return state


def _record(learner: Learner, numbers: dict[str, float], trackers: Trackers) -> str:
    """Record the means of the steps so far; returns the note beside the progress bar."""
    state = learner.state
    trackers.scalars(state.step - 1, {**numbers, "learning_rate": learner.rate})
    loss = f"loss {numbers['loss']:.3f}" if numbers else "no loss"
    return loss + (f" dice {state.best_dice:.3f}" if state.best_dice >= 0 else "")


def _validation_comes(run: Run, state: State) -> bool:
    """Whether the settings want a validation after this epoch."""
    rule = run.config.validation
    epoch = math.ceil(state.step / run.steps_per_epoch)
    last = state.step == run.total_steps
    dense = rule.dense_from_epoch is not None and epoch >= rule.dense_from_epoch
    return bool(run.split.eval) and (epoch % rule.every_epochs == 0 or dense or last)


def _validate_and_save(run: Run, learner: Learner, trackers: Trackers, stop: StopRequest) -> None:
    """Validate if that is due, and save the state; where the run is to stop, the validation is left to its resume.

    Raises:
        Interrupted: it was to stop, and is not at its end.
        DuomodError: the model answers with what is no number.
    """
    state = learner.state
    if state.validation_due:
        try:
            _validate(run, state, trackers, stop)
        except UnsoundError as error:
            raise learner.failure(state.step - 1, str(error), can_skip=False) from None
    learner.save()
    if stop.requested and not _is_finished(run, state):
        trackers.log(f"interrupted after step {state.step} of {run.total_steps}; the state is saved")
        raise Interrupted(f"to go on, run: {resume_command()}")


def _is_finished(run: Run, state: State) -> bool:
    """Whether the last step is taken and validated, or no validation was better for long enough."""
    patience = run.config.validation.patience
    stopped_early = patience is not None and state.without_improvement >= patience
    return not state.validation_due and (stopped_early or state.step == run.total_steps)


def _validate(run: Run, state: State, trackers: Trackers, stop: StopRequest) -> None:
    """Validate, and keep the best model; a request to stop leaves everything as it was."""
    rule, began, model = run.config.validation, time.monotonic(), run.method.predictor()
    dice = None
    with stoppable(model, stop):
        dice = validate(
            model,
            run.store,
            run.split.eval,
            run.info.patch,
            rule.overlap,
            run.device,
            run.dtype,
            rule.both_empty,
        )
    run.method.train()
    if dice is None:
        return
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
    state.validation_due = False
    trackers.log(
        f"epoch {math.ceil(state.step / run.steps_per_epoch)}: validation Dice {mean:.4f}"
        f"{' (best so far)' if improved else ''}, {time.monotonic() - began:.1f} s",
        show=False,
    )


def _conclude(run: Run, state: State, trackers: Trackers) -> None:
    """Say how the run ended; where nothing could be validated, the last model is the best."""
    if state.step < run.total_steps:
        trackers.log(f"stopped early: no improvement in {state.without_improvement} validations")
    best = f", best validation Dice {state.best_dice:.4f} after step {state.best_step}"
    if state.best_dice < 0:
        trackers.log("no evaluation cases: best_model.pth is the last model")
        _save_best(run, state, None)
        best = ""
    left_out = f", {state.skipped} of them left out (loss or gradient not a number)" if state.skipped else ""
    trackers.log(f"done: {state.step} steps{left_out}{best}")


def _save_best(run: Run, state: State, dice: float | None) -> None:
    info = run.info.model_copy(update={"step": state.step, "validation_dice": dice})
    save_checkpoint(run.best, run.method, info)
