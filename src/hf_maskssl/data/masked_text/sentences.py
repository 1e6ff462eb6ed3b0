"""Texts as sentences of pieces, each piece with the task of its word: the source of masked text."""

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, LargeList, List, Value
from numpy.typing import DTypeLike
from transformers import BatchEncoding, PreTrainedConfig, PreTrainedTokenizerBase

from ...methods.optional_fields import wants_words
from ...models.configuration_pos_minimax_bert import ANY_WORD
from ..tables.caching import batch_rows_of, cached_map
from ..tables.rows import Rows
from ..text.texts import describe_tokenizer, row_place
from ..text.unknown import NAMED, warn_of_unknown
from .arguments import MaskedTextArguments
from .documents import column_blocks, runs_of_rows, warn_of_wrapped_text
from .parts_of_speech import NO_TASK, task_ids, warn_of_unknown_tags
from .pos_tagging import sentence_spans, tag_values, tagger_digest, word_spans
from .rows import NUM_SPECIAL_PAIR, NUM_SPECIAL_SINGLE, MaskedTextRows, special_token_ids

# Part of every cache key: raise it when sentences change, so that old caches are not taken for new ones.
SENTENCES_VERSION = 4
# Columns of rows that are strings with tags: first character of each word, and one past its last.
WORD_STARTS, WORD_ENDS = "word_starts", "word_ends"
# A row for each raw row.
SCHEMA = pa.schema(
    {
        # All its sentences, one after the other: pieces, the tasks of their words, and where words begin.
        "input_ids": pa.list_(pa.int32()),
        "tasks": pa.list_(pa.int8()),
        "starts": pa.list_(pa.int8()),
        # Pieces in each sentence.
        "lengths": pa.list_(pa.int32()),
        # Number of [UNK], those in sentences that were left out among them.
        "unknown": pa.int32(),
    }
)

logger = logging.getLogger(__name__)


class Sentence(NamedTuple):
    """A sentence before it is cut into pieces.

    Attributes:
        row: Raw row number.
        text: Sentence in the form that the tokenizer gets.
        spans: (start, end) of each word in `text`, in order; None leaves the words to the tokenizer.
        tags: Part of speech of each word; None where words need none.
    """

    row: int
    text: str
    spans: list[tuple[int, int]] | None
    tags: list[str] | None


