"""MetaMAE: masked auto-encoding as meta-learning (Jang et al. 2023, https://arxiv.org/abs/2310.16318).

The file reads as a batch travels: inputs become tokens (`MetaMAEEmbeddings`), visible tokens become latents
(`MetaMAEModel`), latents are adapted by the decoder's own gradient and decoded again (`MetaMAEForPretraining`). The other
objectives on the same encoder are in `dabs_objectives.py`.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
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

from .category_columns import CategoryEmbeddings, CategoryHead, category_offsets
from .configuration_metamae import MetaMAEConfig
from .dabs_objectives import DABSInput, DABSObjective, corrupted_token_table
from .distributed import all_gather, mean_over_scored, rank
from .dropout import Dropout
from .guided_masking import AttentionReceived, ChosenQueries, GuidedMasking
from .head_losses import sequence_classification_loss, token_classification_loss
from .input_checks import check_explicit_mask
from .layers import (
    SelfAttention,
    TransformerLayer,
    at_least_float32,
    init_linear_xavier,
    linear_in_full_precision,
    masked_mean,
    padding_mask,
    squared_error,
)
from .layers_metamae import (
    INPUT_NAMES,
    MetaMAEDecoder,
    MetaMAEEmbeddings,
    MetaMAEInputLayer,
    MetaMAEProjector,
    Predictions,
    ProjectorLinear,
    position_table,
)
from .mask_sampling_metamae import MetaMAEMaskSampler
from .masking import (
    TokenMask,
    adjacent_to,
    explicit_masking,
    random_masking,
    scored_first,
    visible_token_table,
)
from .model_rules import ModelRules, drop_unused
from .observed_values import with_gaps
from .pretraining import MaskedPretraining
from .tokenized_input import TokenizedInput


@dataclass
class MetaMAEForPretrainingOutput(ModelOutput):
    """The result of one pre-training forward pass.

    Attributes:
        loss: Scalar, Eq. 5, or the loss of another objective.
        loss_parts: Detached scalars: `reconstruction` (Eq. 2, after adaptation), `support` (the inner loss before the
            first adaptation step), `contrastive` (Eq. 3, unweighted); with vision and language also
            `reconstruction_patches` and `reconstruction_tokens`, with categories `numbers` and
            `categories`, of which `reconstruction` is the mean over columns. Of other objectives
            `reconstruction`, `contrastive` or `detection`, and `accuracy` of what was found or detected.
        patch_predictions: (B, N_patches, P) values of every patch, channel fastest; None without patches.
            Of a column of categories the number of the most probable one.
        token_logits: (B, N_tokens, V); None without tokens.
        mask: (B, N) int64, 1 = hidden from the encoder and scored by the loss; image patches first, then tokens. With "shed"
            1 = shuffled; None with "emix".
        support_mask: (B, N) int64, 1 = scored by the inner loss (visible tokens and sampled nearby ones); None without
            adaptation.
        latents: (B, 1 + K, D) amortised latents of the class token and the visible tokens, in the order of their
            draws; with other objectives (B, 1 + N, D) of all tokens.
        adapted_latents: Latents after adaptation, of the same shape; None without adaptation.
        hidden_states, attentions: Outputs of the encoder's layers, when asked for.
        detection_logits: (B, N, 2) with "shed": a token's own embedding, or another's.
        predicted_embeddings: (B, N, D) with "capri".
        projections, mixed_projections: (B, projector_output_size) of samples and of mixed samples, with "emix".
        category_logits: (B, sum of `category_counts`), column after column; None without columns of categories.
    """

    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    patch_predictions: torch.Tensor | None = None
    token_logits: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    support_mask: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    adapted_latents: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    detection_logits: torch.Tensor | None = None
    predicted_embeddings: torch.Tensor | None = None
    projections: torch.Tensor | None = None
    mixed_projections: torch.Tensor | None = None
    category_logits: torch.Tensor | None = None


class MetaMAEPreTrainedModel(ModelRules, PreTrainedModel):
    config: MetaMAEConfig
    base_model_prefix = "metamae"
    main_input_name = "input_ids"  # the class has one; `__init__` sets that of the modality
    input_modalities = ["image", "text", "time"]
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "MetaMAEEmbeddings",
        "MetaMAEInputLayer",
        "TransformerLayer",
        "TransformerBlock",
        "MetaMAEDecoder",
    ]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": TransformerLayer, "attentions": SelfAttention}
    num_prefix_tokens = 1  # the class token leads `last_hidden_state`

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__(config)
        self.main_input_name = INPUT_NAMES[config.modality][0]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as MAE does: Xavier-uniform linear layers and tables, normal tokens; the projector keeps PyTorch's."""
        std = self.config.initializer_range
        if isinstance(module, ProjectorLinear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.Linear):
            init_linear_xavier(module)
            if isinstance(module, CategoryHead):
                module.reset_state()
        elif isinstance(module, nn.Embedding):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, MetaMAEEmbeddings):
            init.normal_(module.cls_token, std=std)
            if module.partly_observed is not None:
                init.normal_(module.partly_observed, std=std)
            if module.learned_positions is not None:
                init.normal_(module.learned_positions, std=std)
            else:
                init.copy_(module.positions, position_table(self.config, self.config.hidden_size))
        elif isinstance(module, CategoryEmbeddings):  # initialised as a projection of one number
            bound = math.sqrt(6 / (1 + module.weight.shape[1]))
            init.uniform_(module.weight, -bound, bound)
            init.copy_(module.offsets, category_offsets(module.counts))
        elif isinstance(module, GuidedMasking | MetaMAEMaskSampler):
            module.reset_state()
        elif isinstance(module, DABSObjective):
            init.copy_(module.counts, corrupted_token_table(self.config))
        elif isinstance(module, MetaMAEDecoder):
            init.normal_(module.mask_tokens, std=std)
            init.copy_(module.positions, position_table(self.config, self.config.decoder_hidden_size))
        elif isinstance(module, MetaMAEForPretraining):
            init.copy_(module.visible_tokens, visible_token_table(self.config.num_tokens, self.config.mask_ratio))
        else:
            super()._init_weights(module)


