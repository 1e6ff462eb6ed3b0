"""The choice of tokens of several modalities that the encoder sees (MultiMAE paper, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .configuration_multimae import MultiMAEConfig
from .input_checks import check_draw, values_are_readable
from .masking import scored_first
from .multimodal_input import Images, ModalityPatches


@dataclass
class VisibleTokens:
    """A choice of tokens out of the concatenation of all modalities, with static shapes.

    Attributes:
        ids: (B, K) int64, positions of the visible tokens in ascending order, so modality by modality; rows with fewer
            carry further positions that `mask` marks as unused.
        mask: (B, K) bool, True = a visible token; None when every row has exactly K.
        is_masked: (B, N) bool, True = hidden and there. Tokens of a modality that a sample lacks are neither.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    is_masked: torch.Tensor

    def narrowed(self, width: int) -> "VisibleTokens":
        """The same choice for a caller who knows that no row has more than `width`."""
        mask = None if self.mask is None else self.mask[:, :width]
        return VisibleTokens(self.ids[:, :width], None if mask is None or mask.all() else mask, self.is_masked)


def draw_visible_tokens(
    config: MultiMAEConfig,
    images: ModalityPatches,
    alphas: torch.Tensor,
    proportions: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    shuffle_noise: torch.Tensor | None = None,
) -> VisibleTokens:
    """Choose `num_visible_tokens` of each sample at random.

    Args:
        config: Configuration of the model.
        images: The batch.
        alphas: (M,) concentration of each given input modality.
        proportions, noise, shuffle_noise: Draws of `MultiMAEForPretraining.forward`; drawn here when absent.

    Raises:
        ValueError: Draws of another shape, or samples with too few tokens.
    """
    batch_size, sizes, device = images.batch_size, images.sizes, images.device
    is_present = images.is_present()  # (B, M)
    _check_number(config.num_visible_tokens, config.predicts_inputs, images, is_present)
    check_proportions(proportions, (batch_size, len(sizes)))
    shape = (batch_size, sum(sizes))
    for name, draw in (("noise", noise), ("shuffle_noise", shuffle_noise)):
        check_draw(name, draw, shape)
    if proportions is None:
        everyone = torch.ones(batch_size, len(sizes), dtype=torch.bool, device=device)
        present = everyone if is_present is None else is_present
        proportions = sample_proportions(alphas, present, config.sample_modalities_uniformly)
    elif is_present is not None:
        proportions = restrict_proportions(proportions, is_present)
    noise = torch.rand(shape, device=device) if noise is None else noise
    shuffle_noise = torch.rand(shape, device=device) if shuffle_noise is None else shuffle_noise
    return deal_visible_tokens(proportions, noise, shuffle_noise, sizes, config.num_visible_tokens, is_present)


def _check_number(
    wanted: int, predicts_inputs: bool, images: ModalityPatches, is_present: torch.Tensor | None
) -> None:
    """Refuse samples with fewer tokens than are visible, or just as many where nothing would be left to predict."""
    needed = wanted + predicts_inputs
    total = sum(images.sizes)
    rows: list[int] = []
    if is_present is not None and values_are_readable(is_present):
        there = (is_present * torch.tensor(images.sizes)).sum(1)  # (B,)
        rows = torch.nonzero(there < needed).flatten().tolist()
        total = int(there.min())
    if total < needed:
        where = f" in rows {rows[:8]} of the batch" if rows else ""
        raise ValueError(
            f"`num_visible_tokens` {wanted} of the configuration needs {needed} tokens"
            f"{', as one must stay hidden' if predicts_inputs else ''}, but there are only {total}{where}, of "
            f"{[grid.name for grid in images.grids]}: lower it, give larger images or drop them."
        )


