"""Checkpoints of alinlab/MetaMAE into models of this package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

import hf_maskssl

from .dabs import DABS_FIELDS, convert_dabs, is_dabs
from .official_files import Allowed, Converted, Names, State, load_completely, read_checkpoint, rename_weight

# Configuration fields that no file of the authors stores.
NOT_STORED = {
    "num_attention_heads": "number of heads of the encoder (default: 8, as in all published runs)",
    "decoder_num_attention_heads": "number of heads of the decoder (default: 4, as in all published runs)",
    "mask_ratio": "mask ratio of pre-training (default: 0.5; the paper's Table 8 has one for each data set)",
    "nearby_ratio": "share of nearby tokens in pre-training (default: 0.1, as in all published runs)",
    "contrastive_weight": "weight of the contrastive loss in pre-training (default: 0.1)",
    "hidden_dropout_prob": "dropout in pre-training (default: 0)",
}


class LightningCallback:
    """Stands for classes by which older Lightning files name the states of callbacks, which are not read."""


LIGHTNING_CLASSES: Allowed = [(LightningCallback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]


def convert_file(checkpoint: Path, **fields: Any) -> Converted:
    """Convert the authors' ckpt-<N>k.pth, or a file of DABS, whose objectives are MetaMAE's baselines.

    `fields` are arguments of `convert_metamae` or `convert_dabs`.

    Raises:
        ValueError: The file cannot be read or does not fit.
    """
    state = read_checkpoint(checkpoint, LIGHTNING_CLASSES)
    if is_dabs(state):
        return convert_dabs(state, **fields)
    of_dabs = sorted(set(fields) & set(DABS_FIELDS))
    if of_dabs:
        raise ValueError(f"`{of_dabs[0]}` is for checkpoints of DABS, and this is none: leave it out.")
    model = convert_metamae(state, **fields)
    return Converted(model, {name: vars(model.config)[name] for name in NOT_STORED})


def convert_metamae(
    state: State,
    *,
    image_size: Sequence[int] | None = None,
    num_attention_heads: int = 8,
    decoder_num_attention_heads: int = 4,
    **config_fields: Any,
) -> PreTrainedModel:
    """A checkpoint of alinlab/MetaMAE as `MetaMAEForPretraining`.

    Widths, depths, channels and patches are read off the tensors. The file stores neither the numbers of heads (8 and
    4 in the published runs) nor the image's aspect ratio (square in all of them) nor the objective's settings except
    alpha: those are arguments.

    Args:
        state: The authors' state dict; without `projector.*` it is their plain MAE.
        image_size: Height and width of an image model; None takes the square that the position table fits.
        num_attention_heads, decoder_num_attention_heads: Numbers of heads, which the file does not store.
        config_fields: Further `MetaMAEConfig` fields, such as `mask_ratio` or `contrastive_weight`.

    Raises:
        ValueError: The tensors are not those of a MetaMAE, or an argument does not fit them.
    """
    missing = [name for name in METAMAE_LANDMARKS if name not in state]
    if missing:
        raise ValueError(f"not a MetaMAE checkpoint: it lacks {missing}. Its first keys are {sorted(state)[:5]}.")
    has_projector = "projector.0.weight" in state
    fields: dict[str, Any] = {
        "hidden_size": state["cls_token"].shape[-1],
        "num_hidden_layers": _depth(state, "encoder"),
        "intermediate_size": state["encoder.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": num_attention_heads,
        "decoder_hidden_size": state["mask_token"].shape[-1],
        "decoder_num_hidden_layers": _depth(state, "decoder"),
        "decoder_intermediate_size": state["decoder.0.mlp.fc1.weight"].shape[0],
        "decoder_num_attention_heads": decoder_num_attention_heads,
        **_metamae_input_fields(state, image_size),
    }
    if has_projector:
        fields["projector_hidden_size"] = state["projector.0.weight"].shape[0]
        fields["projector_output_size"] = state["projector.3.weight"].shape[0]
        if "inner_lr" in state:
            fields["adaptation_step_size"] = float(state["inner_lr"])
    else:
        fields |= {"num_adaptation_steps": 0, "contrastive_weight": 0.0}
    try:
        config = hf_maskssl.MetaMAEConfig(**(fields | config_fields))
    except StrictDataclassError as error:
        raise ValueError(f"the checkpoint's sizes and the arguments do not make a MetaMAE: {error}") from error
    model = hf_maskssl.MetaMAEForPretraining(config)
    load_completely(model, _metamae_state(state))
    _check_positions(model.metamae.embeddings.positions, state["pos_embed"])
    return model


def _check_positions(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Refuse a wrong aspect ratio: their table (1, 1 + N, D) reveals it, which a count of tokens cannot."""
    difference = (ours - theirs[0, 1:].float()).abs().max().item()
    if difference > 1e-4:
        raise ValueError(
            f"the checkpoint's position table differs from the one of this size by {difference:.3g}: pass "
            "--image_size HEIGHT WIDTH of the pre-training images."
        )


