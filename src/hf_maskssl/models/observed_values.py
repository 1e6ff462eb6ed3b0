"""Missing values: kept from every product, and the tokens of which nothing was observed treated as padding is."""

import dataclasses
import math

import torch
from torch import nn
from transformers import PreTrainedConfig

from .input_checks import check_draw, check_observed_tokens, check_observed_values
from .tokenized_input import TokenizedInput


def fill_missing(
    name: str, signal: torch.Tensor | None, observed_mask: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """A signal without its missing values, before anything is computed from it.

    Args:
        name: Name of the signal, for errors.
        signal: Values of any shape; under the mask they may be anything, NaN too.
        observed_mask: Mask of the same shape, 1 = observed, 0 = missing; None where nothing is missing.

    Returns:
        The signal with zeros in place of missing values, and the mask as bool; None where all values were observed, as far as
        looking is free.

    Raises:
        ValueError: The mask has another shape, or (on the CPU) other values than 0 and 1.
    """
    if signal is None or observed_mask is None:
        return signal, None
    is_observed = check_observed_values(name, observed_mask, signal)
    if is_observed is None:
        return signal, None
    return torch.where(is_observed, signal, torch.zeros((), dtype=signal.dtype, device=signal.device)), is_observed


def with_observed(tokens: TokenizedInput, is_observed: torch.Tensor | None) -> TokenizedInput:
    """The same tokens, of which those with nothing observed are padding.

    Args:
        tokens: Checked input, without zeros for padding that the values bring along.
        is_observed: (B, N_patches, P) bool, the values of each patch that were observed; None where all were.

    Raises:
        ValueError: A row has nothing that was observed (on the CPU).
    """
    if is_observed is None:
        return tokens
    is_real = is_observed.any(-1)
    if tokens.ids is not None:
        is_real = torch.cat([is_real, is_real.new_ones(tokens.ids.shape)], dim=1)
    if tokens.attention_mask is not None:
        is_real = is_real & tokens.attention_mask.bool()
    check_observed_tokens(is_real)
    # A patch of one value is observed or not, which `attention_mask` says already.
    observed = is_observed if is_observed.shape[-1] > 1 else None
    return dataclasses.replace(tokens, attention_mask=is_real.long(), observed=observed)


def add_partly_observed(
    embedded: torch.Tensor, tokens: TokenizedInput, mark: nn.Parameter | None, ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Embedded patches, plus a learned mark on those that were observed in part.

    Args:
        embedded: (B, N_patches or K, D).
        tokens: The batch, with all its patches.
        mark: Learned embedding (D,); None adds nothing.
        ids: (B, K) int64, the patches that were embedded; None means all.
    """
    if mark is None or tokens.patches is None:
        return embedded
    if tokens.observed is None:  # DistributedDataParallel waits for the gradient of the mark, too
        return embedded + 0.0 * mark.to(embedded.dtype)
    is_partial = tokens.observed.any(-1) & ~tokens.observed.all(-1)
    is_partial = is_partial if ids is None else is_partial.gather(1, ids)
    return embedded + is_partial.unsqueeze(-1) * mark.to(embedded.dtype)


def with_gaps(tokens: TokenizedInput, config: PreTrainedConfig, gap_noise: torch.Tensor | None) -> TokenizedInput:
    """The same series with gaps, in which a channel is missing for a run of tokens; a row that would be all gap has none.

    Args:
        tokens: Checked input of a series.
        config: Configuration with `num_channels`, `gap_ratio` (the probability that a channel of a row has a gap) and
            `mean_gap_length` (in tokens; lengths are geometric).
        gap_noise: (B, C, 3) uniform draws in [0, 1): whether there is a gap, its start, its length; drawn here when absent.

    Raises:
        ValueError: Draws of another shape.
    """
    assert tokens.patches is not None  # a series
    batch_size, num_tokens, size = tokens.patches.shape
    shape = (batch_size, config.num_channels, 3)
    check_draw("gap_noise", gap_noise, shape)
    draws = torch.rand(shape, device=tokens.device) if gap_noise is None else gap_noise
    is_gap, start, length = draws.unbind(-1)
    first = (start * num_tokens).floor()
    mean = config.mean_gap_length
    last = first if mean <= 1 else first + (torch.log1p(-length) / math.log1p(-1 / mean)).floor()
    place = torch.arange(num_tokens, device=draws.device)[:, None]
    in_gap = (is_gap < config.gap_ratio)[:, None] & (place >= first[:, None]) & (place <= last[:, None])  # (B, N, C)
    in_gap = in_gap.repeat(1, 1, size // config.num_channels)  # the channel is fastest
    observed = torch.ones_like(in_gap) if tokens.observed is None else tokens.observed
    if tokens.is_real is not None:
        observed = observed & tokens.is_real.unsqueeze(-1)
    kept = observed & ~in_gap
    kept = torch.where(kept.flatten(1).any(1)[:, None, None], kept, observed)
    patches = torch.where(kept, tokens.patches, torch.zeros((), dtype=tokens.patches.dtype, device=kept.device))
    mask = kept.any(-1).long()
    return dataclasses.replace(tokens, patches=patches, attention_mask=mask, observed=kept if size > 1 else None)
