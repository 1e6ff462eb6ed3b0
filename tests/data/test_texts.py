"""Texts on their way to ids: bytes, pairs, lists of words, unknown characters; missing labels; packing."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from data_configs import series_config, token_config
from datasets import IterableDataset
from torch.utils.data import DataLoader

from hf_maskssl.data import DataArguments, PreparedData, data_arguments, load_processor, prepare_data
from hf_maskssl.data.text.tokenizers import BERT_SPECIAL_TOKENS

SEP = 5
modes = pytest.mark.parametrize("mode", [{}, {"cache": False}, {"streaming": True}], ids=["cached", "lazy", "stream"])
pack_modes = pytest.mark.parametrize("mode", [{}, {"streaming": True}], ids=["cached", "stream"])


def byte_ids(text: str) -> list[int]:
    """A text's bytes in Perceiver's numbering."""
    return [byte + 6 for byte in text.encode("utf-8")]


def text_args(path: str, **fields: Any) -> DataArguments:
    """Arguments of a file of texts for the byte tokenizer."""
    fields = {"input_column": "text", "tokenizer": "utf-8", **fields}
    return data_arguments("parquet", data_files=path, kind="tokens", **fields)


def ids_of(data: PreparedData) -> list[list[int]]:
    """The ids of the training rows."""
    return [np.asarray(row["input_ids"]).tolist() for row in data.train]


@modes
def test_texts_become_bytes_that_end_with_the_separator(
    write_parquet: Callable[..., str], mode: dict[str, Any], tmp_path: Path
) -> None:
    path = write_parquet("train", text=["né", "abcdefghi"])
    data = prepare_data(text_args(path, **mode), token_config(262, 6))
    batch = data.collator(list(data.train))
    assert batch["input_ids"].tolist() == [[*byte_ids("né"), SEP, 0, 0], [*byte_ids("abcde"), SEP]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    expected = data.processor(["né", "abcdefghi"], truncation=True)["input_ids"]
    assert ids_of(data) == expected
    # A checkpoint's tokenizer does the same whatever the recipe says.
    data.processor.save_pretrained(tmp_path / "checkpoint")
    loaded = load_processor(tmp_path / "checkpoint")
    args = text_args(path, tokenizer=None, alphabet="né", **mode)
    assert ids_of(prepare_data(args, token_config(262, 6), processor=loaded)) == expected


def test_texts_that_fill_the_model_are_counted(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("train", text=["né", "abcdefghi", "abcde", "abc"])
    with caplog.at_level("INFO"):
        data = prepare_data(text_args(path), token_config(262, 6))
    assert data.report.to_json()["splits"]["train"]["filled"] == 2
    assert "train split: 2 of 4 texts are as long as the 6 tokens that the model reads" in caplog.text
    assert "  2 texts as long as the model reads, or longer and cut there" in data.report.lines()
    assert prepare_data(text_args(path), token_config(262, 16)).report.splits["train"].filled == 0


@modes
def test_sentence_pairs(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    path = write_parquet("train", a=["ab", "abcdefgh", "q"], b=["xyz", "xy", ""], label=[0, 1, 1])
    args = text_args(path, input_column=["a", "b"], label_column="label", **mode)
    data = prepare_data(args, token_config(262, 9))
    pairs = [("ab", "xyz"), ("abcde", "xy"), ("q", "")]
    assert ids_of(data) == [[*byte_ids(first), SEP, *byte_ids(second), SEP] for first, second in pairs]
    assert data.collator(list(data.train))["labels"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer": None, "alphabet": "abxyzq"}, r"\['a', 'b'\]: a sentence pair needs a data.tokenizer"),
        ({"tokenizer": None}, "row 0, column 'a' holds str 'ab': name its data.tokenizer"),
        ({"input_column": ["a", "gone"]}, "data.input_column: the train split has no column 'gone'"),
        ({"input_column": ["a", "missing"]}, "all 1 rows have nothing in column 'a' or 'missing'"),
        ({"input_column": ["empty", "empty"]}, "all 1 rows have nothing in column 'empty' or 'empty'"),
    ],
)
def test_bad_pairs_are_refused(write_parquet: Callable[..., str], fields: dict[str, Any], message: str) -> None:
    path = write_parquet("train", a=["ab"], b=["xyz"], missing=np.array([None], dtype=object), empty=[""])
    with pytest.raises(ValueError, match=message):
        prepare_data(text_args(path, **{"input_column": ["a", "b"], **fields}), token_config(262, 9))


@modes
def test_lists_of_words_are_joined_by_blanks(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    path = write_parquet("train", text=[["The", "dog", "."], ["Né"]])
    data = prepare_data(text_args(path, **mode), token_config(262, 16))
    assert ids_of(data) == [[*byte_ids("The dog ."), SEP], [*byte_ids("Né"), SEP]]


@pytest.mark.parametrize(
    ("column", "fields", "message"),
    [
        ([["a", None]], {}, "row 0, column 'text': a word is missing"),
        ([["a"]], {"tokenizer": None}, "holds str 'a': name its data.tokenizer"),
        (["a"], {"max": 1}, "max_length: expected at least 2"),
    ],
)
def test_bad_texts_are_refused(
    write_parquet: Callable[..., str], column: Any, fields: dict[str, Any], message: str
) -> None:
    config = token_config(262, fields.pop("max", 16))
    with pytest.raises(ValueError, match=message):
        prepare_data(text_args(write_parquet("train", text=column), **fields), config)


def test_a_model_with_too_few_ids_for_bytes_is_refused(write_parquet: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="model.vocab_size is 256, .* set model.vocab_size to 262"):
        prepare_data(text_args(write_parquet("train", text=["a"])), token_config(256, 16))


# Texts as BERT takes them


PIECES = ["the", "dog", "bark", "##s", "a", "cat"]


@pytest.fixture
def bert_config(tmp_path: Path) -> SimpleNamespace:
    """Of a model that wants its texts framed; its vocabulary lies in `vocab.txt`."""
    (tmp_path / "vocab.txt").write_text("\n".join([*BERT_SPECIAL_TOKENS, *PIECES]), encoding="utf-8")
    return SimpleNamespace(**vars(token_config(11, 7, pad=0)), wants_special_tokens=True)


@modes
@pytest.mark.parametrize("columns", ["a", ["a", "b"]], ids=["single", "pair"])
def test_framed_texts_are_what_the_tokenizer_gives(
    write_parquet: Callable[..., str], tmp_path: Path, bert_config: Any, mode: dict[str, Any], columns: Any
) -> None:
    first, second = ["The dog barks", "a", "dog dog the cat barks a dog"], ["the cat", "cat", "cat"]
    path = write_parquet("train", a=first, b=second)
    args = text_args(path, input_column=columns, tokenizer=str(tmp_path / "vocab.txt"), **mode)
    data = prepare_data(args, bert_config)
    batch = data.collator(list(data.train))
    texts = (first,) if columns == "a" else (first, second)
    expected = data.processor(*texts, truncation=True, max_length=7, padding=True, return_tensors="pt")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        torch.testing.assert_close(batch[name], expected[name])
    # The same texts for a model that has a class token of its own.
    bert_config.wants_special_tokens = False
    plain = prepare_data(args, bert_config)
    assert "token_type_ids" not in plain.collator(list(plain.train))


@modes
def test_framed_texts_with_a_label_per_token(
    write_parquet: Callable[..., str], tmp_path: Path, bert_config: Any, mode: dict[str, Any]
) -> None:
    path = write_parquet("train", text=["the cat", "the dog a cat the dog"], label=[[1, 0], [0, 1, 2, 0, 1, 2]])
    args = text_args(path, label_column="label", task="token_classification", **mode)
    args.tokenizer = str(tmp_path / "vocab.txt")
    data = prepare_data(args, bert_config)
    assert data.collator(list(data.train))["labels"].tolist() == [
        [-100, 1, 0, -100, -100, -100, -100],
        [-100, 0, 1, 2, 0, 1, -100],
    ]


def test_real_pairs_of_glue(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("text")
    args = text_args(
        str(folder / "rte" / "dev.parquet"), input_column=["sentence1", "sentence2"], label_column="label"
    )
    args.tokenizer = str(folder / "bert_uncased_vocab.txt")
    config = SimpleNamespace(**vars(token_config(30522, 128, pad=0)), wants_special_tokens=True)
    data = prepare_data(args, config)
    batch = data.collator(list(data.train))
    assert batch["input_ids"].shape == (277, 128) and (batch["input_ids"][:, 0] == 101).all()
    assert (batch["input_ids"] == 102).sum() == 2 * 277 and ((batch["token_type_ids"] == 1).sum(1) > 2).all()


@modes
def test_the_separator_has_no_token_label(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    path = write_parquet("train", text=["abc", "abcdef"], label=[[0, 1, 2], [2, 2, 1, 1, 0, 0]])
    args = text_args(path, label_column="label", task="token_classification", **mode)
    data = prepare_data(args, token_config(262, 5))
    batch = data.collator(list(data.train))
    assert batch["labels"].tolist() == [[0, 1, 2, -100, -100], [2, 2, 1, 1, -100]]
    assert batch["input_ids"].shape == (2, 5)


def test_unknown_characters_are_counted_and_named(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("train", text=["CCO", "C#N", "CC", "[Na]C"] * 300)
    args = text_args(path, tokenizer=None, alphabet="CON[]")
    for _ in range(2):  # also when the rows come from the cache
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data = prepare_data(args, token_config(8, 8))
        assert "column 'text': 600 tokens in 600 of 1200 rows" in caplog.text
        assert "become [UNK] (rows [1, 3, 5, 7, 9] ..., such as ['#', 'a'])" in caplog.text
    assert ids_of(data)[1] == [3, 1, 5]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        prepare_data(text_args(path, tokenizer=None, alphabet="CON[]#a"), token_config(10, 8))
    assert caplog.text == ""


def test_real_texts(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("text")
    path = str(folder / "brown" / "test.parquet")
    data = prepare_data(text_args(path, input_column="tokens", max_train_samples=300), token_config(262, 64))
    sentences = {" ".join(words)[:63] for words in pq.read_table(path)["tokens"].to_pylist()}
    texts = data.processor.batch_decode(ids_of(data), skip_special_tokens=True)
    assert len(texts) == 300 and set(texts) <= sentences
    path = str(folder / "rte" / "dev.parquet")
    args = text_args(path, input_column=["sentence1", "sentence2"], label_column="label")
    data = prepare_data(args, token_config(262, 256))
    batch = data.collator(list(data.train))
    assert batch["input_ids"].shape == (277, 256) and (batch["input_ids"] == SEP).sum() == 2 * 277


# Missing labels


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(("missing", "task"), [(None, "regression"), (np.nan, "regression"), (None, "classification")])
def test_missing_labels_are_counted_or_dropped(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture, missing: Any, task: Any, cache: bool
) -> None:
    labels = [1, missing, 0, missing, missing, 1, 0, missing, missing, missing]
    files = {"train": write_parquet("train", x=np.arange(10.0), y=labels), "test": write_parquet("t", x=[1.0], y=[1])}
    common: dict[str, Any] = {"data_files": files, "kind": "tabular", "input_column": ["x"], "standardize": "none"}
    common |= {"label_column": "y", "test_split": "test", "task": task, "cache": cache}
    words = "train split, row 1, 3, 4, 7, 8, ..., column 'y': the label is missing in 6 of 10 rows"
    with pytest.raises(ValueError, match=f"{words}: .*data.drop_missing_labels"):
        prepare_data(data_arguments("parquet", **common), series_config(1, 1))
    with caplog.at_level(logging.WARNING):
        data = prepare_data(data_arguments("parquet", drop_missing_labels=True, **common), series_config(1, 1))
    assert words in caplog.text and "test split" not in caplog.text
    batch = data.collator(list(data.train))
    assert batch["labels"].tolist() == [1, 0, 1, 0] and batch["index"].tolist() == [0, 1, 2, 3]
    assert batch["input_values"].flatten().tolist() == [0.0, 2.0, 5.0, 6.0]


def test_missing_labels_are_dropped_before_splits_are_cut(write_parquet: Callable[..., str]) -> None:
    labels = [1.0 if row % 2 else None for row in range(40)]
    path = write_parquet("train", text=["abc"] * 40, y=labels)
    args = text_args(path, label_column="y", task="regression", split="random", drop_missing_labels=True)
    data = prepare_data(args, token_config(262, 8))
    assert data.validation is not None and data.test is not None
    assert [len(split) for split in (data.train, data.validation, data.test)] == [16, 2, 2]


def test_a_stream_names_a_missing_label(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=["ab", "cd"], y=[1.0, None])
    data = prepare_data(text_args(path, label_column="y", task="regression", streaming=True), token_config(262, 8))
    with pytest.raises(ValueError, match="row 1, column 'y': the label is None"):
        list(data.train)


# Packing


def packed(texts: list[str], length: int) -> list[list[int]]:
    """All texts end to end, cut into full sequences."""
    stream = [token for text in texts for token in [*byte_ids(text), SEP]]
    return [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]


@pack_modes
def test_texts_are_packed_into_full_sequences(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    texts = ["abc", "d" * 20, "né", "xyz", "w"]
    path = write_parquet("train", text=texts)
    data = prepare_data(text_args(path, pack=True, **mode), token_config(262, 7))
    assert ids_of(data) == packed(texts, 7) and len(packed(texts, 7)) == 5
    # Which text a sequence begins in: abc is 0..3, d 4..24, ne 25..28, xyz 29..32, w 33..34.
    assert [int(row["index"]) for row in data.train] == [0, 1, 1, 1, 2]
    batch = next(iter(DataLoader(data.train, 5, collate_fn=data.collator)))
    assert batch["input_ids"].shape == (5, 7) and batch["input_ids"].dtype == torch.int64
    assert "attention_mask" not in batch


@pack_modes
def test_packing_goes_on_over_many_batches(
    write_parquet: Callable[..., str], mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_maskssl.data.text.packing.PACK_ROWS", 4)
    texts = ["abcdef", "g", "hi", "j"] * 3 + ["k", "l", "m", "n"] + ["opq"] * 3
    data = prepare_data(text_args(write_parquet("train", text=texts), pack=True, **mode), token_config(262, 9))
    # Batches of four texts; the fourth has 8 tokens and gives nothing.
    expected = [row for start in range(0, len(texts), 4) for row in packed(texts[start : start + 4], 9)]
    assert ids_of(data) == expected and len(expected) == 4
    assert isinstance(data.train, IterableDataset) or data.train.arrays()["input_ids"].shape == (4, 9)


@pack_modes
def test_packing_needs_enough_text_and_a_separator(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    path = write_parquet("train", text=["ab", "c"], ids=[[1, 2], [3]])
    with pytest.raises(ValueError, match="data.pack: the texts of the train split .* one sequence of 6 tokens"):
        prepare_data(text_args(path, pack=True, **mode), token_config(262, 6))
    with pytest.raises(ValueError, match="data.pack: this tokenizer has no separator"):
        prepare_data(text_args(path, pack=True, tokenizer=None, alphabet="abc", **mode), token_config(262, 6))
    with pytest.raises(ValueError, match="data.pack: a column of ids has no separator"):
        prepare_data(text_args(path, pack=True, tokenizer=None, input_column="ids", **mode), token_config(262, 6))


def test_packed_rows_are_not_taken_for_others_in_the_cache(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=["abcdef", "ghi"])
    lengths = [[len(ids) for ids in ids_of(prepare_data(text_args(path, pack=pack), token_config(262, length)))]
               for pack, length in ((True, 5), (False, 5), (True, 4), (True, 5))]  # fmt: skip
    assert lengths == [[5, 5], [5, 4], [4, 4], [5, 5]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pack": True, "label_column": "y"}, "data.pack: data.label_column is 'y'"),
        ({"pack": True, "cache": False}, "data.pack: data.cache is False"),
        ({"pack": True, "input_column": ["a", "b"]}, r"data.pack: data.input_column is \['a', 'b'\]"),
        ({"pack": True, "kind": "series", "tokenizer": None}, "unknown field data.pack for kind 'series'"),
        ({"input_column": ["a", "b", "c"]}, "two for sentence pairs, got"),
        ({"input_column": ["a", "b"], "task": "token_classification"}, "sentence pairs have no labels per token"),
        ({"drop_missing_labels": True}, "data.drop_missing_labels is true with data.label_column None"),
        (
            {"drop_missing_labels": True, "label_column": "y", "streaming": True},
            "data.drop_missing_labels is true .* data.streaming True",
        ),
    ],
)
def test_combinations_that_cannot_work_are_refused(fields: dict[str, Any], message: str) -> None:
    fields = {"kind": "tokens", "input_column": "text", "tokenizer": "utf-8", **fields}
    with pytest.raises(ValueError, match=message):
        data_arguments("parquet", data_files="rows.parquet", **fields)
