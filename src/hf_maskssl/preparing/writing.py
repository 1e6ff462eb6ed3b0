"""Parquet files written row by row, in constant memory, and the counts of what was written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import List, Value
from datasets.features.features import list_of_np_array_to_pyarrow_listarray

from .raw import Media
from .record import Cell, ColumnKind

# Rows of a group, and bytes of pictures and sounds, after which a group is written.
GROUP_ROWS, GROUP_BYTES = 1000, 32_000_000
FEATURES: Mapping[ColumnKind, object] = {
    "string": Value("string"),
    "int": Value("int64"),
    "float": Value("float32"),
    "floats": List(Value("float32")),
    "ints": List(Value("int8")),
    "series": List(List(Value("float32"))),
    "bands": List(List(List(Value("uint16")))),
    "image": datasets.Image(),
    # As `datasets.Audio` lies in a file, without its name: that feature needs torchcodec even to note a path.
    "sound": {"bytes": Value("binary"), "path": Value("string")},
}


class SplitWriter(Protocol):
    """What a split is written by.

    Attributes:
        rows: Number of rows written.
        values: Column of labels -> its values, counted.
    """

    rows: int
    values: dict[str, Counter[Cell]]

    def add(self, row: Mapping[str, Cell]) -> None:
        """Write a row."""

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Write a batch."""

    def flush(self) -> None:
        """Write the rows that are held."""

    def close(self) -> None:
        """Write what is left."""


class WrongCell(ValueError):
    """A cell that is not of its column's type. Rows are held for a while, so the file that is being read may be a later one."""


class SplitFile:
    """The Parquet file of a split.

    Args:
        path: Path of the file.
        columns: Name of a column -> its kind.
        labels: Names of the columns whose values are counted.
        keeps_paths: Whether the path of a picture or sound is written in place of its bytes.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, ColumnKind], labels: Sequence[str], keeps_paths: bool = False
    ) -> None:
        self.split, self.columns, self.keeps_paths = path.stem, columns, keeps_paths
        features = datasets.Features({name: FEATURES[kind] for name, kind in columns.items()})
        schema = features.arrow_schema
        self.schema: pa.Schema = schema
        self.rows = 0
        self.values: dict[str, Counter[Cell]] = {name: Counter() for name in labels}
        self._buffer: list[Mapping[str, Cell]] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def add(self, row: Mapping[str, Cell]) -> None:
        """Write a row; a column that it lacks is null."""
        whole = {name: self._cell(row.get(name), kind) for name, kind in self.columns.items()}
        for name, counter in self.values.items():
            if whole[name] is not None:
                counter[whole[name]] += 1
        self._buffer.append(whole)
        self.rows += 1
        if len(self._buffer) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self.flush()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Write a batch, whose columns are cast to the file's types."""
        self.flush()
        table = pa.Table.from_batches([batch]).select(list(self.columns)).cast(self.schema)
        for name, counter in self.values.items():
            for entry in pc.value_counts(table.column(name)).to_pylist():
                if entry["values"] is not None:
                    counter[entry["values"]] += entry["counts"]
        self._writer.write_table(table)
        self.rows += table.num_rows

    def close(self) -> None:
        """Write what is left. A split without rows is a file with columns and no rows."""
        self.flush()
        self._writer.close()

    def _cell(self, value: Cell, kind: ColumnKind) -> Cell:
        if isinstance(value, np.ndarray):
            self._bytes += value.nbytes
        if kind not in ("image", "sound") or value is None:
            return value
        if isinstance(value, Media) and self.keeps_paths:
            return {"bytes": None, "path": str(value.path.resolve())}
        content = value.path.read_bytes() if isinstance(value, Media) else value
        assert isinstance(content, bytes)
        self._bytes += len(content)
        return {"bytes": content, "path": value.path.name if isinstance(value, Media) else None}

    def flush(self) -> None:
        """Write the rows that are held.

        Raises:
            WrongCell: A cell is not of its column's type.
        """
        buffer, self._buffer, self._bytes = self._buffer, [], 0
        if buffer:
            columns = [self._column(name, [row[name] for row in buffer]) for name in self.columns]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))

    def _column(self, name: str, values: list[Cell]) -> pa.Array:
        kind = self.schema.field(name).type
        try:
            if isinstance(values[0], np.ndarray):  # lists of Python's numbers would take twenty times the memory
                return list_of_np_array_to_pyarrow_listarray(values).cast(kind)
            return pa.array(values, type=kind)
        except (pa.ArrowException, TypeError) as error:
            raise WrongCell(f"{self.split} split, column {name!r}: expected {kind}: {error}") from error
