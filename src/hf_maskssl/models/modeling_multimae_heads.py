"""MultiMAE's transfers (section 4): the encoder with a new head for classification, segmentation, depth or other maps."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    DepthEstimatorOutput,
    ImageClassifierOutput,
    ImageSuperResolutionOutput,
    SemanticSegmenterOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_multimae import MultiMAEConfig
from .dense_heads import (
    ConvNextHead,
    DPTClassHead,
    DPTHead,
    DPTRegressionHead,
    LinearHead,
    SegmenterHead,
    dense_regression_loss,
    known_values,
    reverse_huber_loss,
    valid_depths,
)
from .distributed import global_mean_denominator, items_divisor, with_all_parameters
from .head_losses import sequence_classification_loss
from .input_checks import values_are_readable
from .layers import at_least_float32, linear_in_full_precision, masked_mean
from .modeling_multimae import MultiMAEModel, MultiMAEPreTrainedModel
from .multimodal_input import Images, ModalityPatches


class MultiMAEHead(MultiMAEPreTrainedModel):
    """An encoder with a new head: the base of the task models."""

    # A pre-training checkpoint opened with a head is complete without them.
    _keys_to_ignore_on_load_unexpected = [r"^decoders\.", r"^balancer\."]

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.multimae = MultiMAEModel(config)

    def _reach_all(self, loss: torch.Tensor, images: ModalityPatches) -> torch.Tensor:
        """`loss`, on several processes with zero times all parameters if the batch lacks a modality (`with_all_parameters`)."""
        is_whole = len(images.grids) == len(self.multimae.embeddings.modalities)
        return loss if is_whole else with_all_parameters(loss, self)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as in the encoder; convolutions keep PyTorch's own initialisation."""
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # Unlike `module.reset_parameters()` this keeps what a checkpoint has filled.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = math.prod(module.weight.shape[1:]) ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, SegmenterHead):
            module.init_weights(self.config.initializer_range)
        else:
            super()._init_weights(module)


