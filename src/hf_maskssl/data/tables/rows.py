"""Prepared rows: stored once in Arrow and read without copies, or prepared each time they are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from datasets import Dataset
from torch.utils import data as torch_data

Rows: TypeAlias = Mapping[str, Sequence[Any]]
Row: TypeAlias = Mapping[str, Any]  # a prepared row: name -> array or number
# One value per row: an array where all have one shape, else a list.
Column: TypeAlias = np.ndarray | list[Any]


class PreparedRows(torch_data.Dataset[dict[str, Any]]):
    """Rows whose values were prepared before and lie in one Arrow table.

    Numbers of a fixed shape are stored flat; a row is a view into the (memory-mapped) table, so that reading a batch
    costs microseconds and worker processes share the memory.

    Args:
        table: Columns of numbers, lists of one fixed length, or lists of any length. No nulls.
        shapes: Shape of the rows of each fixed-length list column; the others are left as they are.
        chosen: (n,) row numbers of the table that this set consists of; None means all.
    """

    def __init__(
        self, table: Dataset, shapes: Mapping[str, tuple[int, ...]], chosen: np.ndarray | None = None
    ) -> None:
        self.table = table
        self.shapes = dict(shapes)
        self.chosen = chosen
        self._readers: list[dict[str, Callable[[int], Any]]] | None = None
        self._starts = np.zeros(0, dtype=np.int64)

    @property
    def column_names(self) -> list[str]:
        """What a row holds."""
        return list(self.table.column_names)

    def __len__(self) -> int:
        return len(self.table) if self.chosen is None else len(self.chosen)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once: what a DataLoader asks for.

        Raises:
            IndexError: A row number outside the set.
        """
        numbers = _row_numbers(rows, len(self))
        if self.chosen is not None:
            numbers = self.chosen[numbers]
        readers = self._open()
        chunks = np.searchsorted(self._starts, numbers, side="right") - 1
        places = numbers - self._starts[chunks]
        return [
            {name: read(place) for name, read in readers[chunk].items()}
            for chunk, place in zip(chunks.tolist(), places.tolist(), strict=True)
        ]

    def select(self, rows: Sequence[int]) -> "PreparedRows":
        """The set of these rows, in this order, without copying them."""
        numbers = _row_numbers(rows, len(self))
        return PreparedRows(self.table, self.shapes, numbers if self.chosen is None else self.chosen[numbers])

    def arrays(self) -> dict[str, Column]:
        """Every column whole: (n, ...) arrays, and lists of arrays where lengths differ."""
        return stack_columns(self.__getitems__(range(len(self))))

    def _open(self) -> list[dict[str, Callable[[int], Any]]]:
        if self._readers is None:
            batches = self.table.with_format("arrow")[:].to_batches()
            self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])[: len(batches)]
            self._readers = [
                {name: _reader(batch.column(name), self.shapes.get(name)) for name in batch.schema.names}
                for batch in batches
            ]
        return self._readers

    def __getstate__(self) -> dict[str, Any]:
        # Views into the table are made anew in a worker process, from the file.
        return {**self.__dict__, "_readers": None}


class TransformedRows(torch_data.Dataset[dict[str, Any]]):
    """Rows prepared each time they are read.

    Args:
        dataset: Raw rows.
        prepare: Takes raw columns and row numbers, gives prepared columns.
        chosen: (n,) row numbers that this set consists of; None means all.
    """

    def __init__(
        self,
        dataset: Dataset,
        prepare: Callable[[Rows, Sequence[int]], dict[str, Column]],
        chosen: np.ndarray | None = None,
    ) -> None:
        self.dataset = dataset
        self.prepare = prepare
        self.chosen = chosen

    @property
    def column_names(self) -> list[str]:
        """What a row holds."""
        return list(self[0])

    def __len__(self) -> int:
        return len(self.dataset) if self.chosen is None else len(self.chosen)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once: what a DataLoader asks for.

        Raises:
            IndexError: A row number outside the set.
            ValueError: A raw value that cannot be prepared, with its row and column.
        """
        numbers = _row_numbers(rows, len(self))
        if self.chosen is not None:
            numbers = self.chosen[numbers]
        keys = numbers.tolist()
        columns = self.prepare(self.dataset[keys], keys)
        return [{name: values[place] for name, values in columns.items()} for place in range(len(keys))]

    def select(self, rows: Sequence[int]) -> "TransformedRows":
        """The set of these rows, in this order."""
        numbers = _row_numbers(rows, len(self))
        return TransformedRows(self.dataset, self.prepare, numbers if self.chosen is None else self.chosen[numbers])

    def arrays(self) -> dict[str, Column]:
        """Every column whole: (n, ...) arrays, and lists of arrays where lengths differ."""
        return stack_columns(self.__getitems__(range(len(self))))

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """What is drawn at random is from now on that of this epoch of a run with this seed, in worker processes as well."""
        tell = getattr(self.prepare, "set_epoch", None)
        if tell is not None:
            tell(epoch, seed)


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


def _reader(column: pa.Array, shape: tuple[int, ...] | None) -> Callable[[int], Any]:
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
