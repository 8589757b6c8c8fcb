"""Sliding windows: every voxel is seen, and where the windows lie does not matter to a model that sees one voxel only.

The reference's label map is compared in ``tests/golden``.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duomod.inference.settings import WindowSettings
from duomod.inference.sliding_window import predict_probabilities, window_starts, window_weights

OVERLAP = WindowSettings().overlap


class Pointwise(nn.Module):
    """Logits of a voxel from its own value."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, 3 * x - 1, torch.sin(20 * x)], dim=1)


class Local(nn.Module):
    """Logits that depend on the neighbourhood and on the place in the window (zero padding)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.linspace(0, 1, x.shape[-1])
        return 8 * self.conv(x) * (1 + place)


def volume(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def direct(model: nn.Module, array: np.ndarray) -> Tensor:
    return model(torch.from_numpy(array)[None, None]).softmax(1)[0]


class TestStarts:
    def test_by_hand(self) -> None:
        assert window_starts(10, 4, 0.5) == [0, 2, 4, 6]
        assert window_starts(11, 4, 0.5) == [0, 2, 4, 6, 7]
        assert window_starts(8, 4, 0.0) == [0, 4]
        assert window_starts(4, 4, 0.5) == [0]
        assert window_starts(3, 4, 0.5) == [0]
        assert window_starts(6, 4, 0.99) == [0, 1, 2]

    @pytest.mark.parametrize(("size", "patch"), list(itertools.product((1, 5, 16, 37, 64), (1, 4, 7, 16))))
    @pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
    def test_every_voxel_is_covered_and_no_window_leaves_the_volume(
        self, size: int, patch: int, overlap: float
    ) -> None:
        starts = window_starts(size, patch, overlap)
        assert {s + i for s in starts for i in range(patch)} >= set(range(size))
        assert all(0 <= s <= max(size - patch, 0) for s in starts)
        assert starts == sorted(set(starts))


class TestWeights:
    def test_uniform_is_one(self) -> None:
        assert torch.equal(window_weights((2, 3, 4), "uniform"), torch.ones(2, 3, 4))

    @pytest.mark.parametrize("patch", [(8, 8, 8), (5, 12, 7), (64, 128, 128), (1, 4, 9)])
    def test_gaussian_is_symmetric_positive_and_largest_in_the_middle(self, patch: tuple[int, int, int]) -> None:
        weights = window_weights(patch, "gaussian")
        assert weights.shape == patch
        assert weights.min() > 0
        for axis in range(3):
            assert torch.allclose(weights, weights.flip(axis))
        middle = tuple(n // 2 for n in patch)
        assert weights[middle] == weights.max()

    @pytest.mark.parametrize("patch", [(8, 8, 8), (5, 12, 7), (32, 48, 48)])
    def test_gaussian_equals_monai(self, patch: tuple[int, int, int]) -> None:
        from monai.data.utils import compute_importance_map

        theirs = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125)
        assert torch.allclose(window_weights(patch, "gaussian"), theirs, atol=1e-6)


@pytest.mark.parametrize("blending", ["uniform", "gaussian"])
class TestPrediction:
    @pytest.mark.parametrize("shape", [(9, 20, 13), (8, 8, 8), (3, 4, 5), (20, 4, 9)])
    @pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
    def test_windows_do_not_matter_to_a_pointwise_model(self, blending, shape, overlap) -> None:
        array = volume(*shape)
        result = predict_probabilities(Pointwise(), array, (8, 8, 8), overlap=overlap, blending=blending)
        assert result.dtype == torch.float32
        assert torch.allclose(result, direct(Pointwise(), array), atol=1e-6)

    @pytest.mark.parametrize("batch_size", [2, 3, 100])
    def test_windows_together_or_one_by_one_give_the_same(self, blending, batch_size) -> None:
        array = volume(12, 14, 17)
        one, many = (
            predict_probabilities(Local(), array, (6, 8, 8), overlap=OVERLAP, blending=blending, batch_size=n)
            for n in (1, batch_size)
        )
        assert torch.allclose(one, many, atol=1e-6)

    @pytest.mark.parametrize("shape", [(12, 14, 17), (8, 8, 20), (8, 8, 8), (9, 30, 11)])
    @pytest.mark.parametrize("overlap", [0.25, 0.5])
    def test_equals_monai(self, blending, shape, overlap) -> None:
        from monai.inferers import sliding_window_inference

        array = volume(*shape)
        model = Local()
        with torch.inference_mode():
            theirs = sliding_window_inference(
                torch.from_numpy(array)[None, None],
                (8, 8, 8),
                2,
                lambda x: model(x).softmax(1),
                overlap=overlap,
                mode="constant" if blending == "uniform" else "gaussian",
            )[0]
        ours = predict_probabilities(model, array, (8, 8, 8), overlap=overlap, blending=blending)
        assert torch.allclose(ours, theirs, atol=1e-5)

    def test_two_channels_go_through_the_window_together(self, blending) -> None:
        class Both(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return Pointwise()(x[:, :1] - 2 * x[:, 1:])

        array = volume(2, 9, 20, 13)
        result = predict_probabilities(Both(), array, (8, 8, 8), overlap=0.5, blending=blending)
        assert result.shape == (3, 9, 20, 13)
        assert torch.allclose(result, direct(Pointwise(), array[0] - 2 * array[1]), atol=1e-6)

    def test_a_volume_without_channel_axis_is_one_channel(self, blending) -> None:
        array = volume(9, 20, 13)
        one, bare = (
            predict_probabilities(Local(), a, (8, 8, 8), overlap=0.5, blending=blending) for a in (array[None], array)
        )
        assert torch.equal(one, bare)

    def test_shares_sum_to_one_everywhere(self, blending) -> None:
        result = predict_probabilities(Local(), volume(11, 13, 17), (8, 8, 8), overlap=OVERLAP, blending=blending)
        assert torch.allclose(result.sum(0), torch.ones(11, 13, 17), atol=1e-5)

    def test_a_small_volume_is_padded_with_zeros_at_its_end(self, blending) -> None:
        seen = []

        class Spy(Pointwise):
            def forward(self, x: Tensor) -> Tensor:
                seen.append(x.clone())
                return super().forward(x)

        array = 1 - 0.5 * volume(3, 9, 4)
        assert predict_probabilities(Spy(), array, (8, 8, 8), overlap=OVERLAP, blending=blending).shape == (3, 3, 9, 4)
        assert len(seen) == 2
        for window in seen:
            assert window.shape == (1, 1, 8, 8, 8)
            assert (window[..., :3, :, :4] > 0).all()
            assert (window[..., 3:, :, :] == 0).all()
            assert (window[..., 4:] == 0).all()

    def test_probabilities_are_not_softmaxed_again(self, blending) -> None:
        class Ready(Pointwise):
            outputs_probabilities = True

            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x).softmax(1)

        array = volume(9, 10, 11)
        expected = predict_probabilities(Pointwise(), array, (8, 8, 8), overlap=OVERLAP, blending=blending)
        assert torch.allclose(
            predict_probabilities(Ready(), array, (8, 8, 8), overlap=OVERLAP, blending=blending), expected, atol=1e-6
        )

    def test_under_autocast_the_sum_stays_in_float32(self, blending) -> None:
        array = volume(9, 10, 11)
        exact, fast = (
            predict_probabilities(Local(), array, (8, 8, 8), overlap=0.8, blending=blending, amp_dtype=dtype)
            for dtype in (None, torch.bfloat16)
        )
        assert fast.dtype == torch.float32
        assert not torch.equal(exact, fast)
        assert torch.allclose(exact, fast, atol=0.05)
        assert torch.allclose(fast.sum(0), torch.ones(9, 10, 11), atol=1e-5)


def test_the_blendings_differ_where_windows_disagree() -> None:
    array = volume(8, 8, 20)
    uniform, gaussian = (
        predict_probabilities(Local(), array, (8, 8, 8), overlap=OVERLAP, blending=b) for b in ("uniform", "gaussian")
    )
    assert not torch.allclose(uniform, gaussian, atol=1e-3)
