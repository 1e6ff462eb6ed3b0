"""Checkpoints of alextamkin/dabs, whose objectives are MetaMAE's baselines, into models of this package."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

import hf_maskssl

from .official_files import Converted, State, load_completely, rename_weight

# Settings that no file of DABS stores, beside what `convert_metamae` asks for: name -> type and meaning.
DABS_FIELDS: dict[str, tuple[type, str]] = {
    "objective": (str, "of a DABS file of ids without `predictor`: emix or mae (default: emix)"),
    "modality": (str, "of a DABS file of patches: image or series (default: image)"),
    "num_channels": (int, "channels of a DABS file's patches (default: 3 or 1, whichever makes patches square)"),
    "patch_size": (int, "side of a DABS file's patches, or time steps of one"),
    "corruption_rate": (float, "share of tokens that pre-training corrupted (default: 0.15)"),
}


def is_dabs(state: State) -> bool:
    """Whether the weights' names are those of DABS."""
    return "model.pos_embedding" in state


def convert_dabs(
    state: State,
    *,
    objective: Literal["emix", "mae"] | None = None,
    modality: Literal["image", "series"] | None = None,
    image_size: Sequence[int] | None = None,
    num_channels: int | None = None,
    patch_size: int | None = None,
    num_attention_heads: int = 8,
    corruption_rate: float = 0.15,
    **config_fields: Any,
) -> Converted:
    """A checkpoint of DABS as `MetaMAEForPretraining`, which then computes what the released code computes.

    Widths, depth and vocabulary are read off the tensors, and the objective as far as it shows. DABS embeds patches by a linear
    layer and learns positions, so the file does not tell how patches lie on a signal: those are arguments.

    Args:
        state: State dict of a Lightning file, or of model.ckpt.
        objective: Objective of a file of ids that has no `predictor`; None is "emix".
        modality: Modality of a file of patches; None is "image". Tables and ids show by themselves.
        image_size: Height and width of the images; None takes a square. A file of images and words needs it.
        num_channels: Channels of a patch; None takes 3, or 1, whichever makes image patches square.
        patch_size: Side of a square patch, or time steps of one.
        num_attention_heads: Number of heads (8 in all published runs).
        corruption_rate: Share of corrupted tokens.
        config_fields: Further `MetaMAEConfig` fields.

    Raises:
        ValueError: The tensors are not those of DABS, or an argument does not fit them.
    """
    missing = [name for name in LANDMARKS if name not in state]
    if missing:
        raise ValueError(f"not a DABS checkpoint: it lacks {missing}. Its first keys are {sorted(state)[:5]}.")
    rows = state["model.transformer.layers.0.0.fn.to_qkv.weight"].shape[0] // 3  # rows of the queries alone
    if rows % num_attention_heads:
        raise ValueError(f"`num_attention_heads` {num_attention_heads} does not divide the attention's width {rows}.")
    inputs = _inputs(state, modality, image_size, num_channels, patch_size)
    fields: dict[str, Any] = {
        "objective": _objective(state, inputs["modality"], objective),
        "hidden_size": state["model.cls_token"].shape[-1],
        "num_hidden_layers": 1 + max(int(name.split(".")[3]) for name in state if name.startswith(LAYERS)),
        "num_attention_heads": num_attention_heads,
        "head_dim": rows // num_attention_heads,
        "intermediate_size": state["model.transformer.layers.0.1.fn.net.0.weight"].shape[0],
        "projector_output_size": state["model.mlp_head.1.weight"].shape[0],
        "position_embeddings": "learned",
        "final_norm": False,
        "pool_class_token": True,
        "initializer_range": 1.0,
        "dabs_as_released": True,
        "corruption_rate": corruption_rate,
        **inputs,
    }
    try:
        config = hf_maskssl.MetaMAEConfig(**(fields | config_fields))
    except StrictDataclassError as error:
        raise ValueError(f"the checkpoint's sizes and the arguments do not make a model: {error}") from error
    return _loaded(state, config)


def _loaded(state: State, config: hf_maskssl.MetaMAEConfig) -> Converted:
    """The model with the file's weights, the fields that the file does not tell, and notes for its card."""
    model: PreTrainedModel = hf_maskssl.MetaMAEForPretraining(config)
    load_completely(model, dabs_weights(state, config.objective))
    geometry = ("num_channels", "patch_size", "image_size") if config.has_patches else ()
    names = ("objective", "modality", "num_attention_heads", "corruption_rate", *geometry)
    notes = ["It computes what DABS's released code computes (`dabs_as_released`)."]
    if config.objective != "emix":
        notes.append("The head `mlp_head`, which this objective does not train, is left out.")
    return Converted(model, {name: vars(config)[name] for name in names}, notes=notes)


def _objective(state: State, modality: str, objective: str | None) -> str:
    """The objective that the file's predictor shows, or the argument where it has none."""
    found = "emix"
    if "predictor.1.weight" in state:
        found = "mae"
    elif "predictor.weight" in state:
        found = "shed" if state["predictor.weight"].shape[0] == 2 else "capri"
    elif objective == "mae" and modality == "tokens":  # reads words off the embedding table
        found = "mae"
    if objective not in (None, found):
        raise ValueError(
            f"`objective` {objective!r} does not fit the checkpoint, whose predictor is that of {found!r}."
        )
    return found


