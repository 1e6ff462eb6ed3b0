"""From raw rows to model inputs: the function that `map` runs, and in which form its results are kept."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import datasets
import numpy as np
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from .arguments import DataArguments, Kind
from .multimodal import MultimodalPreparer, array_columns
from .tables.caching import BATCH_ROWS, cached_map
from .tables.columns import read_image, read_waveform, undecoded
from .tables.labels import IGNORED_LABEL, LabelSpace
from .tables.rows import Column, PreparedRows, Rows, TransformedRows, to_table
from .tables.sources import AnyDataset, column_names
from .text.packing import pack_split
from .text.texts import TextPreparer, describe_tokenizer, row_place
from .text.unknown import warn_of_unknown

# Part of every cache key: raise it when prepared values change, so that old caches are not taken for new ones.
PREPARATION_VERSION = 2
INPUT_NAMES = {"series": "input_values", "tabular": "input_values", "image": "pixel_values"}
INPUT_NAMES |= {"spectrogram": "pixel_values", "vision_language": "pixel_values"}

PreparedSplit: TypeAlias = PreparedRows | TransformedRows | IterableDataset


@dataclass(frozen=True)
class RowPreparer:
    """Callable that turns a batch of raw columns and its row numbers into prepared columns.

    Attributes:
        kind: What a row is.
        columns: Input columns; more than one for tabular rows, series with a column per channel, and sentence pairs.
        processor: Object with `prepare_sample` for the numeric part of the input, None for tokens.
        tokenizer: For the text; None where the column holds ids.
        text_column: The text of an image.
        label_column: None leaves labels out.
        label_mask_column: None: every label counts.
        labels: How labels become numbers.
        max_length: Tokens beyond this are cut.
        sampling_rate: Of waveforms that are plain numbers.
        split: For errors.
        framed: Texts come as the tokenizer frames them, with `token_type_ids`.
    """

    kind: Kind
    columns: tuple[str, ...]
    processor: Any = None
    tokenizer: PreTrainedTokenizerBase | None = None
    text_column: str | None = None
    label_column: str | None = None
    label_mask_column: str | None = None
    labels: LabelSpace | None = None
    max_length: int | None = None
    sampling_rate: int | None = None
    split: str = "train"
    framed: bool = False

    @property
    def used_columns(self) -> list[str]:
        """Every raw column read."""
        named = [*self.columns, self.text_column, self.label_column, self.label_mask_column]
        return list(dict.fromkeys(name for name in named if name is not None))

    @property
    def texts(self) -> TextPreparer:
        """The part that prepares text or ids."""
        columns = self.columns if self.text_column is None else (self.text_column,)
        return TextPreparer(columns, self.tokenizer, self.max_length, self.split, self.framed)

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `input_values` (n, C, T), or (n, T, C) for models with `channels_last`, or `pixel_values` (n, C, H, W)
            float32, `input_ids` list of (N,) integer arrays, under `framed` with `token_type_ids`, `labels` (n,) int64 or
            float32 or list of (N,) int64 arrays, `index` (n,) int64.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        prepared: dict[str, Column] = {}
        ids: list[np.ndarray] = []
        full_lengths: list[int] = []
        if self.processor is not None:
            prepared[INPUT_NAMES[self.kind]] = self.numbers(batch, indices, self.processor.prepare_sample)
        if self.kind in ("tokens", "vision_language"):
            texts = self.texts(batch, indices)
            ids, full_lengths = texts.ids, texts.full_lengths
            prepared["input_ids"] = ids
            if texts.segments is not None:
                prepared["token_type_ids"] = texts.segments
        if self.labels is not None and self.label_column is not None:
            labels = self._labels(self.labels, self.label_column, batch, indices, full_lengths)
            prepared["labels"] = self._token_labels(labels, ids) if ids and np.ndim(labels[0]) else labels
        prepared["index"] = np.asarray(indices, dtype=np.int64)
        return prepared

    def numbers(self, batch: Rows, indices: Sequence[int], prepare: Callable[[Any], np.ndarray]) -> np.ndarray:
        """What `prepare` makes of the numeric input of each row, stacked.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        samples = []
        for place, index in enumerate(indices):
            try:
                samples.append(prepare(self._raw_sample(batch, place)))
            except ValueError as error:
                raise ValueError(f"{self._where(index, *self.columns)}: {error}") from error
        return np.stack(samples)

    def _raw_sample(self, batch: Rows, place: int) -> Any:
        values = [batch[name][place] for name in self.columns]
        if self.kind == "spectrogram":
            return read_waveform(values[0], self.sampling_rate or 0, self.processor.sampling_rate)
        if self.kind in ("image", "vision_language"):
            return read_image(values[0])
        if any(value is None for value in values):
            raise ValueError(f"column {self.columns[values.index(None)]!r} is missing: fill or drop it")
        # A single column holds the whole sample, unless it is the one feature of a table.
        return values if len(self.columns) > 1 or np.ndim(values[0]) == 0 else values[0]

    def _labels(
        self, space: LabelSpace, column: str, batch: Rows, indices: Sequence[int], lengths: list[int]
    ) -> Column:
        values = batch[column]
        masks = batch[self.label_mask_column] if self.label_mask_column else [None] * len(indices)
        encoded: list[Any] = []
        for place, index in enumerate(indices):
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
        """Labels cut as the ids were; tokens that were added have none."""
        room, (front, _) = self.texts.room, self.texts.frame
        placed = [np.full(len(tokens), IGNORED_LABEL) for tokens in ids]
        for row, label in zip(placed, labels, strict=True):
            row[len(front) : len(front) + len(label[:room])] = label[:room]
        return placed

    def _where(self, index: int, *columns: str) -> str:
        return row_place(self.split, index, *columns)

    def description(self) -> str:
        """All that decides the result, as text: equal in every process, unlike a pickle of live objects."""
        return json.dumps(
            {
                "version": PREPARATION_VERSION,
                "columns": [self.kind, self.columns, self.text_column, self.label_column, self.label_mask_column],
                "processor": None if self.processor is None else self.processor.to_json_string(),
                "tokenizer": describe_tokenizer(self.tokenizer),
                "labels": None if self.labels is None else [self.labels.task, self.labels.names],
                "sizes": [self.max_length, self.sampling_rate, self.framed],
            },
            sort_keys=True,
        )


