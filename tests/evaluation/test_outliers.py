"""Outliers of a regression: the rule against scipy's and against itself."""

import numpy as np
import pytest
from scipy import stats

from hf_maskssl.evaluation.outliers import MAX_SHOWN, find_outliers


def test_rule_is_that_of_the_docstring_and_the_farthest_come_first() -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=200)
    said = true + 0.3 + random.normal(scale=0.1, size=200)
    said[[7, 50, 120]] = true[[7, 50, 120]] + [3.0, -2.0, 0.3]  # the last one is right beside the median
    found = find_outliers(true, said)
    residuals = said - true
    distances = [abs(residual - np.median(residuals)) for residual in residuals]
    scale = 1.4826 * np.median(distances)
    assert found.scale == pytest.approx(scale, rel=1e-4)
    assert found.center == pytest.approx(np.median(residuals))
    assert set(found.places) == {place for place in range(200) if distances[place] > 4 * scale}
    assert found.places[:2].tolist() == [7, 50]
    assert (found.count, found.total) == (len(found.places), 200)


def test_of_normal_residuals_the_scale_is_the_standard_deviation() -> None:
    residuals = stats.norm(scale=2.5).ppf((np.arange(2001) + 0.5) / 2001)
    found = find_outliers(np.zeros(2001), residuals)
    assert found.scale == pytest.approx(2.5, rel=2e-3) and found.count == 0


def test_ten_are_shown_of_many_and_unit_and_sign_do_not_matter() -> None:
    random = np.random.default_rng(1)
    true, said = np.zeros(300), random.standard_cauchy(300)
    found = find_outliers(true, said)
    assert found.count > MAX_SHOWN == len(found.shown)
    assert found.shown == found.places[:10].tolist()
    assert find_outliers(1000 * true + 5, -1000 * said + 5).places.tolist() == found.places.tolist()


@pytest.mark.parametrize(
    ("true", "said"), [([], []), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0]), ([[1.0]], [[1.0]])]
)
def test_what_has_no_residuals_is_refused(true: list[float], said: list[float]) -> None:
    with pytest.raises(ValueError, match="as many values|must be finite"):
        find_outliers(np.array(true), np.array(said))
