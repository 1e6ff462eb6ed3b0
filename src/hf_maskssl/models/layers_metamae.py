"""MetaMAE's embeddings, decoder, projector and position tables (Jang et al. 2023)."""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .category_columns import CategoryEmbeddings, CategoryHead, check_categories
from .configuration_metamae import MetaMAEConfig
from .distributed import SyncBatchNorm1d
from .dropout import Dropout
from .guided_masking import ChosenQueries, attention_received
from .input_checks import (
    check_attention_mask,
    check_given,
    check_ids,
    check_image,
    check_no_observed_mask,
    check_signal,
)
from .layers import TransformerBlock, TransformerLayer, is_here, normalize, padding_mask, patchify, sincos_positions
from .masking import TokenMask, gather_tokens
from .observed_values import add_partly_observed, fill_missing, with_observed
from .tokenized_input import TokenizedInput


class Predictions(NamedTuple):
    """Predictions of a decoder for its tokens; None where the modality has none.

    Attributes:
        patches: (B, N_patches, P).
        tokens: (B, N_tokens, V) logits.
        categories: (B, sum of `category_counts`) logits.
    """

    patches: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    categories: torch.Tensor | None = None


INPUT_NAMES = {
    "tokens": ("input_ids",),
    "series": ("input_values",),
    "image": ("pixel_values",),
    "vision_language": ("pixel_values", "input_ids"),
}