def _inputs(
    state: State,
    modality: str | None,
    image_size: Sequence[int] | None,
    num_channels: int | None,
    patch_size: int | None,
) -> dict[str, Any]:
    """The configuration's fields of what the model reads."""
    num_tokens = state["model.pos_embedding"].shape[1] - 1
    modules = {name.split(".")[2] for name in state if name.startswith("model.embed_modules.")}
    first = "model.embed_modules.0.embed."
    if f"{first}1.weight" not in state and f"{first}bias" not in state:
        if len(modules) > 1:
            raise ValueError("the checkpoint embeds several token sequences, which no modality here reads.")
        vocab_size = state[f"{first}weight"].shape[0]
        return {"modality": "tokens", "vocab_size": vocab_size, "max_position_embeddings": num_tokens}
    if f"{first}bias" in state:  # a table: a linear layer from each number
        return {"modality": "series", "series_length": num_tokens, "num_channels": 1, "patch_size": 1}
    size = state[f"{first}1.weight"].shape[1]
    if modality == "series":
        channels, patch = _series_patch(size, num_channels, patch_size)
        return {
            "modality": "series",
            "series_length": num_tokens * patch,
            "num_channels": channels,
            "patch_size": patch,
        }
    channels, side = _image_patch(size, num_channels, patch_size)
    fields: dict[str, Any] = {"modality": "image", "num_channels": channels, "patch_size": side}
    if len(modules) > 1:
        if image_size is None:
            raise ValueError("the checkpoint reads images and words: pass --image_size HEIGHT WIDTH of the images.")
        num_words = num_tokens - math.prod(image_size) // side**2
        vocab_size = state["model.embed_modules.1.embed.weight"].shape[0]
        fields |= {"modality": "vision_language", "vocab_size": vocab_size, "max_position_embeddings": num_words}
    elif image_size is None:
        image_size = [math.isqrt(num_tokens) * side] * 2
    if len(modules) == 1 and math.prod(image_size) != num_tokens * side**2:
        raise ValueError(
            f"`image_size` {list(image_size)} with patches of {side} has {math.prod(image_size) // side**2} tokens, the "
            f"checkpoint {num_tokens}: pass --image_size HEIGHT WIDTH, --num_channels or --modality series."
        )
    return fields | {"image_size": list(image_size)}


def _series_patch(size: int, num_channels: int | None, patch_size: int | None) -> tuple[int, int]:
    """Channels and time steps whose product is `size`."""
    channels = num_channels or (size // patch_size if patch_size else 0)
    patch = patch_size or (size // channels if channels else 0)
    if channels * patch != size:
        raise ValueError(
            f"the checkpoint's patches have {size} values, channels times steps, got {num_channels} and {patch_size}: pass "
            "--num_channels or --patch_size."
        )
    return channels, patch


def _image_patch(size: int, num_channels: int | None, patch_size: int | None) -> tuple[int, int]:
    """Channels and side of a square patch of `size` values."""
    for channels in [num_channels] if num_channels else [size // patch_size**2] if patch_size else [3, 1]:
        side = math.isqrt(size // channels) if channels else 0
        if channels * side * side == size and patch_size in (None, side):
            return channels, side
    raise ValueError(
        f"the checkpoint's patches have {size} values, channels times a square, got {num_channels} channels and patches of "
        f"{patch_size}: pass --num_channels, or --modality series with one of --num_channels and --patch_size."
    )


def dabs_weights(state: State, objective: str) -> State:
    """The authors' names -> ours, without the head of features where the objective does not train it."""
    renamed: State = {}
    has_table = "model.embed_modules.0.embed.bias" in state
    for name, value in state.items():
        if name == "model.pos_embedding":
            renamed["metamae.embeddings.learned_positions"] = value[0]
        elif name.startswith("model.embed_modules."):
            kind = name.split(".")[-1]
            is_patch = ".embed.1." in name or has_table
            renamed[f"metamae.embeddings.{'patch_projection' if is_patch else 'token_embeddings'}.{kind}"] = value
        elif objective == "emix" or not name.startswith("model.mlp_head."):
            renamed[rename_weight(name, PREFIXES, PARTS)] = value
    return renamed


LAYERS = "model.transformer.layers."
# Keys without which no size can be read off.
LANDMARKS = (
    "model.pos_embedding",
    "model.cls_token",
    "model.transformer.layers.0.0.fn.to_qkv.weight",
    "model.transformer.layers.0.0.fn.to_out.0.weight",
    "model.transformer.layers.0.1.fn.net.0.weight",
    "model.mlp_head.1.weight",
)
PREFIXES = [
    ("model.cls_token", "metamae.embeddings.cls_token"),
    (LAYERS, "metamae.layers."),
    ("model.mlp_head.0.", "dabs.norm."),
    ("model.mlp_head.1.", "dabs.predictor."),
    ("predictor.1.", "dabs.predictor."),
    ("predictor.", "dabs.predictor."),
]
PARTS = [
    (".0.norm.", ".attention_norm."),
    (".0.fn.to_qkv.", ".attention.qkv."),
    (".0.fn.to_out.0.", ".attention.output."),
    (".1.norm.", ".mlp_norm."),
    (".1.fn.net.0.", ".mlp.up."),
    (".1.fn.net.3.", ".mlp.down."),
]