@dataclass(frozen=True)
class SentencePreparer:
    """Callable that turns raw rows into a table of their sentences, for `Dataset.map`.

    Attributes:
        column: The column of strings or lists of words.
        tokenizer: A fast tokenizer.
        tasks: The configuration's `tasks`.
        room: Number of pieces in a row; longer sentences are cut, between words where possible.
        tag_column: The column of tags.
        tagger: Whether words are found and tagged here.
        has_spans: Whether strings have their words in the columns `word_starts` and `word_ends`.
        tag_names: Names of tags that are stored as numbers; None where they are strings.
        split: Name of the split, for errors.
    """

    column: str
    tokenizer: PreTrainedTokenizerBase
    tasks: tuple[str, ...]
    room: int
    tag_column: str | None = None
    tagger: str | None = None
    has_spans: bool = False
    tag_names: tuple[str, ...] | None = None
    split: str = "train"

    @property
    def needs_tags(self) -> bool:
        """Whether the task of a word follows from its tag."""
        return self.tasks != (ANY_WORD,)

    @property
    def uses_nltk(self) -> bool:
        """Whether NLTK finds sentences or words, where rows are strings."""
        return self.tagger is not None or not (self.needs_tags or self.has_spans)

    @property
    def used_columns(self) -> list[str]:
        """Every raw column read."""
        tags = [self.tag_column] if self.tag_column is not None and self.needs_tags else []
        return list(dict.fromkeys([self.column, *tags, *([WORD_STARTS, WORD_ENDS] if self.has_spans else [])]))

    def __call__(self, batch: Rows, indices: Sequence[int]) -> pa.Table:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            A row for each raw row, as `SCHEMA`: `input_ids` of its sentences without special tokens; `tasks` of the pieces'
            words, -1 for none; `starts`, 1 where a word begins; `lengths` of its sentences, from which those that hold
            nothing but [UNK] are left out; `unknown`, the number of [UNK]. Rows without text have no sentence.

        Raises:
            ValueError: A value that is no text, or tags that do not fit their words, naming split, row and column.
            TaggerDataError: The tagger's data is not there.
        """
        for index, value in zip(indices, batch[self.column], strict=True):
            self._check_text(index, value)
        sentences = self._tagged(batch, indices) if self.tagger is not None else self._given(batch, indices)
        if not sentences:
            return pa.table([[[]] * len(indices)] * 4 + [[0] * len(indices)], schema=SCHEMA)
        return self._table(sentences, indices)

    def description(self) -> str:
        """All that decides the result, as text."""
        nltk = None
        if self.uses_nltk:
            with contextlib.suppress(PackageNotFoundError):  # rows that are lists of words do without it
                nltk = version("nltk")
        settings = [
            SENTENCES_VERSION,
            self.column,
            self.tag_column,
            self.tagger,
            self.has_spans,
            self.tag_names,
            self.tasks,
            self.room,
            nltk,
            tagger_digest() if self.tagger is not None and self.needs_tags else None,
        ]
        return json.dumps([*settings, describe_tokenizer(self.tokenizer)], sort_keys=True)

    def _check_text(self, index: int, value: object) -> None:
        words = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(
                f"{row_place(self.split, index, self.column)}: expected a text or a list of words, got {value!r:.60}"
            )

    def _tagged(self, batch: Rows, indices: Sequence[int]) -> list[Sentence]:
        """Sentences whose words are found and tagged here."""
        values = [value or "" for value in batch[self.column]]
        if self.needs_tags:
            return [
                Sentence(index, one.text, list(zip(one.starts, one.ends, strict=True)), one.tags)
                for index, found in zip(indices, tag_values(values), strict=True)
                for one in found
            ]
        sentences = []
        for index, value in zip(indices, values, strict=True):
            if isinstance(value, list):
                sentences += self._of_words(index, value, None)
            else:
                texts = [value[start:end] for start, end in sentence_spans(value)]
                sentences += [Sentence(index, text, word_spans(text), None) for text in texts]
        return sentences

    def _given(self, batch: Rows, indices: Sequence[int]) -> list[Sentence]:
        """Sentences whose words and tags come with them, or are not needed."""
        all_tags = batch[self.tag_column] if self.needs_tags and self.tag_column is not None else None
        sentences: list[Sentence] = []
        for place, index in enumerate(indices):
            value = batch[self.column][place]
            tags = None if all_tags is None else all_tags[place]
            if not value:
                continue
            if isinstance(value, list):
                sentences += self._of_words(index, value, self._fitting(index, len(value), tags))
            elif self.has_spans:
                spans = self._spans(index, value, batch[WORD_STARTS][place], batch[WORD_ENDS][place])
                tags = self._fitting(index, len(spans), tags)
                sentences += [Sentence(index, value, spans, tags)] if value.strip() else []
            else:
                found = sentence_spans(value)
                sentences += [Sentence(index, value[start:end], None, None) for start, end in found]
        return sentences

    def _of_words(self, index: int, words: list[str], tags: list[str] | None) -> list[Sentence]:
        """A list of words as one sentence without its blank words; none where all are blank."""
        kept = [place for place, word in enumerate(words) if word.strip()]
        if not kept:
            return []
        spans, start = [], 0
        for place in kept:
            spans.append((start, start + len(words[place])))
            start += len(words[place]) + 1
        text = " ".join(words[place] for place in kept)
        return [Sentence(index, text, spans, None if tags is None else [tags[place] for place in kept])]

    def _fitting(self, index: int, num_words: int, tags: object) -> list[str] | None:
        """The tags of a row, one for each word; None where none are needed."""
        if not self.needs_tags:
            return None
        where = row_place(self.split, index, str(self.tag_column))
        names = self.tag_names
        if names is not None and isinstance(tags, list) and all(_is_number_below(tag, len(names)) for tag in tags):
            tags = [names[tag] for tag in tags]
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError(f"{where}: expected a list of tags, strings, got {tags!r:.60}: {self._advice(tags)}")
        if len(tags) != num_words:
            raise ValueError(f"{where}: {len(tags)} tags for the {num_words} words of column {self.column!r}")
        return tags

    def _advice(self, tags: object) -> str:
        """Advice for tags that are no list of strings."""
        if isinstance(tags, str):
            return "make it a list, one tag for each word (row.split())"
        if isinstance(tags, list) and any(isinstance(tag, int) for tag in tags):
            if self.tag_names is not None:
                return f"its ClassLabel has names for 0..{len(self.tag_names) - 1} only"
            return "numbers need names; cast the column to List(ClassLabel(names=...)), or store the names themselves"
        return "drop rows and words without tags, or tag the text again with examples/run_tag_pos.py"

    def _spans(
        self, index: int, text: str, starts: Sequence[int] | None, ends: Sequence[int] | None
    ) -> list[tuple[int, int]]:
        where = row_place(self.split, index, WORD_STARTS, WORD_ENDS)
        if starts is None or ends is None or len(starts) != len(ends):
            raise ValueError(f"{where}: expected two lists of equal length, got {starts!r:.40} and {ends!r:.40}")
        edges = np.stack([starts, ends], axis=1).reshape(-1) if len(starts) else np.zeros(0, dtype=np.int64)
        if len(edges) and (edges[0] < 0 or edges[-1] > len(text) or (np.diff(edges) < 0).any()):
            raise ValueError(
                f"{where}: expected words one after the other within {len(text)} characters, got {starts!r:.40} and {ends!r:.40}"
            )
        return list(zip(starts, ends, strict=True))

    def _table(self, sentences: list[Sentence], indices: Sequence[int]) -> pa.Table:
        texts = [sentence.text for sentence in sentences]
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            # A text that spells out "[MASK]" holds six characters.
            split_special_tokens=True,
            verbose=False,
        )
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        ids = _joined(encoded["input_ids"], np.int32)
        words, word_tasks = self._words(sentences, encoded, lengths)
        is_first = np.zeros(len(ids), dtype=bool)
        is_first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        tasks = (
            np.append(word_tasks, np.int8(NO_TASK))[words] if self.needs_tags else np.zeros(len(ids), dtype=np.int8)
        )
        starts = is_first | (words != np.roll(words, 1)) | (words < 0)
        cuts = cut_rows(lengths, starts, self.room)
        starts[cuts[:-1]] = True
        # A sentence of nothing but [UNK] teaches nothing.
        kept = np.logical_or.reduceat(~np.isin(ids, self.tokenizer.all_special_ids), cuts[:-1])
        kept_pieces = np.repeat(kept, np.diff(cuts))
        # The place in the batch of each piece's raw row.
        places = np.repeat(np.searchsorted(indices, [sentence.row for sentence in sentences]), lengths)
        num_pieces = np.bincount(places[kept_pieces], minlength=len(indices))
        num_sentences = np.bincount(places[cuts[:-1][kept]], minlength=len(indices))
        columns = [
            _lists(values[kept_pieces], num_pieces) for values in (ids, tasks.astype(np.int8), starts.astype(np.int8))
        ]
        columns.append(_lists(np.diff(cuts)[kept].astype(np.int32), num_sentences))
        unknown = np.bincount(places[ids == self.tokenizer.unk_token_id], minlength=len(indices))
        return pa.table([*columns, pa.array(unknown, pa.int32())], schema=SCHEMA)

    def _words(
        self, sentences: list[Sentence], encoded: BatchEncoding, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(pieces,) the word of each piece, -1 for none; and (words,) their tasks."""
        if sentences[0].spans is None:
            # None has spans: words are the tokenizer's, whose numbers begin anew in each sentence.
            own = [encoded.word_ids(number) for number in range(len(sentences))]
            sizes = [1 + max((word for word in row if word is not None), default=-1) for row in own]
            firsts = np.cumsum(sizes) - sizes
            flat = _joined([[-1 if word is None else word for word in row] for row in own], np.int64)
            words = np.where(flat < 0, -1, flat + np.repeat(firsts, lengths))
            return words, np.zeros(int(sum(sizes)), dtype=np.int8)
        bases = np.cumsum([0, *(len(sentence.text) + 1 for sentence in sentences)])[:-1]
        spans = [sentence.spans or [] for sentence in sentences]
        begins_and_ends = _joined([chain.from_iterable(row) for row in spans], np.int64).reshape(-1, 2)
        begins_and_ends += np.repeat(bases, [len(row) for row in spans])[:, None]
        places = _joined([chain.from_iterable(row) for row in encoded["offset_mapping"]], np.int64).reshape(-1, 2)
        places += np.repeat(bases, lengths)[:, None]
        tags = list(chain.from_iterable(sentence.tags or [] for sentence in sentences))
        if not self.needs_tags:
            return match_words(places, begins_and_ends), np.zeros(len(begins_and_ends), dtype=np.int8)
        return match_words(places, begins_and_ends), task_ids(tags, self.tasks)


