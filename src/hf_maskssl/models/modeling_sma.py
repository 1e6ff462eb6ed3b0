"""SMA: self-guided masked autoencoders (Xie et al. 2024, https://arxiv.org/abs/2402.14789).

The file reads as a batch travels: inputs become tokens (`SMAEmbeddings`), a few queries of the first layer say which
tokens to hide (`SMAForMaskedModeling.sample_mask`, with `mask_sampling_sma.py`), the encoder reads the others
(`SMAModel`, with `layers_sma.py`), and a decoder whose queries are the positions of the hidden ones predicts them
(`SMADecoder`).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput, TokenClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .category_columns import CategoryEmbeddings, CategoryHead, category_offsets, check_categories
from .configuration_sma import SMAConfig
from .distributed import mean_over_scored
from .dropout import Dropout
from .guided_masking import AttentionReceived, ChosenQueries, NumMasked, random_share_at
from .head_losses import sequence_classification_loss, token_classification_loss
from .input_checks import (
    check_attention_mask,
    check_draw,
    check_explicit_mask,
    check_given,
    check_ids,
    check_image,
    check_no_observed_mask,
    check_signal,
)
from .layers import (
    CrossAttention,
    at_least_float32,
    linear_in_full_precision,
    masked_mean,
    padding_mask,
    patchify,
    squared_error,
)
from .layers_sma import SMADecoder, SMAInputLayer, SMALayer
from .mask_sampling_sma import choose_queries, guided_mask, random_mask
from .masking import num_masked_tokens, scored_first
from .model_rules import ModelRules, drop_unused
from .observed_values import add_partly_observed, fill_missing, with_gaps, with_observed
from .pretraining import MaskedPretraining
from .tokenized_input import TokenizedInput


@dataclass
class SMAForMaskedModelingOutput(ModelOutput):
    """The result of one pre-training forward pass.

    Attributes:
        loss: Scalar, the reconstruction loss over masked positions (section 4.2).
        loss_parts: Detached `reconstruction`, of tables with categories the mean over columns of `numbers` and `categories`.
        logits: (B, M, V) of the positions `masked_ids`; None for continuous inputs.
        predictions: (B, M, C) values at `masked_ids`, standardised as the targets, or the likeliest category; None for tokens.
        masked_ids: (B, M) int64, the predicted positions. Rows with fewer carry others, which `mask` marks 0 and no loss scores.
        mask: (B, N) int64, 1 = hidden from the encoder and scored by the loss.
        query_mask: (B, L) int64, 1 = a query of the set R; None when the mask does not come from attention.
        latents: (B, L, D) the encoder's output: latents (cross-attention) or visible tokens in their order.
        hidden_states, attentions: Outputs of the encoder's layers, when asked for.
        category_logits: (B, sum of `category_counts`), column after column; None without. With them all positions are predicted.
    """

    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    masked_ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    query_mask: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    category_logits: torch.Tensor | None = None


class SMAEmbeddings(nn.Module):
    """Inputs of any kind -> (B, N, E): one vector per token plus its learned position, then a norm."""

    def __init__(self, config: SMAConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embedding_width
        if config.has_tokens:
            self.token_embeddings = nn.Embedding(int(config.vocab_size or 0), width)
        else:
            self.value_projection = nn.Linear(config.num_channels, width)
        self.category_embeddings: CategoryEmbeddings | None = None
        if config.category_counts is not None:
            self.category_embeddings = CategoryEmbeddings(config.category_counts, width)
        self.partly_observed = nn.Parameter(torch.zeros(width)) if config.partly_observed_embedding else None
        self.position_embeddings = nn.Embedding(config.num_tokens, width)
        self.norm = nn.LayerNorm(width, eps=config.embedding_layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def tokenize(
        self,
        input_ids: torch.Tensor | None,
        input_values: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        observed_mask: torch.Tensor | None = None,
    ) -> TokenizedInput:
        """Check the inputs against the configuration and flatten them. Shapes as in `SMAModel.forward`."""
        config = self.config
        given = {"input_ids": input_ids, "input_values": input_values, "pixel_values": pixel_values}
        check_given(given, (INPUT_NAMES[config.modality],), f"An SMA of modality '{config.modality}'")
        values = is_observed = None
        if input_ids is not None:
            check_ids(input_ids, int(config.vocab_size or 0), config.num_tokens)
            check_no_observed_mask(observed_mask, f"An SMA of modality '{config.modality}'")
        elif config.modality == "series":
            input_values, is_observed = fill_missing("input_values", input_values, observed_mask)
            values = check_signal("input_values", input_values, config.num_channels, ("tokens",), channels_last=True)
            if not 1 <= values.shape[1] <= config.num_tokens:
                raise ValueError(
                    f"`input_values` must have 1 to series_length={config.num_tokens} tokens, got {values.shape[1]}: "
                    "crop them."
                )
            if config.category_counts is not None:
                observed = None if is_observed is None else is_observed[..., 0]
                check_categories(values[..., 0], config.category_counts, observed)
        else:
            pixel_values, is_observed = fill_missing("pixel_values", pixel_values, observed_mask)
            signal = check_image(pixel_values, config.num_channels, config.signal_shape)
            values = patchify(signal, config.patch_shape)
            is_observed = None if is_observed is None else patchify(is_observed, config.patch_shape)
        tokens = TokenizedInput(values, input_ids, attention_mask)
        if attention_mask is not None:
            check_attention_mask(attention_mask, tokens.shape, "token")
        return with_observed(tokens, is_observed)

    def forward(self, tokens: TokenizedInput, ids: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, E), or (B, K, E) of the positions `ids` alone."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        if ids is not None:
            # Embed only visible tokens: at a mask ratio of 0.75 most of the work would be thrown away.
            tokens, places = tokens.select(ids), ids
        positions = self.position_embeddings(places)
        if tokens.ids is not None:
            embedded = self.token_embeddings(tokens.ids)
        else:
            embedded = self.value_projection(tokens.patches.to(positions.dtype))  # type: ignore[union-attr]
            embedded = add_partly_observed(embedded, tokens, self.partly_observed)
        if self.category_embeddings is not None and tokens.patches is not None:
            embedded = self.category_embeddings(tokens.patches, embedded, ids)
        return self.dropout(self.norm(embedded + positions))


class SMAPreTrainedModel(ModelRules, PreTrainedModel):
    config: SMAConfig
    base_model_prefix = "sma"
    main_input_name = "input_ids"
    input_modalities = ["image", "text", "time"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["SMAEmbeddings", "SMALayer", "SMAInputLayer", "SMADecoder"]
    _supports_sdpa = True
    # transformers' flash path applies the padding of keys to the queries, of which there are another number here, and takes
    # heads of at most 256 channels. sdpa calls the flash kernel where it can.
    _supports_flash_attn = False
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": SMALayer, "attentions": CrossAttention}
    num_prefix_tokens = 0

    def __init__(self, config: SMAConfig) -> None:
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modality]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal linear layers, tables, latents and tokens (transformers' rule, and the authors'); zero biases."""
        std = self.config.initializer_range
        super()._init_weights(module)
        if isinstance(module, SMAEmbeddings) and module.partly_observed is not None:
            init.normal_(module.partly_observed, std=std)
        elif isinstance(module, CategoryEmbeddings):
            init.normal_(module.weight, std=std)
            init.copy_(module.offsets, category_offsets(module.counts))
        elif isinstance(module, CategoryHead):
            module.reset_state()
        elif isinstance(module, SMAModel) and module.latents is not None:
            init.normal_(module.latents, std=std)
        elif isinstance(module, SMADecoder) and module.mask_token is not None:
            init.normal_(module.mask_token, std=std)
        elif isinstance(module, SMAForSequenceClassification) and module.query is not None:
            init.normal_(module.query, std=std)
        elif isinstance(module, SMAForMaskedModeling):
            for name, table in module.tables().items():
                init.copy_(module.get_buffer(name), table)


