"""Small tasks that a tiny model learns in a second, and recipes of them."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from runs import MODEL, TEXT_MODEL
from transformers import CONFIG_MAPPING, Trainer

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe

SMA_MODEL: dict[str, Any] = {
    "model_type": "sma",
    "modality": "tokens",
    "vocab_size": 7,
    "max_position_embeddings": 9,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mask_ratio": 0.5,
    "num_masked_per_query": 2,
}
PERCEIVER: dict[str, Any] = {"encoder_type": "cross_attention", "num_latents": 6, "embedding_size": 12}
MODELS = {"metamae": MODEL | TEXT_MODEL, "sma": SMA_MODEL, "sma_latents": SMA_MODEL | PERCEIVER}
MODELS = {name: fields for name, fields in MODELS.items() if fields["model_type"] in CONFIG_MAPPING}
TASKS = ("classification", "regression", "token_classification")
ROWS = {"train": 48, "valid": 16, "test": 20}
LETTERS = "ACGT"


def write_task(folder: Path, task: str, rows: dict[str, int] | None = None) -> dict[str, Any]:
    """Parquet files of a task on words of A and C, and the data section that reads them.

    Classes: whether A or C prevails. Regression: 300 + 40 x the share of A, far from mean 0 and deviation 1. Tokens:
    which letter stands there.
    """
    files = {}
    for number, (split, count) in enumerate((rows or ROWS).items()):
        random = np.random.default_rng(number)
        words, labels = [], []
        for row in range(count):
            share = 0.9 if row % 2 else 0.1
            word = random.choice(["A", "C"], size=int(random.integers(5, 10)), p=[share, 1 - share])
            words.append("".join(word))
            of_a = float((word == "A").mean())
            labels.append(
                {"classification": int(of_a > 0.5), "regression": 300 + 40 * of_a}.get(task, (word == "A").tolist())
            )
        if task == "token_classification":
            labels = [[int(letter) for letter in word] for word in labels]
        files[split] = str(folder / f"{task}-{split}.parquet")
        pq.write_table(pa.table({"word": words, "label": labels}), files[split])
    section = {"source": "parquet", "data_files": files, "kind": "tokens", "input_column": "word", "alphabet": LETTERS}
    section |= {"label_column": "label", "task": task}
    names = {"validation_split": "valid", "test_split": "test"}
    return section | {role: split for role, split in names.items() if split in files}


def make_finetuning(
    folder: Path,
    task: str = "classification",
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    rows: dict[str, int] | None = None,
    **finetuning: Any,
) -> FinetuningRecipe:
    """A recipe of the small task in `folder`, results in `folder`/run, with these changes."""
    fields = {"output_dir": str(folder / "run"), "num_train_epochs": 6.0, "batch_size": 8, "learning_rate": 1e-2}
    section = write_task(folder, task, rows) | (data or {})
    return FinetuningRecipe(
        model=MODELS["metamae"] if model is None else model,
        data=data_arguments(**section),
        finetuning=FinetuningArguments(**(fields | {"seeds": [0, 1]} | finetuning)),
    )


def write_recipe(recipe: FinetuningRecipe, path: Path) -> Path:
    sections = {name: dataclasses.asdict(getattr(recipe, name)) for name in ("data", "finetuning")}
    path.write_text(yaml.safe_dump({"model": recipe.model, **sections}))
    return path


def raise_in_step(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """These signals come in the training step of this number."""
    original, taken = Trainer.training_step, [0]

    def training_step(self: Trainer, *words: Any, **options: Any) -> Any:
        taken[0] += 1
        if taken[0] == step:
            for number in numbers:
                signal.raise_signal(number)
        return original(self, *words, **options)

    monkeypatch.setattr(Trainer, "training_step", training_step)
