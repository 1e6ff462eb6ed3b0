"""Official checkpoints into folders of this package: `python -m hf_maskssl.hub.conversion METHOD CHECKPOINT OUT`."""

import argparse
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

import hf_maskssl

from ..training.checkpoints import incomplete_folder
from .cards import write_converted_card

State = dict[str, torch.Tensor]


def read_checkpoint(path: str | Path) -> State:
    """Weights of a `torch.save`d checkpoint, read without running any code in it.

    Args:
        path: a file whose top level is a state dict, or a dict that holds one under "model".

    Returns:
        Name -> tensor, without the `module.` prefix of data-parallel runs.

    Raises:
        ValueError: the file is absent, damaged, or holds something other than tensors and plain containers.
    """
    if not Path(path).is_file():
        raise ValueError(f"checkpoint {path} is not a file: give the path of the authors' ckpt-<N>k.pth.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A file that is no pickle at all may also fail as a KeyError, IndexError, ... inside the reader.
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
        raise ValueError(
            f"checkpoint {path} cannot be read: expected a file written by torch.save that holds tensors and plain "
            f"containers only. Nothing else in it was run. {_reason(error)}"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"checkpoint {path} holds no state dict (name -> tensor) at its top level or under 'model'.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _reason(error: Exception) -> str:
    """What the reader objected to, without torch's advice to read the file unsafely."""
    lines = [line for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
    return f"The reader says: {lines[0].strip()}" if lines else f"The reader gave up with a {type(error).__name__}."


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
        state: the authors' state dict; without `projector.*` it is their plain MAE.
        image_size: height and width of an image model; None takes the square that the position table fits.
        num_attention_heads, decoder_num_attention_heads: not stored in the file.
        config_fields: further `MetaMAEConfig` fields, such as `mask_ratio` or `contrastive_weight`.

    Raises:
        ValueError: the tensors are not those of a MetaMAE, or an argument does not fit them.
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
    _load_completely(model, _metamae_state(state))
    _check_positions(model.metamae.embeddings.positions, state["pos_embed"])
    return model


def _check_positions(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Their table (1, 1 + N, D) tells a wrong aspect ratio from the right one, which a count of tokens cannot."""
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


def _rename(name: str, prefixes: list[tuple[str, str]], is_token_head: bool) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for old, new in BLOCK_NAMES:
        name = name.replace(old, new)
    return name.replace("decoder.patch_head.", "decoder.token_head.") if is_token_head else name


def _depth(state: State, prefix: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{prefix}."))


def _load_completely(model: PreTrainedModel, state: State) -> None:
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(f"the checkpoint does not fit the model: {error}") from error
    if missing or unexpected:
        raise ValueError(f"the checkpoint does not fit the model: missing {missing[:8]}, unexpected {unexpected[:8]}.")


# Method name -> converter of its state dict.
CONVERTERS: dict[str, Callable[..., PreTrainedModel]] = {"metamae": convert_metamae}
# Configuration fields that no file of the authors stores.
NOT_STORED = {
    "num_attention_heads": "of the encoder (default: 8, as in all published runs)",
    "decoder_num_attention_heads": "of the decoder (default: 4, as in all published runs)",
    "mask_ratio": "of pre-training (default: 0.5; the paper's Table 8 has one for each data set)",
    "nearby_ratio": "of pre-training (default: 0.1, as in all published runs)",
    "contrastive_weight": "of pre-training (default: 0.1)",
    "hidden_dropout_prob": "of pre-training (default: 0)",
}


def convert(method: str, checkpoint: Path, output: Path, **fields: Any) -> PreTrainedModel:
    """Convert a checkpoint file into a folder with weights, code and card, which appears whole or not at all.

    Args:
        method: One of `CONVERTERS`.
        checkpoint: The authors' file.
        output: Folder to write; must be new or empty.
        fields: Further arguments of the method's converter.

    Raises:
        ValueError: The file cannot be read or converted, or the folder holds something or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output {output} is not an empty folder: name a new one.")
    model = CONVERTERS[method](read_checkpoint(checkpoint), **fields)
    assumed = {name: getattr(model.config, name) for name in NOT_STORED if hasattr(model.config, name)}
    try:
        folder = incomplete_folder(output)
        try:
            model.save_pretrained(folder)
            write_converted_card(folder, model.config, checkpoint.name, assumed)
            os.replace(folder, output)
        except BaseException:
            shutil.rmtree(folder)
            raise
    except OSError as error:
        raise ValueError(f"output {output} cannot be written: {error}. Name a folder you may write to.") from error
    return model


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; exits with 2 and a message when the file cannot be converted."""
    parser = argparse.ArgumentParser(prog="python -m hf_maskssl.hub.conversion", description=__doc__)
    parser.add_argument("method", choices=sorted(CONVERTERS))
    parser.add_argument("checkpoint", type=Path, help="the authors' file, e.g. ckpt-100k.pth")
    parser.add_argument("output", type=Path, help="folder to write; loads with AutoModel.from_pretrained")
    parser.add_argument("--image_size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: square")
    for name, description in NOT_STORED.items():
        parser.add_argument(f"--{name}", type=int if name.endswith("heads") else float, help=description)
    options = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    try:
        model = convert(**options)
    except ValueError as error:
        parser.error(str(error))
    print(f"{options['output']}: {model.num_parameters():,} parameters, {type(model).__name__}")


if __name__ == "__main__":
    main()
