"""Windows of long series: where they begin, how their steps are read without the rest, and rows that are windows."""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ...models.standardization import without_invalid
from ...terminal import counted
from .draws import RowDraws
from .empty_rows import number_columns, observed_values
from .rows import Column, Rows, TransformedRows

# So often a window begins anew where nothing was observed, before it begins where the cut says.
DRAWS = 10
UNEVEN = -2  # instead of the number of steps
NOT_OBSERVED = "no step of which was observed"
NOT_LABELLED = "no step of which has a label"

logger = logging.getLogger(__name__)

# The labels of the steps of a window -> its label.
LabelOfSteps: TypeAlias = Callable[[Sequence[Any]], Any]


def window_starts(length: int, window: int, stride: int) -> np.ndarray:
    """First steps (n,) int64 of the windows of a series: every `stride` steps, and one that ends where the series ends.

    A series that is not longer than the window has one, which begins with it.
    """
    if length <= window:
        return np.zeros(1, dtype=np.int64)
    starts = np.arange(0, length - window + 1, stride, dtype=np.int64)
    return starts if starts[-1] + window == length else np.append(starts, length - window)


class SeriesReader:
    """The steps of series in columns of lists, one a channel, or of one column of lists or lists of lists.

    Args:
        dataset: Raw rows.
        columns: Columns of the series.
        split: Name of the split, for messages.
    """

    def __init__(self, dataset: Dataset, columns: Sequence[str], split: str = "train") -> None:
        self.columns = tuple(columns)
        self.split = split
        self._places = None if dataset._indices is None else dataset._indices.column(0).to_numpy()
        self._chunks = {name: _storages(dataset.data.column(name)) for name in self.columns}

    def lengths(self) -> np.ndarray:
        """(rows,) int64, the steps of each row; 0 of a row without any.

        Raises:
            ValueError: A column holds no lists, or the channels of a row are not equally long.
        """
        found = np.stack([self._lengths(name) for name in self.columns])
        inside = np.argwhere(found == UNEVEN)
        if len(inside):
            place, row = inside[0].tolist()
            channels = [None if one is None else len(one) for one in self._cell(self.columns[place], row).as_py()]
            raise ValueError(
                f"{self.split} split, row {row}, column {self.columns[place]!r}: every channel must be equally long, got the "
                f"steps {channels}"
            )
        longest = found.max(axis=0)
        uneven = np.flatnonzero(((found != longest) & (found >= 0)).any(axis=0))
        if len(uneven):
            row = int(uneven[0])
            steps = dict(zip(self.columns, found[:, row].tolist(), strict=True))
            raise ValueError(
                f"{self.split} split, row {row}: every channel must be equally long, got the steps {steps}"
            )
        return np.maximum(longest, 0)

    def steps(self, name: str, row: int, start: int, stop: int) -> np.ndarray | None:
        """The steps from `start` to before `stop` of one column of a row: (stop - start,), or (channels, stop - start).

        Missing numbers are NaN; None where the cell is null.
        """
        cell = self._cell(name, row)
        if not cell.is_valid:
            return None
        values = cell.values
        if not _is_list(values.type):
            return _numbers(values, start, stop)
        channels = [values[channel] for channel in range(len(values))]
        nothing = np.full(stop - start, np.nan)
        return np.stack([_numbers(one.values, start, stop) if one.is_valid else nothing for one in channels])

    def entries(self, name: str, row: int, start: int, stop: int) -> list[Any]:
        """The same of a column of any values, such as the label of each step."""
        entries: list[Any] = self._cell(name, row).values.slice(start, stop - start).to_pylist()
        return entries

    def with_column(self, dataset: Dataset, name: str) -> "SeriesReader":
        """A reader that finds the entries of a further column, too, which is no channel."""
        reader = copy.copy(self)
        reader._chunks = {**self._chunks, name: _storages(dataset.data.column(name))}
        return reader

    def _cell(self, name: str, row: int) -> Any:
        starts, chunks = self._chunks[name]
        place = row if self._places is None else int(self._places[row])
        chunk = int(np.searchsorted(starts, place, side="right")) - 1
        return chunks[chunk][place - int(starts[chunk])]

    def _lengths(self, name: str) -> np.ndarray:
        """(rows,) int64, the steps in one column; -1 where the cell is null, -2 where its channels are not equally long."""
        parts = [np.zeros(0, dtype=np.int64), *(_steps_of(chunk, name) for chunk in self._chunks[name][1])]
        lengths = np.concatenate(parts)
        return lengths if self._places is None else lengths[self._places]


