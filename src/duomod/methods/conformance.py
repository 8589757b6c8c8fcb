"""What every method must do, checked on tiny random input. ``duomod check-method NAME`` runs it; so do our tests.

A method that passes can
be trained, resumed, validated and used for prediction by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from duomod.config import NetworkConfig
from duomod.conformance import ConformanceError, Result, check_rules, demand, first_of, reload_into
from duomod.losses.running_weights import evaluating
from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, Progress
from duomod.methods.registry import METHODS, load_plugin
from duomod.methods.settings import CheckMethodSettings
from duomod.networks.builder import NetworkBuilder
from duomod.sampling.batch import View
from duomod.sampling.views import with_views

#: A network small enough that all rules take seconds; without dropout, so that a step is a pure function of its input.
NETWORK = NetworkConfig.model_validate(
    {"filters": 4, "levels": 3, "norm": "instance", "dropout_bottleneck": 0.0, "dropout_last": 0.0}
)
PATCH = (16, 16, 16)
CLASSES = 4
STAGES = (0, 50, 99)  # steps of 100: the beginning, the middle and the end of training


@dataclass(frozen=True)
class Subject:
    """The method under test."""

    cls: type[Method]
    config: MethodConfig

    def build(self, classes: int = CLASSES, seed: int = 0, kind: str = NETWORK.name, channels: int = 1) -> Method:
        """The method with fresh weights, in train mode; ``kind`` is the network the user would have chosen."""
        chosen = NETWORK.model_copy(update={"name": kind})
        torch.manual_seed(seed)
        # Each class half as frequent as the one before it.
        counts = 1e6 * 0.5 ** torch.arange(classes, dtype=torch.float64)
        context = MethodContext(classes, counts, NetworkBuilder(chosen, channels, classes), channels)
        return self.cls(self.config, context).train()

    def batch(
        self, classes: int = CLASSES, patches: int = 2, present: Sequence[int] | None = None, channels: int = 1
    ) -> Batch:
        """Random images, and labels in boxes that the images show."""
        generator = torch.Generator().manual_seed(1)
        allowed = torch.tensor(range(classes) if present is None else present)
        blocks = allowed[torch.randint(len(allowed), (patches, 4, 4, 4), generator=generator)]
        label = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
        noise = 0.1 * torch.rand((patches, channels, *PATCH), generator=generator)
        image = 0.9 * label.unsqueeze(1) / max(classes - 1, 1) + noise
        other = torch.rand((patches, channels, *PATCH), generator=generator)
        batch = Batch(image, label, other if self.cls.uses_unlabelled else None)
        return with_views(batch, self.cls.view_settings(self.config), seed=1)


def progress(step: int) -> Progress:
    """Position in a training of 100 steps in 20 epochs."""
    return Progress(step, 100, 5)


def step_loss(method: Method, batch: Batch, step: int, seed: int = 0) -> Tensor:
    """One seeded step's loss."""
    torch.manual_seed(seed)
    loss: Tensor = method(batch, progress(step)).loss
    return loss


def _train(method: Method, batch: Batch, steps: Sequence[int], rate: float) -> None:
    """Plain gradient descent without state of its own, so that the method's state is all there is."""
    for step in steps:
        method.zero_grad()
        torch.autograd.backward(step_loss(method, batch, step, seed=step))
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=rate)
        method.after_step(progress(step))


def _finite_step(method: Method, batch: Batch, step: int, case: str) -> None:
    method.zero_grad()
    loss = step_loss(method, batch, step)
    demand(loss.ndim == 0, f"{case}: the loss has shape {tuple(loss.shape)}, not that of a scalar")
    demand(bool(loss.isfinite()), f"{case}: the loss is {float(loss.detach())}")
    torch.autograd.backward(loss)
    bad = [n for n, p in method.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    demand(not bad, f"{case}: gradients that are not finite: {first_of(bad)}")
    method.after_step(progress(step))


def finite_loss(subject: Subject) -> None:
    """The loss and its gradients are finite in float32 and in bf16, from the first step to the last."""
    for dtype in (None, torch.bfloat16):
        method = subject.build()
        for step in STAGES:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
                _finite_step(method, subject.batch(), step, f"{dtype or torch.float32}, step {step} of 100")


def every_parameter_learns(subject: Subject) -> None:
    """Every trained parameter gets a gradient at some stage of training, in bf16 autocast as in float32."""
    for dtype in (None, torch.bfloat16):
        method = subject.build()
        missing = {name for name, p in method.named_parameters() if p.requires_grad}
        for step in STAGES:
            method.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is not None):
                loss = step_loss(method, subject.batch(), step)
            torch.autograd.backward(loss)
            for name, parameter in method.named_parameters():
                # A bias before a normalisation has a gradient of zero by nature; a weight has not.
                if parameter.grad is not None and (parameter.ndim < 2 or bool(parameter.grad.any())):
                    missing.discard(name)
            method.after_step(progress(step))
        demand(not missing, f"trained parameters without a gradient: {first_of(sorted(missing))}")