def explicit_visible_tokens(images: ModalityPatches, masks: Images, default: bool | None = None) -> VisibleTokens:
    """The tokens that the caller does not hide.

    Args:
        images: The batch.
        masks: Name -> (B, N_name) or (N_name,) or 0-d, True = hidden.
        default: Whether modalities without a mask are hidden; None demands a mask for each of them.

    Raises:
        ValueError: Masks of other modalities or shapes, or rows in which everything is hidden.
    """
    names = [grid.name for grid in images.grids]
    if set(masks) - set(names) or (default is None and set(names) - set(masks)):
        raise ValueError(f"the masks must be those of the given inputs {names}, got {list(masks)}.")
    parts = []
    for grid in images.grids:
        mask = torch.as_tensor(masks.get(grid.name, default), dtype=torch.bool, device=images.device)
        shape = (images.batch_size, grid.size)
        if mask.dim() == 0 or tuple(mask.shape) == shape[1:]:
            mask = mask.expand(shape)
        if tuple(mask.shape) != shape:
            raise ValueError(
                f"the mask of '{grid.name}' must have one entry per sample and patch, {shape} ({grid.rows} x "
                f"{grid.columns} patches), got {tuple(mask.shape)}."
            )
        parts.append(mask)
    is_visible = ~torch.cat(parts, dim=1)  # (B, N)
    is_present = images.is_present()
    is_there = None if is_present is None else spread_over_tokens(is_present, images.sizes)
    if is_there is not None:
        is_visible = is_visible & is_there
    if values_are_readable(is_visible) and not is_visible.any(1).all():
        rows = torch.nonzero(~is_visible.any(1)).flatten().tolist()
        raise ValueError(f"the masks hide every token in rows {rows[:8]} of the batch: leave at least one visible.")
    return visible_tokens(is_visible, is_there, limit=is_visible.shape[1])


def sample_proportions(alphas: torch.Tensor, is_present: torch.Tensor, uniform_subsets: bool = False) -> torch.Tensor:
    """Shares of the visible tokens that the modalities of each sample get: Dirichlet over those that are present.

    Args:
        alphas: (M,) concentration of each modality.
        is_present: (B, M) bool.
        uniform_subsets: Whether to draw first, uniformly over the non-empty subsets, which modalities are seen at all.

    Returns:
        (B, M) float32, rows summing to 1.
    """
    batch_size, device = is_present.shape[0], is_present.device
    concentration = alphas.float().expand(batch_size, -1)
    shares = torch.distributions.Dirichlet(concentration, validate_args=False).sample()
    is_chosen = is_present
    if uniform_subsets:
        # The bits of a number from 1 to 2^present - 1, dealt out to the modalities that are present.
        subsets = 2 ** is_present.sum(1, keepdim=True) - 1
        code = 1 + (torch.rand(batch_size, 1, device=device) * subsets).long().clamp(max=subsets - 1)
        is_chosen = is_present & (code >> (is_present.cumsum(1) - 1).clamp(min=0)).bitwise_and(1).bool()
    return restrict_proportions(shares, is_chosen)


def check_proportions(proportions: torch.Tensor | None, shape: tuple[int, int]) -> None:
    """Refuse shares, if the caller passed any, that are not (B, M) or cannot be dealt.

    Raises:
        ValueError: Another shape, or rows with NaN, negative shares or another sum than 1.
    """
    check_draw("proportions", proportions, shape)
    if proportions is None or not values_are_readable(proportions):
        return
    is_right = (proportions >= 0).all(1) & ((proportions.sum(1) - 1).abs() < 1e-2)
    if not is_right.all():
        rows = torch.nonzero(~is_right).flatten().tolist()
        raise ValueError(
            f"`proportions` must be shares of 0 or more that sum to 1, one per modality, got others in rows {rows[:8]} of "
            "the batch."
        )


def restrict_proportions(proportions: torch.Tensor, is_chosen: torch.Tensor) -> torch.Tensor:
    """Shares (B, M) of the chosen modalities alone, summing to 1 again: of a Dirichlet draw, one over those."""
    shares = proportions * is_chosen
    return shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)