AnyPreparer: TypeAlias = RowPreparer | MultimodalPreparer


@dataclass(frozen=True)
class TablePreparer:
    """`RowPreparer` whose result is an Arrow table, which `map` writes without looking at single values."""

    prepare: AnyPreparer

    def __call__(self, batch: Rows, indices: Sequence[int]) -> Any:
        return to_table(self.prepare(batch, indices))


def prepare_split(dataset: AnyDataset, preparer: AnyPreparer, args: DataArguments) -> PreparedSplit:
    """Prepare a raw split: once and kept (`cache`), on each reading (always where views are drawn anew in each epoch), or as
    a stream passes.

    Args:
        dataset: The raw split.
        preparer: What to do with its rows.
        args: `cache`, `pack` and `num_proc` are read.

    Raises:
        ValueError: A value that cannot be prepared, naming split, row and column.
    """
    dataset = raw_columns(dataset, preparer)
    if args.pack and isinstance(preparer, RowPreparer):
        return pack_split(dataset, preparer.texts, preparer.description(), args.num_proc)
    if isinstance(dataset, IterableDataset):
        return dataset.map(
            preparer, with_indices=True, batched=True, batch_size=BATCH_ROWS, remove_columns=column_names(dataset)
        )
    is_drawn = isinstance(preparer, MultimodalPreparer) and preparer.augmentation is not None
    if is_drawn or not args.cache:
        return TransformedRows(dataset, preparer)
    # The shape of a row is that of the first one; every sample of a kind has the same.
    first = preparer(dataset[:1], [0])
    shapes = {
        name: values.shape[1:] for name, values in first.items() if isinstance(values, np.ndarray) and values.ndim > 1
    }
    table = cached_map(dataset, TablePreparer(preparer), preparer.description(), args.num_proc)
    rows = PreparedRows(table, shapes)
    if isinstance(preparer, RowPreparer) and preparer.tokenizer is not None:
        warn_of_unknown(rows, preparer.texts, dataset)
    return rows


def plain_rows(split: PreparedSplit) -> PreparedSplit:
    """The same rows with nothing drawn at random: seen as those of validation and test are, for probes and pictures."""
    if not (isinstance(split, TransformedRows) and isinstance(split.prepare, MultimodalPreparer)):
        return split
    if split.prepare.augmentation is not None:
        return TransformedRows(split.dataset, dataclasses.replace(split.prepare, augmentation=None), split.chosen)
    return split


def raw_columns(dataset: AnyDataset, preparer: AnyPreparer) -> AnyDataset:
    """The columns the preparer reads, images and sounds as bytes, numbers as arrays where that is quicker."""
    dataset = undecoded(dataset.select_columns(preparer.used_columns), preparer.used_columns)
    if preparer.kind == "multimodal":
        return array_columns(dataset) if isinstance(dataset, Dataset) else dataset
    has_images = any(isinstance(feature, datasets.Image) for feature in (dataset.features or {}).values())
    if isinstance(dataset, Dataset) and preparer.kind not in ("tokens", "vision_language") and not has_images:
        # Not the default float32, which would round large values before their mean is subtracted.
        return dataset.with_format("numpy", dtype=np.float64)
    return dataset


def merge_moments(moments: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of several batches together (Chan, Golub and LeVeque 1979).

    Args:
        moments: `count`, `mean` (K,) and `squares` (K,), the sum of squared distances from the mean, of each batch.

    Returns:
        Mean (K,) and standard deviation (K,), float64.
    """
    count = 0.0
    mean = squares = np.zeros(1)
    for batch in moments:
        batch_mean, batch_squares = np.asarray(batch["mean"]), np.asarray(batch["squares"])
        total = count + batch["count"]
        distance = batch_mean - mean
        mean = mean + distance * (batch["count"] / total)
        squares = squares + batch_squares + distance**2 * (count * batch["count"] / total)
        count = total
    return mean, np.sqrt(squares / count)
