"""Preparation of raw rows of one input for the model: numbers, texts, and their labels."""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from datasets import Dataset

from ...models.feature_extraction_series import SeriesFeatureExtractor
from ...models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ...models.image_processing_array import PILLOW_MODES, ArrayImageProcessor
from ..tables.empty_rows import Inputs, number_columns
from ..tables.labels import IGNORED_LABEL, LabelSpace
from ..tables.pictures import read_image
from ..tables.preparing import Preparer
from ..tables.raw_files import holds_files, with_files
from ..tables.rows import Column, PreparedRows, Rows
from ..tables.sounds import read_waveform
from ..tables.sources import AnyDataset
from ..text.texts import TextPreparer, describe_tokenizer, row_place
from ..text.unknown import count_token, warn_of_unknown

# Part of every cache key: raise it when prepared values change, so that old caches are not taken for new ones.
PREPARATION_VERSION = 5
LARGEST_EXACT = 2**53  # up to here float64 holds every whole number
NAMED_CUTS = 3  # a process warns of at most so many sounds that are cut

logger = logging.getLogger(__name__)


SampleProcessor: TypeAlias = SeriesFeatureExtractor | SpectrogramFeatureExtractor | ArrayImageProcessor
Missing: TypeAlias = Literal["mask", "error"]
Raw: TypeAlias = Any  # a value of a raw column: numbers in any nesting, an image, a sound, a path


@dataclass(frozen=True)
class NumericInput(ABC):
    """The numeric input of a row and how its raw values are read.

    Attributes:
        name: Key of prepared rows, `input_values` or `pixel_values`.
        columns: Raw columns; more than one for tables, and for series with a column per channel.
        processor: Object with `prepare_sample`, and `scaled_values` for statistics.
        missing: Rule for missing values: "mask" leaves NaN in their place, "error" refuses them.
    """

    name: str
    columns: tuple[str, ...]
    processor: SampleProcessor
    missing: Missing = field(
        default="mask", kw_only=True
    )  # keywords leave the order of fields to kinds of other packages

    @abstractmethod
    def read(self, values: list[Raw]) -> Raw:
        """The processor's input, from the values of the columns in one row.

        Raises:
            ValueError: A value is missing or cannot be read.
        """

    def opened(self, dataset: AnyDataset) -> AnyDataset:
        """The raw columns in the form that is quickest to read."""
        if isinstance(dataset, Dataset) and not any(map(holds_files, self._features(dataset))):
            # Not the default float32, which would round large values before their mean is subtracted.
            return dataset.with_format("numpy", dtype=np.float64)
        return dataset

    def _features(self, dataset: Dataset) -> list[object]:
        features = dataset.features
        return [features.get(name) for name in self.columns]


class ArrayInput(NumericInput):
    """Numbers: a whole sample in one column, or one column for each channel or feature."""

    def read(self, values: list[Raw]) -> Raw:
        if any(value is None for value in values):
            if self.missing == "error" or len(values) == 1:
                raise ValueError(f"column {self.columns[values.index(None)]!r} is missing: fill or drop it")
            shapes = {np.shape(value) for value in values if value is not None}
            missing = np.full(shapes.pop() if len(shapes) == 1 else (), np.nan)
            values = [missing if value is None else value for value in values]
        # A single column holds the whole sample, unless it is the one feature of a table.
        return values if len(self.columns) > 1 or np.ndim(values[0]) == 0 else values[0]


class TableInput(ArrayInput):
    """A row of a table whose cells are not all numbers: one column for each, as Python has its values."""

    def read(self, values: list[Raw]) -> Raw:
        return values

    def opened(self, dataset: AnyDataset) -> AnyDataset:
        return dataset


class ImageInput(NumericInput):
    """Images or arrays of pixels."""

    def read(self, values: list[Raw]) -> Raw:
        return read_image(
            values[0], with_bands=cast(ArrayImageProcessor, self.processor).num_channels not in PILLOW_MODES
        )


@cache
def _tell_of_cut(words: str) -> None:
    """Warn of a sound that is cut, once for each length."""
    if _tell_of_cut.cache_info().currsize < NAMED_CUTS:
        logger.warning("%s: its end is left out; data.longer 'error' refuses such sounds", words)


