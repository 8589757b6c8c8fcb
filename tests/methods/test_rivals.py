"""What is particular to the rivals beyond the reference's list, by properties and numbers checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from duomod.losses.dice import dice_ce
from duomod.methods.base import Batch, Method, Progress, describe_networks
from duomod.methods.bcp import BCP
from duomod.methods.conformance import Subject, progress, step_loss
from duomod.methods.registry import METHODS
from duomod.methods.shared.mixing import to_cubes
from duomod.methods.urpc import _rectified
from duomod.networks.base import Network
from duomod.sampling.batch import View
from duomod.sampling.settings import ViewConfig, usual_view
from duomod.sampling.views import with_views


def subject(name: str, **settings: Any) -> Subject:
    cls = METHODS.load(name)
    return Subject(cls, cls.Config.preset("default", settings))


def parts(method: Method, batch: Batch, step: int = 50) -> dict[str, float]:
    torch.manual_seed(0)
    return {name: float(value) for name, value in method(batch, progress(step)).parts.items()}


def test_only_the_upper_bound_uses_all_labels() -> None:
    assert METHODS.load("upper_bound").uses_all_labels
    assert not METHODS.load("supervised").uses_all_labels
    plain, bound = subject("supervised"), subject("upper_bound")
    assert step_loss(plain.build(), plain.batch(), 0) == step_loss(bound.build(), bound.batch(), 0)


class TestMeanTeacher:
    def test_agrees_with_itself_without_noise(self) -> None:
        same = subject("mean_teacher", noise=0.0)
        assert parts(same.build(), same.batch())["consistency"] < 1e-10

    def test_predicts_with_the_teacher(self) -> None:
        method = subject("mean_teacher").build()
        assert not any(p.requires_grad for p in method.predictor().parameters())


class TestFixMatch:
    def test_nothing_certain_leaves_the_supervised_loss(self) -> None:
        strict = subject("fixmatch", threshold=0.9999)
        method = strict.build()
        values = parts(method, strict.batch())
        assert values["certain"] == 0
        assert values["pseudo"] == 0
        loss = float(step_loss(method, strict.batch(), 50).detach())
        assert loss == pytest.approx(values["supervised"])

    def test_everything_certain_counts_every_voxel(self) -> None:
        lax = subject("fixmatch", threshold=0.0)
        values = parts(lax.build(), lax.batch())
        assert values["certain"] == 1
        assert values["pseudo"] > 0

    def test_the_strong_view_has_the_strength_asked_for(self) -> None:
        for strength, differs in ((0.0, False), (1.0, True)):
            batch = subject("fixmatch", strength=strength).batch()
            difference = (batch.views["strong"].image - batch.views["weak"].image).abs().mean()
            assert difference > 0.01 if differs else difference < 1e-6

    def test_pseudo_labels_go_where_the_strong_view_shows_their_voxels(self) -> None:
        """With a strong view that is mirrored, a pointwise network agrees with itself as with the plain one."""
        task = subject("fixmatch", threshold=0.0, cutmix=False)
        method = task.build()
        method.model = torch.nn.Conv3d(1, 4, 1)
        plain = task.batch()
        entry = {"name": "flip_x", "probability": 1}
        costs = []
        for transforms in ([], [entry]):
            views = {"weak": usual_view("weak"), "strong": ViewConfig(transforms=transforms)}
            batch = with_views(Batch(plain.image_l, plain.label_l, plain.unlabelled()), views, seed=0)
            costs.append(parts(method, batch)["pseudo"])
        assert costs[0] == pytest.approx(costs[1], rel=1e-5)
        weak = batch.views["weak"]
        unmoved = Batch(
            batch.image_l,
            batch.label_l,
            batch.image_u,
            {"weak": weak, "strong": View(batch.views["strong"].image, weak.geometry)},
        )
        assert parts(method, unmoved)["pseudo"] > costs[0] + 1e-3

    def test_weight_is_one_from_the_start(self) -> None:
        method = subject("fixmatch").build()
        assert method.consistency_weight(Progress(0, 100, 5)) == 1


class TestURPC:
    def test_scales_that_agree_cost_nothing(self) -> None:
        p = torch.rand(2, 3, 4, 4, 4).softmax(1)
        assert float(_rectified(p.log(), p)) == pytest.approx(0, abs=1e-6)

    def test_one_voxel_by_hand(self) -> None:
        mean, p = torch.tensor([0.5, 0.5]), torch.tensor([0.8, 0.2])
        shape = (1, 2, 1, 1, 1)
        # With one voxel the trust cancels: mean of squares 0.09, plus KL(mean || p) = ln(0.5) - (ln 0.8 + ln 0.2) / 2
        divergence = float(0.5 * (torch.log(0.5 / p)).sum())
        assert float(_rectified(p.log().view(shape), mean.view(shape))) == pytest.approx(0.09 + divergence, rel=1e-5)

    def test_every_decoder_stage_has_a_head_and_the_finest_is_the_networks(self) -> None:
        method = subject("urpc").build().eval()
        image = torch.rand(1, 1, 13, 16, 15)
        scales = method.pyramid(image)  # type: ignore[operator]
        assert len(scales) == 2  # three levels
        assert all(z.shape == (1, 4, 13, 16, 15) for z in scales)
        torch.testing.assert_close(scales[0], method.predictor()(image))


class TestBCP:
    def test_full_masks_give_plain_dice_and_cross_entropy(self) -> None:
        method = subject("bcp").build()
        assert isinstance(method, BCP)
        logits, label = torch.randn(2, 4, 6, 6, 6), torch.randint(4, (2, 6, 6, 6))
        everywhere = torch.ones_like(label, dtype=torch.bool)
        torch.testing.assert_close(method._masked(logits, label, everywhere), dice_ce(logits, label) / 2)

    def test_voxels_outside_the_mask_do_not_count(self) -> None:
        method = subject("bcp").build()
        assert isinstance(method, BCP)
        logits, label = torch.randn(1, 4, 6, 6, 6), torch.randint(4, (1, 6, 6, 6))
        mask = torch.zeros_like(label, dtype=torch.bool)
        mask[:, :3] = True
        other = torch.where(mask.unsqueeze(1), logits, torch.randn_like(logits))
        assert torch.equal(method._masked(logits, label, mask), method._masked(other, label, mask))

    def test_pretraining_sees_labelled_patches_only(self) -> None:
        task = subject("bcp")
        plain = task.batch()
        other = Batch(plain.image_l, plain.label_l, torch.zeros_like(plain.unlabelled()))
        assert step_loss(task.build(), plain, 0) == step_loss(task.build(), other, 0)
        assert step_loss(task.build(), plain, 50) != step_loss(task.build(), other, 50)

    def test_teacher_is_the_student_until_pretraining_ends(self) -> None:
        method = subject("bcp").build()
        assert isinstance(method, BCP)

        def apart() -> float:
            pairs = zip(method.model.parameters(), method.teacher.parameters(), strict=True)
            return sum(float((a - b).detach().abs().sum()) for a, b in pairs)

        for step, together in ((0, True), (50, False)):
            with torch.no_grad():
                for parameter in method.model.parameters():
                    parameter += 1
            method.after_step(progress(step))
            assert (apart() == 0) is together

    def test_uneven_batches_work(self) -> None:
        task = subject("bcp")
        plain = task.batch(patches=3)
        assert step_loss(task.build(), Batch(plain.image_l, plain.label_l, plain.unlabelled()[:1]), 50).isfinite()


class Pointwise(Network):
    """Sees one voxel at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.stride = (1, 1, 1)
        self.body, self.head = torch.nn.Conv3d(1, 5, 1), torch.nn.Conv3d(5, 4, 1)

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        return [self.body(x)]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[-1]


