"""The documents to which a text's rows belong, and texts whose documents are cut short."""

import logging
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..tables.sources import choose_rows
from .arguments import MaskedTextArguments

READ_ROWS = 2**16
# Line endings that do not break off in the middle of a sentence.
LINE_ENDS = list(".!?:;\"')]”’…»。！？")
# A limited split is taken from at least this number of documents, where there are as many.
FEWEST_DOCUMENTS = 10

logger = logging.getLogger(__name__)


def runs_of_rows(dataset: Dataset, args: MaskedTextArguments) -> np.ndarray:
    """(rows,) integers, the number of each raw row's document; a blank line of a text file belongs to the row after it.

    Raises:
        ValueError: `document_column` does not hold one value per row.
    """
    # Half the memory of int64, where that is enough.
    dtype = np.int32 if len(dataset) <= np.iinfo(np.int32).max else np.int64
    if args.document_column is not None:
        return np.cumsum(_is_new_value(dataset, args.document_column), dtype=dtype)
    if args.reads_lines:
        return np.cumsum(_is_blank(dataset, str(args.input_column)), dtype=dtype)
    return np.arange(len(dataset), dtype=dtype)


def _is_blank(dataset: Dataset, column: str) -> np.ndarray:
    """(rows,) bool, whether the text of a row is missing, empty or all blanks."""
    parts = [np.zeros(0, dtype=bool)]
    for values in column_blocks(dataset, column):
        is_blank = pc.or_(pc.equal(pc.binary_length(values), 0), pc.utf8_is_space(values))
        parts.append(is_blank.fill_null(True).to_numpy())
    return np.concatenate(parts)


def _is_new_value(dataset: Dataset, column: str) -> np.ndarray:
    """(rows,) bool, whether a row's value differs from that of the row before; False for the first row."""
    parts, last = [np.zeros(min(1, len(dataset)), dtype=bool)], None
    for block in column_blocks(dataset, column):
        if pa.types.is_nested(block.type):
            raise ValueError(f"data.document_column {column!r}: expected one value per row, got {block.type}")
        # Arrow cannot compare columns that hold nulls alone.
        block = block.cast(pa.int8()) if pa.types.is_null(block.type) else block
        values = block if last is None else pa.chunked_array([*last.chunks, *block.chunks], block.type)
        last = values.slice(len(values) - 1)
        before, after = values.slice(0, len(values) - 1), values.slice(1)
        # Two nulls are equal here; Arrow's comparison gives null.
        differs = pc.not_equal(before, after).fill_null(False)
        parts.append(pc.or_(differs, pc.xor(before.is_null(), after.is_null())).to_numpy())
    return np.concatenate(parts)


def column_blocks(dataset: Dataset, column: str) -> Iterator[pa.ChunkedArray]:
    """A raw column, piece by piece: it may be larger than the memory."""
    for block in dataset.select_columns([column]).with_format("arrow").iter(batch_size=READ_ROWS):
        yield block[column]


def limit_documents(splits: dict[str, Dataset], args: MaskedTextArguments) -> dict[str, Dataset]:
    """At most `max_<split>_samples` rows of each split: the beginnings of documents drawn by `split_seed`, in their order.

    Blank lines of text files do not count; one stays before each document.
    """
    limited = {}
    for role, split in splits.items():
        limit = args.max_samples[role]
        if limit is None or limit >= len(split):
            limited[role] = split
        elif args.document_column is None and not args.reads_lines:
            limited[role] = choose_rows(split, limit, args.split_seed)
        else:
            is_blank = np.zeros(len(split), dtype=bool)
            if args.document_column is None:
                is_blank = _is_blank(split, str(args.input_column))
            rows = np.flatnonzero(~is_blank)
            chosen = rows[_first_rows(runs_of_rows(split, args)[rows], limit, args.split_seed)]
            separators = chosen[(chosen > 0) & is_blank[chosen - 1]] - 1
            limited[role] = split.select(np.sort(np.concatenate([chosen, separators])))
    return limited


def _first_rows(documents: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Sorted numbers of `limit` rows, or of all where there are fewer, from the beginnings of documents."""
    limit = min(limit, len(documents))
    firsts = np.flatnonzero(np.diff(documents, prepend=-1))
    lengths = np.diff(firsts, append=len(documents))
    most = max(1, -(-limit // FEWEST_DOCUMENTS))
    while np.minimum(lengths, most).sum() < limit:
        most *= 2
    order = np.random.default_rng(seed).permutation(len(firsts))
    taken = np.minimum(lengths, most)[order]
    taken = np.minimum(taken, np.maximum(0, limit - (np.cumsum(taken) - taken)))
    places = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    return np.sort(np.repeat(firsts[order], taken) + places)


def warn_of_wrapped_text(dataset: Dataset, args: MaskedTextArguments, split: str) -> None:
    """Warn of text files most of whose lines break off in the middle of a sentence: every line is read as a paragraph."""
    if not args.reads_lines:
        return
    num_lines = num_open = 0
    for values in column_blocks(dataset, str(args.input_column)):
        last = pc.utf8_slice_codeunits(pc.utf8_rtrim_whitespace(values), -1).cast(pa.string())
        last = last.filter(pc.not_equal(last, ""))
        num_lines += len(last)
        num_open += pc.sum(pc.invert(pc.is_in(last, pa.array(LINE_ENDS)))).as_py() or 0
    if 2 * num_open > num_lines:
        logger.warning(
            "%s split: %d of %d lines do not end a sentence: is the text wrapped? Put each paragraph on one line",
            split,
            num_open,
            num_lines,
        )