class MetaMAEEmbeddings(nn.Module):
    """Tokens of any modality -> (B, 1 + N, D): projected, placed by their positions, class token in front."""

    positions: torch.Tensor

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__()
        self.config = config
        if config.has_patches:
            patch_dim = math.prod(config.patch_shape) * config.num_channels
            self.patch_projection = nn.Linear(patch_dim, config.hidden_size)
        if config.has_tokens:
            self.token_embeddings = nn.Embedding(int(config.vocab_size or 0), config.hidden_size)
        self.category_embeddings: CategoryEmbeddings | None = None
        if config.category_counts is not None:
            self.category_embeddings = CategoryEmbeddings(config.category_counts, config.hidden_size)
        marks = config.partly_observed_embedding
        self.partly_observed = nn.Parameter(torch.zeros(config.hidden_size)) if marks else None
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.learned_positions: nn.Parameter | None = None
        if config.position_embeddings == "learned":  # the class token's is the first
            self.learned_positions = nn.Parameter(torch.zeros(1 + config.num_tokens, config.hidden_size))
        else:
            self.register_buffer("positions", position_table(config, config.hidden_size), persistent=False)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def tokenize(
        self,
        input_ids: torch.Tensor | None,
        input_values: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        observed_mask: torch.Tensor | None = None,
    ) -> TokenizedInput:
        """Check the inputs against the configuration and cut them into tokens. Shapes as in `MetaMAEModel.forward`."""
        config = self.config
        given = {"input_ids": input_ids, "input_values": input_values, "pixel_values": pixel_values}
        check_given(given, INPUT_NAMES[config.modality], f"A MetaMAE of modality '{config.modality}'")
        patches = is_observed = None
        if config.has_patches:
            name = "input_values" if config.modality == "series" else "pixel_values"
            signal, is_observed = fill_missing(name, given[name], observed_mask)
            patches = patchify(self._check_signal(signal), config.patch_shape)
            is_observed = None if is_observed is None else patchify(is_observed, config.patch_shape)
            if config.category_counts is not None:
                observed = None if is_observed is None else is_observed[..., 0]
                check_categories(patches[..., 0], config.category_counts, observed)
        else:
            check_no_observed_mask(observed_mask, f"A MetaMAE of modality '{config.modality}'")
        if input_ids is not None:
            check_ids(input_ids, int(config.vocab_size or 0), int(config.max_position_embeddings or 0))
        if attention_mask is not None:
            masked, unit = (patches, "patch") if input_ids is None else (input_ids, "token")
            check_attention_mask(attention_mask, tuple(masked.shape[:2]), unit)  # type: ignore[union-attr]
            if patches is not None and input_ids is not None:  # image patches are no padding
                attention_mask = torch.cat([attention_mask.new_ones(patches.shape[:2]), attention_mask], dim=1)
        return with_observed(TokenizedInput(patches, input_ids, attention_mask), is_observed)

    def _embed(self, tokens: TokenizedInput) -> torch.Tensor:
        """(B, N, D), every token before its position is added."""
        parts = []
        if tokens.patches is not None:
            projected = self._project(tokens.patches)
            parts.append(add_partly_observed(projected, tokens, self.partly_observed))
        if tokens.ids is not None:
            parts.append(self.token_embeddings(tokens.ids))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _project(self, patches: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """(B, K, P) patches, all or those at `ids`, as (B, K, D); categories by their table."""
        projected = self.patch_projection(patches.to(self.cls_token.dtype))
        return projected if self.category_embeddings is None else self.category_embeddings(patches, projected, ids)

    def forward(
        self,
        tokens: TokenizedInput,
        ids_keep: torch.Tensor | None = None,
        is_masked: torch.Tensor | None = None,
        embedded: torch.Tensor | None = None,
        place: bool = True,
    ) -> torch.Tensor:
        """(B, 1 + N, D), or (B, 1 + K, D) of the tokens `ids_keep`; `is_masked` tokens become zero before positions are added.

        Without `place` (B, N, D), every token before positions and the class token are added; given as `embedded`, it is placed.
        """
        if not place:
            return self._embed(tokens)
        cls_token, positions = self._class_and_positions(tokens.shape[1])
        if embedded is None and tokens.ids is None and tokens.patches is not None and ids_keep is not None:
            # Project only visible tokens: at a mask ratio of 0.85 most of the projection would be thrown away.
            embedded = self._project(gather_tokens(tokens.patches, ids_keep), ids_keep)
            embedded = add_partly_observed(embedded, tokens, self.partly_observed, ids_keep)
            embedded = embedded + gather_tokens(positions, ids_keep)
        else:
            embedded = self._embed(tokens) if embedded is None else embedded
            if is_masked is not None:
                embedded = embedded.masked_fill(is_masked.unsqueeze(-1), 0.0)
            embedded = embedded + positions
            if ids_keep is not None:
                embedded = gather_tokens(embedded, ids_keep)
        cls_token = cls_token.expand(embedded.shape[0], -1, -1).to(embedded.dtype)
        return self.dropout(torch.cat([cls_token, embedded], dim=1))

    def _class_and_positions(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The placed class token (1, 1, D), and the positions of the other tokens (N, D)."""
        if self.learned_positions is None:  # the class token's position is all zeros
            return self.cls_token, self.positions[:num_tokens].to(self.cls_token.dtype)
        return self.cls_token + self.learned_positions[0], self.learned_positions[1 : 1 + num_tokens]

    def token_table(self, device: torch.device) -> torch.Tensor:
        """(V, D), the embedding of every id, on the device of the batch."""
        table = self.token_embeddings
        if is_here(table, nn.Embedding):
            return table.weight
        return table(torch.arange(int(self.config.vocab_size or 0), device=device))

    def _check_signal(self, signal: torch.Tensor | None) -> torch.Tensor:
        config = self.config
        if config.modality == "series":
            signal = check_signal("input_values", signal, config.num_channels, ("time",))
            if signal.shape[2] % config.patch_shape[0] or signal.shape[2] > config.signal_shape[0]:
                raise ValueError(
                    f"`input_values` must have a length of at most series_length={config.signal_shape[0]} that is a "
                    f"multiple of patch_size={config.patch_shape[0]}, got {signal.shape[2]}: crop or pad it (with an "
                    "attention_mask over patches)."
                )
            return signal
        return check_image(signal, config.num_channels, config.signal_shape)


class MetaMAEInputLayer(TransformerLayer):
    """The first layer of an encoder whose attention chooses the masks."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        chosen: ChosenQueries | None = None,
        is_real: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Run `TransformerLayer.forward`, or with `chosen` queries give the attention that all tokens receive from them, (B, N).

        The scores have a way through `forward` because sharded weights exist only while it runs. The class token, the first,
        is attended to as any other, but is no query, and what it receives is left out. `is_real` (B, 1 + N) leaves out padding.
        """
        if chosen is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        queries, keys = self.attention.queries_and_keys(self.attention_norm(hidden_states), chosen.ids + 1)
        return attention_received(queries, keys, chosen.weights, is_real)[:, 1:]


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
            # One mask token for patches and one for words.
            self.mask_tokens = nn.Parameter(torch.zeros(config.has_patches + config.has_tokens, width))
            self.register_buffer("positions", position_table(config, width), persistent=False)
        self.layers = nn.ModuleList(
            TransformerBlock(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        if config.has_patches:
            self.patch_head = nn.Linear(width, math.prod(config.patch_shape) * config.num_channels)
        self.category_head: CategoryHead | None = None
        if config.category_counts is not None:
            self.category_head = CategoryHead(width, config.category_counts)
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
        """Predict every token, or those at `ids`.

        Args:
            latents: (B, 1 + K, D); with depth 0 (B, 1 + N, D).
            mask: Split of the tokens into visible ones, which the latents stand for, and masked ones.
            token_table: (V, D), the input embedding table that reads words off (tied).
            differentiable_twice: Whether to use operations whose second derivative is cheap.
            ids: (B, M) positions to predict, of a sequence of one kind without categories; None predicts all.
        """
        if len(self.layers):
            hidden_states = self._decode(latents, mask, differentiable_twice, ids)
        else:
            hidden_states = latents[:, 1:] if ids is None else gather_tokens(latents, ids + 1)
        num_patches = hidden_states.shape[1] if token_table is None else self.config.num_patches
        patch_predictions = token_logits = category_logits = None
        if self.config.has_patches:
            states = hidden_states[:, :num_patches]
            states = states if len(self.layers) else F.relu(states)
            patch_predictions = self.patch_head(states)
            category_logits = None if self.category_head is None else self.category_head(states)
        if token_table is not None:
            states = hidden_states[:, num_patches:]
            token_logits = (self.token_head(states) if len(self.layers) else states) @ token_table.to(states.dtype).T
        return Predictions(patch_predictions, token_logits, category_logits)

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
