"""The tokenizers built here: from an alphabet, and of bytes."""

import logging
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_configs import token_config
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from hf_maskssl.data import (
    build_bert_tokenizer,
    build_byte_tokenizer,
    build_character_tokenizer,
    data_arguments,
    train_wordpiece,
)
from hf_maskssl.data.text.tokenizers import BERT_SPECIAL_TOKENS, check_tokenizer, load_tokenizer, read_vocabulary

ALPHABET = "ACGT *\n."


def test_ids_follow_the_alphabet() -> None:
    tokenizer = build_character_tokenizer(ALPHABET, 8)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (0, 1, 2)
    assert tokenizer(ALPHABET)["input_ids"] == list(range(3, 11)) and len(tokenizer) == 11
    assert tokenizer("AxA\nA")["input_ids"] == [3, 1, 3, 9, 3]
    assert tokenizer("A" * 20, truncation=True)["input_ids"] == [3] * 8
    assert build_character_tokenizer("[PAD]", 8)("[PAD]")["input_ids"] == [3, 4, 5, 6, 7]


@given(st.text(alphabet=ALPHABET, max_size=30))
def test_one_token_per_character_and_back(text: str) -> None:
    tokenizer = build_character_tokenizer(ALPHABET, 64)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) and tokenizer.decode(ids) == text


@pytest.mark.parametrize("alphabet", ["", "AA"])
def test_bad_alphabets_are_refused(alphabet: str) -> None:
    with pytest.raises(ValueError, match="expected different characters"):
        build_character_tokenizer(alphabet, 8)


SEPARATOR = 5


def byte_ids(text: str) -> list[int]:
    """What a text's bytes should become."""
    return [byte + 6 for byte in text.encode("utf-8")]


