"""Series in the cells of CSV files, written as JSON lists."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from datasets import Dataset, IterableDataset

from .caching import cached_map
from .first_rows import first_rows
from .rows import Rows

LOOKED_AT = 100  # first rows, which show whether a column holds lists
EMPTY_LISTS = re.compile(r"\[\[\](,\[\])*\]")
TYPES = {1: pa.list_(pa.float64()), 2: pa.list_(pa.list_(pa.float64()))}
WORDS = {1: "a JSON list of numbers", 2: "a JSON list of lists of numbers"}


def with_lists_read(
    rows: Dataset | IterableDataset, columns: Sequence[str] = (), split: str = "train"
) -> Dataset | IterableDataset:
    """Rows of a CSV file in which JSON lists of numbers, or of such lists, are lists; other columns stay as they are.

    Args:
        rows: Rows of one split.
        columns: Columns that are looked at; none means all.
        split: Name of the split, for errors.

    Raises:
        ValueError: A cell of such a column is no list; of a stream, when the row is read.
    """
    found: dict[str, int] = {}
    for row in first_rows(rows, LOOKED_AT):
        for name in columns or list(row):
            if name not in found and isinstance(value := row.get(name), str) and not _empty_depth(value):
                found[name] = _depth(value)
    lists = ListsRead({name: depth for name, depth in found.items() if depth}, split)
    if not lists.columns:
        return rows
    if isinstance(rows, IterableDataset):
        return rows.map(lists.of_columns, with_indices=True, batched=True)
    read = cached_map(rows.with_format("arrow"), lists, f"JSON lists {sorted(lists.columns.items())} {split}")
    return read.with_format(None)


@dataclass(frozen=True)
class ListsRead:
    """A batch with columns of texts -> the same with the lists that they stand for.

    Attributes:
        columns: Column -> 1 for lists of numbers, 2 for lists of such.
        split: Name of the split, for errors.
    """

    columns: Mapping[str, int]
    split: str

    def __call__(self, batch: pa.Table, indices: Sequence[int]) -> pa.Table:
        texts = {name: batch[name].to_pylist() for name in self.columns}
        for name, cells in self.of_columns(texts, indices).items():
            values = pa.array(cells, TYPES[self.columns[name]])
            batch = batch.set_column(batch.column_names.index(name), name, values)
        return batch

    def of_columns(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[object]]:
        """The columns of lists alone, as Python has them."""
        return {
            name: [self._read(name, cell, index) for cell, index in zip(batch[name], indices, strict=True)]
            for name in self.columns
        }

    def _read(self, name: str, cell: object, index: int) -> object:
        if cell is None:
            return None
        depth = self.columns[name]
        if not isinstance(cell, str) or not (_depth(cell) == depth or 0 < _empty_depth(cell) <= depth):
            raise ValueError(
                f"{self.split} split, row {index}, column {name!r}: expected {WORDS[self.columns[name]]}, as in the rows before, "
                f"got {cell!r:.60}"
            )
        return json.loads(cell)


def _empty_depth(text: str) -> int:
    """1 for a list without an entry, 2 for a list of such lists, which tell nothing of other cells; 0 for anything else."""
    squeezed = "".join(text.split())
    return 1 if squeezed == "[]" else 2 if EMPTY_LISTS.fullmatch(squeezed) else 0


def _depth(text: str) -> int:
    """1 for a JSON list of numbers (or null, NaN), 2 for a list of such lists, 0 for anything else."""
    if not text.lstrip().startswith("["):
        return 0
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    if not isinstance(value, list) or not value:
        return 0
    if all(map(_is_number, value)):
        return 1
    return 2 if all(isinstance(one, list) and all(map(_is_number, one)) for one in value) else 0


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
