from __future__ import annotations

import pytest
import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.gaussian_noise import GaussianNoise, Noise
from duomod.seeding import generator

IMAGE = torch.rand(2, 20, 20, 20)


def test_sigma_zero_changes_nothing() -> None:
    assert torch.equal(GaussianNoise(sigma=0).draw(generator(0, "test"), PatchInfo(2)).change(IMAGE), IMAGE)


def test_the_noise_has_the_drawn_sigma_and_is_another_one_in_each_channel() -> None:
    noise = Noise((0.1, 0.02), None, seed=1).change(torch.zeros(2, 20, 20, 20))
    assert noise.std((1, 2, 3)).tolist() == pytest.approx([0.1, 0.02], rel=0.05)
    assert noise.mean((1, 2, 3)).abs().max() < 0.005
    assert not torch.allclose(noise[0] / 0.1, noise[1] / 0.02)


def test_no_voxel_s_noise_is_larger_than_the_clip() -> None:
    noise = Noise((0.1,), 0.05, seed=1).change(torch.zeros(1, 20, 20, 20))
    assert noise.abs().max() == pytest.approx(0.05)
    assert (noise.abs() < 0.05).float().mean() == pytest.approx(0.383, abs=0.02)  # within half a sigma


def test_sigmas_fill_the_range() -> None:
    transform = GaussianNoise(sigma_from=0.02, sigma=0.1)
    sigmas = [transform.draw(generator(i, "test"), PatchInfo()).sigmas[0] for i in range(300)]
    assert 0.02 <= min(sigmas) < 0.021
    assert 0.098 < max(sigmas) <= 0.1


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma_from 0\.2 is larger than sigma 0\.1"):
        GaussianNoise(sigma_from=0.2, sigma=0.1)
