"""Readers of parts of long rows, for windows: the steps of series, without reading the rest of the series."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ...models.standardization import without_invalid
from .empty_rows import number_columns, observed_values

UNEVEN = -2  # instead of the number of steps


class StepReader(ABC):
    """Parts of the rows of a split, counted in steps: the time steps of series, the frames of sounds.

    Attributes:
        split: Name of the split, for messages.
    """

    split: str

    @abstractmethod
    def lengths(self) -> np.ndarray:
        """(rows,) int64, the steps of each row.

        Raises:
            ValueError: A row that cannot be read; the error names split, row and column.
        """

    @abstractmethod
    def holed(self) -> np.ndarray:
        """(rows,) bool, whether any value of a row is missing."""

    @abstractmethod
    def steps(self, name: str, row: int, start: int, stop: int) -> object:
        """The raw value of one column of a row that is left of it from step `start` to before `stop`."""

    @abstractmethod
    def seen(self, row: int, start: int, stop: int) -> np.ndarray:
        """(stop - start,) bool, whether anything was observed at each step."""


class SeriesReader(StepReader):
    """The steps of series in columns of lists, one a channel, or of one column of lists or lists of lists.

    Args:
        dataset: Raw rows.
        columns: Columns of the series.
        split: Name of the split, for messages.
        invalid_value: Number that says that none was measured, beside null and NaN; None where there is none.
    """

    def __init__(
        self, dataset: Dataset, columns: Sequence[str], split: str = "train", invalid_value: float | None = None
    ) -> None:
        self.dataset, self.columns = dataset, tuple(columns)
        self.split, self.invalid_value = split, invalid_value
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

    def holed(self) -> np.ndarray:
        observed, total = observed_values(self.dataset, number_columns(self.columns, self.invalid_value))
        return np.asarray(observed < total)

    def seen(self, row: int, start: int, stop: int) -> np.ndarray:
        """(stop - start,) bool, whether any channel of a row was observed at each step."""
        seen = np.zeros(stop - start, dtype=bool)
        for name in self.columns:
            values = self.steps(name, row, start, stop)
            if values is not None:
                is_there = ~np.isnan(without_invalid(values, self.invalid_value))
                seen |= is_there if is_there.ndim == 1 else is_there.any(axis=0)
        return seen

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
