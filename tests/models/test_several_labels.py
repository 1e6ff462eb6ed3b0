"""The loss of several labels with gaps: a slow reference, its gradient, what gaps hold, and accumulated batches."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from hf_maskssl.models.head_losses import sequence_classification_loss, several_labels_loss

ROWS, TASKS = 6, 4


def draw(are_classes: bool, gap: float = -100.0) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 logits and labels, a third of them gaps, one row of nothing else."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(ROWS, TASKS, generator=random, dtype=torch.float64)
    drawn = torch.randn(ROWS, TASKS, generator=random, dtype=torch.float64)
    labels = (drawn > 0).double() if are_classes else drawn
    labels[torch.rand(ROWS, TASKS, generator=random) < 0.33] = gap
    labels[1] = gap
    return logits, labels


def reference(logits: torch.Tensor, labels: torch.Tensor, are_classes: bool) -> tuple[float, int]:
    """The sum of the losses of the labels that are there, and their number, one by one."""
    total, count = 0.0, 0
    for row in range(ROWS):
        for task in range(TASKS):
            said, true = float(logits[row, task]), float(labels[row, task])
            if math.isnan(true) or (are_classes and true == -100):
                continue
            share = 1 / (1 + math.exp(-said))
            total += -math.log(share if true == 1 else 1 - share) if are_classes else (said - true) ** 2
            count += 1
    return total, count


def head(problem_type: str | None, num_labels: int = TASKS) -> PreTrainedModel:
    config = SimpleNamespace(problem_type=problem_type, num_labels=num_labels)
    return cast(PreTrainedModel, SimpleNamespace(config=config, loss_function=ForSequenceClassificationLoss))


@pytest.mark.parametrize(("are_classes", "gap"), [(True, -100.0), (True, math.nan), (False, math.nan)])
def test_the_loss_is_the_mean_over_the_labels_that_are_there(are_classes: bool, gap: float) -> None:
    logits, labels = draw(are_classes, gap)
    total, count = reference(logits, labels, are_classes)
    assert 0 < count < ROWS * TASKS
    problem = "multi_label_classification" if are_classes else "regression"
    assert float(sequence_classification_loss(head(problem), logits, labels)) == pytest.approx(
        total / count, rel=1e-12
    )
    divided = sequence_classification_loss(head(problem), logits, labels, num_items_in_batch=torch.tensor(50))
    assert float(divided) == pytest.approx(total / 50, rel=1e-12)


@pytest.mark.parametrize("are_classes", [True, False])
def test_without_gaps_it_is_the_loss_of_transformers(are_classes: bool) -> None:
    logits, labels = draw(are_classes)
    labels = labels.clamp(0, 1) if are_classes else labels.masked_fill(labels == -100, 0.5)
    problem = "multi_label_classification" if are_classes else "regression"
    theirs = ForSequenceClassificationLoss(labels, logits, cast(Any, head(problem)).config)
    torch.testing.assert_close(sequence_classification_loss(head(problem), logits, labels), theirs)


@pytest.mark.parametrize("are_classes", [True, False])
def test_the_gradient_is_that_of_finite_differences_and_none_in_a_gap(are_classes: bool) -> None:
    logits, labels = draw(are_classes, math.nan)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: several_labels_loss(values, labels, are_classes), (logits,))
    (gradient,) = torch.autograd.grad(several_labels_loss(logits, labels, are_classes), logits)
    assert torch.equal(gradient == 0, labels.isnan())


def test_nothing_depends_on_what_a_gap_holds_or_on_what_is_said_there() -> None:
    logits, labels = draw(True)
    is_gap = labels == -100
    others = labels.masked_fill(is_gap & (torch.arange(TASKS) % 2 == 0), math.nan)
    louder = logits.masked_fill(is_gap, 1e4)
    assert torch.equal(several_labels_loss(logits, labels, True), several_labels_loss(louder, others, True))
    nothing = torch.full_like(labels, -100.0)
    assert float(several_labels_loss(logits, nothing, True)) == 0.0
    assert float(several_labels_loss(logits, nothing, True, torch.tensor(0))) == 0.0


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    """The number that Trainer counts, labels that are not -100, divides the sum of each."""
    logits, labels = draw(True)
    number = labels.ne(-100).sum()
    parts = [
        sequence_classification_loss(
            head("multi_label_classification"), logits[rows], labels[rows], num_items_in_batch=number
        )
        for rows in (slice(0, 2), slice(2, 3), slice(3, ROWS))
    ]
    whole = sequence_classification_loss(head("multi_label_classification"), logits, labels)
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_the_problem_type_is_found_as_transformers_finds_it() -> None:
    logits, labels = draw(True)
    model = head(None)
    sequence_classification_loss(model, logits, labels)
    assert model.config.problem_type == "multi_label_classification"
    model = head(None)
    sequence_classification_loss(model, logits, torch.arange(ROWS) % TASKS)
    assert model.config.problem_type == "single_label_classification"


def test_targets_are_not_rounded_to_the_logits_precision() -> None:
    labels = torch.tensor([[1003.0, 301.3], [999.0, -100.2]])
    loss = several_labels_loss(torch.zeros(2, 2, dtype=torch.bfloat16), labels, are_classes=False)
    torch.testing.assert_close(loss, labels.pow(2).mean())
