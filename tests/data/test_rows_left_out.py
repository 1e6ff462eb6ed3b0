"""Rows without input, words of CSV files, and packed texts of any size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_configs import series_config, token_config
from datasets import Dataset

from hf_maskssl.data import DataArguments, PreparedData, data_arguments, prepare_data
from hf_maskssl.data.tables.empty_rows import WithoutEmpty, empty_rows, is_blank_value
from hf_maskssl.data.text import packing, texts
from hf_maskssl.data.text.tokenizers import build_byte_tokenizer, build_character_tokenizer, train_wordpiece

BLANKS: list[Any] = ["ab", "", None, " \t\u00a0\u200b\ufeff\x00", "c d"]
modes = pytest.mark.parametrize("mode", [{}, {"cache": False}, {"streaming": True}], ids=["kept", "read", "stream"])


def text_args(path: str | Path, source: str = "parquet", **fields: Any) -> DataArguments:
    """Texts as bytes."""
    named = {"input_column": "text", "tokenizer": "utf-8", **fields}
    return data_arguments(source, data_files=str(path), kind="tokens", **named)


def decoded(data: PreparedData) -> list[str]:
    """The texts that are left."""
    return [data.processor.decode(row["input_ids"], skip_special_tokens=True) for row in data.train]


@modes
def test_texts_without_a_character_are_left_out_with_a_count(
    write_parquet: Callable[..., str], mode: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    data = prepare_data(text_args(write_parquet("train", text=BLANKS), **mode), token_config(262, 16))
    assert decoded(data) == ["ab", "c d"]
    assert any("3 " in text and "nothing in column 'text'" in text for text in caplog.messages)
    if not mode.get("streaming"):
        split = data.report.splits["train"]
        assert (split.rows, split.left_out) == (2, {"nothing in column 'text'": 3})


@modes
@pytest.mark.parametrize("column", [[[1, 2], [], None, [3]], [["a"], [], ["", " "], None, [None], ["b"]]])
def test_lists_without_an_entry_are_left_out(
    write_parquet: Callable[..., str], mode: dict[str, Any], column: Any
) -> None:
    tokenizer = "utf-8" if isinstance(column[0][0], str) else None
    args = text_args(write_parquet("train", text=column), tokenizer=tokenizer, **mode)
    assert len(list(prepare_data(args, token_config(262, 16)).train)) == 2


@modes
def test_of_a_pair_one_text_may_be_empty_but_none_missing(
    write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    path = write_parquet("train", a=["x", "", "y", "", None], b=["", "z", None, " ", "w"], label=[0, 1, 0, 1, 0])
    args = text_args(path, input_column=["a", "b"], label_column="label", **mode)
    assert [row["labels"] for row in prepare_data(args, token_config(262, 16)).train] == [0, 1]


def test_blank_lines_of_text_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n\n")
    args = text_args(tmp_path / "a.txt", source="text")
    assert decoded(prepare_data(args, token_config(262, 16))) == ["one", "two"]


def test_errors_name_the_row_that_the_file_has(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=["", "AC", "xy"])
    with pytest.raises(ValueError, match="row 2, column 'text': the tokenizer knows nothing of 'xy'"):
        prepare_data(text_args(path, tokenizer=None, alphabet="AC"), token_config(6, 4))
    path = write_parquet("labelled", text=["", "AC", "CA"], label=["x", "y", None])
    with pytest.raises(ValueError, match="row 2, column 'label': the label is missing"):
        prepare_data(text_args(path, label_column="label"), token_config(262, 4))


def test_missing_labels_of_empty_rows_do_not_matter(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=["a", None, "b"], label=["x", None, "y"])
    assert prepare_data(text_args(path, label_column="label"), token_config(262, 4)).label_names == ["x", "y"]


@modes
def test_empty_series_are_left_out_and_rows_with_holes_are_not(
    write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    path = write_parquet("train", s=[[1.0, 2.0], None, [3.0, 5.0]])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s", **mode)
    assert len(list(prepare_data(args, series_config(1, 2)).train)) == 2
    path = write_parquet("table", a=[1.0, None, 2.0], b=[1.0, 2.0, 4.0])
    args = data_arguments("parquet", data_files=path, kind="tabular", **mode)
    assert len(list(prepare_data(args, series_config(1, 2)).train)) == 3


def test_empty_rows_are_those_of_the_choice_and_not_of_the_file() -> None:
    rows = Dataset.from_dict({"t": ["a", "", "b", " "]}).select([3, 0])
    assert empty_rows(rows, [["t"]]).tolist() == [True, False]
    assert [is_blank_value(value) for value in (None, "", "\u2003", [], [" "], "a\n", ["", "a"], [1])] == [
        True
    ] * 5 + [False] * 3


def test_a_batch_of_a_stream_may_be_empty_as_a_whole(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=[""] * 300 + ["a"])
    data = prepare_data(text_args(path, streaming=True), token_config(262, 4))
    assert [row["index"] for row in data.train] == [300]
    told = WithoutEmpty(lambda batch, indices: {"x": list(indices)}, [["t"]], "train")
    assert told({"t": ["", "a"]}, [4, 5]) == {"x": [5]} and told.left_out == 1


WORDS = ["met", "NA", "null", "None", "n/a"]


@pytest.mark.parametrize("streaming", [False, True])
def test_words_of_csv_files_stay_words(tmp_path: Path, streaming: bool) -> None:
    lines = [f"{word},{'None' if row % 2 else 'mild'},{'NA' if row == 4 else row}" for row, word in enumerate(WORDS)]
    (tmp_path / "a.csv").write_text("text,label,n\n" + "\n".join([*lines, ",mild,7"]) + "\n")
    args = text_args(tmp_path / "a.csv", source="csv", label_column="label", streaming=streaming)
    data = prepare_data(args, token_config(262, 16))
    assert decoded(data) == WORDS and data.label_names == ["None", "mild"]


def test_words_among_the_numbers_of_csv_files_are_missing_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n1,0\n2,NA\n")
    args = data_arguments("csv", data_files=str(tmp_path / "a.csv"), kind="tabular", label_column="label")
    with pytest.raises(ValueError, match="label is missing in 1 of 2 rows .in a CSV column of numbers, NA, null"):
        prepare_data(args, series_config(1, 1))


@pytest.mark.parametrize("streaming", [False, True])
def test_packed_texts_do_not_depend_on_the_size_of_batches(
    write_parquet: Callable[..., str], monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("abc"), size)) for size in rng.integers(0, 9, 40)]
    monkeypatch.setattr(packing, "PACK_ROWS", 7)
    # By hand: of every 7 texts that have a character, the full sequences.
    kept, expected = [row for row in rows if row], []
    if streaming:  # whose batches are counted with their empty texts
        groups = [[row for row in rows[start : start + 7] if row] for start in range(0, 40, 7)]
    else:
        groups = [kept[start : start + 7] for start in range(0, len(kept), 7)]
    for group in groups:
        ids = [token for row in group for token in [*(byte + 6 for byte in row.encode()), 5]]
        expected += [ids[start : start + 5] for start in range(0, len(ids) - 4, 5)]
    for size in (1, 3, 7):
        monkeypatch.setattr(packing, "batch_rows_of", lambda rows, column, size=size: size)
        path = write_parquet(f"train{size}", text=rows)  # another file: nothing is found in the cache
        data = prepare_data(text_args(path, pack=True, streaming=streaming), token_config(262, 5))
        assert [list(row["input_ids"]) for row in data.train] == expected


def test_long_texts_are_tokenised_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = ["né" * 9, "a", "", "bc" * 3]
    for tokenizer in (build_byte_tokenizer(64), build_character_tokenizer("abcné", 64)):
        whole = [ids.tolist() for ids in texts.encoded_texts(tokenizer, values)]
        with monkeypatch.context() as small:
            small.setattr(texts, "ENCODED_CHARACTERS", 4)
            assert [ids.tolist() for ids in texts.encoded_texts(tokenizer, values)] == whole
    assert texts.is_bytewise(build_byte_tokenizer(64)) and not texts.is_bytewise(build_character_tokenizer("a", 64))


def test_words_longer_than_bert_takes_are_left_out_of_a_vocabulary(caplog: pytest.LogCaptureFixture) -> None:
    short = ["the dogs bark", "the dog barks at the dogs"] * 3
    # Quadratic in a word's length, this would take minutes.
    vocabulary = train_wordpiece([*short, "the " + "qz" * 150_000 + " dogs", "é" * 100], 60)
    assert "1 words of more than 100 characters are left out" in caplog.text
    assert "q" not in vocabulary and "e" in vocabulary and "dogs" in vocabulary
    assert train_wordpiece(short, 60) == train_wordpiece([*short, "k" * 101], 60)