def test_bytes_are_numbered_as_perceiver_numbers_them() -> None:
    tokenizer = build_byte_tokenizer(16)
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1 == 262
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    special += [tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert special == [0, 1, 2, 3, 4, 5] and tokenizer.unk_token_id is None
    assert tokenizer("h\u00e9")["input_ids"] == [ord("h") + 6, 0xC3 + 6, 0xA9 + 6, SEPARATOR]
    # Every byte that UTF-8 uses, in texts of every length of character.
    text = "".join(map(chr, [*range(0x800), *range(0x800, 0xD800, 37), 0x10FFFF, 0x1F600]))
    assert tokenizer(text)["input_ids"] == [*byte_ids(text), SEPARATOR]


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_any_text_comes_back_and_pairs_are_separated(first: str, second: str) -> None:
    tokenizer = build_byte_tokenizer(512)
    ids = tokenizer(first)["input_ids"]
    assert ids == [*byte_ids(first), SEPARATOR]
    assert tokenizer.decode(ids, skip_special_tokens=True) == first
    pair = tokenizer(first, second)["input_ids"]
    assert pair == [*byte_ids(first), SEPARATOR, *byte_ids(second), SEPARATOR]


def test_texts_that_spell_special_tokens_stay_text(tmp_path: Path) -> None:
    build_byte_tokenizer(16).save_pretrained(tmp_path)
    for tokenizer in (build_byte_tokenizer(16), AutoTokenizer.from_pretrained(tmp_path)):
        ids = tokenizer("a [MASK] , .")["input_ids"]
        assert ids == [*byte_ids("a [MASK] , ."), SEPARATOR]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "a [MASK] , ."


def test_truncation_keeps_the_separators() -> None:
    tokenizer = build_byte_tokenizer(8)
    assert tokenizer("abcdefghij", truncation=True)["input_ids"] == [*byte_ids("abcdefg"), SEPARATOR]
    pair = tokenizer("abcdefghij", "xyz", truncation=True)["input_ids"]
    assert pair == [*byte_ids("abc"), SEPARATOR, *byte_ids("xyz"), SEPARATOR]
    padded = tokenizer(["a", "bcd"], padding=True)
    assert padded["input_ids"] == [[103, 5, 0, 0], [104, 105, 106, 5]]
    assert padded["attention_mask"] == [[1, 1, 0, 0], [1, 1, 1, 1]]
    with pytest.raises(ValueError, match="max_length: expected at least 2"):
        build_byte_tokenizer(1)


def test_both_load_without_this_package(tmp_path: Path) -> None:
    build_character_tokenizer("ACGT", 8).save_pretrained(tmp_path / "letters")
    build_byte_tokenizer(8).save_pretrained(tmp_path / "bytes")
    assert AutoTokenizer.from_pretrained(tmp_path / "letters")("GATX")["input_ids"] == [5, 3, 6, 1]
    program = (
        "import sys; from transformers import AutoTokenizer\n"
        "letters, bytes = (AutoTokenizer.from_pretrained(name) for name in ('letters', 'bytes'))\n"
        "print(letters('GATX')['input_ids'], letters.model_max_length, letters.mask_token)\n"
        "print(bytes('hi', 'you')['input_ids'], bytes.model_max_length, 'hf_maskssl' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    expected = ["[5, 3, 6, 1] 8 [MASK]", f"{[*byte_ids('hi'), 5, *byte_ids('you'), 5]} 8 False"]
    assert result.stdout.splitlines() == expected


# BERT's: of a vocabulary file, or trained

REPOSITORY = Path(__file__).resolve().parents[2]
# Many ties, which hash tables would break otherwise in every process.
TEXTS = [
    f"{a}{b} un{a}{b}ed, {b}{a}!" for a in ("ab", "cd", "ef", "gh", "xi") for b in ("st", "uv", "op", "\u00e9l")
] * 2


def vocabulary_tokenizer(path: Path, pieces: list[str]) -> Any:
    """The tokenizer of a recipe that names this file of pieces."""
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    args = data_arguments("text", data_files="x", kind="tokens", input_column="text", tokenizer=str(path))
    return load_tokenizer(args.tokenizer, args.alphabet, token_config(100, 6))


def test_vocabulary_files_are_cased_where_they_have_capitals(tmp_path: Path) -> None:
    special = ["[PAD]", "[unused0]", "[UNUSED1]", *BERT_SPECIAL_TOKENS[1:]]
    lower = vocabulary_tokenizer(tmp_path / "vocab.txt", [*special, "heat", "h", "##eat", "##s"])
    assert lower.tokenize("H\u00e9ats") == ["heat", "##s"] and lower.mask_token_id == 6
    assert lower("heat heat heat heat heat", truncation=True)["input_ids"] == [4, 7, 7, 7, 7, 5]
    cased = vocabulary_tokenizer(tmp_path / "cased.txt", [*special, "heat", "H", "##eat", "##s"])
    assert cased.tokenize("Heats heats") == ["H", "##eat", "##s", "heat", "##s"]


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (
            [*BERT_SPECIAL_TOKENS[:4], "a"],
            r"is no BERT vocabulary: the vocabulary of 5 pieces has no \[MASK\]: expected",
        ),
        ([*BERT_SPECIAL_TOKENS, "a", "b", "a"], "expected a different piece on each line, got 'a' on 2 of 8"),
        ([*BERT_SPECIAL_TOKENS, "", "b"], "expected a different piece on each line, got '' on 1 of 7"),
    ],
)
def test_bad_vocabulary_files_are_refused(tmp_path: Path, pieces: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary_tokenizer(tmp_path / "vocab.txt", pieces)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not a vocabulary in UTF-8"):
        read_vocabulary(tmp_path / "vocab.txt")


def test_a_trained_wordpiece_has_characters_and_common_pieces() -> None:
    vocabulary = train_wordpiece(TEXTS, 60)
    assert list(vocabulary)[:5] == list(BERT_SPECIAL_TOKENS) and list(vocabulary.values()) == list(range(60))
    # Punctuation never goes on with a word; accents and capitals are gone.
    assert {"!", ",", "##a", "un"} <= set(vocabulary) and not {"##!", "##,", "\u00e9", "##\u00e9"} & set(vocabulary)
    tokenizer = build_bert_tokenizer(vocabulary, 16)
    for text in TEXTS:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
        letters = "".join(tokenizer.tokenize(text)).replace("##", "")
        assert letters == text.replace(" ", "").replace("\u00e9", "e")
    assert "\u00e9" in train_wordpiece(TEXTS, 60, lowercase=False)


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (iter(TEXTS), 60, "texts: they are read twice"),
        (["ab", "!"], 9, "of 9 pieces has no room for the 3 characters of the texts, which need 10: raise it"),
        ([" "], 9, "the texts are empty"),
    ],
)
def test_texts_that_give_no_wordpiece_are_refused(texts: Any, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_wordpiece(texts, size)


def test_the_same_texts_give_the_same_pieces_and_the_script_saves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The trainer of the tokenizers library gives others on every call.
    pieces = train_wordpiece(TEXTS, 60)
    assert all(train_wordpiece(TEXTS, 60) == pieces for _ in range(4))
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    script = str(REPOSITORY / "examples" / "train_tokenizer.py")
    words = ["--source", "text", "--data_files", str(tmp_path / "corpus.txt"), "--input_column", "text"]
    words += ["--vocab_size", "60", "--output_dir", str(tmp_path / "folder")]
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(script, run_name="__main__")
    assert read_vocabulary(tmp_path / "folder" / "vocab.txt") == pieces
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert type(tokenizer) is BertTokenizer and tokenizer.get_vocab() == pieces
    assert tokenizer("ABST!")["input_ids"] == build_bert_tokenizer(pieces)("abst!")["input_ids"]
    with pytest.raises(SystemExit):  # the folder holds a tokenizer
        runpy.run_path(script, run_name="__main__")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {source: text, kind: masked_text, input_column: gone, wordpiece_size: 60}")
    words = [str(recipe), "--data_files", str(tmp_path / "corpus.txt"), "--input_column", "text"]
    monkeypatch.setattr(sys, "argv", [script, *words, "--output_dir", str(tmp_path / "other")])
    runpy.run_path(script, run_name="__main__")
    assert read_vocabulary(tmp_path / "other" / "vocab.txt") == pieces


def test_a_vocabulary_with_much_to_spare_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = build_byte_tokenizer(8)
    with caplog.at_level(logging.INFO, logger="hf_maskssl"):
        check_tokenizer(tokenizer, token_config(275, 8))
        assert not caplog.records
        check_tokenizer(tokenizer, token_config(276, 8))
    assert "model.vocab_size is 276, the tokenizer has 262 pieces: the rest is never used" in caplog.text
