"""Prepared rows: stored once in Arrow and read without copies, or prepared each time they are read."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from torch.utils import data as torch_data

from .draws import DrawnByEpoch

Rows: TypeAlias = Mapping[str, Sequence[Any]]
Row: TypeAlias = Mapping[str, Any]  # a prepared row: name -> array or number
# One value per row: an array where all have one shape, else a list.
Column: TypeAlias = np.ndarray | list[Any]
# The place of a row in a chunk of an Arrow table -> its value.
Reader: TypeAlias = Callable[[int], object]

Chosen = TypeVar("Chosen", bound="ChosenRows")


class ChosenRows(torch_data.Dataset[dict[str, Any]], ABC):
    """Rows of a data set that are found by their number: all of them, or those chosen.

    Args:
        total: Number of rows of the whole data set.
        chosen: Row numbers (n,) that this set consists of; None means all.
    """

    def __init__(self, total: int, chosen: np.ndarray | None = None) -> None:
        self.total = total
        self.chosen = chosen

    def __len__(self) -> int:
        return self.total if self.chosen is None else len(self.chosen)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once, for a DataLoader.

        Raises:
            IndexError: A row number outside the set.
            ValueError: A raw value that cannot be prepared, with its row and column.
        """
        return self.read(self._numbers(rows))

    @abstractmethod
    def read(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """The rows with these numbers (n,) of the whole data set."""

    def select(self: Chosen, rows: Sequence[int]) -> Chosen:
        """The set of these rows, in this order, without copying them."""
        selected = copy.copy(self)
        selected.chosen = self._numbers(rows)
        return selected

    def arrays(self) -> dict[str, Column]:
        """Every column whole: (n, ...) arrays, and lists of arrays where lengths differ."""
        return stack_columns(self.__getitems__(range(len(self))))

    def _numbers(self, rows: Sequence[int]) -> np.ndarray:
        """Numbers in the whole data set of rows of this set."""
        numbers = _row_numbers(rows, len(self))
        return numbers if self.chosen is None else self.chosen[numbers]


class PreparedRows(ChosenRows):
    """Rows whose values were prepared before and lie in one Arrow table.

    Numbers of a fixed shape are stored flat; a row is a view into the (memory-mapped) table, so that reading a batch
    costs microseconds and worker processes share the memory.

    Args:
        table: Columns of numbers, lists of one fixed length, or lists of any length. No nulls.
        shapes: Shape of the rows of each fixed-length list column; the others are left as they are.
        chosen: Row numbers (n,) of the table that this set consists of; None means all.
    """

    def __init__(
        self, table: Dataset, shapes: Mapping[str, tuple[int, ...]], chosen: np.ndarray | None = None
    ) -> None:
        super().__init__(len(table), chosen)
        self.table = table
        self.shapes = dict(shapes)
        self._readers: list[dict[str, Reader]] | None = None
        self._starts = np.zeros(0, dtype=np.int64)

    @property
    def column_names(self) -> list[str]:
        """Names of the values of a row."""
        return list(self.table.column_names)

    def lengths(self, name: str) -> np.ndarray:
        """(rows,) integers, the number of values in each list of a column."""
        chunks = self.table.with_format("arrow")[:].column(name).chunks
        lengths = np.concatenate([np.zeros(0, dtype=np.int64), *map(pc.list_value_length, chunks)])
        return lengths if self.chosen is None else lengths[self.chosen]

    def read(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        readers = self._open()
        chunks = np.searchsorted(self._starts, numbers, side="right") - 1
        places = numbers - self._starts[chunks]
        return [
            {name: read(place) for name, read in readers[chunk].items()}
            for chunk, place in zip(chunks.tolist(), places.tolist(), strict=True)
        ]

    def _open(self) -> list[dict[str, Reader]]:
        if self._readers is None:
            batches = self.table.with_format("arrow")[:].to_batches()
            self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])[: len(batches)]
            self._readers = [
                {name: _reader(batch.column(name), self.shapes.get(name)) for name in batch.schema.names}
                for batch in batches
            ]
        return self._readers

    def __getstate__(self) -> dict[str, Any]:
        # A worker process makes its views into the table anew, from the file.
        return {**self.__dict__, "_readers": None}


class TransformedRows(ChosenRows):
    """Rows prepared each time they are read.

    Args:
        dataset: Raw rows.
        prepare: Callable that makes prepared columns of raw columns and row numbers.
        chosen: Row numbers (n,) that this set consists of; None means all.
    """

    def __init__(
        self,
        dataset: Dataset,
        prepare: Callable[[Rows, Sequence[int]], dict[str, Column]],
        chosen: np.ndarray | None = None,
    ) -> None:
        super().__init__(len(dataset), chosen)
        self.dataset = dataset
        self.prepare = prepare

    @property
    def column_names(self) -> list[str]:
        """Names of the values of a row."""
        return list(self[0])

    def read(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        keys = numbers.tolist()
        columns = self.prepare(self.dataset[keys], keys)
        return [{name: values[place] for name, values in columns.items()} for place in range(len(keys))]

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Draw from now on what belongs to this epoch of a run with this seed, in worker processes as well."""
        if isinstance(self.prepare, DrawnByEpoch):
            self.prepare.set_epoch(epoch, seed)


def stack_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Rows -> columns; a column is an array where all its values have one shape, else a list."""
    columns: dict[str, Column] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        columns[name] = np.stack(values) if len({np.shape(value) for value in values}) == 1 else values
    return columns


def to_table(columns: Mapping[str, Column]) -> pa.Table:
    """Prepared columns as Arrow: arrays flat with one fixed length, lists of arrays with their own lengths."""
    return pa.table({name: _to_arrow(values) for name, values in columns.items()})


def _to_arrow(values: Column) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return pa.array(values)
    if isinstance(values, np.ndarray):
        flat = np.ascontiguousarray(values).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), math.prod(values.shape[1:]))
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values)))


def _reader(column: pa.Array, shape: tuple[int, ...] | None) -> Reader:
    """A function from a place in the chunk to that row's value."""
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy().reshape(len(column), *(shape or (-1,))).__getitem__
    if pa.types.is_list(column.type):
        values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
        return lambda place: values[offsets[place] : offsets[place + 1]]
    return column.to_numpy().__getitem__


def _row_numbers(rows: Sequence[int], length: int) -> np.ndarray:
    numbers = np.asarray(rows, dtype=np.int64)
    if numbers.size and (numbers.min() < -length or numbers.max() >= length):
        raise IndexError(f"row {numbers.min() if numbers.min() < -length else numbers.max()} of {length} rows")
    return np.where(numbers < 0, numbers + length, numbers)