def _storages(column: pa.ChunkedArray) -> tuple[np.ndarray, list[pa.Array]]:
    """The first row of each chunk, and the chunks."""
    chunks = [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in column.chunks]
    return np.cumsum([0, *map(len, chunks)])[: len(chunks)], chunks


def _steps_of(values: pa.Array, name: str) -> np.ndarray:
    if not _is_list(values.type):
        raise ValueError(
            f"data.input_column: column {name!r} holds {values.type}, expected the list of the steps of a series"
        )
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    outer = pc.list_value_length(values).cast(pa.int64()).fill_null(-1).to_numpy()
    if not _is_list(values.type.value_type):
        return np.asarray(outer)
    # A channel that is null lacks every step.
    inner = pc.list_value_length(pc.list_flatten(values)).cast(pa.int64()).fill_null(-1).to_numpy()
    owners = np.repeat(np.arange(len(values)), np.maximum(outer, 0))
    steps = np.zeros(len(values), dtype=np.int64)
    np.maximum.at(steps, owners, inner)
    steps[owners[(inner >= 0) & (inner != steps[owners])]] = UNEVEN
    return np.where(outer < 0, -1, steps)


def _numbers(values: pa.Array, start: int, stop: int) -> np.ndarray:
    part = values.slice(start, stop - start).cast(pa.float64())
    return np.asarray(part.to_numpy(zero_copy_only=False), dtype=np.float64)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


@dataclass(frozen=True)
class Windows:
    """The cut of long series into windows.

    Attributes:
        columns: Columns of the series.
        size: Number of steps of a window.
        stride: Number of steps from one window to the next.
        is_pooled: Whether the windows of a row become one row of features.
        label_column: Column that holds a label for each step; None where a row has one label, or none.
        label_of_steps: Callable that makes a window's label of those of its steps.
        invalid_value: Number that says that none was measured, beside null and NaN; None where there is none.
        drops_unlabelled: Whether a window without the label of any step is left out; otherwise it is refused.
    """

    columns: tuple[str, ...]
    size: int
    stride: int
    is_pooled: bool = True
    label_column: str | None = None
    label_of_steps: LabelOfSteps | None = None
    invalid_value: float | None = None
    drops_unlabelled: bool = False


@dataclass(frozen=True)
class CutWindows:
    """Windows of the rows of a split.

    Attributes:
        owners: (n,) int64, the row of each window.
        starts: (n,) int64, the step of its row with which each begins.
        lengths: (rows,) int64, the steps of each row.
        gaps: Rows in which a step lacks a value or a label, so that a window of theirs may hold nothing.
        left_out: Reason -> windows that were left out for it.
    """

    owners: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    gaps: frozenset[int] = frozenset()
    left_out: dict[str, int] = field(default_factory=dict)


def cut_windows(dataset: Dataset, windows: Windows, split: str, reader: SeriesReader | None = None) -> CutWindows:
    """Cut series into windows and leave out those that hold nothing.

    Args:
        dataset: Raw rows, one a series.
        windows: Cut into windows.
        split: Name of the split, for messages.
        reader: Reader of the steps; None makes one.

    Raises:
        ValueError: A window without a label (unless they are dropped), no window that is left, channels that are not equally
            long, or a column without lists.
    """
    reader = windows_reader(dataset, windows, split) if reader is None else reader
    lengths = reader.lengths()
    firsts = [window_starts(int(length), windows.size, windows.stride) for length in lengths]
    owners = np.repeat(np.arange(len(firsts)), [len(one) for one in firsts])
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *firsts])
    observed, total = observed_values(dataset, number_columns(windows.columns, windows.invalid_value))
    is_holed = observed < total
    if windows.label_column is not None:
        labelled, entries = observed_values(dataset, number_columns([windows.label_column]))
        is_holed |= labelled < entries
    gaps = frozenset(np.flatnonzero(is_holed).tolist())
    kept = np.ones(len(owners), dtype=bool)
    left_out = dict.fromkeys((NOT_OBSERVED, NOT_LABELLED), 0)
    for row in sorted(gaps):
        first, stop = np.searchsorted(owners, [row, row + 1]).tolist()
        stops = np.minimum(starts[first:stop] + windows.size, lengths[row])
        seen = _any_within(seen_steps(reader, windows, row, 0, int(lengths[row])), starts[first:stop], stops)
        labelled_steps = labelled_of(reader, windows, row, 0, int(lengths[row]))
        has_label = _any_within(labelled_steps, starts[first:stop], stops)
        if not windows.drops_unlabelled and not (has_label | ~seen).all():
            place = int(np.flatnonzero(seen & ~has_label)[0])
            raise ValueError(
                f"{split} split, row {row}, column {windows.label_column!r}: none of the steps {starts[first + place]} to "
                f"{stops[place] - 1}, a window, has a label: fill them, or set data.drop_missing_labels to true to leave such "
                "windows out"
            )
        kept[first:stop] = seen & has_label
        left_out[NOT_OBSERVED] += int((~seen).sum())
        left_out[NOT_LABELLED] += int((seen & ~has_label).sum())
    if len(kept) and not kept.any():
        raise ValueError(
            f"{split} split: of {len(kept)} windows (data.window {windows.size}) none is left: {left_out}"
        )
    found = {reason: count for reason, count in left_out.items() if count}
    return CutWindows(owners[kept], starts[kept], lengths, gaps, found)


