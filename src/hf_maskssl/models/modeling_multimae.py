"""MultiMAE: multi-modal multi-task masked autoencoders (Bachmann et al. 2022, https://arxiv.org/abs/2204.01678).

The file reads as a batch travels: aligned images of several modalities become patches (`ModalityPatches`), a few of them,
dealt out over the modalities, are encoded (`MultiMAEModel`), and every output has a decoder of its own that predicts its
hidden patches (`MultiMAEDecoder`, `MultiMAEForPretraining`). With `task_balancing="minimax"` it is MM-MAE (Wang et al. 2023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel, ViTModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_multimae import Modality, MultiMAEConfig
from .distributed import with_all_parameters
from .layers import (
    CrossAttention,
    FusedLinear,
    Mlp,
    SelfAttention,
    TransformerLayer,
    init_linear_xavier,
    masked_mean,
    padding_mask,
    resized_positions,
    sincos_positions,
    unpatchify,
)
from .masking import gather_tokens
from .model_rules import WRAPPER_ARGUMENTS, ModelRules, drop_unused
from .multimodal_input import Images, ModalityPatches, TokenGrid, check_ids_keep, cut_images
from .multimodal_losses import sample_losses
from .multimodal_masking import (
    VisibleTokens,
    draw_visible_tokens,
    explicit_visible_tokens,
    listed_first,
    without_missing,
)
from .task_balancing import BalancedLoss, BalancingRule, TaskBalancer, TaskPretraining, TaskTotals

if TYPE_CHECKING:
    # The `auto_map` of every saved checkpoint names the classes of that file. `save_pretrained` copies the files of all imports,
    # of those under TYPE_CHECKING too.
    from .modeling_multimae_heads import MultiMAEForImageClassification  # noqa: F401


@dataclass
class MultiMAEForPretrainingOutput(ModelOutput):
    """The result of one pre-training forward pass.

    Attributes:
        loss: Scalar, the balanced sum of the tasks' losses.
        loss_parts: Detached scalars: every output's own loss by its name, and `weight/NAME`, what it counts for.
        predictions: Name -> (B, C, H / stride, W / stride) values, or logits of (B, classes, ...); None without `predict_all`.
        masks: Name -> (B, N_name) int64, 1 = hidden from the encoder and scored by the loss.
        last_hidden_state: (B, G + K, D), global tokens first, then the visible tokens.
        hidden_states, attentions: Outputs of the encoder's layers, when asked for.
    """

    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    predictions: dict[str, torch.Tensor] | None = None
    masks: dict[str, torch.Tensor] | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MultiMAEEmbeddings(nn.Module):
    """Patches of every modality -> tokens: a projection of its own, positions, global tokens in front."""

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.modalities = {modality.name: modality for modality in config.inputs()}
        self.class_embeddings = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for name, modality in self.modalities.items():
            channels = modality.num_channels
            if modality.is_categorical:
                channels = modality.embedding_size
                self.class_embeddings[name] = nn.Embedding(modality.num_classes, channels)
            height, width = modality.patch_shape
            self.projections[name] = nn.Linear(height * width * channels, config.hidden_size)
            table = position_table(config, modality, config.hidden_size)
            if config.position_embeddings == "learned":
                self.register_parameter(f"positions_{name}", nn.Parameter(table))
            else:
                self.register_buffer(f"positions_{name}", table, persistent=False)
        self.global_tokens = nn.Parameter(torch.zeros(1, config.num_global_tokens, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def positions(self, name: str) -> torch.Tensor:
        """(N_name, D), the position table of a modality."""
        return cast(torch.Tensor, getattr(self, f"positions_{name}"))

    def forward(
        self, images: ModalityPatches, ids_keep: torch.Tensor | None, is_kept: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, G + N, D), or (B, G + K, D) of the tokens `ids_keep`.

        Args:
            images: The batch.
            ids_keep: (B, K) int64 over the concatenated tokens, or None for all.
            is_kept: (B, K) bool, False = an unused entry of `ids_keep`.
        """
        if ids_keep is None:
            embedded = torch.cat([self._embed(images, grid, None) for grid in images.grids], dim=1)
        else:
            embedded = self._embed_kept(images, ids_keep, is_kept)
        global_tokens = self.global_tokens.expand(images.batch_size, -1, -1).to(embedded.dtype)
        return self.dropout(torch.cat([global_tokens, embedded], dim=1))

    def _embed_kept(
        self, images: ModalityPatches, ids_keep: torch.Tensor, is_kept: torch.Tensor | None
    ) -> torch.Tensor:
        """Project of every modality only as many tokens as a sample can have visible, then take the right ones."""
        num_tokens = sum(images.sizes)
        kept = torch.zeros(images.batch_size, num_tokens + 1, dtype=torch.bool, device=images.device)
        ids = ids_keep if is_kept is None else torch.where(is_kept, ids_keep, num_tokens)
        kept = kept.scatter_(1, ids, True)[:, :-1]
        parts, places, start = [], [], 0
        for grid, chosen in zip(images.grids, kept.split(images.sizes, dim=1), strict=True):
            rows = listed_first(chosen, limit=min(grid.size, ids_keep.shape[1]))
            parts.append(self._embed(images, grid, rows))
            places.append(start + chosen.cumsum(1) - 1)
            start += rows.shape[1]
        place = torch.cat(places, dim=1).clamp(min=0).gather(1, ids_keep)
        return gather_tokens(torch.cat(parts, dim=1), place)

    def _embed(self, images: ModalityPatches, grid: TokenGrid, ids: torch.Tensor | None) -> torch.Tensor:
        """Tokens of one modality, (B, N_name, D), or of its patches `ids` (B, K)."""
        modality = self.modalities[grid.name]
        patches = images.patches[grid.name]
        # rgb, depth: bicubic; class maps: bilinear, as the authors' code.
        mode = "bilinear" if modality.is_categorical else "bicubic"
        native = modality.grid(self.config.position_size)
        positions = resized_positions(self.positions(grid.name), native, (grid.rows, grid.columns), mode)
        if ids is not None:
            patches = gather_tokens(patches, ids)
        dtype = self.global_tokens.dtype
        if modality.is_categorical:
            patches = self._embed_classes(modality, patches)
        tokens = self.projections[grid.name](patches.to(dtype))
        positions = positions.to(dtype)
        return tokens + (positions if ids is None else gather_tokens(positions, ids))

    def _embed_classes(self, modality: Modality, ids: torch.Tensor) -> torch.Tensor:
        """(B, K, P) class ids -> (B, K, P * embedding); pixels without a class become zeros."""
        embedded = self.class_embeddings[modality.name](ids.clamp(0, modality.num_classes - 1))
        is_known = ids != self.config.semantic_loss_ignore_index
        return (embedded * is_known.unsqueeze(-1)).flatten(2)


