"""Texts on their way to sentences of pieces with tasks, and from there to batches of masked text."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hf_maskssl.data import DataArguments, MaskedTextRows, PreparedData, data_arguments, load_processor, prepare_data
from hf_maskssl.data.masked_text import documents, sentences
from hf_maskssl.data.masked_text.documents import limit_documents, runs_of_rows
from hf_maskssl.data.masked_text.pos_tagging import TaggerDataError
from hf_maskssl.data.masked_text.sentences import (
    SentencePreparer,
    cut_rows,
    match_words,
    sentence_table,
)
from hf_maskssl.data.tables import caching
from hf_maskssl.data.tables.caching import batch_rows_of
from hf_maskssl.data.text.tokenizers import BERT_SPECIAL_TOKENS, build_bert_tokenizer
from hf_maskssl.models.configuration_metamae import MetaMAEConfig
from hf_maskssl.models.configuration_pos_minimax_bert import PoSMinimaxBertConfig

PIECES = [
    "the",
    "dog",
    "cat",
    "bark",
    "##s",
    "##ed",
    "sleep",
    "a",
    ".",
    "not",
    "do",
    "don",
    "'",
    "t",
    "n",
    "we",
    "2",
    "well",
]
VOCABULARY = {piece: number for number, piece in enumerate([*BERT_SPECIAL_TOKENS, *PIECES])}
TOKENIZER = build_bert_tokenizer(VOCABULARY)
TASKS = ["noun", "verb", "determiner"]
WORDS = ["The", "dog", "barks", "."]
TAGS = ["DET", "NOUN", "VERB", "."]


@pytest.fixture
def vocabulary_file(tmp_path: Path) -> str:
    """The pieces as a `vocab.txt`."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return str(tmp_path / "vocab.txt")


def config(**fields: Any) -> PoSMinimaxBertConfig:
    """A small model's configuration."""
    small: dict[str, Any] = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 16, "tasks": TASKS}
    return PoSMinimaxBertConfig(**{**small, "hidden_size": 8, "num_attention_heads": 2, **fields})


def preparer(**fields: Any) -> SentencePreparer:
    """What makes sentences of the column `text`."""
    return SentencePreparer(**{"column": "text", "tokenizer": TOKENIZER, "tasks": tuple(TASKS), "room": 8, **fields})


def rows_of(table: Any) -> list[tuple[str, list[int], list[int], int]]:
    """Pieces, tasks, starts and place of the raw row of each sentence."""
    sentences = []
    for place, row in enumerate(table.to_pylist()):
        ends = np.cumsum([0, *row["lengths"]])
        assert ends[-1] == len(row["input_ids"]) == len(row["tasks"]) == len(row["starts"])
        for begin, end in zip(ends[:-1], ends[1:], strict=True):
            pieces = " ".join(TOKENIZER.convert_ids_to_tokens(row["input_ids"][begin:end]))
            sentences.append((pieces, row["tasks"][begin:end], row["starts"][begin:end], place))
    return sentences


def masked_args(path: str, vocabulary_file: str, **fields: Any) -> DataArguments:
    """Arguments of a Parquet file of words with tags."""
    common: dict[str, Any] = {"kind": "masked_text", "input_column": "text", "tag_column": "tags"}
    return data_arguments("parquet", data_files=path, **{**common, "tokenizer": vocabulary_file, **fields})


# Sentences of one batch


def test_pieces_have_the_task_of_their_word() -> None:
    prepare = preparer(tag_column="tags")
    batch = {"text": [WORDS, ["We", " ", "don't", "2"]], "tags": [TAGS, ["PRON", "X", "VERB", "NUM"]]}
    expected = [
        ("the dog bark ##s .", [2, 0, 1, 1, -1], [1, 1, 1, 0, 1], 0),
        ("we don ' t 2", [-1, 1, 1, 1, -1], [1, 1, 0, 0, 1], 1),
    ]
    assert rows_of(prepare(batch, [3, 7])) == expected
    # As examples/run_tag_pos.py writes it, with Penn tags and words that the tokenizer's do not end with.
    spans = preparer(tag_column="tags", has_spans=True)
    given = {"text": ["The dog barks.", "We don't"], "tags": [["DT", "NN", "VBZ", "."], ["PRP", "VBP", "RB"]]}
    given |= {"word_starts": [[0, 4, 8, 13], [0, 3, 5]], "word_ends": [[3, 7, 13, 14], [2, 5, 8]]}
    # "don" lies in "do" and "n't": the first counts.
    second = ("we don ' t", [-1, 1, -1, -1], [1, 1, 1, 0], 1)
    assert rows_of(spans(given, [0, 1])) == [expected[0], second]