def windows_reader(dataset: Dataset, windows: Windows, split: str) -> SeriesReader:
    """What reads the steps of series, and where windows have labels, those of the steps."""
    reader = SeriesReader(dataset, windows.columns, split)
    return reader if windows.label_column is None else reader.with_column(dataset, windows.label_column)


def seen_steps(reader: SeriesReader, windows: Windows, row: int, start: int, stop: int) -> np.ndarray:
    """(stop - start,) bool, whether any channel of a row was observed at each step."""
    seen = np.zeros(stop - start, dtype=bool)
    for name in windows.columns:
        values = reader.steps(name, row, start, stop)
        if values is not None:
            is_there = ~np.isnan(without_invalid(values, windows.invalid_value))
            seen |= is_there if is_there.ndim == 1 else is_there.any(axis=0)
    return seen


def labelled_of(reader: SeriesReader, windows: Windows, row: int, start: int, stop: int) -> np.ndarray:
    """(stop - start,) bool, whether each step of a row has a label; true where windows have none."""
    if windows.label_column is None:
        return np.ones(stop - start, dtype=bool)
    entries = reader.entries(windows.label_column, row, start, stop)
    return np.array([value is not None and value == value for value in entries], dtype=bool)


def _any_within(flags: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """(n,) bool, whether any flag is set from each start to before its stop."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(counts[stops] > counts[starts])


class WindowedRows(TransformedRows):
    """Windows of series, each prepared when it is read; the rest of its series is not looked at.

    Windows that hold nothing are left out, which a warning counts; nothing is drawn from where nothing was observed. The `index`
    of a window is its number.

    Args:
        dataset: Raw rows, one a series.
        prepare: Callable that makes prepared columns of raw columns and row numbers.
        windows: Cut into windows.
        draws: Random numbers by which the windows begin anywhere in their series, anew in every epoch; None begins them where
            the cut says.
        split: Name of the split, for messages.

    Attributes:
        owners: (n,) int64, the row of each window.
        starts: (n,) int64, the step of its row with which each window begins, where nothing is drawn.
        lengths: (rows,) int64, the steps of each row.

    Raises:
        ValueError: The channels of a row are not equally long, a column holds no lists, or a window has no label.
    """

    def __init__(
        self,
        dataset: Dataset,
        prepare: Callable[[Rows, Sequence[int]], dict[str, Column]],
        windows: Windows,
        draws: RowDraws | None = None,
        split: str = "train",
    ) -> None:
        super().__init__(dataset, prepare)
        self.windows, self.draws, self.split = windows, draws, split
        self._reader: SeriesReader | None = None
        cut = self.cut()
        self.owners, self.starts, self.lengths, self.gaps = cut.owners, cut.starts, cut.lengths, cut.gaps
        self.total = len(self.starts)
        for reason, count in cut.left_out.items():
            logger.warning("%s split: %s, %s, left out", split, counted(count, "window"), reason)
        named = (*windows.columns, *([windows.label_column] if windows.label_column else []))
        self._others = dataset.remove_columns([name for name in named if name in dataset.column_names]).with_format(
            None
        )

    def cut(self) -> CutWindows:
        """The windows of all rows."""
        return cut_windows(self.dataset, self.windows, self.split, self.reader)

    @property
    def reader(self) -> SeriesReader:
        """What reads the steps."""
        if self._reader is None:
            self._reader = windows_reader(self.dataset, self.windows, self.split)
        return self._reader

    @property
    def chosen_owners(self) -> np.ndarray:
        """(windows of this set,) int64, the row of each."""
        return self.owners if self.chosen is None else self.owners[self.chosen]

    @property
    def chosen_starts(self) -> np.ndarray:
        """(windows of this set,) int64, the step with which each begins, where nothing is drawn."""
        return self.starts if self.chosen is None else self.starts[self.chosen]

    def of_rows(self, first: int, stop: int) -> "WindowedRows":
        """The windows of the rows from `first` to before `stop`, which lie together."""
        return self.select(range(*np.searchsorted(self.owners, [first, stop]).tolist()))

    def fixed(self) -> "WindowedRows":
        """The same windows with nothing drawn."""
        rows = copy.copy(self)
        rows.draws = None
        return rows

    def read(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        batch, owners = self.raw(numbers)
        columns = self.prepare(batch, owners.tolist())
        columns["index"] = np.asarray(numbers, dtype=np.int64)
        return [{name: values[place] for name, values in columns.items()} for place in range(len(numbers))]

    def raw(self, numbers: np.ndarray) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Raw columns of windows, and the rows (n,) that they are of."""
        owners = self.owners[numbers]
        batch: dict[str, list[Any]] = {name: [] for name in self.windows.columns}
        label, rule = self.windows.label_column, self.windows.label_of_steps
        if label is not None:
            batch[label] = []
        for number, owner in zip(numbers.tolist(), owners.tolist(), strict=True):
            start = self._start(number, owner)
            stop = min(start + self.windows.size, int(self.lengths[owner]))
            for name in self.windows.columns:
                batch[name].append(self.reader.steps(name, owner, start, stop))
            if label is not None and rule is not None:
                batch[label].append(rule(self.reader.entries(label, owner, start, stop)))
        if self._others.column_names:
            batch |= {name: list(values) for name, values in self._others[owners.tolist()].items()}
        return batch, owners

    def _start(self, number: int, owner: int) -> int:
        last = int(self.lengths[owner]) - self.windows.size
        if self.draws is None or last <= 0:
            return int(self.starts[number])
        generator = self.draws.generator(number)
        for _ in range(DRAWS):
            start = int(generator.integers(0, last + 1))
            if owner not in self.gaps or self._holds_something(owner, start):
                return start
        return int(self.starts[number])

    def _holds_something(self, owner: int, start: int) -> bool:
        place = (self.reader, self.windows, owner, start, start + self.windows.size)
        return bool(seen_steps(*place).any() and labelled_of(*place).any())

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        if self.draws is not None:
            self.draws.set_epoch(epoch, seed)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process makes its views into the table anew.
        return {**self.__dict__, "_reader": None}


class SeriesParts(WindowedRows):
    """Parts of series, one behind the other without overlap; the last one of a series may be shorter, and any may be empty."""

    def cut(self) -> CutWindows:
        lengths = self.reader.lengths()
        firsts = [np.arange(0, max(int(length), 1), self.windows.size, dtype=np.int64) for length in lengths]
        owners = np.repeat(np.arange(len(firsts)), [len(one) for one in firsts])
        return CutWindows(owners, np.concatenate([np.zeros(0, dtype=np.int64), *firsts]), lengths)


def labels_of_windows(rows: WindowedRows, dataset: Dataset, column: str, rule: LabelOfSteps) -> list[Any]:
    """The label of each window, by the labels of its steps in a column of the dataset that the windows are of."""
    reader = SeriesReader(dataset, (), rows.split).with_column(dataset, column)
    places = zip(rows.chosen_owners.tolist(), rows.chosen_starts.tolist(), strict=True)
    size, lengths = rows.windows.size, rows.lengths
    return [rule(reader.entries(column, row, start, min(start + size, int(lengths[row])))) for row, start in places]


def means_of_rows(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Features (windows, D) float32 -> (rows, D), the mean over the windows of each row, which lie together.

    Args:
        values: Features of windows.
        owners: (windows,) the row of each, rising.
    """
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    ends = np.append(starts[1:], len(owners))
    means = [values[start:end].mean(axis=0, dtype=np.float64) for start, end in zip(starts, ends, strict=True)]
    return np.asarray(means, dtype=np.float32).reshape(len(starts), values.shape[1])
