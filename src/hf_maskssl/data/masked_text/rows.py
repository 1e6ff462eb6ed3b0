"""Rows of BERT's pre-training: sentences joined to sequences or pairs of them, their words masked anew in every epoch."""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from datasets import Dataset
from torch.utils import data as torch_data
from transformers import PreTrainedTokenizerBase

from ..collators import BatchCollator
from ..tables.draws import RowDraws
from ..tables.labels import IGNORED_LABEL
from .parts_of_speech import NO_TASK
from .word_masking import MaskSampling, mask_words, word_numbers

# Numbers of tokens that frame a sequence: [CLS] A [SEP], and [CLS] A [SEP] B [SEP].
NUM_SPECIAL_SINGLE, NUM_SPECIAL_PAIR = 2, 3
SHORTEST_TARGET = 2
FOLLOWS, IS_RANDOM = 0, 1
POSITIONS_MULTIPLE = 8

logger = logging.getLogger(__name__)


class MaskedTextRows(torch_data.Dataset[dict[str, Any]]):
    """Examples of masked language modelling, and of next sentence prediction, drawn from a table of sentences.

    An example is a chunk: consecutive sentences of one document, as many as fit. With next sentence prediction (Devlin et
    al. 2019, appendix A.2) a chunk is split at the end of a sentence into A and B; half of the time, and always where it is
    a single sentence, B gives way to sentences from anywhere in another document.

    Chunks depend on `split_seed` alone. An epoch's draws depend on `split_seed`, the run's seed, the epoch and
    the row, so that a resumed run and any number of workers and processes have the same draws.

    Args:
        table: Sentences, all those of a raw row in one row, one after the other: `input_ids` pieces without special tokens,
            `tasks` of the pieces' words (below 0: none), `starts` (1: a word begins); and `lengths`, pieces of each sentence.
        documents: Number (raw rows,) of each row's document, never decreasing.
        tokenizer: The tokenizer whose special tokens frame sequences and mask words.
        vocab_size: Number of ids that the model knows.
        max_length: Longest sequence, special tokens included.
        next_sentence: Whether rows are pairs of segments.
        split_seed: Seed of all draws.
        mlm_probability: Share of the pieces to recover.
        mask_sampling: Name of the way to draw masked words; see `mask_words`.
        num_maskings: Number of maskings (and pairs) of each row, after which they repeat (the paper's ten, appendix D.1); with 0
            every epoch is drawn anew.
        short_sequence_probability: Share of chunks that aim at a shorter length, drawn evenly.
        split: Name of the split, for messages.
        gives_words: Whether examples say which word a piece belongs to, for models whose attention chooses masked words.

    Raises:
        ValueError: A tokenizer without a special token, no room for text, sentences without pieces or longer than a
            sequence, no word of any task, fewer than two documents for pairs, or settings that cannot be.
    """

    def __init__(
        self,
        table: Dataset,
        documents: np.ndarray,
        tokenizer: PreTrainedTokenizerBase,
        *,
        vocab_size: int,
        max_length: int,
        next_sentence: bool,
        split_seed: int = 0,
        mlm_probability: float = 0.15,
        mask_sampling: MaskSampling = "proportional",
        num_maskings: int = 10,
        short_sequence_probability: float = 0.1,
        split: str = "train",
        gives_words: bool = False,
    ) -> None:
        _check_settings(mlm_probability, mask_sampling, num_maskings, short_sequence_probability)
        self.special_ids = special_token_ids(tokenizer)
        self.random_ids = _random_ids(tokenizer, vocab_size)
        self.is_special = is_special_id(tokenizer, vocab_size)
        self.room = max_length - (NUM_SPECIAL_PAIR if next_sentence else NUM_SPECIAL_SINGLE)
        if self.room < SHORTEST_TARGET:
            raise ValueError(
                f"data.sequence_length {max_length} leaves room for {self.room} pieces between the special tokens, "
                f"expected at least {SHORTEST_TARGET}: raise it (or model.max_position_embeddings)"
            )
        self.table = table
        self.next_sentence = next_sentence
        self.mlm_probability = mlm_probability
        self.mask_sampling: MaskSampling = mask_sampling
        self.num_maskings = num_maskings
        self.split = split
        self.gives_words = gives_words
        self._pieces: SentencePieces | None = None
        self.ends = self._measure_sentences()
        self.document_starts = _document_starts(documents, self._open().counts(), next_sentence, split)
        self.chunk_starts, self.targets = cut_chunks(
            self.ends,
            self.document_starts,
            self.room,
            short_sequence_probability,
            # This generator is separate from those of rows, which have no spawn key.
            np.random.default_rng(np.random.SeedSequence(split_seed, spawn_key=(1,))),
        )
        self.chosen = np.arange(len(self.targets))
        self.draws = RowDraws(split_seed)
        self._tell_single_sentences()

    @property
    def column_names(self) -> list[str]:
        """Names of a row's entries."""
        return list(self[0])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One example.

        Returns:
            `input_ids` (N,) int64 with words hidden, `token_type_ids` (N,) 0 for A and 1 for B, `labels` (N,) the true ids
            of hidden pieces and -100 elsewhere, `tasks` (N,) the task of every piece's word, -100 for none and special
            tokens; with pairs `next_sentence_label`, 0 where B follows A and 1 where it is random; `index`, the raw row of
            the chunk's first sentence; with `gives_words` `words`, the number of every piece's word, -100 where it is never
            masked.

        Raises:
            IndexError: A row number outside the set.
        """
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Several rows at once, for a DataLoader."""
        return [self._example(chunk) for chunk in self.chosen[np.asarray(rows, dtype=np.int64)].tolist()]

    def select(self, rows: Sequence[int]) -> "MaskedTextRows":
        """The set of these rows, in this order; it follows the epochs of this one, and draws the same for a row."""
        chosen = copy.copy(self)
        chosen.chosen = self.chosen[np.asarray(rows, dtype=np.int64)]
        return chosen

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Draw from now on for this epoch of a run with this seed, in worker processes as well."""
        self.draws.set_epoch(epoch % self.num_maskings if self.num_maskings else epoch, seed)

    def _example(self, chunk: int) -> dict[str, Any]:
        rng = self.draws.generator(chunk)
        first, end = self.chunk_starts[chunk : chunk + 2].tolist()
        if self.next_sentence:
            spans, label = self._pair(chunk, first, end, rng)
        else:
            spans, label = [(int(self.ends[first]), int(self.ends[end]))], None
        row = self._masked(spans, rng)
        if label is not None:
            row["next_sentence_label"] = label
        row["index"] = self._open().raw_row(first)
        return row

    def _pair(self, chunk: int, first: int, end: int, rng: np.random.Generator) -> tuple[list[tuple[int, int]], int]:
        """The places of A and B in all pieces, and whether B is random."""
        ends = self.ends
        # The draws are the same whether the chunk can be split or not.
        is_random, cut = rng.random() < 0.5, int(rng.integers(first + 1, max(end, first + 2)))
        segment_a = (int(ends[first]), int(ends[cut]))
        if end - first > 1 and not is_random:
            return [segment_a, (int(ends[cut]), int(ends[end]))], FOLLOWS
        room = int(self.targets[chunk]) - (segment_a[1] - segment_a[0])
        segment_b = self._elsewhere(first, room, rng)
        return cut_pair(segment_a, segment_b, self.room, rng), IS_RANDOM

    def _elsewhere(self, sentence: int, room: int, rng: np.random.Generator) -> tuple[int, int]:
        """Sentences of another document than this sentence's, as many as fit into `room`, at least one."""
        starts = self.document_starts
        own = int(np.searchsorted(starts, sentence, side="right")) - 1
        other = int(rng.integers(len(starts) - 2))
        other += other >= own
        first = int(rng.integers(starts[other], starts[other + 1]))
        end = int(np.searchsorted(self.ends, self.ends[first] + room, side="right")) - 1
        end = min(max(end, first + 1), int(starts[other + 1]))
        return int(self.ends[first]), int(self.ends[end])

    def _masked(self, spans: Sequence[tuple[int, int]], rng: np.random.Generator) -> dict[str, Any]:
        """[CLS] A [SEP] (B [SEP]) of pieces that lie at these spans, with words hidden."""
        pieces = self._open()
        length = 1 + sum(end - begin + 1 for begin, end in spans)
        ids = np.full(length, self.special_ids["sep"], dtype=np.int64)
        ids[0] = self.special_ids["cls"]
        tasks = np.full(length, NO_TASK, dtype=np.int64)
        starts = np.ones(length, dtype=np.int8)
        segments = np.zeros(length, dtype=np.int64)
        place = 1
        for number, (begin, end) in enumerate(spans):
            to = place + end - begin
            ids[place:to], tasks[place:to], starts[place:to] = pieces.read(begin, end)
            # The rest of a word whose front was cut away counts as a word.
            starts[place] = 1
            segments[place : to + 1] = number
            place = to + 1
        self._check_ids(ids)
        is_text = ~self.is_special[ids]
        words = {"words": word_numbers(tasks, starts, is_text)} if self.gives_words else {}
        masked, labels = mask_words(
            ids,
            tasks,
            starts,
            is_text,
            rng,
            probability=self.mlm_probability,
            sampling=self.mask_sampling,
            mask_id=self.special_ids["mask"],
            random_ids=self.random_ids,
        )
        tasks[tasks < 0] = IGNORED_LABEL
        return {"input_ids": masked, "token_type_ids": segments, "labels": labels, "tasks": tasks, **words}

    def _check_ids(self, ids: np.ndarray) -> None:
        if ids.min() < 0 or ids.max() >= len(self.is_special):
            outside = ids[(ids < 0) | (ids >= len(self.is_special))]
            raise ValueError(
                f"{self.split} split: a sentence holds the id {outside[0]}, outside the vocabulary "
                f"0..{len(self.is_special) - 1} (model.vocab_size)"
            )

    def _measure_sentences(self) -> np.ndarray:
        """(number of sentences + 1,) the place in all pieces where each sentence begins, and the end of all.

        Raises:
            ValueError: Sentences without pieces or longer than a sequence, or no word of any task.
        """
        pieces = self._open()
        lengths = pieces.lengths()
        if len(lengths) == 0:
            raise ValueError(f"{self.split} split: there is no sentence to learn from")
        for is_wrong, words in (
            (lengths == 0, "has no piece: a sequence would be special tokens only, drop such sentences"),
            (lengths > self.room, f"is longer than the {self.room} pieces that a sequence has room for: cut it"),
        ):
            if is_wrong.any():
                sentence = int(is_wrong.argmax())
                raise ValueError(
                    f"{self.split} split, row {pieces.raw_row(sentence)}: a sentence of {lengths[sentence]} pieces {words}"
                )
        without = pieces.count_without_task()
        if without == len(lengths):
            raise ValueError(
                f"{self.split} split: none of the {without} sentences has a word of any task of model.tasks, so nothing can "
                "be masked: check model.tasks and data.tag_column"
            )
        if without:
            logger.info(
                "%s split: %d of %d sentences have no word of any task; nothing of them is masked",
                self.split,
                without,
                len(lengths),
            )
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def _tell_single_sentences(self) -> None:
        is_single = np.diff(self.chunk_starts) == 1
        meaning = (
            "whose next sentence is always a random one: longer documents (data.document_column) or a larger "
            "data.sequence_length would balance next sentence prediction"
        )
        if not self.next_sentence:
            is_single &= 2 * np.diff(self.ends[self.chunk_starts]) < self.room
            meaning = (
                f"and fill less than half of the {self.room} pieces there is room for: longer documents "
                "(data.document_column) give longer sequences; where texts are this short, make data.sequence_length smaller"
            )
        if 2 * is_single.sum() > len(is_single):
            logger.warning(
                "%s split: %d of %d sequences hold a single sentence, %s",
                self.split,
                is_single.sum(),
                len(is_single),
                meaning,
            )

    def _open(self) -> "SentencePieces":
        if self._pieces is None:
            self._pieces = SentencePieces(self.table)
        return self._pieces

    def __getstate__(self) -> dict[str, object]:
        # Views into the table are made anew in a worker process, from the file.
        return {**self.__dict__, "_pieces": None}


