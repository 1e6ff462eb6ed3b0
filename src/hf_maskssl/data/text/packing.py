"""Texts laid end to end and cut into sequences of full length."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from datasets import IterableDataset

from ..tables.caching import batch_rows_of, cached_map
from ..tables.empty_rows import WithoutEmpty
from ..tables.rows import Column, PreparedRows, Rows, to_table
from ..tables.sources import AnyDataset, column_names
from .texts import TextPreparer

PACK_ROWS = 1000


@dataclass
class TextPacker:
    """A callable that turns texts into sequences of exactly `length` tokens, each text followed by the separator.

    Every 1,000 texts the tokens that do not fill a sequence are dropped. Before that they are kept for the next batch, so that
    batches may be small; a stream, which may be resumed between any two, comes in batches of 1,000.

    Attributes:
        texts: Preparer that turns a text into ids.
        length: Number of tokens in a sequence.
        separator: Id between texts.
        as_table: Whether to give an Arrow table, which `Dataset.map` writes without looking at single values.
        row_numbers: Number that each row had before some were left out, for errors; None where none were.
        rest: Tokens of texts that fill no sequence yet, and the row of each text.
        taken: Number of texts since the rest was last dropped.
    """

    texts: TextPreparer
    length: int
    separator: int
    as_table: bool = False
    row_numbers: np.ndarray | None = None
    rest: list[tuple[np.ndarray, int]] = field(default_factory=list)
    taken: int = 0

    def __call__(self, batch: Rows, indices: Sequence[int]) -> pa.Table | dict[str, Column]:
        """Pack a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `input_ids` (n, length) int32 and `index` (n,) int64, the row in which the sequence begins.

        Raises:
            ValueError: A text that cannot be prepared, naming split, row and column.
        """
        names = indices if self.row_numbers is None else self.row_numbers[np.asarray(indices)].tolist()
        sequences, begins = [np.zeros((0, self.length), dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
        for ids, row in zip(self.texts.uncut(batch, names), indices, strict=True):
            self.rest.append((np.append(ids, self.separator).astype(np.int32), row))
            self.taken += 1
            if self.taken == PACK_ROWS:
                self._fill(sequences, begins)
                self.rest, self.taken = [], 0
        self._fill(sequences, begins)
        if not self.as_table:  # a stream
            self.rest, self.taken = [], 0
        packed: dict[str, Column] = {"input_ids": np.concatenate(sequences), "index": np.concatenate(begins)}
        return to_table(packed) if self.as_table else packed

    def _fill(self, sequences: list[np.ndarray], begins: list[np.ndarray]) -> None:
        """Move all full sequences of the rest to `sequences` (n, length), and the rows in which they begin to `begins`."""
        if not self.rest:
            return
        ends = np.cumsum([len(ids) for ids, _ in self.rest])
        count = int(ends[-1]) // self.length
        ids = np.concatenate([ids for ids, _ in self.rest])
        sequences.append(ids[: count * self.length].reshape(count, self.length))
        places = np.searchsorted(ends, np.arange(count) * self.length, side="right")
        begins.append(np.asarray([row for _, row in self.rest], dtype=np.int64)[places])
        first = int(np.searchsorted(ends, count * self.length, side="right"))
        left = self.rest[first:]
        if left:
            left[0] = (left[0][0][len(left[0][0]) - int(ends[first]) + count * self.length :].copy(), left[0][1])
        self.rest = left


def pack_split(
    dataset: AnyDataset,
    texts: TextPreparer,
    description: str,
    num_proc: int | None,
    row_numbers: np.ndarray | None = None,
) -> PreparedRows | IterableDataset:
    """Pack a split, once and kept, or as a stream passes.

    Args:
        dataset: The raw split.
        texts: Preparer that turns a text into ids; its `max_length` is the length of a sequence.
        description: Text that decides the result of `texts`.
        num_proc: Number of processes.
        row_numbers: Number that each row had before some were left out, for errors; None where none were.

    Raises:
        ValueError: A tokenizer without a separator, a text that cannot be prepared, or not enough text for one
            sequence.
    """
    length = texts.max_length or 0
    is_stream = isinstance(dataset, IterableDataset)
    packer = TextPacker(texts, length, _separator(texts), not is_stream, row_numbers)
    packed: PreparedRows | IterableDataset
    if isinstance(dataset, IterableDataset):
        packed = dataset.map(
            WithoutEmpty(packer, [texts.columns], texts.split),
            with_indices=True,
            batched=True,
            batch_size=PACK_ROWS,
            remove_columns=column_names(dataset),
        )
        is_empty = next(iter(packed.take(1)), None) is None
    else:
        # Each process packs its own share, so their number decides the result.
        key = f"{description} packed {PACK_ROWS} {packer.separator} {num_proc}"
        table = cached_map(dataset, packer, key, num_proc, min(PACK_ROWS, batch_rows_of(dataset, texts.columns[0])))
        packed = PreparedRows(table, {"input_ids": (length,)})
        is_empty = len(packed) == 0
    if is_empty:
        raise ValueError(
            f"data.pack: the texts of the {texts.split} split together do not fill one sequence of {length} tokens "
            "(model.max_position_embeddings): set data.pack to false"
        )
    return packed


def _separator(texts: TextPreparer) -> int:
    tokenizer = texts.tokenizer
    if tokenizer is None:
        raise ValueError("data.pack: a column of ids has no separator to put between texts; pack it beforehand")
    for token in (tokenizer.sep_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ValueError(
        "data.pack: this tokenizer has no separator to put between texts; name one that has, such as data.tokenizer "
        "'utf-8'"
    )