class MultiMAEPreTrainedModel(ModelRules, PreTrainedModel):
    config: MultiMAEConfig
    base_model_prefix = "multimae"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["MultiMAEEmbeddings", "TransformerLayer", "MultiMAEDecoder"]
    _supports_sdpa = True
    _supports_flash_attn = (
        False  # transformers' flash path applies the padding of keys to the queries of a cross-attention
    )
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": TransformerLayer, "attentions": SelfAttention}

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens without a place at the front of `last_hidden_state`."""
        return self.config.num_global_tokens

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as the authors' code does: Xavier-uniform linear layers, fused ones part by part; truncated normal tokens
        and class embeddings; mask tokens of zeros.
        """
        std = self.config.initializer_range
        if isinstance(module, FusedLinear):
            init_linear_xavier(module, module.parts)
        elif isinstance(module, nn.Linear):
            init_linear_xavier(module)
        elif isinstance(module, nn.Embedding):
            init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, MultiMAEEmbeddings):
            init.trunc_normal_(module.global_tokens, std=std)
            for name, modality in module.modalities.items():
                table = position_table(self.config, modality, self.config.hidden_size)
                init.copy_(module.positions(name), table)
        elif isinstance(module, MultiMAEDecoder):
            init.zeros_(module.mask_token)
            for embedding in module.modality_embeddings.values():
                init.trunc_normal_(embedding, std=std)
            for name, modality in module.positioned.items():
                table = position_table(self.config, modality, self.config.decoder_hidden_size)
                init.copy_(module.get_buffer(f"positions_{name}"), table)
        elif isinstance(module, BalancingRule):
            module.reset_state()
        elif isinstance(module, MultiMAEForPretraining):
            init.copy_(module.alphas, torch.tensor(self.config.alphas()))
        else:
            super()._init_weights(module)