class SentencePieces:
    """All pieces of a table of sentences as one long line, of which only the requested parts are read.

    Args:
        table: Sentences in the form of `MaskedTextRows`; its record batches stay in memory-mapped files.
    """

    def __init__(self, table: Dataset) -> None:
        batches = [batch for batch in table.with_format("arrow")[:].to_batches() if batch.num_rows]
        self._lengths = [batch.column("lengths").flatten().to_numpy() for batch in batches]
        # The place in the lengths where each raw row begins, and their end.
        self._offsets = [batch.column("lengths").offsets.to_numpy() for batch in batches]
        self._columns = [
            tuple(batch.column(name).flatten().to_numpy() for name in ("input_ids", "tasks", "starts"))
            for batch in batches
        ]
        self._first_rows = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._first_sentences = np.cumsum([0, *map(len, self._lengths)])
        self._first_pieces = np.cumsum([0, *(len(ids) for ids, _, _ in self._columns)])

    def lengths(self) -> np.ndarray:
        """(number of sentences,) pieces in each."""
        return np.concatenate([np.zeros(0, dtype=np.int32), *self._lengths])

    def counts(self) -> np.ndarray:
        """(raw rows,) number of sentences in each."""
        return np.concatenate([np.zeros(0, dtype=np.int32), *map(np.diff, self._offsets)])

    def count_without_task(self) -> int:
        """The number of sentences, none of which may be empty, without a word of any task."""
        count = 0
        for lengths, (_, tasks, _) in zip(self._lengths, self._columns, strict=True):
            begins = np.cumsum(lengths) - lengths
            count += int(np.count_nonzero(np.maximum.reduceat(tasks, begins) < 0))
        return count

    def raw_row(self, sentence: int) -> int:
        """The raw row that a sentence comes from."""
        batch = int(np.searchsorted(self._first_sentences, sentence, side="right")) - 1
        offsets = self._offsets[batch]
        place = offsets[0] + sentence - self._first_sentences[batch]
        return int(self._first_rows[batch] + np.searchsorted(offsets, place, side="right") - 1)

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`input_ids`, `tasks` and `starts` of the pieces from `begin` up to `end`, of which there is at least one."""
        batch = int(np.searchsorted(self._first_pieces, begin, side="right")) - 1
        parts = []
        while begin < end:
            offset = int(self._first_pieces[batch])
            here = slice(begin - offset, end - offset)
            parts.append(tuple(column[here] for column in self._columns[batch]))
            batch += 1
            begin = int(self._first_pieces[batch])
        if len(parts) == 1:
            return parts[0]
        ids, tasks, starts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return ids, tasks, starts


class MaskedTextCollator(BatchCollator):
    """Pads examples of `MaskedTextRows` to the longest of a batch.

    Args:
        tokenizer: The tokenizer that names padding and special tokens.
        vocab_size: Number of ids that the model knows.
        column: The raw column, for errors.

    Raises:
        ValueError: A tokenizer without a special token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, column: str = "text") -> None:
        super().__init__({"input_ids": column}, vocab_size, special_token_ids(tokenizer)["pad"])
        self.is_special = is_special_id(tokenizer, vocab_size)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows: Examples with equal keys, as `MaskedTextRows` gives them; `next_sentence_label` and `index` may be absent.

        Returns:
            int64 `input_ids`, `token_type_ids`, `labels` and `tasks`, and `words` where rows have them (-100 where padded), all
            (B, N); `attention_mask` (B, N), 1 = real, where some row is padded, because fused attention kernels want none;
            `masked_positions` (B, K), the places in each row that have a label, ascending, and then -1, K a multiple of 8: what a
            model on a GPU would have to wait for the device to know; and `next_sentence_label` and `index`, (B,).

        Raises:
            ValueError: No rows, ids outside the vocabulary, or a row of special tokens only; named by row index and column.
        """
        if not rows:
            raise ValueError("cannot make a batch of no rows")
        lengths = np.array([len(row["input_ids"]) for row in rows])
        is_real = np.arange(max(1, lengths.max())) < lengths[:, None]
        padding = {
            "input_ids": self.pad_token_id or 0,
            "token_type_ids": 0,
            "labels": IGNORED_LABEL,
            "tasks": IGNORED_LABEL,
        }
        if "words" in rows[0]:
            padding["words"] = IGNORED_LABEL
        arrays = {}
        for name, value in padding.items():
            arrays[name] = np.full(is_real.shape, value, dtype=np.int64)
            arrays[name][is_real] = np.concatenate([np.asarray(row[name]) for row in rows])
        self._check_ids(rows, arrays["input_ids"], is_real)
        is_text = ~self.is_special[arrays["input_ids"]] | (arrays["labels"] != IGNORED_LABEL)
        if not (is_text & is_real).any(axis=1).all():
            row = rows[int((is_text & is_real).any(axis=1).argmin())]
            raise ValueError(f"{self.where(row, 'input_ids')} is special tokens only: drop such rows")
        if not is_real.all():
            arrays["attention_mask"] = is_real.astype(np.int64)
        arrays["masked_positions"] = _masked_positions(arrays["labels"])
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        for name in ("next_sentence_label", "index"):
            if name in rows[0]:
                batch[name] = torch.tensor([int(row[name]) for row in rows])
        return batch


def _masked_positions(labels: np.ndarray) -> np.ndarray:
    """(B, K) int64, the places in each row of (B, N) that have a label, ascending, and then -1.

    K is a multiple of `POSITIONS_MULTIPLE`, at least one: batches have few different shapes.
    """
    is_masked = labels != IGNORED_LABEL
    counts = is_masked.sum(axis=1)
    width = POSITIONS_MULTIPLE * max(1, -(-int(counts.max()) // POSITIONS_MULTIPLE))
    positions = np.full((len(labels), width), -1, dtype=np.int64)
    positions[np.arange(width) < counts[:, None]] = np.nonzero(is_masked)[1]
    return positions


def cut_chunks(
    ends: np.ndarray, document_starts: np.ndarray, room: int, short_probability: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut documents into chunks of consecutive sentences.

    A chunk takes sentences while they fit into its target, and at least one. The target is the room, or with probability
    `short_probability` a length between 2 and the room (Devlin et al. 2019: short sequences prepare for fine-tuning).

    Args:
        ends: (n + 1,) the place in all pieces where each sentence begins, and the end of all.
        document_starts: (D + 1,) number of the first sentence of each document, and n.
        room: Number of pieces that a sequence has room for.
        short_probability: Share of shorter targets.
        rng: Generator of the targets.

    Returns:
        (chunks + 1,) number of the first sentence of each chunk, and n; (chunks,) target of each.
    """
    firsts, document_ends = document_starts[:-1], document_starts[1:]
    found_starts, found_targets = [], []
    # Each round takes one chunk of every document: first chunks, then second ones, ...
    while len(firsts):
        is_short = rng.random(len(firsts)) < short_probability
        targets = np.where(is_short, rng.integers(SHORTEST_TARGET, room + 1, size=len(firsts)), room)
        found_starts.append(firsts)
        found_targets.append(targets)
        nexts = np.searchsorted(ends, ends[firsts] + targets, side="right") - 1
        nexts = np.minimum(np.maximum(nexts, firsts + 1), document_ends)
        goes_on = nexts < document_ends
        firsts, document_ends = nexts[goes_on], document_ends[goes_on]
    starts, targets = np.concatenate(found_starts), np.concatenate(found_targets)
    order = np.argsort(starts)
    return np.append(starts[order], document_starts[-1]), targets[order]


