"""A MultiMAE's path of one modality as a plain ViT of transformers, and a ViT, DeiT or ViT-MAE as that path.

All are the same function: `to_vit` gives a model with the same hidden states, `load_vit` takes one over, `from_vit` makes
the MultiMAE as well.
"""

from typing import Any, Literal, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel, ViTConfig, ViTModel

from .configuration_multimae import Modality, MultiMAEConfig
from .field_checks import pair
from .layers import sincos_positions
from .modeling_multimae import MultiMAEModel

VIT_TYPES = (
    "vit",
    "deit",
    "vit_mae",
)  # model types of transformers that are a ViT, with a distillation token or without
TOLERANCE = 1e-4  # largest difference of position tables in float32
# Configuration fields with the same meaning; weights can only be taken over where those of the first are equal.
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "qkv_bias")
SHARED_FIELDS = (
    *SIZES,
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
)
# Our names -> transformers'; a layer's fused projection of queries, keys and values is treated separately.
LAYER_NAMES = {
    "attention_norm": "layernorm_before",
    "attention.output": "attention.o_proj",
    "mlp_norm": "layernorm_after",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def to_vit(model: PreTrainedModel, modality: str = "rgb") -> ViTModel:
    """The encoder, as it reads one modality alone, as a `ViTModel` without pooling layer.

    Its `hidden_states` are those of the MultiMAE: the global token is the class token, the positions are its position
    embeddings (interpolated to other image sizes by `interpolate_pos_encoding=True`, from a square grid). Where the
    configuration has no `final_norm`, `hidden_states[-1]` is the MultiMAE's output, and `last_hidden_state` that with a
    norm of weight 1 and bias 0 behind it. Open a saved one with `ViTModel.from_pretrained(folder, add_pooling_layer=False)`.
    Dropout inside the MLPs and stochastic depth, which act in training alone, are left behind: ViT has none.

    Args:
        model: A `MultiMAEModel`, or a model that has one as its `base_model`.
        modality: A continuous input modality.

    Raises:
        ValueError: There is no such input, it is categorical, or the encoder has other than one global token.
    """
    encoder = cast(MultiMAEModel, model.base_model)
    source = _checked(encoder, modality)
    return build_vit(
        encoder,
        size=source.size(encoder.config.native_size),
        patch=source.patch_shape,
        num_channels=source.num_channels,
        cls_token=encoder.embeddings.global_tokens,
        positions=encoder.embeddings.positions(modality).detach(),
        projection=cast(torch.nn.Linear, encoder.embeddings.projections[modality]),
    )


def build_vit(
    encoder: PreTrainedModel,
    size: tuple[int, int],
    patch: tuple[int, int],
    num_channels: int,
    cls_token: torch.Tensor,
    positions: torch.Tensor,
    projection: torch.nn.Linear,
) -> ViTModel:
    """A `ViTModel` without pooling layer with the layers of an encoder and these embeddings.

    Args:
        encoder: Encoder whose layers are `TransformerLayer`, in `layers`, with a `norm` behind them or none.
        size: Height and width of its pictures.
        patch: Height and width of a patch.
        num_channels: Number of channels C of its pictures.
        cls_token: (1, 1, D), its one global token.
        positions: (N, D), its position table.
        projection: Projection of a patch, whose values have the channel fastest.
    """
    fields = encoder.config.to_dict()
    vit_config = ViTConfig(
        image_size=_one_if_square(size),
        patch_size=_one_if_square(patch),
        num_channels=num_channels,
        encoder_stride=patch[0],
        **{name: fields[name] for name in SHARED_FIELDS},
    )
    own = {name: value for name, value in encoder.state_dict().items() if name.startswith(("layers.", "norm."))}
    weight = projection.weight.detach()
    state = {
        "embeddings.cls_token": cls_token.detach(),
        "embeddings.position_embeddings": torch.nn.functional.pad(positions.to(weight.dtype), (0, 0, 1, 0))[None],
        "embeddings.patch_embeddings.projection.weight": weight.unflatten(1, (*patch, -1)).movedim(-1, 1),
        "embeddings.patch_embeddings.projection.bias": projection.bias.detach(),
        "layernorm.weight": own.pop("norm.weight", weight.new_ones(vit_config.hidden_size)),
        "layernorm.bias": own.pop("norm.bias", weight.new_zeros(vit_config.hidden_size)),
    }
    for name, value in own.items():
        _, layer, rest = name.split(".", 2)
        module, _, kind = rest.rpartition(".")
        if module == "attention.qkv":
            for part, rows in zip(PROJECTIONS, value.chunk(3), strict=True):
                state[f"layers.{layer}.attention.{part}.{kind}"] = rows
        else:
            state[f"layers.{layer}.{LAYER_NAMES[module]}.{kind}"] = value
    vit = ViTModel(vit_config, add_pooling_layer=False)
    torch.nn.Module.to(vit, weight.device, weight.dtype)
    vit.load_state_dict(state)
    return vit.train(encoder.training)


def from_vit(vit: PreTrainedModel, **fields: Any) -> MultiMAEModel:
    """A MultiMAE of colours alone that computes what a ViT does, by which the ViT is fine-tuned like one (section 4.2).

    `last_hidden_state` is the same, the global tokens being the class token and, of a DeiT, the distillation token. Positions
    are sine-cosine where the ViT's are (ViT-MAE, MoCo-v3), otherwise learned. Pooler and mask token are left behind.

    Args:
        vit: A `ViTModel`, `DeiTModel` or `ViTMAEModel`, or a model that has one as its `base_model`.
        fields: Fields of `MultiMAEConfig` that replace the ViT's, such as `drop_path_rate`.

    Raises:
        ValueError: `load_vit` refuses the ViT, or there is no configuration of these fields.
    """
    tokens, table = _tokens_and_positions(vit)
    theirs = cast(PreTrainedModel, vit.base_model).config.to_dict()
    patch, size = pair(theirs["patch_size"]), pair(theirs["image_size"])
    grid = (size[0] // patch[0], size[1] // patch[1])
    own = {
        "modalities": {"rgb": {"kind": "continuous", "num_channels": theirs["num_channels"]}},
        "image_size": size,
        "patch_size": patch,
        "num_global_tokens": tokens.shape[1],
        "final_norm": True,
        "num_visible_tokens": max(1, len(table) // 4),  # a quarter, as in MAE
        **position_fields(table, grid),
        **{name: theirs[name] for name in SHARED_FIELDS},
    }
    model = MultiMAEModel(MultiMAEConfig(**own | fields))
    load_vit(model, vit)
    return model.train(vit.training)


def position_fields(table: torch.Tensor, grid: tuple[int, int]) -> dict[str, str]:
    """The configuration fields of an encoder whose positions are a table (N, D) of a grid: sine-cosine, or learned."""
    for order in ("row_first", "column_first"):
        fixed = sincos_positions(grid, table.shape[1], row_first=order == "row_first")
        if fixed.shape == table.shape and (fixed - table.float()).abs().max() <= TOLERANCE:
            return {"position_order": order}
    return {"position_embeddings": "learned"}


def load_vit(
    model: PreTrainedModel,
    vit: PreTrainedModel,
    modality: str = "rgb",
    positions: Literal["same", "drop"] = "same",
) -> None:
    """Start an encoder from a ViT: projection of one modality, global tokens, all layers, and the final norm if it has one.

    Everything else (other modalities, decoders, heads) is left as it is. The class token, and a DeiT's distillation token,
    become global tokens, each with its row of the position embeddings added. Where a MultiMAE's positions are learned, it takes
    the ViT's; where they are a fixed table, the ViT's must be that table: then both compute the same. ViT-MAE's have the
    column in their first half of channels: build the MultiMAE with `position_order="column_first"`. `positions="drop"` starts
    without the ViT's, as an initialisation that has to be trained on. The epsilon of the layer norms stays the MultiMAE's.

    Args:
        model: A `MultiMAEModel`, or a model that has one as its `base_model`. Changed in place.
        vit: A `ViTModel`, a `DeiTModel`, a `ViTMAEModel`, or a model that has one as its `base_model`, such as
            `ViTMAEForPreTraining`.
        modality: A continuous input modality.
        positions: "same", where the MultiMAE has the ViT's positions, or "drop", which ignores them.

    Raises:
        ValueError: It is another model than these, or the two differ in their sizes or positions.
    """
    tokens, table = _tokens_and_positions(vit)
    encoder, vit = cast(MultiMAEModel, model.base_model), cast(PreTrainedModel, vit.base_model)
    source = _checked(encoder, modality, tokens.shape[1])
    if positions not in ("same", "drop"):
        raise ValueError(f"`positions` must be 'same' or 'drop', got {positions!r}.")
    _check_sizes(encoder.config, vit.config, source)
    theirs = vit.state_dict()
    projection = "embeddings.patch_embeddings.projection"
    state = {
        "embeddings.global_tokens": tokens,
        f"embeddings.projections.{modality}.weight": theirs[f"{projection}.weight"].movedim(1, -1).flatten(1),
        f"embeddings.projections.{modality}.bias": theirs[f"{projection}.bias"],
    }
    if positions == "same":
        _check_positions(encoder, table, modality)
        if encoder.config.position_embeddings == "learned":
            state[f"embeddings.positions_{modality}"] = table
    if encoder.config.final_norm:
        state |= {f"norm.{kind}": theirs[f"layernorm.{kind}"] for kind in ("weight", "bias")}
    for name in encoder.layers.state_dict():
        layer, _, rest = name.partition(".")
        module, _, kind = rest.rpartition(".")
        if module == "attention.qkv":
            parts = [theirs[f"layers.{layer}.attention.{part}.{kind}"] for part in PROJECTIONS]
            state[f"layers.{name}"] = torch.cat(parts)
        else:
            state[f"layers.{name}"] = theirs[f"layers.{layer}.{LAYER_NAMES[module]}.{kind}"]
    encoder.load_state_dict(encoder.state_dict() | state)


def _tokens_and_positions(vit: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """A ViT's tokens without a place, (1, G, D), each with its position, and the positions of its patches, (N, D).

    Raises:
        ValueError: It is another model.
    """
    config = cast(PreTrainedModel, vit.base_model).config
    if config.model_type not in VIT_TYPES:
        raise ValueError(
            f"a MultiMAE takes the weights of a ViT of transformers, whose `model_type` is one of {list(VIT_TYPES)}; this model "
            f"is of {config.model_type!r}, another architecture."
        )
    theirs = cast(PreTrainedModel, vit.base_model).state_dict()
    names = [name for name in ("embeddings.cls_token", "embeddings.distillation_token") if name in theirs]
    table = theirs["embeddings.position_embeddings"]
    tokens = torch.cat([theirs[name] for name in names], dim=1)
    return tokens + table[:, : len(names)], table[0, len(names) :]


def _checked(encoder: MultiMAEModel, modality: str, num_tokens: int = 1) -> Modality:
    """The modality's entry in the configuration, checked, as are the encoder's tokens beside those of the ViT."""
    inputs = {entry.name: entry for entry in encoder.config.inputs()}
    if modality not in inputs or inputs[modality].is_categorical:
        continuous = [entry.name for entry in inputs.values() if not entry.is_categorical]
        raise ValueError(f"`modality` must be a continuous input of the MultiMAE, {continuous}, got {modality!r}.")
    if encoder.config.num_global_tokens != num_tokens:
        has = "ViT has one class token" if num_tokens == 1 else "DeiT has a class token and a distillation token"
        raise ValueError(
            f"a {has}, so the MultiMAE must have `num_global_tokens` {num_tokens}, got {encoder.config.num_global_tokens}."
        )
    return inputs[modality]


def _check_sizes(config: PreTrainedConfig, vit_config: PreTrainedConfig, source: Modality) -> None:
    fields, vit_fields = config.to_dict(), vit_config.to_dict()
    ours = {name: fields[name] for name in SIZES}
    ours |= {"num_channels": source.num_channels, "patch_size": list(source.patch_shape)}
    theirs = {name: vit_fields[name] for name in (*SIZES, "num_channels")}
    theirs["patch_size"] = pair(vit_fields["patch_size"])
    wrong = [f"`{name}` {theirs[name]} of the ViT, {ours[name]} here" for name in ours if ours[name] != theirs[name]]
    if wrong:
        raise ValueError(f"the ViT's weights do not fit the MultiMAE: {'; '.join(wrong)}.")


def _check_positions(encoder: MultiMAEModel, theirs: torch.Tensor, modality: str) -> None:
    """Refuse positions `theirs` (N, D) of another grid, or that are not our table where it is fixed; the error says why."""
    ours = encoder.embeddings.positions(modality).to(theirs)
    drop = 'positions="drop" starts without them'
    if ours.shape != theirs.shape:
        raise ValueError(
            f"the ViT has positions of {len(theirs)} patches, the MultiMAE {len(ours)} of '{modality}': set its "
            f"`image_size` to the ViT's; {drop}."
        )
    difference = (ours - theirs).abs().max().item()
    if encoder.config.position_embeddings == "learned" or difference <= TOLERANCE:
        return
    swapped = (ours.roll(ours.shape[1] // 2, dims=1) - theirs).abs().max().item()
    if swapped <= TOLERANCE:
        other = {"row_first": "column_first", "column_first": "row_first"}[encoder.config.position_order]
        raise ValueError(
            f"the ViT's positions differ by up to {difference:.3g}, because the halves of their channels are swapped: set "
            f'`position_order` of the MultiMAE to "{other}"; {drop}.'
        )
    raise ValueError(
        f"the ViT's positions differ by up to {difference:.3g} from the MultiMAE's fixed table (they were learned, perhaps), "
        f'so it would be another model: set `position_embeddings` of the MultiMAE to "learned"; {drop}.'
    )


def _one_if_square(size: tuple[int, int]) -> int | list[int]:
    """A size in ViT's form: only a square's one number lets it interpolate positions."""
    return size[0] if size[0] == size[1] else list(size)