class SMAModel(SMAPreTrainedModel):
    """The encoder: one layer that reads the inputs, then self-attention layers on its output."""

    # A pre-training checkpoint opened as an encoder is complete without them.
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^classifier", r"^query", r"^hidden_norm"]

    def __init__(self, config: SMAConfig) -> None:
        super().__init__(config)
        hidden_size = config.hidden_size
        heads, intermediate_size = config.num_attention_heads, config.intermediate_size or hidden_size
        self.embeddings = SMAEmbeddings(config)
        self.latents = None
        if config.is_cross_attention:
            self.latents = nn.Parameter(torch.zeros(config.num_latents, hidden_size))
            heads = config.num_cross_attention_heads or heads
            intermediate_size = config.cross_intermediate_size or intermediate_size
        self.input_layer = SMAInputLayer(
            config,
            query_size=hidden_size,
            context_size=config.embedding_width,
            num_heads=heads,
            qk_size=config.qk_channels,
            v_size=config.v_channels,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
        )
        depth = config.num_hidden_layers - 1
        self.layers = nn.ModuleList(
            SMALayer(
                config,
                query_size=hidden_size,
                context_size=hidden_size,
                num_heads=config.num_attention_heads,
                qk_size=config.qk_channels,
                v_size=config.v_channels,
                hidden_size=hidden_size,
                intermediate_size=config.intermediate_size or hidden_size,
                drop_path_rate=config.drop_path_rate * (layer + 1) / depth,
            )
            for layer in range(depth)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token table, or the projection of values where there are no tokens."""
        return self.embeddings.token_embeddings if self.config.has_tokens else self.embeddings.value_projection

    def set_input_embeddings(self, value: nn.Module) -> None:
        setattr(self.embeddings, "token_embeddings" if self.config.has_tokens else "value_projection", value)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        ids_keep: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
        tokens: TokenizedInput | None = None,
        chosen: ChosenQueries | None = None,
        per_query: bool = False,
        observed_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling | AttentionReceived:
        """Encode a batch, whole or in part.

        Args:
            input_ids: (B, N) int64, for modality "tokens".
            input_values: (B, N, C) float, for "series"; tabular rows are (B, features, 1).
            pixel_values: (B, C, H, W) float, for "image": N = H W tokens in row-major order.
            attention_mask: (B, N), 1 = real, 0 = padding, anywhere in the row.
            ids_keep: (B, K) int64, encode only these positions.
            keep_mask: (B, K), 0 = an unused entry of `ids_keep`.
            tokens: Result of `embeddings.tokenize`, in place of the inputs: they are checked once.
            chosen, per_query: Arguments of `attention_to_inputs`, which is then all that is computed. It has a way through
                `forward` because offloaded latents exist only while it runs.
            observed_mask: Mask of the shape of `input_values` or `pixel_values`, 1 = observed, 0 = missing (there the values are
                never read, NaN neither). A token of which nothing was observed is padding; one observed in part (of several
                channels) is read with zeros for the rest. None means that nothing is missing.

        Returns:
            `last_hidden_state`: (B, L, D) latents of a cross-attention encoder, (B, N or K, D) tokens of a
            self-attention encoder. `pooler_output`: (B, D), their mean, padding left out. The first of `hidden_states`
            is the first layer's input: in a cross-attention encoder the latents, (1, L, D), shared by the batch.

        Raises:
            ValueError: An input is missing, has another shape, type or channel count than the configuration says, is
                longer than the position table, or (on the CPU, where looking costs no synchronisation) holds NaN,
                infinity, unknown ids or an empty sample.
        """
        settings = drop_unused(kwargs, "An SMA")
        if tokens is None:
            tokens = self.embeddings.tokenize(input_ids, input_values, pixel_values, attention_mask, observed_mask)
        embedded = self.embeddings(tokens, ids_keep)
        is_real = tokens.attention_mask if ids_keep is None else keep_mask
        queries = self.queries(embedded)
        if chosen is not None:
            given = {"chosen": chosen, "is_real": tokens.is_real, "per_query": per_query}
            return AttentionReceived(self.input_layer(queries, embedded, **given))
        mask = padding_mask(self.config, queries, is_real, embedded)
        hidden_states = self.input_layer(queries, embedded, mask, **settings)
        if self.latents is not None:  # every latent is real
            mask, is_real = None, None
        for _ in range(self.config.num_layer_repeats):
            for layer in self.layers:
                hidden_states = layer(hidden_states, None, mask, **settings)
        pooled = masked_mean(hidden_states, None if is_real is None else is_real.bool())
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def queries(self, embedded: torch.Tensor) -> torch.Tensor:
        """The queries of the first layer: (1, L, D) latents, or the embedded inputs (B, N, D) themselves."""
        return embedded if self.latents is None else self.latents.unsqueeze(0).to(embedded.dtype)

    @torch.no_grad()
    def attention_to_inputs(
        self, tokens: TokenizedInput, chosen: ChosenQueries, per_query: bool = False
    ) -> torch.Tensor:
        """Attention that every token receives in the first layer from the chosen queries, (B, N) or (B, R, N)."""
        return self(tokens=tokens, chosen=chosen, per_query=per_query, return_dict=True).received


class SMAForMaskedModeling(MaskedPretraining, SMAPreTrainedModel):
    """SMA's objective (Algorithm 1); with another `masking` the paper's baselines on the same architecture."""

    _tied_weights_keys = {"decoder.output.weight": "sma.embeddings.token_embeddings.weight"}

    masked_counts: torch.Tensor
    chosen_counts: torch.Tensor
    random_share: torch.Tensor
    target_mean: torch.Tensor
    target_std: torch.Tensor

    def __init__(self, config: SMAConfig) -> None:
        super().__init__(config)
        self.sma = SMAModel(config)
        self.decoder = SMADecoder(config)
        lengths = range(config.num_tokens + 1)
        # By the number of a sample's real tokens: lists for batches without padding, and buffers to look up on the device.
        self.num_masked = [num_masked_tokens(n, config.mask_ratio) for n in lengths]
        self.num_chosen = [config.num_chosen_queries(n) for n in lengths]
        for name, table in self.tables().items():
            self.register_buffer(name, table, persistent=False)
        self.post_init()

    def tables(self) -> dict[str, torch.Tensor]:
        """The buffers: numbers of masked tokens and of chosen queries to look up on the device, c of the schedule, and
        the targets' mean and standard deviation, one number or one per channel."""
        mean, std = self.config.target_mean, self.config.target_std
        return {
            "masked_counts": torch.tensor(self.num_masked),
            "chosen_counts": torch.tensor(self.num_chosen),
            "random_share": torch.zeros(()),
            "target_mean": torch.tensor(0.0 if mean is None else mean),
            "target_std": torch.tensor(1.0 if std is None else std),
        }

    def get_output_embeddings(self) -> nn.Module | None:
        """The layer that gives logits; None for continuous inputs, whose outputs are no vocabulary."""
        return self.decoder.output if self.config.has_tokens else None

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.decoder.output = value  # type: ignore[assignment]

    def compilable_modules(self) -> list[nn.Module]:
        """Modules that `torch.compile` may replace in training."""
        return [self.sma.input_layer, *self.sma.layers, self.decoder.layer]

    def set_training_progress(self, fraction: float) -> None:
        """Move the schedule from random to guided masking: `fraction` of training is done. Called before each step.

        c of `mask_schedule` is that of `random_share_at`. Without a call, masking is guided.
        """
        if self.config.mask_schedule != "none":
            self.random_share.fill_(random_share_at(self.config, fraction))

    def loss_terms(self, outputs: ModelOutput) -> torch.Tensor | None:
        """The masked tokens; None with `reconstruct_visible`, whose loss is one of all tokens."""
        return None if self.config.reconstruct_visible else outputs["mask"].sum()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        is_masked: torch.Tensor | None = None,
        query_mask: torch.Tensor | None = None,
        query_heads: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        span_noise: torch.Tensor | None = None,
        predict_all: bool = False,
        return_loss: bool = True,
        observed_mask: torch.Tensor | None = None,
        gap_noise: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SMAForMaskedModelingOutput:
        """Mask, encode the visible tokens, predict the masked ones, compare.

        Args:
            input_ids, input_values, pixel_values, attention_mask, observed_mask: Inputs of `SMAModel.forward`. The share that
                is masked is one of the tokens with something observed, and missing values are no targets.
            is_masked: (B, N), nonzero = masked, padding left out; a token of every row must stay visible. None draws it.
            query_mask, query_heads, noise, span_noise: Draws of `sample_mask`.
            predict_all: Whether to predict every position and not only the scored ones; the loss is the same.
            return_loss: Whether the output has `loss` and `loss_parts`. Trainer evaluates models that have this argument.
            gap_noise: (B, C, 3) uniform draws of the gaps of `gap_ratio` (`with_gaps`), which no batch with `is_masked` gets.

        Raises:
            ValueError: `SMAModel.forward` or `sample_mask` refuses an argument.
        """
        tokens = self.sma.embeddings.tokenize(input_ids, input_values, pixel_values, attention_mask, observed_mask)
        if self.config.gap_ratio > 0 and is_masked is None:
            tokens = with_gaps(tokens, self.config, gap_noise)
        is_given = is_masked is not None
        is_masked, chosen = self._choose(tokens, is_masked, query_mask, query_heads, noise, span_noise)
        num_tokens, is_real, num_masked = tokens.shape[1], tokens.is_real, self.num_masked[tokens.shape[1]]
        is_visible = ~is_masked if is_real is None else ~is_masked & is_real
        ids_keep = scored_first(is_visible, limit=num_tokens if is_given else num_tokens - num_masked)
        # None: every row has as many visible tokens as any other.
        keep_mask = is_visible.gather(1, ids_keep) if is_given or is_real is not None else None
        encoded = self.sma(tokens=tokens, ids_keep=ids_keep, keep_mask=keep_mask, return_dict=True, **kwargs)
        is_scored = is_masked if not self.config.reconstruct_visible else is_masked | is_visible
        predict_all = predict_all or self.config.reconstruct_visible or self.config.category_counts is not None
        ids = None if predict_all else scored_first(is_masked, limit=num_tokens if is_given else num_masked)
        predictions, category_logits = self._decode(encoded.last_hidden_state, keep_mask, is_scored, ids)
        predictions, loss_parts = self._score(tokens, predictions, category_logits, is_scored, ids)
        return SMAForMaskedModelingOutput(
            loss=loss_parts["reconstruction"] if return_loss else None,
            loss_parts={name: part.detach() for name, part in loss_parts.items()} if return_loss else None,
            logits=predictions if self.config.has_tokens else None,
            predictions=None if self.config.has_tokens else predictions,
            masked_ids=torch.arange(num_tokens, device=is_masked.device).expand_as(is_masked) if ids is None else ids,
            mask=is_masked.long(),
            query_mask=None if chosen is None else chosen.mask.long(),
            latents=encoded.last_hidden_state,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            category_logits=category_logits,
        )

    def _score(
        self,
        tokens: TokenizedInput,
        predictions: torch.Tensor,
        category_logits: torch.Tensor | None,
        is_scored: torch.Tensor,
        ids: torch.Tensor | None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The predictions, with classes in columns of categories, and the losses by name; "reconstruction" is the whole."""
        head = self.decoder.category_head
        if head is None or category_logits is None:
            return predictions, {"reconstruction": self._reconstruction_loss(tokens, predictions, is_scored, ids)}
        assert tokens.patches is not None  # a table
        losses = head.mean_losses(predictions, category_logits, tokens.patches, is_scored)
        return head.with_classes(predictions, category_logits), losses

    @torch.no_grad()
    def sample_mask(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_mask: torch.Tensor | None = None,
        query_heads: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        span_noise: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mask alone, without encoding: (B, N) bool, True = masked.

        Args:
            input_ids, input_values, pixel_values, attention_mask, observed_mask: Inputs of `SMAModel.forward`.
            query_mask: (B, L) bool, the set R: rows of the first layer's attention map (tokens of a self-attention
                encoder, latents of a cross-attention one). Drawn here when absent, as all that follow.
            query_heads: (B, L) int64, the head each query is read from, with `head_aggregation="random"`.
            noise: (B, N) uniform draws; the largest are masked where masking is random, wholly or in part.
            span_noise: (B, N) uniform draws; spans begin where they are small.

        Raises:
            ValueError: `SMAModel.forward` refuses an input, or draws of another shape, or an empty set R.
        """
        tokens = self.sma.embeddings.tokenize(input_ids, input_values, pixel_values, attention_mask, observed_mask)
        return self._choose(tokens, None, query_mask, query_heads, noise, span_noise)[0]

    def _choose(
        self,
        tokens: TokenizedInput,
        is_masked: torch.Tensor | None,
        query_mask: torch.Tensor | None,
        query_heads: torch.Tensor | None,
        noise: torch.Tensor | None,
        span_noise: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ChosenQueries | None]:
        if is_masked is not None:
            return check_explicit_mask(is_masked, tokens.shape, tokens.is_real), None
        for name, draw in (("noise", noise), ("span_noise", span_noise)):
            check_draw(name, draw, tokens.shape)
        limit, is_real = self.num_masked[tokens.shape[1]], tokens.is_real
        num_masked = NumMasked(limit if is_real is None else self.masked_counts[is_real.sum(1)], limit)
        if not self.config.is_guided:
            return random_mask(self.config, tokens, num_masked, noise, span_noise), None
        chosen = self._choose_queries(tokens, query_mask, query_heads)
        attention = self.sma.attention_to_inputs(tokens, chosen, per_query=self.config.masking == "iterative")
        return guided_mask(self.config, attention, chosen, num_masked, is_real, noise, self.random_share), chosen

    def _choose_queries(
        self, tokens: TokenizedInput, query_mask: torch.Tensor | None, query_heads: torch.Tensor | None
    ) -> ChosenQueries:
        limit, is_real = self.num_chosen[tokens.shape[1]], tokens.is_real
        num_chosen: torch.Tensor | int = limit
        if is_real is not None and not self.config.padded_query_count:
            num_chosen = self.chosen_counts[is_real.sum(1)]
        heads = self.sma.input_layer.attention.num_heads
        return choose_queries(self.config, tokens, heads, num_chosen, limit, query_mask, query_heads)

    def _decode(
        self,
        latents: torch.Tensor,
        keep_mask: torch.Tensor | None,
        is_scored: torch.Tensor,
        ids: torch.Tensor | None,
    ) -> torch.Tensor:
        num_tokens = is_scored.shape[1]
        latents_mask = self._latents_mask(latents, keep_mask, ids, num_tokens)
        positions = self._decoder_positions(num_tokens, is_scored.device)
        return self.decoder(latents, latents_mask, positions, is_scored, ids)

    def _decoder_positions(self, num_tokens: int, device: torch.device) -> torch.Tensor:
        """(1, N, E) queries of the positions; a tensor, because arguments move to the device of offloaded weights."""
        table = self.sma.embeddings.position_embeddings if self.decoder.positions is None else self.decoder.positions
        return table(torch.arange(num_tokens, device=device)).unsqueeze(0)

    def _latents_mask(
        self, latents: torch.Tensor, keep_mask: torch.Tensor | None, ids: torch.Tensor | None, num_tokens: int
    ) -> torch.Tensor | None:
        """The decoder's mask over the visible tokens of a self-attention encoder; None where nothing is padded."""
        if keep_mask is None or self.config.is_cross_attention:  # every latent is real
            return None
        num_queries = num_tokens if ids is None else ids.shape[1]
        return padding_mask(self.config, latents.new_empty(1, num_queries, 1), keep_mask, latents)

    def _reconstruction_loss(
        self, tokens: TokenizedInput, predictions: torch.Tensor, is_scored: torch.Tensor, ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Mean over the scored positions of all processes: cross-entropy for ids, squared error for values.

        `ids` (B, M) are the positions that were predicted, None where all were.
        """
        if ids is not None:
            tokens, is_scored = tokens.select(ids), is_scored.gather(1, ids)
        (predictions,) = at_least_float32(predictions)
        if tokens.ids is not None:
            losses = F.cross_entropy(predictions.transpose(1, 2), tokens.ids.long(), reduction="none")
        else:
            assert tokens.patches is not None  # tokens hold one or the other
            targets = self.targets(tokens.patches).to(predictions.dtype)
            losses = squared_error(predictions, targets, tokens.observed)
        return mean_over_scored(losses, is_scored)

    def targets(self, values: torch.Tensor) -> torch.Tensor:
        """The targets: `values` (..., C), standardised and clipped where the configuration asks for it."""
        config = self.config
        if config.target_mean is not None or config.target_std is not None:
            values = (values - self.target_mean.to(values.dtype)) / self.target_std.to(values.dtype)
        return values if config.target_clip is None else values.clamp(-config.target_clip, config.target_clip)


class SMAForSequenceClassification(SMAPreTrainedModel):
    """A linear layer on what a learned query, or the mean, reads from the encoder; regression when `num_labels == 1`."""

    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    def __init__(self, config: SMAConfig) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.sma = SMAModel(config)
        width = config.hidden_size
        self.query = self.query_layer = self.query_norm = self.hidden_norm = None
        if config.classifier_pooling == "query":
            self.query = nn.Parameter(torch.zeros(1, 1, width))
            self.hidden_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
            self.query_layer = SMALayer(
                config,
                query_size=width,
                context_size=width,
                num_heads=config.classifier_num_attention_heads or config.num_attention_heads,
                qk_size=config.qk_channels,
                v_size=config.v_channels,
                hidden_size=width,
                intermediate_size=config.classifier_intermediate_size or config.intermediate_size or width,
            )
            self.query_norm = nn.LayerNorm(width, eps=config.classifier_norm_eps or config.layer_norm_eps)
        self.dropout = Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(width, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """`labels`: (B,) class ids, (B,) or (B, 1) values for a regression, (B, num_labels) for several at once, NaN in gaps."""
        tokens = self.sma.embeddings.tokenize(input_ids, input_values, pixel_values, attention_mask, observed_mask)
        outputs = self.sma(tokens=tokens, return_dict=True, **kwargs)
        pooled = outputs.pooler_output
        if self.query is not None:
            assert self.query_layer is not None and self.query_norm is not None and self.hidden_norm is not None
            hidden_states = self.hidden_norm(outputs.last_hidden_state)
            query = self.query.to(hidden_states.dtype)
            is_real = None if self.config.is_cross_attention else tokens.attention_mask
            mask = padding_mask(self.config, query, is_real, hidden_states)
            pooled = self.query_norm(self.query_layer(query, hidden_states, mask))[:, 0]
        logits = linear_in_full_precision(self.classifier, self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = sequence_classification_loss(self, logits, labels, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class SMAForTokenClassification(SMAPreTrainedModel):
    """A linear layer on every token; regression when `num_labels == 1`.

    A cross-attention encoder has no vector per token: there each embedded token is a query to the latents, as in Perceiver
    IO's dense tasks do (Jaegle et al. 2021, section 3.2).
    """

    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    def __init__(self, config: SMAConfig) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.sma = SMAModel(config)
        width = config.embedding_width
        self.query_layer = self.hidden_norm = None
        if config.is_cross_attention:
            self.hidden_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.query_layer = SMALayer(
                config,
                query_size=width,
                context_size=config.hidden_size,
                num_heads=config.decoder_num_attention_heads,
                qk_size=config.decoder_qk_channels,
                v_size=config.decoder_width,
                hidden_size=width,
                intermediate_size=config.decoder_intermediate_size or width,
            )
        self.query_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(width, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """`labels`: (B, N) class ids or values, -100 left out of the loss. Logits are (B, N, num_labels)."""
        tokens = self.sma.embeddings.tokenize(input_ids, input_values, pixel_values, attention_mask, observed_mask)
        outputs = self.sma(tokens=tokens, return_dict=True, **kwargs)
        hidden_states = outputs.last_hidden_state
        if self.query_layer is not None and self.hidden_norm is not None:
            hidden_states = self.query_layer(self.sma.embeddings(tokens), self.hidden_norm(hidden_states))
        logits = linear_in_full_precision(self.classifier, self.dropout(self.query_norm(hidden_states)))
        loss = None
        if labels is not None:
            loss = token_classification_loss(self, logits, labels, **kwargs)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


INPUT_NAMES = {"tokens": "input_ids", "series": "input_values", "image": "pixel_values"}
