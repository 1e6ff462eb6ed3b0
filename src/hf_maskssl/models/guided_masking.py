"""Masks from attention, with which SMA hides tokens (Xie et al. 2024, section 4.1 and appendix D).

An attention map has one row per query and one column per input token. Everything here works without gradients. SMA calls
these functions itself; the models of other methods have a `GuidedMasking`, which calls them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .masking import mask_top_scores


class MaskScheduleFields(Protocol):
    """The fields of a configuration that lead from random to guided masking (`SMAConfig` says what they do)."""

    @property
    def mask_schedule(self) -> str: ...

    @property
    def mask_schedule_start(self) -> float: ...

    @property
    def mask_schedule_fraction(self) -> float: ...


class GuidedMaskingFields(MaskScheduleFields, Protocol):
    """The fields of a configuration that has a `GuidedMasking`."""

    @property
    def num_masked_per_query(self) -> int: ...


@dataclass
class ChosenQueries:
    """The set R of Eq. 4.

    Attributes:
        ids: (B, R) int64, rows of the attention map.
        weights: (B, heads, R) float, weight of each query; 0 for the unused places of samples with fewer queries.
        mask: (B, L) bool, True = chosen.
        is_ragged: Whether samples may have different numbers of them.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor
    is_ragged: bool


@dataclass
class NumMasked:
    """The number of masked tokens, k of Eq. 3.

    Attributes:
        count: One number for all samples, or (B,) int64 where samples are padded.
        limit: The largest of these numbers, known without looking at the device.
    """

    count: torch.Tensor | int
    limit: int

    def per_sample(self, scores: torch.Tensor) -> torch.Tensor:
        """(B,) int64 on the device of scores (B, ...), without a copy from the host, which would make the GPU wait."""
        if isinstance(self.count, torch.Tensor):
            return self.count
        return scores.new_full((len(scores),), self.count, dtype=torch.int64)


@dataclass
class AttentionReceived(ModelOutput):
    """Attention that tokens receive in the first layer from chosen queries.

    Attributes:
        received: (B, N), or (B, R, N) for each query.
    """

    received: torch.Tensor | None = None


