"""Masks from attention, with which SMA hides tokens (Xie et al. 2024, section 4.1 and appendix D).

An attention map has one row per query and one column per input token. Everything here works without gradients.
"""

import torch


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
        # The softmax's sum joins the weight of the row: the normalised map is never written.
        weight = weights[:, head].to(powers.dtype) / powers.sum(-1)
        with torch.autocast(powers.device.type, enabled=False):  # half precision would make most of the sums equal
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
