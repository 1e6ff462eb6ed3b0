"""Strings, lists of words, sentence pairs and lists of ids, turned into token ids."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..tables.rows import Rows

ENCODED_CHARACTERS = 2**20  # given to a tokenizer at once


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as ids.

    Attributes:
        ids: (N,) integers for each row.
        full_lengths: Number of ids of each text before anything was cut or added.
        segments: (N,) int8 for each row, 0 for the first text and 1 for the second; None where the model takes none.
    """

    ids: list[np.ndarray]
    full_lengths: list[int]
    segments: list[np.ndarray] | None = None


@dataclass(frozen=True)
class TextPreparer:
    """A callable that turns the text of each row into ids no longer than `max_length`.

    A single text gets no token in front: the model has its own class token, or none. It ends with a separator where
    the tokenizer does no more than append one (the byte tokenizer). A pair gets all special tokens of its tokenizer, and under
    `framed` a single text does too.

    Attributes:
        columns: Name of the column of the text, or names of the two columns of a sentence pair.
        tokenizer: Tokenizer of the text; None where the column holds ids.
        max_length: Number of tokens beyond which a text is cut, keeping the separator; None cuts nothing.
        split: Name of the split, for errors.
        framed: Whether texts get all special tokens, [CLS] A [SEP] for BERT's, and the segment of each token.
    """

    columns: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase | None
    max_length: int | None
    split: str
    framed: bool = False

    @property
    def room(self) -> int | None:
        """The number of tokens of a single text that are kept."""
        if self.max_length is None:
            return None
        return max(0, self.max_length - sum(map(len, self.frame)))

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The ids put before and after a single text."""
        if self.framed:
            return added_tokens(self.tokenizer)
        separator = appended_separator(self.tokenizer)
        return [], [] if separator is None else [separator]

    def __call__(self, batch: Rows, indices: Sequence[int]) -> "TokenizedTexts":
        """Ids of each row.

        Raises:
            ValueError: A row without text, or text and tokenizer that do not go together, naming split, row, column.
        """
        if len(self.columns) > 1:
            return self._pairs(batch, indices)
        full = self.uncut(batch, indices)
        room, (front, back) = self.room, self.frame
        kept = [ids[:room] for ids in full]
        if front or back:
            kept = [np.concatenate([front, ids, back]).astype(np.int32) for ids in kept]
        segments = [np.zeros(len(ids), dtype=np.int8) for ids in kept] if self.has_segments else None
        return TokenizedTexts(kept, [len(ids) for ids in full], segments)

    @property
    def has_segments(self) -> bool:
        """Whether rows have `token_type_ids`."""
        return self.framed and self.tokenizer is not None

    def uncut(self, batch: Rows, indices: Sequence[int]) -> list[np.ndarray]:
        """All ids of single texts, without special tokens.

        Raises:
            ValueError: A row without text, or text and tokenizer that do not go together, naming split, row, column.
        """
        column = self.columns[0]
        values = self._texts(batch, indices, column)
        if self.tokenizer is None:
            return [self._ids(value, index, column) for value, index in zip(values, indices, strict=True)]
        full = list(encoded_texts(self.tokenizer, values))
        self._refuse_unknown(full, values, indices)
        return full

    def _pairs(self, batch: Rows, indices: Sequence[int]) -> "TokenizedTexts":
        first, second = (self._texts(batch, indices, column) for column in self.columns)
        if self.tokenizer is None or not self.tokenizer.num_special_tokens_to_add(pair=True):
            raise ValueError(
                f"data.input_column {list(self.columns)}: a sentence pair needs a data.tokenizer that puts a "
                "separator between the sentences, such as 'utf-8'"
            )
        options = {"truncation": self.max_length is not None, "max_length": self.max_length, "verbose": False}
        options["return_token_type_ids"] = self.has_segments
        encoded = self.tokenizer(first, second, return_attention_mask=False, **options)
        pairs = [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        special = [token for token in self.tokenizer.all_special_ids if token != self.tokenizer.unk_token_id]
        texts = [ids[~np.isin(ids, special)] for ids in pairs]
        self._refuse_unknown(texts, [" ".join(both) for both in zip(first, second, strict=True)], indices)
        segments = None
        if self.has_segments:
            segments = [np.asarray(ids, dtype=np.int8) for ids in encoded["token_type_ids"]]
        return TokenizedTexts(pairs, [len(ids) for ids in pairs], segments)

    def _texts(self, batch: Rows, indices: Sequence[int], column: str) -> list[Any]:
        """The values of a column, lists of words joined by blanks."""
        values = []
        for value, index in zip(batch[column], indices, strict=True):
            is_missing = value is None or (value in ("", []) and len(self.columns) == 1)
            if is_missing:
                raise ValueError(f"{self._where(index, column)}: the sequence is {value!r}: drop empty rows")
            if isinstance(value, list) and any(isinstance(word, str) for word in value):
                if None in value:
                    raise ValueError(f"{self._where(index, column)}: a word is missing in {value!r:.60}")
                value = join_words(value)
            if isinstance(value, str) != (self.tokenizer is not None):
                advice = (
                    "name its data.tokenizer or data.alphabet"
                    if isinstance(value, str)
                    else "remove data.tokenizer and data.alphabet, which are for text"
                )
                if isinstance(
                    value, int | float
                ):  # a column of codes is one of numbers to CSV, which drops their zeros
                    advice += "; or, where the numbers are texts, store them as strings (Parquet, JSON)"
                raise ValueError(f"{self._where(index, column)} holds {type(value).__name__} {value!r:.60}: {advice}")
            values.append(value)
        return values

    def _ids(self, value: object, index: int, column: str) -> np.ndarray:
        ids = np.asarray(value)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"{self._where(index, column)}: expected a list of integer ids, got {value!r:.60}")
        # The type is not narrower, because an id far outside the vocabulary must not wrap into it.
        return ids.astype(np.int64)

    def _refuse_unknown(self, full: list[np.ndarray], values: list[str], indices: Sequence[int]) -> None:
        unknown = None if self.tokenizer is None else self.tokenizer.unk_token_id
        for ids, value, index in zip(full, values, indices, strict=True):
            if len(ids) == 0:
                raise ValueError(f"{self._where(index, *self.columns)}: {value!r:.60} gives no token: drop such rows")
            if unknown is not None and (ids == unknown).all():
                raise ValueError(
                    f"{self._where(index, *self.columns)}: the tokenizer knows nothing of {value!r:.60}: check "
                    "data.alphabet or data.tokenizer (upper and lower case differ)"
                )

    def _where(self, index: int, *columns: str) -> str:
        return row_place(self.split, index, *columns)


def encoded_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[np.ndarray]:
    """The ids (N,) int32 of each text, without special tokens.

    The tokenizers library takes a hundred bytes and more for a token, so it is given about a million characters at once,
    which may be many texts, one long one or, where tokens are bytes, a part of one.
    """
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    start = 0
    while start < len(texts):
        if len(texts[start]) > ENCODED_CHARACTERS and is_bytewise(tokenizer):
            text = texts[start]
            parts = [text[at : at + ENCODED_CHARACTERS] for at in range(0, len(text), ENCODED_CHARACTERS)]
            found = [np.asarray(tokenizer(part, **options)["input_ids"], dtype=np.int32) for part in parts]
            yield np.concatenate(found)
            start += 1
            continue
        end, size = start + 1, len(texts[start])
        while end < len(texts) and size + len(texts[end]) <= ENCODED_CHARACTERS:
            size += len(texts[end])
            end += 1
        for ids in tokenizer(texts[start:end], **options)["input_ids"]:
            yield np.asarray(ids, dtype=np.int32)
        start = end


def is_bytewise(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every byte is a token whatever stands beside it, as in `build_byte_tokenizer`."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    split = state["pre_tokenizer"] or {}
    splits_nothing = split.get("type") == "ByteLevel" and not split["use_regex"] and not split["add_prefix_space"]
    has_merges = state["model"].get("type") != "BPE" or bool(state["model"]["merges"])
    return splits_nothing and not has_merges and state["normalizer"] is None


def join_words(value: Any) -> Any:
    """A list of words as one text; anything else as it is."""
    return " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else value


def row_place(split: str, index: int, *columns: str) -> str:
    """Split, row and column(s) for an error."""
    names = repr(columns[0]) if len(columns) == 1 else f"{columns[0]!r}..{columns[-1]!r}"
    return f"{split} split, row {index}, column {names}"


def appended_separator(tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """The separator that a tokenizer puts after a text, with nothing in front; None where it adds anything else."""
    if tokenizer is None or tokenizer.sep_token_id is None:
        return None
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    return tokenizer.sep_token_id if tokenizer("a")["input_ids"] == [*plain, tokenizer.sep_token_id] else None


def added_tokens(tokenizer: PreTrainedTokenizerBase | None) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and after a text."""
    if tokenizer is None:
        return [], []
    plain, framed = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return framed[:start], framed[start + len(plain) :]
    raise ValueError(
        f"data.tokenizer: it does not put special tokens around a text: 'a' is {plain}, with them {framed}"
    )


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> list[object] | None:
    """All settings that decide a tokenizer's result, as values JSON can write."""
    if tokenizer is None:
        return None
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    state = json.loads(tokenizer.backend_tokenizer.to_str()) if isinstance(tokenizer, PreTrainedTokenizerFast) else {}
    # Truncation and padding are left over from the last call and are no settings.
    state = {name: state[name] for name in state if name not in ("truncation", "padding")}
    return [vocabulary, state, tokenizer.split_special_tokens]