def test_any_word_is_a_candidate_of_plain_masked_language_modelling() -> None:
    prepare = preparer(tasks=("mlm",), tag_column="gone")
    assert prepare.used_columns == ["text"]
    text = "The dog barks. The cat sleeps"
    expected = [("the dog bark ##s .", [0] * 5, [1, 1, 1, 0, 1], 0), ("the cat sleep ##s", [0] * 4, [1, 1, 1, 0], 0)]
    assert rows_of(prepare({"text": [text, None, " "]}, [0, 1, 2])) == expected
    # Words are the tokenizer's, of lists those of the list, of the tagger those that it would tag.
    assert rows_of(prepare({"text": ["don't"]}, [0]))[0][2] == [1, 1, 1]
    assert rows_of(prepare({"text": [["don't"]]}, [0]))[0][2] == [1, 0, 0]
    assert rows_of(preparer(tasks=("mlm",), tagger="nltk")({"text": ["don't"]}, [0]))[0][2] == [1, 1, 0]


def test_text_that_spells_a_special_token_is_text() -> None:
    (row,) = preparer(tasks=("mlm",))({"text": ["the [SEP] dog"]}, [0]).to_pylist()
    assert not {2, 3, 4} & set(row["input_ids"]) and row["input_ids"][0] == VOCABULARY["the"]
    assert TOKENIZER("the [SEP] dog")["input_ids"][2] == VOCABULARY["[SEP]"]


def test_long_sentences_are_cut_between_words() -> None:
    text = ["dog", "barks", "cat", "barked", "the", "sleeps", "a"]
    table = preparer(tasks=("mlm",), room=4)({"text": [text]}, [5])
    rows = rows_of(table)
    assert [row[0] for row in rows] == ["dog bark ##s cat", "bark ##ed the", "sleep ##s a"]
    assert all(row[2][0] == 1 and row[3] == 0 for row in rows)


@given(st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=6), st.integers(min_value=1, max_value=5))
def test_cuts_lose_nothing(sentences: list[list[bool]], room: int) -> None:
    lengths = np.array([len(sentence) for sentence in sentences])
    starts = np.array([flag for sentence in sentences for flag in sentence], dtype=bool)
    cuts = cut_rows(lengths, starts, room)
    assert cuts[-1] == lengths.sum() and (np.diff(cuts) > 0).all() and np.diff(cuts, prepend=0).max() <= room
    ends = np.cumsum(lengths)
    assert set((ends - lengths)[lengths > 0]) <= set(cuts)
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        # A cut inside a word is only made where there was no other.
        assert end in ends or starts[end] or not starts[begin + 1 : end].any()


