"""The choice of tokens that the encoder sees. Every random choice comes from a uniform draw that the caller may pass."""

from ctypes import c_float
from dataclasses import dataclass

import torch

from .input_checks import check_draw, values_are_readable


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


def uniform_draws(name: str, given: torch.Tensor | None, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Uniform draws in [0, 1) of this shape: the given ones, or new ones.

    Raises:
        ValueError: Given ones of another shape; the error names the argument `name`.
    """
    check_draw(name, given, shape)
    return torch.rand(shape, device=device) if given is None else given


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


def num_masked_tokens(num_tokens: int, mask_ratio: float) -> int:
    """Masked tokens of a sample with `num_tokens` real ones: N r rounded, in single precision and half to even.

    That is SMA's rule (Eq. 5) as its authors run it. Short samples always keep one token visible and, from two tokens
    on, one masked.
    """
    if num_tokens <= 1:
        return 0
    product = c_float(c_float(mask_ratio).value * num_tokens).value
    return min(max(round(product), 1), num_tokens - 1)


def mask_top_scores(
    scores: torch.Tensor, num_masked: torch.Tensor | int, limit: int, is_real: torch.Tensor | None = None
) -> torch.Tensor:
    """Mask each sample's highest-scored real tokens (Eq. 3).

    Args:
        scores: (B, N), floating point or integer.
        num_masked: Number of masked tokens, one number for all samples or (B,) int64, at most the sample's real tokens.
        limit: The largest of these numbers, known without looking at the device.
        is_real: (B, N) bool, True = not padding; None when nothing is padded.

    Returns:
        (B, N) bool, True = masked.
    """
    num_tokens = scores.shape[1]
    if isinstance(num_masked, int) and is_real is None and 2 * num_masked > num_tokens:
        # Choosing the smaller side is faster.
        lowest = scores.topk(num_tokens - num_masked, dim=1, largest=False, sorted=False).indices
        return torch.ones_like(scores, dtype=torch.bool).scatter_(1, lowest, False)
    if is_real is not None:
        lowest_score = -torch.inf if scores.is_floating_point() else torch.iinfo(scores.dtype).min
        scores = scores.masked_fill(~is_real, lowest_score)
    same = isinstance(num_masked, int)
    highest = scores.topk(limit, dim=1, sorted=not same).indices
    is_masked = torch.zeros_like(scores, dtype=torch.bool)
    if isinstance(num_masked, int):
        return is_masked.scatter_(1, highest[:, :num_masked], True)
    return is_masked.scatter_(1, highest, torch.arange(limit, device=scores.device) < num_masked[:, None])


def word_groups(input_ids: torch.Tensor, delimiter_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words as the text between delimiters.

    Returns:
        (B, N) int64, a number below N per word and per delimiter, and (B, N) bool, True = a delimiter.
    """
    is_delimiter = input_ids == delimiter_id
    starts = is_delimiter.clone()
    starts[:, 1:] |= is_delimiter[:, :-1]
    starts[:, 0] = False
    return starts.cumsum(1), is_delimiter


def span_groups(span_noise: torch.Tensor, mean_length: float) -> torch.Tensor:
    """Segments whose lengths are geometric with this mean (like SpanBERT's, Joshi et al. 2020): (B, N) uniform draws ->
    (B, N) int64, a number below N per segment."""
    starts = span_noise < 1 / mean_length
    starts[:, 0] = False
    return starts.cumsum(1)


def patch_groups(grid_shape: tuple[int, ...], patch_size: int, device: torch.device | None = None) -> torch.Tensor:
    """Squares of pixels: (rows * cols,) int64, the number of each pixel's patch in row-major order."""
    rows, cols = grid_shape
    row = torch.arange(rows, device=device)[:, None] // patch_size
    col = torch.arange(cols, device=device) // patch_size
    return (row * (cols // patch_size) + col).flatten()


def group_scores(noise: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Scores whose top tokens are whole groups, in the order of the groups' draws; the last group is cut from its end.

    Args:
        noise: (B, N) uniform draws; group g takes the draw of place g.
        groups: (B, N) int64, numbers below N.

    Returns:
        (B, N) int64, an argument of `mask_top_scores`.
    """
    num_tokens = noise.shape[1]
    rank = noise.argsort(dim=1).argsort(dim=1).gather(1, groups)
    return rank * num_tokens - torch.arange(num_tokens, device=noise.device)


def random_masking(
    noise: torch.Tensor, mask_ratio: float, attention_mask: torch.Tensor | None, table: torch.Tensor
) -> TokenMask:
    """Keep the tokens with the smallest draws (He et al. 2022, MAE, section 3), the same share of every sample's real
    tokens.

    Args:
        noise: (B, N) uniform draws in [0, 1).
        mask_ratio: Share of tokens to hide.
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


def explicit_masking(is_masked: torch.Tensor, is_real: torch.Tensor | None) -> TokenMask:
    """The split that a caller's mask makes.

    Args:
        is_masked: (B, N) bool, True = masked; no padding.
        is_real: (B, N) bool, True = not padding; None when nothing is padded.
    """
    is_visible = ~is_masked if is_real is None else ~is_masked & is_real
    ids_shuffle = (~is_visible).to(torch.int8).argsort(dim=1, stable=True)
    ids_keep = scored_first(is_visible, limit=is_masked.shape[1])
    return TokenMask(ids_keep, is_visible.gather(1, ids_keep), ids_shuffle.argsort(dim=1), is_masked, is_real)


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
    if values_are_readable(is_scored):
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
