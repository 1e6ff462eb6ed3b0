"""The choice of tokens that MetaMAE hides, and DABS's objectives corrupt: at random, in runs, or by SMA's rule."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init

from .configuration_metamae import MetaMAEConfig
from .dabs_objectives import num_corrupted_tokens
from .guided_masking import GuidedMasking, NumMasked
from .masking import group_scores, num_visible_tokens, span_groups, uniform_draws
from .tokenized_input import TokenizedInput


class MetaMAEMaskSampler(nn.Module):
    """Scores by which tokens are masked, the largest first.

    Args:
        config: Configuration of the model.
    """

    masked_counts: torch.Tensor

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.guide: GuidedMasking | None = None
        if config.masking == "guided":
            self.guide = GuidedMasking(config, config.num_attention_heads)
            self.register_buffer("masked_counts", self._table(), persistent=False)

    def reset_state(self) -> None:
        """Fill the table anew."""
        if self.guide is not None:
            init.copy_(self.masked_counts, self._table())

    def _table(self) -> torch.Tensor:
        """(num_tokens + 1,) int64: masked tokens of a sample with n real ones, to look up without leaving the device."""
        return torch.tensor([_num_masked(number, self.config) for number in range(self.config.num_tokens + 1)])

    def scores(
        self,
        tokens: TokenizedInput,
        noise: torch.Tensor | None,
        span_noise: torch.Tensor | None,
        query_noise: torch.Tensor | None,
        encoder: Callable[..., object],
    ) -> torch.Tensor:
        """(B, N) scores of a batch: with "span" the tokens of a run follow each other in their order, with "guided" the chosen
        tokens come first.

        Args:
            tokens: The batch.
            noise, span_noise, query_noise: (B, N) uniform draws, those of `MetaMAEForPretraining.forward`.
            encoder: The model's encoder, whose first layer guides.
        """
        noise = self.draw("noise", noise, tokens)
        if self.config.masking == "span":
            groups = span_groups(self.draw("span_noise", span_noise, tokens), self.config.mean_span_length)
            return group_scores(noise, groups).double()  # which holds these whole numbers exactly
        if self.guide is None:
            return noise
        num_masked, is_real = self._count(tokens), tokens.is_real
        chosen = self.guide.queries(self.draw("query_noise", query_noise, tokens), num_masked, is_real)
        received = self.guide.attention(encoder, tokens=tokens, chosen=chosen)
        return noise + self.guide.mask(received, num_masked, is_real, noise)

    def draw(self, name: str, given: torch.Tensor | None, tokens: TokenizedInput) -> torch.Tensor:
        """(B, N) uniform draws, the given ones or new ones."""
        return uniform_draws(name, given, tokens.shape, tokens.device)

    def _count(self, tokens: TokenizedInput) -> NumMasked:
        """As many as at random."""
        limit, is_real = _num_masked(tokens.shape[1], self.config), tokens.is_real
        return NumMasked(limit if is_real is None else self.masked_counts[is_real.sum(1)], limit)


def _num_masked(num_tokens: int, config: MetaMAEConfig) -> int:
    """Tokens of a sample with `num_tokens` real ones that are masked, or corrupted by an objective of DABS."""
    if config.objective != "metamae":
        return num_corrupted_tokens(num_tokens, config)
    return num_tokens - num_visible_tokens(num_tokens, config.mask_ratio)