@given(st.data())
def test_words_of_pieces_as_by_hand(data: Any) -> None:
    def spans(most: int) -> np.ndarray:
        edges = sorted(data.draw(st.lists(st.integers(0, 40), max_size=most, unique=True)))
        return np.array(edges[: len(edges) // 2 * 2], dtype=np.int64).reshape(-1, 2)

    pieces, words = spans(16), spans(12)
    expected = [
        next((number for number, (start, end) in enumerate(words) if start < last and first < end), -1)
        for first, last in pieces
    ]
    assert match_words(pieces, words).tolist() == expected


def test_words_are_tagged_by_nltk(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLTK_DATA", str(shared_data("nltk_data")))
    prepare = preparer(tagger="nltk")
    rows = rows_of(prepare({"text": ["We don't bark. A cat sleeps!", ""]}, [0, 1]))
    assert rows[0] == ("we don ' t bark .", [-1, 1, -1, -1, 1, -1], [1, 1, 1, 0, 1, 1], 0)
    assert rows[1][0] == "a cat sleep ##s [UNK]" and rows[1][1][::4] == [2, -1]
    words = ["We", "do", "n't", "bark", "."]
    assert rows_of(prepare({"text": [words]}, [0]))[0][1:3] == ([-1, 1, -1, -1, -1, 1, -1], [1, 1, 1, 0, 0, 1, 1])


# Tables: what is left out, what is told


def table_of(columns: dict[str, Any], **fields: Any) -> Dataset:
    """The sentences of a data set in memory."""
    args = data_arguments("parquet", data_files="x", kind="tokens", input_column="text")
    return sentence_table(Dataset.from_dict(columns), preparer(**fields), args)


def test_what_is_amiss_is_counted_and_named_once(
    write_parquet: Callable[..., str],
    vocabulary_file: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching, "MOST_BATCH_ROWS", 150)
    text = [WORDS, [], None, ["Zebra", "sleeps"], ["Zebra"]] * 80
    tags = [TAGS, [], None, ["NOUN", "verb"], ["NN"]] * 80
    path = write_parquet("train", text=text, tags=tags)
    for num_proc in (2, 2, None):  # also when the sentences come from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data = prepare_data(
                masked_args(path, vocabulary_file, num_proc=num_proc),
                config(next_sentence_prediction="none", max_position_embeddings=10),
            )
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 3
        assert "column 'text': 160 tokens in 160 of 400 rows stand for text" in told[0]
        assert "(rows [3, 4, 8, 9, 13] ..., such as ['Zebra'])" in told[0]
        assert "column 'tags': 80 of 560 words have one of 1 tags" in told[1] and "'verb' (80)" in told[1]
        assert (
            "240 of 400 rows have no text (or none that the tokenizer knows)" in told[2]
            and "rows 1, 2, 4, 6, 7, ..." in told[2]
        )
    assert {int(row["index"]) % 5 for row in data.train} == {0, 3}


@pytest.mark.parametrize("text", [[""], [" \n"], ["Zebra zebra"]])
def test_a_split_without_text_is_refused(text: list[str], caplog: pytest.LogCaptureFixture) -> None:
    message = (
        "train split: none of its 3 rows has text in column 'text', or none that data.tokenizer knows: check .*case"
    )
    with pytest.raises(ValueError, match=message):
        table_of({"text": text * 3}, tasks=("mlm",))
    assert ("6 tokens in 3 of 3 rows stand for text" in caplog.text) == (text == ["Zebra zebra"])


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_of_which_nothing_is_left_are_told(
    in_memory: bool,
    write_parquet: Callable[..., str],
    vocabulary_file: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching, "MOST_BATCH_ROWS", 1)
    columns = {
        "text": [["Zebra"], WORDS, ["Emu"], [], ["Gnu"], WORDS],
        "tags": [["zoo"], TAGS, ["NN"], [], ["zoo"], TAGS],
    }
    if in_memory:
        table = table_of(columns, tag_column="tags")
        found = rows_of(table.with_format("arrow")[:])
        assert [row[3] for row in found] == [1, 5] and found[1][0] == "the dog bark ##s ."
    else:
        data = prepare_data(masked_args(write_parquet("train", **columns), vocabulary_file), config())
        assert isinstance(data.train, MaskedTextRows) and [data.train[row]["index"] for row in range(2)] == [1, 5]
        # Not copied out of its file.
        assert data.train.table.cache_files and data.train.table._indices is None
    assert "2 of 11 words have one of 1 tags" in caplog.text and "'zoo' (2)" in caplog.text
    assert "3 tokens in 3 of 6 rows stand for text" in caplog.text and "['Emu', 'Gnu', 'Zebra']" in caplog.text
    assert "4 of 6 rows have no text" in caplog.text and "rows 0, 2, 3, 4)" in caplog.text


def test_tags_may_be_numbers_with_names(
    write_parquet: Callable[..., str], vocabulary_file: str, tmp_path: Path
) -> None:
    names = ["NOUN", "VERB", "DET", "."]
    features = Features({"text": List(Value("string")), "tags": List(ClassLabel(names=names))})
    split = Dataset.from_dict({"text": [WORDS] * 2, "tags": [[2, 0, 1, 3]] * 2}, features=features)
    split.to_parquet(tmp_path / "train.parquet")
    data = prepare_data(masked_args(str(tmp_path / "train.parquet"), vocabulary_file), config())
    assert isinstance(data.train, MaskedTextRows) and data.train.table[0]["tasks"] == [2, 0, 1, 1, -1]
    numbered = preparer(tag_column="tags", tag_names=tuple(names))
    assert numbered.description() != preparer(tag_column="tags", tag_names=tuple(names[::-1])).description()
    with pytest.raises(ValueError, match="row 4, column 'tags'.*its ClassLabel has names for 0..3 only"):
        numbered({"text": [WORDS], "tags": [[2, 0, -1, 3]]}, [4])


def test_rows_are_prepared_by_their_size() -> None:
    sizes = [
        batch_rows_of(Dataset.from_dict({"text": ["x" * length] * 9}), "text") for length in (0, 50, 5000, 300_000)
    ]
    assert sizes[:2] == [4096, 4096] and 200 <= sizes[2] <= 210 and sizes[3] == 3


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"text": [WORDS]}, {}, "data.tag_column: the model's tasks.*data.tagger to 'nltk'.*run_tag_pos.py"),
        (
            {"tags": [TAGS[:3]]},
            {"tag_column": "tags"},
            "row 0, column 'tags': 3 tags for the 4 words of column 'text'",
        ),
        ({"tags": [None]}, {"tag_column": "tags"}, "row 0, column 'tags': expected a list of tags.*None: drop rows"),
        (
            {"tags": [[0, 1, 2, 3]]},
            {"tag_column": "tags"},
            r"column 'tags': expected a list of tags.*List\(ClassLabel",
        ),
        (
            {"tags": ["DT NN VBZ ."]},
            {"tag_column": "tags"},
            "column 'tags': expected a list of tags.*: make it a list",
        ),
        ({"text": [[1, 2]]}, {"tagger": "nltk"}, "row 0, column 'text': expected a text or a list of words"),
        ({"text": ["The dog"]}, {"tag_column": "tags", "has_spans": True}, "missing: .'word_starts', 'word_ends'."),
        (
            {"text": ["dog"], "tags": [["NN"]], "word_starts": [[2]], "word_ends": [[4]]},
            {"tag_column": "tags", "has_spans": True},
            "row 0, column 'word_starts'..'word_ends': expected words one after the other within 3 characters",
        ),
        (
            {"text": ["dog"], "tags": [["NN"]], "word_starts": [[0]], "word_ends": [[]]},
            {"tag_column": "tags", "has_spans": True},
            "expected two lists of equal length",
        ),
    ],
)
def test_bad_rows_are_refused(
    columns: dict[str, Any], fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "tagger_digest", lambda: "one")  # the tagger's data is not needed for this
    with pytest.raises(ValueError, match=message):
        table_of({"text": [WORDS], "tags": [TAGS], **columns}, **fields)