def match_words(pieces: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The first word that each piece shares a character with.

    Args:
        pieces: (P, 2) first character of each, and one past its last.
        words: (W, 2) the same of words, one after the other.

    Returns:
        (P,) number of the word, -1 for none.
    """
    if len(words) == 0:
        return np.full(len(pieces), -1, dtype=np.int64)
    # The first word that ends after the piece begins.
    found = np.searchsorted(words[:, 1], pieces[:, 0], side="right")
    nearest = np.minimum(found, len(words) - 1)
    return np.where((found < len(words)) & (words[nearest, 0] < pieces[:, 1]), nearest, -1)


def cut_rows(lengths: np.ndarray, starts: np.ndarray, room: int) -> np.ndarray:
    """The beginnings of rows of at most `room` pieces: at each sentence that has pieces, and inside those too long for one.

    Args:
        lengths: (sentences,) pieces of each.
        starts: (pieces,) bool, whether a word begins.
        room: Number of pieces that a row has room for, at least 1.

    Returns:
        (rows + 1,) first piece of each row, and the number of all pieces.
    """
    ends = np.cumsum(lengths)
    cuts = [(ends - lengths)[lengths > 0]]
    for sentence in np.flatnonzero(lengths > room):
        begin, end = int(ends[sentence] - lengths[sentence]), int(ends[sentence])
        while end - begin > room:
            words = np.flatnonzero(starts[begin + 1 : begin + room + 1])
            begin += int(words[-1]) + 1 if len(words) else room
            cuts.append(np.array([begin]))
    return np.append(np.sort(np.concatenate(cuts)), lengths.sum())


def check_tagger(args: MaskedTextArguments, config: PreTrainedConfig) -> None:
    """Check that the tagger's data is there, if it is needed, before anything else is done.

    Raises:
        TaggerDataError: The data is missing.
    """
    if args.tagger is not None and list(config.tasks) != [ANY_WORD]:
        tagger_digest()


def masked_text_rows(
    dataset: Dataset,
    args: MaskedTextArguments,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
) -> MaskedTextRows:
    """A raw split as rows of masked language modelling, its sentences prepared once and kept.

    Args:
        dataset: The raw split.
        args: The recipe's data section.
        config: Configuration whose `tasks`, `next_sentence_prediction`, `vocab_size` and `max_position_embeddings` are read.
        tokenizer: A tokenizer of BERT, or the like.
        split: Name of the split, for messages.

    Raises:
        ValueError: Texts without tags where tasks need them, tags that do not fit, no text at all, or settings that do not
            fit the model or the tokenizer.
        TaggerDataError: The tagger's data is not there.
    """
    special_token_ids(tokenizer)
    if not tokenizer.is_fast:
        raise ValueError(
            f"data.tokenizer: {type(tokenizer).__name__} does not tell which characters a token stands for; name one of "
            "the tokenizers library"
        )
    has_pairs = config.next_sentence_prediction != "none"
    length = sequence_length(args, config)
    preparer = SentencePreparer(
        column=str(args.input_column),
        tokenizer=tokenizer,
        tasks=tuple(config.tasks),
        room=max(1, length - (NUM_SPECIAL_PAIR if has_pairs else NUM_SPECIAL_SINGLE)),
        tag_column=args.tag_column,
        tagger=args.tagger,
        has_spans=_has_spans(dataset, args, config),
        tag_names=_tag_names(dataset, args.tag_column),
        split=split,
    )
    return MaskedTextRows(
        sentence_table(dataset, preparer, args),
        runs_of_rows(dataset, args),
        tokenizer,
        vocab_size=config.vocab_size,
        max_length=length,
        next_sentence=has_pairs,
        split_seed=args.split_seed,
        mlm_probability=args.mlm_probability,
        mask_sampling=args.mask_sampling,
        num_maskings=args.num_maskings,
        short_sequence_probability=args.short_sequence_probability,
        split=split,
        gives_words=wants_words(config),
    )


def sequence_length(args: MaskedTextArguments, config: PreTrainedConfig) -> int:
    """Pieces in a sequence, special tokens included.

    Raises:
        ValueError: More than the model takes.
    """
    longest: int = config.max_position_embeddings
    if args.sequence_length is not None and args.sequence_length > longest:
        raise ValueError(
            f"data.sequence_length is {args.sequence_length}, but the model takes {longest} pieces "
            "(model.max_position_embeddings): make it smaller, or raise that"
        )
    return longest if args.sequence_length is None else args.sequence_length


def sentence_table(dataset: Dataset, preparer: SentencePreparer, args: MaskedTextArguments) -> Dataset:
    """The sentences of a raw split, as `SCHEMA`, found again in the datasets cache; warns of text and tags that do not fit.

    Raises:
        ValueError: A split that `masked_text_rows` refuses.
    """
    _check_tags(dataset, preparer)
    warn_of_wrapped_text(dataset, args, preparer.split)
    used = dataset.select_columns(preparer.used_columns).with_format(None)
    batch_rows = batch_rows_of(used, preparer.column)
    table = cached_map(used, preparer, preparer.description(), args.num_proc, batch_rows)
    columns = table.select_columns(["lengths", "unknown"]).with_format("arrow")[:]
    has_text = pc.greater(pc.list_value_length(columns["lengths"]), 0).to_numpy()
    warn_of_unknown(columns["unknown"].to_numpy(), used, [preparer.column], preparer.tokenizer, preparer.split)
    if not has_text.any():
        raise ValueError(
            f"the {preparer.split} split: none of its {len(dataset)} rows has text in column {preparer.column!r}, or none that "
            "data.tokenizer knows: check data.tokenizer (upper and lower case)"
        )
    if preparer.tag_column is not None and preparer.needs_tags:
        tags = count_tags(used, preparer.tag_column, preparer.tag_names or ())
        warn_of_unknown_tags(tags, preparer.split, preparer.tag_column)
    # Documents end at blank lines of text files.
    if not has_text.all() and not args.reads_lines:
        logger.warning(
            "%s split, column %r: %d of %d rows have no text (or none that the tokenizer knows) and are left out (rows %s%s)",
            preparer.split,
            preparer.column,
            int((~has_text).sum()),
            len(dataset),
            ", ".join(map(str, np.flatnonzero(~has_text)[:NAMED])),
            ", ..." if (~has_text).sum() > NAMED else "",
        )
    return table


def count_tags(dataset: Dataset, column: str, names: Sequence[str]) -> Counter[str]:
    """The count of each tag in a column of lists of tags, or of their numbers in `names`."""
    counts: Counter[str] = Counter()
    tag_of = dict(enumerate(names))
    for block in column_blocks(dataset, column):
        for found in pc.value_counts(pc.list_flatten(block).drop_null()).to_pylist():
            counts[tag_of.get(found["values"], str(found["values"]))] += found["counts"]
    return counts


def _check_tags(dataset: Dataset, preparer: SentencePreparer) -> None:
    if not preparer.needs_tags:
        return
    if preparer.tag_column is None and preparer.tagger is None:
        raise ValueError(
            "data.tag_column: the model's tasks are parts of speech, but the words have no tags: name the column that holds "
            "them, set data.tagger to 'nltk', or tag the text once with examples/run_tag_pos.py (model.tasks ['mlm'] needs "
            "none)"
        )
    missing = [name for name in (WORD_STARTS, WORD_ENDS) if name not in dataset.column_names]
    if preparer.has_spans and missing:
        raise ValueError(
            f"data.input_column {preparer.column!r} of the {preparer.split} split holds strings, so its tags need the columns "
            f"{WORD_STARTS!r} and {WORD_ENDS!r}, places of words, as examples/run_tag_pos.py writes them; missing: {missing}. "
            "Give lists of words, or set data.tagger to 'nltk' instead of data.tag_column"
        )


def _has_spans(dataset: Dataset, args: MaskedTextArguments, config: PreTrainedConfig) -> bool:
    """Whether the rows are strings whose words are to be found in columns of their own."""
    feature = dataset.features.get(str(args.input_column))
    if args.tag_column is None or not (isinstance(feature, Value) and feature.dtype in ("string", "large_string")):
        return False
    # Where words need no tags, their places are used if given, but not demanded.
    return config.tasks != [ANY_WORD] or {WORD_STARTS, WORD_ENDS} <= set(dataset.column_names)


def _tag_names(dataset: Dataset, column: str | None) -> tuple[str, ...] | None:
    """Names of tags that are numbers; None where there are none."""
    feature = None if column is None else dataset.features.get(column)
    label = feature.feature if isinstance(feature, List | LargeList) else None
    return tuple(label.names) if isinstance(label, ClassLabel) else None


def _is_number_below(tag: object, count: int) -> bool:
    return isinstance(tag, int) and 0 <= tag < count


def _joined(rows: Iterable[Iterable[int]], dtype: DTypeLike) -> np.ndarray:
    """Rows of numbers joined to one array."""
    return np.fromiter(chain.from_iterable(rows), dtype=dtype)


def _lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """One array of numbers as a list for each row."""
    return pa.ListArray.from_arrays(pa.array(np.append([0], np.cumsum(lengths)), pa.int32()), pa.array(values))
