"""The loss of each sample in an output of several modalities: squared or absolute errors of values, cross entropy of classes."""

import torch
from torch.nn import functional as F

from .configuration_multimae import Modality
from .layers import SquaredError, at_least_float32


def sample_losses(
    output: Modality, predictions: torch.Tensor, patches: torch.Tensor, is_scored: torch.Tensor, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each sample's mean loss over the pixels of its scored patches (section 3.4).

    Args:
        output: the output, whose `loss` is computed.
        predictions: (B, M, P), channel or class fastest.
        patches: (B, M, P) values, or (B, M, P / classes) class ids.
        is_scored: (B, M) bool.
        ignore_index: class id of pixels that are not scored.

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
            patches = standardize_patches(patches)
        if output.loss == "l1":
            errors = (predictions - patches).abs().mean(-1)
        else:
            errors = SquaredError.apply(predictions, patches)
        is_counted = is_scored
        errors = errors.masked_fill(~is_scored, 0.0)
    number = is_counted.sum(1)
    return errors.sum(1) / number.clamp(min=1), number > 0


def standardize_patches(patches: torch.Tensor) -> torch.Tensor:
    """(..., P) patches minus their mean, divided by their standard deviation: unbiased, over pixels and channels together."""
    mean = patches.mean(-1, keepdim=True)
    variance = patches.var(-1, keepdim=True)
    return (patches - mean) * torch.rsqrt(variance + 1e-6)
