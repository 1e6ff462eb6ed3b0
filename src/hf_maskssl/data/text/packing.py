"""Texts laid end to end and cut into sequences of full length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import IterableDataset

from ..tables.caching import cached_map
from ..tables.rows import Column, PreparedRows, Rows, to_table
from ..tables.sources import AnyDataset, column_names
from .texts import TextPreparer

PACK_ROWS = 1000


@dataclass(frozen=True)
class TextPacker:
    """A callable that turns a batch of texts into sequences of exactly `length` tokens, each text followed by the separator.

    The rest of a batch that does not fill a sequence is dropped.

    Attributes:
        texts: Preparer that turns a text into ids.
        length: Number of tokens in a sequence.
        separator: Id between texts.
        as_table: Whether to give an Arrow table, which `Dataset.map` writes without looking at single values.
    """

    texts: TextPreparer
    length: int
    separator: int
    as_table: bool = False

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
        rows = [np.append(ids, self.separator) for ids in self.texts.uncut(batch, indices)]
        count = sum(map(len, rows)) // self.length
        ids = np.concatenate(rows)[: count * self.length].reshape(count, self.length)
        ends = np.cumsum([len(row) for row in rows])
        begins = np.searchsorted(ends, np.arange(count) * self.length, side="right")
        packed: dict[str, Column] = {"input_ids": ids.astype(np.int32)}
        packed["index"] = np.asarray(indices, dtype=np.int64)[begins]
        return to_table(packed) if self.as_table else packed


def pack_split(
    dataset: AnyDataset, texts: TextPreparer, description: str, num_proc: int | None
) -> PreparedRows | IterableDataset:
    """Pack a split, once and kept, or as a stream passes.

    Args:
        dataset: The raw split.
        texts: Preparer that turns a text into ids; its `max_length` is the length of a sequence.
        description: Text that decides the result of `texts`.
        num_proc: Number of processes.

    Raises:
        ValueError: A tokenizer without a separator, a text that cannot be prepared, or not enough text for one
            sequence.
    """
    length = texts.max_length or 0
    packer = TextPacker(texts, length, _separator(texts), as_table=not isinstance(dataset, IterableDataset))
    packed: PreparedRows | IterableDataset
    if isinstance(dataset, IterableDataset):
        packed = dataset.map(
            packer, with_indices=True, batched=True, batch_size=PACK_ROWS, remove_columns=column_names(dataset)
        )
        is_empty = next(iter(packed.take(1)), None) is None
    else:
        # Each process packs its own share, so their number decides the result.
        key = f"{description} packed {PACK_ROWS} {packer.separator} {num_proc}"
        table = cached_map(dataset, packer, key, num_proc, PACK_ROWS)
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
