"""Rows that a regression gets far more wrong than the rest."""

from dataclasses import dataclass

import numpy as np

from ..extras import missing_extra

try:
    from scipy.stats import median_abs_deviation
except ImportError as error:
    raise missing_extra("Naming outliers", "train", error) from error


MAX_DEVIATIONS = 4.0
MAX_SHOWN = 10
RULE = (
    f"residuals (predicted - true) more than {MAX_DEVIATIONS:g} robust standard deviations (1.4826 times the median "
    "absolute deviation) from their median"
)


@dataclass(frozen=True)
class Outliers:
    """The outliers among n residuals.

    Attributes:
        center: Median residual.
        scale: Robust standard deviation of the residuals.
        places: (k,) int64 positions of all outliers, the farthest from the median first.
        total: Number of residuals, n.
    """

    center: float
    scale: float
    places: np.ndarray
    total: int

    @property
    def count(self) -> int:
        """Number of outliers."""
        return len(self.places)

    @property
    def shown(self) -> list[int]:
        """Positions of the farthest ones, at most ten."""
        return self.places[:MAX_SHOWN].tolist()


def find_outliers(true: np.ndarray, said: np.ndarray) -> Outliers:
    """Rows whose residual, predicted minus true, lies far from those of the others.

    The rule is `RULE`: |r - median(r)| > 4 s with s = 1.4826 median|r - median(r)|, which for a normal distribution is the
    standard deviation (6 rows in 100,000 would be outliers), and which the outliers themselves do not widen.

    Args:
        true: (n,) floats.
        said: (n,) floats.

    Raises:
        ValueError: No row, shapes that do not fit, or values that are not finite.
    """
    true, said = np.asarray(true, dtype=np.float64), np.asarray(said, dtype=np.float64)
    if true.ndim != 1 or true.shape != said.shape or not len(true):
        raise ValueError(f"expected two lists of as many values, at least one, got shapes {true.shape}, {said.shape}")
    residuals = said - true
    if not np.isfinite(residuals).all():
        raise ValueError("true and predicted values must be finite")
    center = float(np.median(residuals))
    scale = float(median_abs_deviation(residuals, scale="normal"))
    distances = np.abs(residuals - center)
    order = np.argsort(-distances, kind="stable")
    return Outliers(center, scale, order[distances[order] > MAX_DEVIATIONS * scale], len(true))