class MultiMAEForImageClassification(MultiMAEHead):
    """A layer norm and a linear layer on the mean of all encoded tokens, or on the first global one.

    The mean takes in the global tokens, as in the authors' code. A regression when `num_labels == 1`.
    """

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        self.classifier_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        labels: torch.Tensor | None = None,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify each sample.

        Args:
            inputs, pixel_values, presence, observed_mask: Inputs of `MultiMAEModel.forward`; what a sample lacks is not pooled.
            labels: (B,) class ids, (B,) or (B, 1) values for a regression, (B, num_labels) for several at once, NaN in gaps.

        Returns:
            `loss` when there are labels, `logits` (B, num_labels).
        """
        images = self.multimae.cut(inputs, pixel_values, presence, observed_mask)
        outputs = self.multimae(images=images, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        if self.config.classifier_pooling == "global":
            pooled = states[:, 0]
        else:
            is_real = images.is_real()
            if is_real is not None:
                is_real = F.pad(is_real, (self.num_prefix_tokens, 0), value=True)
            pooled = masked_mean(states, is_real)
        logits = linear_in_full_precision(self.classifier, self.dropout(self.classifier_norm(pooled)))
        loss = None
        if labels is not None:
            (pooled_logits,) = at_least_float32(logits)
            loss = sequence_classification_loss(self, pooled_logits, labels, **kwargs)
            loss = self._reach_all(loss, images)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class MultiMAEDenseHead(MultiMAEHead):
    """The base of the heads that predict a map: they read the tokens of `head_modalities`, concatenated on channels."""

    # A plain Trainer counts pixels without a label, too, so that its number is no divisor of these losses: it divides by the
    # accumulated batches. One that counts by `scored_labels` may give `num_items_in_batch`.
    accepts_loss_kwargs = False

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        table = config.modality_table()
        patch_sizes = {name: list(table[name].patch_size) for name in config.head_inputs()}
        if any(size != patch_sizes[config.head_inputs()[0]] for size in patch_sizes.values()):
            raise ValueError(
                "`head_modalities` must have one patch size, because a head joins their tokens place by place, got "
                f"{patch_sizes}: choose some of them with the config's `head_modalities`."
            )
        self.patch_size = table[config.head_inputs()[0]].patch_size
        self.head_channels = config.hidden_size * len(config.head_inputs())

    def _cut(
        self,
        inputs: Images | None,
        pixel_values: torch.Tensor | None,
        presence: Images | None,
        observed_mask: Images | None,
    ) -> ModalityPatches:
        """Check a batch and cut it into patches, as `MultiMAEModel.cut` does.

        Raises:
            ValueError: A modality that the head reads is missing.
        """
        images = self.multimae.cut(inputs, pixel_values, presence, observed_mask)
        given, read = [grid.name for grid in images.grids], self.config.head_inputs()
        missing = [name for name in read if name not in given]
        if missing:
            raise ValueError(
                f"The head reads the modalities {read}, but {missing} are missing from the inputs {given}: give them, or "
                f"make the model with the config's head_modalities={[name for name in read if name in given] or given}."
            )
        return images

    def _head_tokens(self, states: torch.Tensor, images: ModalityPatches) -> torch.Tensor:
        """(B, G + N, D) -> (B, rows * columns, D * modalities); zeros where a sample lacks a modality or a patch."""
        grids = {grid.name: grid for grid in images.grids}
        parts = []
        for name in self.config.head_inputs():
            start = self.num_prefix_tokens + grids[name].start
            tokens = states[:, start : start + grids[name].size]
            has_values = images.has_values(name)
            if has_values is not None:
                tokens = tokens.masked_fill(~has_values.unsqueeze(-1), 0.0)
            parts.append(tokens)
        return torch.cat(parts, dim=-1)

    def _grid_shape(self, images: ModalityPatches) -> tuple[int, int]:
        """Rows and columns of the tokens that the head reads."""
        return (images.image_size[0] // self.patch_size[0], images.image_size[1] // self.patch_size[1])

    def _encode_layers(
        self, images: ModalityPatches, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[BaseModelOutputWithPooling, list[torch.Tensor]]:
        """The encoder's output, with the hidden states that the caller asks for, and four layers' tokens for a DPT head."""
        settings: dict[str, Any] = dict(kwargs)
        wanted = settings.pop("output_hidden_states", None)
        outputs = self.multimae(images=images, output_hidden_states=True, return_dict=True, **settings)
        # `hidden_states` are the embeddings, then every layer's output; the last one has passed the final norm, if any.
        states = [outputs.hidden_states[1 + layer] for layer in self.config.depth_layer_ids()]
        layers = [self._head_tokens(state, images) for state in states]
        keep = self.config.output_hidden_states if wanted is None else wanted
        outputs.hidden_states = selected_states(outputs.hidden_states, keep)
        return outputs, layers


class MultiMAEForSemanticSegmentation(MultiMAEDenseHead):
    """The head that `segmentation_head` names: on the last layer's tokens, or DPT's on those of four layers."""

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        if self.num_labels < 2:
            raise ValueError(f"Semantic segmentation needs `num_labels` of at least 2 classes, got {self.num_labels}.")
        self.segmentation_head = self._new_head()
        # A DPT head reads the layers' outputs, whose hooks the compiler does not follow.
        self._can_compile_fullgraph = config.segmentation_head != "dpt"
        self.post_init()

    def _new_head(self) -> nn.Module:
        config, channels = self.config, self.head_channels
        if config.segmentation_head == "segmenter":
            return SegmenterHead(config, channels, self.num_labels)
        if config.segmentation_head == "linear":
            return LinearHead(channels, self.num_labels)
        if config.segmentation_head == "dpt":
            sizes, dropout = config.depth_reassemble_sizes, config.segmentation_dropout
            return DPTClassHead(channels, config.depth_hidden_size, sizes, self.num_labels, dropout)
        return ConvNextHead(
            channels,
            config.segmentation_hidden_size,
            config.segmentation_cells_per_token,
            config.segmentation_num_layers,
            self.num_labels,
        )

    @can_return_tuple
    def forward(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        labels: torch.Tensor | None = None,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SemanticSegmenterOutput:
        """Classify every pixel.

        Args:
            inputs, pixel_values, presence, observed_mask: Inputs of `MultiMAEModel.forward`; all `head_modalities` are needed,
                more may be given. Where a sample lacks one of them, or a patch of it, the head reads zeros.
            labels: (B, H, W) int64 class ids, `semantic_loss_ignore_index` where there is none, of any resolution.

        Returns:
            `logits` (B, num_labels, h, w) at the head's resolution: a quarter of the image's by default, the tokens' grid for
            "segmenter" and "linear", the image's for "dpt". `loss`: the cross entropy of logits resized to the labels,
            averaged over the labelled pixels of all processes.

        Raises:
            ValueError: One of the `head_modalities` is missing, or labels have another shape, type or range.
        """
        images = self._cut(inputs, pixel_values, presence, observed_mask)
        if self.config.segmentation_head == "dpt":
            outputs, layers = self._encode_layers(images, **kwargs)
            logits = self.segmentation_head(layers, self._grid_shape(images), images.image_size)
        else:
            outputs = self.multimae(images=images, return_dict=True, **kwargs)
            tokens = self._head_tokens(outputs.last_hidden_state, images)
            logits = self.segmentation_head(tokens, self._grid_shape(images))
        loss = None
        if labels is not None:
            loss = self._reach_all(self._loss(logits, labels, kwargs.get("num_items_in_batch")), images)
        return SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def scored_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Bool, of the shape of `labels`, True = what the loss is a mean of: labels other than `semantic_loss_ignore_index`."""
        return labels != self.config.semantic_loss_ignore_index

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
        ignored = self.config.semantic_loss_ignore_index
        if labels.dim() != 3 or len(labels) != len(logits) or labels.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"`labels` must be integers of the shape ({len(logits)}, height, width), got {labels.dtype} of "
                f"{tuple(labels.shape)}."
            )
        is_scored = self.scored_labels(labels)
        if values_are_readable(labels):
            wrong = labels[is_scored & ((labels < 0) | (labels >= self.num_labels))]
            if len(wrong):
                raise ValueError(
                    f"`labels` must lie in [0, num_labels={self.num_labels}) or be semantic_loss_ignore_index={ignored}, "
                    f"found {wrong.unique().tolist()[:8]}."
                )
        (logits,) = at_least_float32(logits)
        logits = F.interpolate(logits, size=tuple(labels.shape[1:]), mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, labels.long(), ignore_index=ignored, reduction="sum")
        count = is_scored.sum().to(total.dtype)
        return total / (global_mean_denominator(count) if num_items is None else items_divisor(num_items, total))