class TestMagicNet:
    def test_cubes_alone_of_a_pointwise_network_recover_the_whole(self) -> None:
        """A network that sees one voxel at a time cannot tell a cube from the whole, nor whose neighbour it was."""
        method = subject("magicnet").build()
        pointwise = Pointwise()
        x = torch.rand(4, 1, 16, 16, 16)
        expected = pointwise.head(pointwise.features(x))
        method.model = pointwise
        method.location = torch.nn.Linear(5 * 8, 32)
        cubes = to_cubes(x, (2, 4, 4))
        torch.testing.assert_close(method._across(cubes, (2, 4, 4)), expected)  # type: ignore[operator]
        within, location = method._within(cubes, (2, 4, 4))  # type: ignore[operator]
        torch.testing.assert_close(within, expected)
        assert location.isfinite()

    def test_blending_gives_the_most_frequent_class_to_the_cubes(self) -> None:
        method = subject("magicnet", blend_after=0).build()
        method.distribution.copy_(torch.tensor([0.8, 0.0, 0.1, 0.1]))  # type: ignore[operator, union-attr]
        teacher, alone = torch.zeros(1, 4, 1, 1, 2), torch.zeros(1, 4, 1, 1, 2)
        teacher[0, 0, 0, 0, 0] = teacher[0, 1, 0, 0, 1] = 5.0  # says background, and a class never seen
        alone[0, 3] = 9.0  # cubes say class 3 everywhere
        pseudo = method._pseudo_label(teacher, alone, progress(50))  # type: ignore[operator]
        assert pseudo.flatten().tolist() == [3, 1]


