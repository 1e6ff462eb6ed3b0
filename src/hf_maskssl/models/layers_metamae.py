"""MetaMAE's decoder, projector and position tables (Jang et al. 2023)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_metamae import MetaMAEConfig
from .distributed import SyncBatchNorm1d
from .layers import TransformerBlock, normalize, padding_mask, sincos_positions
from .masking import TokenMask, gather_tokens

# Patch predictions (B, N_patches, P) and token logits (B, N_tokens, V); None where the modality has none.
Predictions = tuple[torch.Tensor | None, torch.Tensor | None]


class MetaMAEDecoder(nn.Module):
    """The decoder g_phi: latents of visible tokens -> a prediction for every token.

    Depth 0 is the linear decoder of DABS: the latents already hold every position, and each is read off by itself.
    """

    positions: torch.Tensor

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_hidden_size if config.decoder_num_hidden_layers else config.hidden_size
        if config.decoder_num_hidden_layers:
            self.embed = nn.Linear(config.hidden_size, width)
            self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
            # One mask token per kind of token: patches and words are asked for differently.
            self.mask_tokens = nn.Parameter(torch.zeros(config.has_patches + config.has_tokens, width))
            self.register_buffer("positions", position_table(config, width), persistent=False)
        self.layers = nn.ModuleList(
            TransformerBlock(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        if config.has_patches:
            self.patch_head = nn.Linear(width, math.prod(config.patch_shape) * config.num_channels)
        if config.has_tokens and config.decoder_num_hidden_layers:
            self.token_head = nn.Linear(width, config.hidden_size)

    def forward(
        self,
        latents: torch.Tensor,
        mask: TokenMask,
        token_table: torch.Tensor | None,
        differentiable_twice: bool = False,
        ids: torch.Tensor | None = None,
    ) -> Predictions:
        """Predict every token, or those that are asked for.

        Args:
            latents: (B, 1 + K, D); with depth 0 (B, 1 + N, D).
            mask: Split of the tokens into visible ones, which the latents stand for, and masked ones.
            token_table: (V, D), the input embedding table that reads words off (tied).
            differentiable_twice: Whether to use operations whose second derivative is cheap.
            ids: (B, M) positions to predict, of a sequence of one kind; None predicts all.

        Returns:
            Patch predictions (B, N_patches, P) or None, and logits (B, N_tokens, V) or None.
        """
        if len(self.layers):
            hidden_states = self._decode(latents, mask, differentiable_twice, ids)
        else:
            hidden_states = latents[:, 1:] if ids is None else gather_tokens(latents, ids + 1)
        num_patches = hidden_states.shape[1] if token_table is None else self.config.num_patches
        patch_predictions = token_logits = None
        if self.config.has_patches:
            states = hidden_states[:, :num_patches]
            patch_predictions = self.patch_head(states if len(self.layers) else F.relu(states))
        if token_table is not None:
            states = hidden_states[:, num_patches:]
            token_logits = (self.token_head(states) if len(self.layers) else states) @ token_table.to(states.dtype).T
        return patch_predictions, token_logits

    def _decode(
        self, latents: torch.Tensor, mask: TokenMask, differentiable_twice: bool, ids: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, 1 + K, D) -> (B, N or M, E): visible latents to their places, mask tokens elsewhere, then the layers."""
        embedded = self.embed(latents)
        num_tokens = mask.ids_restore.shape[1]
        # Masked tokens fetch an arbitrary latent here and are overwritten by mask tokens on the next line.
        restored = gather_tokens(embedded[:, 1:], mask.ids_restore.clamp(max=mask.ids_keep.shape[1] - 1))
        is_visible = ~mask.is_masked if mask.is_real is None else ~mask.is_masked & mask.is_real
        tokens = torch.where(is_visible.unsqueeze(-1), restored, self._mask_tokens(num_tokens).to(restored.dtype))
        tokens = tokens + self.positions[:num_tokens].to(self.embed.weight.dtype)
        hidden_states = torch.cat([embedded[:, :1], tokens], dim=1)
        layer_mask: torch.Tensor | None = None
        if mask.is_real is not None:
            is_real = F.pad(mask.is_real, (1, 0), value=True)
            if differentiable_twice:
                layer_mask = torch.zeros_like(is_real, dtype=hidden_states.dtype)
                layer_mask = layer_mask.masked_fill(~is_real, torch.finfo(hidden_states.dtype).min)[:, None, None]
            else:
                layer_mask = padding_mask(self.config, hidden_states, is_real)
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, layer_mask, differentiable_twice=differentiable_twice)
        hidden_states = self.layers[-1](
            hidden_states,
            layer_mask,
            differentiable_twice=differentiable_twice,
            query_ids=None if ids is None else ids + 1,  # behind the class token
        )
        return normalize(hidden_states if ids is not None else hidden_states[:, 1:], self.norm, differentiable_twice)

    def _mask_tokens(self, num_tokens: int) -> torch.Tensor:
        """(N, E) or (1, E): the mask token of each position."""
        if len(self.mask_tokens) == 1:
            return self.mask_tokens
        kind = (torch.arange(num_tokens, device=self.mask_tokens.device) >= self.config.num_patches).long()
        return self.mask_tokens[kind]


class ProjectorLinear(nn.Linear):
    """A linear layer that keeps PyTorch's own initialisation, as the authors' projector does."""


class MetaMAEProjector(nn.Module):
    """The projector h_psi of the task contrastive loss: (B, D) -> (B, projector_output_size)."""

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__()
        hidden = config.projector_hidden_size or 4 * config.hidden_size
        self.up = ProjectorLinear(config.hidden_size, hidden, bias=False)
        self.norm = SyncBatchNorm1d(hidden)
        self.down = ProjectorLinear(hidden, config.projector_output_size, bias=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.down(F.relu(self.norm(self.up(pooled))))


def position_table(config: MetaMAEConfig, width: int) -> torch.Tensor:
    """(num_tokens, width) float32: positions of patches on their grid, then of tokens in their sequence."""
    tables = []
    if config.has_patches:
        tables.append(sincos_positions(config.grid_shape, width))
    if config.has_tokens:
        tables.append(sincos_positions((int(config.max_position_embeddings or 0),), width))
    return torch.cat(tables)
