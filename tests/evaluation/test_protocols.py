"""Published protocols: parity with what they are made of, and never under the usual names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from duomod.errors import InputError
from duomod.evaluation.protocols import DHC_GRID, dhc_metrics, resize_nearest, score_dhc


@pytest.mark.parametrize("old", [(71, 144, 145), (83, 97, 320), (100, 512, 333), (1, 7, 1000)])
def test_nearest_resize_is_that_of_torch(old: tuple[int, int, int]) -> None:
    for axis, (size, new) in enumerate(zip(old, DHC_GRID, strict=True)):
        shape = tuple(size if i == axis else 2 for i in range(3))
        target = tuple(new if i == axis else 2 for i in range(3))
        labels = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(labels)[None, None].float(), size=target, mode="nearest"
        )
        np.testing.assert_array_equal(resize_nearest(labels, target), expected[0, 0].numpy().astype(np.uint8))


def test_dhc_values_are_medpy_formulas_on_its_grid() -> None:
    shape = (36, 72, 72)
    prediction, truth = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[8:20, 10:40, 10:40] = 1
    prediction[9:22, 12:41, 10:37] = 1
    truth[30:33, 50:60, 50:60] = 2  # missed
    prediction[2:4, 60:64, 60:64] = 3  # false; class 4 is in neither
    scores = score_dhc(prediction, truth, 5, dhc_metrics(("dice", "asd")))
    p, t = resize_nearest(prediction, DHC_GRID) == 1, resize_nearest(truth, DHC_GRID) == 1
    face = ndimage.generate_binary_structure(3, 1)
    border_p, border_t = p ^ ndimage.binary_erosion(p, face), t ^ ndimage.binary_erosion(t, face)
    asd = ndimage.distance_transform_edt(~border_t)[border_p].mean()
    assert scores[0].values["DHCASDVoxels"] == pytest.approx(asd, rel=1e-6)
    assert scores[0].values["DHCDice"] == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()))
    assert [s.values for s in scores[1:]] == [
        {"DHCDice": 0.0, "DHCASDVoxels": 128.0},
        {"DHCDice": 0.0, "DHCASDVoxels": 128.0},
        {"DHCDice": 0.01, "DHCASDVoxels": 0.0},
    ]


def test_dhc_has_two_metrics_only() -> None:
    with pytest.raises(InputError, match="hd95"):
        dhc_metrics(("dice", "hd95"))
