"""The tokenizers built here: from an alphabet, and of bytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_maskssl.data import build_byte_tokenizer, build_character_tokenizer

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


def test_loads_without_this_package(tmp_path: Path) -> None:
    build_character_tokenizer("ACGT", 8).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("GATX")["input_ids"] == [5, 3, 6, 1]
    program = (
        "import sys; from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(tokenizer('GATX')['input_ids'], tokenizer.model_max_length, tokenizer.mask_token)\n"
        "print('hf_maskssl' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.split("\n")[:2] == ["[5, 3, 6, 1] 8 [MASK]", "False"]


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


def test_the_byte_tokenizer_loads_without_this_package(tmp_path: Path) -> None:
    build_byte_tokenizer(8).save_pretrained(tmp_path)
    program = (
        "import sys; from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(tokenizer('hi', 'you')['input_ids'], tokenizer.model_max_length, 'hf_maskssl' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == f"{[*byte_ids('hi'), 5, *byte_ids('you'), 5]} 8 False"
