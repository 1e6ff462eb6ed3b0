"""Windows of long series: where they begin, how their steps are read without the rest, and rows that are windows."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from .draws import RowDraws
from .rows import Column, Rows, TransformedRows

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
        return np.stack([_numbers(one.values, start, stop) for one in channels])

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
        """(rows,) int64, the steps in one column; -1 where the cell is null."""
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
    inner = pc.list_value_length(pc.list_flatten(values)).cast(pa.int64()).fill_null(0).to_numpy()
    counts = np.maximum(outer, 0)
    first = np.cumsum(counts) - counts
    steps = np.where(counts > 0, np.append(inner, 0)[np.minimum(first, len(inner))], 0)
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
    """

    columns: tuple[str, ...]
    size: int
    stride: int
    is_pooled: bool = True
    label_column: str | None = None
    label_of_steps: LabelOfSteps | None = None


class WindowedRows(TransformedRows):
    """Windows of series, each prepared when it is read; the rest of its series is not looked at.

    Their `index` is the number of the window.

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
        ValueError: The channels of a row are not equally long, or a column holds no lists.
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
        self.lengths = self.reader.lengths()
        starts = [self.cut(int(length)) for length in self.lengths]
        self.owners = np.repeat(np.arange(len(starts)), [len(one) for one in starts])
        self.starts = np.concatenate([np.zeros(0, dtype=np.int64), *starts])
        self.total = len(self.starts)
        named = (*windows.columns, *([windows.label_column] if windows.label_column else []))
        self._others = dataset.remove_columns([name for name in named if name in dataset.column_names]).with_format(
            None
        )

    def cut(self, length: int) -> np.ndarray:
        """First steps of the windows of a series of so many steps."""
        return window_starts(length, self.windows.size, self.windows.stride)

    @property
    def reader(self) -> SeriesReader:
        """What reads the steps."""
        if self._reader is None:
            reader = SeriesReader(self.dataset, self.windows.columns, self.split)
            label = self.windows.label_column
            self._reader = reader if label is None else reader.with_column(self.dataset, label)
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
        return int(self.draws.generator(number).integers(0, last + 1))

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        if self.draws is not None:
            self.draws.set_epoch(epoch, seed)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process makes its views into the table anew.
        return {**self.__dict__, "_reader": None}


class SeriesParts(WindowedRows):
    """Parts of series, one behind the other without overlap; the last one of a series may be shorter."""

    def cut(self, length: int) -> np.ndarray:
        return np.arange(0, max(length, 1), self.windows.size, dtype=np.int64)


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
