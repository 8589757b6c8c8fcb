"""What a step changes, and the promise that nothing is kept that is no number."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from duomod.errors import DuomodError, InputError
from duomod.methods.base import Batch, Progress
from duomod.sampling.streams import cases_of_step
from duomod.seeding import torch_seed
from duomod.training.checkpoint import save_checkpoint
from duomod.training.numbers import all_finite, not_finite, state_of
from duomod.training.optim import build_optimizer, learning_rate, restore_optimizer
from duomod.training.precision import autocast
from duomod.training.run import Run, State

#: So many steps without a finite gradient, one after the other, are no accident. A gradient scaler that begins at
#: 65536 and halves its scale at each needs 16 of them to get to 1.
MOST_IN_A_ROW = 20


class Learner:
    """What a step changes: the method's weights, the optimizer, the gradient scaler and the run's state."""

    def __init__(self, run: Run, resume: dict[str, Any] | None) -> None:
        self.run = run
        self.optimizer = build_optimizer(run.method, run.config.optim)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype is torch.float16)
        self.state = State()
        #: Learning rate of the last step.
        self.rate = 0.0
        #: Why the last step was left out; empty if it was taken.
        self.left_out = ""
        self._in_a_row = 0
        self._saved: int | None = None
        #: A GPU is not waited for at every step: it notes the first bad one, and is asked before anything is saved.
        self._waits = run.device.type == "cpu" or run.on_nan == "skip" or self.scaler.is_enabled()
        self._first_bad = torch.full((), -1, device=run.device)
        # A buffer may begin with an infinite value (a smallest value so far); it may keep one.
        self._endless = frozenset(not_finite(state_of(run.method, self.optimizer)))
        if resume is not None:
            try:
                run.method.load_state_dict(resume["method"])
                restore_optimizer(self.optimizer, resume["optimizer"])
                self.scaler.load_state_dict(resume["scaler"])
                self.state = State(**resume["state"])
            except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise InputError(f"{run.last}: not a state of this run ({reason}); --overwrite trains anew") from None
            self._saved = self.state.step

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step; returns the loss and its parts, detached, on the device: nothing if it was left out.

        Raises:
            DuomodError: the loss or its gradient is not a number, and such steps are not to be left out.
        """
        run, method, optim = self.run, self.run.method, self.run.config.optim
        progress = Progress(self.state.step, run.schedule_steps, run.steps_per_epoch)
        self.rate = learning_rate(optim, self.state.step, run.schedule_steps, run.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        torch.manual_seed(torch_seed(run.seed, "step", self.state.step))
        before = [buffer.clone() for buffer in method.buffers()] if run.on_nan == "skip" else []
        with autocast(run.device, run.dtype):
            output = method(batch.to(run.device), progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(output.loss).backward()
        self.scaler.unscale_(self.optimizer)
        self.left_out = self._problem(output.loss.detach())
        if optim.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(method.parameters(), optim.clip_gradient)
        if self.left_out:
            for buffer, old in zip(method.buffers(), before, strict=True):
                buffer.copy_(old)
            self.state.skipped += 1
        else:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if not self.left_out:
            method.after_step(progress)
        self.state.step += 1
        return {} if self.left_out else {"loss": output.loss.detach(), **output.parts}

    def demand_numbers(self) -> None:
        """Before anything is saved.

        Raises:
            DuomodError: a weight, a buffer or what the optimizer remembers is no longer a number.
        """
        first = int(self._first_bad)
        if first >= 0:
            raise self.failure(first, "the loss or its gradient is not finite")
        named = [pair for pair in state_of(self.run.method, self.optimizer) if pair[0] not in self._endless]
        if not bool(all_finite(tensor for _, tensor in named)):
            what = f"afterwards there are values that are not finite in {_listed(not_finite(named))}"
            raise self.failure(self.state.step - 1, what, can_skip=False)

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
        save_checkpoint(run.last, run.method, info, resume)
        self._saved = self.state.step

    def _problem(self, loss: Tensor) -> str:
        """Why this step must be left out; empty where it is to be taken, as far as is known by now."""
        named = self.run.method.named_parameters()
        gradients = [(name, parameter.grad) for name, parameter in named if parameter.grad is not None]
        good = loss.isfinite() & all_finite(gradient for _, gradient in gradients).to(loss.device)
        if not self._waits:
            now = torch.where(good, -1, self.state.step)
            self._first_bad = torch.where(self._first_bad < 0, now, self._first_bad)
            return ""
        if bool(good):
            self._in_a_row = 0
            return ""
        self._in_a_row += 1
        finite = bool(loss.isfinite())
        what = f"the loss is {loss.item():.3g}"
        what += f", but its gradient is not finite in {_listed(not_finite(gradients))}" if finite else ""
        if self._in_a_row > MOST_IN_A_ROW:
            raise self.failure(self.state.step, f"{what}, as in the {MOST_IN_A_ROW} steps before it")
        if finite and self.scaler.is_enabled():
            return ""  # too large for fp16: the scaler leaves the update out and halves its scale, as it should
        if self.run.on_nan == "stop" or not bool(all_finite(self.run.method.parameters())):
            raise self.failure(self.state.step, what)
        return what

    def failure(self, step: int, what: str, can_skip: bool = True) -> DuomodError:
        """What is wrong with a step, with which cases, and what is left."""
        run = self.run
        cases = ", ".join(dict.fromkeys(cases_of_step(run.split, run.crop, step, run.method.uses_unlabelled)))
        good = "nothing saved before" if self._saved is None else f"last good state: {run.last} (step {self._saved})"
        skip = "resume with --on_nan skip to leave such steps out, or " if can_skip and run.on_nan == "stop" else ""
        return DuomodError(
            f"{run.folder}: step {step + 1} of {run.total_steps} (cases {cases}): {what}; {good};"
            f" {skip}start anew with --precision fp32 or a lower --base_lr"
        )


def _listed(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
