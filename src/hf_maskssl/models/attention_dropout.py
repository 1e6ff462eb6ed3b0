"""Attention with dropout on a CPU, where torch's fused kernel has none and falls back to whole tensors in memory."""

import math

import torch

from .autograd_context import Context
from .dropout import DRAWS, LEVELS
from .input_checks import values_are_readable

# Scores that are worked on at a time, so that what is done to them finds them in the cache.
CHUNK = 2**19


def fits(query: torch.Tensor) -> bool:
    """Whether `attend_with_dropout` computes this: on the CPU, in single or double precision, not while compiling."""
    return values_are_readable(query) and query.dtype in (torch.float32, torch.float64)


def attend_with_dropout(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    """softmax(scaling * query key^T + mask), of which each weight is dropped with probability `dropout`, times value.

    The probability is met to 1 / 65,536, and the kept weights are scaled by its exact value, so that the expectation is that
    without dropout. It can be differentiated once.

    Args:
        query: (B, heads, M, d) float32 or float64, on the CPU.
        key, value: (B, heads, N, d).
        attention_mask: Mask broadcastable to (B, heads, M, N): bool, True = attended to, or numbers to add; or None. Every
            query must attend to something.
        scaling: Factor of the scores.
        dropout: 0 to below 1.

    Returns:
        (B, heads, M, d).
    """
    if attention_mask is not None:
        attention_mask = _additive(attention_mask, query)
    return _Attention.apply(query, key, value, attention_mask, scaling, round(dropout * LEVELS))


def _additive(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The mask with four dimensions, to be added to the scores."""
    mask = mask[(None,) * (4 - mask.dim())]
    if mask.dtype != torch.bool:
        return mask.to(query.dtype)
    return torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)


class _AttentionContext(Context):
    constants: tuple[list[slice], float, int]


class _Attention(torch.autograd.Function):
    """Weights are kept for the backward pass once, their sign saying what was dropped: +w was kept, -w was not."""

    @staticmethod
    def forward(
        ctx: _AttentionContext,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        num_dropped: int,  # out of `LEVELS`
    ) -> torch.Tensor:
        num_heads, shape = query.shape[1], query.shape
        query, key, value = (part.flatten(0, 1).contiguous() for part in (query, key, value))
        is_kept = any(ctx.needs_input_grad[:3])
        size = (query.shape[1], key.shape[1])
        chunks = _chunks(len(query), num_heads, math.prod(size))
        weights = query.new_empty(len(query) if is_kept else chunks[0].stop, *size)
        kept = query.new_empty(chunks[0].stop, *size)
        output = torch.empty_like(query)
        for chunk in chunks:
            some = weights[chunk] if is_kept else weights[: chunk.stop - chunk.start]
            torch.baddbmm(some, query[chunk], key[chunk].transpose(1, 2), beta=0, alpha=scaling, out=some)
            if mask is not None:
                _add_mask(some, mask, chunk, num_heads)
            torch.softmax(some, -1, out=some)
            _sign(some, num_dropped)
            positive = torch.clamp_min(some, 0, out=kept[: len(some)])
            torch.bmm(positive, value[chunk], out=output[chunk])
        output *= LEVELS / (LEVELS - num_dropped)
        if is_kept:
            ctx.save_for_backward(query, key, value, weights, output)
            ctx.constants = (chunks, scaling, num_dropped)
        return output.view(shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _AttentionContext, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, output = ctx.saved_tensors
        chunks, scaling, num_dropped = ctx.constants
        scale = LEVELS / (LEVELS - num_dropped)
        batch_size, num_heads = grad.shape[:2]
        grad = grad.flatten(0, 1).contiguous()
        # The softmax's gradient needs, per query, the sum over keys of weight times gradient: that of output times gradient.
        sums = (grad * output).sum(-1, keepdim=True).neg_()
        grads = [torch.empty_like(part) for part in (query, key, value)]
        buffers = weights.new_empty(2, chunks[0].stop, *weights.shape[1:])
        for chunk in chunks:
            some, own = weights[chunk], grad[chunk]
            kept, of_scores = buffers[:, : len(some)]
            torch.clamp_min(some, 0, out=kept)
            torch.baddbmm(grads[2][chunk], kept.transpose(1, 2), own, beta=0, alpha=scale, out=grads[2][chunk])
            torch.baddbmm(of_scores, own, value[chunk].transpose(1, 2), beta=0, alpha=scale, out=of_scores)
            of_scores *= kept
            of_scores.addcmul_(torch.abs(some, out=kept), sums[chunk])
            torch.baddbmm(grads[0][chunk], of_scores, key[chunk], beta=0, alpha=scaling, out=grads[0][chunk])
            torch.baddbmm(
                grads[1][chunk], of_scores.transpose(1, 2), query[chunk], beta=0, alpha=scaling, out=grads[1][chunk]
            )
        return *(part.unflatten(0, (batch_size, num_heads)) for part in grads), None, None, None


def _chunks(total: int, num_heads: int, size: int) -> list[slice]:
    """Slices of the (B * heads) matrices of `size` scores: whole rows of the batch, or equal parts of one row's heads."""
    number = max(1, CHUNK // max(1, size))
    if number >= num_heads:
        number -= number % num_heads
    else:
        number = max(part for part in range(1, number + 1) if num_heads % part == 0)
    number = min(number, total)
    return [slice(start, min(start + number, total)) for start in range(0, total, number)]


def _add_mask(scores: torch.Tensor, mask: torch.Tensor, chunk: slice, num_heads: int) -> None:
    """Adds to the scores of a chunk, in place, a mask of four dimensions, each full or 1."""
    first, last = chunk.start // num_heads, (chunk.stop - 1) // num_heads
    rows = mask[first : last + 1] if len(mask) > 1 else mask
    if mask.shape[1] > 1 and first == last:
        rows = rows[:, chunk.start - first * num_heads : chunk.stop - first * num_heads]
    scores.unflatten(0, (last - first + 1, -1)).add_(rows)


def _sign(weights: torch.Tensor, num_dropped: int) -> None:
    """Makes weights negative, in place, each with probability `num_dropped` / `LEVELS`."""
    if num_dropped == 0:
        return
    number = weights.numel()
    # The whole range of 64 bits: without bounds the highest bit would always be 0.
    draws = torch.empty(-(-number // DRAWS), dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[:number].view(weights.shape).to(weights.dtype)
    torch.copysign(weights, levels.add_(LEVELS // 2 - num_dropped + 0.5), out=weights)