class _Trap(Batch):
    """A batch that notes every attribute asked for that a batch has not, and serves one that looks like a label."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        asked: list[str] = object.__getattribute__(self, "__dict__").setdefault("_asked", [])
        asked.append(name)
        return torch.zeros_like(self.label_l)


def no_unlabelled_labels(subject: Subject) -> None:
    """Labels of unlabelled cases cannot reach the loss: a batch has none, and the method asks for none."""
    allowed = {"image_l", "label_l", "image_u", "views"}
    demand({f.name for f in fields(Batch)} == allowed, "a batch holds more than images and the labelled part's labels")
    demand({f.name for f in fields(View)} == {"image", "geometry"}, "a view holds more than an image and its geometry")
    plain = subject.batch()
    for step in STAGES:
        trap = _Trap(plain.image_l, plain.label_l, plain.image_u, plain.views)
        step_loss(subject.build(), trap, step)
        asked = trap.__dict__.get("_asked", [])
        demand(not asked, f"the method asks the batch for '{first_of(asked)}', which a batch does not have")


def state_survives(subject: Subject) -> None:
    """Saved and loaded between two steps, training goes on bit for bit as if it had not been interrupted."""
    batch, steps = subject.batch(), (48, 49, 50, 51)
    uninterrupted = subject.build()
    _train(uninterrupted, batch, steps[:2], 0.01)
    resumed = subject.build(seed=1)
    reload_into(resumed, uninterrupted.state_dict())
    for step in steps[2:]:
        first, second = (step_loss(m, batch, step, seed=step) for m in (uninterrupted, resumed))
        demand(
            bool(first == second),
            f"after save and load the loss is {float(second.detach())} instead of {float(first.detach())}:"
            " state outside sub-modules and buffers",
        )
        # The loss above moved running statistics of both alike; the step itself follows.
        for method in (uninterrupted, resumed):
            _train(method, batch, [step], 0.01)
    after = resumed.state_dict()
    different = [key for key, value in uninterrupted.state_dict().items() if not torch.equal(value, after[key])]
    demand(not different, f"after save and load these differ: {first_of(different)}")


def predictor_works(subject: Subject) -> None:
    """``predictor()`` maps (B, 1, D, H, W) of odd sizes to (B, C, D, H, W), in eval mode the same way every time."""
    method = subject.build()
    _train(method, subject.batch(), [50], 0.01)
    predictor = method.predictor()
    image = torch.rand((2, 1, 13, 17, 15), generator=torch.Generator().manual_seed(2))
    with evaluating(predictor), torch.no_grad():
        first, second = predictor(image), predictor(image)
    wanted = (2, CLASSES, 13, 17, 15)
    demand(isinstance(first, Tensor), f"the predictor returns {type(first).__name__}, not a tensor")
    demand(tuple(first.shape) == wanted, f"the predictor gives {tuple(first.shape)} for 13 x 17 x 15, not {wanted}")
    demand(bool(first.isfinite().all()), "the predictor's output is not finite")
    demand(torch.equal(first, second), "in eval mode the predictor gives two answers to one image")
    if getattr(predictor, "outputs_probabilities", False):
        total = first.sum(1)
        demand(
            torch.allclose(total, torch.ones_like(total), atol=1e-3), "the predictor's probabilities do not sum to 1"
        )


def loss_falls(subject: Subject) -> None:
    """Trained on one tiny batch, in the middle of training, the loss falls by a fifth at least."""
    method, batch = subject.build(), subject.batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    middle, losses = 50, []
    for _ in range(16):
        loss = step_loss(method, batch, middle)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        method.after_step(progress(middle))
    first, last = losses[0], sum(losses[-4:]) / 4
    # A loss may be negative, so the fall is measured against its size.
    demand(first - last >= 0.2 * abs(first), f"in 16 steps on one batch the loss went from {first:.3f} to {last:.3f}")


def any_number_of_classes(subject: Subject) -> None:
    """Two classes and sixteen work."""
    for classes in (2, 16):
        method = subject.build(classes)
        for step in STAGES[1:]:
            _finite_step(method, subject.batch(classes), step, f"{classes} classes")
        predictor = method.predictor()
        with evaluating(predictor), torch.no_grad():
            found = predictor(torch.rand(1, 1, *PATCH)).shape[1]
        demand(found == classes, f"with {classes} classes the predictor gives {found} channels")


def several_channels(subject: Subject) -> None:
    """Images of two channels work, in training and in prediction."""
    method = subject.build(channels=2)
    for step in STAGES:
        _finite_step(method, subject.batch(channels=2), step, "images of 2 channels")
    predictor = method.predictor()
    image = torch.rand(1, 2, *PATCH)
    with evaluating(predictor), torch.no_grad():
        found, other = predictor(image), predictor(torch.cat([image[:, :1], image[:, :1]], dim=1))
    demand(found.shape[1] == CLASSES, f"with 2 channels the predictor gives {found.shape[1]} classes, not {CLASSES}")
    demand(not torch.equal(found, other), "the predictor does not look at the second channel")


def absent_class(subject: Subject) -> None:
    """Batches without some class, even with nothing but background, give a finite loss and finite gradients."""
    method = subject.build()
    for present in ((0, 1), (0,)):
        for step in STAGES[1:]:
            _finite_step(method, subject.batch(present=present), step, f"labels {present} of {CLASSES} classes")


def smallest_batch(subject: Subject) -> None:
    """One labelled and one unlabelled patch work."""
    method = subject.build()
    for step in STAGES[1:]:
        _finite_step(method, subject.batch(patches=1), step, "batch of 1 + 1")


#: Operators that make the host wait for the device, or whose output size depends on the data.
_WAITING = {
    "aten::_local_scalar_dense": "a number is read from a tensor (.item(), float(), if on a tensor)",
    "aten::item": "a number is read from a tensor (.item(), float(), if on a tensor)",
    "aten::is_nonzero": "a tensor is used as a condition",
    "aten::equal": "torch.equal compares on the host",
    "aten::nonzero": "nonzero() or where(condition) has a size that depends on the data",
    "aten::masked_select": "masked_select has a size that depends on the data",
    "aten::_unique2": "unique has a size that depends on the data",
    "aten::unique_dim": "unique has a size that depends on the data",
    "aten::unique_consecutive": "unique has a size that depends on the data",
    "aten::bincount": "bincount has a size that depends on the data (scatter_add_ into C zeros has not)",
}


class _Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that makes the host wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heard: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _WAITING:
            self.heard.append(_WAITING[name])
        elif name in ("aten::index", "aten::index_put", "aten::index_put_"):
            by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
            # x[mask] = number is a masked fill, which needs no size.
            fill = name != "aten::index" and args[2].numel() == 1
            if by_mask and not fill:
                self.heard.append("a tensor is indexed with a boolean mask (torch.where keeps the size)")
        return func(*args, **(kwargs or {}))


def no_synchronisation(subject: Subject) -> None:
    """A step never makes the host wait for the device, so that a GPU is never idle.

    First the operators of a step are listened to; then the step runs on tensors without data, on which reading fails.
    """
    batch = subject.batch()
    for step in STAGES:
        method = subject.build()
        with _Listener() as listener:
            loss = step_loss(method, batch, step)
            torch.autograd.backward(loss)
            method.after_step(progress(step))
        demand(not listener.heard, f"the step waits for the device: {first_of(sorted(set(listener.heard)))}")
        hollow = subject.build().to("meta")
        try:
            torch.autograd.backward(step_loss(hollow, batch.to(torch.device("meta")), step))
            hollow.after_step(progress(step))
        except (RuntimeError, NotImplementedError, TypeError) as error:
            # An operator that torch cannot run without data says nothing about the method.
            if "Meta kernel" in str(error) or "'Meta' backend" in str(error):
                continue
            raise ConformanceError(
                f"the step reads a tensor's values, or keeps one outside its buffers: {error}"
            ) from error


Rule = Callable[[Subject], None]
RULES: tuple[Rule, ...] = (
    finite_loss,
    every_parameter_learns,
    no_unlabelled_labels,
    state_survives,
    predictor_works,
    loss_falls,
    any_number_of_classes,
    several_channels,
    absent_class,
    smallest_batch,
    no_synchronisation,
)


def check_method(
    method_class: type[Method], config: MethodConfig | None = None, rules: Sequence[Rule] = RULES
) -> list[Result]:
    """Run the conformance suite on a method.

    Args:
        method_class: The method.
        config: Its settings (default: its default preset).
        rules: Which rules to check.

    Returns:
        One result per rule, in order. An exception inside the method counts against the rule it came from.
    """
    return check_rules(Subject(method_class, config or method_class.Config.preset("default")), rules)


def run_check_method(settings: CheckMethodSettings) -> list[Result]:
    """The suite on a method by name, or on that of a Python file.

    Raises:
        InputError: unknown method, or a file without exactly one.
    """
    name = settings.name or ""
    plugin = settings.plugin or (Path(name) if name.endswith(".py") else None)
    return check_method(load_plugin(plugin) if plugin else METHODS.load(name))
