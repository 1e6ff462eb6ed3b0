"""SMA's layers: attention to any context, the first one, whose attention chooses the masks, and the decoder (Xie et al. 2024)."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .category_columns import CategoryHead
from .configuration_sma import SMAConfig
from .guided_masking import ChosenQueries, attention_per_query, attention_received
from .layers import CrossAttention, FusedLinear, Mlp, drop_path, is_here
from .masking import gather_tokens


class SMALayer(GradientCheckpointingLayer):
    """x + attention(norm(x), context), then x + mlp(norm(x)); the context is the normed x itself where none is given.

    Only the queries' side is normed: the first layer's keys and values come from embeddings that were normed already.

    Args:
        config: Configuration of the model.
        query_size, context_size: Widths of the inputs.
        num_heads: Number of attention heads.
        qk_size, v_size: Width of all heads' queries and keys, and of their values, together; None is `hidden_size`.
        hidden_size: Width D of the output.
        intermediate_size: Width of the MLP.
        drop_path_rate: Probability that a sample skips a branch in training.
        residual: Whether the queries are added to the attended values.
    """

    def __init__(
        self,
        config: SMAConfig,
        query_size: int,
        context_size: int,
        num_heads: int,
        qk_size: int | None,
        v_size: int | None,
        hidden_size: int,
        intermediate_size: int,
        drop_path_rate: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        dropout = config.hidden_dropout_prob
        self.attention_norm = nn.LayerNorm(query_size, eps=config.layer_norm_eps)
        self.attention = CrossAttention(
            config,
            query_size,
            context_size,
            num_heads,
            qk_size or hidden_size,
            v_size or hidden_size,
            hidden_size,
            config.use_bias,
            dropout,
            config.attention_probs_dropout_prob,
        )
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(hidden_size, intermediate_size, config.hidden_act, dropout, config.use_bias)
        self.drop_path_rate = drop_path_rate
        self.residual = residual

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """(B, M, query_size), or (1, M, query_size) shared by the batch, and (B, N, context_size) -> (B, M, D).

        With `query_ids` (B, K) only those rows of shared queries, (B, K, D).
        """
        normed = self.attention_norm(hidden_states)
        attended, _ = self.attention(
            normed, normed if context is None else context, attention_mask, query_ids=query_ids, **kwargs
        )
        attended = drop_path(attended, self.drop_path_rate, self.training)
        if self.residual:
            attended = attended + (hidden_states if query_ids is None else gather_tokens(hidden_states[0], query_ids))
        return attended + drop_path(self.mlp(self.mlp_norm(attended)), self.drop_path_rate, self.training)


class SMAInputLayer(SMALayer):
    """The first layer, which reads the inputs, and whose attention chooses the masks."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_ids: torch.Tensor | None = None,
        chosen: ChosenQueries | None = None,
        is_real: torch.Tensor | None = None,
        per_query: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Run `SMALayer.forward`, or with `chosen` queries return the attention that the context receives from them.

        The scores have a way through `forward` because sharded weights exist only while it runs. They need no
        gradient, and no more than the chosen rows of the map.

        Returns:
            Output of `SMALayer.forward`; or attention (B, N), or (B, R, N) when `per_query`, summed over heads.
        """
        if chosen is None or context is None:
            return super().forward(hidden_states, context, attention_mask, query_ids, **kwargs)
        attention = self.attention
        if hidden_states.shape[0] == 1:  # latents
            queries = gather_tokens(attention.query(self.attention_norm(hidden_states))[0], chosen.ids)
        else:
            queries = attention.query(self.attention_norm(gather_tokens(hidden_states, chosen.ids)))
        heads, (qk_size, _) = attention.num_heads, attention.widths
        queries = queries.unflatten(-1, (heads, -1)).transpose(1, 2) * attention.scaling
        # A bias of the keys adds the same to a whole row, which the softmax takes away again.
        num_chosen, width = chosen.ids.shape[1], context.shape[-1]
        if not is_here(attention.key_value, FusedLinear):
            keys = attention.key_value(context)[..., :qk_size].unflatten(-1, (heads, -1)).transpose(1, 2)
        elif num_chosen * heads * width < qk_size * (width + num_chosen):
            # (q W) x instead of q (W x): for few queries, projecting them is cheaper than projecting every token.
            queries, keys = queries @ attention.key_value.weight[:qk_size].unflatten(0, (heads, -1)), context
        else:
            keys = F.linear(context, attention.key_value.weight[:qk_size]).unflatten(-1, (heads, -1)).transpose(1, 2)
        reduce = attention_per_query if per_query else attention_received
        return reduce(queries, keys, chosen.weights, is_real)


class SMADecoder(nn.Module):
    """A decoder whose queries are positions: cross-attention to the encoder's output and an MLP (Eq. 6)."""

    def __init__(self, config: SMAConfig) -> None:
        super().__init__()
        self.config = config
        embedding, width = config.embedding_width, config.decoder_width
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.positions = None if config.decoder_shared_positions else nn.Embedding(config.num_tokens, embedding)
        self.mask_token = nn.Parameter(torch.zeros(embedding)) if config.decoder_mask_token else None
        self.layer = SMALayer(
            config,
            query_size=embedding,
            context_size=config.hidden_size,
            num_heads=config.decoder_num_attention_heads,
            qk_size=config.decoder_qk_channels or embedding,
            v_size=width,
            hidden_size=width,
            intermediate_size=config.decoder_intermediate_size or embedding,
            residual=config.decoder_query_residual,
        )
        self.output_norm = nn.LayerNorm(width, eps=config.embedding_layer_norm_eps)
        self.output = nn.Linear(width, config.output_size)
        self.category_head: CategoryHead | None = None
        if config.category_counts is not None:
            self.category_head = CategoryHead(width, config.category_counts)

    def forward(
        self,
        latents: torch.Tensor,
        latents_mask: torch.Tensor | None,
        positions: torch.Tensor,
        is_scored: torch.Tensor,
        ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predict the content of positions.

        Args:
            latents: (B, L, D), the encoder's output.
            latents_mask: Mask of the kernel over them, or None.
            positions: (1, N, E), the queries of the positions: from the table in `positions`, or from the encoder's.
            is_scored: (B, N) bool, the positions that enter the loss: there the mask token is added.
            ids: (B, M), the positions to predict, scored ones; None predicts all, as tables with categories need it.

        Returns:
            (B, M or N, V or C), and logits (B, sum of `category_counts`) where there are columns of categories.
        """
        queries = positions
        if self.mask_token is not None:
            queries = queries + (self.mask_token if ids is not None else is_scored.unsqueeze(-1) * self.mask_token)
        hidden_states = self.layer(queries, self.norm(latents), latents_mask, ids)
        states = self.output_norm(hidden_states)
        return self.output(states), None if self.category_head is None else self.category_head(states)