def deal_visible_tokens(
    proportions: torch.Tensor,
    noise: torch.Tensor,
    shuffle_noise: torch.Tensor,
    sizes: Sequence[int],
    num_visible: int,
    is_present: torch.Tensor | None = None,
) -> VisibleTokens:
    """Choose `num_visible` tokens of each sample: shares of modalities first, then tokens uniformly within each.

    Sorting a modality's draws gives a permutation of its tokens; those that it numbers below the rounded share (half to
    even) are dealt, as the authors' code does it. Rounding, or a modality
    with fewer tokens than its share, can make them more or fewer than `num_visible`: then random tokens of all modalities are
    hidden or shown until the number is right.

    Args:
        proportions: (B, M), rows summing to 1.
        noise: (B, N) uniform draws that permute the tokens within each modality.
        shuffle_noise: (B, N) uniform draws that choose the tokens which make up the number.
        sizes: Tokens of each of the M modalities, N together.
        num_visible: Visible tokens of a sample.
        is_present: (B, M) bool, False = the sample lacks the modality; None when nobody lacks any.
    """
    batch_size, num_tokens = noise.shape
    wanted = (proportions * num_visible).round()
    hidden = [
        draws.argsort(dim=1) >= wanted[:, place : place + 1]
        for place, draws in enumerate(noise.split(list(sizes), dim=1))
    ]
    # Dealt tokens come first, then the others, both in the order of the second draws; absent ones last.
    order = torch.cat(hidden, dim=1) + shuffle_noise
    limit = min(num_visible, num_tokens)
    if is_present is None:
        chosen = order.topk(limit, dim=1, largest=False, sorted=False).indices
        is_visible = torch.zeros_like(order, dtype=torch.bool).scatter_(1, chosen, True)
        return VisibleTokens(chosen.sort(dim=1).values, None, ~is_visible)
    is_there = spread_over_tokens(is_present, sizes)
    chosen = order.masked_fill(~is_there, torch.inf).topk(limit, dim=1, largest=False, sorted=False).indices
    is_visible = torch.zeros_like(is_there).scatter_(1, chosen, True) & is_there
    # Where every modality alone has `limit` tokens, every sample shows exactly as many.
    return visible_tokens(is_visible, is_there, limit, same_number=min(sizes) >= limit)


def visible_tokens(
    is_visible: torch.Tensor, is_there: torch.Tensor | None, limit: int, same_number: bool = False
) -> VisibleTokens:
    """The tokens that `is_visible` (B, N) bool marks, at most `limit` of a sample.

    Args:
        is_there: (B, N) bool, False = token of a modality that the sample lacks; None when all are there.
        same_number: Whether the caller knows that every sample has exactly `limit`.
    """
    ids = scored_first(is_visible, limit)
    is_masked = ~is_visible if is_there is None else ~is_visible & is_there
    mask = None
    if not same_number:
        counts = is_visible.sum(1, keepdim=True)
        mask = torch.arange(ids.shape[1], device=ids.device) < counts
        if values_are_readable(mask) and mask.all():
            mask = None
    return VisibleTokens(ids, mask, is_masked)


def listed_first(is_listed: torch.Tensor, limit: int) -> torch.Tensor:
    """`scored_first`, (B, N) bool -> (B, M) int64, with M at least 1: no kernel has to cope with an empty selection."""
    ids = scored_first(is_listed, limit)
    return ids if ids.shape[1] else ids.new_zeros(ids.shape[0], 1)


def without_missing(visible: VisibleTokens, images: ModalityPatches) -> VisibleTokens:
    """The same choice without patches of which nothing was observed; a sample that would have no visible token keeps its own."""
    if not images.observed:
        return visible
    is_real = images.is_real()
    assert is_real is not None
    before = visible.mask if visible.mask is not None else torch.ones_like(visible.ids, dtype=torch.bool)
    mask = before & is_real.gather(1, visible.ids)
    mask = torch.where(mask.any(1, keepdim=True), mask, before)
    return VisibleTokens(visible.ids, mask, visible.is_masked & is_real)


def spread_over_tokens(per_modality: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """(B, M) -> (B, N): each modality's value for all of its tokens."""
    columns = per_modality.split(1, dim=1)
    return torch.cat([column.expand(-1, size) for column, size in zip(columns, sizes, strict=True)], dim=1)
