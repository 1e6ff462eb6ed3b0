"""Confidence intervals over runs, and the effective rank of features."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

RANKME_MAX_ROWS = 25_600  # the sample size Garrido et al. 2023 find sufficient
RANKME_EPSILON = 1e-7  # their constant for float32 features


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Mean of independent runs and half the width of its confidence interval (Student's t, n - 1 degrees of freedom).

    Args:
        values: one score a run.
        confidence: share of such intervals that cover the true mean, between 0 and 1.

    Returns:
        (mean, half_width); half_width is None for a single run, which says nothing about the spread.

    Raises:
        ValueError: there is no value, one is not finite, or `confidence` is not between 0 and 1.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
        raise ValueError(f"values must be a non-empty list of finite numbers, got {values!r}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    mean = float(scores.mean())
    if len(scores) == 1:
        return mean, None
    return mean, float(stats.t.ppf((1 + confidence) / 2, len(scores) - 1) * stats.sem(scores))


def paired_interval(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> tuple[float, float | None]:
    """Mean of `second` minus `first` over pairs of runs, and half the width of its confidence interval.

    The interval is `mean_interval` of the differences (the paired t interval: Student's t, n - 1 degrees of freedom).
    What the two runs of a pair have in common, such as the seed, the split or the few labels, cancels out.

    Args:
        first: one score a run of the arm that is compared against.
        second: the scores of the other arm; the run at each position shares its seed with that of `first`.
        confidence: share of such intervals that cover the true mean difference, between 0 and 1.

    Returns:
        (mean, half_width); half_width is None for a single pair, which says nothing about the spread. It is 0 when all
        differences are equal.

    Raises:
        ValueError: the two have different numbers of runs, there is none, a score is not finite, or `confidence` is not
            between 0 and 1.
    """
    pair = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    for name, scores in zip(("first", "second"), pair, strict=True):
        if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
            raise ValueError(f"{name} must be a non-empty list of finite numbers, got {scores.tolist()!r}.")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(
            f"first and second must hold the scores of the same runs in the same order, got {len(pair[0])} and "
            f"{len(pair[1])} of them; leave out runs that the other arm does not have."
        )
    return mean_interval((pair[1] - pair[0]).tolist(), confidence)


def rankme(features: np.ndarray) -> float:
    """Effective number of dimensions that features use (RankMe, Garrido et al. 2023, Eq. 1).

    exp of the entropy of the singular values divided by their sum: D when all directions are used alike, 1 when
    features have collapsed onto a line. The features are not centred, as in the paper.

    Args:
        features: (n, D) floats. Of more than 25,600 rows, that many evenly spaced ones are used.

    Returns:
        A number from 1 to min(n, D).

    Raises:
        ValueError: features are not a non-empty finite matrix.
    """
    if features.ndim != 2 or features.size == 0:
        raise ValueError(f"features must be a non-empty (n, D) matrix, got shape {features.shape}.")
    if len(features) > RANKME_MAX_ROWS:
        features = features[np.linspace(0, len(features) - 1, RANKME_MAX_ROWS, dtype=np.int64)]
    matrix = np.asarray(features, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("features hold NaN or infinite values; their rank is not defined.")
    singular_values = np.linalg.svd(matrix, compute_uv=False)
    shares = singular_values / max(singular_values.sum(), np.finfo(np.float64).tiny) + RANKME_EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))
