"""Intensities: what is stored, and what a network sees."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from duomod.preprocessing.intensity import AIR, normalise, outside_value, statistics, stored

RNG = np.random.default_rng(0)


class TestCT:
    def test_is_stored_as_rounded_hounsfield_units(self) -> None:
        result = stored(np.array([[[-1024.4, 39.6, 40.4, 3071.0]]]), "CT")
        assert result.dtype == np.int16
        assert result.ravel().tolist() == [-1024, 40, 40, 3071]

    def test_never_wraps_around(self) -> None:
        result = stored(np.array([[[-1e6, 1e6, 40000.0]]], np.float32), "CT")
        assert result.ravel().tolist() == [-32768, 32767, 32767]

    def test_the_window_becomes_zero_to_one(self) -> None:
        hu = np.array([[[-1024, -125, 75, 275, 3000]]], np.int16)
        result = normalise(hu, "CT", (-125.0, 275.0))
        assert result.dtype == np.float32
        assert result.ravel().tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]

    def test_normalising_leaves_the_stored_array_alone(self) -> None:
        hu = np.array([[[-1024, 75]]], np.int16)
        normalise(hu, "CT", (-125.0, 275.0))
        assert hu.ravel().tolist() == [-1024, 75]

    def test_outside_is_air_whatever_the_scan_holds(self) -> None:
        assert outside_value(sitk.Image((2, 2, 2), sitk.sitkInt16), "CT") == AIR == -1024


class TestMR:
    def test_lies_between_zero_and_one(self) -> None:
        scan = np.concatenate([np.zeros(5000), RNG.normal(500, 100, 5000)]).reshape(10, 10, 100)
        result = stored(scan, "MR")
        assert result.dtype == np.float32
        assert (result.min(), result.max()) == (0.0, 1.0)

    @pytest.mark.parametrize(("factor", "shift"), [(0.01, 0.0), (3.0, 0.0), (48.0, 700.0)])
    def test_does_not_depend_on_the_scanners_scale(self, factor: float, shift: float) -> None:
        scan = np.concatenate([np.zeros(3000), RNG.uniform(10, 900, 7000)]).reshape(10, 10, 100)
        assert np.allclose(stored(scan * factor + shift, "MR"), stored(scan, "MR"), atol=1e-4)

    def test_the_scale_comes_from_the_tissue_not_the_background(self) -> None:
        tissue = RNG.uniform(100, 200, 1000)
        little, much = (np.concatenate([np.zeros(n), tissue]).reshape(1, 1, -1) for n in (10, 100_000))
        assert np.array_equal(stored(little, "MR")[..., 10:], stored(much, "MR")[..., 100_000:])

    def test_a_single_bright_voxel_does_not_darken_the_rest(self) -> None:
        scan = RNG.uniform(100, 200, (20, 20, 20))
        spiked = scan.copy()
        spiked[0, 0, 0] = 1e6
        assert np.abs(stored(spiked, "MR") - stored(scan, "MR"))[1:].max() < 0.01

    def test_a_constant_scan_becomes_zero(self) -> None:
        assert (stored(np.full((2, 3, 4), 7.0), "MR") == 0).all()

    def test_is_seen_as_stored_without_a_window(self) -> None:
        scan = stored(RNG.uniform(0, 900, (4, 5, 6)), "MR")
        assert np.array_equal(normalise(scan, "MR", (-125.0, 275.0)), scan)

    def test_outside_is_the_scans_minimum(self) -> None:
        assert outside_value(sitk.GetImageFromArray(np.array([[[5, -3, 9]]], np.int16)), "MR") == -3


def test_statistics_of_a_known_array() -> None:
    found = statistics(np.arange(1001, dtype=np.int16).reshape(7, 11, 13))
    assert found == {
        "mean": 500.0,
        "std": pytest.approx(np.sqrt((1001**2 - 1) / 12)),
        "min": 0.0,
        "max": 1000.0,
        "percentile_00_5": 5.0,
        "percentile_99_5": 995.0,
    }
