"""Intervals against scipy's, the effective rank on spectra that are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hf_maskssl.evaluation import statistics
from hf_maskssl.evaluation.statistics import (
    bootstrap_interval,
    mean_interval,
    paired_accuracy_interval,
    paired_interval,
    rankme,
)


def matrix_with_spectrum(singular_values: list[float], num_rows: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    size = len(singular_values)
    left, _ = np.linalg.qr(generator.normal(size=(num_rows, size)))
    right, _ = np.linalg.qr(generator.normal(size=(size, size)))
    return left @ np.diag(singular_values) @ right


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=8).filter(lambda scores: np.std(scores) > 1e-3),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_interval_is_scipys_student_interval(scores: list[float], confidence: float) -> None:
    mean, half_width = mean_interval(scores, confidence)
    low, high = stats.t.interval(confidence, len(scores) - 1, loc=np.mean(scores), scale=stats.sem(scores))
    assert half_width is not None
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


def test_interval_of_three_runs_by_hand() -> None:
    # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3)
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / math.sqrt(3)), rel=1e-6)


def test_single_run_has_no_interval() -> None:
    assert mean_interval([0.5]) == (0.5, None)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_interval_refuses_nothing_and_nan(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        mean_interval(scores)


def test_interval_refuses_a_confidence_in_percent() -> None:
    with pytest.raises(ValueError, match="confidence.*95"):
        mean_interval([1.0, 2.0], confidence=95)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=8).filter(
        lambda pairs: np.std([b - a for a, b in pairs]) > 1e-3
    ),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_paired_interval_is_that_of_scipys_paired_t_test(pairs: list[tuple[float, float]], confidence: float) -> None:
    first, second = zip(*pairs, strict=True)
    mean, half_width = paired_interval(first, second, confidence)
    expected = stats.ttest_rel(second, first).confidence_interval(confidence)
    assert half_width is not None
    assert (mean - half_width, mean + half_width) == pytest.approx((expected.low, expected.high))


def test_what_the_runs_of_a_pair_share_cancels_out() -> None:
    shared, gains = np.array([10.0, 90.0, 50.0]), np.array([1.0, 2.0, 3.0])
    assert paired_interval(shared.tolist(), (shared + gains).tolist()) == pytest.approx(
        (2.0, 4.302653 / math.sqrt(3)), rel=1e-6
    )
    assert paired_interval((shared + gains).tolist(), shared.tolist())[0] == pytest.approx(-2.0)
    assert paired_interval([1.0], [1.5]) == (0.5, None)


def test_paired_interval_refuses_what_is_no_pairs() -> None:
    with pytest.raises(ValueError, match="same runs in the same order, got 2 and 3"):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="first must be a non-empty list"):
        paired_interval([], [])
    with pytest.raises(ValueError, match="second must be .* finite"):
        paired_interval([1.0], [math.nan])
    with pytest.raises(ValueError, match="confidence.*95"):
        paired_interval([1.0, 2.0], [1.0, 2.0], confidence=95)


def test_paired_accuracy_interval_by_hand() -> None:
    # 100 rows: the second is right where the first is wrong on 12, wrong where it is right on 4.
    first, second = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
    first[:12], second[12:16] = False, False
    difference, low, high = paired_accuracy_interval(first, second)
    gained, lost = 13 / 102, 5 / 102
    half_width = 1.959964 * math.sqrt((gained + lost - (gained - lost) ** 2) / 102)
    assert difference == pytest.approx(0.08)
    assert (low, high) == pytest.approx((gained - lost - half_width, gained - lost + half_width), rel=1e-5)
    assert paired_accuracy_interval(second, first) == pytest.approx((-0.08, -high, -low))


def test_paired_accuracy_interval_does_not_claim_certainty_where_no_row_differs() -> None:
    right = np.ones(50, dtype=bool)
    difference, low, high = paired_accuracy_interval(right, right)
    assert difference == 0.0 and low < -0.02 and high > 0.02


def test_paired_accuracy_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        # Both right 70 %, only the second 15 %, only the first 5 %: a true difference of 10 points.
        kind = generator.choice(4, 80, p=[0.7, 0.15, 0.05, 0.1])
        _, low, high = paired_accuracy_interval((kind == 0) | (kind == 2), (kind == 0) | (kind == 1))
        covered += low <= 0.1 <= high
    assert 930 <= covered <= 975


def test_paired_accuracy_interval_refuses_what_is_no_pairs() -> None:
    right = np.ones(5, dtype=bool)
    with pytest.raises(ValueError, match="same rows, got 5 and 4"):
        paired_accuracy_interval(right, right[:4])
    with pytest.raises(ValueError, match="second_right must be .*bool, .*float64"):
        paired_accuracy_interval(right, np.ones(5))
    with pytest.raises(ValueError, match="confidence.*95"):
        paired_accuracy_interval(right, right, confidence=95)


def test_bootstrap_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    mean, low, high = bootstrap_interval(lambda drawn: float(values[drawn].mean()), 60)
    generator = np.random.default_rng(1)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", random_state=generator)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.04)
    assert bootstrap_interval(lambda drawn: float(values[drawn].mean()), 60) == (mean, low, high)
    with pytest.raises(ValueError, match="num_samples"):
        bootstrap_interval(lambda drawn: 0.0, 0)
    with pytest.raises(ValueError, match="confidence.*95"):
        bootstrap_interval(lambda drawn: 0.0, 3, confidence=95)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(12, 40))
def test_rankme_counts_equal_singular_values(rank: int, num_rows: int) -> None:
    spectrum = [3.0] * rank + [0.0] * (12 - rank)
    assert rankme(matrix_with_spectrum(spectrum, num_rows)) == pytest.approx(rank, rel=1e-3)


def test_rankme_is_the_exponential_of_the_entropy_of_shares() -> None:
    shares = [0.5, 0.25, 0.125, 0.125]
    entropy = -sum(share * math.log(share) for share in shares)
    features = matrix_with_spectrum([8 * share for share in shares], 30)
    assert rankme(features) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_rankme_does_not_depend_on_scale_and_does_not_centre() -> None:
    features = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    assert rankme(100 * features) == pytest.approx(rankme(features), rel=1e-5)
    assert rankme(features + 1000) < 1.1  # the mean dominates; centred, the rank would be close to 6


def test_rankme_of_collapsed_features_is_one() -> None:
    assert rankme(np.ones((20, 8), dtype=np.float32)) == pytest.approx(1.0, rel=1e-3)
    assert rankme(np.zeros((20, 8), dtype=np.float32)) == pytest.approx(1.0, rel=1e-3)


def test_rankme_thins_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two halves in different directions: only rows from both show rank 2.
    features = np.repeat(np.eye(2), 100, axis=0)
    monkeypatch.setattr(statistics, "RANKME_MAX_ROWS", 10)
    assert rankme(features) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("features", [np.zeros((0, 3)), np.zeros(3), np.full((2, 2), np.nan)])
def test_rankme_refuses_what_has_no_rank(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="features"):
        rankme(features)


def test_draws_without_a_score_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    values = np.arange(20.0)

    def statistic(drawn: np.ndarray) -> float:
        return float(values[drawn].mean()) if 3 in drawn else float("nan")

    found = bootstrap_interval(statistic, 20)
    assert all(map(np.isfinite, found)) and "of 1000 bootstrap draws cannot be scored and are left out" in caplog.text
    with pytest.raises(ValueError, match="none of 1000 draws of 20 samples can be scored"):
        bootstrap_interval(lambda drawn: float("nan"), 20)
