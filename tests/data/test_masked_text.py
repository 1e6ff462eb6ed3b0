"""Sequences and pairs of sentences, masked anew in every epoch, and their batches."""

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

from hf_maskssl.data.masked_text.rows import MaskedTextCollator, MaskedTextRows, cut_chunks, cut_pair

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = 5000
IGNORED = -100


def tokenizer(without: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """One whose pieces are numbers."""
    pieces = {piece: place for place, piece in enumerate([*SPECIAL, *map(str, range(5, VOCABULARY))])}
    names = {f"{piece.strip('[]').lower()}_token": piece for piece in SPECIAL if piece not in without}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(pieces, unk_token="[UNK]")), **names)


TOKENIZER = tokenizer()


class Corpus:
    """Sentences whose every piece is another one, so that a piece tells where it comes from."""

    def __init__(self, documents: int = 40, sentences: int = 8, longest: int = 12, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, sentences + 1, size=documents)
        self.documents = np.repeat(np.arange(documents) * 3, counts)
        self.lengths = rng.integers(1, longest + 1, size=len(self.documents))
        self.ends = np.concatenate([[0], np.cumsum(self.lengths)])
        total = int(self.ends[-1])
        assert total + 5 <= VOCABULARY
        self.ids = np.arange(5, total + 5, dtype=np.int32)
        self.starts = (rng.random(total) < 0.7).astype(np.int8)
        self.starts[self.ends[:-1]] = 1
        self.tasks = rng.integers(-1, 4, size=total).astype(np.int8)[np.cumsum(self.starts) - 1]
        # A raw row has several sentences of a document, one, or none.
        steps = rng.integers(0, 3, size=len(self.documents))
        self.rows = np.cumsum(np.maximum(steps, np.diff(self.documents, prepend=-1) > 0))

    @property
    def room_needed(self) -> int:
        return int(self.lengths.max())

    def table(self, batches: int = 3) -> Dataset:
        """Of several record batches, as a file on disk has them, the first begins in the middle of its buffers."""

        def column(values: np.ndarray, ends: np.ndarray) -> pa.Array:
            padded = np.concatenate([[7, 7], values]).astype(values.dtype)
            return pa.ListArray.from_arrays(pa.array([0, *(ends + 2)], pa.int32()), pa.array(padded)).slice(1)

        firsts = np.searchsorted(self.rows, np.arange(self.rows[-1] + 3))
        names = {"input_ids": self.ids, "tasks": self.tasks, "starts": self.starts}
        columns = {name: column(values, self.ends[firsts]) for name, values in names.items()}
        whole = pa.table(columns | {"lengths": column(np.diff(self.ends), firsts)})
        cuts = np.linspace(0, len(whole), batches + 1).astype(int)
        return Dataset(pa.concat_tables([whole.slice(a, b - a) for a, b in zip(cuts, cuts[1:], strict=False)]))

    def documents_of_rows(self) -> np.ndarray:
        """Rows without a sentence, at the front, between two documents and at the end, are documents of their own."""
        rows = np.arange(self.rows[-1] + 2)
        before = np.append(self.documents[0] - 2, self.documents)[np.searchsorted(self.rows, rows, side="right")]
        after = np.append(self.documents, self.documents[-1] + 2)[np.searchsorted(self.rows, rows)]
        return np.where(np.isin(rows, self.rows), before, before + (after != before))

    def sentence_of(self, piece: int) -> int:
        return int(np.searchsorted(self.ends, piece - 5, side="right")) - 1

    def prepared(self, next_sentence: bool = True, max_length: int = 32, **options: Any) -> MaskedTextRows:
        settings = {"vocab_size": VOCABULARY, "max_length": max_length, "next_sentence": next_sentence} | options
        return MaskedTextRows(self.table(), self.documents_of_rows(), TOKENIZER, **settings)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


def restored(row: dict[str, Any]) -> list[int]:
    """The true pieces."""
    return np.where(row["labels"] == IGNORED, row["input_ids"], row["labels"]).tolist()


