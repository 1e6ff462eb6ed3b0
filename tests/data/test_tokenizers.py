"""The tokenizer built from an alphabet."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_maskssl.data import build_character_tokenizer

ALPHABET = "ACGT *\n."


def test_ids_follow_the_alphabet() -> None:
    tokenizer = build_character_tokenizer(ALPHABET, 8)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (0, 1, 2)
    assert tokenizer(ALPHABET)["input_ids"] == list(range(3, 11)) and len(tokenizer) == 11
    assert tokenizer("AxA\nA")["input_ids"] == [3, 1, 3, 9, 3]
    assert tokenizer("A" * 20, truncation=True)["input_ids"] == [3] * 8


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