@dataclass(frozen=True)
class WaveformInput(NumericInput):
    """Sounds.

    Attributes:
        sampling_rate: Samples per second of waveforms that are plain numbers.
        refuses_longer: Whether a sound that the picture does not cover is an error; otherwise its end is left out.
    """

    sampling_rate: int = 0
    refuses_longer: bool = False

    def read(self, values: list[Raw]) -> Raw:
        processor = cast(SpectrogramFeatureExtractor, self.processor)
        waveform = read_waveform(values[0], self.sampling_rate, processor.sampling_rate)
        if len(waveform) > processor.num_samples:
            words = (
                f"the sound has {len(waveform):,} samples, the picture covers {processor.num_samples:,} (model.image_size, "
                "data.hop_length)"
            )
            if self.refuses_longer:
                raise ValueError(f"{words}: make it wider, cut the sound, or set data.longer to 'cut'")
            _tell_of_cut(words)
        return waveform


@dataclass(frozen=True)
class RowPreparer(Preparer):
    """Prepares a numeric input, a text, or both, and the label.

    Attributes:
        numeric: Numeric input, None without.
        texts: Preparer of the text or ids, None without.
        label_column: Name of the column of labels, or names of several; None leaves labels out.
        label_mask_column: Name of the column that marks labels to ignore; None means that every label counts.
        labels: Label space, which makes numbers of labels.
        split: Name of the split, for errors.
        row_numbers: Number that each row had before some were left out, for errors; None where none were.
    """

    numeric: NumericInput | None = None
    texts: TextPreparer | None = None
    label_column: str | list[str] | None = None
    label_mask_column: str | None = None
    labels: LabelSpace | None = None
    split: str = "train"
    row_numbers: np.ndarray | None = None

    @property
    def inputs(self) -> Inputs:
        """The inputs whose rows may be empty: of numbers, those with nothing that was observed."""
        texts = [self.texts.columns] if self.texts is not None else []
        if self.numeric is None:
            return texts
        if self.numeric.missing == "error":
            processor = self.numeric.processor
            is_table = isinstance(processor, SeriesFeatureExtractor) and processor.feature_names is not None
            return texts if is_table or len(self.numeric.columns) != 1 else [*texts, self.numeric.columns]
        return [*texts, number_columns(self.numeric.columns, self.numeric.processor.invalid_value)]

    @property
    def used_columns(self) -> list[str]:
        """Every raw column read."""
        inputs = [*(self.numeric.columns if self.numeric else ()), *(self.texts.columns if self.texts else ())]
        labels = self.label_column if isinstance(self.label_column, list) else [self.label_column]
        named = [*inputs, *labels, self.label_mask_column]
        return list(dict.fromkeys(name for name in named if name is not None))

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `input_values` (n, C, T), or (n, T, C) for models with `channels_last`, or `pixel_values` (n, C, H, W)
            float32, NaN where a value is missing, `input_ids` list of (N,) integer arrays, `token_type_ids` of framed texts,
            `labels` (n,) int64 or float32, (n, columns) float32 or list of (N,) int64 arrays, `index` (n,) int64.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        prepared: dict[str, Column] = {}
        ids: list[np.ndarray] = []
        full_lengths: list[int] = []
        if self.numeric is not None:
            prepared[self.numeric.name] = np.stack(self.numbers(batch, indices, self.numeric.processor.prepare_sample))
        if self.texts is not None:
            texts = self.texts(batch, self.named(indices))
            ids, full_lengths = texts.ids, texts.full_lengths
            prepared["input_ids"] = ids
            if texts.segments is not None:
                prepared["token_type_ids"] = texts.segments
        if self.labels is not None and isinstance(self.label_column, list):
            named = self.named(indices)
            prepared["labels"] = self.labels.encode_columns(
                batch, lambda place, column: self._where(named[place], column)
            )
        elif self.labels is not None and isinstance(self.label_column, str):
            labels = self._labels(self.labels, self.label_column, batch, indices, full_lengths)
            prepared["labels"] = self._token_labels(labels, ids) if ids and np.ndim(labels[0]) else labels
        prepared["index"] = np.asarray(indices, dtype=np.int64)
        return prepared

    def numbers(self, batch: Rows, indices: Sequence[int], prepare: Callable[[Raw], np.ndarray]) -> list[np.ndarray]:
        """The numeric input of each row, prepared by `prepare`.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        assert self.numeric is not None
        samples = []
        for place, index in enumerate(self.named(indices)):
            values = [batch[name][place] for name in self.numeric.columns]
            try:
                raw = self.numeric.read(values)
                samples.append(self.prepared_number(raw, indices[place], prepare))
                if self.numeric.missing == "error" and np.isnan(samples[-1]).any():
                    first = self.numeric.processor.first_missing(raw)
                    if first is not None:  # None: there is nothing but padding
                        raise ValueError(f"{first} is missing: fill or drop it, or set data.missing to 'mask'")
            except ValueError as error:
                where = self._where(index, *self.numeric.columns)
                raise ValueError(f"{where}: {with_files(error, values)}") from error
        return samples

    def prepared_number(self, raw: Raw, index: int, prepare: Callable[[Raw], np.ndarray]) -> np.ndarray:
        """The numeric input of the row with this number in the split, prepared; a class that draws changes it first."""
        return prepare(raw)

    def scaled(self, axis: int) -> Callable[[Rows, Sequence[int]], np.ndarray]:
        """Batch and row numbers -> (K, n) values before they are standardised; `axis` of (rows, ...) is kept apart.

        Series are not padded for it, and may be of any length.
        """

        def values(batch: Rows, indices: Sequence[int]) -> np.ndarray:
            assert self.numeric is not None
            processor = self.numeric.processor
            if isinstance(processor, SeriesFeatureExtractor):
                found = self.numbers(batch, indices, processor.unpadded_values)
                if len({one.shape for one in found}) > 1:  # series alone have several lengths; K are the channels
                    return np.concatenate(found, axis=1)
            else:
                found = self.numbers(batch, indices, processor.scaled_values)
            stacked = np.stack(found)
            return np.moveaxis(stacked, axis, 0).reshape(stacked.shape[axis], -1)

        return values

    def _labels(
        self, space: LabelSpace, column: str, batch: Rows, indices: Sequence[int], lengths: list[int]
    ) -> Column:
        values = batch[column]
        masks = batch[self.label_mask_column] if self.label_mask_column else [None] * len(indices)
        encoded: list[np.ndarray | float] = []
        for place, index in enumerate(self.named(indices)):
            try:
                if space.task == "token_classification":
                    encoded.append(space.encode_tokens(values[place], masks[place], lengths[place]))
                else:
                    encoded.append(space.encode(values[place]))
            except ValueError as error:
                raise ValueError(f"{self._where(index, column)}: {error}") from error
        if space.task == "token_classification":
            return encoded
        return np.asarray(encoded, dtype=np.float32 if space.task == "regression" else np.int64)

    def _token_labels(self, labels: Column, ids: list[np.ndarray]) -> list[np.ndarray]:
        """Labels cut like the ids; added tokens have none."""
        assert self.texts is not None
        room, (front, _) = self.texts.room, self.texts.frame
        placed = [np.full(len(tokens), IGNORED_LABEL) for tokens in ids]
        for row, label in zip(placed, labels, strict=True):
            row[len(front) : len(front) + len(label[:room])] = label[:room]
        return placed

    def named(self, indices: Sequence[int]) -> Sequence[int]:
        """Row numbers as errors name them."""
        return indices if self.row_numbers is None else self.row_numbers[np.asarray(indices)].tolist()

    def _where(self, index: int, *columns: str) -> str:
        return row_place(self.split, index, *columns)

    def opened(self, dataset: AnyDataset) -> AnyDataset:
        if self.numeric is None or self.texts is not None:
            return dataset
        # The format in which numbers are read soonest is one of all columns, and would round these class ids.
        has_large_ids = self.labels is not None and any(abs(value) > LARGEST_EXACT for value in self.labels.values)
        return dataset if has_large_ids else self.numeric.opened(dataset)

    def look_at(self, rows: PreparedRows, raw: Dataset) -> None:
        """Warn of text that the tokenizer does not know."""
        texts = self.texts
        if texts is not None and texts.tokenizer is not None and texts.tokenizer.unk_token_id is not None:
            counts = count_token(rows.table, texts.tokenizer.unk_token_id)
            warn_of_unknown(counts, raw, texts.columns, texts.tokenizer, texts.split)

    def description(self) -> str:
        """All that decides the result, as text."""
        numeric, texts = self.numeric, self.texts
        settings = None
        if numeric is not None:
            others = {name: value for name, value in vars(numeric).items() if name != "processor"}
            settings = [type(numeric).__name__, others, numeric.processor.to_json_string()]
        return json.dumps(
            {
                "version": PREPARATION_VERSION,
                "numeric": settings,
                "texts": texts
                and [texts.columns, texts.max_length, texts.framed, describe_tokenizer(texts.tokenizer)],
                "labels": self.labels
                and [self.labels.task, self.labels.names, self.label_column, self.label_mask_column],
            },
            sort_keys=True,
        )
