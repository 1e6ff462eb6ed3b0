"""Missing values in series of any length, lists in the cells of a table among them, predicted by a pre-training model."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoFeatureExtractor

from ..models.feature_extraction_series import SeriesFeatureExtractor
from .imputation import ImputationError, Imputed, impute

if TYPE_CHECKING:
    import pandas as pd


def series_columns(model: str | os.PathLike[str], frame: "pd.DataFrame") -> list[str]:
    """The columns of a table whose cells are lists, where a checkpoint was trained on series; empty for other checkpoints."""
    processor = AutoFeatureExtractor.from_pretrained(os.fspath(model), trust_remote_code=False)
    if not isinstance(processor, SeriesFeatureExtractor) or processor.statistics_axis == "feature":
        return []
    return [name for name in frame.columns if any(map(_is_list, frame[name]))]


def impute_column(
    model: str | os.PathLike[str], frame: "pd.DataFrame", column: str, split: str = "train", **options: Any
) -> Imputed:
    """Fill in what is missing in the series of one column; all other columns stay as they are.

    Args:
        model: Folder or Hub name of a pre-training checkpoint of series.
        frame: Table whose column holds lists, (T,) or (C, T), of any length.
        column: Name of the column.
        split: Name of the rows, for errors.
        options: Further arguments of `impute`.

    Returns:
        The table, the cells that had holes as lists of float; and of all values of all series, one behind the other, whether
        they were missing, (values,) bool. Rows without a list, or with an empty one, stay as they are.

    Raises:
        ValueError: A cell holds no series of the model's channels, or what `impute` refuses.
    """
    processor = AutoFeatureExtractor.from_pretrained(os.fspath(model), trust_remote_code=False)
    cells = list(frame[column])
    rows = [row for row, cell in enumerate(cells) if _is_list(cell) and len(cell)]
    series = [
        _series(cells[row], f"{split} split, row {row}, column {column!r}", processor.num_channels) for row in rows
    ]
    filled, was_missing, errors = impute_series(model, series, processor, **options)
    for row, values, flags in zip(rows, filled, was_missing, strict=True):
        if flags.any():
            is_flat = np.ndim(cells[row][0]) == 0
            cells[row] = values[0].tolist() if is_flat else values.tolist()
    table = frame.copy(deep=False)
    table[column] = np.fromiter(cells, dtype=object, count=len(cells))
    return Imputed(table, np.concatenate([flags.ravel() for flags in was_missing]), errors)


def impute_series(
    model: str | os.PathLike[str], series: Sequence[np.ndarray], processor: SeriesFeatureExtractor, **options: Any
) -> tuple[list[np.ndarray], list[np.ndarray], list[ImputationError]]:
    """Fill in what is missing in series of any length, which are read in parts of the model's `series_length`.

    Args:
        model: Folder or Hub name of a pre-training checkpoint of series.
        series: Series (C, T) float64 with NaN for what is missing.
        processor: Processor of the checkpoint.
        options: Further arguments of `impute`.

    Returns:
        Of each series its values (C, T), and what was missing (C, T) bool; and the errors.

    Raises:
        ValueError: What `impute` refuses.
    """
    length = processor.series_length
    starts = [range(0, values.shape[1], length) for values in series]
    parts = [values[:, start : start + length] for values, own in zip(series, starts, strict=True) for start in own]
    found = impute(model, parts, processor, **options)
    filled, was_missing, first = [], [], 0
    for own in starts:
        numbers = range(first, first + len(own))
        first += len(own)
        widths = [parts[number].shape[1] for number in numbers]
        filled.append(np.concatenate([np.asarray(found.data[number]) for number in numbers], axis=1))
        flags = [found.was_missing[number][:, :width] for number, width in zip(numbers, widths, strict=True)]
        was_missing.append(np.concatenate(flags, axis=1))
    return filled, was_missing, found.errors


def _is_list(cell: object) -> bool:
    return isinstance(cell, list | np.ndarray)


def _series(cell: Any, where: str, channels: int) -> np.ndarray:
    """A cell as (C, T) float64, NaN where it is missing."""
    rows = [cell] if np.ndim(cell[0]) == 0 else list(cell)
    try:
        values = np.stack([np.asarray(row, dtype=np.float64) for row in rows])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected channels of numbers, all of one length: {error}") from error
    if values.ndim != 2 or len(values) != channels:
        raise ValueError(f"{where}: expected {channels} channels x time steps, got an array {values.shape}")
    return values
