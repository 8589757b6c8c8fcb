"""Every method passes the conformance suite; and for every rule there is a method that breaks it, and only it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from duomod.errors import InputError
from duomod.methods.base import Batch, Method, MethodConfig, MethodContext, MethodInfo, Progress, StepOutput
from duomod.methods.conformance import (
    RULES,
    Subject,
    check_method,
    finite_loss,
    no_synchronisation,
    predictor_works,
    progress,
    step_loss,
)
from duomod.methods.registry import METHODS
from duomod.sampling.settings import ViewConfig


def failures(results: list[Any]) -> list[str]:
    return [f"{r.rule}: {r.message}" for r in results if not r.passed]


@pytest.mark.parametrize("name", METHODS.names())
def test_method_conforms(name: str) -> None:
    assert not failures(check_method(METHODS.load(name)))


@pytest.mark.parametrize("name", METHODS.names())
def test_method_runs_with_its_reference_preset(name: str) -> None:
    cls = METHODS.load(name)
    config = cls.Config.preset("reference")
    assert not failures(check_method(cls, config, [finite_loss, predictor_works, no_synchronisation]))


@pytest.mark.parametrize("rule", ["rlm", "dhc"])
@pytest.mark.parametrize("name", METHODS.names())
def test_class_weights_work_or_are_refused(name: str, rule: str) -> None:
    """No method takes the option and ignores it."""
    cls = METHODS.load(name)
    plain = Subject(cls, cls.Config())
    weighted = Subject(cls, cls.Config.preset("default", {"class_weights": rule}))
    changed = None
    with contextlib.suppress(InputError):
        changed = step_loss(weighted.build(), weighted.batch(), 50)
    if changed is None:
        with pytest.raises(InputError, match="has its own rule for rare classes"):
            step_loss(weighted.build(), weighted.batch(), 50)
        return
    assert changed.isfinite()
    assert changed != step_loss(plain.build(), plain.batch(), 50)


class Sound(Method):
    """A method without fault, for the broken ones to break."""

    info = MethodInfo("Sound", "none", 2024, "supervised, with a consistency term")

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.model = context.build_network("kaiming")

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        labelled = len(batch.image_l)
        z = self.model(torch.cat([batch.image_l, batch.unlabelled()]))
        confident = z[labelled:].float().log_softmax(1).amax(1).mean()
        loss = self.supervised_loss(z[:labelled], batch.label_l) - self.consistency_weight(progress) * confident
        return StepOutput(self.broken(loss, z, batch), {})

    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return loss

    def predictor(self) -> nn.Module:
        return self.model

    def published_modules(self) -> dict[str, nn.Module]:
        return {"model": self.model}


class MovedViewsConfig(MethodConfig):
    def view(self, name: str) -> ViewConfig:
        if name == "weak":
            return super().view(name)
        entries = ["flip_x", {"name": "affine", "probability": 1.0}, "gamma"]
        return ViewConfig.model_validate({"transforms": entries})


class TwoStrongViews(Sound):
    """As UniMatch: the weak view's pseudo-labels train two strong views, here moved ones."""

    Config = MovedViewsConfig
    views = ("weak", "strong", "strong2")

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        weak, strong = batch.views["weak"], [batch.views["strong"], batch.views["strong2"]]
        with torch.no_grad():
            pseudo = self.model(weak.image).float().argmax(1)
        z = self.model(torch.cat([batch.image_l, *(view.image for view in strong)])).float()
        labelled, *others = z.split([len(batch.image_l), *(len(view.image) for view in strong)])
        targets = [weak.carry_label(pseudo, view) for view in strong]
        consistency = sum(functional.cross_entropy(o, t) for o, t in zip(others, targets, strict=True))
        agreement = (strong[0].carry_scores(others[0], strong[1]) - others[1]).square().mean()
        loss = self.supervised_loss(labelled, batch.label_l)
        return StepOutput(loss + self.consistency_weight(progress) * (consistency + 0.01 * agreement), {})


def test_a_method_with_two_strong_views_that_are_moved_conforms() -> None:
    assert not failures(check_method(TwoStrongViews))


