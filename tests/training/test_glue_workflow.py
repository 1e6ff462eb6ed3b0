"""transformers' ordinary way to a GLUE task, on a CSV file of pairs and a checkpoint of PoS-BERT; and plain BERT on the same."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from text_runs import ADJECTIVES, BERT_MODEL, DETERMINERS, NOUNS, make_pairs
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from hf_maskssl import PoSMinimaxBertConfig, PoSMinimaxBertForPreTraining, PoSMinimaxBertForSequenceClassification
from hf_maskssl.data.text.tokenizers import BERT_SPECIAL_TOKENS, build_bert_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a pre-training run saves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    words = [*NOUNS, *NOUNS.values(), *DETERMINERS, *DETERMINERS.values(), *ADJECTIVES, "it", "."]
    pieces = dict.fromkeys([*BERT_SPECIAL_TOKENS, *words])
    build_bert_tokenizer({piece: number for number, piece in enumerate(pieces)}, 32).save_pretrained(folder)
    torch.manual_seed(0)
    fields = {name: value for name, value in BERT_MODEL.items() if name != "model_type"}
    config = PoSMinimaxBertConfig(**(fields | {"hidden_size": 32, "initializer_range": 0.1}))
    PoSMinimaxBertForPreTraining(config).save_pretrained(folder)
    return folder


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def fine_tune(auto_class: Any, checkpoint: Path, folder: Path) -> Trainer:
    """The notebook that everyone writes."""
    files = {}
    for number, (split, count) in enumerate({"train": 320, "validation": 64}.items()):
        columns = make_pairs(count, number)
        files[split] = str(folder / f"{split}.csv")
        with open(files[split], "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    rows = load_dataset("csv", data_files=files)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = rows.map(lambda row: tokenizer(row["first"], row["second"], truncation=True), batched=True)
    model = auto_class.from_pretrained(checkpoint, num_labels=2)
    args = TrainingArguments(
        output_dir=str(folder / "output"),
        num_train_epochs=3,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        warmup_steps=0.06,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(
        model=model,
        args=args,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, BertForSequenceClassification])
def test_the_ordinary_workflow_learns(auto_class: Any, checkpoint: Path, tmp_path: Path) -> None:
    trainer = fine_tune(auto_class, checkpoint, tmp_path)
    assert trainer.evaluate()["eval_accuracy"] > 0.9
    is_ours = isinstance(trainer.model, PoSMinimaxBertForSequenceClassification)
    assert is_ours == (auto_class is AutoModelForSequenceClassification)
    # What it leaves behind opens as either, with the head.
    trainer.save_model(str(tmp_path / "kept"))
    for kind in (AutoModelForSequenceClassification, BertForSequenceClassification):
        _, info = kind.from_pretrained(tmp_path / "kept", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]


def test_plain_bert_reads_every_weight_of_the_checkpoint(checkpoint: Path) -> None:
    """The same numbers: the encoder's, and the words that it predicts."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer(
        ["the old dog barked", "a cat"], ["it slept", "the happy bird sang"], padding=True, return_tensors="pt"
    )
    ours = PoSMinimaxBertForPreTraining.from_pretrained(checkpoint).eval()
    plain, info = BertForMaskedLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        assert torch.equal(plain.eval()(**batch).logits, ours(**batch).prediction_logits)
