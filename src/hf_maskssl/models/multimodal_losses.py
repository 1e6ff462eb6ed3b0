"""The loss of each sample in an output of several modalities: squared or absolute errors of values, cross entropy of classes."""

import torch
from torch.nn import functional as F

from .configuration_multimae import Modality
from .layers import at_least_float32, squared_error


def sample_losses(
    output: Modality,
    predictions: torch.Tensor,
    patches: torch.Tensor,
    is_scored: torch.Tensor,
    ignore_index: int,
    observed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each sample's mean loss over the pixels of its scored patches (section 3.4).

    Args:
        output: The output; its `loss` is computed.
        predictions: (B, M, P) values or logits, channel or class fastest.
        patches: (B, M, P) values, or (B, M, P / classes) class ids.
        is_scored: (B, M) bool.
        ignore_index: Class id of pixels that are not scored.
        observed: (B, M, P) bool, the values that were observed, which alone count; None where all were. A patch without any is
            not scored.

    Returns:
        (B,) float32 losses, 0 where a sample has nothing scored, and (B,) bool, whether it has.
    """
    if output.is_categorical:
        logits = predictions.unflatten(-1, (-1, output.num_classes))
        is_counted = (patches != ignore_index) & is_scored.unsqueeze(-1)
        labels = patches.masked_fill(~is_counted, ignore_index)
        (logits,) = at_least_float32(logits.flatten(0, 2))
        errors = F.cross_entropy(logits, labels.flatten(), ignore_index=ignore_index, reduction="none")
        errors, is_counted = errors.view(labels.shape).flatten(1), is_counted.flatten(1)
    else:
        predictions, patches = at_least_float32(predictions, patches)
        if output.loss == "standardized_mse":
            patches = standardize_patches(patches, observed)
        if output.loss == "l1":
            errors = _absolute_error(predictions, patches, observed)
        else:
            errors = squared_error(predictions, patches, observed)
        is_counted = is_scored
        errors = errors.masked_fill(~is_scored, 0.0)
    number = is_counted.sum(1)
    return errors.sum(1) / number.clamp(min=1), number > 0


def _absolute_error(prediction: torch.Tensor, target: torch.Tensor, observed: torch.Tensor | None) -> torch.Tensor:
    """Mean absolute error of the last dimension, over the values that `observed` marks True; 0 where none was."""
    error = (prediction - target).abs()
    if observed is None:
        return error.mean(-1)
    return error.masked_fill(~observed, 0.0).sum(-1) / observed.sum(-1).clamp(min=1)


def standardize_patches(patches: torch.Tensor, observed: torch.Tensor | None = None) -> torch.Tensor:
    """(..., P) patches minus their mean, divided by their standard deviation: unbiased, over pixels and channels together.

    With `observed` (..., P) both are those of the values that it marks True.
    """
    if observed is not None:
        count = observed.sum(-1, keepdim=True)
        mean = patches.masked_fill(~observed, 0.0).sum(-1, keepdim=True) / count.clamp(min=1)
        squares = (patches - mean).masked_fill(~observed, 0.0).square().sum(-1, keepdim=True)
        return (patches - mean) * torch.rsqrt(squares / (count - 1).clamp(min=1) + 1e-6)
    mean = patches.mean(-1, keepdim=True)
    variance = patches.var(-1, keepdim=True)
    return (patches - mean) * torch.rsqrt(variance + 1e-6)
