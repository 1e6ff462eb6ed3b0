"""Feature extractor for multi-channel series and tabular rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import TensorType

from .standardization import (
    Array,
    Numbers,
    as_model_inputs,
    check_statistics,
    standardize,
    unstandardize,
    without_invalid,
)


class SeriesFeatureExtractor(FeatureExtractionMixin):
    """Turns series (channels x time steps) and tabular rows (one channel, one step per feature) into `input_values`.

    Args:
        num_channels: Channels C of a series; 1 for tabular rows.
        series_length: Time steps T of a series, or features of a row.
        scale: Raw values are multiplied by this first.
        standardize: `"dataset"` (by `mean` and `std`), `"sample"` (per channel, by the sample's own) or `"none"`.
        mean: Means for `"dataset"`: one number per channel, or per feature when `statistics_axis` is `"feature"`.
        std: Standard deviations, positive, as many as `mean` has numbers.
        statistics_axis: `"channel"` for series, `"feature"` for tabular rows.
        feature_names: Names of a table's columns in the order the model was trained on.
        channels_last: Whether to give (T, C), one token per time step, instead of (C, T). Samples go in as (C, T) either way.
        invalid_value: Raw value that says that none was measured, as NaN and None always do.

    Raises:
        ValueError: Statistics or names that do not fit the shape.
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

    def __call__(self, series: Numbers, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Prepare one sample or a batch.

        Args:
            series: One sample, (C, T) or (T,) when C is 1; or a batch: a sequence of samples or a (B, C, T) array,
                also (B, T) when C is 1. NaN and None are missing values.
            return_tensors: `"pt"` or `"np"` for one tensor, None for a list of arrays.

        Returns:
            `input_values`, (B, C, T) float32, or (B, T, C) under `channels_last`; and where values are missing,
            `observed_mask`, bool of the same shape, True = observed.

        Raises:
            ValueError: A sample of another shape, infinite values, or a sample in which everything is missing.
        """
        samples = [self.prepare_sample(sample) for sample in self._as_batch(series)]
        if not samples:
            raise ValueError("series: expected at least one sample, got an empty batch")
        return BatchFeature(as_model_inputs("input_values", samples), tensor_type=return_tensors)

    def prepare_sample(self, sample: Numbers) -> np.ndarray:
        """One sample, (C, T) or (T,) when C is 1, as a scaled and standardised float32 array, NaN = missing.

        Returns:
            (C, T), or (T, C) under `channels_last`.

        Raises:
            ValueError: Another shape, or infinite values.
        """
        axis = 0 if self.statistics_axis == "channel" else 1
        values = self.scaled_values(sample)
        values = standardize(values, self.standardize, self.mean, self.std, axis).astype(np.float32)
        return np.ascontiguousarray(values.T) if self.channels_last else values

    def scaled_values(self, sample: Numbers) -> np.ndarray:
        """(C, T) float64 before standardising, in either layout: the values whose mean and standard deviation are measured.

        Missing ones are NaN.
        """
        values = self._as_array(sample)
        channels, length = values.shape
        if values.shape == (self.series_length, self.num_channels) != (self.num_channels, self.series_length):
            raise ValueError(
                f"got {channels} channels of {length} steps although the model has {self.num_channels} channels of "
                f"{self.series_length} steps: the sample looks like time x channels, transpose it"
            )
        if channels != self.num_channels:
            raise ValueError(f"expected {self.num_channels} channels (num_channels), got {channels}")
        if length != self.series_length:
            raise ValueError(
                f"expected {self.series_length} steps (series_length), got {length}: cut or resample the series"
            )
        values = without_invalid(values, self.invalid_value)
        if np.isinf(values).any():
            channel, step = np.argwhere(np.isinf(values))[0]
            raise ValueError(
                f"{self.place_of(channel, step)} is {values[channel, step]}: make it NaN (missing), or drop the sample"
            )
        return values * self.scale

    def raw_values(self, values: np.ndarray, sample: Numbers) -> np.ndarray:
        """Undo `prepare_sample`, as of predictions.

        Args:
            values: (C, T), or (T, C) under `channels_last`, standardised and scaled.
            sample: The raw sample that they belong to.

        Returns:
            (C, T) float64 in the units of raw samples.
        """
        values = np.asarray(values, dtype=np.float64)
        axis = 0 if self.statistics_axis == "channel" else 1
        scaled = self.scaled_values(sample)
        values = values.T if self.channels_last else values
        return unstandardize(values, self.standardize, self.mean, self.std, axis, scaled) / self.scale

    def place_of(self, channel: int, step: int) -> str:
        """The name of a value's feature, or its channel and step, for messages."""
        return self.feature_names[step] if self.feature_names else f"channel {channel}, step {step}"

    def first_missing(self, sample: Numbers) -> str | None:
        """The place of the first missing value of a sample, for messages; None where nothing is missing."""
        places = np.argwhere(np.isnan(self.scaled_values(sample)))
        return self.place_of(*places[0].tolist()) if len(places) else None

    def _as_array(self, sample: Numbers) -> np.ndarray:
        try:
            values = np.asarray(sample, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected numbers, every channel equally long: {error}") from error
        if values.ndim == 1 and self.num_channels == 1:
            values = values[None, :]
        if values.ndim != 2:
            raise ValueError(
                f"expected a sample of shape ({self.num_channels}, {self.series_length}), got {values.shape}"
            )
        return values

    def _as_batch(self, series: Numbers) -> Sequence[Numbers]:
        dimensions = _depth(series)
        # With one channel a matrix is a batch of rows, unless it is the one row itself.
        is_sample = dimensions == 1 or (dimensions == 2 and self.num_channels != 1)
        return [series] if is_sample or isinstance(series, float | int) else [*series]


def _depth(values: Numbers) -> int:
    """The number of levels of sequence, judged by the first entries only (the batch may be ragged)."""
    if isinstance(values, Array):
        return int(values.ndim)
    return 1 + _depth(values[0]) if isinstance(values, Sequence) and len(values) and not isinstance(values, str) else 0