class MultiMAEModel(MultiMAEPreTrainedModel):
    """The encoder: a ViT over the tokens of all modalities (section 3.1)."""

    # A pre-training checkpoint, or one with a head, opened as an encoder is complete without them.
    _keys_to_ignore_on_load_unexpected = [
        r"^decoders\.",
        r"^balancer\.",
        r"^classifier",
        r"^segmentation_head\.",
        r"^depth_head\.",
        r"^regression_head\.",
    ]

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        self.embeddings = MultiMAEEmbeddings(config)
        last = max(1, config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(
            TransformerLayer(
                config,
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                config.hidden_dropout_prob,
                config.attention_probs_dropout_prob,
                drop_path_rate=config.drop_path_rate * layer / last,
            )
            for layer in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.final_norm else nn.Identity()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The projection of the first modality."""
        return next(iter(self.embeddings.projections.values()))

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.projections[next(iter(self.embeddings.projections))] = value

    def cut(
        self,
        inputs: Images | None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        observed_mask: Images | None = None,
    ) -> ModalityPatches:
        """Check a batch against the configuration and cut it into patches. Shapes as in `forward`.

        Raises:
            ValueError: `forward` refuses the batch.
        """
        return cut_images(self.config, inputs, pixel_values, presence, observed_mask)

    def to_vit(self, modality: str = "rgb") -> ViTModel:
        """The path of one continuous modality as a plain transformers ViT; see `vit_exchange.to_vit`."""
        from .vit_exchange import to_vit  # here, because that module imports this one

        return to_vit(self, modality)

    def load_vit(
        self, vit: PreTrainedModel, modality: str = "rgb", positions: Literal["same", "drop"] = "same"
    ) -> None:
        """Start from the weights of a ViT, DeiT or ViT-MAE; see `vit_exchange.load_vit`."""
        from .vit_exchange import load_vit

        load_vit(self, vit, modality, positions)

    def token_grids(self, inputs: Images | None = None, pixel_values: torch.Tensor | None = None) -> list[TokenGrid]:
        """The place of each given modality's tokens in `last_hidden_state`, counted from behind the global tokens."""
        return self.cut(inputs, pixel_values).grids

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        ids_keep: torch.Tensor | None = None,
        keep_mask: torch.Tensor | None = None,
        images: ModalityPatches | None = None,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode a batch, whole or in part; any of the input modalities may be left out.

        Args:
            inputs: Name -> (B, C, H / stride, W / stride) float, or (B, H / stride, W / stride) int64 class ids. H and W
                are the same for all and multiples of the patch sizes; they need not be the configuration's.
            pixel_values: (B, 3, H, W) float, the same as `inputs={"rgb": ...}`.
            presence: Name -> (B,) bool, False = the sample lacks this modality: its tokens are not attended to, nor pooled.
            ids_keep: (B, K) int64, encode only these tokens, counted over the concatenation of the given modalities in
                the configuration's order, each row by row.
            keep_mask: (B, K) bool, False = an unused entry of `ids_keep`.
            images: A batch that `cut` has checked and cut, instead of the first three and `observed_mask`.
            observed_mask: Name -> mask of the shape of that continuous input, 1 = observed, 0 = missing, such as a hole of a
                depth map: its values are never read (NaN neither), and a patch of nothing else is not attended to, nor pooled.

        Returns:
            `last_hidden_state` (B, G + N or G + K, D), the global tokens first; `pooler_output` (B, D), the mean over the
            patch tokens that are there.

        Raises:
            ValueError: An unknown modality; none that is an input; a wrong shape, type or number of channels; sizes that do
                not divide, or differ between modalities; or (on the CPU, where looking costs no synchronisation) NaN,
                infinity, unknown class ids, or a sample that lacks everything.
        """
        settings = drop_unused(kwargs, "A MultiMAE", WRAPPER_ARGUMENTS)
        images = self.cut(inputs, pixel_values, presence, observed_mask) if images is None else images
        is_real = images.is_real()
        if ids_keep is not None:
            check_ids_keep(ids_keep, keep_mask, images)
            chosen = None if is_real is None else is_real.gather(1, ids_keep)
            is_real = chosen if keep_mask is None else keep_mask if chosen is None else keep_mask & chosen
        hidden_states = self.embeddings(images, ids_keep, keep_mask)
        num_global = self.config.num_global_tokens
        with_global = None if is_real is None else F.pad(is_real.to(torch.int64), (num_global, 0), value=1)
        layer_mask = padding_mask(self.config, hidden_states, with_global)
        for layer in self.layers:
            hidden_states = layer(hidden_states, layer_mask, **settings)
        hidden_states = self.norm(hidden_states)
        pooled = masked_mean(hidden_states[:, num_global:], is_real)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class ModalityEmbeddings(nn.ParameterDict):
    """An embedding for each modality, (1, 1, D), which is read by a call: offloaded ones exist only while it runs."""

    __call__ = nn.Module.__call__  # `nn.ParameterDict` refuses to be called

    def forward(self, name: str) -> torch.Tensor:
        return self[name]


class MultiMAEDecoder(nn.Module):
    """The decoder of one output's patches: cross-attention of its tokens to all encoded ones, an MLP, a shallow Transformer
    (section 3.2).

    As in the authors' code the queries are the output's own tokens, encoded where visible and a mask token elsewhere, and
    there is no residual around the cross-attention.
    """

    def __init__(self, config: MultiMAEConfig, output: Modality) -> None:
        super().__init__()
        self.config = config
        self.output = output
        width, eps = config.decoder_hidden_size, config.layer_norm_eps
        inputs = {modality.name: modality for modality in config.inputs()}
        # Fixed positions of the inputs, and of the output's own tokens.
        self.positioned = inputs | {output.source: inputs.get(output.source, output)}
        for name, modality in self.positioned.items():
            self.register_buffer(f"positions_{name}", position_table(config, modality, width), persistent=False)
        self.context_projection = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.modality_embeddings = ModalityEmbeddings(
            {name: nn.Parameter(torch.zeros(1, 1, width)) for name in inputs}
        )
        self.query_norm = nn.LayerNorm(width, eps=eps)
        self.context_norm = nn.LayerNorm(width, eps=eps)
        self.cross_attention = CrossAttention(
            config, width, width, config.decoder_num_attention_heads, width, width, width, bias=config.qkv_bias
        )
        self.output_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, config.decoder_intermediate_size, config.hidden_act, dropout=0.0)
        self.layers = nn.ModuleList(
            TransformerLayer(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        height, columns = output.patch_shape
        self.prediction = nn.Linear(width, height * columns * output.output_channels)

    def forward(
        self,
        latents: torch.Tensor,
        visible: VisibleTokens,
        images: ModalityPatches,
        ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict patches of the output.

        Args:
            latents: (B, G + K, D), the encoder's output.
            visible: The K tokens it has seen.
            images: The batch.
            ids: (B, M) int64, predict only these of the output's patches.

        Returns:
            (B, N_output or M, P), P = a patch's values, channel (or class) fastest.
        """
        context = self.context_projection(latents)
        num_global = latents.shape[1] - visible.ids.shape[1]
        placed = [self._placed(grid.name, (grid.rows, grid.columns), context.dtype) for grid in images.grids]
        tokens = context[:, num_global:] + gather_tokens(torch.cat(placed), visible.ids)
        queries = self._queries(tokens, visible, images)
        context = torch.cat([context[:, :num_global], tokens], dim=1)
        is_real = None if visible.mask is None else F.pad(visible.mask.to(torch.int64), (num_global, 0), value=1)
        context_mask = padding_mask(self.config, queries, is_real, context)
        hidden_states, _ = self.cross_attention(self.query_norm(queries), self.context_norm(context), context_mask)
        hidden_states = hidden_states + self.mlp(self.output_norm(hidden_states))
        for number, layer in enumerate(self.layers, start=1):
            # The last layer computes only the rows that are read.
            hidden_states = layer(hidden_states, query_ids=ids if number == len(self.layers) else None)
        if ids is not None and not len(self.layers):
            hidden_states = gather_tokens(hidden_states, ids)
        return self.prediction(hidden_states)

    def _placed(self, name: str, grid: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """(N_name, d): position plus modality embedding, where the modality has one."""
        native = self.positioned[name].grid(self.config.position_size)
        positions = resized_positions(self.get_buffer(f"positions_{name}"), native, grid, "bilinear").to(dtype)
        return positions + self.modality_embeddings(name)[0] if name in self.modality_embeddings else positions

    def _queries(self, tokens: torch.Tensor, visible: VisibleTokens, images: ModalityPatches) -> torch.Tensor:
        """(B, N_output, d): the output's own tokens, and mask tokens where the encoder did not see them."""
        source = self.output.source
        shape = self.output.grid(images.image_size)
        size = shape[0] * shape[1]
        hidden = (self.mask_token[0] + self._placed(source, shape, tokens.dtype)).to(tokens.dtype)
        queries = hidden.expand(tokens.shape[0], -1, -1)
        own = next((grid for grid in images.grids if grid.name == source), None)
        if own is None:
            return queries
        is_own = (visible.ids >= own.start) & (visible.ids < own.start + size)
        if visible.mask is not None:
            is_own = is_own & visible.mask
        # Tokens of other modalities go to an extra row, which is cut off.
        places = torch.where(is_own, visible.ids - own.start, size).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return F.pad(queries, (0, 0, 0, 1)).scatter(1, places, tokens)[:, :size]


class MultiMAEForPretraining(TaskPretraining, MultiMAEPreTrainedModel):
    """MultiMAE's objective (section 3), its tasks balanced by `config.task_balancing`."""

    alphas: torch.Tensor

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        self.multimae = MultiMAEModel(config)
        self.outputs = {output.name: output for output in config.outputs()}
        if not self.outputs:
            raise ValueError(
                f"`modalities` must hold at least one output to pre-train, got {list(config.modalities or {})}."
            )
        self.decoders = nn.ModuleDict({name: MultiMAEDecoder(config, output) for name, output in self.outputs.items()})
        self.balancer = TaskBalancer(list(self.outputs), config.task_balancing, config.task_balancing_options or {})
        self.register_buffer("alphas", torch.tensor(config.alphas()), persistent=False)
        self.post_init()

    def compilable_modules(self) -> list[nn.Module]:
        return [*self.multimae.layers, *self.decoders.values()]

    def warm_start(self, name: str, positions: Literal["same", "drop"]) -> "MultiMAEForPretraining":
        """Start the encoder and the rgb projection from a ViT or ViT-MAE; decoders and other modalities stay random."""
        self.multimae.load_vit(AutoModel.from_pretrained(name, trust_remote_code=False), positions=positions)
        return self

    def needs_first_pass(self, batch: Mapping[str, Any]) -> bool:
        """Whether a step of several batches must be measured before its gradients are taken.

        True where weights depend on losses, and where samples lack modalities: the batches' means have unequal denominators.
        A sum of tasks that every sample has is not worth the pass: a sample with nothing to predict in one task makes the
        accumulated loss a mean of the batches' means.
        """
        lacks = batch.get("presence") is not None or batch.get("observed_mask") is not None
        return self.balancer.needs_first_pass or lacks

    def measure_tasks(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        task_masks: Images | None = None,
        proportions: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        shuffle_noise: torch.Tensor | None = None,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TaskTotals:
        """The tasks' loss sums of one batch, to be added up over the step and given to `balancer.begin_step`."""
        images = self.multimae.cut(inputs, pixel_values, presence, observed_mask)
        sums, counts, _ = self._task_sums(images, task_masks, proportions, noise, shuffle_noise, **kwargs)
        return self.balancer.measure(sums, counts, self._shared_weight())

    @can_return_tuple
    def forward(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        task_masks: Images | None = None,
        proportions: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        shuffle_noise: torch.Tensor | None = None,
        predict_all: bool = False,
        return_loss: bool = True,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MultiMAEForPretrainingOutput:
        """Mask, encode, decode, compare, balance.

        Args:
            inputs, pixel_values, presence, observed_mask: Inputs of `MultiMAEModel.forward`; `inputs` also holds the targets of
                outputs that are no inputs. Missing pixels are no targets. An output whose pixels nobody gives is an absent task:
                no loss, no weight.
            task_masks: Name -> (B, N_name) bool for every given input modality, True = hidden; samples may differ, also
                in how many tokens they show. Drawn here when absent.
            proportions: (B, M), shares of the `num_visible_tokens` that each given input modality gets; rows sum to 1.
            noise: (B, N) uniform draws over the concatenated tokens, which choose within each modality.
            shuffle_noise: (B, N) uniform draws for the tokens that make up what rounding leaves.
            predict_all: Whether to give predictions of every patch, for pictures.
            return_loss: Whether the output has `loss` and `loss_parts`. Trainer evaluates models that have this argument.

        Raises:
            ValueError: `MultiMAEModel.forward` refuses the batch; masks or draws of another shape; samples with fewer tokens than
                `num_visible_tokens` plus one, or with nothing visible.
        """
        images = self.multimae.cut(inputs, pixel_values, presence, observed_mask)
        sums, counts, rest = self._task_sums(
            images, task_masks, proportions, noise, shuffle_noise, predict_all, **kwargs
        )
        balanced: BalancedLoss = self.balancer(sums, counts, self._shared_weight())
        is_masked = rest["visible"].is_masked.long().split(images.sizes, dim=1)
        encoded = rest["encoded"]
        # DistributedDataParallel waits for the gradient of every parameter, also of modalities that the batch lacks.
        needed = {output.source for output in self.outputs.values()} | set(self.multimae.embeddings.modalities)
        is_whole = needed <= set(images.patches)
        loss = balanced.loss if is_whole else with_all_parameters(balanced.loss, self)
        return MultiMAEForPretrainingOutput(
            loss=loss if return_loss else None,
            loss_parts=self.balancer.loss_parts(balanced) if return_loss else None,
            predictions=rest["predictions"],
            masks={grid.name: mask for grid, mask in zip(images.grids, is_masked, strict=True)},
            last_hidden_state=encoded.last_hidden_state,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @torch.no_grad()
    def predict(
        self,
        inputs: Images,
        visible: Mapping[str, torch.Tensor | bool] | None = None,
        targets: Sequence[str] | None = None,
        presence: Images | None = None,
        observed_mask: Images | None = None,
    ) -> dict[str, torch.Tensor]:
        """Predict whole outputs from what is visible (Figures 3 and 4): depth from rgb, rgb from depth and two patches.

        Dropout and drop path follow the model's mode: call `eval()` first.

        Args:
            inputs: Inputs of `forward`, at least one input modality.
            visible: Name -> which of its patches are seen: (B, N_name) or (N_name,) bool, True = seen, or True / False for
                all / none. Modalities not named are seen whole.
            targets: Names of outputs; None is every output.
            presence, observed_mask: Arguments of `forward`.

        Returns:
            Name -> (B, C, H / stride, W / stride) values, or (B, classes, ...) logits, at visible places too.

        Raises:
            ValueError: `forward` refuses the batch, or a name in `visible` or `targets` is unknown.
        """
        names = list(self.outputs) if targets is None else list(targets)
        unknown = [name for name in names if name not in self.outputs]
        if unknown:
            raise ValueError(f"`targets` must name outputs, {list(self.outputs)}, got {unknown}.")
        images = self.multimae.cut(inputs, None, presence, observed_mask)
        masks = {name: ~torch.as_tensor(mask, dtype=torch.bool) for name, mask in (visible or {}).items()}
        seen = without_missing(explicit_visible_tokens(images, masks, default=False), images)
        if seen.mask is not None:  # on a GPU its width is an upper bound: reading the true one makes the CPU wait
            seen = seen.narrowed(int(seen.mask.sum(1).max()))
        encoded = self.multimae(images=images, ids_keep=seen.ids, keep_mask=seen.mask, return_dict=True)
        return {name: self._unpatchify(name, self._decode(name, encoded, seen, images), images) for name in names}

    def _task_sums(
        self,
        images: ModalityPatches,
        task_masks: Images | None = None,
        proportions: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        shuffle_noise: torch.Tensor | None = None,
        predict_all: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[list[torch.Tensor], torch.Tensor, dict[str, Any]]:
        """Each task's sum of samples' losses and counts (T,) of samples scored, on this process; and the other results."""
        if task_masks is not None:
            if any(draw is not None for draw in (proportions, noise, shuffle_noise)):
                raise ValueError(
                    "give `task_masks`, or `proportions`, `noise` and `shuffle_noise`, which make masks: not both."
                )
            visible = explicit_visible_tokens(images, task_masks)
        else:
            visible = self._draw_visible(images, proportions, noise, shuffle_noise)
        visible = without_missing(visible, images)
        encoded = self.multimae(
            images=images, ids_keep=visible.ids, keep_mask=visible.mask, return_dict=True, **kwargs
        )
        sums, counts, predictions = [], [], {}
        for name, output in self.outputs.items():
            patches = images.patches.get(output.source)
            if patches is None:
                sums.append(torch.zeros((), device=images.device))
                counts.append(torch.zeros((), device=images.device))
                if predict_all:
                    decoded = self._decode(name, encoded, visible, images)
                    predictions[name] = self._unpatchify(name, decoded, images)
                continue
            is_scored = self._scored(output, visible, images)
            ids = None if predict_all else listed_first(is_scored, limit=is_scored.shape[1])
            decoded = self._decode(name, encoded, visible, images, ids)
            if predict_all:
                predictions[name] = self._unpatchify(name, decoded, images)
            observed = images.observed.get(output.source)
            if ids is not None:
                patches, is_scored = gather_tokens(patches, ids), is_scored.gather(1, ids)
                observed = None if observed is None else gather_tokens(observed, ids)
            ignore_index = self.config.semantic_loss_ignore_index
            losses, has_loss = sample_losses(output, decoded, patches, is_scored, ignore_index, observed)
            sums.append(losses.sum())
            counts.append(has_loss.sum().to(losses.dtype))
        rest = {"visible": visible, "encoded": encoded, "predictions": predictions if predict_all else None}
        return sums, torch.stack(counts), rest

    def _decode(
        self,
        name: str,
        encoded: BaseModelOutputWithPooling,
        visible: VisibleTokens,
        images: ModalityPatches,
        ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.decoders[name](encoded.last_hidden_state, visible, images, ids)

    def _unpatchify(self, name: str, patches: torch.Tensor, images: ModalityPatches) -> torch.Tensor:
        output = self.outputs[name]
        return unpatchify(patches, output.patch_shape, output.grid(images.image_size), output.output_channels)

    def _shared_weight(self) -> torch.Tensor | None:
        return self.weight_to_compare(cast(TransformerLayer, self.multimae.layers[-1]).mlp.down.weight)

    def _scored(self, output: Modality, visible: VisibleTokens, images: ModalityPatches) -> torch.Tensor:
        """(B, N_output) bool: hidden tokens of an input, every token of a modality that is only an output."""
        for grid in images.grids:
            if grid.name == output.source:
                return visible.is_masked[:, grid.start : grid.start + grid.size]
        has_values = images.has_values(output.source)
        if has_values is None:
            size = images.patches[output.source].shape[1]
            return torch.ones(images.batch_size, size, dtype=torch.bool, device=images.device)
        return has_values

    def _draw_visible(
        self,
        images: ModalityPatches,
        proportions: torch.Tensor | None,
        noise: torch.Tensor | None,
        shuffle_noise: torch.Tensor | None,
    ) -> VisibleTokens:
        places = [list(self.multimae.embeddings.modalities).index(grid.name) for grid in images.grids]
        alphas = torch.stack([self.alphas[place] for place in places])  # (M,)
        return draw_visible_tokens(self.config, images, alphas, proportions, noise, shuffle_noise)


def position_table(config: MultiMAEConfig, modality: Modality, width: int) -> torch.Tensor:
    """(N_name, width) float32 at `position_image_size`; coarser patches lie at their centres in the same plane."""
    height, columns = config.patch_size  # type: ignore[misc]
    spacing = (modality.patch_size[0] / height, modality.patch_size[1] / columns)
    row_first = config.position_order == "row_first"
    return sincos_positions(modality.grid(config.position_size), width, spacing, row_first=row_first)
