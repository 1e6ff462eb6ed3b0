"""Rows on their way to the encoder, a shard at a time, with the columns that are carried along."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, IterableDataset

from ..data.arguments import DENSE_TASKS, DataArguments, data_arguments
from ..data.kinds import Kind, find_kind
from ..data.kinds.base import Fitted
from ..data.kinds.series import SeriesArguments
from ..data.kinds.windowed import WindowArguments
from ..data.masked_text.arguments import MaskedTextArguments
from ..data.multimodal.arguments import MultimodalArguments
from ..data.tables.columns import require_columns
from ..data.tables.empty_rows import check_text, empty_reason, empty_rows
from ..data.tables.labels import describe_split
from ..data.tables.loggers import label_rule
from ..data.tables.preparing import RawSplit, plain_rows
from ..data.tables.report import DataReport
from ..data.tables.rows import ChosenRows
from ..data.tables.sources import AnyDataset, column_names
from ..data.tables.splits import read_splits
from ..data.tables.windows import LabelOfSteps, WindowedRows, labels_of_windows
from ..files import JsonObject
from ..recipes import nearest
from .encoders import Encoder
from .sources import carried_labels

# Columns of every table of features.
ROW, SPLIT, TOKEN, EMBEDDING, PATH = "row", "split", "token", "embedding", "path"
WINDOW_START = "window_start"  # of windows that are rows: the step of the series with which they begin
OWN_COLUMNS = (ROW, SPLIT, TOKEN, EMBEDDING, WINDOW_START)
# What has no meaning without labels and training, where a kind has it.
PLAIN: JsonObject = {
    "label_column": None,
    "label_mask_column": None,
    "drop_missing_labels": False,
    "task": "classification",
    "cache": False,
    "pack": False,
    "augment": False,
    "label_names": None,
    "label_scale": None,
    "label_invalid_value": None,
    "window_label": "row",
}


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a split.

    Attributes:
        split: Name of the split.
        number: Number of the shard in its split.
        rows: Prepared rows.
        first: `index` of the first of them; the others follow.
        carried: Columns that go along, one row each: `row`, `split`, ids, labels and what else was asked for.
        owners: (windows,) int64, the place in `carried` of the row of each prepared window; None where rows are read whole.
        left_out: Reason -> rows of a stream that were left out; others were left out before.
    """

    split: str
    number: int
    rows: ChosenRows
    first: int
    carried: pa.Table
    owners: np.ndarray | None = None
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name without ending."""
        return shard_name(self.split, self.number)


def shard_name(split: str, number: int) -> str:
    """File name of a shard, without ending."""
    return f"{split}-{number:05d}"


def for_inference(args: DataArguments, encoder: Encoder) -> DataArguments:
    """The data section that prepares the same rows for an encoder alone: no labels, nothing drawn, nothing kept.

    Texts whose words are masked in pre-training become plain texts, one a row.
    """
    if isinstance(args, MaskedTextArguments):
        common = {
            entry.name: getattr(args, entry.name) for entry in dataclasses.fields(DataArguments)
        }  # by their names
        args = data_arguments(**{**common, "kind": "tokens", "cache": False})
    own = {entry.name for entry in dataclasses.fields(args)}
    args = dataclasses.replace(args, **{name: value for name, value in PLAIN.items() if name in own})
    args = find_kind(args.kind).completed(args, encoder.config)
    if isinstance(args, MultimodalArguments) and isinstance(args.input_column, dict):
        names = [modality.name for modality in encoder.config.inputs()]
        columns = {name: column for name, column in args.input_column.items() if name in names}
        if not columns:
            raise ValueError(
                f"data.input_column: the encoder reads the modalities {names}, got {args.input_column}: name the column of one"
            )
        args = dataclasses.replace(args, input_column=columns)
    return args


class RowSource:
    """The rows of a data section in shards.

    Args:
        args: Data section, with the labels' column where it has one; the splits are cut as in training.
        encoder: The encoder that reads the rows.
        keep: Further columns that go along, ids among them.
        splits: Names of the splits to read; None means all.
        tokens: Whether the features of each token are wanted, which are not pooled over windows.

    Attributes:
        report: Counts of the rows that are used and left out.
        is_stream: Whether rows are read as they come, so that their number is not known.

    Raises:
        ValueError: Data that cannot be read or do not fit the model, or a column or split that is not there.
        FileNotFoundError: A file or data set that does not exist.
    """

    def __init__(
        self,
        args: DataArguments,
        encoder: Encoder,
        keep: Sequence[str] = (),
        splits: Sequence[str] | None = None,
        tokens: bool = False,
    ) -> None:
        self.encoder, self.gives_tokens = encoder, tokens
        self.window_labels: tuple[str, LabelOfSteps] | None = None
        if isinstance(args, SeriesArguments) and args.labels_windows and args.label_column is not None:
            self.window_labels = (str(args.single_label_column()), label_rule(args.window_label))
        find_kind(args.kind).check_model(args, encoder.config)
        self.args = for_inference(args, encoder)
        self.kind: Kind[Any] = find_kind(self.args.kind)
        self.report = DataReport(args.source, self.args.kind)
        whole = read_splits(args, self.report)
        taken = find_kind(args.kind).limited(whole, args)
        taken = {name: taken[name] for name in _chosen(list(taken), splits)}
        self.carried = _carried_columns(args, next(iter(taken.values())), keep, encoder)
        self.is_stream = isinstance(next(iter(taken.values())), IterableDataset)
        self.splits = {name: self._usable(name, rows) for name, rows in taken.items()}
        for name, split in self.splits.items():
            if isinstance(split.rows, Dataset):
                self.report.leave_out(name, len(whole[name]) - len(taken[name]), f"data.max_{name}_samples")
                self.report.leave_out(name, len(taken[name]) - len(split.rows), split.reason)
            describe_split(self.report, name, split.rows, self.args, None)
        self.kind.describe_rows(self.splits, self.args, encoder.processor, self.report)
        train = next(iter(self.splits.values())).rows
        self.fitted = Fitted(
            self.kind.fitted_processor(encoder.processor, self.args, encoder.config, train), None, train, self.report
        )
        self.collator = self.kind.collator(self.args, encoder.config, self.fitted.processor)

    @property
    def pools_windows(self) -> bool:
        """Whether a row's features are the mean of those of its windows."""
        if not isinstance(self.args, WindowArguments) or self.args.window is None:
            return False
        return self.args.pool_windows and not self.gives_tokens

    def counts(self) -> dict[str, int | None]:
        """Split -> its rows; None of a stream."""
        return {name: None if self.is_stream else len(split.rows) for name, split in self.splits.items()}

    def shards(
        self, shard_rows: int, done: Collection[str] = (), share: tuple[int, int] = (0, 1)
    ) -> Iterator["Shard | str"]:
        """The shards of one process; of those of other processes, and those that are done, only the names.

        Args:
            shard_rows: Number of rows of a shard; those left out of a stream are counted, too.
            done: Names of shards that are not needed again.
            share: Number of this process, and how many there are.
        """
        place = 0
        for name, split in self.splits.items():
            numbered = self._of_stream(split, shard_rows) if self.is_stream else self._of_rows(split, shard_rows)
            for number, make in enumerate(numbered):
                is_mine = place % share[1] == share[0]
                place += 1
                found = shard_name(name, number)
                yield make(number) if is_mine and found not in done else found

    def _of_rows(self, split: RawSplit, shard_rows: int) -> Iterator[Any]:
        rows: Any = plain_rows(self.kind.rows(split, self.args, self.encoder.config, self.fitted))
        for start in range(0, len(split.rows), shard_rows):
            chosen = np.arange(start, min(start + shard_rows, len(split.rows)))
            numbers = chosen if split.numbers is None else split.numbers[chosen]

            def make(number: int, chosen: np.ndarray = chosen, numbers: np.ndarray = numbers) -> Shard:
                carried = self._carry(split.rows.select(chosen), split.name, numbers)
                if isinstance(rows, WindowedRows):
                    return self._of_windows(split.name, number, rows, chosen, carried)
                return Shard(split.name, number, rows.select(chosen), int(chosen[0]), carried)

            yield make

    def _of_windows(self, split: str, number: int, rows: WindowedRows, chosen: np.ndarray, carried: pa.Table) -> Shard:
        """The windows of some rows; where they are not pooled, what goes along is that of each window."""
        own = rows.of_rows(int(chosen[0]), int(chosen[-1]) + 1)
        first, owners = int(np.searchsorted(rows.owners, chosen[0])), own.chosen_owners - int(chosen[0])
        if rows.windows.is_pooled and not self.gives_tokens:
            return Shard(split, number, own, first, carried, owners)
        carried = carried.take(pa.array(owners)).append_column(WINDOW_START, pa.array(own.chosen_starts))
        labels = self.window_labels
        if labels is not None and labels[0] in carried.column_names:
            values = labels_of_windows(own, cast(Dataset, self.splits[split].rows), *labels)
            carried = carried.set_column(carried.column_names.index(labels[0]), labels[0], pa.array(values))
        return Shard(split, number, own, first, carried)

    def _of_stream(self, split: RawSplit, shard_rows: int) -> Iterator[Any]:
        start = 0
        for table in split.rows.with_format("arrow").iter(batch_size=shard_rows):

            def make(number: int, table: pa.Table = table, start: int = start) -> Shard:
                return self._stream_shard(split, number, table, start)

            start += len(table)
            yield make

    def _stream_shard(self, split: RawSplit, number: int, table: pa.Table, start: int) -> Shard:
        """The rows of a piece of a stream, without those whose input is empty."""
        features = split.rows.features or datasets.Features.from_arrow_schema(table.schema)
        raw = Dataset(table, info=DatasetInfo(features=features))
        inputs = self.kind.inputs(self.args)
        empty = empty_rows(raw, inputs) if inputs else np.zeros(len(raw), dtype=bool)
        kept = np.flatnonzero(~empty)
        raw, numbers = raw.select(kept), kept + start
        usable = RawSplit(split.name, raw, numbers)
        rows: Any = self.kind.rows(usable, self.args, self.encoder.config, self.fitted)
        left_out = {empty_reason(inputs): int(empty.sum())} if empty.any() else {}
        return Shard(split.name, number, rows, 0, self._carry(raw, split.name, numbers), None, left_out)

    def _carry(self, raw: Dataset, split: str, numbers: np.ndarray) -> pa.Table:
        """The columns that go along: `row`, `split`, those asked for, and the path of a file."""
        columns: JsonObject = {
            ROW: pa.array(numbers, pa.int64()),
            SPLIT: pa.array([split] * len(numbers), pa.string()),
        }
        table = raw.with_format("arrow")[:] if len(raw) else None
        for name in self.carried:
            columns[name] = _written(
                table[name].combine_chunks() if table is not None else pa.array([]), raw.features[name]
            )
        paths = self._paths(raw)
        if paths is not None and PATH not in columns:
            columns[PATH] = paths
        return pa.table(columns)

    def _paths(self, raw: Dataset) -> pa.Array | None:
        """(rows,) the files that the input was read from; None where the rows are no files."""
        for name in self.args.file_columns:
            feature = raw.features.get(name)
            values = raw.with_format("arrow").select_columns([name])[:][name].combine_chunks() if len(raw) else None
            if isinstance(feature, datasets.Image | datasets.Audio) or (
                isinstance(feature, dict) and "path" in feature
            ):
                return pa.array([], pa.string()) if values is None else _storage(values).field("path")
            if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
                return pa.array([], pa.string()) if values is None else values.cast(pa.string())
        return None

    def _usable(self, name: str, rows: AnyDataset) -> RawSplit:
        """The rows that can be used; a stream's are looked at as they pass."""
        require_columns(rows, self.kind.columns(self.args, self.encoder.config), name)
        _require_kept(rows, self.carried, name)
        if isinstance(rows, IterableDataset):
            return RawSplit(name, rows)
        for column in self.args.columns_read():
            check_text(rows, column, name)
        return self.kind.usable(rows, self.args, self.encoder.config, name)


