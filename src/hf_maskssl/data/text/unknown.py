"""A warning about text that a tokenizer does not know.

It follows from raw and prepared rows, not from what happens while rows are prepared: it is the same with any number of
processes, and is given again where the prepared rows come from the cache.
"""

import logging
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .texts import join_words

NAMED = 5

logger = logging.getLogger(__name__)


def count_token(table: Dataset, token: int) -> np.ndarray:
    """(rows,) integers, the count of a token in the `input_ids` of each row."""
    counts = [np.zeros(0, dtype=np.int64)]
    for batch in table.with_format("arrow")[:].to_batches():
        ids = batch.column("input_ids")
        owners = np.repeat(np.arange(len(ids)), ids.value_lengths().to_numpy())
        counts.append(np.bincount(owners[ids.flatten().to_numpy() == token], minlength=len(ids)))
    return np.concatenate(counts)


def warn_of_unknown(
    counts: np.ndarray, raw: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, split: str
) -> None:
    """Warn of tokens that stand for text unknown to the tokenizer, and name the first; silent where there are none.

    Args:
        counts: (rows,) number of such tokens in each row.
        raw: Raw rows, in which the text is looked up.
        columns: Names of the columns of the text.
        tokenizer: Tokenizer that does not know the text.
        split: Name of the split, for the warning.
    """
    rows = np.flatnonzero(counts)
    if len(rows):
        logger.warning(
            "%s split, column %s: %d tokens in %d of %d rows stand for text that the tokenizer does not know and "
            "become %s (rows %s ..., such as %s): check data.tokenizer (or data.alphabet)",
            split,
            " and ".join(map(repr, columns)),
            counts.sum(),
            len(rows),
            len(counts),
            tokenizer.unk_token,
            rows[:NAMED].tolist(),
            _unknown_parts(raw.select(rows[:NAMED]), columns, tokenizer),
        )


def _unknown_parts(raw: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The first stretches of text that become the unknown token; none where a tokenizer gives no places."""
    if not tokenizer.is_fast:
        return []
    parts: set[str] = set()
    for row in raw.select_columns(list(columns)):
        for text in (join_words(row[column]) for column in columns):
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            parts |= {text[start:end] for token, (start, end) in spans if token == tokenizer.unk_token_id}
        if len(parts) >= NAMED:  # a row may be a whole book
            break
    return sorted(parts)[:NAMED]
