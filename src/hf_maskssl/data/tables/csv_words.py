"""Words of CSV files that pandas takes for missing values, kept where a column holds words."""

import logging
from collections.abc import Callable

import datasets
from datasets import Dataset, IterableDataset

from ..arguments import DataArguments
from .first_rows import first_rows

# What pandas reads as missing (`na_values` of `read_csv`), beside an empty cell.
MISSING_WORDS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)

LOOKED_AT = 1000  # first rows of a stream, which does not tell the types of its columns

logger = logging.getLogger(__name__)


def with_words_kept(
    split: Dataset | IterableDataset, args: DataArguments, load: Callable[..., Dataset]
) -> Dataset | IterableDataset:
    """A split of CSV files in which NA, null, None and the like are words where the recipe's columns hold words.

    There empty cells and the recipe's `missing_words` alone are missing. In columns of numbers those words stay for missing
    numbers.

    Args:
        split: Split as pandas reads it.
        args: The recipe's data section.
        load: Callable that reads the split anew with further options of `load_dataset`.
    """
    named = [
        name for name in (*args.columns_read(), *args.label_columns().values(), args.split_column) if name is not None
    ]
    if isinstance(split, Dataset):
        names = split.column_names
        features = split.features
        words = [
            name for name in dict.fromkeys(named) if name in features and _lacks_words(split, name, features[name])
        ]
    else:
        rows = first_rows(split, LOOKED_AT)
        names = list(rows[0]) if rows else []
        words = [name for name in dict.fromkeys(named) if any(isinstance(row.get(name), str) for row in rows)]
    if not words:
        return split
    given = args.missing_words or []
    of_words = ["", *given]
    of_labels = ["", *(word for word in given if word not in MISSING_WORDS)]  # a class may be named None
    labels = args.target_columns()
    missing = {
        name: ["", *MISSING_WORDS, *given] if name not in words else of_labels if name in labels else of_words
        for name in names
    }
    if not args.missing_words:
        logger.info(
            "columns %s of the CSV files hold words, so NA, null, None and the like are kept as words there", words
        )
    return load(na_values=missing, keep_default_na=False)


def _lacks_words(split: Dataset, column: str, feature: datasets.Value) -> bool:
    """Whether a column holds texts, or nothing at all, and some of them are missing."""
    values = split.data.column(column)
    is_text = feature.dtype in ("string", "large_string") or values.null_count == len(values)
    return bool(is_text and values.null_count)
