"""Batches of unequally many labels that are accumulated to one step of fine-tuning make the step of one large batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForSemanticSegmentation,
    PreTrainedModel,
    TrainingArguments,
)

import tiny_models
from hf_maskssl.training.finetuning import trials
from hf_maskssl.training.finetuning.stopping import StoppableTrainer

ROWS, SIDE, RATE = 6, 16, 0.1
HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "semantic_segmentation": (AutoModelForSemanticSegmentation, {"num_labels": 3}),
    "depth_estimation": (AutoModelForDepthEstimation, {}),
    "dense_regression": (AutoModelForImageToImage, {"num_labels": 2}),
    "regression": (AutoModelForImageClassification, {"num_labels": 3, "problem_type": "regression"}),
}


def labels_of(task: str) -> torch.Tensor:
    """Labels of which each row lacks another share, the first one most."""
    draws = torch.Generator().manual_seed(1)
    if task == "semantic_segmentation":
        labels = torch.randint(0, 3, (ROWS, SIDE, SIDE), generator=draws)
        lacking: float = 255
    elif task == "depth_estimation":
        labels = torch.rand(ROWS, SIDE, SIDE, generator=draws) + 0.1
        labels[:, -1, -1] = 1000.0  # the largest error of any batch, on which the loss depends, is that of this pixel
        lacking = 0.0
    else:
        labels = torch.rand(ROWS, *((2, SIDE, SIDE) if task == "dense_regression" else (3,)), generator=draws)
        lacking = torch.nan
    for row in range(ROWS):
        flat = labels[row].view(-1)
        flat[: round((len(flat) - 1) * (ROWS - row) / (ROWS + 1))] = lacking
    return labels


def new_model(task: str) -> PreTrainedModel:
    torch.manual_seed(0)
    auto_class, fields = HEADS[task]
    model: PreTrainedModel = auto_class.from_config(
        tiny_models.config("multimae", modalities={"rgb": tiny_models.RGB}, **fields)
    )
    return model


def pictures_of(task: str) -> torch.Tensor:
    pictures = torch.rand(ROWS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    # The largest error of depths must be the same in every row.
    return pictures[:1].repeat(ROWS, 1, 1, 1) if task == "depth_estimation" else pictures


def weights_after_a_step(task: str, batch_size: int, accumulated: int, folder: Path) -> dict[str, torch.Tensor]:
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulated,
        max_steps=1,
        learning_rate=RATE,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows: Sequence[Any] = [
        {"pixel_values": picture, "labels": label}
        for picture, label in zip(pictures_of(task), labels_of(task), strict=True)
    ]
    trainer = StoppableTrainer(new_model(task), args, train_dataset=rows)
    trials.count_labels(trainer, task)
    trainer.train()
    return {name: weight.detach() for name, weight in trainer.model.named_parameters()}


@pytest.mark.parametrize("task", HEADS)
def test_accumulated_batches_make_the_step_of_one(task: str, tmp_path: Path) -> None:
    """The loss is the mean over the labels that are there, however rows are dealt out to batches."""
    model = new_model(task)
    model(pixel_values=pictures_of(task), labels=labels_of(task)).loss.backward()
    found = dict(model.named_parameters())
    expected = {
        name: weight.detach() - (0.0 if weight.grad is None else RATE * weight.grad) for name, weight in found.items()
    }
    assert any((expected[name] - weight).abs().max() > 1e-3 for name, weight in found.items()), (
        "the step moves weights"
    )
    for batch_size, accumulated in ((6, 1), (2, 3), (4, 2)):  # the last one's batches have 4 rows and 2
        taken = weights_after_a_step(task, batch_size, accumulated, tmp_path)
        torch.testing.assert_close(taken, expected, rtol=1e-5, atol=1e-6)
