"""A warning about text that a tokenizer does not know."""

import logging

import numpy as np
from datasets import Dataset

from ..tables.rows import PreparedRows
from .texts import TextPreparer, join_words

NAMED_ROWS = 5

logger = logging.getLogger(__name__)


def warn_of_unknown(rows: PreparedRows, texts: TextPreparer, raw: Dataset) -> None:
    """Count the tokens that stand for text unknown to the tokenizer, and name the first, once for a split.

    Args:
        rows: Prepared rows, in the order of the raw ones.
        texts: What prepared them.
        raw: Where the unknown text is looked up.
    """
    tokenizer = texts.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    if tokenizer is None or unknown is None:
        return
    count, affected, start = 0, [np.zeros(0, dtype=np.int64)], 0
    for batch in rows.table.with_format("arrow")[:].to_batches():
        ids = batch.column("input_ids")
        lengths = ids.value_lengths().to_numpy()
        is_unknown = ids.flatten().to_numpy() == unknown
        affected.append(start + np.unique(np.repeat(np.arange(len(ids)), lengths)[is_unknown]))
        count += int(is_unknown.sum())
        start += len(ids)
    if count:
        found = np.concatenate(affected)
        logger.warning(
            "%s split, column %s: %d tokens in %d of %d rows stand for text that the tokenizer does not know and "
            "become %s (rows %s ..., such as %s): check data.alphabet or data.tokenizer",
            texts.split,
            " and ".join(map(repr, texts.columns)),
            count,
            len(found),
            start,
            tokenizer.unk_token,
            found[:NAMED_ROWS].tolist(),
            _unknown_parts(texts, raw.select(found[:NAMED_ROWS])),
        )


def _unknown_parts(texts: TextPreparer, raw: Dataset) -> list[str]:
    """The stretches of these rows that become the unknown token; none where a tokenizer does not tell."""
    tokenizer = texts.tokenizer
    if tokenizer is None or not tokenizer.is_fast:
        return []
    parts = set()
    for column in texts.columns:
        for value in map(join_words, raw[column]):
            encoded = tokenizer(value, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            parts |= {value[start:end] for token, (start, end) in spans if token == tokenizer.unk_token_id}
    return sorted(parts)
