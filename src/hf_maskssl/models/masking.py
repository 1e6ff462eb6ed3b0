"""Which tokens the encoder sees. Every random choice comes from a uniform draw that the caller may pass."""

from dataclasses import dataclass

import torch


@dataclass
class TokenMask:
    """A split of each sample's tokens into visible and masked ones, with static shapes.

    Attributes:
        ids_keep: (B, K) int64, positions of the visible tokens, in the order of their draws. K is the largest number
            of visible tokens any sample can have; rows with fewer carry further positions that `keep_mask` marks as
            unused.
        keep_mask: (B, K) bool, True = a visible token; None when every row has exactly K visible tokens.
        ids_restore: (B, N) int64, inverse of the permutation that puts tokens in the order of their draws.
        is_masked: (B, N) bool, True = hidden from the encoder and a target of the loss. Padding is neither visible nor
            masked.
        is_real: (B, N) bool, True = not padding; None when there is no padding.
    """

    ids_keep: torch.Tensor
    keep_mask: torch.Tensor | None
    ids_restore: torch.Tensor
    is_masked: torch.Tensor
    is_real: torch.Tensor | None


def num_visible_tokens(num_tokens: int, mask_ratio: float) -> int:
    """Visible tokens of a sample with `num_tokens` real ones: `int(num_tokens * (1 - mask_ratio))` in double
    precision.

    That is the MAE rule as the MetaMAE authors run it (64 tokens at 0.85 keep 9, 128 at 0.15 keep 108). Short padded
    samples always keep one token visible and, from two tokens on, one masked.
    """
    if num_tokens <= 1:
        return num_tokens
    return min(max(int(num_tokens * (1 - mask_ratio)), 1), num_tokens - 1)


def visible_token_table(max_tokens: int, mask_ratio: float) -> torch.Tensor:
    """(max_tokens + 1,) int64: `num_visible_tokens(n, mask_ratio)` for every n, to look up without leaving the device."""
    return torch.tensor([num_visible_tokens(n, mask_ratio) for n in range(max_tokens + 1)], dtype=torch.int64)


def random_masking(
    noise: torch.Tensor, mask_ratio: float, attention_mask: torch.Tensor | None, table: torch.Tensor
) -> TokenMask:
    """Keep the tokens with the smallest draws (He et al. 2022, MAE, section 3), the same share of every sample's real
    tokens.

    Args:
        noise: (B, N) uniform draws in [0, 1).
        mask_ratio: share of tokens to hide.
        attention_mask: (B, N), 1 = real token, 0 = padding; None when nothing is padded.
        table: `visible_token_table` of at least N tokens for the same ratio, on the same device.
    """
    batch_size, num_tokens = noise.shape
    is_real = None if attention_mask is None else attention_mask.bool()
    if is_real is not None:
        noise = noise.masked_fill(~is_real, torch.inf)  # padding sorts behind every real token
    ids_shuffle = noise.argsort(dim=1, stable=True)
    ids_restore = ids_shuffle.argsort(dim=1)
    rank = ids_restore  # a token's place in the order of the draws
    max_keep = num_visible_tokens(num_tokens, mask_ratio)
    if is_real is None:
        return TokenMask(ids_shuffle[:, :max_keep], None, ids_restore, rank >= max_keep, None)
    num_keep = table[is_real.sum(1)][:, None]
    keep_mask = torch.arange(max_keep, device=noise.device) < num_keep
    return TokenMask(ids_shuffle[:, :max_keep], keep_mask, ids_restore, (rank >= num_keep) & is_real, is_real)


def gather_tokens(tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows `ids` (B, K) of `tokens` (B, N, D), or of a table (N, D) shared by the batch -> (B, K, D)."""
    if tokens.dim() == 3:  # one selection of whole rows is faster than an element-wise gather
        batch_size, num_tokens, _ = tokens.shape
        ids = ids + num_tokens * torch.arange(batch_size, device=ids.device)[:, None]
        tokens = tokens.flatten(0, 1)
    return tokens.index_select(0, ids.flatten()).view(*ids.shape, -1)


def scored_first(is_scored: torch.Tensor, limit: int) -> torch.Tensor:
    """Positions of every row's scored tokens, then of others to fill up, (B, N) bool -> (B, M) int64.

    M is the largest number of scored tokens, where looking is free (on the CPU), else `limit`, which the caller knows that no
    row exceeds: asking a GPU for the number would make the CPU wait for it.
    """
    if is_scored.device.type == "cpu":
        limit = int(is_scored.sum(1).max())
    return (~is_scored).to(torch.int8).argsort(dim=1, stable=True)[:, :limit]


def adjacent_to(is_visible: torch.Tensor, grid_shape: tuple[int, ...]) -> torch.Tensor:
    """Tokens with a visible neighbour one step away along one axis: left/right in one dimension, 4-neighbourhood in
    two.

    Args:
        is_visible: (B, N) bool with N the product of `grid_shape` (row-major), or N <= grid_shape[0] in one dimension.

    Returns:
        (B, N) bool; a token is not its own neighbour, and borders have nothing beyond them.
    """
    batch_size, num_tokens = is_visible.shape
    grid = is_visible.view(batch_size, *(grid_shape if len(grid_shape) > 1 else (num_tokens,)))
    near = torch.zeros_like(grid)
    for axis in range(1, grid.dim()):
        length = grid.shape[axis]
        near.narrow(axis, 1, length - 1).logical_or_(grid.narrow(axis, 0, length - 1))
        near.narrow(axis, 0, length - 1).logical_or_(grid.narrow(axis, 1, length - 1))
    return near.view(batch_size, num_tokens)
