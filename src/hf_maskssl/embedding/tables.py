"""Tables of features as Parquet and NumPy files: shards, and the one file that they become."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluation.features import RowStore
from ..files import JsonObject, JsonView
from .places import Place
from .rows import EMBEDDING, TOKEN

METADATA = b"hf_maskssl"  # key of the facts in a Parquet file's schema
GROUP_BYTES = 2**26  # of features in a row group


def write_shard(
    place: Place, carried: pa.Table, values: np.ndarray, samples: np.ndarray | None, facts: JsonView
) -> None:
    """Write the features of consecutive rows as one Parquet file.

    Args:
        place: Where to write it.
        carried: Columns that go along, one row each.
        values: (n, D) float32, one for each row, or for each of its tokens; a memory map where they are many.
        samples: (n,) place in `carried` of each token's row; None where there is one value a row.
        facts: Facts about the shard, kept in the file.
    """
    schema = _schema(carried, values.shape[1], samples is not None).with_metadata({METADATA: json.dumps(facts)})
    tokens = None if samples is None else _positions(samples)
    group = max(1, GROUP_BYTES // max(1, values.itemsize * values.shape[1]))

    def write(path: Path) -> None:
        with pq.ParquetWriter(path, schema) as writer:
            for start in range(0, len(values), group):
                part = np.ascontiguousarray(values[start : start + group])
                if samples is None or tokens is None:
                    columns = carried.slice(start, len(part)).columns
                else:
                    chosen = pa.array(samples[start : start + group])
                    columns = [*carried.take(chosen).columns, pa.array(tokens[start : start + group])]
                flat = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), values.shape[1])
                writer.write_table(pa.table([*columns, flat], schema=schema))

    place.write(write)


def _schema(carried: pa.Table, width: int, has_tokens: bool) -> pa.Schema:
    # A column of nothing has no type; texts are what it most likely lacks.
    fields = [pa.field(one.name, pa.string() if pa.types.is_null(one.type) else one.type) for one in carried.schema]
    fields += [pa.field(TOKEN, pa.int64())] if has_tokens else []
    return pa.schema([*fields, pa.field(EMBEDDING, pa.list_(pa.float32(), width))])


def _positions(samples: np.ndarray) -> np.ndarray:
    """(n,) int64, the place of each token among those of its row, which lie together."""
    starts = np.flatnonzero(np.diff(samples, prepend=-1))
    counts = np.diff(np.append(starts, len(samples)))
    return np.arange(len(samples)) - np.repeat(starts, counts)


def read_facts(place: Place) -> JsonObject:
    """The facts in a Parquet file of this module; none in one of others."""
    with place.open() as file:
        metadata = pq.read_schema(file).metadata or {}
    facts: JsonObject = json.loads(metadata.get(METADATA, b"{}"))
    return facts


def write_joined(place: Place, shards: Sequence[Place], facts: JsonView) -> int:
    """Write the rows of all shards, in this order, as one file.

    Args:
        place: A `.parquet` file, or a `.npy` file of the features beside which the other columns become `NAME.rows.parquet`.
        shards: Parquet files of `write_shard`.
        facts: Facts about the table, kept in the Parquet file.

    Returns:
        The number of rows.
    """
    if place.name.endswith(".npy"):
        _write_joined_table(rows_place(place), shards, facts, without=(EMBEDDING,))
        counted = []
        place.write(lambda path: counted.append(_write_array(path, shards)))
        return counted[0]
    return _write_joined_table(place, shards, facts)


def rows_place(place: Place) -> Place:
    """The file of the other columns beside a `.npy` file of features."""
    return place.beside(place.name.removesuffix(".npy") + ".rows.parquet")


def _write_joined_table(place: Place, shards: Sequence[Place], facts: JsonView, without: Sequence[str] = ()) -> int:
    counts = []

    def write(path: Path) -> None:
        writer: pq.ParquetWriter | None = None
        for batch in _batches(shards, without):
            if writer is None:
                schema = batch.schema.with_metadata({METADATA: json.dumps(facts)})
                writer = pq.ParquetWriter(path, schema)
            # A column may be of texts alone in one shard and empty in another.
            writer.write_batch(batch.cast(writer.schema) if batch.schema != writer.schema else batch)
            counts.append(batch.num_rows)
        if writer is None:
            raise ValueError("there are no features to write: no row is left")
        writer.close()

    place.write(write)
    return sum(counts)


def _write_array(path: Path, shards: Sequence[Place]) -> int:
    # `RowStore` writes under a name of its own first; this path is such a name already.
    final = path.with_suffix(".npy")
    with RowStore(final, 0) as store:
        for batch in _batches(shards, (), [EMBEDDING]):
            store.append(matrix(batch.column(EMBEDDING)))
        store.finish()
        final.replace(path)
        return len(store)


def _batches(
    shards: Sequence[Place], without: Sequence[str], only: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    for shard in shards:
        with shard.open() as file:
            parquet = pq.ParquetFile(file)
            names = [name for name in only or parquet.schema_arrow.names if name not in without]
            for batch in parquet.iter_batches(columns=names):
                if batch.num_rows:
                    yield batch


def matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n, D) float32 of a column of lists of one length."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: np.ndarray = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), -1).astype(np.float32, copy=False)