def segments(row: dict[str, Any]) -> list[list[int]]:
    """The true pieces between the special tokens."""
    ids = restored(row)
    assert ids[0] == CLS and ids[-1] == SEP
    cuts = [0, *(place for place, piece in enumerate(ids) if piece == SEP)]
    return [ids[a + 1 : b] for a, b in zip(cuts, cuts[1:], strict=False)]


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_pairs_come_from_where_their_labels_say(corpus: Corpus) -> None:
    rows = corpus.prepared(num_maskings=0)
    multiple = np.diff(rows.chunk_starts) > 1
    labels: list[int] = []
    lengths_b, splits = set(), set()
    for epoch in range(30):
        rows.set_epoch(epoch)
        for number, row in enumerate(rows):
            a, b = segments(row)
            label = row["next_sentence_label"]
            assert row["token_type_ids"].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
            assert len(row["input_ids"]) <= 32
            # Both are unbroken text.
            assert a == list(range(a[0], a[-1] + 1)) and b == list(range(b[0], b[-1] + 1))
            first, begin_b = corpus.sentence_of(a[0]), corpus.sentence_of(b[0])
            documents = {corpus.documents[corpus.sentence_of(piece)] for piece in a}
            others = {corpus.documents[corpus.sentence_of(piece)] for piece in b}
            assert len(documents) == len(others) == 1
            assert row["index"] == corpus.rows[rows.chunk_starts[number]]
            chunk = [int(corpus.ends[sentence]) + 5 for sentence in rows.chunk_starts[number : number + 2]]
            if label == 0:
                assert documents == others and b[0] - 5 == corpus.ends[begin_b]
                assert a + b == list(range(*chunk))
                splits.add((begin_b - first, corpus.sentence_of(b[-1]) + 1 - begin_b))
            else:
                assert documents != others
                assert_random_segment_fits(corpus, a, b, chunk[0], rows.targets[number], rows.room)
                lengths_b.add(corpus.sentence_of(b[-1]) - begin_b + 1)
            if multiple[number]:
                labels.append(label)
            else:
                assert label == 1
    assert np.mean(labels) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(len(labels)))
    assert {1, 2, 3} <= lengths_b and {(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (3, 1)} <= splits


def assert_random_segment_fits(corpus: Corpus, a: list[int], b: list[int], begin: int, target: int, room: int) -> None:
    """B has as many whole sentences as fit behind A, at least one; only then is the pair cut, to what there is room for."""
    first, last = corpus.sentence_of(b[0]), corpus.sentence_of(b[-1])
    if len(a) + len(b) == room and (first == last or a[0] != begin):
        return  # may have been cut
    assert a[0] == begin and b == list(range(corpus.ends[first] + 5, corpus.ends[last + 1] + 5))
    assert first == last or len(a) + len(b) <= target
    is_end = last + 1 == len(corpus.lengths) or corpus.documents[last + 1] != corpus.documents[last]
    assert is_end or len(a) + len(b) + corpus.lengths[last + 1] > target


def test_every_document_is_drawn_as_the_other_one() -> None:
    corpus = Corpus(documents=4, sentences=3)
    rows = corpus.prepared(num_maskings=0)
    seen = set()
    for epoch in range(60):
        rows.set_epoch(epoch)
        for row in rows:
            a, b = segments(row)
            if row["next_sentence_label"]:
                seen |= {(corpus.sentence_of(a[0]), corpus.sentence_of(b[0]))}
    reached = {(corpus.documents[a], b) for a, b in seen}
    every = {(a, b) for a in set(corpus.documents) for b, d in enumerate(corpus.documents) if d != a}
    assert reached == every


@pytest.mark.parametrize("next_sentence", [True, False])
def test_targets_are_whole_words_of_tasks(corpus: Corpus, next_sentence: bool) -> None:
    rows = corpus.prepared(next_sentence, short_sequence_probability=0.0)
    assert rows.random_ids.tolist() == list(range(5, VOCABULARY))
    taken = candidates = 0
    for row in rows:
        assert {key: value.dtype for key, value in row.items() if isinstance(value, np.ndarray)} == dict.fromkeys(
            ("input_ids", "token_type_ids", "labels", "tasks"), np.dtype(np.int64)
        )
        ids, is_target = restored(row), row["labels"] != IGNORED
        assert is_target.any() == (row["tasks"] != IGNORED).any()
        for place, piece in enumerate(ids):
            task = corpus.tasks[piece - 5] if piece >= 5 else -1
            assert row["tasks"][place] == (task if task >= 0 else IGNORED)
            assert not is_target[place] or task >= 0
            if piece >= 5 and not corpus.starts[piece - 5] and ids[place - 1] >= 5:
                assert is_target[place] == is_target[place - 1]
        taken += is_target.sum()
        candidates += sum(piece >= 5 for piece in ids)
    assert 0.1 < taken / candidates < 0.17


def test_what_is_left_of_a_word_is_a_word() -> None:
    """Pairs of two full sentences lose pieces at both ends, and with them the beginnings of words."""
    corpus = Corpus(documents=30, sentences=1)
    corpus.tasks[:] = 0
    rows = corpus.prepared(max_length=corpus.room_needed + 3, num_maskings=0, mlm_probability=0.5)
    fronts = []
    for epoch in range(10):
        rows.set_epoch(epoch)
        for row in rows:
            ids = restored(row)
            for place in (1, ids.index(SEP) + 1):
                if not corpus.starts[ids[place] - 5]:
                    fronts.append(row["labels"][place] != IGNORED)
    assert len(fronts) > 30 and 0.3 < np.mean(fronts) < 0.7


def test_sequences_hold_all_text_once(corpus: Corpus) -> None:
    rows = corpus.prepared(next_sentence=False, max_length=20, short_sequence_probability=0.3)
    parts = [segments(row) for row in rows]
    assert np.concatenate([part for (part,) in parts]).tolist() == corpus.ids.tolist()
    for (part,) in parts:
        assert len({corpus.documents[corpus.sentence_of(piece)] for piece in part}) == 1
    assert "next_sentence_label" not in rows[0] and not rows[0]["token_type_ids"].any()
    assert set(rows.column_names) == {"input_ids", "token_type_ids", "labels", "tasks", "index"}


def test_unknown_words_are_no_targets() -> None:
    corpus = Corpus(documents=3)
    corpus.ids[::2] = UNK
    corpus.tasks[:] = 1
    for row in corpus.prepared(mlm_probability=0.9):
        assert not (row["labels"] == UNK).any()


lengths_of_documents = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(lengths_of_documents, st.integers(9, 30), st.floats(0, 1), st.integers(0, 2**32))
def test_chunks_against_a_slow_copy(documents: list[list[int]], room: int, short: float, seed: int) -> None:
    ends = np.cumsum([0, *(length for document in documents for length in document)])
    firsts = np.cumsum([0, *map(len, documents)])
    starts, targets = cut_chunks(ends, firsts, room, short, np.random.default_rng(seed))
    assert short > 0 or (targets == room).all()
    assert ((targets >= 2) & (targets <= room)).all()
    drawn, expected, number = iter(targets), [], 0
    for document in documents:
        target, filled = None, 0
        for length in document:
            if target is None or filled + length > target:
                expected.append(number)
                target, filled = next(drawn), 0
            filled += length
            number += 1
    assert starts.tolist() == [*expected, number]


def test_share_and_spread_of_short_chunks() -> None:
    ends, firsts = np.arange(100_001), np.arange(0, 100_001, 50)
    _, targets = cut_chunks(ends, firsts, 30, 0.2, np.random.default_rng(0))
    # The room itself is drawn now and then.
    share = 0.2 * 28 / 29
    assert np.mean(targets < 30) == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / len(targets)))
    counts = np.bincount(targets)[2:30]
    assert (abs(counts - counts.mean()) < 5 * np.sqrt(counts.mean())).all()