def _metamae_input_fields(state: State, image_size: Sequence[int] | None) -> dict[str, Any]:
    projection = state["patch_embed.proj.weight"]
    num_tokens = state["pos_embed"].shape[1] - 1
    if projection.dim() != 4 and image_size is not None:
        raise ValueError(
            f"`image_size` {list(image_size)} was given for a checkpoint that reads no images: leave it out."
        )
    if projection.dim() == 2:
        return {"modality": "tokens", "vocab_size": projection.shape[0], "max_position_embeddings": num_tokens}
    if projection.dim() == 3:
        _, channels, patch = projection.shape
        return {
            "modality": "series",
            "num_channels": channels,
            "patch_size": patch,
            "series_length": num_tokens * patch,
        }
    _, channels, height, width = projection.shape
    if image_size is None:
        side = round(num_tokens**0.5)
        image_size = (side * height, side * width)
    grid = [size // patch for size, patch in zip(image_size, (height, width), strict=True)]
    if grid[0] * grid[1] != num_tokens:
        raise ValueError(
            f"`image_size` {list(image_size)} with patches {[height, width]} has {grid[0] * grid[1]} tokens, the "
            f"checkpoint's position table {num_tokens}: pass --image_size HEIGHT WIDTH of the pre-training images."
        )
    return {
        "modality": "image",
        "num_channels": channels,
        "patch_size": [height, width],
        "image_size": list(image_size),
    }


def _metamae_state(state: State) -> State:
    """The authors' names and layouts -> ours."""
    renamed: State = {}
    for name, value in state.items():
        if name in ("pos_embed", "decoder_pos_embed", "inner_lr"):
            continue  # fixed tables are computed; alpha is a configuration field
        if name == "patch_embed.proj.weight" and value.dim() > 2:
            # A convolution's weight has the channel first, our patches have it last (fastest).
            value = value.movedim(1, -1).reshape(value.shape[0], -1)
            renamed["metamae.embeddings.patch_projection.weight"] = value
        elif name == "patch_embed.proj.weight":
            renamed["metamae.embeddings.token_embeddings.weight"] = value
        elif name == "mask_token":
            renamed["decoder.mask_tokens"] = value.reshape(1, -1)
        else:
            renamed[_rename(name, METAMAE_NAMES, is_token_head="patch_embed.proj.bias" not in state)] = value
    return renamed


# Keys without which no size can be read off.
METAMAE_LANDMARKS = (
    "cls_token",
    "pos_embed",
    "mask_token",
    "patch_embed.proj.weight",
    "encoder.0.mlp.fc1.weight",
    "decoder_embed.weight",
    "decoder.0.mlp.fc1.weight",
)
METAMAE_NAMES = [
    ("cls_token", "metamae.embeddings.cls_token"),
    ("patch_embed.proj.bias", "metamae.embeddings.patch_projection.bias"),
    ("encoder.", "metamae.layers."),
    ("norm_enc.", "metamae.norm."),
    ("decoder_embed.", "decoder.embed."),
    ("decoder_head.", "decoder.patch_head."),
    ("decoder.", "decoder.layers."),
    ("norm_dec.", "decoder.norm."),
    ("projector.0.", "projector.up."),
    ("projector.1.", "projector.norm."),
    ("projector.3.", "projector.down."),
]
# timm's Transformer block, inside encoder and decoder alike.
BLOCK_NAMES = [
    (".norm1.", ".attention_norm."),
    (".norm2.", ".mlp_norm."),
    (".attn.qkv.", ".attention.qkv."),
    (".attn.proj.", ".attention.output."),
    (".mlp.fc1.", ".mlp.up."),
    (".mlp.fc2.", ".mlp.down."),
]


def _rename(name: str, prefixes: Names, is_token_head: bool) -> str:
    name = rename_weight(name, prefixes, BLOCK_NAMES)
    return name.replace("decoder.patch_head.", "decoder.token_head.") if is_token_head else name


def _depth(state: State, prefix: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{prefix}."))
