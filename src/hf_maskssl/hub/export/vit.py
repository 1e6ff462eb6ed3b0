"""The encoder of a checkpoint of pictures as a plain `ViTModel` of transformers, where its architecture is that of a ViT."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel, ViTModel

from ...models.modeling_metamae import MetaMAEModel
from ...models.modeling_multimae import MultiMAEModel
from ...models.vit_exchange import build_vit, to_vit
from .checking import largest_difference
from .heads import ENCODER, OpenedModel
from .programs import quiet
from .shapes import BATCH, ExportInputs, Tensors

PIXELS = "pixel_values"
HIDDEN = "last_hidden_state"


def check_vit_request(opened: OpenedModel, names: Sequence[str] | None, observed_mask: bool = False) -> None:
    """See that a model can be a ViT.

    Args:
        opened: Model that is exported.
        names: Names of the modalities that it shall read.
        observed_mask: Whether a mask of missing values was asked for.

    Raises:
        ValueError: Naming what a ViT does not have.
    """
    model, config = opened.model, opened.model.config
    if observed_mask:
        raise ValueError("--observed_mask: a ViT reads whole pictures; take --format onnx or torch-export.")
    if opened.head != ENCODER:
        raise ValueError(
            f"--format vit holds an encoder alone, but the head is {opened.head!r}: add --head {ENCODER}, or take --format onnx."
        )
    if isinstance(model, MultiMAEModel):
        if names is not None and len(names) != 1:
            raise ValueError(f"--format vit reads one modality, got --inputs {list(names)}: name one.")
        return
    if names is not None:
        raise ValueError(f"--inputs chooses among modalities; {config.model_type} has one input: leave it out.")
    if not isinstance(model, MetaMAEModel) or config.modality != "image":
        kind = "" if "modality" not in config.to_dict() else f" of modality '{config.modality}'"
        raise ValueError(
            f"--format vit is for encoders that are a ViT: MetaMAE of pictures and MultiMAE. {opened.method.model_type}{kind} "
            "is another architecture: take --format onnx or torch-export."
        )


def export_vit(opened: OpenedModel, names: Sequence[str] | None, folder: Path) -> tuple[ExportInputs, float]:
    """Write the ViT and read it again.

    Args:
        opened: Model that `check_vit_request` let through.
        names: Name of the one modality that it reads; None is "rgb", or the only one.
        folder: Folder to write to.

    Returns:
        The inputs of the ViT, and the largest difference of its hidden states from the model's.

    Raises:
        ValueError: The encoder has an input, or a number of global tokens, that a ViT has not.
    """
    model = opened.model
    example = opened.method.example_inputs(model.config)
    if isinstance(model, MultiMAEModel):
        continuous = [entry.name for entry in model.config.inputs() if not entry.is_categorical]
        modality = names[0] if names else "rgb" if "rgb" in continuous or not continuous else continuous[0]
        vit, key = to_vit(model, modality), f"inputs.{modality}"
    else:
        vit, key = metamae_to_vit(cast(MetaMAEModel, model)), PIXELS
    with quiet():
        vit.save_pretrained(folder)
        saved = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    axes = {PIXELS: {0: BATCH}}
    inputs = ExportInputs({PIXELS: example[key]}, axes, None)

    def ours(given: Tensors) -> Tensors:
        return {HIDDEN: _hidden(model, given[PIXELS], key)}

    def theirs(given: Tensors) -> Tensors:
        with torch.inference_mode():
            outputs = saved(given[PIXELS], output_hidden_states=True)
        return {HIDDEN: outputs.last_hidden_state if _has_norm(model) else outputs.hidden_states[-1]}

    return inputs, largest_difference(ours, theirs, inputs.checks())


def metamae_to_vit(model: MetaMAEModel) -> ViTModel:
    """A MetaMAE's encoder of pictures as a `ViTModel` without pooling layer, with the same hidden states.

    MetaMAE pools the mean over patches, `last_hidden_state[:, 1:].mean(1)`.
    """
    config, embeddings = model.config, model.embeddings
    return build_vit(
        model,
        size=(int(config.signal_shape[0]), int(config.signal_shape[1])),
        patch=(int(config.patch_shape[0]), int(config.patch_shape[1])),
        num_channels=config.num_channels,
        cls_token=embeddings.cls_token,
        positions=embeddings.positions,
        projection=embeddings.patch_projection,
    )


def _hidden(model: PreTrainedModel, pixels: torch.Tensor, key: str) -> torch.Tensor:
    given = {PIXELS: pixels} if key == PIXELS else {"inputs": {key.partition(".")[2]: pixels}}
    with torch.inference_mode():
        return model(**given).last_hidden_state


def _has_norm(model: PreTrainedModel) -> bool:
    return isinstance(model, MetaMAEModel) or bool(model.config.final_norm)
