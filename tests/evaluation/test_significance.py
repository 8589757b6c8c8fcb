"""Statistics against their definitions and textbook values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from duomod.evaluation.significance import (
    bootstrap_interval,
    cohens_dz,
    holm,
    paired_tests,
    rank_biserial,
    rank_methods,
    smallest_p,
)


class TestPairedTests:
    differences = np.asarray([1.1, 0.4, -0.3, 2.0, 0.9, 1.6, 0.2])

    def test_wilcoxon_and_permutation_by_counting_all_signs(self) -> None:
        signs = np.asarray(list(itertools.product((1, -1), repeat=7)))
        ranks = stats.rankdata(np.abs(self.differences))
        observed = (ranks * np.sign(self.differences)).sum()
        counted = np.mean(np.abs((signs * ranks).sum(1)) >= abs(observed))
        found = paired_tests(self.differences)
        assert found.wilcoxon == pytest.approx(counted)
        means = (signs * np.abs(self.differences)).mean(1)
        assert found.permutation == pytest.approx(np.mean(np.abs(means) >= abs(self.differences.mean()) - 1e-12))

    def test_student(self) -> None:
        t = self.differences.mean() / (self.differences.std(ddof=1) / math.sqrt(7))
        assert paired_tests(self.differences).t_test == pytest.approx(2 * stats.t.sf(t, 6))

    def test_no_difference_and_too_few(self) -> None:
        assert paired_tests(np.zeros(5)).wilcoxon == 1.0
        assert math.isnan(paired_tests(np.ones(1)).wilcoxon)

    def test_the_smallest_p_is_reached_when_all_differences_agree(self) -> None:
        assert paired_tests(np.arange(1.0, 7.0)).wilcoxon == pytest.approx(smallest_p(6))

    def test_false_alarms_are_as_rare_as_promised(self) -> None:
        rng = np.random.default_rng(0)
        p = [paired_tests(rng.normal(size=12)).wilcoxon for _ in range(300)]
        assert 0.01 < np.mean(np.asarray(p) <= 0.05) < 0.09


class TestHolm:
    def test_textbook_example(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_undefined_values_stay_and_do_not_count(self) -> None:
        adjusted = holm([0.02, math.nan, 0.5])
        assert adjusted[0] == pytest.approx(0.04)
        assert math.isnan(adjusted[1])

    def test_never_above_one_nor_below_the_raw_value(self) -> None:
        raw = np.random.default_rng(0).random(20)
        adjusted = np.asarray(holm(list(raw)))
        assert (adjusted >= raw).all()
        assert (adjusted <= 1).all()


class TestEffectSizes:
    def test_cohens_dz(self) -> None:
        assert cohens_dz(np.asarray([1.0, 2.0, 3.0])) == pytest.approx(2.0)
        assert math.isnan(cohens_dz(np.full(4, 0.1)))

    def test_rank_biserial(self) -> None:
        assert rank_biserial(np.asarray([1.0, 2.0])) == 1.0
        assert rank_biserial(np.asarray([3.0, -1.0, -2.0])) == pytest.approx(0.0)
        assert rank_biserial(np.zeros(3)) == 0.0


class TestBootstrap:
    def test_covers_the_truth_about_as_often_as_promised(self) -> None:
        rng = np.random.default_rng(0)
        hits = 0
        for trial in range(200):
            case = rng.normal(0, 1, 30)
            method = case + 0.5 + rng.normal(0, 0.5, (1, 30))
            baseline = case + rng.normal(0, 0.5, (1, 30))
            low, high = bootstrap_interval(method, baseline, resamples=400, seed=trial)
            hits += low <= 0.5 <= high
        assert 0.88 <= hits / 200 <= 0.99

    def test_a_constant_difference_has_no_width(self) -> None:
        baseline = np.random.default_rng(0).random((1, 12))
        assert bootstrap_interval(baseline + 0.25, baseline, resamples=200) == pytest.approx((0.25, 0.25))

    def test_seeds_that_differ_widen_it(self) -> None:
        rng = np.random.default_rng(0)
        baseline = rng.random((1, 20))
        steady = np.repeat(baseline + 0.1, 3, axis=0)
        restless = steady + np.asarray([[-0.3], [0.0], [0.3]])
        narrow = np.ptp(bootstrap_interval(steady, baseline, resamples=500))
        assert np.ptp(bootstrap_interval(restless, baseline, resamples=500)) > narrow + 0.05

    def test_a_missing_case_of_one_seed_is_bridged(self) -> None:
        values = np.asarray([[0.5, 0.6, np.nan], [0.5, 0.6, 0.7]])
        low, high = bootstrap_interval(values, np.zeros((1, 3)), resamples=300)
        assert 0.5 <= low <= high <= 0.7

    def test_the_seed_decides(self) -> None:
        a, b = np.random.default_rng(1).random((2, 3, 10))
        assert bootstrap_interval(a, b, resamples=300, seed=5) == bootstrap_interval(a, b, resamples=300, seed=5)
        assert bootstrap_interval(a, b, resamples=300, seed=5) != bootstrap_interval(a, b, resamples=300, seed=6)


class TestRanks:
    def test_demsar_example(self) -> None:
        """Demsar (2006), 3.2.4: four classifiers on 14 data sets, AUC; average ranks 3.143, 2.000, 2.893, 1.964."""
        auc = np.asarray(
            [
                [0.763, 0.768, 0.771, 0.798],
                [0.599, 0.591, 0.590, 0.569],
                [0.954, 0.971, 0.968, 0.967],
                [0.628, 0.661, 0.654, 0.657],
                [0.882, 0.888, 0.886, 0.898],
                [0.936, 0.931, 0.916, 0.931],
                [0.661, 0.668, 0.609, 0.685],
                [0.583, 0.583, 0.563, 0.625],
                [0.775, 0.838, 0.866, 0.875],
                [1.000, 1.000, 1.000, 1.000],
                [0.940, 0.962, 0.965, 0.962],
                [0.619, 0.666, 0.614, 0.669],
                [0.972, 0.981, 0.9751, 0.975],
                [0.957, 0.978, 0.946, 0.970],
            ]
        )
        ranking = rank_methods(["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"], auc, higher_is_better=True)
        assert ranking.average_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=1e-3)
        assert ranking.critical_difference == pytest.approx(1.25, abs=0.01)  # q 2.569

    def test_direction(self) -> None:
        values = np.asarray([[1.0, 2.0, 3.0]] * 5)
        assert rank_methods("abc", values, higher_is_better=False).average_ranks == (1, 2, 3)
        assert rank_methods("abc", values, higher_is_better=True).average_ranks == (3, 2, 1)

    def test_groups_are_the_largest_sets_that_cannot_be_told_apart(self) -> None:
        ranking = rank_methods("abcd", np.asarray([[1.0, 2, 3, 4]] * 14), higher_is_better=False)
        assert 1 < ranking.critical_difference < 2
        assert ranking.groups() == [(0, 1), (1, 2), (2, 3)]

    def test_methods_that_always_tie(self) -> None:
        ranking = rank_methods("abc", np.ones((6, 3)), higher_is_better=True)
        assert ranking.friedman_p == 1.0
        assert ranking.groups() == [(0, 1, 2)]