def slow_cut(a: list[int], b: list[int], room: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """`truncate_seq_pair` of BERT's authors."""
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        longer.pop(0 if rng.random() < 0.5 else -1)
    return a, b


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 60), st.integers(0, 2**32))
def test_long_pairs_are_cut_as_bert_does(length_a: int, length_b: int, room: int, seed: int) -> None:
    (a, a_end), (b, b_end) = cut_pair((3, 3 + length_a), (100, 100 + length_b), room, np.random.default_rng(seed))
    slow = slow_cut(list(range(length_a)), list(range(length_b)), room, np.random.default_rng(seed))
    assert (a_end - a, b_end - b) == tuple(map(len, slow))
    assert 3 <= a < a_end <= 3 + length_a and 100 <= b < b_end <= 100 + length_b


def test_pairs_are_cut_at_both_ends() -> None:
    rng = np.random.default_rng(0)
    fast = np.array([cut_pair((0, 30), (0, 10), 20, rng)[0][0] for _ in range(2000)])
    slow = np.array([slow_cut(list(range(30)), list(range(10)), 20, rng)[0][0] for _ in range(2000)])
    assert abs(fast.mean() - 10) < 0.3 and abs(fast.mean() - slow.mean()) < 0.4
    assert abs(fast.std() / slow.std() - 1) < 0.1


