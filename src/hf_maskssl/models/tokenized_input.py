"""A checked sample as a sequence of tokens, before any weight is applied."""

from dataclasses import dataclass

import torch

from .masking import gather_tokens


@dataclass
class TokenizedInput:
    """A batch as a sequence of patches and / or ids.

    Attributes:
        patches: (B, N_patches, P) values, or None. A method without patches has one value or pixel in each.
        ids: (B, N_tokens) int64, or None.
        attention_mask: (B, N) over both, 1 = real, or None when nothing is padded. A patch of which nothing was observed is
            padding.
        observed: (B, N_patches, P) bool, True = an observed value; missing ones are 0 in `patches`. None where every patch
            was observed wholly or not at all.
    """

    patches: torch.Tensor | None
    ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    observed: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N), patches and ids together."""
        parts = [part for part in (self.patches, self.ids) if part is not None]
        return parts[0].shape[0], sum(part.shape[1] for part in parts)

    @property
    def device(self) -> torch.device:
        return (self.patches if self.patches is not None else self.ids).device  # type: ignore[union-attr]

    @property
    def is_real(self) -> torch.Tensor | None:
        """`attention_mask` as (B, N) bool."""
        return None if self.attention_mask is None else self.attention_mask.bool()

    def select(self, ids: torch.Tensor) -> "TokenizedInput":
        """The tokens at the positions `ids` (B, M) of a sequence of one kind."""
        patches = None if self.patches is None else gather_tokens(self.patches, ids)
        observed = None if self.observed is None else gather_tokens(self.observed, ids)
        return TokenizedInput(patches, None if self.ids is None else self.ids.gather(1, ids), None, observed)

    def clone(self) -> "TokenizedInput":
        parts = (self.patches, self.ids, self.attention_mask, self.observed)
        return TokenizedInput(*(None if part is None else part.clone() for part in parts))
