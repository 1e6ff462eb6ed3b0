"""Prepared splits: the interface of a kind's preparer, and the three forms in which its rows are kept."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset
from numpy import ndarray

from ..arguments import DataArguments
from .caching import BATCH_ROWS, cached_map
from .columns import undecoded
from .draws import DrawnByEpoch, remember_drawn
from .empty_rows import Inputs, WithoutEmpty, empty_reason, empty_rows
from .rows import Column, PreparedRows, Rows, TransformedRows, to_table
from .sources import AnyDataset, column_names
from .windows import WindowedRows

PreparedSplit: TypeAlias = PreparedRows | TransformedRows | IterableDataset
NAMED_ROWS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawSplit:
    """The usable raw rows of a split.

    Attributes:
        name: "train", "validation" or "test".
        rows: Rows that can be used.
        numbers: Number (n,) int64 that each row had before some were left out; None where none were.
        reason: Why they were left out, in words.
    """

    name: str
    rows: AnyDataset
    numbers: ndarray | None = None
    reason: str = "what cannot be read"


def filled_rows(rows: AnyDataset, inputs: Inputs, split: str) -> RawSplit:
    """A split without the rows whose input is empty, which a warning counts.

    Those of a stream are left out as they pass, see `WithoutEmpty`.

    Args:
        rows: Raw rows.
        inputs: The columns of the inputs.
        split: Name of the split, for messages.

    Raises:
        ValueError: All rows are empty.
    """
    if isinstance(rows, IterableDataset) or not inputs:
        return RawSplit(split, rows)
    empty = empty_rows(rows, inputs)
    first, reason = np.flatnonzero(empty), empty_reason(inputs)
    if len(first) == 0:
        return RawSplit(split, rows)
    if len(first) == len(rows):
        raise ValueError(f"{split} split: all {len(rows)} rows have {reason}: check data.input_column")
    logger.warning(
        "%s split: %d of %d rows have %s and are left out (rows %s%s)",
        split,
        len(first),
        len(rows),
        reason,
        ", ".join(map(str, first[:NAMED_ROWS])),
        ", ..." if len(first) > NAMED_ROWS else "",
    )
    kept = np.flatnonzero(~empty)
    return RawSplit(split, rows.select(kept), kept, reason)


class Preparer(ABC):
    """Turns raw rows into the model's inputs, a batch at a time.

    Attributes:
        split: Name of the split, for messages.
    """

    split: str = "train"

    @property
    @abstractmethod
    def used_columns(self) -> list[str]:
        """Every raw column read."""

    @property
    def inputs(self) -> Inputs:
        """The columns of the inputs whose rows may be empty; of a stream such rows are left out."""
        return ()

    @abstractmethod
    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            Key of a prepared row -> one value per row; `index` (n,) int64 among them.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """

    @abstractmethod
    def description(self) -> str:
        """Everything that decides the result, as text, which unlike a pickle of live objects is equal in every process."""

    def opened(self, dataset: AnyDataset) -> AnyDataset:
        """The used columns in the form that is quickest to read, where images and sounds have been left as bytes."""
        return dataset

    @property
    def is_drawn(self) -> bool:
        """Whether rows are drawn anew in every epoch, so that they cannot be kept."""
        return False

    def fixed(self) -> "Preparer":
        """The same preparer with nothing drawn at random."""
        return self

    def look_at(self, rows: PreparedRows, raw: Dataset) -> None:
        """Warn of faults that no single row shows; called once for a split whose prepared rows are kept."""
        return None


@dataclass(frozen=True)
class TablePreparer:
    """A preparer whose result is an Arrow table, which `map` writes without looking at single values."""

    prepare: Preparer

    def __call__(self, batch: Rows, indices: Sequence[int]) -> pa.Table:
        return to_table(self.prepare(batch, indices))


def prepare_split(dataset: AnyDataset, preparer: Preparer, args: DataArguments) -> PreparedSplit:
    """Prepare a raw split once and keep it (`cache`), on each reading (always where rows are drawn anew in each epoch), or as
    a stream passes.

    Args:
        dataset: The raw split.
        preparer: Preparer of the rows.
        args: `cache` and `num_proc` are read.

    Raises:
        ValueError: A value that cannot be prepared, naming split, row and column.
    """
    dataset = raw_columns(dataset, preparer)
    if isinstance(dataset, IterableDataset):
        stream = dataset.map(
            WithoutEmpty(preparer, preparer.inputs, preparer.split),
            with_indices=True,
            batched=True,
            batch_size=BATCH_ROWS,
            remove_columns=column_names(dataset),
        )
        if isinstance(preparer, DrawnByEpoch):
            remember_drawn(stream, preparer)
        return stream
    if preparer.is_drawn or not args.cache:
        return TransformedRows(dataset, preparer)
    # Every sample of a kind has the same shape, which the first row shows.
    first = preparer(dataset[:1], [0])
    shapes = {
        name: values.shape[1:] for name, values in first.items() if isinstance(values, ndarray) and values.ndim > 1
    }
    rows = PreparedRows(cached_map(dataset, TablePreparer(preparer), preparer.description(), args.num_proc), shapes)
    preparer.look_at(rows, dataset)
    return rows


def plain_rows(split: PreparedSplit) -> PreparedSplit:
    """The same rows with nothing drawn at random, as in validation and test; probes and pictures read these."""
    if isinstance(split, WindowedRows):
        return split.fixed()
    if isinstance(split, TransformedRows) and isinstance(split.prepare, Preparer) and split.prepare.is_drawn:
        return TransformedRows(split.dataset, split.prepare.fixed(), split.chosen)
    return split


def raw_columns(dataset: AnyDataset, preparer: Preparer) -> AnyDataset:
    """The columns the preparer reads, images and sounds as bytes."""
    return preparer.opened(undecoded(dataset.select_columns(preparer.used_columns), preparer.used_columns))