def test_ten_maskings_come_again_after_ten_epochs(corpus: Corpus) -> None:
    rows = corpus.prepared(num_maskings=10)
    seen = []
    for epoch in range(11):
        rows.set_epoch(epoch, seed=3)
        seen.append([rows[number] for number in range(6)])
    assert all(map(equal, seen[0], seen[10]))
    for epoch in range(1, 10):
        for earlier in range(epoch):
            assert not all(map(equal, seen[earlier], seen[epoch]))
    rows = corpus.prepared(num_maskings=0)
    rows.set_epoch(10, seed=3)
    fresh = [rows[number] for number in range(6)]
    assert not any(all(map(equal, fresh, old)) for old in seen)
    rows.set_epoch(10, seed=4)
    assert not all(map(equal, fresh, [rows[number] for number in range(6)]))


def test_a_row_is_drawn_from_seed_epoch_and_number_alone(corpus: Corpus) -> None:
    one, other = corpus.prepared(), corpus.prepared()
    for rows in (one, other):
        rows.set_epoch(4, seed=1)
    expected = [one[number] for number in range(len(one))]
    np.random.default_rng(0).random()
    torch.rand(3)
    assert all(map(equal, other.__getitems__(range(len(other) - 1, -1, -1)), expected[::-1]))
    assert equal(other[-1], expected[-1])
    chosen = other.select([5, -1]).select([1, 0])
    assert len(chosen) == 2 and equal(chosen[0], expected[-1]) and equal(chosen[1], expected[5])
    other.set_epoch(5, seed=1)
    assert not equal(chosen[1], expected[5])
    with pytest.raises(IndexError):
        other[len(other)]
    # Another split seed cuts and draws otherwise.
    changed = corpus.prepared(split_seed=1, short_sequence_probability=0.5)
    assert changed.chunk_starts.tolist() != corpus.prepared(short_sequence_probability=0.5).chunk_starts.tolist()


def test_workers_that_live_on_hear_of_the_next_epoch(corpus: Corpus) -> None:
    rows, collator = corpus.prepared(), MaskedTextCollator(TOKENIZER, VOCABULARY)
    loader = DataLoader(rows, batch_size=len(rows), num_workers=1, persistent_workers=True, collate_fn=collator)
    for epoch in range(2):
        rows.set_epoch(epoch)
        (batch,) = list(loader)
        torch.testing.assert_close(batch, collator(list(rows)), rtol=0, atol=0)


def test_batches_are_padded(corpus: Corpus) -> None:
    rows = list(corpus.prepared())[:7]
    batch = MaskedTextCollator(TOKENIZER, VOCABULARY)(rows)
    longest = max(len(row["input_ids"]) for row in rows)
    assert {name: (values.shape, values.dtype) for name, values in batch.items()} == {
        **dict.fromkeys(
            ("input_ids", "attention_mask", "token_type_ids", "labels", "tasks"), ((7, longest), torch.int64)
        ),
        **dict.fromkeys(("next_sentence_label", "index"), ((7,), torch.int64)),
        "masked_positions": ((7, 8), torch.int64),
    }
    padding = {"input_ids": PAD, "attention_mask": 0, "token_type_ids": 0, "labels": IGNORED, "tasks": IGNORED}
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        assert (batch["attention_mask"][place, :length] == 1).all()
        for name, value in padding.items():
            assert (batch[name][place, length:] == value).all()
            if name in row:
                np.testing.assert_array_equal(batch[name][place, :length], row[name])
        assert batch["next_sentence_label"][place] == row["next_sentence_label"]
    # What a model does not take may be gone.
    alone = MaskedTextCollator(TOKENIZER, VOCABULARY)([{k: v for k, v in rows[0].items() if k != "index"}])
    assert "index" not in alone