# Documents


def test_wrapped_text_files_are_warned_of_once(
    vocabulary_file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lines.txt").write_text("The dog\nbarks the\ncat.\n\nA dog sleeps.\nThe\n")
    common: dict[str, Any] = {"kind": "masked_text", "input_column": "text", "tokenizer": vocabulary_file}
    args = data_arguments("text", data_files=str(tmp_path / "lines.txt"), **common)
    prepare_data(args, config(tasks=["mlm"]))
    assert caplog.text.count("train split: 3 of 5 lines do not end a sentence: is the text wrapped?") == 1


def documents_of(data: PreparedData) -> list[int]:
    """The first sentence of each document, and the number of all."""
    assert isinstance(data.train, MaskedTextRows)
    return list(data.train.document_starts)


def test_documents_end_where_the_column_changes_or_at_blank_lines(
    write_parquet: Callable[..., str], vocabulary_file: str, tmp_path: Path
) -> None:
    path = write_parquet("train", text=[WORDS] * 6, tags=[TAGS] * 6, file=["a", "a", "b", None, None, "a"])
    for column, expected in ((None, [0, 1, 2, 3, 4, 5, 6]), ("file", [0, 2, 3, 5, 6])):
        args = masked_args(path, vocabulary_file, document_column=column)
        assert documents_of(prepare_data(args, config())) == expected
    (tmp_path / "lines.txt").write_text("\nThe dog.\nA cat sleeps. The dog.\n\n\nThe cat.\n \nA dog.\n")
    common: dict[str, Any] = {"kind": "masked_text", "input_column": "text", "tokenizer": vocabulary_file}
    args = data_arguments("text", data_files=str(tmp_path / "lines.txt"), **common)
    assert documents_of(prepare_data(args, config(tasks=["mlm"]))) == [0, 3, 4, 5]
    # A line of which nothing is left ends no document.
    (tmp_path / "lines.txt").write_text("The dog.\nZebra\nA cat sleeps.\n\nEmu\n\nThe cat.\n")
    assert documents_of(prepare_data(args, config(tasks=["mlm"]))) == [0, 2, 3]


@pytest.mark.parametrize("block", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "values", [["a", "a", "b", None, None, "a", "a"], [1, 1, 0, None, None, 1, 1], [None] * 3, ["a"], [True, False]]
)
def test_runs_of_equal_values(values: list[Any], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "READ_ROWS", block)
    runs = runs_of_rows(Dataset.from_dict({"file": values}), masked_args("x", "utf-8", document_column="file"))
    assert runs.dtype == np.int32
    expected = np.cumsum([0, *(a != b for a, b in zip(values[:-1], values[1:], strict=True))])
    assert runs.tolist() == expected.tolist()


@pytest.mark.parametrize("block", [1, 3, 100])
def test_blank_lines_are_not_counted_by_a_limit(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "READ_ROWS", block)
    text = ["", "a1", "a2", " ", "\u00a0", None, "b1", "\x1c", "c1", "c2", "c3", ""]
    split = Dataset.from_dict({"text": text})
    common: dict[str, Any] = {"kind": "masked_text", "input_column": "text", "tokenizer": "utf-8"}

    def kept(limit: int, seed: int = 0) -> list[Any]:
        args = data_arguments("text", data_files="x", max_train_samples=limit, split_seed=seed, **common)
        return limit_documents({"train": split}, args)["train"]["text"][:]

    assert runs_of_rows(split, data_arguments("text", data_files="x", **common)).tolist() == [
        1,
        1,
        1,
        2,
        3,
        4,
        4,
        5,
        5,
        5,
        5,
        6,
    ]
    for seed in range(5):
        lines = kept(3, seed)
        assert [line for line in lines if line and line.strip()] == ["a1", "b1", "c1"]
        assert len(kept(1, seed)) == 2 and len(lines) == 6
    assert kept(9) == ["", "a1", "a2", None, "b1", "\x1c", "c1", "c2", "c3"]


def test_a_limit_keeps_the_beginnings_of_documents() -> None:
    names = [name for name in "abcdefghijklmno" for _ in range(20)]
    split = Dataset.from_dict({"file": names, "text": [""] * 300})
    args = masked_args("x", "utf-8", document_column="file", max_train_samples=35)

    def chosen(seed: int) -> list[int]:
        args.split_seed = seed
        kept = limit_documents({"train": split.add_column("n", range(300))}, args)["train"]
        return list(kept["n"])

    rows = chosen(0)
    assert len(rows) == 35 and rows == sorted(rows) == chosen(0) and rows != chosen(1)
    by_document = [[row % 20 for row in rows if row // 20 == number] for number in range(15)]
    assert sorted(map(len, by_document)) == [0] * 6 + [3] + [4] * 8
    assert all(places == list(range(len(places))) for places in by_document)
    args.document_column = None
    assert len(chosen(0)) == 35 and chosen(0) != rows


# The whole path


def test_batches_of_masked_text(write_parquet: Callable[..., str], vocabulary_file: str, tmp_path: Path) -> None:
    text = [WORDS, ["A", "cat", "barked"], ["The", "cat", "sleeps", "."]] * 4
    tags = [TAGS, ["DT", "NN", "VBD"], ["DT", "NN", "VBZ", "."]] * 4
    path = write_parquet("train", text=text, tags=tags, file=np.repeat(np.arange(4), 3))
    args = masked_args(path, vocabulary_file, document_column="file", max_validation_samples=1)
    data = prepare_data(args, config(), complete=True)
    assert data.not_inputs == ("index",) and data.num_labels is None
    (batch,) = DataLoader(data.train, 100, collate_fn=data.collator)
    assert set(batch) == {
        "input_ids",
        "attention_mask",
        "masked_positions",
        "token_type_ids",
        "labels",
        "tasks",
        "next_sentence_label",
        "index",
    }
    assert batch["input_ids"].shape[1] <= 16 and (batch["input_ids"][:, 0] == VOCABULARY["[CLS]"]).all()
    scored = batch["labels"] != -100
    nouns = [VOCABULARY["dog"], VOCABULARY["cat"]]
    assert scored.any() and set(batch["labels"][scored & (batch["tasks"] == 0)].tolist()) <= set(nouns)
    # Without pairs, shorter, and with the tokenizer of a checkpoint, whatever the recipe names.
    data.processor.save_pretrained(tmp_path / "checkpoint")
    args = masked_args(path, "elsewhere", document_column="file", sequence_length=9)
    single = prepare_data(args, config(next_sentence_prediction="none"), load_processor(tmp_path / "checkpoint"))
    (batch,) = DataLoader(single.train, 100, collate_fn=single.collator)
    assert "next_sentence_label" not in batch and batch["input_ids"].shape[1] <= 9


def test_a_tokenizer_is_trained_on_the_training_split(
    write_parquet: Callable[..., str], cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("train", text=[WORDS, ["Dogs", "barked"]] * 20, tags=[TAGS, ["NNS", "VBD"]] * 20)
    args = masked_args(path, "", tokenizer=None, wordpiece_size=50)
    for _ in range(2):
        caplog.clear()
        processor: Any = prepare_data(args, config(vocab_size=50)).processor
        assert processor.tokenize("The DOG barks") == ["the", "dog", "barks"] and processor.model_max_length == 16
        assert len(list((cache_folder / "hf_maskssl").glob("*.vocab.txt"))) == 1
        # Also where the vocabulary is found again.
        assert caplog.text.count("WordPieces, not 50: no others occur twice") == 1
    with pytest.raises(
        ValueError, match="data.wordpiece_size: a WordPiece vocabulary of 9 pieces has no room for the"
    ):
        prepare_data(masked_args(path, "", tokenizer=None, wordpiece_size=9), config())
    with pytest.raises(ValueError, match="model.vocab_size is 20, .* set model.vocab_size to"):
        prepare_data(args, config(vocab_size=20))


def test_real_sentences(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("text")
    path = str(folder / "brown" / "valid.parquet")
    args = masked_args(path, str(folder / "bert_uncased_vocab.txt"), tag_column="upos", input_column="tokens")
    args.document_column, args.max_train_samples = "file_id", 400
    data = prepare_data(args, config(vocab_size=30522, max_position_embeddings=64))
    assert isinstance(data.train, MaskedTextRows) and len(documents_of(data)) >= 11
    batch = data.collator([data.train[row] for row in range(20)])
    assert 0.1 < float((batch["labels"] != -100).sum() / batch["attention_mask"].sum()) < 0.16
    assert set(batch["tasks"].unique().tolist()) == {-100, 0, 1, 2}


# Recipes that cannot work


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer": None}, "data.tokenizer is None and data.wordpiece_size None: kind 'masked_text' needs one"),
        ({"wordpiece_size": 100}, "data.wordpiece_size 100: kind 'masked_text' needs one"),
        ({"tagger": "nltk"}, "data.tag_column 'tags' and data.tagger 'nltk' are both set"),
        ({"streaming": True}, "data.streaming is True with kind 'masked_text'"),
        ({"cache": False}, "data.cache is False with kind 'masked_text'"),
        ({"label_column": "y"}, "data.label_column is 'y' with kind 'masked_text'.*fine-tune with kind 'tokens'"),
        ({"alphabet": "ab"}, "unknown field data.alphabet for kind 'masked_text'"),
        ({"mlm_probability": 0.0}, r"data.mlm_probability: expected a number in \(0, 1\), got 0.0"),
        ({"short_sequence_probability": 1.5}, "data.short_sequence_probability: .* got 1.5"),
        ({"num_maskings": -1}, "data.num_maskings: expected at least 0, got -1"),
        ({"document_column": "f", "validation_fraction": 0.1}, "would tear documents apart.*split_column to 'f'"),
        ({"document_column": "f", "split": "random"}, "would tear documents apart"),
        ({"kind": "tokens"}, "unknown field data.tag_column for kind 'tokens'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masked_args("x", "vocab.txt", **fields)


def test_models_and_kinds_that_do_not_fit_are_refused(write_parquet: Callable[..., str], vocabulary_file: str) -> None:
    path = write_parquet("train", text=[WORDS] * 2, tags=[TAGS] * 2, more=[["x"]] * 2)
    args = masked_args(path, vocabulary_file)
    plain = MetaMAEConfig(modality="tokens", vocab_size=40, max_position_embeddings=16)
    with pytest.raises(ValueError, match="'masked_text' is for models that have tasks for words.*'metamae'"):
        prepare_data(args, plain)
    tokens = masked_args(path, vocabulary_file, kind="tokens", tag_column=None)
    with pytest.raises(
        ValueError, match="data.kind is 'tokens', but pos_minimax_bert is pre-trained on data of kind 'masked_text'"
    ):
        prepare_data(tokens, config(), complete=True)
    with pytest.raises(ValueError, match="data.sequence_length is 17, but the model takes 16 pieces"):
        prepare_data(masked_args(path, vocabulary_file, sequence_length=17), config())
    with pytest.raises(ValueError, match="data.tag_column: the train split has no column 'gone'"):
        prepare_data(masked_args(path, vocabulary_file, tag_column="gone"), config())
    with pytest.raises(ValueError, match="data.document_column 'more': expected one value per row, got list"):
        prepare_data(masked_args(path, vocabulary_file, document_column="more"), config())
    with pytest.raises(ValueError, match="labels are needed here"):
        prepare_data(args, config(), require_labels=True)
    for missing in ("[MASK]", "[SEP]"):
        Path(vocabulary_file).write_text("\n".join(piece for piece in VOCABULARY if piece != missing))
        with pytest.raises(ValueError, match=f"data.tokenizer .*has no \\{missing[:-1]}\\]"):
            prepare_data(args, config())


def test_the_cache_key_knows_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [
        {},
        {"room": 9},
        {"tasks": ("noun",)},
        {"tag_column": "t"},
        {"tagger": "nltk"},
        {"has_spans": True},
        {"column": "x"},
        {"tag_names": ("NN",)},
    ]
    monkeypatch.setattr(sentences, "tagger_digest", lambda: "one")
    other = build_bert_tokenizer(VOCABULARY, lowercase=False)
    assert len({preparer(**one).description() for one in [*fields, {"tokenizer": other}]}) == len(fields) + 1
    tagging, given, splitting = preparer(tagger="nltk"), preparer(tag_column="tags"), preparer(tasks=("mlm",))
    before = [one.description() for one in (tagging, given, splitting)]
    monkeypatch.setattr(sentences, "tagger_digest", lambda: "another")
    assert [one.description() == old for one, old in zip((tagging, given, splitting), before, strict=True)] == [
        0,
        1,
        1,
    ]
    monkeypatch.setattr(sentences, "tagger_digest", lambda: "one")
    monkeypatch.setattr(sentences, "version", lambda name: "0")
    assert [one.description() == old for one, old in zip((tagging, given, splitting), before, strict=True)] == [
        0,
        1,
        0,
    ]


def test_a_missing_tagger_is_told_before_the_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data

    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    fields: dict[str, Any] = {"tokenizer": None, "wordpiece_size": 50, "tag_column": None, "tagger": "nltk"}
    args = masked_args(str(tmp_path / "not_there.parquet"), "", **fields)
    with pytest.raises(TaggerDataError, match="nltk.downloader"):
        prepare_data(args, config())
    with pytest.raises(FileNotFoundError):
        prepare_data(args, config(tasks=["mlm"]))
