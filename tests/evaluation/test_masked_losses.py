"""Losses of masked words by part of speech, against a loop over single pieces."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForPreTraining, BertForMaskedLM, BertForPreTraining, BertModel, BertTokenizer

from hf_maskssl.data.masked_text.rows import MaskedTextCollator, MaskedTextRows
from hf_maskssl.evaluation.masked_losses import masked_losses
from hf_maskssl.models.configuration_pos_minimax_bert import PoSMinimaxBertConfig
from hf_maskssl.models.modeling_pos_minimax_bert import PoSMinimaxBertForPreTraining

TASKS = ["noun", "verb", "adverb"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(25))]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(VOCABULARY)})


@pytest.fixture(scope="module")
def rows(tokenizer: BertTokenizer) -> MaskedTextRows:
    """Forty sentences of eight documents; no piece is of the last task."""
    rng = np.random.default_rng(0)
    sentences = [rng.integers(5, len(VOCABULARY), size=length).tolist() for length in rng.integers(3, 9, size=40)]
    table = {
        "input_ids": sentences,
        "tasks": [rng.integers(-1, 2, size=len(ids)).tolist() for ids in sentences],
        "starts": [[1] * len(ids) for ids in sentences],
        "lengths": [[len(ids)] for ids in sentences],
    }
    return MaskedTextRows(
        Dataset.from_dict(table),
        np.repeat(np.arange(8), 5),
        tokenizer,
        vocab_size=len(VOCABULARY),
        max_length=24,
        next_sentence=True,
        mlm_probability=0.4,
    )


@pytest.fixture(scope="module")
def collator(tokenizer: BertTokenizer) -> MaskedTextCollator:
    return MaskedTextCollator(tokenizer, len(VOCABULARY))


def make_config(**changes: Any) -> PoSMinimaxBertConfig:
    fields: dict[str, Any] = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 24, "hidden_size": 16}
    fields |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "initializer_range": 0.5}
    return PoSMinimaxBertConfig(**{**fields, "tasks": TASKS, **changes})


@pytest.fixture(scope="module")
def model() -> PoSMinimaxBertForPreTraining:
    torch.manual_seed(0)
    return PoSMinimaxBertForPreTraining(make_config())


def slow_scores(model: PoSMinimaxBertForPreTraining, rows: MaskedTextRows) -> dict[str, dict[str, Any]]:
    """Row by row, unpadded, with logits for every piece."""
    losses: dict[str, list[float]] = {name: [] for name in [*TASKS, "next_sentence"]}
    right: dict[str, list[bool]] = {name: [] for name in losses}
    model.eval()
    for row in [rows[number] for number in range(len(rows))]:
        inputs = {name: torch.from_numpy(row[name])[None] for name in ("input_ids", "token_type_ids")}
        with torch.no_grad():
            outputs = model(**inputs)
        found = [
            (TASKS[row["tasks"][place]], outputs.prediction_logits[0, place], label)
            for place, label in enumerate(row["labels"])
            if label != -100
        ]
        found.append(("next_sentence", outputs.seq_relationship_logits[0], row["next_sentence_label"]))
        for name, logits, label in found:
            losses[name].append(-logits.double().log_softmax(0)[label].item())
            right[name].append(int(logits.argmax()) == label)
    return {
        name: {
            "loss": math.fsum(values) / len(values) if values else None,
            "accuracy": sum(right[name]) / len(values) if values else None,
            "count": len(values),
        }
        for name, values in losses.items()
    }


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_exact_means_whatever_the_batches(
    model: PoSMinimaxBertForPreTraining, rows: MaskedTextRows, collator: MaskedTextCollator, batch_size: int
) -> None:
    expected = slow_scores(model, rows)
    assert expected["noun"]["count"] > 20 and expected["adverb"] == {"loss": None, "accuracy": None, "count": 0}
    model.train()
    before = torch.get_rng_state()
    scores = masked_losses(model, rows, collator, TASKS, batch_size)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert list(scores) == [*TASKS, "next_sentence"]
    assert scores["adverb"] == expected["adverb"]
    for name in ("noun", "verb", "next_sentence"):
        assert scores[name] == pytest.approx(expected[name], rel=1e-5)
    assert masked_losses(model, rows, collator, TASKS, batch_size) == scores  # the same masks again


def test_plain_masked_language_model_is_scored_on_the_same_words(
    model: PoSMinimaxBertForPreTraining,
    rows: MaskedTextRows,
    collator: MaskedTextCollator,
    tmp_path: Any,
) -> None:
    expected = masked_losses(model, rows, collator, TASKS)
    plain = PoSMinimaxBertForPreTraining(make_config(tasks=["mlm"]))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(tmp_path)
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path)
    assert loaded.config.tasks == ["mlm"]
    assert masked_losses(loaded, rows, collator, TASKS) == expected
    bert = BertForPreTraining.from_pretrained(tmp_path)
    assert masked_losses(bert, rows, collator, TASKS) == expected
    words_only = masked_losses(BertForMaskedLM.from_pretrained(tmp_path), rows, collator, TASKS)
    assert words_only == {name: expected[name] for name in TASKS}


def bad_tasks(model: Any, rows: Any, collator: Any) -> None:
    masked_losses(model, rows, collator, TASKS[:1])


def no_tasks(model: Any, rows: Any, collator: Any) -> None:
    masked_losses(model, [{"labels": None, "input_ids": [1]}], lambda found: found[0], TASKS)


def no_rows(model: Any, rows: Any, collator: Any) -> None:
    masked_losses(model, rows.select([]), collator, TASKS)


def no_head(model: Any, rows: Any, collator: Any) -> None:
    masked_losses(BertModel(model.config), rows, collator, TASKS)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (bad_tasks, r"of task 1, expected 0 to 0, the places of \['noun'\]"),
        (no_tasks, "the rows have no tasks: .*masked_text"),
        (no_rows, "no rows to score"),
        (no_head, "BertModel has no head for masked words"),
    ],
)
def test_bad_input_is_told(
    model: Any, rows: Any, collator: Any, attempt: Callable[[Any, Any, Any], None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attempt(model, rows, collator)