class OverflowsInBf16(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return loss / (z.dtype is not torch.bfloat16)


class HasIdleParameter(Sound):
    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.idle = nn.Parameter(torch.zeros(3, 3))


class PeeksAtLabels(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        label_u = getattr(batch, "label_u", None)
        return loss if label_u is None else loss + functional.cross_entropy(z[len(label_u) :].float(), label_u)


class RemembersInPython(Sound):
    steps_seen = 0

    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        self.steps_seen += 1
        return loss * (1 + 0.001 * self.steps_seen)


class EvenSizesOnly(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        d, h, w = (length // 2 * 2 for length in x.shape[2:])
        out: Tensor = self.network(x[:, :, :d, :h, :w])
        return out


class CropsOddSizes(Sound):
    def predictor(self) -> nn.Module:
        return EvenSizesOnly(self.model)


class NoisyInEval(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x + 0.1 * torch.randn_like(x))
        return out


class GuessesInEval(Sound):
    def predictor(self) -> nn.Module:
        return NoisyInEval(self.model)


class ClimbsTheLoss(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return 2 * loss.detach() - loss


class KnowsFourClasses(Sound):
    weight: Tensor

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.register_buffer("weight", torch.ones(4))

    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return loss + functional.cross_entropy(z[: len(batch.label_l)].float(), batch.label_l, self.weight)


class KnowsOneChannel(Sound):
    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.model = context.build_network("kaiming", in_channels=1)


class LooksAtOneChannel(Sound):
    """It trains on both, so that only the prediction shows it."""

    def predictor(self) -> nn.Module:
        return FirstChannelTwice(self.model)


class FirstChannelTwice(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x[:, :1].expand_as(x))
        return out


class DividesByTheClassSize(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        each = functional.cross_entropy(z[: len(batch.label_l)].float(), batch.label_l, reduction="none")
        masks = [(batch.label_l == c).float() for c in range(z.shape[1])]
        return loss + torch.stack([(each * m).sum() / m.sum() for m in masks]).mean()


class NeedsTwoPatches(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return loss + 1e-3 * z[: len(batch.label_l)].float().var(0).mean()


class ReadsTheLoss(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return loss if loss.item() > 0 else loss * 2


class SelectsByMask(Sound):
    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        probabilities = z.float().softmax(1)
        return loss + 0.01 * probabilities[probabilities > 0].mean()


class KeepsATensorOutsideItsBuffers(Sound):
    """On a GPU this would fail or copy at every step."""

    def __init__(self, config: MethodConfig, context: MethodContext) -> None:
        super().__init__(config, context)
        self.factors = torch.ones(context.num_classes)

    def broken(self, loss: Tensor, z: Tensor, batch: Batch) -> Tensor:
        return loss + 0.01 * (self.factors.view(1, -1, 1, 1, 1) * z.float().softmax(1)).mean()


BROKEN: list[tuple[type[Method], str]] = [
    (OverflowsInBf16, "finite_loss"),
    (HasIdleParameter, "every_parameter_learns"),
    (PeeksAtLabels, "no_unlabelled_labels"),
    (RemembersInPython, "state_survives"),
    (CropsOddSizes, "predictor_works"),
    (GuessesInEval, "predictor_works"),
    (ClimbsTheLoss, "loss_falls"),
    (KnowsFourClasses, "any_number_of_classes"),
    (KnowsOneChannel, "several_channels"),
    (LooksAtOneChannel, "several_channels"),
    (DividesByTheClassSize, "absent_class"),
    (NeedsTwoPatches, "smallest_batch"),
    (ReadsTheLoss, "no_synchronisation"),
    (SelectsByMask, "no_synchronisation"),
    (KeepsATensorOutsideItsBuffers, "no_synchronisation"),
]


def test_a_sound_method_passes_every_rule() -> None:
    assert not failures(check_method(Sound))


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize(("method", "rule"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_method_fails_exactly_its_rule(method: type[Method], rule: str) -> None:
    results = check_method(method)
    assert [r.rule for r in results if not r.passed] == [rule], failures(results)
    assert next(r.message for r in results if r.rule == rule)


def test_every_rule_has_a_method_that_breaks_it() -> None:
    assert {rule for _, rule in BROKEN} == {rule.__name__ for rule in RULES}


def test_checking_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_method(Sound, rules=[finite_loss])
    assert torch.equal(torch.rand(3), expected)


def test_the_suite_trains_through_all_of_training() -> None:
    assert progress(0).epoch == 0
    assert progress(99).epoch == progress(99).max_epochs - 1
