"""Generated English with tags, a tiny PoS-BERT to pre-train on it, and a task on pairs of sentences."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tiny_models import section

BERT_MODEL = section("pos_minimax_bert", vocab_size=120, max_position_embeddings=32, intermediate_size=32)
# The noun decides its verb, the determiner its preposition: what is masked can be known.
NOUNS = {"dog": "barked", "cat": "slept", "bird": "sang", "horse": "ran", "child": "laughed"}
DETERMINERS = {"the": "near", "a": "under", "every": "behind"}
ADJECTIVES = ["old", "small", "red", "happy"]
TAGS = ["DET", "ADJ", "NOUN", "VERB", "ADP", "PRON", "PUNCT"]
SENTENCES_PER_DOCUMENT = 5


def write_sentences(folder: Path, documents: dict[str, int] | None = None) -> dict[str, Any]:
    """Parquet files of tagged sentences, and the data section that pre-trains on them."""
    files = {}
    for number, (split, count) in enumerate((documents or {"train": 12, "valid": 4}).items()):
        random = np.random.default_rng(number)
        words = [make_sentence(random) for _ in range(count * SENTENCES_PER_DOCUMENT)]
        columns = {
            "words": words,
            "upos": [TAGS] * len(words),
            "file": np.arange(len(words)) // SENTENCES_PER_DOCUMENT,
        }
        files[split] = str(folder / f"sentences-{split}.parquet")
        pq.write_table(pa.table(columns), files[split])
    section = {"source": "parquet", "data_files": files, "kind": "masked_text", "input_column": "words"}
    section |= {"tag_column": "upos", "document_column": "file", "wordpiece_size": 120, "num_maskings": 3}
    # The recipes of `runs.py` are of digits.
    return section | {
        "scale": 1.0,
        "max_train_samples": None,
        "validation_split": "valid" if "valid" in files else None,
    }


def make_sentence(random: np.random.Generator) -> list[str]:
    determiner, noun = str(random.choice(list(DETERMINERS))), str(random.choice(list(NOUNS)))
    return [determiner, str(random.choice(ADJECTIVES)), noun, NOUNS[noun], DETERMINERS[determiner], "it", "."]


def make_pairs(count: int, seed: int) -> dict[str, list[Any]]:
    """Columns `first`, `second`, `label`: 1 where the dog is in the second sentence, 0 where it is in the first.

    One of them has it always: only who knows which sentence is which can tell.
    """
    random = np.random.default_rng(seed)
    labels = [row % 2 for row in range(count)]
    others = [noun for noun in NOUNS if noun != "dog"]
    columns: dict[str, list[Any]] = {"first": [], "second": [], "label": labels}
    for label in labels:
        nouns = [str(random.choice(others)), "dog"]
        for name, noun in zip(("first", "second"), nouns if label else nouns[::-1], strict=True):
            sentence = make_sentence(random)
            columns[name].append(" ".join([*sentence[:2], noun, *sentence[3:]]))
    return columns


def write_pairs(folder: Path, rows: dict[str, int]) -> dict[str, Any]:
    """Parquet files of `make_pairs`, and the data section that fine-tunes to them."""
    files = {split: str(folder / f"pairs-{split}.parquet") for split in rows}
    for number, (split, count) in enumerate(rows.items()):
        pq.write_table(pa.table(make_pairs(count, number)), files[split])
    section: dict[str, Any] = {"source": "parquet", "data_files": files, "kind": "tokens", "label_column": "label"}
    section |= {"input_column": ["first", "second"], "task": "classification"}
    names = {"validation_split": "valid", "test_split": "test"}
    return section | {role: split for role, split in names.items() if split in files}


def write_words(folder: Path, rows: dict[str, int]) -> dict[str, Any]:
    """Parquet files of sentences with a class for each word, its part of speech, and the data section that reads them."""
    files = {split: str(folder / f"words-{split}.parquet") for split in rows}
    for number, (split, count) in enumerate(rows.items()):
        random = np.random.default_rng(number)
        columns = {"words": [make_sentence(random) for _ in range(count)], "parts": [list(range(len(TAGS)))] * count}
        pq.write_table(pa.table(columns), files[split])
    section: dict[str, Any] = {"source": "parquet", "data_files": files, "kind": "tokens", "input_column": "words"}
    return section | {"label_column": "parts", "task": "token_classification", "test_split": "test"}