def _chosen(names: list[str], splits: Sequence[str] | None) -> list[str]:
    missing = [name for name in splits or [] if name not in names]
    if missing:
        raise ValueError(
            f"--splits: no split {missing[0]!r}; the data section gives {names}: name one of the source's splits by "
            "--train_split, --validation_split or --test_split"
        )
    return names if splits is None else [name for name in names if name in splits]


def _carried_columns(args: DataArguments, rows: AnyDataset, keep: Sequence[str], encoder: Encoder) -> list[str]:
    """Names of the columns that go along."""
    for name in keep:
        if name in OWN_COLUMNS:
            raise ValueError(f"--keep: {name!r} is a column of every table of features: rename that of the data")
    _require_kept(rows, keep, "train")
    labels = carried_labels(args, rows, encoder) if args.task not in DENSE_TASKS else []
    labels = [name for name in labels if name not in OWN_COLUMNS and name in column_names(rows)]
    return list(dict.fromkeys([*keep, *labels]))


def _require_kept(rows: AnyDataset, keep: Sequence[str], split: str) -> None:
    present = column_names(rows)
    for name in keep:
        if name not in present:
            raise ValueError(
                f"--keep: the {split} split has no column {name!r}; its columns are {present}{nearest(name, present)}"
            )


def _written(values: pa.Array, feature: Any) -> pa.Array:
    """A carried column as it is written: classes by their names."""
    if isinstance(feature, datasets.ClassLabel):
        names = [feature.int2str(value) if value is not None and value >= 0 else None for value in values.to_pylist()]
        return pa.array(names, pa.string())
    return _storage(values)


def _storage(values: pa.Array) -> pa.Array:
    return values.storage if isinstance(values, pa.ExtensionArray) else values