class MultiMAEForDepthEstimation(MultiMAEDenseHead):
    """The DPT head on four layers' tokens, with the reverse Huber loss."""

    # transformers installs its hooks for the layers' outputs under a lock, which the compiler does not follow.
    _can_compile_fullgraph = False

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        self.depth_head = DPTHead(self.head_channels, config.depth_hidden_size, config.depth_reassemble_sizes)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        labels: torch.Tensor | None = None,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DepthEstimatorOutput:
        """Predict a depth for every pixel.

        Args:
            inputs, pixel_values, presence, observed_mask: Inputs of `MultiMAEModel.forward`; all `head_modalities` are needed,
                more may be given. Where a sample lacks one of them, or a patch of it, the head reads zeros.
            labels: (B, H, W) float depth at the image's size; 0, negative or NaN where it is not known.

        Returns:
            `predicted_depth` (B, H, W), `loss` (`reverse_huber_loss`).

        Raises:
            ValueError: One of the `head_modalities` is missing, or labels have another shape or type.
        """
        images = self._cut(inputs, pixel_values, presence, observed_mask)
        outputs, layers = self._encode_layers(images, **kwargs)
        depth = self.depth_head(layers, self._grid_shape(images), images.image_size)
        loss = None
        if labels is not None:
            loss = self._reach_all(self._loss(depth, labels, kwargs.get("num_items_in_batch")), images)
        return DepthEstimatorOutput(
            loss=loss, predicted_depth=depth, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def scored_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Bool, of the shape of `labels`, True = what the loss is a mean of: pixels with a valid depth."""
        return valid_depths(labels)

    def _loss(self, depth: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
        if labels.shape != depth.shape or not labels.is_floating_point():
            raise ValueError(
                f"`labels` must be floating point of the shape {tuple(depth.shape)}, the image's, got {labels.dtype} of "
                f"{tuple(labels.shape)}: resize or convert them."
            )
        depth, labels = at_least_float32(depth, labels)
        return reverse_huber_loss(depth, labels, num_items)


class MultiMAEForDenseRegression(MultiMAEDenseHead):
    """The DPT head on four layers' tokens with `num_labels` values for every pixel, such as the three of normals.

    With the loss that the paper has on Taskonomy (section 4.1): the mean absolute error of what is known.
    """

    # transformers installs its hooks for the layers' outputs under a lock, which the compiler does not follow.
    _can_compile_fullgraph = False

    def __init__(self, config: MultiMAEConfig) -> None:
        super().__init__(config)
        sizes = config.depth_reassemble_sizes
        self.regression_head = DPTRegressionHead(
            self.head_channels, config.depth_hidden_size, sizes, max(1, self.num_labels)
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        inputs: Images | None = None,
        pixel_values: torch.Tensor | None = None,
        presence: Images | None = None,
        labels: torch.Tensor | None = None,
        observed_mask: Images | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageSuperResolutionOutput:
        """Predict `num_labels` values for every pixel.

        Args:
            inputs, pixel_values, presence, observed_mask: Inputs of `MultiMAEModel.forward`; all `head_modalities` are needed,
                more may be given. Where a sample lacks one of them, or a patch of it, the head reads zeros.
            labels: (B, num_labels, H, W) float at the image's size, or (B, H, W) of one value; NaN where it is not known.

        Returns:
            `reconstruction` (B, num_labels, H, W), `loss` (`dense_regression_loss`).

        Raises:
            ValueError: One of the `head_modalities` is missing, or labels have another shape or type.
        """
        images = self._cut(inputs, pixel_values, presence, observed_mask)
        outputs, layers = self._encode_layers(images, **kwargs)
        values = self.regression_head(layers, self._grid_shape(images), images.image_size)
        loss = None
        if labels is not None:
            loss = self._reach_all(self._loss(values, labels, kwargs.get("num_items_in_batch")), images)
        return ImageSuperResolutionOutput(
            loss=loss, reconstruction=values, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def scored_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Bool, of the shape of `labels`, True = what the loss is a mean of: known values."""
        return known_values(labels)

    def _loss(self, values: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
        if labels.dim() == 3:
            labels = labels.unsqueeze(1)
        if labels.shape != values.shape or not labels.is_floating_point():
            raise ValueError(
                f"`labels` must be floating point of the shape {tuple(values.shape)}: num_labels={values.shape[1]} values for "
                f"every pixel of the image; got {labels.dtype} of {tuple(labels.shape)}: resize or convert them."
            )
        squared = self.config.dense_regression_loss == "mse"
        values, labels = at_least_float32(values, labels)
        return dense_regression_loss(values, labels, squared, num_items)


def selected_states(states: tuple[torch.Tensor, ...], wanted: bool | int | list[int] | None) -> tuple[Any, ...] | None:
    """What `output_hidden_states` asks for of all hidden states: all, none, or those of some numbers, and None for the rest."""
    if not wanted:
        return None
    if wanted is True:
        return states
    numbers = [wanted] if isinstance(wanted, int) else wanted
    kept = {number % len(states) for number in numbers if -len(states) <= number < len(states)}
    return tuple(state if number in kept else None for number, state in enumerate(states))
