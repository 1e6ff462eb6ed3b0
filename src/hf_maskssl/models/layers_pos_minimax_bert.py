"""PoS-BERT's layers: BERT's, of which the last can leave out places that are not read, and the first can guide the masks."""

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import (
    BertAttention,
    BertEncoder,
    BertLayer,
    BertSelfAttention,
    eager_attention_forward,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .attention_dropout import attend_with_dropout, fits
from .guided_masking import ChosenQueries, attention_received
from .masking import gather_tokens


class PoSMinimaxBertSelfAttention(BertSelfAttention):
    """BERT's self-attention, which can attend from chosen places only, with a dropout that is fast on a CPU."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        query_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, N, D) -> (B, N, D) and the weights where the kernel gives them; with `query_ids` (B, K) those rows, (B, K, D)."""
        asking = hidden_states if query_ids is None else gather_tokens(hidden_states, query_ids)
        query, key, value = (
            linear(states).unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for linear, states in ((self.query, asking), (self.key, hidden_states), (self.value, hidden_states))
        )
        dropout = self.dropout.p if self.training else 0.0
        implementation = self.config._attn_implementation
        weights = None
        if dropout > 0 and implementation == "sdpa" and fits(query):
            attended = attend_with_dropout(query, key, value, attention_mask, self.scaling, dropout).transpose(1, 2)
        else:
            kernel = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
            attended, weights = kernel(
                self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
            )
        return attended.reshape(*asking.shape[:-1], -1), weights


class PoSMinimaxBertAttention(BertAttention):
    """BERT's attention block, which can compute chosen places only."""

    # Arguments that this and the next class only pass on have the types of transformers' BERT.
    def forward(
        self, hidden_states: torch.Tensor, *args: Any, query_ids: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """BERT's forward pass, (B, N, D) -> (B, N, D); with `query_ids` (B, K) only those rows, (B, K, D)."""
        if query_ids is None:
            return super().forward(hidden_states, *args, **kwargs)
        attended, weights = self.self(hidden_states, *args, query_ids=query_ids, **kwargs)
        return self.output(attended, gather_tokens(hidden_states, query_ids)), weights


class PoSMinimaxBertEncoder(BertEncoder):
    """BERT's layers, of which the last can leave out places that are not read."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        *args: Any,
        query_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """BERT's forward pass, (B, N, D) -> (B, N, D); with `query_ids` (B, K) int64 only those rows, (B, K, D)."""
        if query_ids is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        *first, last = self.layer
        for layer in first:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        if attention_mask is None or (isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 4):
            if attention_mask is not None and attention_mask.shape[2] > 1:
                attention_mask = attention_mask.take_along_dim(query_ids[:, None, :, None], dim=2)
            hidden_states = last(hidden_states, attention_mask, query_ids=query_ids, **kwargs)
        else:  # the masks of flash and flex attention are for as many queries as keys
            hidden_states = gather_tokens(last(hidden_states, attention_mask, **kwargs), query_ids)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states)


class PoSMinimaxBertInputLayer(BertLayer):
    """The first layer of an encoder whose attention chooses the masks."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        chosen: ChosenQueries | None = None,
        is_real: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """BERT's forward pass, or with `chosen` queries the attention that all places receive from them, (B, N).

        The scores have a way through `forward` because sharded weights exist only while it runs. `is_real` (B, N) leaves out
        padding.
        """
        if chosen is None:
            return super().forward(hidden_states, *args, **kwargs)
        attention = self.attention.self
        queries = attention.query(gather_tokens(hidden_states, chosen.ids)) * attention.scaling
        parts = (queries, attention.key(hidden_states))
        queries, keys = (part.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2) for part in parts)
        return attention_received(queries, keys, chosen.weights, is_real)
