"""From raw rows to model inputs: the function that `map` runs, and how its results are kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from .arguments import DataArguments, Kind
from .columns import read_image, read_waveform, undecoded
from .labels import LabelSpace
from .rows import Column, PreparedRows, Rows, TransformedRows, to_table
from .sources import AnyDataset, column_names

# Part of every cache key: raise it when prepared values change, so that old caches are not taken for new ones.
PREPARATION_VERSION = 1
INPUT_NAMES = {"series": "input_values", "tabular": "input_values", "image": "pixel_values"}
INPUT_NAMES |= {"spectrogram": "pixel_values", "vision_language": "pixel_values"}
BATCH_ROWS = 256

PreparedSplit: TypeAlias = PreparedRows | TransformedRows | IterableDataset


@dataclass(frozen=True)
class RowPreparer:
    """Callable that turns a batch of raw columns and its row numbers into prepared columns.

    Attributes:
        kind: What a row is.
        columns: Input columns; more than one for tabular rows and for series with a column per channel.
        processor: Object with `prepare_sample` for the numeric part of the input, None for tokens.
        tokenizer: For the text; None where the column holds ids.
        text_column: The text of an image.
        label_column: None leaves labels out.
        label_mask_column: None: every label counts.
        labels: How labels become numbers.
        max_length: Tokens beyond this are cut.
        sampling_rate: Of waveforms that are plain numbers.
        split: For errors.
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

    @property
    def used_columns(self) -> list[str]:
        """Every raw column read."""
        named = [*self.columns, self.text_column, self.label_column, self.label_mask_column]
        return list(dict.fromkeys(name for name in named if name is not None))

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `input_values` (n, C, T) or `pixel_values` (n, C, H, W) float32, `input_ids` list of (N,) integer arrays,
            `labels` (n,) int64 or float32 or list of (N,) int64 arrays, `index` (n,) int64.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        prepared: dict[str, Column] = {}
        full_lengths: list[int] = []
        if self.processor is not None:
            prepared[INPUT_NAMES[self.kind]] = self.numbers(batch, indices, self.processor.prepare_sample)
        if self.kind in ("tokens", "vision_language"):
            prepared["input_ids"], full_lengths = self._tokens(batch, indices)
        if self.labels is not None and self.label_column is not None:
            prepared["labels"] = self._labels(self.labels, self.label_column, batch, indices, full_lengths)
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

    def _tokens(self, batch: Rows, indices: Sequence[int]) -> tuple[list[np.ndarray], list[int]]:
        """Ids of each row, cut to `max_length`, and how many there were before."""
        column = self.text_column or self.columns[0]
        values = list(batch[column])
        for value, index in zip(values, indices, strict=True):
            if value is None or len(value) == 0:
                raise ValueError(f"{self._where(index, column)}: the sequence is {value!r}: drop empty rows")
            if isinstance(value, str) != (self.tokenizer is not None):
                advice = (
                    "name its data.tokenizer or data.alphabet"
                    if isinstance(value, str)
                    else "remove data.tokenizer and data.alphabet, which are for text"
                )
                raise ValueError(f"{self._where(index, column)} holds {type(value).__name__} {value!r:.60}: {advice}")
        if self.tokenizer is None:
            full = [self._ids(value, index, column) for value, index in zip(values, indices, strict=True)]
        else:
            # No special tokens: the model has its own class token, and labels stand for characters.
            encoded = self.tokenizer(values, add_special_tokens=False, return_attention_mask=False, verbose=False)
            full = [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
            self._refuse_unknown(full, values, indices, column)
        return [ids[: self.max_length] for ids in full], [len(ids) for ids in full]

    def _ids(self, value: Any, index: int, column: str) -> np.ndarray:
        ids = np.asarray(value)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"{self._where(index, column)}: expected a list of integer ids, got {value!r:.60}")
        # Not narrower: an id far outside the vocabulary must not wrap into it.
        return ids.astype(np.int64)

    def _refuse_unknown(self, full: list[np.ndarray], values: list[str], indices: Sequence[int], column: str) -> None:
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        for ids, value, index in zip(full, values, indices, strict=True):
            if len(ids) == 0:
                raise ValueError(f"{self._where(index, column)}: {value!r:.60} gives no token: drop such rows")
            if unknown is not None and (ids == unknown).all():
                raise ValueError(
                    f"{self._where(index, column)}: the tokenizer knows nothing of {value!r:.60}: check "
                    "data.alphabet or data.tokenizer (upper and lower case differ)"
                )

    def _labels(
        self, space: LabelSpace, column: str, batch: Rows, indices: Sequence[int], lengths: list[int]
    ) -> Column:
        values = batch[column]
        masks = batch[self.label_mask_column] if self.label_mask_column else [None] * len(indices)
        encoded: list[Any] = []
        for place, index in enumerate(indices):
            try:
                if space.task == "token_classification":
                    row = space.encode_tokens(values[place], masks[place], lengths[place])
                    encoded.append(row[: self.max_length])
                else:
                    encoded.append(space.encode(values[place]))
            except ValueError as error:
                raise ValueError(f"{self._where(index, column)}: {error}") from error
        if space.task == "token_classification":
            return encoded
        return np.asarray(encoded, dtype=np.float32 if space.task == "regression" else np.int64)

    def _where(self, index: int, *columns: str) -> str:
        names = repr(columns[0]) if len(columns) == 1 else f"{columns[0]!r}..{columns[-1]!r}"
        return f"{self.split} split, row {index}, column {names}"

    def description(self) -> str:
        """All that decides the result, as text: equal in every process, unlike a pickle of live objects."""
        tokenizer = None
        if self.tokenizer is not None:
            vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
            backend = getattr(self.tokenizer, "backend_tokenizer", None)
            state = {} if backend is None else json.loads(backend.to_str())
            # Truncation and padding are left from the last call, not settings.
            tokenizer = [vocabulary, {name: state[name] for name in state if name not in ("truncation", "padding")}]
        return json.dumps(
            {
                "version": PREPARATION_VERSION,
                "columns": [self.kind, self.columns, self.text_column, self.label_column, self.label_mask_column],
                "processor": None if self.processor is None else self.processor.to_json_string(),
                "tokenizer": tokenizer,
                "labels": None if self.labels is None else [self.labels.task, self.labels.names],
                "sizes": [self.max_length, self.sampling_rate],
            },
            sort_keys=True,
        )


