"""`hf_maskssl.embed`: the features of data as an array."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedModel

from ..data.arguments import DataArguments
from ..data.collators import BatchCollator
from ..data.kinds import Kind, find_kind
from ..data.kinds.base import Fitted
from ..data.looking import source_values
from ..data.processors import Processor
from ..data.tables.preparing import RawSplit, plain_rows
from ..data.tables.rows import ChosenRows, Rows, TransformedRows
from ..evaluation.features import MEMORY_LIMIT, Features, Precision, RowStore, extract_features, pooled_windows
from ..files import JsonObject, JsonView
from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..recipes import nearest
from .encoders import Encoder, Pooling, chosen_device, chosen_precision, load_encoder
from .rows import RowSource, for_inference
from .sources import completed_values, section_of

# A row: a series, a table's row by column, a picture, a sound, a text, ids, or pictures by modality.
Row: TypeAlias = Any
Data: TypeAlias = str | Path | Dataset | IterableDataset | pd.DataFrame | np.ndarray | Sequence[Row]
# Raw columns and the numbers of their rows -> prepared columns.
Prepare: TypeAlias = Callable[[Rows, Sequence[int]], JsonObject]
INPUT = "input"  # column of values that come without a name
READ_ROWS = 10_000


def embed(
    model: str | Path | PreTrainedModel,
    data: Data,
    *,
    processor: Processor = None,
    tokens: bool = False,
    pooling: Pooling = "auto",
    batch_size: int = 64,
    device: str | None = None,
    precision: Literal["auto"] | Precision = "auto",
    num_workers: int = 0,
    **fields: Any,
) -> np.ndarray | list[np.ndarray]:
    """The features of data by a frozen encoder.

    Args:
        model: Checkpoint folder, name on the Hub, or a model of this process, which stays on its device.
        data: File, folder, address, name on the Hub, or data set of the package (its training split); a `datasets.Dataset`
            or a pandas DataFrame; or rows of this process: a NumPy array whose first axis counts rows, or a list of texts,
            PIL images, arrays, or dicts (a table's columns, or modality -> picture).
        processor: Processor of a model of this process; a checkpoint's own is in its folder.
        tokens: Whether to give the features of each token.
        pooling: Name of the way in which tokens become one row: "pooler", "mean", or "auto", the model's own where
            pre-training trains it, else the mean.
        batch_size: Number of rows in a forward pass.
        device: Device of the encoder; None means the GPU if there is one.
        precision: Name of the type that the encoder computes in; "auto" is bf16 on a GPU.
        num_workers: Number of processes that prepare rows.
        fields: Fields of a recipe's data section, such as `input_column="text"` or `sampling_rate=16_000`.

    Returns:
        (rows, D) float32; with `tokens` one array (tokens, D) for each row. Where series are read by windows (`window`), rows are
        series, or with `pool_windows=False` or `tokens` windows.

    Raises:
        ValueError: Data that do not fit the model, or rows without input, which would leave gaps.
        FileNotFoundError: No such model or data.
    """
    device = str(model.device) if isinstance(model, PreTrainedModel) else chosen_device(device)
    encoder = load_encoder(str(model) if isinstance(model, Path) else model, processor, device)
    network = encoder.model if tokens else encoder.pooled(pooling)
    found: list[Features] = []
    for rows, collator in _prepared(encoder, data, fields):
        part = extract_features(
            network,
            rows,
            collator,
            batch_size=batch_size,
            level="every_token" if tokens else "sequence",
            device=device,
            num_workers=num_workers,
            precision=chosen_precision(precision, device),
        )
        found.append(part if tokens else pooled_windows(part, rows))
    if not tokens:
        return _joined([one.values for one in found])
    return [part for one in found for part in _by_sample(one)]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    with RowStore(None, MEMORY_LIMIT) as store:
        for part in parts:
            store.append(part)
        return store.finish()


def _by_sample(features: Features) -> list[np.ndarray]:
    starts = np.flatnonzero(np.diff(features.required_labels())) + 1
    return np.split(features.values, starts)


def _prepared(
    encoder: Encoder, data: Data, fields: JsonView
) -> Iterator[tuple[TorchDataset[JsonObject], BatchCollator]]:
    """Prepared rows and their collator, one block after the other."""
    if isinstance(data, str | Path):
        values = {**source_values(str(data), encoder.kind), **fields}
        more = [values[name] for name in ("validation_split", "test_split") if values.get(name) is not None]
        if more and "train_split" not in fields:
            raise ValueError(
                f"data {str(data)!r} has several splits, and an array has rows of one: name it by train_split={more[-1]!r}, "
                f"or train_split={values.get('train_split', 'train')!r}"
            )
        source = RowSource(section_of(completed_values(values, encoder)), encoder, splits=["train"])
        for reason, count in source.report.splits["train"].left_out.items():
            if not reason.startswith("data.max_"):
                raise ValueError(
                    f"data {str(data)!r}: {count} rows have {reason}, and an array has no place for gaps: drop them, or use "
                    "`hf-maskssl embed`, which numbers the rows that it writes"
                )
        for shard in source.shards(READ_ROWS):
            if not isinstance(shard, str):
                _refuse_gaps(sum(shard.left_out.values()), ", ".join(shard.left_out))
                yield shard.rows, source.collator
        return
    yield rows_of(encoder, data, fields)


def _refuse_gaps(count: int, reason: str) -> None:
    if count:
        raise ValueError(f"data: {count} rows have {reason}, and an array has no place for gaps: drop them")


def rows_of(encoder: Encoder, data: Data, fields: JsonView) -> tuple[ChosenRows, BatchCollator]:
    """Rows of this process, prepared each time they are read, and their collator.

    Args:
        encoder: The encoder that reads them.
        data: Anything that `embed` takes but names and paths.
        fields: Fields of a recipe's data section.

    Raises:
        ValueError: Data that do not fit the model.
    """
    if isinstance(data, DatasetDict | IterableDatasetDict):
        raise ValueError(
            f"data: expected the rows of one split, got a {type(data).__name__} of the splits {list(data)}: pass one of them"
        )
    if isinstance(data, pd.DataFrame):
        try:
            data = Dataset.from_pandas(data, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f"data: {' '.join(map(str, error.args))}: give a column cells of one type") from error
    if isinstance(data, IterableDataset):
        data = Dataset.from_list(list(data), features=data.features)
    if isinstance(data, Dataset):
        return _of_dataset(encoder, data, fields)
    assert not isinstance(data, str | Path)  # names have been read
    if isinstance(data, Mapping) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise ValueError(
            f"data: expected a path, a data set, a DataFrame, an array or a list of rows, got {type(data).__name__} "
            f"{data!r:.60}: put one row in a list, make a list of an iterator"
        )
    _refuse_none(len(data))
    if data[0] is None or isinstance(data[0], int | float | np.number):
        raise ValueError(
            f"data: expected a list of rows, but row 0 is {data[0]!r}: drop empty rows, and put one row in a list"
        )
    if "window" in fields:  # by which one row becomes several
        values = {INPUT: list(data)} if not isinstance(data[0], Mapping) else RawRows(encoder).columns(data)
        columns = {} if isinstance(data[0], Mapping) else {"input_column": INPUT}
        return _of_dataset(encoder, Dataset.from_dict(values), {**columns, **fields})
    raw = RawRows(encoder, data[0], fields)
    return InMemoryRows(raw.columns(data), len(data), raw.prepare), raw.collator


def _refuse_none(rows: int) -> None:
    if rows == 0:
        raise ValueError("data: expected at least one row, got none")


def _of_dataset(encoder: Encoder, data: Dataset, fields: JsonView) -> tuple[ChosenRows, BatchCollator]:
    _refuse_none(len(data))
    values = {"source": INPUT, **fields}
    data = data.with_format(None)  # cells as datasets stores them
    if "input_column" not in values:
        values |= find_kind(encoder.kind).find_input(data, encoder.config, encoder.processor)
        values |= fields
    kind, args, fitted = _fitted(encoder, values)
    joined = args.assembled(data, "train")
    assert isinstance(joined, Dataset)
    data = joined
    split = kind.usable(data, args, encoder.config, "train")
    _refuse_gaps(len(data) - len(split.rows), split.reason)
    rows = kind.rows(split, args, encoder.config, dataclasses.replace(fitted, train_split=data))
    return cast(ChosenRows, plain_rows(rows)), kind.collator(args, encoder.config, fitted.processor)


def _fitted(encoder: Encoder, values: JsonView) -> tuple[Kind[Any], DataArguments, Fitted]:
    kind = find_kind(encoder.kind)
    known = kind.fields_of_processor(encoder.processor)
    section = section_of({"source": INPUT, "kind": encoder.kind, **known, **values})
    kind.check_model(section, encoder.config)
    args = for_inference(section, encoder)
    nothing = Dataset.from_dict({})
    return kind, args, Fitted(kind.fitted_processor(encoder.processor, args, encoder.config, nothing), None, nothing)


class RawRows:
    """Turns rows of this process into inputs, as rows of a data set.

    Args:
        encoder: The encoder that reads them.
        first: One of the rows, which says what they are; None makes no difference but where they are dicts.
        fields: Fields of a recipe's data section.

    Raises:
        ValueError: The rows do not fit the model.
    """

    def __init__(self, encoder: Encoder, first: Row = None, fields: JsonView | None = None) -> None:
        self.encoder, self.fields = encoder, dict(fields or {})
        processor = encoder.processor
        self.names = processor.column_names if isinstance(processor, SeriesFeatureExtractor) else None
        self._prepare: dict[tuple[str, ...], Prepare] = {}
        self._collator: BatchCollator | None = None
        if first is not None:
            self._opened(self._keys(first))

    def columns(self, rows: Sequence[Row] | np.ndarray) -> dict[str, list[Any]]:
        """Rows by column.

        Raises:
            ValueError: A row lacks a column of the model's table, or has a modality that the model does not know.
        """
        keys = self._keys(rows[0])
        if not isinstance(rows[0], Mapping):
            return {keys[0]: list(rows)}
        keys = self.names or list(dict.fromkeys(key for row in rows for key in row))
        for number, row in enumerate(rows):
            missing = [name for name in self.names or [] if name not in row]
            if missing:
                raise ValueError(
                    f"data: row {number} has no {missing[0]!r}{nearest(missing[0], row)}, a column of the model's table"
                )
        # A modality that no row has is no column; a feature of a table that no row has is missing.
        columns = {key: [row.get(key) for row in rows] for key in keys}
        needed = set(self.names or ())
        return {
            key: values
            for key, values in columns.items()
            if key in needed or any(value is not None for value in values)
        }

    def prepare(self, batch: Rows, indices: Sequence[int]) -> JsonObject:
        """Prepared columns of a batch of raw ones and their row numbers."""
        prepared: JsonObject = self._opened(list(batch))(batch, indices)
        return prepared

    @property
    def collator(self) -> BatchCollator:
        """Callable that makes a batch of prepared rows, of which there was one before."""
        assert self._collator is not None
        return self._collator

    def prepared(self, row: Row) -> JsonObject:
        """One row, prepared."""
        columns = self.prepare(self.columns([row]), [0])
        return {name: values[0] for name, values in columns.items()}

    def _keys(self, row: Row) -> list[str]:
        if isinstance(row, Mapping):
            return list(self.names or row)
        column = self.fields.get("input_column")
        return [column if isinstance(column, str) else INPUT]

    def _opened(self, columns: list[str]) -> Prepare:
        """What prepares rows with these columns."""
        key = tuple(columns)
        if key not in self._prepare:
            kind, args, fitted = _fitted(self.encoder, {**self._input(columns), **self.fields})
            empty = Dataset.from_dict({name: [] for name in dict.fromkeys([*columns, *args.columns_read()])})
            rows = kind.rows(RawSplit("train", empty), args, self.encoder.config, fitted)
            assert isinstance(rows, TransformedRows)  # nothing is cached
            self._prepare[key] = rows.prepare
            self._collator = kind.collator(args, self.encoder.config, fitted.processor)
        return self._prepare[key]

    def _input(self, columns: list[str]) -> JsonObject:
        """The fields of the data section that name the input."""
        kind = find_kind(self.encoder.kind)
        return kind.name_input(columns, self.encoder.config, self.fields, columns == [INPUT])


class InMemoryRows(ChosenRows):
    """Rows of this process, prepared each time they are read.

    Args:
        columns: Column -> one raw value per row.
        total: Number of rows.
        prepare: Callable that makes prepared columns of raw columns and row numbers.
    """

    def __init__(self, columns: Rows, total: int, prepare: Prepare) -> None:
        super().__init__(total)
        self.columns = columns
        self.prepare = prepare

    def read(self, numbers: np.ndarray) -> list[JsonObject]:
        keys = numbers.tolist()
        columns = self.prepare({name: [values[key] for key in keys] for name, values in self.columns.items()}, keys)
        return [{name: values[place] for name, values in columns.items()} for place in range(len(keys))]
