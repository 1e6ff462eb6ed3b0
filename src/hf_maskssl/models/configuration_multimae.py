"""Configuration of MultiMAE (Bachmann et al. 2022, https://arxiv.org/abs/2204.01678) and of MM-MAE, its minimax variant."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig

from .field_checks import (
    SizesAsPairs,
    check_at_least,
    check_heads,
    check_positive,
    check_probabilities,
    pair,
)
from .task_balancing import check_task_balancing

AUTO_MAP = {
    "AutoConfig": "configuration_multimae.MultiMAEConfig",
    "AutoModel": "modeling_multimae.MultiMAEModel",
    "AutoModelForPreTraining": "modeling_multimae.MultiMAEForPretraining",
    "AutoModelForImageClassification": "modeling_multimae_heads.MultiMAEForImageClassification",
    "AutoModelForSemanticSegmentation": "modeling_multimae_heads.MultiMAEForSemanticSegmentation",
    "AutoModelForDepthEstimation": "modeling_multimae_heads.MultiMAEForDepthEstimation",
    "AutoModelForImageToImage": "modeling_multimae_heads.MultiMAEForDenseRegression",
}

# The paper's: rgb, depth, COCO's 133 panoptic classes at a quarter of the resolution, and per-patch standardised rgb as a
# further output (section 3.4).
DEFAULT_MODALITIES: dict[str, dict[str, Any]] = {
    "rgb": {"kind": "continuous", "num_channels": 3, "loss": "mse"},
    "depth": {"kind": "continuous", "num_channels": 1, "loss": "l1"},
    "semseg": {"kind": "categorical", "num_classes": 133, "stride": 4, "loss": "cross_entropy"},
    "norm_rgb": {"target_of": "rgb", "loss": "standardized_mse"},
}
CONTINUOUS_LOSSES = ("mse", "l1", "standardized_mse")


@dataclass(frozen=True)
class Modality:
    """One entry of `MultiMAEConfig.modalities`, complete and checked.

    Attributes:
        name: Key of the entry.
        kind: "continuous": (B, C, H / stride, W / stride) float; "categorical": (B, H / stride, W / stride) class ids.
        num_channels: Number of channels of a continuous modality (13 for a 13-band satellite image).
        num_classes: Number of classes of a categorical one.
        embedding_size: Width of a categorical one's class embeddings.
        stride: Factor by which it is coarser than the image (the paper keeps class maps at a quarter of the resolution).
        patch_size: Height and width of a patch, in pixels of the image.
        loss: "mse", "l1", "standardized_mse" (mse to each patch's pixels, standardised by their own mean and variance),
            or "cross_entropy".
        is_input: Whether its patches are encoded.
        is_output: Whether a decoder predicts it.
        source: The modality whose pixels are predicted: its own name, or another's (`target_of`).
    """

    name: str
    kind: str
    num_channels: int
    num_classes: int
    embedding_size: int
    stride: int
    patch_size: tuple[int, int]
    loss: str
    is_input: bool
    is_output: bool
    source: str

    @property
    def is_categorical(self) -> bool:
        return self.kind == "categorical"

    @property
    def patch_shape(self) -> tuple[int, int]:
        """A patch's height and width in the modality's own pixels."""
        return (self.patch_size[0] // self.stride, self.patch_size[1] // self.stride)

    @property
    def output_channels(self) -> int:
        """Values predicted for each of its pixels: channels, or a logit per class."""
        return self.num_classes if self.is_categorical else self.num_channels

    def size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Its height and width beside an image of `image_size`."""
        return (image_size[0] // self.stride, image_size[1] // self.stride)

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of its patches beside an image of `image_size`."""
        return (image_size[0] // self.patch_size[0], image_size[1] // self.patch_size[1])


@strict
class MultiMAEConfig(SizesAsPairs, PreTrainedConfig):
    """The modalities of a model, its size, its masking and the balancing of its tasks.

    Defaults are the paper's ViT-B with three modalities (sections 3.1 to 3.5).

    Args:
        modalities: Name -> fields of `Modality`. `kind` is needed, `num_channels` (continuous) or `num_classes`
            (categorical) too; the rest has defaults: `stride` 1, `patch_size` the configuration's, `loss` "mse" or
            "cross_entropy", `embedding_size` 64, `is_input` and `is_output` true. `target_of: rgb` makes a further
            output that predicts the pixels of rgb, in another loss: it takes all but `loss` from there and is no input.
        modality_order: Names in the order of their tokens and losses, by default that of `modalities`; kept because a saved
            configuration's keys are sorted.
        image_size: Height and width of the images in pixels; one number for a square.
        position_image_size: Height and width of the images that the positions are made for; None is `image_size`. A
            checkpoint keeps it when its `image_size` is changed, and images of another size get interpolated positions.
        patch_size: Height and width of a patch, unless a modality says otherwise.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: Sizes of the encoder, as in ViT.
        qkv_bias, hidden_act, layer_norm_eps, initializer_range: Settings of the encoder, as in ViT.
        hidden_dropout_prob, attention_probs_dropout_prob: Probabilities of the encoder's dropout, as in ViT.
        drop_path_rate: Stochastic depth of the encoder's last layer, rising linearly from 0 over the layers.
        num_global_tokens: Learned tokens without a place, in front of all others.
        final_norm: A layer norm behind the encoder, as ViT and ViT-MAE have; MultiMAE has none.
        position_order: Whether the first half of a position's channels encodes its row, as in MultiMAE, or its column,
            as in MAE, whose weights want it so.
        position_embeddings: Fixed, "sincos", as in MultiMAE and MAE; or "learned", as in DeiT and DINO: beginning as these.
        decoder_hidden_size, decoder_num_hidden_layers, decoder_num_attention_heads, decoder_intermediate_size: Sizes of
            every output's decoder; the layers are those after the cross-attention and its MLP.
        num_visible_tokens: Tokens that the encoder sees of a sample in pre-training, of all modalities together; all of them only
            where no output is an input (Table 4b's RGB to D).
        dirichlet_alpha: Concentration of the Dirichlet distribution that deals them out over the input modalities: one
            number (symmetric), or one per input modality by name.
        sample_modalities_uniformly: Whether to draw first, uniformly, which modalities are visible at all.
        semantic_loss_ignore_index: Class id of pixels without a class: embedded as zeros, left out of losses.
        task_balancing: Rule by which the outputs' losses become one: "none" (their sum), "minimax" (MM-MAE), "uncertainty",
            "gradnorm" or "dwa".
        task_balancing_options: Settings of that rule, see `models/task_balancing.py`.
        head_modalities: Input modalities that a segmentation or depth head reads the encoded tokens of; None is every
            one. A classifier reads all tokens that are there.
        classifier_pooling: "mean" of all encoded tokens, or the first "global" token.
        segmentation_head: Head of a segmentation: "convnext" (MultiMAE's), "segmenter" (Segmenter's mask transformer),
            "linear" (a linear layer on each token) or "dpt" (DPT's for classes, with the `depth_*` sizes).
        segmentation_dropout: Probability of dropout before the classifier of the head "dpt".
        segmenter_hidden_size, segmenter_num_layers, segmenter_num_attention_heads: Sizes of the Segmenter head.
        segmenter_intermediate_size, segmenter_drop_path_rate: Width of its feed-forward layers, and stochastic depth of the last.
        segmentation_hidden_size, segmentation_cells_per_token, segmentation_num_layers: Sizes of the ConvNeXt head: the
            width that each token is projected to, into how many cells it is then cut (a square number: 16 makes 4 x 4 cells of
            6144 / 16 = 384 channels), and the blocks.
        dense_regression_loss: Loss of a dense regression, whose channels are `num_labels`: "l1", as on Taskonomy, or "mse".
        depth_layers: Layers (counted from 0) whose outputs the DPT heads read, four; None is the paper's 2, 5, 8, 11
            or, for another depth, evenly spaced ones.
        depth_hidden_size: Number of channels of the DPT head's fusion.
        depth_reassemble_sizes: Numbers of channels of its four resolutions, finest first.

    Raises:
        ValueError: A modality lacks a field, has an unknown one or one that does not fit its kind; sizes do not divide;
            the visible tokens are none or all there are; or the balancing does not exist.
    """

    model_type = "multimae"

    modalities: dict[str, dict[str, Any]] | None = None
    modality_order: list[str] | None = None
    image_size: int | list[int] | tuple[int, ...] = 224
    position_image_size: int | list[int] | tuple[int, ...] | None = None
    patch_size: int | list[int] | tuple[int, ...] = 16

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02
    num_global_tokens: int = 1
    final_norm: bool = False
    position_order: Literal["row_first", "column_first"] = "row_first"
    position_embeddings: Literal["sincos", "learned"] = "sincos"

    decoder_hidden_size: int = 256
    decoder_num_hidden_layers: int = 2
    decoder_num_attention_heads: int = 8
    decoder_intermediate_size: int = 1024

    num_visible_tokens: int = 98
    dirichlet_alpha: float | int | dict[str, float | int] = 1.0
    sample_modalities_uniformly: bool = False
    semantic_loss_ignore_index: int = 255
    task_balancing: Literal["none", "minimax", "uncertainty", "gradnorm", "dwa"] = "none"
    task_balancing_options: dict[str, Any] | None = None

    head_modalities: list[str] | tuple[str, ...] | None = None
    classifier_pooling: Literal["mean", "global"] = "mean"
    classifier_dropout: float | int = 0.0
    segmentation_head: Literal["convnext", "segmenter", "linear", "dpt"] = "convnext"
    segmentation_hidden_size: int = 6144
    segmentation_cells_per_token: int = 16
    segmentation_num_layers: int = 4
    segmentation_dropout: float | int = 0.1
    segmenter_hidden_size: int = 768
    segmenter_num_layers: int = 2
    segmenter_num_attention_heads: int = 12
    segmenter_intermediate_size: int = 3072
    segmenter_drop_path_rate: float | int = 0.1
    dense_regression_loss: Literal["l1", "mse"] = "l1"
    depth_layers: list[int] | tuple[int, ...] | None = None
    depth_hidden_size: int = 256
    depth_reassemble_sizes: list[int] | tuple[int, ...] = (96, 192, 384, 768)

    def __post_init__(self, **kwargs: Any) -> None:
        if self.modalities is None:
            self.modalities = {name: dict(fields) for name, fields in DEFAULT_MODALITIES.items()}
        order = [name for name in self.modality_order or [] if name in self.modalities]
        self.modality_order = list(dict.fromkeys([*order, *self.modalities]))
        self.modalities = {name: dict(self.modalities[name]) for name in self.modality_order}
        self.position_image_size = self.position_image_size or self.image_size
        self.depth_reassemble_sizes = list(self.depth_reassemble_sizes)
        self.head_modalities = None if self.head_modalities is None else list(self.head_modalities)
        self.depth_layers = None if self.depth_layers is None else list(self.depth_layers)
        # Every class of a checkpoint's code can be reached from it, not only the one that was saved.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    def is_pair(self, name: str) -> bool:
        return name in ("image_size", "position_image_size", "patch_size")

    @property
    def native_size(self) -> tuple[int, int]:
        """`image_size` as (height, width)."""
        height, width = pair(self.image_size)
        return (height, width)

    @property
    def position_size(self) -> tuple[int, int]:
        """`position_image_size` as (height, width)."""
        height, width = pair(self.position_image_size or self.image_size)
        return (height, width)

    @property
    def modality(self) -> str:
        """The kind of a sample: several aligned images."""
        return "multimodal"

    def modality_table(self) -> dict[str, Modality]:
        """Every modality, complete, in the configuration's order.

        Raises:
            ValueError: A modality's fields are refused, see the class.
        """
        entries = self.modalities or {}
        table = {}
        for name, fields in entries.items():
            source = fields.get("target_of")
            if source is not None and (source not in entries or "target_of" in entries[source]):
                raise ValueError(
                    f"`modalities`: '{name}' has target_of '{source}', which is not one of {list(entries)}."
                )
            table[name] = _complete(name, fields, entries[source] if source else fields, pair(self.patch_size))
        return table

    def inputs(self) -> list[Modality]:
        """Modalities that the encoder reads, in the order of their tokens."""
        return [modality for modality in self.modality_table().values() if modality.is_input]

    def outputs(self) -> list[Modality]:
        """Modalities that a decoder predicts, which are the tasks, in the order of their losses."""
        return [modality for modality in self.modality_table().values() if modality.is_output]

    def head_inputs(self) -> list[str]:
        """Names of the modalities that a dense head reads."""
        return (
            [modality.name for modality in self.inputs()]
            if self.head_modalities is None
            else list(self.head_modalities)
        )

    def num_tokens_of(self, modality: Modality) -> int:
        """Patches of a modality at `image_size`."""
        rows, columns = modality.grid(self.native_size)
        return rows * columns

    @property
    def num_tokens(self) -> int:
        """Patches of all input modalities at `image_size`."""
        return sum(self.num_tokens_of(modality) for modality in self.inputs())

    @property
    def predicts_inputs(self) -> bool:
        """Whether an output's pixels are an input's: then some tokens must stay hidden, so that there is something to predict."""
        inputs = {modality.name for modality in self.inputs()}
        return any(output.source in inputs for output in self.outputs())

    def alphas(self) -> list[float]:
        """The Dirichlet concentration of every input modality."""
        if isinstance(self.dirichlet_alpha, dict):
            return [float(self.dirichlet_alpha[modality.name]) for modality in self.inputs()]
        return [float(self.dirichlet_alpha)] * len(self.inputs())

    def depth_layer_ids(self) -> list[int]:
        """Layers that the DPT head reads: 2, 5, 8, 11 of twelve."""
        if self.depth_layers is not None:
            return list(self.depth_layers)
        return [max(0, round((quarter + 1) * self.num_hidden_layers / 4) - 1) for quarter in range(4)]

    def validate_architecture(self) -> None:
        # Validators run in the order of the alphabet, and the others rely on these.
        self._check_sizes()
        self._check_modalities()
        self._check_widths()

    def _check_sizes(self) -> None:
        sizes = {
            "image_size": self.image_size,
            "position_image_size": self.position_image_size or self.image_size,
            "patch_size": self.patch_size,
        }
        for name, field in sizes.items():
            size = pair(field)
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"`{name}` must be a height and a width, or one number for both, got {size}.")

    def _check_modalities(self) -> None:
        table = self.modality_table()
        if not any(modality.is_input for modality in table.values()):
            raise ValueError(f"`modalities` must hold at least one input, got {list(table)} and none with `is_input`.")
        for modality in table.values():
            for field, sizes in (("image_size", self.native_size), ("position_image_size", self.position_size)):
                for size, patch, unit in zip(sizes, modality.patch_size, ("height", "width"), strict=True):
                    if size < patch or size % patch:
                        raise ValueError(
                            f"`{field}` {list(sizes)} must be a multiple of the patch size of '{modality.name}', "
                            f"{list(modality.patch_size)}, in {unit}."
                        )
            limit = self.semantic_loss_ignore_index
            if modality.is_categorical and 0 <= limit < modality.num_classes:
                raise ValueError(
                    f"`semantic_loss_ignore_index` {limit} is also a class of '{modality.name}', which has "
                    f"{modality.num_classes}: take a negative number, or one that is no class."
                )

    def _check_widths(self) -> None:
        for part in ("", "decoder_"):
            width = check_heads(self, f"{part}hidden_size", f"{part}num_attention_heads")
            if width % 4:
                raise ValueError(
                    f"`{part}hidden_size` must be a multiple of 4 for two-dimensional sine-cosine positions, got {width}."
                )
        check_at_least(self, 1, "num_hidden_layers", "intermediate_size", "decoder_intermediate_size")
        check_heads(self, "segmenter_hidden_size", "segmenter_num_attention_heads")
        check_at_least(self, 1, "segmentation_hidden_size", "depth_hidden_size", "depth_reassemble_sizes")
        check_at_least(self, 1, "segmenter_intermediate_size", "segmenter_num_layers")
        check_at_least(self, 0, "decoder_num_hidden_layers", "num_global_tokens", "segmentation_num_layers")
        check_at_least(self, 0, "initializer_range")
        check_positive(self, "layer_norm_eps")

    def validate_probabilities(self) -> None:
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "classifier_dropout")
        check_probabilities(self, *names, "segmentation_dropout", "segmenter_drop_path_rate")

    def validate_masking(self) -> None:
        if not 0 < self.num_visible_tokens <= self.num_tokens - self.predicts_inputs:
            bound = "below" if self.predicts_inputs else "at most"
            raise ValueError(
                f"`num_visible_tokens` must be at least 1 and {bound} the {self.num_tokens} tokens of all input modalities, "
                f"got {self.num_visible_tokens}."
            )
        names = [modality.name for modality in self.inputs()]
        if isinstance(self.dirichlet_alpha, dict) and set(self.dirichlet_alpha) != set(names):
            raise ValueError(
                f"`dirichlet_alpha` must have one number per input modality, {names}, got {self.dirichlet_alpha}."
            )
        if not all(alpha > 0 and math.isfinite(alpha) for alpha in self.alphas()):
            raise ValueError(f"`dirichlet_alpha` must be positive and finite, got {self.dirichlet_alpha}.")

    def validate_balancing(self) -> None:
        check_task_balancing(self.task_balancing, self.task_balancing_options or {})

    def validate_heads(self) -> None:
        names = [modality.name for modality in self.inputs()]
        unknown = [name for name in self.head_inputs() if name not in names]
        if unknown or not self.head_inputs():
            raise ValueError(f"`head_modalities` must name some of the inputs {names}, got {self.head_modalities}.")
        cells = self.segmentation_cells_per_token
        if cells < 1 or math.isqrt(cells) ** 2 != cells or self.segmentation_hidden_size % cells:
            raise ValueError(
                f"`segmentation_cells_per_token` must be a square number that divides `segmentation_hidden_size` "
                f"{self.segmentation_hidden_size}, got {cells}."
            )
        if self.classifier_pooling == "global" and self.num_global_tokens < 1:
            raise ValueError("`classifier_pooling` 'global' needs `num_global_tokens` of at least 1, got 0.")
        layers = self.depth_layer_ids()
        if len(layers) != 4 or any(not 0 <= layer < self.num_hidden_layers for layer in layers):
            raise ValueError(
                f"`depth_layers` must be four layers of 0 to {self.num_hidden_layers - 1}, got {self.depth_layers}."
            )
        if len(self.depth_reassemble_sizes) != 4:
            raise ValueError(f"`depth_reassemble_sizes` must be four widths, got {self.depth_reassemble_sizes}.")


# Fields that an entry of `modalities` may have.
_FIELDS = {
    "kind",
    "num_channels",
    "num_classes",
    "embedding_size",
    "stride",
    "patch_size",
    "loss",
    "is_input",
    "is_output",
    "target_of",
}

# Names become keys of these containers, beside their attributes, and of the log.
_TAKEN = frozenset(["loss", *dir(nn.ModuleDict()), *dir(nn.ParameterDict())])


def _positive(where: str, field: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{where} needs a positive integer `{field}`, got {value!r}.")
    return value


def _complete(name: str, fields: dict[str, Any], pixels: dict[str, Any], patch_size: list[int]) -> Modality:
    """An entry with its defaults; `pixels` is the entry that describes its pixels."""
    where = f"`modalities`: '{name}'"
    if not name.isidentifier():  # it becomes part of the weights' names
        raise ValueError(f"{where}: a name may hold letters, digits and underscores, and not start with a digit.")
    if name in _TAKEN:
        raise ValueError(f"{where}: this name is taken, by the log or by torch's modules: choose another.")
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise ValueError(f"{where} has the unknown fields {unknown}; known are {sorted(_FIELDS)}.")
    is_copy = "target_of" in fields
    if is_copy and (set(fields) - {"target_of", "loss"}):
        raise ValueError(f"{where} has target_of, so beside it only `loss`; got {sorted(fields)}.")
    kind = pixels.get("kind")
    if kind not in ("continuous", "categorical"):
        raise ValueError(f"{where} needs `kind` 'continuous' or 'categorical', got {kind!r}.")
    count_name = "num_channels" if kind == "continuous" else "num_classes"
    count, stride, embedding_size = [
        _positive(f"{where} is {kind} and", field, pixels.get(field, default))
        for field, default in ((count_name, None), ("stride", 1), ("embedding_size", 64))
    ]
    foreign = {"num_classes", "embedding_size"} if kind == "continuous" else {"num_channels"}
    if foreign & set(pixels):
        raise ValueError(f"{where} is {kind}: {sorted(foreign & set(pixels))} would have no effect; remove it.")
    losses = CONTINUOUS_LOSSES if kind == "continuous" else ("cross_entropy",)
    loss = fields.get("loss", losses[0])
    if loss not in losses:
        raise ValueError(f"{where} is {kind}: `loss` must be one of {list(losses)}, got {loss!r}.")
    patch = pair(pixels.get("patch_size", patch_size))
    if len(patch) != 2 or any(type(size) is not int or size < 1 or size % stride for size in patch):
        raise ValueError(f"{where}: `patch_size` {patch} must be two positive multiples of its stride {stride}.")
    if loss == "standardized_mse" and count * (patch[0] // stride) * (patch[1] // stride) < 2:
        raise ValueError(f"{where}: a patch of one value cannot be standardised: take another `loss` or `patch_size`.")
    is_input, is_output = fields.get("is_input", not is_copy), fields.get("is_output", True)
    for field, value in (("is_input", is_input), ("is_output", is_output)):
        if type(value) is not bool:
            raise ValueError(f"{where}: `{field}` must be true or false, got {value!r}.")
    if not is_input and not is_output:
        raise ValueError(f"{where} is neither an input nor an output: set one, or remove it.")
    return Modality(
        name=name,
        kind=kind,
        num_channels=count if kind == "continuous" else 1,
        num_classes=count if kind == "categorical" else 0,
        embedding_size=embedding_size,
        stride=stride,
        patch_size=(patch[0], patch[1]),
        loss=loss,
        is_input=is_input,
        is_output=is_output,
        source=fields.get("target_of", name),
    )
