"""Missing values in a logger's table, one row a time step, predicted by a pre-training model of series."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from transformers import AutoFeatureExtractor

from ..data.kinds.series_guesses import find_logger
from ..data.tables.columns import require_columns
from ..data.tables.loggers import LoggerTable, read_logger
from ..models.feature_extraction_series import SeriesFeatureExtractor
from .imputation import Imputed
from .series_imputation import impute_series

if TYPE_CHECKING:
    import pandas as pd

ROW = "hf_maskssl row"  # column that tells which row a step is


def is_of_logger(model: str | os.PathLike[str], columns: list[str]) -> bool:
    """Whether a checkpoint was trained on a logger's channels, all of which are columns of a table."""
    processor = AutoFeatureExtractor.from_pretrained(os.fspath(model), trust_remote_code=False)
    names = processor.channel_names if isinstance(processor, SeriesFeatureExtractor) else None
    return names is not None and set(names) <= set(columns)


def impute_logger(
    model: str | os.PathLike[str],
    frame: "pd.DataFrame",
    group_column: str | None = None,
    time_column: str | None = None,
    **options: Any,
) -> Imputed:
    """Fill in what is missing in the rows of a logger's table; steps without a row stay without one.

    Series are read in parts of the model's `series_length`.

    Args:
        model: Folder or Hub name of a pre-training checkpoint of series.
        frame: Table with the channels that the model was trained on.
        group_column: Name of the column that tells the series apart; None guesses it, or takes all rows as one series.
        time_column: Name of the column of times; None guesses it.
        options: Further arguments of `impute`.

    Returns:
        The table, and what was missing: (rows, channels) bool.

    Raises:
        ValueError: Channels that are not there, times that do not rise, or what `impute` refuses.
    """
    processor = AutoFeatureExtractor.from_pretrained(os.fspath(model), trust_remote_code=False)
    if not isinstance(processor, SeriesFeatureExtractor) or processor.channel_names is None:
        raise ValueError(
            "model: expected a model of series that was trained on columns of channels (data.input_column, a list)"
        )
    names = tuple(processor.channel_names)
    rows = Dataset.from_pandas(frame.assign(**{ROW: np.arange(len(frame), dtype=np.float64)}), preserve_index=False)
    require_columns(rows, [("input_column", name) for name in names], "train")
    if group_column is None and time_column is None:
        logger = find_logger(rows, None, names)
        if logger is not None and logger.period is not None:
            raise ValueError(
                f"data: series by {logger.group!r} have several rates by their times in {logger.time!r}, and rows are filled in "
                "as they are: give those of each rate by themselves"
            )
        group_column, time_column = (None, None) if logger is None else (logger.group, logger.time)
    joined = read_logger(rows, LoggerTable((*names, ROW), group_column, time_column), "train")
    samples, places = [], []
    for series in joined.with_format("numpy", dtype=np.float64).select_columns([*names, ROW]):
        samples.append(np.stack([series[name] for name in names]))
        places.append(np.asarray(series[ROW]))
    found, flags, errors = impute_series(model, samples, processor, **options)
    filled = frame[list(names)].to_numpy(dtype=np.float64, copy=True)
    was_missing = np.zeros(filled.shape, dtype=bool)
    for number, steps in enumerate(places):
        is_row = ~np.isnan(steps)
        own = steps[is_row].astype(np.int64)
        filled[own] = found[number][:, is_row].T
        was_missing[own] = flags[number][:, is_row].T
    holed = {name: filled[:, place] for place, name in enumerate(names) if was_missing[:, place].any()}
    named = [dataclasses.replace(error, name=names[int(error.name)]) for error in errors]
    return Imputed(frame.assign(**holed), was_missing, named)
