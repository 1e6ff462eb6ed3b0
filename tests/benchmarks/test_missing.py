"""Holes on purpose, and what plainly fills them, in the benchmark of missing values."""

import numpy as np
import pandas as pd
import pytest
from missing import CATEGORIES, LABEL, MIXED_ROWS, NUMBERS, Rows, fill_plainly, frame_of, holes, mixed_table


@pytest.mark.parametrize("pattern", ["single", "blocks"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_as_many_values_are_removed_as_was_asked_for(pattern: str, share: float) -> None:
    removed = holes((400, 3, 40), share, pattern, 0)
    assert abs(removed.mean() - share) < 0.03 and not removed.all(axis=(1, 2)).any()
    assert (removed == holes((400, 3, 40), share, pattern, 0)).all()
    if share:  # the next value of a hole is one more often than the share says, in blocks alone
        follows = removed[..., 1:][removed[..., :-1]].mean()
        assert (follows > share + 0.2) == (pattern == "blocks")


def test_steps_are_removed_of_all_channels_at_once() -> None:
    removed = holes((500, 3, 40), 0.3, "steps", 0)
    assert (removed == removed[:, :1]).all() and abs(removed.mean() - 0.3) < 0.02


def test_rows_that_would_be_all_hole_keep_a_value() -> None:
    assert not holes((500, 1, 2), 0.9, "single", 0).all(axis=(1, 2)).any()


def test_means_and_the_commonest_category_fill_a_table() -> None:
    nan = np.nan
    train = Rows(np.array([[[1.0, 2.0]], [[3.0, 2.0]], [[nan, 0.0]]]), np.zeros(3))
    test = Rows(np.array([[[nan, nan]], [[7.0, 1.0]]]), np.zeros(2))
    found = fill_plainly(test, train, np.array([False, True])).values
    np.testing.assert_array_equal(found, [[[2.0, 2.0]], [[7.0, 1.0]]])
    series = Rows(np.array([[[1.0, nan, 3.0], [0.0, 4.0, nan]]]), np.zeros(1))
    found = fill_plainly(series, series, np.zeros(3, dtype=bool)).values
    np.testing.assert_array_equal(found, [[[1.0, 2.0, 3.0], [0.0, 4.0, 2.0]]])


def test_the_mixed_table_has_words_that_go_with_its_numbers() -> None:
    table = mixed_table(MIXED_ROWS["test"], 2)
    assert list(table) == [*NUMBERS, *CATEGORIES, LABEL] and 0.3 < table[LABEL].mean() < 0.7
    assert [table[name].nunique() for name in CATEGORIES] == [3, 6, 2, 4]
    values = table.drop(columns=LABEL).to_numpy(dtype=np.float64)[:, None]
    values[0, 0, 5] = np.nan
    frame = frame_of(values, table[LABEL].to_numpy(), True)
    assert pd.isna(frame["plan"][0]) and set(frame["plan"][1:]) == {"plan 0", "plan 1", "plan 2"}
    assert table.groupby("active")["b"].mean().diff().iloc[-1] > 1.0
