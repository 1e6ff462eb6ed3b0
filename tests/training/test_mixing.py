"""Mixup, cutmix and smoothed labels: batches against a slow loop, the loss of shares, runs that can be repeated."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_runs import MULTIMAE, make_dense, pretrained_multimae
from torch.nn import functional

from hf_maskssl import MultiMAEForImageClassification
from hf_maskssl.models.head_losses import sequence_classification_loss
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.mixing import Mixing, cut_box
from hf_maskssl.training.finetuning.sweep import Finetuner, finetune

CLASSES = 3
PLAIN = Mixing(mixup=0.0, cutmix=0.0, probability=1.0, switch=0.5, smoothing=0.0, num_labels=CLASSES)


def make_batch(rows: int = 4, side: int = 8) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 1])[:rows]
    return {"pixel_values": torch.randn(rows, 3, side, side, generator=draw), "labels": labels}


def test_smoothed_labels_are_shares_of_classes() -> None:
    targets = dataclasses.replace(PLAIN, smoothing=0.3).targets(torch.tensor([2, 0]))
    torch.testing.assert_close(targets, torch.tensor([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]))


def test_mixup_is_a_weighted_mean_of_opposite_rows() -> None:
    batch = make_batch()
    mixed = dataclasses.replace(PLAIN, mixup=0.8)(batch, [0, 1])
    targets = PLAIN.targets(batch["labels"])
    share = float((mixed["labels"][0] * targets[0]).sum())
    assert 0 < share < 1
    for row in range(4):
        for values, found in ((batch["pixel_values"], mixed["pixel_values"]), (targets, mixed["labels"])):
            torch.testing.assert_close(found[row], share * values[row] + (1 - share) * values[3 - row])
    assert batch["labels"].dtype == torch.int64  # the batch itself is left as it was


def test_cutmix_takes_a_rectangle_and_its_share_of_the_label() -> None:
    batch = make_batch(2)
    shares = []
    for seed in range(60):
        mixed = dataclasses.replace(PLAIN, cutmix=1.0)(batch, [seed])
        is_other = (mixed["pixel_values"][0] == batch["pixel_values"][1]).all(dim=0)
        assert ((mixed["pixel_values"][0] == batch["pixel_values"][0]).all(dim=0) == ~is_other).all()
        rows, columns = is_other.any(dim=1), is_other.any(dim=0)
        assert is_other.sum() == rows.sum() * columns.sum()
        expected = is_other.float().mean()
        torch.testing.assert_close(mixed["labels"][0, 1], expected)
        shares.append(float(expected))
    assert min(shares) < 0.1 and max(shares) > 0.6
    top, bottom, left, right = cut_box(0.75, np.random.default_rng(3))
    assert bottom - top <= 0.5 + 1e-9 and right - left <= 0.5 + 1e-9


def test_both_take_turns_and_batches_may_be_left() -> None:
    both = dataclasses.replace(PLAIN, mixup=0.8, cutmix=1.0, probability=0.8, switch=0.25)
    batch, counts = make_batch(2), {"none": 0, "mixup": 0, "cutmix": 0}
    for seed in range(300):
        found = both(batch, [seed])["pixel_values"]
        kept = (found == batch["pixel_values"]).flatten().float().mean()
        is_cut = ((found == batch["pixel_values"]) | (found == batch["pixel_values"].flip(0))).all()
        counts["none" if kept == 1 else "cutmix" if is_cut else "mixup"] += 1
    assert abs(counts["none"] / 300 - 0.2) < 0.08 and abs(counts["cutmix"] / 300 - 0.2) < 0.08
    assert torch.equal(both(batch, [5])["labels"], both(batch, [5])["labels"])
    pictures = {"rgb": batch["pixel_values"], "depth": batch["pixel_values"][:, :1, ::2, ::2]}
    mixed = dataclasses.replace(PLAIN, mixup=1.0)({"inputs": pictures, "labels": batch["labels"]}, [0])
    assert mixed["inputs"]["depth"].shape == (2, 1, 4, 4)


def test_what_is_no_picture_is_refused() -> None:
    mixing = dataclasses.replace(PLAIN, mixup=1.0)
    for batch in ({"input_ids": torch.ones(2, 4).long()}, {"inputs": {"semseg": torch.ones(2, 4, 4).long()}}):
        with pytest.raises(ValueError, match=r"mixup and finetuning.cutmix mix pictures .* leave them out"):
            mixing({**batch, "labels": torch.tensor([0, 1])}, [0])


def test_loss_of_shares_is_the_weighted_loss_of_the_classes() -> None:
    config = build_config(MULTIMAE)
    config.num_labels = CLASSES
    config.problem_type = "single_label_classification"
    model: Any = MultiMAEForImageClassification(config)
    logits = torch.randn(4, CLASSES, dtype=torch.float64, requires_grad=True)
    shares = torch.rand(4, CLASSES, dtype=torch.float64)
    shares /= shares.sum(dim=1, keepdim=True)
    loss = sequence_classification_loss(model, logits, shares)
    slow = sum(
        -shares[row, number] * logits[row].log_softmax(0)[number] for row in range(4) for number in range(CLASSES)
    )
    torch.testing.assert_close(loss, slow / 4)
    torch.testing.assert_close(
        sequence_classification_loss(model, logits, shares, num_items_in_batch=torch.tensor(8)), loss / 2
    )
    labels = torch.tensor([0, 2, 1, 1])
    hard = functional.one_hot(labels, CLASSES).to(logits)
    torch.testing.assert_close(
        sequence_classification_loss(model, logits, hard), sequence_classification_loss(model, logits, labels)
    )
    assert torch.autograd.gradcheck(lambda values: sequence_classification_loss(model, values, shares), (logits,))


def test_runs_are_mixed_and_repeat(tmp_path: Path) -> None:
    folder = pretrained_multimae(tmp_path / "start")
    mixes: dict[str, Any] = {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}
    augmented = {"augment": True, "augmentation": {"rand_augment_magnitude": 9, "erasing_probability": 0.25}}
    losses = []
    for name, fields in (("a", mixes), ("b", mixes), ("c", {})):
        recipe = make_dense(
            tmp_path / name, "classification", {}, augmented, checkpoint=str(folder), inputs=["rgb"], **fields
        )
        losses.append(finetune(recipe)["runs"][0]["training_loss"])
    assert losses[0] == losses[1] != losses[2]
    recipe = make_dense(tmp_path / "d", "depth_estimation", inputs=["rgb"], mixup=0.5)
    with pytest.raises(
        ValueError, match=r"finetuning.mixup=0.5 mixes classes of rows, but data.task is 'depth_estimation'"
    ):
        Finetuner(recipe)


def test_rows_that_lack_modalities_are_not_mixed(tmp_path: Path) -> None:
    recipe = make_dense(tmp_path, "classification", None, {"allow_missing": True}, inputs=["rgb"], cutmix=1.0)
    with pytest.raises(ValueError, match=r"rows of this data lack values or modalities .*: leave mixing out"):
        Finetuner(recipe)
