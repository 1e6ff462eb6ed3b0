"""Tables of numbers: HIGGS and YearPredictionMSD."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.types as pa_types

from .cuts import SEED, SHARE, placed, shuffled
from .raw import RawFolder
from .record import Rows

HIGGS_FEATURES, YEAR_FEATURES = 28, 90
TEST_ROWS = {"higgs": 500_000, "year": 51_630}  # the last rows of the release
YEAR_VALID = 92_743  # number of validation rows in Gorishniy et al. 2021


def higgs(raw: RawFolder) -> Iterator[Rows]:
    """DABS's cut: nine tenths to pre-train on, the last tenth to probe, each shuffled and cut 90 / 10."""
    count = _count(raw, "HIGGS.csv", HIGGS_FEATURES)
    head = math.ceil(SHARE * count)
    splits = ["held_out"] * count
    for first, last, names in ((0, head, ("train", "held_out")), (head, count, ("probe", "test"))):
        size = math.ceil(SHARE * (last - first))
        splits[first:last] = placed(shuffled(last - first), names, size)
    yield from _higgs_rows(raw, splits)


def higgs_sma(raw: RawFolder) -> Iterator[Rows]:
    """The release's own cut: its last 500,000 rows are the test."""
    count = _count(raw, "HIGGS.csv", HIGGS_FEATURES)
    test = min(TEST_ROWS["higgs"], count // 10)  # a small file keeps training rows
    yield from _higgs_rows(raw, ["train"] * (count - test) + ["test"] * test)


def year(raw: RawFolder) -> Iterator[Rows]:
    """The release's own test, the last rows, and Gorishniy et al.'s share of the others for validation."""
    count = _count(raw, "YearPredictionMSD.txt", YEAR_FEATURES)
    test = min(TEST_ROWS["year"], count // 10)
    valid = min(YEAR_VALID, (count - test) // 5)
    splits = placed(shuffled(count - test, SEED), ("valid", "train"), valid) + ["test"] * test
    names = [f"timbre_{number:02}" for number in range(1, YEAR_FEATURES + 1)]
    for split, values in _cut_batches(raw, "YearPredictionMSD.txt", YEAR_FEATURES, splits):
        columns: Mapping[str, np.ndarray] = {"year": values[:, 0].astype(np.int64)} | {
            name: values[:, 1 + place] for place, name in enumerate(names)
        }
        yield Rows(split, pa.RecordBatch.from_pydict({name: pa.array(column) for name, column in columns.items()}))


def _higgs_rows(raw: RawFolder, splits: Sequence[str]) -> Iterator[Rows]:
    for split, values in _cut_batches(raw, "HIGGS.csv", HIGGS_FEATURES, splits):
        inputs = pa.ListArray.from_arrays(
            pa.array(np.arange(0, values[:, 1:].size + 1, HIGGS_FEATURES, dtype=np.int32)),
            pa.array(np.ascontiguousarray(values[:, 1:]).ravel()),
        )
        label = pa.array(values[:, 0].astype(np.int64))
        yield Rows(split, pa.RecordBatch.from_arrays([inputs, label], names=["inputs", "label"]))


def _batches(raw: RawFolder, name: str, features: int) -> Iterator[pa.RecordBatch]:
    """The rows of a table without a header, in its order; `.gz` as it is released, or unpacked.

    Raises:
        ValueError: Another number of columns, or a cell that is no number.
    """
    path = raw.find(name, f"{name}.gz")
    options = pa_csv.ReadOptions(autogenerate_column_names=True)
    with pa_csv.open_csv(path, read_options=options) as reader:
        for batch in reader:
            if batch.num_columns != features + 1:
                raise ValueError(f"expected the label and {features} features, got {batch.num_columns} columns")
            for column in batch.schema:
                if not (pa_types.is_floating(column.type) or pa_types.is_integer(column.type)):
                    raise ValueError(f"column {column.name[1:]}: expected numbers, got {column.type}")
            yield batch


def _count(raw: RawFolder, name: str, features: int) -> int:
    return sum(batch.num_rows for batch in _batches(raw, name, features))


def _cut_batches(raw: RawFolder, name: str, features: int, splits: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(rows, label and features) float32 of each split, batch by batch."""
    names = sorted(set(splits) - {"held_out"})
    codes = np.array([names.index(split) if split != "held_out" else -1 for split in splits], dtype=np.int8)
    start = 0
    for batch in _batches(raw, name, features):
        values = np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], axis=1)
        unlabelled = np.flatnonzero(~np.isfinite(values[:, 0].astype(np.float64)))
        if len(unlabelled):
            raise ValueError(f"row {start + int(unlabelled[0])}: the label, in the first column, is empty")
        own = codes[start : start + len(values)]
        start += len(values)
        for code, split in enumerate(names):
            chosen = values[own == code].astype(np.float32)
            if len(chosen):
                yield split, chosen
