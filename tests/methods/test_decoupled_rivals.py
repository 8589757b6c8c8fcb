"""SLC-Net and SKCDF: what is particular to them, by properties and numbers checked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from duomod.losses.dice import dice_loss
from duomod.methods.conformance import Subject, progress, step_loss
from duomod.methods.registry import METHODS
from duomod.methods.slcnet import SLCNet, SLCNetConfig
from duomod.sampling.batch import Batch
from duomod.sampling.views import with_views


def subject(name: str, preset: Any = "default", **settings: Any) -> Subject:
    cls = METHODS.load(name)
    return Subject(cls, cls.Config.preset(preset, settings))


class TestSLCNet:
    def test_second_network_takes_image_and_classes(self) -> None:
        method = subject("slcnet").build(classes=6)
        assert method.A.block_one.conv[0].in_channels == 1
        assert method.B.block_one.conv[0].in_channels == 7

    def test_two_patches_of_five_keep_their_intensities_and_each_curve_gets_half_of_the_others(self) -> None:
        ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 1, 64).expand(300, 1, 1, 1, 64)
        quiet = SLCNetConfig(noise=0.0)
        batch = with_views(Batch(ramp, ramp[:, 0].long(), ramp), SLCNet.view_settings(quiet), seed=0)
        first, second = (batch.views[name].image.view(600, 64) for name in ("first", "second"))
        for view in (first, second):
            kinds, counts = view.unique(dim=0, return_counts=True)
            assert len(kinds) == 3
            assert sorted(counts.tolist()) == pytest.approx([180, 180, 240], abs=35)
        assert not torch.equal(first, second), "each network draws a curve of its own"
        assert (first[:300] != first[300:]).any(), "so do labelled and unlabelled patches"

    def test_the_second_network_s_noise_is_clipped_but_its_input_is_not(self) -> None:
        black = torch.zeros(2, 1, 16, 16, 16)
        batch = with_views(Batch(black, black[:, 0].long(), black), SLCNet.view_settings(SLCNetConfig()), seed=0)
        noise = batch.views["second"].image
        assert batch.views["first"].image.abs().max() == 0
        assert noise.max() == pytest.approx(0.05)
        assert noise.min() == pytest.approx(-0.05)
        # within half a sigma, 0.05 of 0.1
        assert (noise.abs() < 0.0499).float().mean() == pytest.approx(0.382, abs=0.02)

    def test_the_reference_turns_white_to_black_before_the_noise(self) -> None:
        white = torch.ones(1, 1, 8, 8, 8)
        for preset, level in (("default", 1.0), ("reference", 0.0)):
            config = SLCNetConfig.preset(preset)
            batch = with_views(Batch(white, white[:, 0].long(), white), SLCNet.view_settings(config), seed=0)
            assert torch.equal(batch.views["first"].image, torch.ones(2, 1, 8, 8, 8))
            assert (batch.views["second"].image - level).abs().max() == pytest.approx(0.05, abs=1e-6)

    def test_prediction_averages_probabilities_once(self) -> None:
        slcnet = subject("slcnet")
        predictor = slcnet.build().predictor().eval()
        assert predictor.outputs_probabilities
        x = torch.rand(1, 1, 16, 16, 16)
        with torch.no_grad():
            first = predictor.a(x).softmax(1)
            second = predictor.b(torch.cat([x, 1 - first], 1)).softmax(1)
            torch.testing.assert_close(predictor(x), (first + second) / 2)
        assert not subject("slcnet", "reference").build().predictor().outputs_probabilities

    def test_blocks_of_a_uniform_patch_have_the_dice_of_the_whole(self) -> None:
        logits, label = torch.zeros(1, 4, 8, 8, 8), torch.zeros(1, 8, 8, 8, dtype=torch.long)
        whole, blocks = (subject("slcnet", blocks=n).build()._dice(logits, label, None).item() for n in (1, 4))
        # background: 1 - 2/4 / (1/16 + 1); each absent class: p^2 = 1/16
        assert whole == pytest.approx(1 - 0.5 / (1 / 16 + 1) + 3 / 16, rel=1e-4)
        assert blocks == pytest.approx(whole, rel=1e-4)

    def test_published_optimizer(self) -> None:
        (group,) = subject("slcnet", "reference").build().parameter_groups(None)
        assert group["weight_decay"] == 1e-4
        assert not group["nesterov"]
        (group,) = subject("slcnet").build().parameter_groups(None)
        assert set(group) == {"params"}


class TestSKCDF:
    def test_rarest_class_always_wins(self) -> None:
        # the classes of the conformance subject halve from one to the next
        torch.testing.assert_close(subject("skcdf").build().ratio, torch.tensor([1 / 8, 1 / 4, 1 / 2, 1]))

    @pytest.mark.parametrize(("rarest", "expected"), [("present", [0.1, 1.0, 1.0]), ("any", [0.0, 0.0, 1.0])])
    def test_a_class_without_voxels(self, rarest: str, expected: list[float]) -> None:
        cls = METHODS.load("skcdf")
        counts = torch.tensor([1000.0, 100.0, 0.0])
        network = torch.nn.Identity()
        context = SimpleNamespace(num_classes=3, class_counts=counts, build_network=lambda *a, **k: network)
        method = cls(cls.Config(rarest=rarest), context)  # type: ignore[arg-type]
        torch.testing.assert_close(method.ratio, torch.tensor(expected))

    def test_lottery_draws_with_the_class_ratio(self) -> None:
        torch.manual_seed(0)
        label = torch.tensor([0, 1]).view(2, 1, 1, 1).expand(2, 1, 1, 20_000)
        won = subject("skcdf").build()._lottery(torch.tensor([0.2, 1.0]), label)
        torch.testing.assert_close(won.float().mean((1, 2, 3)), torch.tensor([0.2, 1.0]), rtol=0, atol=0.01)

    def test_losers_do_not_count(self) -> None:
        method = subject("skcdf").build()
        torch.manual_seed(0)
        logits = torch.randn(1, 4, 2, 2, 4, requires_grad=True)
        label = torch.tensor([0, 1, 2, 2] * 2 + [2, 3, 0, 0] * 2).view(1, 2, 2, 4)
        won = torch.arange(4).expand(1, 2, 2, 4) < 2
        loss = method._masked(logits, label, won, with_dice=True)
        loss.backward()
        assert logits.grad is not None
        assert not logits.grad[..., 2:].any()
        half, kept = logits[..., :2].detach(), label[..., :2]
        expected = torch.nn.functional.cross_entropy(half, kept) + dice_loss(half.softmax(1), kept)
        torch.testing.assert_close(loss.detach(), expected)

    def test_reference_turns_losers_into_background(self) -> None:
        method = subject("skcdf", "reference").build()
        logits, label = torch.randn(1, 4, 2, 2, 2), torch.full((1, 2, 2, 2), 3)
        nobody = torch.zeros_like(label, dtype=torch.bool)
        assert method._masked(logits, label, nobody, with_dice=False).item() == pytest.approx(1.386294)

    def test_heads_and_decoders_follow(self) -> None:
        method = subject("skcdf").build()
        known, unknown = method.model.decoder_l, method.model.decoder_u
        with torch.no_grad():
            for p in method.model.parameters():
                p.zero_()
            known.out_conv9_abc.bias.fill_(1.0)
            unknown.out_conv9_abc.bias.fill_(3.0)
            known.block_five.conv[0].bias.fill_(1.0)
        method.after_step(progress(0))
        abc = 0.99 * 3 + 0.01
        for parameter, expected in (
            (known.out_conv9.bias, 0.01),
            (unknown.block_five.conv[0].bias, 0.01),
            (unknown.out_conv9_abc.bias, abc),
            (unknown.out_conv9.bias, 0.99 * 0.01 * 0.01 + 0.01 * abc),
        ):
            torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))

    def test_without_weight_the_unlabelled_decoder_has_no_loss(self) -> None:
        skcdf = subject("skcdf", consistency_weight=0.0)
        method = skcdf.build()
        step_loss(method, skcdf.batch(), 50).backward()
        grads = [p.grad for p in method.model.decoder_u.parameters()]
        assert not any(g is not None and g.any() for g in grads)
