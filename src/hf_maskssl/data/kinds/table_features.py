"""The features of a table that holds more than numbers: categories, dates and heavy tails, as the training rows have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from datasets import Dataset
from transformers import PreTrainedConfig

from ...methods.optional_fields import category_counts
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ...models.table_values import Category, date_of
from ..kept_statistics import categories_of
from ..looking import columns_of
from ..processors import Processor
from ..tables.sources import AnyDataset
from ..tables.table_columns import (
    count_categories,
    find_categories,
    find_date_parts,
    find_quantiles,
    holds_categories,
)

AUTO = "auto"
# A column of words without a recipe holds categories where each is that of so many rows, on average.
ROWS_OF_A_CATEGORY = 5
MOST_GUESSED = 100


class TableArguments(Protocol):
    """What is read here of the arguments of a table."""

    category_columns: str | list[str] | None
    date_columns: list[str] | None
    quantile_columns: list[str] | None
    max_categories: int
    scale: float
    invalid_value: float | None
    split_seed: int


@dataclass(frozen=True)
class Features:
    """The features of a table, and what the processor is told of them.

    Attributes:
        names: Names of the features.
        categories: Categories of each, None for one of numbers; None where there are numbers alone.
        quantiles: Values of each at evenly spaced shares, None where it is not transformed; None where none is.
        date_parts: Column of dates -> its parts; None without dates.
    """

    names: Sequence[str]
    categories: list[list[Category] | None] | None = None
    quantiles: list[list[float] | None] | None = None
    date_parts: dict[str, list[str]] | None = None


def named_categories(columns: str | list[str] | None) -> list[str]:
    """The columns of categories that a recipe names."""
    return columns if isinstance(columns, list) else []


def category_columns(args: TableArguments, columns: Sequence[str], rows: AnyDataset) -> list[str]:
    """Those of a table's columns that hold categories."""
    if args.category_columns != AUTO:
        return [name for name in columns if name in named_categories(args.category_columns)]
    dates = args.date_columns or []
    return [name for name in columns_of(rows, holds_categories) if name in columns and name not in dates]


def find_features(args: TableArguments, columns: Sequence[str], rows: AnyDataset) -> Features:
    """The features of raw columns, measured on the training rows.

    Raises:
        ValueError: A column holds something else than the recipe says.
    """
    for field, named in (("date_columns", args.date_columns), ("quantile_columns", args.quantile_columns)):
        for name in named or []:
            if name not in columns:
                raise ValueError(f"data.{field}: {name!r} is no feature, which are {list(columns)}")
    categories = {
        name: find_categories(rows, name, args.max_categories) for name in category_columns(args, columns, rows)
    }
    dates = {name: find_date_parts(rows, name) for name in columns if name in (args.date_columns or [])}
    heavy = {
        name: find_quantiles(rows, name, args.scale, args.invalid_value, args.split_seed)
        for name in columns
        if name in (args.quantile_columns or [])
    }
    names: list[str] = []
    for column in columns:
        names += [f"{column}.{part}" for part in dates[column]] if column in dates else [column]
    return Features(
        names,
        [categories.get(name) for name in names] if categories else None,
        [heavy.get(name) for name in names] if heavy else None,
        dates or None,
    )


def check_counts(features: Features, config: PreTrainedConfig) -> None:
    """Refuse a model that reads other columns as categories, or has no room for those there are.

    Raises:
        ValueError: `model.category_counts` does not fit; the error says what to set.
    """
    found = [0 if one is None else len(one) for one in features.categories or [None] * len(features.names)]
    counts = category_counts(config)
    if counts is None and not any(found):
        return
    given = counts or [0] * len(found)
    for name, has, room in zip(features.names, found, given, strict=True):
        if bool(has) != bool(room) or has > room:
            what = f"{has} categories in the training split" if has else "numbers"
            wanted = found if any(found) else None
            raise ValueError(
                f"model.category_counts is {counts}, but column {name!r} holds {what}: set model.category_counts to {wanted}, "
                "or name other columns in data.category_columns"
            )


def common_categories(
    args: TableArguments, processor: Processor, columns: Sequence[str], rows: AnyDataset
) -> Mapping[str, Sequence[Category]]:
    """Column -> its categories: those of a checkpoint's processor, or of the training rows."""
    if isinstance(processor, SeriesFeatureExtractor):
        return categories_of(processor)
    if not isinstance(rows, Dataset):
        return {}
    return {name: list(count_categories(rows, name)) for name in category_columns(args, columns, rows)}


def guess_categories(rows: AnyDataset, label: str | None) -> dict[str, int]:
    """Columns of words and booleans that hold categories, with their numbers, where no recipe says so; dates are none."""
    if not isinstance(rows, Dataset):
        return {}
    found = {}
    for name in columns_of(rows, holds_categories):
        if name == label:
            continue
        counts = count_categories(rows, name)
        most = min(MOST_GUESSED, sum(counts.values()) // ROWS_OF_A_CATEGORY)
        if 2 <= len(counts) <= most and not all(map(_is_date, counts)):
            found[name] = len(counts)
    return found


def _is_date(category: Category) -> bool:
    try:
        return bool(date_of(category))
    except ValueError:
        return False
