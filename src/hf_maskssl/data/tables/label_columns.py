"""Labels of several tasks, a column each, with gaps: which cells have none, what the others are as numbers, and how many."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..arguments import DataArguments
from .sources import AnyDataset

# A cell without a label: transformers' own number, which its Trainer leaves out when it counts labels. Real values may be it.
IGNORED_LABEL = -100
MULTI_LABEL = "multi_label_classification"
NUMBERS = ("int", "uint", "float", "bool", "decimal", "null")


def encode_column(values: Sequence[object] | np.ndarray, task: str, where: Callable[[int], str]) -> np.ndarray:
    """The labels of one task, (n,) float32.

    Args:
        values: A cell for each row; null and NaN are gaps, and where labels are 0 and 1 so is -100.
        task: "multi_label_classification" or "regression".
        where: Place among the values -> split, row and column, for errors.

    Returns:
        0 or 1, with -100 in gaps; or real numbers, with NaN in gaps.

    Raises:
        ValueError: A cell that is no number, not finite, not 0 or 1, or too large for single precision.
    """
    is_numeric = isinstance(values, np.ndarray) and values.dtype.kind in "biuf"
    for place, value in () if is_numeric else enumerate(values):
        if not (value is None or isinstance(value, bool | int | float | np.number | np.bool_ | Decimal)):
            raise ValueError(
                f"{where(place)}: expected a number or nothing as label (task {task!r}), got {value!r:.60}"
            )
    numbers = np.asarray(values, dtype=np.float64)
    gaps = is_gap(numbers, task)
    if task == MULTI_LABEL:
        wrong, words = ~gaps & ~np.isin(numbers, (0.0, 1.0)), "expected 0, 1 or nothing"
    else:
        wrong, words = ~gaps & ~(np.abs(numbers) <= np.finfo(np.float32).max), "expected a number of single precision"
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(f"{where(place)}: {words} as label (task {task!r}), got {numbers[place]:g}")
    return np.where(gaps, IGNORED_LABEL if task == MULTI_LABEL else np.nan, numbers).astype(np.float32)


def rows_without_labels(split: AnyDataset, args: DataArguments) -> np.ndarray:
    """(n,) numbers of the rows that lack every label; none of streams, nor where a column is not there.

    Raises:
        ValueError: A column that holds no numbers.
    """
    columns = args.target_columns()
    if not isinstance(split, Dataset) or not set(columns) <= set(split.column_names):
        return np.zeros(0, dtype=np.int64)
    check_column_types(split, columns)
    lacks_all = np.ones(len(split), dtype=bool)
    for name in columns:
        lacks_all &= is_gap(_numbers(split, name), args.task)
    return np.flatnonzero(lacks_all)


def task_counts(split: Dataset, columns: Sequence[str]) -> dict[str, dict[str, int]]:
    """Task -> its rows that are "positive" and "negative", and those whose label is "missing"; other values count as missing
    here, and preparing the row will say so."""
    found = {}
    for name in columns:
        numbers = _numbers(split, name)
        positive, negative = int((numbers == 1).sum()), int((numbers == 0).sum())
        found[name] = {"positive": positive, "negative": negative, "missing": len(numbers) - positive - negative}
    return found


def check_column_types(split: AnyDataset, columns: Sequence[str]) -> None:
    """Refuse columns that hold no numbers; a stream that does not tell is met row by row.

    Raises:
        ValueError: Naming the column and what it holds.
    """
    for name in columns:
        feature = (split.features or {}).get(name)
        if feature is None:
            continue
        if isinstance(feature, datasets.ClassLabel):
            if feature.num_classes == 2:
                continue
            dtype = f"{feature.num_classes} classes"
        else:
            dtype = feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__
        if not dtype.startswith(NUMBERS):
            raise ValueError(
                f"data.label_column {name!r}: one of several columns of labels holds numbers, got "
                f"{dtype.removeprefix('large_')}: write 0 and 1 for classes, and leave the cell empty where there is no label"
            )


def is_gap(numbers: np.ndarray, task: str) -> np.ndarray:
    """Which entries are no label (bool, their shape): NaN, and where labels are 0 and 1 also -100."""
    is_nan: np.ndarray = np.isnan(numbers)
    return is_nan | (numbers == IGNORED_LABEL) if task == MULTI_LABEL else is_nan


def has_both_classes(references: np.ndarray) -> np.ndarray:
    """(T,) bool, whether a task has rows of class 0 and of class 1 among (n, T) references."""
    both: np.ndarray = (references == 0).any(axis=0) & (references == 1).any(axis=0)
    return both


def _numbers(split: Dataset, name: str) -> np.ndarray:
    """(n,) float64 values of a column, NaN where there is none."""
    column = split.select_columns([name]).with_format("arrow")[:].column(0)
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), dtype=np.float64)