@pytest.mark.parametrize("network", ["unet", "resunet", "segresnet"])
@pytest.mark.parametrize("name", METHODS.names())
def test_other_networks_work(name: str, network: str) -> None:
    task = subject(name)
    method = task.build(kind=network)
    assert {"unet": "UNet", "resunet": "ResidualUNet", "segresnet": "SegResNet"}[network] in describe_networks(method)
    assert "VNet" not in describe_networks(method)
    loss = step_loss(method, task.batch(), 50)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert method.predictor().eval()(torch.rand(1, 1, 16, 16, 16)).shape == (1, 4, 16, 16, 16)


class TestSimiSAndCReST:
    counts = torch.tensor([1000.0, 100.0, 10.0, 1.0])

    def test_simis_supplements_what_a_class_lacks(self) -> None:
        weights = subject("simis").build().class_weights(self.counts)  # type: ignore[operator]
        torch.testing.assert_close(weights, torch.tensor([0.0, 0.9, 0.99, 0.999]))

    def test_crest_gives_each_rank_the_rate_of_its_mirror_image(self) -> None:
        weights = subject("crest").build().class_weights(self.counts)  # type: ignore[operator]
        torch.testing.assert_close(weights, torch.tensor([0.1, 10 ** (-2 / 3), 10 ** (-1 / 3), 1.0]), atol=1e-4, rtol=0)

    def test_crest_s_rarest_class_counts_fully_in_any_order(self) -> None:
        weights = subject("crest").build().class_weights(self.counts[[2, 0, 3, 1]])  # type: ignore[operator]
        assert float(weights[2]) == 1.0
        assert float(weights[1]) == pytest.approx(0.1, abs=1e-4)

    @pytest.mark.parametrize("name", ["simis", "crest"])
    def test_default_weights_stay_those_of_the_labelled_scans(self, name: str) -> None:
        task = subject(name)
        method = task.build()
        before = method.state_dict()["weights_a"].clone()
        step_loss(method, task.batch(), 50)
        assert torch.equal(method.state_dict()["weights_a"], before)

    @pytest.mark.parametrize("name", ["simis", "crest"])
    def test_reference_weights_follow_each_network_s_predictions(self, name: str) -> None:
        cls = METHODS.load(name)
        task = Subject(cls, cls.Config.preset("reference"))
        method = task.build()
        before = {key: method.state_dict()[key].clone() for key in ("weights_a", "weights_b")}
        step_loss(method, task.batch(), 50)
        after = method.state_dict()
        assert all(not torch.equal(before[key], after[key]) for key in before)

    def test_pseudo_labels_without_any_weight_give_no_nan(self) -> None:
        """SimiS gives the background no weight; where both networks see background only, nothing is learnt from it."""
        task = subject("simis")
        method = task.build()
        with torch.no_grad():
            for network in (method.A, method.B):
                network.out_conv.weight.zero_()  # type: ignore[union-attr, operator]
                network.out_conv.bias.copy_(torch.tensor([9.0, 0, 0, 0]))  # type: ignore[union-attr, operator]
        assert parts(method, task.batch())["cps"] == 0
