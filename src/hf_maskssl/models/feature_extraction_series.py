"""Feature extractor for multi-channel series and tabular rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import TensorType, logging

from .standardization import (
    Array,
    Numbers,
    as_model_inputs,
    beyond_range,
    check_statistics,
    standardize,
    unstandardize,
    without_invalid,
)
from .table_values import (
    DATE_PARTS,
    UNSEEN,
    Category,
    Cell,
    RowReader,
    Table,
    category_numbers,
    normal_scores,
    rows_of_table,
    undo_normal_scores,
)

logger = logging.get_logger(__name__)

# A sample: numbers, the cells of a row, or a row by the names of its columns. A batch: several, a table, or its columns by name.
Sample: TypeAlias = Numbers | Sequence[Cell] | Mapping[str, Cell]
Batch: TypeAlias = Sample | Sequence[Sample] | Table | Mapping[str, Sequence[Cell]]


class SeriesFeatureExtractor(FeatureExtractionMixin):
    """Turns series (channels x time steps) and tabular rows (one channel, one step per feature) into `input_values`.

    A table may hold categories, which become class numbers (those that training did not have are missing), and dates, which
    become numbers. A series shorter than `series_length` is padded at its end with steps that were not observed; a longer one
    is an error.

    Args:
        num_channels: Channels C of a series; 1 for tabular rows.
        series_length: Time steps T of the longest series, or features of a row.
        scale: Raw values are multiplied by this first.
        standardize: `"dataset"` (by `mean` and `std`), `"sample"` (per channel, by the sample's own) or `"none"`.
        mean: Means for `"dataset"`: one number per channel, or per feature when `statistics_axis` is `"feature"`.
        std: Standard deviations, positive, as many as `mean` has numbers.
        statistics_axis: `"channel"` for series, `"feature"` for tabular rows.
        feature_names: Names of a table's columns in the order the model was trained on.
        channels_last: Whether to give (T, C), one token per time step, instead of (C, T). Samples go in as (C, T) either way.
        invalid_value: Raw value that says that none was measured, as NaN and None always do.
        categories: Categories of each feature in the order of their class numbers, words, whole numbers or booleans; None for a
            feature of numbers, and None in place of the list for a table of numbers alone.
        quantiles: Ascending values of each feature at evenly spaced shares of the training rows, by which it becomes the
            normal score of its rank before it is standardised (scikit-learn's `QuantileTransformer`); None as in `categories`.
        date_parts: Column of dates -> its parts among `DATE_PARTS`, whose features are named `column.part`; None without dates.
        channel_names: Names of the channels of a series, where each was a column of a table.

    Raises:
        ValueError: Statistics, names or categories that do not fit the shape.
    """

    model_input_names = ["input_values", "observed_mask"]

    def __init__(
        self,
        num_channels: int = 1,
        series_length: int = 1,
        scale: float = 1.0,
        standardize: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        statistics_axis: str = "channel",
        feature_names: Sequence[str] | None = None,
        channels_last: bool = False,
        invalid_value: float | None = None,
        categories: Sequence[Sequence[Category] | None] | None = None,
        quantiles: Sequence[Sequence[float] | None] | None = None,
        date_parts: Mapping[str, Sequence[str]] | None = None,
        channel_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if statistics_axis not in ("channel", "feature"):
            raise ValueError(f"statistics_axis: expected 'channel' or 'feature', got {statistics_axis!r}")
        if feature_names is not None and len(feature_names) != series_length:
            raise ValueError(f"feature_names: expected {series_length} names, got {len(feature_names)}")
        self.num_channels = num_channels
        self.series_length = series_length
        self.scale = scale
        self.standardize = standardize
        self.statistics_axis = statistics_axis
        count = num_channels if statistics_axis == "channel" else series_length
        self.mean, self.std = check_statistics(standardize, mean, std, count)
        self.feature_names = None if feature_names is None else list(feature_names)
        self.channels_last = channels_last
        self.invalid_value = invalid_value
        self.categories = None if categories is None else [None if one is None else list(one) for one in categories]
        self.quantiles = None if quantiles is None else [None if one is None else list(one) for one in quantiles]
        self.date_parts = None if date_parts is None else {name: list(parts) for name, parts in date_parts.items()}
        if channel_names is not None and len(channel_names) != num_channels:
            raise ValueError(f"channel_names: expected {num_channels} names, got {len(channel_names)}")
        self.channel_names = None if channel_names is None else list(channel_names)
        self._check_columns()
        numbers = zip(self.feature_names or [], self.categories or [], strict=False)
        self._reader = RowReader(
            self.column_names or [],
            self.date_parts or {},
            {name: category_numbers(one) for name, one in numbers if one is not None},
            self.invalid_value,
        )
        if self.mean is not None and self.std is not None:  # class numbers are left as they are
            self.mean = [0.0 if self.is_category(place) else value for place, value in enumerate(self.mean)]
            self.std = [1.0 if self.is_category(place) else value for place, value in enumerate(self.std)]

    def _check_columns(self) -> None:
        if not self.reads_cells:
            return
        if self.feature_names is None or self.statistics_axis != "feature" or self.num_channels != 1:
            raise ValueError(
                "categories, quantiles and date_parts are of a table: they need feature_names, statistics_axis 'feature' and "
                "num_channels 1"
            )
        if self.standardize == "sample":
            raise ValueError(
                "standardize 'sample' takes the mean of a row, whose columns are of several kinds here: use 'dataset'"
            )
        for name, values in (("categories", self.categories), ("quantiles", self.quantiles)):
            if values is not None and len(values) != self.series_length:
                raise ValueError(
                    f"{name}: expected an entry for each of {self.series_length} features, got {len(values)}"
                )
        for column, parts in (self.date_parts or {}).items():
            names = [f"{column}.{part}" for part in parts]
            if not set(parts) <= set(DATE_PARTS) or not set(names) <= set(self.feature_names):
                raise ValueError(
                    f"date_parts: expected for {column!r} some of {list(DATE_PARTS)} whose features {names} are among "
                    f"feature_names {self.feature_names}"
                )

    @property
    def reads_cells(self) -> bool:
        """Whether a row holds more than numbers, or numbers that are transformed by columns."""
        return self.categories is not None or self.quantiles is not None or self.date_parts is not None

    @property
    def column_names(self) -> list[str] | None:
        """Names of the raw columns of a table in their order; a date is one column of several features."""
        if self.feature_names is None or self.date_parts is None:
            return self.feature_names
        column_of = {f"{name}.{part}": name for name, parts in self.date_parts.items() for part in parts}
        return list(dict.fromkeys(column_of.get(name, name) for name in self.feature_names))

    def is_category(self, feature: int) -> bool:
        """Whether a feature holds class numbers."""
        return self.categories is not None and self.categories[feature] is not None

    def to_dict(self) -> dict[str, Any]:
        """The settings, as JSON keeps them."""
        return {name: value for name, value in super().to_dict().items() if name != "_reader"}

    def __call__(self, series: Batch, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Prepare one sample or a batch.

        Args:
            series: One sample, (C, T) or (T,) when C is 1; or a batch: a sequence of samples or a (B, C, T) array,
                also (B, T) when C is 1. Of a table also a pandas DataFrame, {column: cells}, rows as {column: cell}, or lists
                of cells. NaN and None are missing values.
            return_tensors: `"pt"` or `"np"` for one tensor, None for a list of arrays.

        Returns:
            `input_values`, (B, C, T) float32, or (B, T, C) under `channels_last`; and where values are missing or padded,
            `observed_mask`, bool of the same shape, True = observed. The models make the attention mask of their tokens of it.

        Raises:
            ValueError: A sample of another shape, infinite values, or a sample in which everything is missing.
        """
        raw = self._as_batch(series)
        samples = [self.prepare_sample(sample) for sample in raw]
        if not samples:
            raise ValueError("series: expected at least one sample, got an empty batch")
        unseen = Counter(name for sample in raw for name in self.unseen(sample))
        if unseen:
            logger.warning(
                "categories that training did not have are missing values, by column: %s, of %d rows",
                dict(unseen),
                len(raw),
            )
        return BatchFeature(as_model_inputs("input_values", samples), tensor_type=return_tensors)

    def prepare_sample(self, sample: Sample) -> np.ndarray:
        """One sample, (C, T) or (T,) when C is 1, as a scaled and standardised float32 array, NaN = missing or padding.

        Returns:
            (C, T), or (T, C) under `channels_last`.

        Raises:
            ValueError: Another shape, or infinite values.
        """
        axis = 0 if self.statistics_axis == "channel" else 1
        values = self.scaled_values(sample)
        values = standardize(values, self.standardize, self.mean, self.std, axis).astype(np.float32)
        return np.ascontiguousarray(values.T) if self.channels_last else values

    def scaled_values(self, sample: Sample) -> np.ndarray:
        """(C, T) float64 before standardising, in either layout: the values whose mean and standard deviation are measured.

        Missing ones, and the steps behind the end of a shorter series, are NaN.
        """
        values = self.unpadded_values(sample)
        length = values.shape[1]
        if length == self.series_length:
            return values
        if length > self.series_length:
            raise ValueError(
                f"the series has {length} steps, more than the {self.series_length} of series_length: raise it, cut the "
                "series, or read long series by windows (data.window)"
            )
        return np.pad(values, ((0, 0), (0, self.series_length - length)), constant_values=np.nan)

    def unpadded_values(self, sample: Sample) -> np.ndarray:
        """(C, L) float64 as `scaled_values` gives them, of a series of any length L, without padding."""
        holds_cells = self.reads_cells or isinstance(sample, Mapping)
        values = (
            self._reader.numbers_of(sample)
            if holds_cells
            else _as_array(sample, self.num_channels, self.series_length)
        )
        channels, length = values.shape
        if channels != self.num_channels and length == self.num_channels and channels <= self.series_length:
            raise ValueError(
                f"got {channels} channels of {length} steps although the model has {self.num_channels} channels of "
                f"{self.series_length} steps: the sample looks like time x channels, transpose it"
            )
        if channels != self.num_channels:
            raise ValueError(f"expected {self.num_channels} channels (num_channels), got {channels}")
        is_series = self.statistics_axis == "channel"
        if length == 0 or (not is_series and length != self.series_length):
            raise ValueError(
                f"expected {self.series_length} steps (series_length), got {length}: cut or resample the series"
            )
        classes = np.where(values == UNSEEN, np.nan, values)
        values = self._by_kind(classes, without_invalid(values, self.invalid_value))
        if beyond_range(values).any():
            channel, step = np.argwhere(beyond_range(values))[0]
            raise ValueError(
                f"{self.place_of(channel, step)} is {values[channel, step]}: make it NaN (missing), or drop the sample"
            )
        values = self._by_kind(classes, values * self.scale)
        for place, quantiles in enumerate(self.quantiles or []):
            if quantiles is not None:
                values[:, place] = normal_scores(values[:, place], quantiles)
        return values

    def raw_values(self, values: np.ndarray, sample: Sample) -> np.ndarray:
        """Undo `prepare_sample`, as of predictions.

        Args:
            values: (C, T), or (T, C) under `channels_last`, standardised and scaled.
            sample: The raw sample that they belong to.

        Returns:
            (C, T) float64 in the units of raw samples, class numbers in columns of categories (`category_of`).
        """
        values = np.asarray(values, dtype=np.float64)
        axis = 0 if self.statistics_axis == "channel" else 1
        scaled = self.scaled_values(sample)
        values = values.T if self.channels_last else values
        return self.unscaled_values(unstandardize(values, self.standardize, self.mean, self.std, axis, scaled))

    def _by_kind(self, classes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(..., T) `classes` in columns of categories and `numbers` in the others."""
        if self.categories is None:
            return numbers
        return np.where([one is not None for one in self.categories], classes, numbers)

    def unscaled_values(self, values: np.ndarray) -> np.ndarray:
        """Undo what `scaled_values` does to numbers, (..., C, T)."""
        values = np.array(values, dtype=np.float64)
        for place, quantiles in enumerate(self.quantiles or []):
            if quantiles is not None:
                flat = undo_normal_scores(values[..., place].ravel(), quantiles)
                values[..., place] = flat.reshape(values[..., place].shape)
        return self._by_kind(values, values / self.scale)

    def category_of(self, feature: int, number: float) -> Category | None:
        """The category of a class number in the data's own words; None for NaN."""
        categories = (self.categories or [])[feature]
        assert categories is not None  # the feature has categories
        return None if number != number else categories[min(max(round(number), 0), len(categories) - 1)]

    def typical_row(self) -> dict[str, Cell]:
        """Column -> a cell of it, for examples: the mean of numbers, to four digits, and the first category."""
        row: dict[str, Cell] = {}
        for feature, name in enumerate(self.feature_names or []):
            mean = np.full((1, self.series_length), 0.0 if self.mean is None else self.mean[feature])
            categories = None if self.categories is None else self.categories[feature]
            row[name] = categories[0] if categories else float(f"{self.unscaled_values(mean)[0, feature]:.4g}")
        for column in self.date_parts or {}:
            row[column] = "2026-01-31"
        return {name: row[name] for name in self.column_names or []}

    def unseen(self, sample: Sample) -> list[str]:
        """Names of the columns of a row whose category training did not have, which makes it missing."""
        if self.categories is None or self.feature_names is None:
            return []
        values = self._reader.numbers_of(sample)[0]
        flags = [self.is_category(place) and value == UNSEEN for place, value in enumerate(values)]
        return [name for name, flag in zip(self.feature_names, flags, strict=True) if flag]

    def place_of(self, channel: int, step: int) -> str:
        """The name of a value's feature, or its channel and step, for messages."""
        return self.feature_names[step] if self.feature_names else f"channel {channel}, step {step}"

    def first_missing(self, sample: Numbers) -> str | None:
        """The place of the first missing value of a sample, for messages; None where nothing is missing but padding."""
        places = np.argwhere(np.isnan(self.unpadded_values(sample)))
        return self.place_of(*places[0].tolist()) if len(places) else None

    def _as_batch(self, series: Batch) -> Sequence[Sample]:
        if isinstance(series, Mapping | Table):
            if self.column_names is None:
                raise ValueError("the model's columns have no names: give rows as lists of their numbers")
            if not isinstance(series, Mapping):
                return rows_of_table(series, self.column_names)
            columns = {name: cells for name, cells in series.items() if isinstance(cells, Array | list)}
            return rows_of_table(columns, self.column_names) if len(columns) == len(series) else [series]
        dimensions = _depth(series)
        # With one channel a matrix is a batch of rows, unless it is the one row itself.
        is_sample = dimensions == 1 or (dimensions == 2 and self.num_channels != 1)
        return [series] if is_sample or isinstance(series, float | int) else [*series]


def _as_array(sample: object, num_channels: int, series_length: int) -> np.ndarray:
    try:
        values = np.asarray(sample, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected numbers, every channel equally long: {error}") from error
    if values.ndim == 1 and num_channels == 1:
        values = values[None, :]
    if values.ndim != 2:
        raise ValueError(f"expected a sample of shape ({num_channels}, {series_length}), got {values.shape}")
    return values


def _depth(values: object) -> int:
    """The number of levels of sequence, judged by the first entries only (the batch may be ragged)."""
    if isinstance(values, Array):
        return int(values.ndim)
    if isinstance(values, Mapping):  # a row by the names of its columns
        return 1
    return 1 + _depth(values[0]) if isinstance(values, Sequence) and len(values) and not isinstance(values, str) else 0
