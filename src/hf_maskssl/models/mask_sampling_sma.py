"""The choice of tokens that SMA hides (Xie et al. 2024, Eqs. 3-5 and appendix D), and the maskings it is compared with.

B is the batch, N its tokens, L the queries of the first layer (tokens of a self-attention encoder, latents of a
cross-attention one), R those of them that are chosen.
"""

import torch
from torch.nn import functional as F

from .configuration_sma import SMAConfig
from .guided_masking import (
    ChosenQueries,
    NumMasked,
    draw_queries,
    iterative_mask,
    mean_over_heads,
    scheduled_mask,
)
from .input_checks import check_draw, check_query_mask
from .masking import group_scores, mask_top_scores, patch_groups, scored_first, span_groups, word_groups
from .tokenized_input import TokenizedInput


def choose_queries(
    config: SMAConfig,
    tokens: TokenizedInput,
    num_heads: int,
    num_chosen: torch.Tensor | int,
    limit: int,
    query_mask: torch.Tensor | None,
    query_heads: torch.Tensor | None,
) -> ChosenQueries:
    """Draw R (Eq. 4), or take the given one. Padding is never a query.

    Args:
        config: Configuration of the model.
        tokens: The batch.
        num_heads: Heads of the first layer.
        num_chosen: Number of queries to draw, one number for all samples or (B,) int64.
        limit: The largest of these numbers.
        query_mask, query_heads: Arguments of `SMAForMaskedModeling.sample_mask`.

    Raises:
        ValueError: Draws of another shape, an empty set R, or one with padding in it.
    """
    shape = (tokens.shape[0], config.num_latents if config.is_cross_attention else tokens.shape[1])  # (B, L)
    is_real = None if config.is_cross_attention else tokens.is_real  # (B, L); every latent is real
    if query_mask is not None:
        mask = check_query_mask(query_mask, shape, is_real)  # (B, L)
        ids = scored_first(mask, limit=shape[1])  # (B, R)
        chosen = ChosenQueries(ids, mean_over_heads(mask.gather(1, ids), num_heads), mask, is_ragged=True)
    else:
        draws = torch.rand(shape, device=tokens.device)  # (B, L)
        if is_real is not None:
            draws = draws.masked_fill(~is_real, torch.inf)
        chosen = draw_queries(draws, num_heads, num_chosen, limit)
        chosen.is_ragged = tokens.attention_mask is not None
    if config.head_aggregation == "random":
        check_draw("query_heads", query_heads, shape)
        if query_heads is None:
            heads = torch.randint(num_heads, chosen.ids.shape, device=chosen.ids.device)  # (B, R)
        else:
            heads = query_heads.gather(1, chosen.ids)  # (B, L) -> (B, R)
        chosen.weights = chosen.weights * num_heads * F.one_hot(heads, num_heads).transpose(1, 2)  # (B, heads, R)
    return chosen


def guided_mask(
    config: SMAConfig,
    attention: torch.Tensor,
    chosen: ChosenQueries,
    num_masked: NumMasked,
    is_real: torch.Tensor | None,
    noise: torch.Tensor | None,
    random_share: torch.Tensor,
) -> torch.Tensor:
    """Eqs. 3-5: the tokens that the chosen queries attend to most.

    Args:
        config: Configuration of the model.
        attention: (B, N), received by each token from the chosen queries; (B, R, N) for masking "iterative".
        chosen: The queries.
        num_masked: Number of tokens to mask.
        is_real: (B, N) bool, True = not padding; None when nothing is padded.
        noise: (B, N) uniform draws of the schedules; drawn here when absent and needed.
        random_share: 0-d, c of `mask_schedule`.

    Returns:
        (B, N) bool, True = masked.
    """
    limit = num_masked.limit
    if config.masking == "iterative":
        most = limit if chosen.is_ragged else -(-limit // chosen.ids.shape[1])
        num_queries = chosen.weights.any(1).sum(1)  # (B, heads, R) -> (B,)
        return iterative_mask(attention, num_queries, num_masked.per_sample(attention), most, is_real)
    if config.mask_queries:  # these come first: no token receives more than the number of heads
        attention = attention.masked_fill(chosen.mask, chosen.weights.shape[1])  # (B, N), and L = N
    return scheduled_mask(config, attention, config.mask_ratio, num_masked, is_real, noise, random_share)


def random_mask(
    config: SMAConfig,
    tokens: TokenizedInput,
    num_masked: NumMasked,
    noise: torch.Tensor | None,
    span_noise: torch.Tensor | None,
) -> torch.Tensor:
    """The maskings that do not depend on the model: tokens, words, spans or patches at random.

    Args:
        config: Configuration of the model.
        tokens: The batch.
        num_masked: Number of tokens to mask.
        noise, span_noise: (B, N) uniform draws, as in `SMAForMaskedModeling.sample_mask`; drawn here when absent.

    Returns:
        (B, N) bool, True = masked.
    """
    noise = torch.rand(tokens.shape, device=tokens.device) if noise is None else noise  # (B, N)
    scores = noise  # (B, N)
    if config.masking == "word":
        assert tokens.ids is not None and config.word_delimiter_id is not None  # the configuration checked it
        groups, is_delimiter = word_groups(tokens.ids, config.word_delimiter_id)  # (B, N), (B, N)
        scores = group_scores(noise, groups)
        scores = torch.where(is_delimiter, scores - (tokens.shape[1] + 1) ** 2, scores)  # after all words
    elif config.masking == "span":
        span_noise = torch.rand(tokens.shape, device=tokens.device) if span_noise is None else span_noise  # (B, N)
        scores = group_scores(noise, span_groups(span_noise, config.mean_span_length))
    elif config.masking == "patch":
        groups = patch_groups(config.grid_shape, config.mask_patch_size, tokens.device)  # (N,)
        scores = group_scores(noise, groups.expand_as(noise))
    return mask_top_scores(scores, num_masked.count, num_masked.limit, tokens.is_real)