@dataclass(frozen=True)
class TablePreparer:
    """`RowPreparer` whose result is an Arrow table, which `map` writes without looking at single values."""

    prepare: RowPreparer

    def __call__(self, batch: Rows, indices: Sequence[int]) -> Any:
        return to_table(self.prepare(batch, indices))


def prepare_split(dataset: AnyDataset, preparer: RowPreparer, args: DataArguments) -> PreparedSplit:
    """Prepare a raw split: once and kept (`cache`), on each reading, or as a stream passes.

    Args:
        dataset: The raw split.
        preparer: What to do with its rows.
        args: `cache` and `num_proc` are read.

    Raises:
        ValueError: A value that cannot be prepared, naming split, row and column.
    """
    dataset = raw_columns(dataset, preparer)
    if isinstance(dataset, IterableDataset):
        return dataset.map(
            preparer, with_indices=True, batched=True, batch_size=BATCH_ROWS, remove_columns=column_names(dataset)
        )
    if not args.cache:
        return TransformedRows(dataset, preparer)
    # The shape of a row is that of the first one; every sample of a kind has the same.
    first = preparer(dataset[:1], [0])
    shapes = {
        name: values.shape[1:] for name, values in first.items() if isinstance(values, np.ndarray) and values.ndim > 1
    }
    table = cached_map(dataset, TablePreparer(preparer), preparer.description(), args.num_proc)
    return PreparedRows(table, shapes)


def raw_columns(dataset: AnyDataset, preparer: RowPreparer) -> AnyDataset:
    """The columns the preparer reads, images and sounds as bytes, numbers as arrays where that is quicker."""
    dataset = undecoded(dataset.select_columns(preparer.used_columns), preparer.used_columns)
    has_images = any(isinstance(feature, datasets.Image) for feature in (dataset.features or {}).values())
    if isinstance(dataset, Dataset) and preparer.kind not in ("tokens", "vision_language") and not has_images:
        # Not the default float32, which would round large values before their mean is subtracted.
        return dataset.with_format("numpy", dtype=np.float64)
    return dataset


def cached_map(dataset: Dataset, function: Any, description: str, num_proc: int | None = None) -> Dataset:
    """`Dataset.map` in batches with row numbers, its result kept in the datasets cache under a key equal everywhere.

    Data sets that live in memory stay there: nothing is written for them.

    Args:
        dataset: Raw rows.
        function: Takes columns and row numbers, returns columns or an Arrow table.
        description: Text that decides the result together with the data set.
        num_proc: Processes.
    """
    fingerprint = Hasher.hash([type(function).__name__, description, dataset._fingerprint])
    options: dict[str, Any] = {"keep_in_memory": True}
    if dataset.cache_files:
        folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_maskssl"
        folder.mkdir(parents=True, exist_ok=True)
        options = {"cache_file_name": str(folder / f"{fingerprint}.arrow"), "num_proc": num_proc}
    return dataset.map(
        function,
        with_indices=True,
        batched=True,
        batch_size=BATCH_ROWS,
        remove_columns=dataset.column_names,
        new_fingerprint=fingerprint,
        desc="Preparing",
        **options,
    )


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
