"""Losses of the task heads: transformers' own, of which each divides by what a Trainer counts over accumulated batches."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .input_checks import check_class_ids

IGNORED = -100  # transformers' label of what is not scored


def class_loss(logits: torch.Tensor, labels: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
    """Cross entropy of (B, C) logits and (B,) class ids; the mean, or the sum divided by `num_items_in_batch`.

    Raises:
        ValueError: Labels that are no ids of the C classes.
    """
    labels = check_class_ids(labels, logits.shape[-1], IGNORED)
    num_items = kwargs.get("num_items_in_batch")
    if num_items is None:
        return F.cross_entropy(logits, labels, ignore_index=IGNORED)
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / torch.as_tensor(num_items, device=total.device)


def sequence_classification_loss(
    model: PreTrainedModel, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
) -> torch.Tensor:
    """transformers' loss of (B, num_labels) logits by `config.problem_type`; several labels at once may have gaps.

    transformers divides only the loss of classes by `num_items_in_batch`. The means of real values and of several labels at once
    are brought to that divisor here, so that accumulated batches make the step of one large batch.

    Args:
        model: Head, whose `config.problem_type` is set where it is None.
        logits: (B, num_labels).
        labels: Class ids (B,), float shares of classes (B, num_labels) where `config.problem_type` says that a row has one class,
            (B,) or (B, 1) values, or (B, num_labels) values or labels of several tasks (`several_labels_loss`).
        kwargs: `num_items_in_batch`: number of labels of all accumulated batches and processes, without those of -100. Trainer
            leaves a real value of -100 out of the number too, although it is one: those of this batch are added again.

    Raises:
        ValueError: Labels that are no ids of the classes, or of another shape.
    """
    num_items = kwargs.get("num_items_in_batch")
    config, has_several = model.config, (model.config.num_labels or 0) > 1
    if (
        config.problem_type == "single_label_classification"
        and labels.shape == logits.shape
        and labels.is_floating_point()
    ):
        # Mixed or smoothed labels. The sum over rows is divided by what Trainer counts: the rows of all accumulated batches.
        total = F.cross_entropy(logits, labels.to(logits), reduction="sum")
        return total / (len(labels) if num_items is None else torch.as_tensor(num_items, device=total.device))
    if config.problem_type is None and has_several and labels.is_floating_point():
        config.problem_type = "multi_label_classification"  # as transformers' loss would
    are_classes = config.problem_type == "multi_label_classification"
    if are_classes or (config.problem_type == "regression" and has_several):
        return several_labels_loss(logits, labels, are_classes, num_items)
    if has_several:
        labels = check_class_ids(labels, logits.shape[-1], IGNORED)
    loss = model.loss_function(labels=labels, pooled_logits=logits, config=config, **kwargs)
    if num_items is None or config.problem_type == "single_label_classification":
        return loss
    labels = labels.to(loss.device)
    return loss * (labels.numel() / (torch.as_tensor(num_items, device=loss.device) + (labels == IGNORED).sum()))


def several_labels_loss(
    logits: torch.Tensor, labels: torch.Tensor, are_classes: bool, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Binary cross entropy, or squared error, of several tasks: the mean over the labels that are there, () float32 (float64
    of float64 logits), whatever precision the model runs in.

    A label that is NaN is none, nor is one of -100 where labels are 0 and 1: whatever a gap holds, neither loss nor gradient
    depends on it. (MoleculeNet, Wu et al. 2018, gives missing labels the weight 0.)

    Args:
        logits: (B, T) logits or values.
        labels: (B, T) 0 and 1, or any values, with gaps.
        are_classes: Whether labels are 0 and 1.
        num_items: Number of labels of all accumulated batches and processes, which then divides the sum. Trainer counts all
            but those of -100. A gap of NaN it counts as well, so that the loss is smaller by the share of gaps, in every batch
            alike; gaps of -100 give the exact mean. Of values, those of -100 of this batch are added again.

    Raises:
        ValueError: Labels of another shape.
    """
    if labels.numel() != logits.numel():
        raise ValueError(
            f"`labels` must have the shape {tuple(logits.shape)}, one for each of num_labels={logits.shape[-1]} tasks, got "
            f"{tuple(labels.shape)} of {labels.dtype}: the ids of classes are integers (B,)."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = labels.to(logits).reshape(logits.shape)
    is_there = ~labels.isnan()
    if are_classes:
        is_there &= labels != IGNORED
    targets = labels.masked_fill(~is_there, 0.0)
    if are_classes:
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        losses = F.mse_loss(logits, targets, reduction="none")
    if num_items is None:
        count = is_there.sum()
    else:
        count = torch.as_tensor(num_items, device=logits.device)
        count = count if are_classes else count + (labels == IGNORED).sum()
    # A batch of gaps alone gives 0.
    return losses.masked_fill(~is_there, 0.0).sum() / count.clamp(min=1)


def scored_values(labels: torch.Tensor) -> torch.Tensor:
    """Bool, of the shape of `labels`: which values of a regression `num_items_in_batch` counts for the exact mean.

    NaN is a gap. Values of -100 are none, but a loss adds its own to the number, which Trainer's lacks.
    """
    return ~labels.isnan() & (labels != IGNORED)


def token_classification_loss(
    model: PreTrainedModel, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
) -> torch.Tensor:
    """transformers' loss of (B, N, num_labels) logits; squared error of real values when there is one label.

    -100 is left out of both. `num_items_in_batch` is the number of the other labels in all accumulated batches and processes.

    Raises:
        ValueError: Labels that are no ids of the classes.
    """
    if logits.shape[-1] > 1:
        labels = check_class_ids(labels, logits.shape[-1], IGNORED)
        return model.loss_function(logits, labels, model.config, **kwargs)
    is_scored = labels != IGNORED
    error = (logits.squeeze(-1).float() - labels.float()).pow(2)
    num_items = kwargs.get("num_items_in_batch")
    count = is_scored.sum() if num_items is None else torch.as_tensor(num_items, device=error.device)
    return error.masked_fill(~is_scored, 0.0).sum() / count.clamp(min=1)