class GuidedMasking(nn.Module):
    """SMA's choice of masked tokens for a model of another method: its queries, and the tokens that it masks.

    Args:
        config: Configuration of the model, with SMA's fields of a schedule.
        num_heads: Number of heads of the model's first layer, the mean over which counts.
    """

    random_share: torch.Tensor

    def __init__(self, config: GuidedMaskingFields, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.register_buffer("random_share", torch.zeros(()), persistent=False)

    def reset_state(self) -> None:
        """Set the schedule to its end, guided masks alone, until `set_progress` is called."""
        init.zeros_(self.random_share)

    def set_progress(self, fraction: float) -> None:
        """Move the schedule: `fraction` of training is done."""
        if self.config.mask_schedule != "none":
            self.random_share.fill_(random_share_at(self.config, fraction))

    def queries(
        self, draws: torch.Tensor, num_masked: NumMasked, may_ask: torch.Tensor | None = None
    ) -> ChosenQueries:
        """Draw the set R of Eq. 4, one query for `num_masked_per_query` masked tokens, at least one and at most all.

        Args:
            draws: (B, N) uniform draws; the smallest are queries.
            num_masked: Number of masked tokens.
            may_ask: (B, N) bool, False = never a query, such as padding; None when all may be.
        """
        num_tokens, per_query = draws.shape[1], self.config.num_masked_per_query
        limit = max(1, min(round(num_masked.limit / per_query), num_tokens))
        num_chosen: torch.Tensor | int = limit
        if may_ask is not None or isinstance(num_masked.count, torch.Tensor):
            num_chosen = (num_masked.per_sample(draws) / per_query).round().long().clamp(1, limit)
        if may_ask is not None and isinstance(num_chosen, torch.Tensor):
            draws, num_chosen = draws.masked_fill(~may_ask, torch.inf), num_chosen.minimum(may_ask.sum(1))
        return draw_queries(draws, self.num_heads, num_chosen, limit)

    @torch.no_grad()
    def attention(self, encoder: Callable[..., object], **inputs: object) -> torch.Tensor:
        """(B, N), what tokens receive from the queries `chosen` among the inputs of the encoder; only its first layer runs."""
        found = encoder(**inputs, return_dict=True)
        assert (
            isinstance(found, AttentionReceived) and found.received is not None
        )  # there are queries among the inputs
        return found.received

    def mask(
        self,
        attention: torch.Tensor,
        num_masked: NumMasked,
        is_real: torch.Tensor | None,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """Eqs. 3-5 with the schedule: attention received and uniform draws, both (B, N) -> (B, N) bool, True = masked."""
        counts = num_masked.per_sample(attention)  # (B,)
        length = counts.new_full(counts.shape, attention.shape[1]) if is_real is None else is_real.sum(1)  # (B,)
        ratio = counts / length.clamp(min=1)  # (B,)
        return scheduled_mask(self.config, attention, ratio, num_masked, is_real, noise, self.random_share)


def random_share_at(config: MaskScheduleFields, fraction: float) -> float:
    """c of `mask_schedule` where `fraction` of training is done: (1 + cos(pi t)) / 2 at t = fraction /
    `mask_schedule_fraction`, and 0 after t = 1."""
    time = torch.tensor(min(fraction / config.mask_schedule_fraction, 1.0), dtype=torch.float64)
    return float((1 + torch.cos(torch.pi * time)) / 2)


def draw_queries(draws: torch.Tensor, num_heads: int, num_chosen: torch.Tensor | int, limit: int) -> ChosenQueries:
    """The queries with the smallest draws, all heads with equal weight.

    Args:
        draws: (B, L) uniform draws, infinite where no query may be.
        num_heads: Heads of the first layer.
        num_chosen: Number of queries, one number for all samples or (B,) int64.
        limit: The largest of these numbers, known without looking at the device.
    """
    ids = draws.topk(limit, dim=1, largest=False).indices  # (B, R)
    is_used = torch.ones_like(ids, dtype=torch.bool)  # (B, R)
    if isinstance(num_chosen, torch.Tensor):
        is_used = torch.arange(limit, device=ids.device) < num_chosen[:, None]
    mask = torch.zeros(draws.shape, dtype=torch.bool, device=ids.device).scatter_(1, ids, is_used)  # (B, L)
    return ChosenQueries(ids, mean_over_heads(is_used, num_heads), mask, isinstance(num_chosen, torch.Tensor))


def mean_over_heads(is_used: torch.Tensor, num_heads: int) -> torch.Tensor:
    """(B, heads, R) weights of the queries (B, R) that are used: those of a mean over heads."""
    return is_used[:, None].expand(-1, num_heads, -1) / num_heads


def scheduled_mask(
    config: MaskScheduleFields,
    attention: torch.Tensor,
    ratio: torch.Tensor | float,
    num_masked: NumMasked,
    is_real: torch.Tensor | None,
    noise: torch.Tensor | None,
    random_share: torch.Tensor,
) -> torch.Tensor:
    """Eqs. 3 and 5: the tokens that receive the most attention, or what the schedule makes of them.

    Args:
        config: Configuration of the model.
        attention: (B, N), received by each token.
        ratio: Share of masked tokens, one number or (B,).
        num_masked: Number of masked tokens, that of the share but for rounding.
        is_real: (B, N) bool, True = not padding; None when nothing is padded.
        noise: (B, N) uniform draws of the schedules; drawn here when absent and needed.
        random_share: 0-d, c of `mask_schedule`.

    Returns:
        (B, N) bool, True = masked.
    """
    limit = num_masked.limit
    if config.mask_schedule == "none":
        return mask_top_scores(attention, num_masked.count, limit, is_real)
    batch_size, num_tokens = attention.shape
    noise = torch.rand(attention.shape, device=attention.device) if noise is None else noise  # (B, N)
    length = attention.new_full((batch_size,), num_tokens) if is_real is None else is_real.sum(1)  # (B,)
    length, counts = length.float(), num_masked.per_sample(attention)  # (B,), (B,)
    start = config.mask_schedule_start
    random_share = random_share.float()  # a half-precision model casts its buffers
    if config.mask_schedule == "mix":
        guided = (ratio * (1 - start * random_share) * length).round().long().minimum(counts)  # (B,)
        by_attention = mask_top_scores(attention, guided, limit, is_real)  # (B, N)
        others = noise.masked_fill(by_attention, -1.0)  # (B, N)
        return by_attention | mask_top_scores(others, counts - guided, limit, is_real)
    share = ratio + (start - ratio) * random_share  # 0-d or (B,)
    num_candidates = (length * share).round().long().maximum(counts)  # (B,)
    candidates = mask_top_scores(attention, num_candidates, num_tokens, is_real)  # (B, N)
    return mask_top_scores(noise.masked_fill(~candidates, -1.0), num_masked.count, limit, is_real)


@torch.no_grad()
def attention_received(
    queries: torch.Tensor, keys: torch.Tensor, weights: torch.Tensor, is_real: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention that each token receives from the chosen queries, summed (the inner sums of Eqs. 4 and 5).

    One head's map is alive at a time: (B, R, N) and never (B, heads, R, N).

    Args:
        queries: (B, heads, R, F), scaled.
        keys: (B, heads, N, F), or (B, N, F) shared by the heads.
        weights: (B, heads, R) float, the weight of each map's row: 0 for a row that does not count.
        is_real: (B, N) bool, True = not padding, which receives nothing; None when nothing is padded.

    Returns:
        (B, N) float32 or wider.
    """
    received = None
    for head in range(queries.shape[1]):
        powers = _powers(queries[:, head], keys if keys.dim() == 3 else keys[:, head], is_real)
        # Dividing the row's weight by the softmax's sum spares writing the normalised map.
        weight = weights[:, head].to(powers.dtype) / powers.sum(-1)
        with torch.autocast(powers.device.type, enabled=False):  # in half precision most of the sums would be equal
            part = (weight[:, None] @ powers).squeeze(1)
        received = part if received is None else received + part
    assert received is not None  # there is at least one head
    return received


@torch.no_grad()
def attention_per_query(
    queries: torch.Tensor, keys: torch.Tensor, weights: torch.Tensor, is_real: torch.Tensor | None = None
) -> torch.Tensor:
    """`attention_received` for each query by itself, (B, R, N): the iterative procedure needs the rows apart."""
    total = None
    for head in range(queries.shape[1]):
        powers = _powers(queries[:, head], keys if keys.dim() == 3 else keys[:, head], is_real)
        part = powers.mul_((weights[:, head].to(powers.dtype) / powers.sum(-1)).unsqueeze(-1))
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _powers(queries: torch.Tensor, keys: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor:
    """exp(q k - its row's largest), (B, R, F) and (B, N, F) -> (B, R, N), in float32 at least: a softmax before its sum."""
    scores = queries @ keys.transpose(1, 2)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if is_real is not None:
        scores = scores.masked_fill_(~is_real[:, None], -torch.inf)
    return scores.sub_(scores.amax(-1, keepdim=True)).exp_()


@torch.no_grad()
def iterative_mask(
    attention: torch.Tensor,
    num_queries: torch.Tensor,
    num_masked: torch.Tensor,
    limit: int,
    is_real: torch.Tensor | None = None,
) -> torch.Tensor:
    """Every chosen query masks its own top tokens among those still visible, one query after the other (appendix D).

    Eq. 5 approximates this procedure with a single top-k. It cannot be done in parallel over queries.

    Args:
        attention: (B, R, N), summed over heads.
        num_queries: (B,) int64, rows of `attention` that count, the first ones.
        num_masked: (B,) int64, tokens to mask in all; a query's share is `ceil(num_masked / num_queries)`.
        limit: The largest share, known without looking at the device.
        is_real: (B, N) bool, True = not padding, which is never masked; None when nothing is padded.

    Returns:
        (B, N) bool, True = masked.
    """
    share = -(-num_masked // num_queries)
    if is_real is not None:  # behind real tokens that receive nothing, before those that are masked already
        attention = attention.masked_fill(~is_real[:, None], -1.0)
    is_masked = torch.zeros_like(attention[:, 0], dtype=torch.bool)
    place = torch.arange(min(limit, attention.shape[2]), device=attention.device)
    missing = num_masked
    for row in range(attention.shape[1]):
        visible = attention[:, row].masked_fill(is_masked, -torch.inf)
        top = visible.topk(len(place), dim=1).indices
        count = torch.minimum(share, missing) * (row < num_queries)
        is_masked = is_masked.scatter(1, top, place < count[:, None]) | is_masked
        missing = missing - count
    return is_masked


@torch.no_grad()
def top_attention_overlap(attention: torch.Tensor, num_masked_per_query: int) -> torch.Tensor:
    """The overlap of the queries' top tokens: 1 - |union of their top k| / (R k), (B, R, N) -> (B,) (Figure 4).

    0 when no token is chosen twice, 1 - 1 / R when every query chooses the same ones. It is the share of the mask that
    would go missing if every query masked its top tokens without looking at the others.
    """
    batch_size, num_queries, num_tokens = attention.shape
    top = attention.topk(num_masked_per_query, dim=2, sorted=False).indices.flatten(1)
    chosen = torch.zeros(batch_size, num_tokens, dtype=torch.bool, device=attention.device).scatter_(1, top, True)
    return 1 - chosen.sum(1) / (num_queries * num_masked_per_query)