def test_where_nothing_is_padded_there_is_no_mask(corpus: Corpus) -> None:
    collator = MaskedTextCollator(TOKENIZER, VOCABULARY)
    rows = list(corpus.prepared())
    row = max(rows, key=lambda row: len(row["input_ids"]))
    whole = collator([row, row])
    assert "attention_mask" not in whole and whole["input_ids"].shape == (2, len(row["input_ids"]))
    shorter = next(other for other in rows if len(other["input_ids"]) < len(row["input_ids"]))
    assert collator([row, shorter])["attention_mask"].sum(1).tolist() == [
        len(row["input_ids"]),
        len(shorter["input_ids"]),
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=5))
def test_masked_positions_are_where_labels_are(masked: list[list[bool]]) -> None:
    rows = [
        {
            "input_ids": np.full(len(row), MASK + 40),
            "token_type_ids": np.zeros(len(row), int),
            "labels": np.where(row, 7, IGNORED),
            "tasks": np.zeros(len(row), int),
        }
        for row in masked
    ]
    positions = MaskedTextCollator(TOKENIZER, VOCABULARY)(rows)["masked_positions"]
    most = max(map(sum, masked))
    assert positions.shape == (len(rows), max(8, -(-most // 8) * 8))
    for row, found in zip(masked, positions.tolist(), strict=True):
        expected = [place for place, is_masked in enumerate(row) if is_masked]
        assert found == expected + [-1] * (len(found) - len(expected))


def test_the_collator_refuses_bad_rows(corpus: Corpus) -> None:
    collator = MaskedTextCollator(TOKENIZER, VOCABULARY, column="words")
    good = corpus.prepared()[0]
    with pytest.raises(ValueError, match="batch of no rows"):
        collator([])
    ids = good["input_ids"].copy()
    ids[1] = VOCABULARY
    with pytest.raises(ValueError, match=rf"row 9, column 'words' holds the id {VOCABULARY}, outside"):
        collator([good, {**good, "input_ids": ids, "index": 9}])
    special = {name: np.full(3, IGNORED) for name in ("labels", "tasks")} | {"token_type_ids": np.zeros(3, int)}
    special |= {"input_ids": np.array([CLS, SEP, SEP]), "next_sentence_label": 1, "index": 4}
    with pytest.raises(ValueError, match="row 4, column 'words' is special tokens only"):
        collator([good, special])
    # A row whose every word is hidden has something to learn.
    hidden = {**special, "input_ids": np.array([CLS, MASK, SEP]), "labels": np.array([IGNORED, 7, IGNORED])}
    assert collator([hidden])["labels"].tolist() == [[IGNORED, 7, IGNORED]]


def test_bad_sentences_are_refused() -> None:
    corpus = Corpus(documents=3)
    with pytest.raises(
        ValueError, match=r"train split, row \d+: a sentence of \d+ pieces is longer than the 7 pieces"
    ):
        corpus.prepared(max_length=10)
    with pytest.raises(ValueError, match="leaves room for 1 pieces"):
        corpus.prepared(max_length=4)
    with pytest.raises(ValueError, match="documents.* must have a number for each"):
        documents = corpus.documents_of_rows()[1:]
        MaskedTextRows(corpus.table(), documents, TOKENIZER, vocab_size=VOCABULARY, max_length=32, next_sentence=True)
    with pytest.raises(ValueError, match="model.vocab_size is 100, but the tokenizer has ids up to 4999"):
        corpus.prepared(vocab_size=100)
    corpus.documents = corpus.documents[::-1]
    with pytest.raises(ValueError, match="must never decrease"):
        corpus.prepared()
    corpus.documents = np.zeros(len(corpus.lengths), dtype=np.int64)
    with pytest.raises(ValueError, match="one document, .* data.document_column, in text files put a blank line"):
        corpus.prepared()
    corpus.prepared(next_sentence=False)
    corpus.ids[3] = VOCABULARY + 2
    with pytest.raises(ValueError, match=rf"holds the id {VOCABULARY + 2}, outside the vocabulary"):
        list(corpus.prepared(next_sentence=False))
    corpus.tasks[:] = -1
    with pytest.raises(ValueError, match="none of the .* sentences has a word of any task"):
        corpus.prepared(next_sentence=False)
    corpus.ends[1] = corpus.ends[0]
    with pytest.raises(ValueError, match=f"row {corpus.rows[0]}: a sentence of 0 pieces has no piece"):
        corpus.prepared(next_sentence=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlm_probability": 0.0}, "data.mlm_probability: .* got 0.0"),
        ({"mlm_probability": 1.0}, "data.mlm_probability: .* got 1.0"),
        ({"mask_sampling": "even"}, "data.mask_sampling: .*'proportional', 'balanced'.* got 'even'"),
        ({"num_maskings": -1}, "data.num_maskings: .* got -1"),
        ({"short_sequence_probability": 1.1}, "data.short_sequence_probability: .* got 1.1"),
    ],
)
def test_bad_settings_are_refused(corpus: Corpus, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpus.prepared(**options)


def test_a_tokenizer_without_a_special_token_is_refused(corpus: Corpus) -> None:
    poor = tokenizer(without=("[MASK]", "[CLS]"))
    with pytest.raises(ValueError, match=r"no \[CLS\] and no \[MASK\], which masked text needs: name a tokenizer"):
        MaskedTextCollator(poor, VOCABULARY)
    with pytest.raises(ValueError, match=r"no \[CLS\] and no \[MASK\]"):
        MaskedTextRows(
            corpus.table(), corpus.documents_of_rows(), poor, vocab_size=VOCABULARY, max_length=32, next_sentence=False
        )


def test_sentences_without_a_task_are_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    corpus = Corpus(documents=30)
    for sentence in (0, 7, len(corpus.lengths) - 1):
        corpus.tasks[corpus.ends[sentence] : corpus.ends[sentence + 1]] = -1
    expected = sum((corpus.tasks[a:b] < 0).all() for a, b in zip(corpus.ends, corpus.ends[1:], strict=False))
    rows = corpus.prepared()
    list(rows)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"train split: {expected} of {len(corpus.lengths)} sentences have no word of any task" in message


def test_single_sentences_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rows = Corpus(documents=30, sentences=1).prepared()
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "train split: 30 of 30 sequences hold a single sentence" in message
    assert {row["next_sentence_label"] for row in rows} == {1}
    # Without pairs a sentence alone is only a waste where it leaves much room.
    for max_length, count in ((32, 30), (14, 0)):
        caplog.clear()
        lone = Corpus(documents=30, sentences=1, longest=12)
        lone.prepared(next_sentence=False, max_length=max_length)
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == bool(count)
        assert all("fill less than half of the 30 pieces" in one and "data.document_column" in one for one in told)


class Stub(nn.Module):
    """Takes what a model of pre-training takes, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[dict[str, torch.Tensor]] = []

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        labels: torch.Tensor,
        tasks: torch.Tensor,
        next_sentence_label: torch.Tensor,
        masked_positions: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        assert input_ids.shape == token_type_ids.shape == labels.shape == tasks.shape
        assert attention_mask is None or attention_mask.shape == input_ids.shape
        assert len(masked_positions) == len(input_ids)
        self.seen.append({"input_ids": input_ids, "next_sentence_label": next_sentence_label})
        return {"loss": self.weight * 1.0}


def test_the_trainer_of_transformers_takes_rows_and_collator(corpus: Corpus, tmp_path: Any) -> None:
    model = Stub()
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    Trainer(model, args, MaskedTextCollator(TOKENIZER, VOCABULARY), corpus.prepared()).train()
    assert [batch["next_sentence_label"].shape for batch in model.seen] == [(4,), (4,)]
