"""Confidence intervals over runs and over test rows, and the effective rank of features."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from ..extras import missing_extra

try:
    from scipy import stats
except ImportError as error:
    raise missing_extra("Comparing scores", "train", error) from error


RANKME_MAX_ROWS = 25_600  # the sample size Garrido et al. 2023 find sufficient
BOOTSTRAP_RESAMPLES = 1000

logger = logging.getLogger(__name__)
RANKME_EPSILON = 1e-7  # their constant for float32 features
Interval = dict[str, float | None]  # {"mean", "half_width"}, a cell of tables (`evaluation.reports`)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Mean of independent runs and half the width of its confidence interval (Student's t, n - 1 degrees of freedom).

    Args:
        values: One score a run.
        confidence: Share of such intervals that cover the true mean, between 0 and 1.

    Returns:
        (mean, half_width); half_width is None for a single run, which says nothing about the spread.

    Raises:
        ValueError: There is no value, one is not finite, or `confidence` is not between 0 and 1.
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


def interval_of(values: Sequence[float], factor: float = 1.0) -> Interval | None:
    """`mean_interval` of the values times `factor` as {"mean", "half_width"}; None where there is no value."""
    if not values:
        return None
    return dict(zip(("mean", "half_width"), mean_interval([factor * value for value in values]), strict=True))


def paired_interval(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> tuple[float, float | None]:
    """Mean of `second` minus `first` over pairs of runs, and half the width of its confidence interval.

    The interval is `mean_interval` of the differences (the paired t interval: Student's t, n - 1 degrees of freedom).
    What the two runs of a pair have in common, such as the seed, the split or the few labels, cancels out.

    Args:
        first: One score a run of the arm that is compared against.
        second: The scores of the other arm; the run at each position shares its seed with that of `first`.
        confidence: Share of such intervals that cover the true mean difference, between 0 and 1.

    Returns:
        (mean, half_width); half_width is None for a single pair, which says nothing about the spread. It is 0 when all
        differences are equal.

    Raises:
        ValueError: The two have different numbers of runs, there is none, a score is not finite, or `confidence` is not
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


def paired_accuracy_interval(
    first_right: np.ndarray, second_right: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Accuracy of the second model minus that of the first on the same test rows, with its confidence interval.

    The adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav. Stat. 37, 479-488): half a row is added to each
    cell of the table of right and wrong, so that few or no rows on which the models differ do not make it too narrow.
    It says how the two models would compare on other rows of this kind, not how other training runs would.

    Args:
        first_right: (n,) bool, whether the first model is right on each row.
        second_right: (n,) bool, whether the second model is right on each row.
        confidence: Share of such intervals that cover the true difference, between 0 and 1.

    Returns:
        (difference, low, high), each between -1 and 1. The interval's middle lies a little nearer to 0 than the difference.

    Raises:
        ValueError: The two are not equally long (n,) arrays of bool, n at least 1, or `confidence` is not between 0 and 1.
    """
    first_right, second_right = np.asarray(first_right), np.asarray(second_right)
    for name, right in (("first_right", first_right), ("second_right", second_right)):
        if right.ndim != 1 or len(right) == 0 or right.dtype != bool:
            raise ValueError(f"{name} must be (n,) bool, n at least 1, got {right.dtype} of shape {right.shape}.")
    if len(first_right) != len(second_right):
        raise ValueError(
            f"first_right and second_right must be of the same rows, got {len(first_right)} and {len(second_right)}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    num_rows = len(first_right)
    gained, lost = int((second_right & ~first_right).sum()), int((first_right & ~second_right).sum())
    share_gained, share_lost = (gained + 1) / (num_rows + 2), (lost + 1) / (num_rows + 2)
    middle = share_gained - share_lost
    deviation = np.sqrt((share_gained + share_lost - middle**2) / (num_rows + 2))
    half_width = float(stats.norm.ppf((1 + confidence) / 2) * deviation)
    return (gained - lost) / num_rows, max(-1.0, middle - half_width), min(1.0, middle + half_width)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], num_samples: int, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of test samples with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Of a difference between two models on the same samples this is the paired bootstrap, since both are given the same
    draws. Where a sample has several rows, such as the tokens of a text, whole samples are drawn.

    Args:
        statistic: Function of sample numbers (num_samples,), with repetitions, that gives a number; NaN where it has none of a
            draw, such as one without a class: the interval leaves such draws out, and a warning counts them.
        num_samples: Number of samples, 1 or more.
        confidence: Share of such intervals that cover the true value, between 0 and 1.
        seed: Seed of the 1,000 draws.

    Returns:
        (statistic of all samples, low, high).

    Raises:
        ValueError: There is no sample, no draw has a number, or `confidence` is not between 0 and 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    generator = np.random.default_rng(seed)
    drawn = np.array([statistic(generator.integers(0, num_samples, num_samples)) for _ in range(BOOTSTRAP_RESAMPLES)])
    if lost := int(np.isnan(drawn).sum()):
        if lost == len(drawn):
            raise ValueError(f"none of {lost} draws of {num_samples} samples can be scored: take more test rows")
        logger.warning("%d of %d bootstrap draws cannot be scored and are left out", lost, len(drawn))
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(statistic(np.arange(num_samples))), float(low), float(high)


def rankme(features: np.ndarray) -> float:
    """Effective number of dimensions that features use (RankMe, Garrido et al. 2023, Eq. 1).

    exp of the entropy of the singular values divided by their sum: D when all directions are used alike, 1 when
    features have collapsed onto a line. The features are not centred, as in the paper.

    Args:
        features: (n, D) floats. Of more than 25,600 rows, that many evenly spaced ones are used.

    Returns:
        A number from 1 to min(n, D).

    Raises:
        ValueError: Features are not a non-empty finite matrix.
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