class MetaMAEModel(MetaMAEPreTrainedModel):
    """The encoder f_theta: 12 pre-norm layers and a final norm (Table 7), or as the configuration says."""

    # A pre-training checkpoint opened as an encoder is complete without them.
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^projector\.", r"^dabs\.", r"^classifier\."]

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__(config)
        self.embeddings = MetaMAEEmbeddings(config)
        first = MetaMAEInputLayer if config.masking == "guided" else TransformerLayer
        self.layers = nn.ModuleList(
            (TransformerLayer if number else first)(
                config,
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                config.hidden_dropout_prob,
                config.attention_probs_dropout_prob,
                head_dim=config.head_dim,
            )
            for number in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.final_norm else nn.Identity()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token table, or the patch projection where there are no tokens."""
        return self.embeddings.token_embeddings if self.config.has_tokens else self.embeddings.patch_projection

    def set_input_embeddings(self, value: nn.Module) -> None:
        setattr(self.embeddings, "token_embeddings" if self.config.has_tokens else "patch_projection", value)

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
        is_masked: torch.Tensor | None = None,
        tokens: TokenizedInput | None = None,
        observed_mask: torch.Tensor | None = None,
        embedded: torch.Tensor | None = None,
        chosen: ChosenQueries | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling | AttentionReceived:
        """Encode a batch, whole or in part.

        Args:
            input_ids: (B, N) int64, for modality "tokens" and "vision_language".
            input_values: (B, C, T) float, for "series"; tabular rows are (B, 1, features).
            pixel_values: (B, C, H, W) float, for "image" and "vision_language".
            attention_mask: (B, N) over ids (over patches for a series), 1 = real, 0 = padding.
            ids_keep: (B, K) int64, encode only these positions (image patches come first, then tokens).
            keep_mask: (B, K), 0 = an unused entry of `ids_keep`.
            is_masked: (B, N) bool, True = replace this token's embedding by zeros (linear-decoder MAE).
            tokens: Result of `embeddings.tokenize`, in place of the inputs: they are cut and checked once.
            observed_mask: (B, C, T) of `input_values`, or (B, C, H, W) of `pixel_values`, 1 = observed, 0 = missing (there the
                values are never read, NaN neither). A patch of which nothing was observed is padding; one observed in part is
                read with zeros for the rest. None means that nothing is missing.
            embedded: (B, N, D), embeddings to read in place of those of `tokens`, which are needed too; without positions.
            chosen: Queries of the first layer: the attention that tokens receive from them is then all that is computed.

        Returns:
            `last_hidden_state` (B, 1 + N or 1 + K, D), class token first; `pooler_output` (B, D), the mean over real
            tokens without the class token (with it, where `pool_class_token` says so).

        Raises:
            ValueError: An input is missing, has another shape, type or channel count than the configuration says, or
                (on the CPU, where looking costs no synchronisation) holds NaN, infinity, unknown ids or an empty
                sample.
        """
        settings = drop_unused(kwargs, "A MetaMAE")
        if tokens is None:
            tokens = self.embeddings.tokenize(input_ids, input_values, pixel_values, attention_mask, observed_mask)
        hidden_states = self.embeddings(tokens, ids_keep, is_masked, embedded)
        is_real = tokens.attention_mask if ids_keep is None else keep_mask
        # The class token is always real.
        with_class = None if is_real is None else F.pad(is_real.to(torch.int64), (1, 0), value=1)
        if chosen is not None:
            is_there = None if with_class is None else with_class.bool()
            return AttentionReceived(self.layers[0](hidden_states, chosen=chosen, is_real=is_there))
        layer_mask = padding_mask(self.config, hidden_states, with_class)
        for layer in self.layers:
            hidden_states = layer(hidden_states, layer_mask, **settings)
        hidden_states = self.norm(hidden_states)
        counted = with_class if self.config.pool_class_token else is_real
        states = hidden_states if self.config.pool_class_token else hidden_states[:, 1:]
        pooled = masked_mean(states, None if counted is None else counted.bool())
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class MetaMAEForPretraining(MaskedPretraining, MetaMAEPreTrainedModel):
    """MetaMAE's objective (Eqs. 1-5, Algorithm 1), plain MAE with `num_adaptation_steps=0, contrastive_weight=0`, or DABS's."""

    _can_compile_fullgraph = False  # MetaMAE takes a gradient inside the forward pass
    visible_tokens: torch.Tensor

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__(config)
        self.metamae = MetaMAEModel(config)
        is_dabs = config.objective != "metamae"
        self._can_compile_fullgraph = is_dabs
        self.dabs = DABSObjective(config) if is_dabs else None
        self.decoder = None if is_dabs else MetaMAEDecoder(config)
        self.projector = MetaMAEProjector(config) if config.contrastive_weight > 0 and not is_dabs else None
        table = visible_token_table(config.num_tokens, config.mask_ratio)
        self.register_buffer("visible_tokens", table, persistent=False)
        self.mask_sampler = MetaMAEMaskSampler(config)
        self.post_init()

    def compilable_modules(self) -> list[nn.Module]:
        """Modules that `torch.compile` may replace in training: not those that are differentiated twice."""
        adapted_twice = self.config.num_adaptation_steps > 0 and not self.config.first_order
        decoded: Iterable[nn.Module] = [] if self.decoder is None or adapted_twice else self.decoder.layers
        return [*self.metamae.layers, *decoded]

    def loss_terms(self, outputs: ModelOutput) -> torch.Tensor | None:
        """The masked tokens of a plain MAE of one kind of input. What adapts or contrasts within a batch has no such mean."""
        is_plain = self.dabs is None and self.projector is None and self.config.num_adaptation_steps == 0
        return outputs["mask"].sum() if is_plain and self.config.modality != "vision_language" else None

    def reason_against_fsdp(self) -> str | None:
        if self.config.num_adaptation_steps == 0 or self.dabs is not None:
            return None
        return (
            "MetaMAE takes a gradient inside its forward pass, and FSDP's hooks free the decoder's gathered weights before that "
            "gradient is taken. Train it with DDP (the model is small: 7.4 million parameters at the paper's size)."
        )

    def reason_against_reconstruction(self) -> str | None:
        if self.config.objective in ("metamae", "mae"):
            return None
        return f"objective '{self.config.objective}' reconstructs nothing: use a model of 'metamae' or 'mae'."

    def set_training_progress(self, fraction: float) -> None:
        """Move the schedule from random to guided masking: `fraction` of training is done. Called before each step."""
        if self.mask_sampler.guide is not None:
            self.mask_sampler.guide.set_progress(fraction)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        nearby_noise: torch.Tensor | None = None,
        return_loss: bool = True,
        observed_mask: torch.Tensor | None = None,
        is_masked: torch.Tensor | None = None,
        span_noise: torch.Tensor | None = None,
        gap_noise: torch.Tensor | None = None,
        mix_noise: torch.Tensor | None = None,
        mix_partners: torch.Tensor | None = None,
        query_noise: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MetaMAEForPretrainingOutput:
        """Mask, encode, adapt, decode, compare; or corrupt, encode, predict, as `config.objective` says.

        Args:
            input_ids, input_values, pixel_values, attention_mask, observed_mask: Inputs of `MetaMAEModel.forward`. Missing
                values are no targets, and the share that is masked is one of the tokens that have others.
            noise: (B, N) uniform draws in [0, 1); the smallest stay visible (are not corrupted). Drawn here when absent.
            nearby_noise: (B, N) uniform draws; below `nearby_ratio`, a masked token next to a visible one is support.
            return_loss: Whether the output has `loss` and `loss_parts`. Trainer evaluates models that have this argument.
            is_masked: (B, N), nonzero = masked, padding left out; a token of every row must stay visible. None draws it.
            span_noise, gap_noise: (B, N) uniform draws; runs of `masking="span"` begin where they are small. (B, C, 3) draws
                of the gaps of `gap_ratio` (`with_gaps`), which no batch with `is_masked` gets.
            mix_noise, mix_partners: (B,) uniform draws, the shares of "emix", and (B,) int64, a permutation of the batch.
            query_noise: (B, N) uniform draws; the tokens with the smallest are the queries of `masking="guided"`.

        Raises:
            ValueError: `MetaMAEModel.forward` refuses an input, a draw or mask has another shape, or the mask hides all.
        """
        inputs = (input_ids, input_values, pixel_values, attention_mask, observed_mask)
        tokens = self.metamae.embeddings.tokenize(*inputs)
        if self.config.gap_ratio > 0 and is_masked is None:
            tokens = with_gaps(tokens, self.config, gap_noise)
        if self.dabs is None:
            mask = self._mask(tokens, noise, span_noise, query_noise, is_masked)
            return self._adapt_and_decode(tokens, mask, nearby_noise, return_loss, **kwargs)
        scores = self.mask_sampler.scores(tokens, noise, span_noise, query_noise, self.metamae)
        return self._corrupt_and_predict(
            self.dabs, tokens, scores, is_masked, mix_noise, mix_partners, return_loss, **kwargs
        )

    @torch.no_grad()
    def sample_mask(
        self,
        input_ids: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        span_noise: torch.Tensor | None = None,
        query_noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mask alone, without encoding: (B, N) bool, True = masked. Arguments and errors are those of `forward`.

        Raises:
            ValueError: Another objective, too, which corrupts tokens instead.
        """
        if self.dabs is not None:
            raise ValueError(
                f"`sample_mask` is for objective 'metamae', got '{self.config.objective}': its output has `mask`."
            )
        inputs = (input_ids, input_values, pixel_values, attention_mask, observed_mask)
        return self._mask(self.metamae.embeddings.tokenize(*inputs), noise, span_noise, query_noise, None).is_masked

    def _adapt_and_decode(
        self,
        tokens: TokenizedInput,
        mask: TokenMask,
        nearby_noise: torch.Tensor | None,
        return_loss: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MetaMAEForPretrainingOutput:
        """The paper's objective."""
        config, decoder = self.config, self.decoder
        assert decoder is not None  # the objectives of DABS alone have none
        visible: dict[str, torch.Tensor | None] = {"ids_keep": mask.ids_keep, "keep_mask": mask.keep_mask}
        visible = visible if config.decoder_num_hidden_layers else {"is_masked": mask.is_masked}
        encoded = self.metamae(tokens=tokens, return_dict=True, **visible, **kwargs)
        latents, table = encoded.last_hidden_state, self._token_table(tokens.device)

        def decode(values: torch.Tensor, twice: bool = False, ids: torch.Tensor | None = None) -> Predictions:
            return decoder(values, mask, table, twice, ids)

        adapted, support, support_loss = latents, None, None
        with _float32_where_half_underflows(latents):
            if config.num_adaptation_steps:
                support = support_set(self.config, mask, self.mask_sampler.draw("nearby_noise", nearby_noise, tokens))
                num_visible = mask.ids_keep.shape[1]
                adapted, support_loss = self._adapt(latents, tokens, support, num_visible, decode)
            predictions = decode(adapted)
            loss_parts = self._reconstruction_losses(tokens, predictions, mask.is_masked)
            loss_parts |= {} if support_loss is None else {"support": support_loss}
            loss = self._add_contrastive(loss_parts, latents, adapted, mask)
        patch_predictions = predictions.patches
        if decoder.category_head is not None and patch_predictions is not None and predictions.categories is not None:
            patch_predictions = decoder.category_head.with_classes(patch_predictions, predictions.categories)
        return MetaMAEForPretrainingOutput(
            loss=loss if return_loss else None,
            loss_parts={name: part.detach() for name, part in loss_parts.items()} if return_loss else None,
            patch_predictions=patch_predictions,
            token_logits=predictions.tokens,
            mask=mask.is_masked.long(),
            support_mask=None if support is None else support.long(),
            latents=latents,
            adapted_latents=adapted if config.num_adaptation_steps else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            category_logits=predictions.categories,
        )

    def _corrupt_and_predict(
        self,
        objective: DABSObjective,
        tokens: TokenizedInput,
        scores: torch.Tensor,
        is_masked: torch.Tensor | None,
        mix_noise: torch.Tensor | None,
        mix_partners: torch.Tensor | None,
        return_loss: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MetaMAEForPretrainingOutput:
        """An objective of DABS."""

        def encode(embedded: torch.Tensor) -> BaseModelOutputWithPooling:
            return self.metamae(tokens=tokens, embedded=embedded, return_dict=True, **kwargs)

        embedded = self.metamae.embeddings(tokens, place=False)
        table = self._token_table(tokens.device)
        found = objective(DABSInput(tokens, embedded, table, encode, scores, is_masked, mix_noise, mix_partners))
        parts = list(found.parts.values())
        return MetaMAEForPretrainingOutput(
            loss=parts[0] if return_loss else None,
            loss_parts={name: part.detach() for name, part in found.parts.items()} if return_loss else None,
            patch_predictions=found.patch_predictions,
            token_logits=found.token_logits,
            mask=None if found.corruption is None else found.corruption.is_corrupted.long(),
            latents=found.encoded.last_hidden_state,
            hidden_states=found.encoded.hidden_states,
            attentions=found.encoded.attentions,
            detection_logits=found.detection_logits,
            predicted_embeddings=found.predicted_embeddings,
            projections=found.projections,
            mixed_projections=found.mixed_projections,
        )

    def _token_table(self, device: torch.device) -> torch.Tensor | None:
        return self.metamae.embeddings.token_table(device) if self.config.has_tokens else None

    def _mask(
        self,
        tokens: TokenizedInput,
        noise: torch.Tensor | None,
        span_noise: torch.Tensor | None,
        query_noise: torch.Tensor | None,
        is_masked: torch.Tensor | None,
    ) -> TokenMask:
        """The split of tokens into visible and masked ones: the caller's, or one of `masking`."""
        if is_masked is not None:
            is_masked = check_explicit_mask(is_masked, tokens.shape, tokens.is_real)
            return explicit_masking(is_masked, tokens.is_real)
        scores = self.mask_sampler.scores(tokens, noise, span_noise, query_noise, self.metamae)
        return random_masking(scores, self.config.mask_ratio, tokens.attention_mask, self.visible_tokens)

    def _adapt(
        self,
        latents: torch.Tensor,
        tokens: TokenizedInput,
        support: torch.Tensor,
        num_visible: int,
        decode: Callable[[torch.Tensor, bool, torch.Tensor | None], Predictions],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Z* = Z - alpha * gradient of the support loss (Eq. 2), `num_adaptation_steps` times.

        The batch's support loss is multiplied by the batch size, so that a sample's step does not shrink as the batch
        grows.

        Returns:
            The adapted latents, and the support loss before the first step.
        """
        second_order = torch.is_grad_enabled() and not self.config.first_order
        ids = None
        # The attention interface's padding mask has a row per token: a first-order step on a padded batch decodes all tokens.
        is_of_one_kind = self.config.modality != "vision_language" and self.config.category_counts is None
        if is_of_one_kind and (second_order or tokens.attention_mask is None):
            # Only the support set's predictions enter the inner loss: at high mask ratios that is a small part of all.
            neighbours = 2 * max(1, len(self.config.grid_shape))
            ids = scored_first(support, limit=min(support.shape[1], num_visible * (1 + neighbours)))
            tokens, support = tokens.select(ids), support.gather(1, ids)
        first_loss = latents.new_zeros(())
        with torch.inference_mode(False), torch.enable_grad():
            if latents.is_inference():  # an inference tensor cannot require a gradient, its copy can
                latents, tokens = latents.clone(), tokens.clone()
            adapted = latents if latents.requires_grad else latents.detach().requires_grad_()
            for step in range(self.config.num_adaptation_steps):
                losses = self._reconstruction_losses(tokens, decode(adapted, second_order, ids), support)
                loss = losses["reconstruction"]
                first_loss = loss.detach() if step == 0 else first_loss
                (gradient,) = torch.autograd.grad(loss * latents.shape[0], adapted, create_graph=second_order)
                adapted = adapted - self.config.adaptation_step_size * gradient
        return adapted, first_loss

    def _reconstruction_losses(
        self,
        tokens: TokenizedInput,
        predictions: Predictions,
        is_scored: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Mean discrepancy over the scored tokens of all processes (Eq. 1), and beside it, of two kinds of token, each one's.

        Squared error averaged over a patch's observed values, cross-entropy for ids, both for the columns of a table with
        categories (`CategoryHead.losses`); `is_scored` is (B, N) bool.
        """
        patch_predictions, token_logits, category_logits = predictions
        head = None if self.decoder is None else self.decoder.category_head
        if head is not None and patch_predictions is not None and category_logits is not None:
            assert tokens.patches is not None  # a table
            return head.mean_losses(patch_predictions, category_logits, tokens.patches, is_scored)
        losses = {}
        num_patches = 0
        if tokens.patches is not None and patch_predictions is not None:
            num_patches = tokens.patches.shape[1]
            predicted, target = at_least_float32(patch_predictions, tokens.patches)
            discrepancy = squared_error(predicted, target, tokens.observed)
            losses["reconstruction_patches"] = mean_over_scored(discrepancy, is_scored[:, :num_patches])
        if tokens.ids is not None and token_logits is not None:
            (logits,) = at_least_float32(token_logits.transpose(1, 2))
            discrepancy = F.cross_entropy(logits, tokens.ids.long(), reduction="none")
            losses["reconstruction_tokens"] = mean_over_scored(discrepancy, is_scored[:, num_patches:])
        total = {"reconstruction": torch.stack(list(losses.values())).sum()}
        return total | losses if len(losses) > 1 else total

    def _add_contrastive(
        self, loss_parts: dict[str, torch.Tensor], latents: torch.Tensor, adapted: torch.Tensor, mask: TokenMask
    ) -> torch.Tensor:
        """Eq. 5; the contrastive part is added to `loss_parts`, where the model has one."""
        loss = loss_parts["reconstruction"]
        if self.projector is None:
            return loss
        loss_parts["contrastive"] = contrastive_loss(self.config, self.projector, latents, adapted, mask)
        return loss + self.config.contrastive_weight * loss_parts["contrastive"]


class MetaMAEHead(MetaMAEPreTrainedModel):
    """An encoder with a new linear layer: what the two task models share."""

    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^projector\.", r"^dabs\."]

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.metamae = MetaMAEModel(config)
        self.dropout = Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()


class MetaMAEForSequenceClassification(MetaMAEHead):
    """A linear layer on the mean of the encoded tokens; regression when `num_labels == 1`."""

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
        inputs = (input_ids, input_values, pixel_values, attention_mask)
        outputs = self.metamae(*inputs, observed_mask=observed_mask, return_dict=True, **kwargs)
        logits = linear_in_full_precision(self.classifier, self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = sequence_classification_loss(self, logits, labels, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class MetaMAEForTokenClassification(MetaMAEHead):
    """A linear layer on every encoded token but the class token; regression when `num_labels == 1`."""

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
        inputs = (input_ids, input_values, pixel_values, attention_mask)
        outputs = self.metamae(*inputs, observed_mask=observed_mask, return_dict=True, **kwargs)
        logits = linear_in_full_precision(self.classifier, self.dropout(outputs.last_hidden_state[:, 1:]))
        loss = None
        if labels is not None:
            loss = token_classification_loss(self, logits, labels, **kwargs)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def support_set(config: MetaMAEConfig, mask: TokenMask, nearby_noise: torch.Tensor) -> torch.Tensor:
    """(B, N) bool: visible tokens and the sampled masked tokens next to one (Algorithm 1, line 7)."""
    is_visible = ~mask.is_masked if mask.is_real is None else ~mask.is_masked & mask.is_real
    num_patches = is_visible.shape[1] if not config.has_tokens else config.num_patches
    near = []
    if config.has_patches:
        near.append(adjacent_to(is_visible[:, :num_patches], config.grid_shape))
    if config.has_tokens:
        near.append(adjacent_to(is_visible[:, num_patches:], (is_visible.shape[1] - num_patches,)))
    is_near = near[0] if len(near) == 1 else torch.cat(near, dim=1)
    return is_visible | (is_near & mask.is_masked & (nearby_noise < config.nearby_ratio))


def contrastive_loss(
    config: MetaMAEConfig, projector: nn.Module, latents: torch.Tensor, adapted: torch.Tensor, mask: TokenMask
) -> torch.Tensor:
    """Task contrastive loss (Eqs. 3-4): each sample's two latents against all others of all processes."""
    is_real = mask.keep_mask if config.decoder_num_hidden_layers else mask.is_real
    views = [projector(masked_mean(states[:, 1:], is_real)) for states in (latents, adapted)]
    views = [F.normalize(view, dim=-1) for view in at_least_float32(*views)]
    others = [all_gather(view) for view in views]
    queries, keys = torch.cat(views), torch.cat(others)
    batch_size, total = views[0].shape[0], others[0].shape[0]
    own = torch.arange(batch_size, device=keys.device) + rank() * batch_size
    logits = queries @ keys.T / config.contrastive_temperature
    itself = torch.cat([own, own + total])[:, None] == torch.arange(2 * total, device=keys.device)
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), torch.cat([own + total, own]))


@contextlib.contextmanager
def _float32_where_half_underflows(latents: torch.Tensor) -> Iterator[None]:
    """Leave float16 autocast for the inner gradient: no loss scaling protects it from underflow. bfloat16 has the range."""
    device_type = latents.device.type
    if torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.float16:
        with torch.autocast(device_type, enabled=False):
            yield
    else:
        yield
