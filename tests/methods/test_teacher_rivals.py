"""UA-MT and DyCON: what their teachers ask for, by properties and numbers checked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duomod.methods.base import Progress
from duomod.methods.conformance import Subject, progress
from duomod.methods.dycon import focal_contrast, uncertainty_consistency
from duomod.methods.registry import METHODS


def subject(name: str, preset: Any = "default", **settings: Any) -> Subject:
    cls = METHODS.load(name)
    return Subject(cls, cls.Config.preset(preset, settings))


def parts(subject: Subject, step: int = 50) -> dict[str, float]:
    torch.manual_seed(0)
    return {name: float(value) for name, value in subject.build()(subject.batch(), progress(step)).parts.items()}


@pytest.mark.parametrize("name", ["uamt", "dycon"])
class TestBoth:
    def test_published_names(self, name: str) -> None:
        method = subject(name).build()
        assert set(method.published_modules()) == {"model", "ema_model"}
        assert method.predictor() is method.published_modules()["ema_model"]

    def test_agrees_with_itself_without_noise(self, name: str) -> None:
        assert parts(subject(name, noise=0.0))["consistency"] < 1e-10

    @pytest.mark.parametrize(
        ("preset", "step", "decay"), [("default", 3, 0.75), ("reference", 3, 0.0), ("reference", 7, 0.5)]
    )
    def test_teacher_follows(self, name: str, preset: Any, step: int, decay: float) -> None:
        """The default counts steps, the reference epochs (of five steps here)."""
        method = subject(name, preset).build()
        first = next(method.model.parameters())
        with torch.no_grad():
            first.add_(1.0)
        method.after_step(progress(step))
        follower = next(method.predictor().parameters())
        torch.testing.assert_close(first - follower, torch.full_like(first, decay))


class Fixed(nn.Module):
    """A teacher that always says the same."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits).view(1, -1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1, *x.shape[2:])


class TestUAMT:
    def consistency(self, logits: list[float], preset: Any, step: int = 0) -> dict[str, float]:
        uamt = subject("uamt", preset)
        method = uamt.build()
        method.teacher, method.model = Fixed(logits), Fixed([0.0, 0.0, 0.0, 0.0])  # type: ignore[assignment]
        return {k: float(v) for k, v in method(uamt.batch(), Progress(step, 100, 5)).parts.items()}

    def test_sure_teacher_by_hand(self) -> None:
        # student uniform (1/4 each), teacher one-hot
        assert self.consistency([50.0, 0, 0, 0], "default")["consistency"] == pytest.approx((0.75**2 + 3 * 0.25**2) / 4)

    def test_reference_softens_the_target_once_more(self) -> None:
        high, low = math.e / (math.e + 3), 1 / (math.e + 3)
        expected = (high - 0.25) ** 2 + 3 * (low - 0.25) ** 2
        assert self.consistency([50.0, 0, 0, 0], "reference")["consistency"] == pytest.approx(expected, rel=1e-4)

    def test_the_limit_is_relative_to_the_number_of_classes(self) -> None:
        # two classes alike: entropy ln 2, below 3/4 of ln 4 but above 3/4 of ln 2
        assert self.consistency([50.0, 50.0, 0, 0], "default")["sure"] == 0 + (math.log(2) < 0.7517 * math.log(4))
        assert self.consistency([50.0, 50.0, 0, 0], "reference")["sure"] == 0
        assert self.consistency([50.0, 50.0, 0, 0], "reference")["consistency"] == 0


class TestDyCON:
    def test_uncertainty_of_equal_one_hot_maps_is_nothing(self) -> None:
        p = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
        assert float(uncertainty_consistency(p, p, beta=1.0)) == pytest.approx(0, abs=1e-5)

    def test_uncertainty_by_hand(self) -> None:
        sure, torn = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1), torch.full((1, 2, 1, 1, 1), 0.5)
        entropy = math.log(2)
        expected = 0.5 / (1 + math.exp(0.5 * entropy)) + 0.5 * entropy
        assert float(uncertainty_consistency(sure, torn, beta=0.5)) == pytest.approx(expected, abs=1e-5)

    def test_contrast_by_hand(self) -> None:
        similarity = torch.tensor([[[1.0, 0.8, 0.2], [0.8, 1.0, -0.4], [0.2, -0.4, 1.0]]])
        same = torch.tensor([[[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]])
        p01 = math.exp(0.8) / (math.exp(0.8) + math.exp(0.2))
        p10 = math.exp(0.8) / (math.exp(0.8) + math.exp(-0.4))
        # the third patch has no other of its class
        expected = (-math.log(p01) * (1 - p01) - math.log(p10) * (1 - p10)) / 3
        assert float(focal_contrast(similarity, same, 1.0, False)) == pytest.approx(expected, rel=1e-5)

    def test_one_class_alone_has_nothing_to_contrast(self) -> None:
        similarity = torch.rand(1, 4, 4)
        assert float(focal_contrast(similarity, torch.ones(1, 4, 4), 1.0, False)) == pytest.approx(0, abs=1e-5)
        assert parts(Single())["contrast"] == pytest.approx(0, abs=1e-5)


class Single(Subject):
    """DyCON whose labels and teacher know nothing but background."""

    def __init__(self) -> None:
        cls = METHODS.load("dycon")
        super().__init__(cls, cls.Config(noise=0.0))

    def build(self, classes: int = 4, seed: int = 0) -> Any:
        method = super().build(classes, seed)
        with torch.no_grad():
            method.teacher.network.out_conv2.bias.copy_(torch.tensor([1e3, 0, 0, 0]))
        return method

    def batch(self, classes: int = 4, patches: int = 2, present: Any = (0,)) -> Any:
        return super().batch(classes, patches, present)