def cut_pair(
    segment_a: tuple[int, int], segment_b: tuple[int, int], room: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Shorten a pair until it fits: piece by piece the longer one, B where they are equal, at its front or its back.

    The result is that of BERT's `truncate_seq_pair`, without its loop.

    Args:
        segment_a: Begin and end of A.
        segment_b: Begin and end of B.
        room: Number of pieces that both may have together.
        rng: Generator of the cut at each front.

    Returns:
        The two segments.
    """
    length_a, length_b = segment_a[1] - segment_a[0], segment_b[1] - segment_b[0]
    excess = length_a + length_b - room
    if excess <= 0:
        return [segment_a, segment_b]
    # The longer one is cut down to the other, then each by turns.
    cut_a = min(excess, max(0, length_a - length_b))
    cut_b = min(excess, max(0, length_b - length_a))
    rest = excess - cut_a - cut_b
    shortened = []
    for (begin, end), cut in ((segment_a, cut_a + rest // 2), (segment_b, cut_b + rest - rest // 2)):
        front = int(rng.binomial(cut, 0.5))
        shortened.append((begin + front, end - (cut - front)))
    return shortened


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the four special tokens that masked text needs, by "cls", "sep", "mask" and "pad".

    Raises:
        ValueError: One is missing.
    """
    ids = {
        "cls": tokenizer.cls_token_id,
        "sep": tokenizer.sep_token_id,
        "mask": tokenizer.mask_token_id,
        "pad": tokenizer.pad_token_id,
    }
    missing = [f"[{name.upper()}]" for name, number in ids.items() if number is None]
    if missing:
        raise ValueError(
            f"data.tokenizer: its vocabulary has no {' and no '.join(missing)}, which masked text needs: name a tokenizer of "
            "BERT, add them as special tokens, or train one (data.wordpiece_size)"
        )
    return ids


def is_special_id(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> np.ndarray:
    """(vocab_size,) bool, True for the ids of special tokens, [UNK] among them."""
    special = [number for number in tokenizer.all_special_ids if number < vocab_size]
    is_special = np.zeros(vocab_size, dtype=bool)
    is_special[special] = True
    return is_special


def _random_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> np.ndarray:
    """All ids of pieces that are not special."""
    ids = np.unique(np.fromiter(tokenizer.get_vocab().values(), dtype=np.int64))
    if len(ids) and ids[-1] >= vocab_size:
        raise ValueError(
            f"model.vocab_size is {vocab_size}, but the tokenizer has ids up to {ids[-1]}: set model.vocab_size to {ids[-1] + 1}"
        )
    ids = np.setdiff1d(ids, tokenizer.all_special_ids)
    if len(ids) == 0:
        raise ValueError("data.tokenizer: its vocabulary has special tokens only")
    return ids


def _document_starts(documents: np.ndarray, counts: np.ndarray, next_sentence: bool, split: str) -> np.ndarray:
    """(D + 1,) number of the first sentence of each document that has any, and of all sentences."""
    documents = np.asarray(documents)
    if documents.shape != counts.shape:
        raise ValueError(f"`documents` must have a number for each of {len(counts)} raw rows, got {documents.shape}.")
    steps = np.diff(documents)
    if (steps < 0).any():
        raise ValueError(f"`documents` must never decrease, got {documents[int((steps < 0).argmax()) :][:2]} in turn.")
    firsts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    starts = np.unique(np.append(firsts[:-1][np.append([True], steps > 0)], firsts[-1]))
    if next_sentence and len(starts) < 3:
        raise ValueError(
            f"{split} split: there is one document, but next sentence prediction takes every other second sentence from another "
            "one: name data.document_column, in text files put a blank line between documents, or set "
            "model.next_sentence_prediction to 'none'"
        )
    return starts


def _check_settings(probability: float, sampling: str, num_maskings: int, short_probability: float) -> None:
    if not 0 < probability < 1:
        raise ValueError(f"data.mlm_probability: expected a share above 0 and below 1, got {probability}")
    if sampling not in get_args(MaskSampling):
        raise ValueError(f"data.mask_sampling: expected one of {get_args(MaskSampling)}, got {sampling!r}")
    if num_maskings < 0:
        raise ValueError(
            f"data.num_maskings: expected a number of maskings, or 0 for every epoch anew, got {num_maskings}"
        )
    if not 0 <= short_probability <= 1:
        raise ValueError(f"data.short_sequence_probability: expected a share from 0 to 1, got {short_probability}")
