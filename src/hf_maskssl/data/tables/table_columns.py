"""Columns of a table that hold categories, dates or heavy tails: which they are, and what the training rows have in them."""

from collections.abc import Mapping, Sequence
from itertools import islice

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ...extras import missing_extra
from ...models.table_values import DATE_PARTS, Category, category_key, category_numbers, date_of, is_missing, number_of
from .sources import AnyDataset
from .statistics import STATISTICS_ROWS

QUANTILES = 256  # values that a heavy-tailed column is described by, fewer where it has fewer rows


def holds_categories(feature: object) -> bool:
    """Whether a column's type is one of categories: texts, booleans, or names of classes."""
    if isinstance(feature, datasets.ClassLabel):
        return True
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "bool")


def _values(rows: AnyDataset, column: str) -> pa.Array:
    """The cells of a column, of a stream those of its first rows."""
    if isinstance(rows, Dataset):
        values = rows.select_columns([column]).with_format("arrow")[:].column(column) if len(rows) else pa.array([])
    else:
        values = pa.array([row[column] for row in islice(iter(rows), STATISTICS_ROWS)])
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def count_categories(rows: AnyDataset, column: str) -> dict[Category, int]:
    """Category -> rows that have it, in the order of the words, numbers or booleans; missing cells are left out.

    Raises:
        ValueError: The column holds something else than words, whole numbers or booleans.
    """
    values = _values(rows, column)
    if not (pa.types.is_null(values.type) or _holds_single_values(values.type)):
        raise ValueError(
            f"data.category_columns: column {column!r} holds {values.type}, expected words, whole numbers or booleans"
        )
    counts: dict[Category, int] = {}
    for entry in pc.value_counts(values).to_pylist():
        value = entry["values"]
        if is_missing(value):
            continue
        category = _as_category(value, column)
        counts[category] = counts.get(category, 0) + entry["counts"]
    return dict(sorted(counts.items()))


def _holds_single_values(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_boolean,
            pa.types.is_integer,
            pa.types.is_floating,
        )
    )


def _as_category(value: object, column: str) -> Category:
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(
                f"data.category_columns: column {column!r} holds {value:g}, a number with a fraction, which is no category: take "
                "the column out, and it is read as numbers"
            )
        return int(value)
    assert isinstance(value, str | int)  # and bool, which is one
    return value


def find_categories(rows: AnyDataset, column: str, most: int) -> list[Category]:
    """The categories of a column in the training split.

    Args:
        rows: Raw training rows.
        column: Name of the column.
        most: Largest number of categories.

    Raises:
        ValueError: There are more categories, or only one, or none.
    """
    found = list(count_categories(rows, column))
    if len(found) > most:
        raise ValueError(
            f"data.category_columns: column {column!r} has {len(found):,} categories in the training split, more than "
            f"data.max_categories {most:,}: leave the column out of the input columns, as names and numbers of rows say nothing "
            "of other rows, or raise data.max_categories"
        )
    if len(found) < 2:
        has = f"the one category {found[0]!r}" if found else "no value"
        raise ValueError(
            f"data.category_columns: column {column!r} has {has} in the training split, which says nothing: leave the column out "
            "of the input columns"
        )
    return found


def find_date_parts(rows: AnyDataset, column: str) -> list[str]:
    """The parts that a column of dates becomes: the hour only where there are times of the day.

    Raises:
        ValueError: A cell is no date.
    """
    has_times = False
    for number, value in enumerate(_values(rows, column).to_pylist()):
        if is_missing(value):
            continue
        try:
            when = date_of(value)
        except ValueError as error:
            raise ValueError(f"data.date_columns: column {column!r}, row {number}: {error}") from error
        has_times |= bool(when.hour or when.minute or when.second)
    return [part for part in DATE_PARTS if part != "hour" or has_times]


def find_quantiles(rows: AnyDataset, column: str, scale: float, invalid_value: float | None, seed: int) -> list[float]:
    """Ascending values of a column at evenly spaced shares of its rows, as scikit-learn's `QuantileTransformer` finds them.

    Args:
        rows: Raw training rows.
        column: Name of the column.
        scale: Factor that raw values are multiplied by first.
        invalid_value: Raw value that says that none was measured.
        seed: Seed of the rows that are looked at where there are many.

    Raises:
        ValueError: The column holds no numbers.
    """
    try:  # here, because tables without heavy tails do without it
        from sklearn.preprocessing import QuantileTransformer
    except ImportError as error:
        raise missing_extra("Transforming heavy tails", "train", error) from error
    try:
        values = np.array([number_of(value) for value in _values(rows, column).to_pylist()], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"data.quantile_columns: column {column!r}: {error}") from error
    values = values[~np.isnan(values) & (values != invalid_value)] * scale
    if not len(values):
        raise ValueError(f"data.quantile_columns: column {column!r} has no value in the training split")
    transformer = QuantileTransformer(
        n_quantiles=min(QUANTILES, len(values)), subsample=STATISTICS_ROWS, random_state=seed
    )
    found: list[float] = transformer.fit(values[:, None]).quantiles_[:, 0].tolist()
    return found


def unseen_categories(rows: AnyDataset, known: Mapping[str, Sequence[Category]]) -> dict[str, int]:
    """Column -> rows whose category is none of the known ones; columns that have none are left out. A stream is not counted."""
    found: dict[str, int] = {}
    if not isinstance(rows, Dataset) or not len(rows):
        return found
    for column, categories in known.items():
        if column not in rows.column_names:
            continue
        keys = category_numbers(categories)
        count = sum(
            number for value, number in count_categories(rows, column).items() if category_key(value) not in keys
        )
        if count:
            found[column] = count
    return found
