"""Plain ViTs as MultiMAE encoders of colours alone: the DeiT, DINO, MoCo-v3 and MAE that MultiMAE's Table 1 fine-tunes."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel

from ...checkpoint_folders import checkpoint_folder, load_listed
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ...models.vit_exchange import VIT_TYPES, from_vit
from .official_files import Converted, State

PROCESSOR_FILE = "preprocessor_config.json"
# A linear classifier behind the encoder, and MoCo-v3's encoder beside its momentum encoder and predictor.
CLASSIFIERS = ("head.", "head_dist.")
BASE_ENCODER = "base_encoder."


def convert_vit(name: str, **fields: Any) -> Converted:
    """A ViT, DeiT or ViT-MAE of transformers as a `MultiMAEModel`, with a processor that standardises as its own does.

    Args:
        name: Folder or Hub name of its checkpoint; heads and pooling layers are left behind.
        fields: Further `MultiMAEConfig` fields.

    Raises:
        ValueError: It is another model, it lacks weights, or its processor does not say mean and deviation of each channel.
        FileNotFoundError: There is no such folder or Hub name.
    """
    folder = checkpoint_folder(name, "checkpoint")
    model_type = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
    if model_type not in VIT_TYPES:
        raise ValueError(
            f"checkpoint {name} is a model of type {model_type!r} of transformers: expected one of {list(VIT_TYPES)}, whose "
            "weights a MultiMAE can take, or a file of the authors."
        )
    loaded = load_listed(AutoModel, folder)
    missing = [weight for weight in loaded.missing if not weight.startswith("pooler.")]
    if missing:
        raise ValueError(f"checkpoint {name} lacks weights of its encoder: {missing[:8]}.")
    model = from_vit(loaded.model, **fields)
    options, notes = _standardisation(folder)
    modalities = {"rgb": {**(model.config.modalities or {})["rgb"], **options}}
    processor = MultiMAEImageProcessor(modalities, model.config.image_size)
    return Converted(model, {}, processor, notes, f"a {type(loaded.model).__name__} of transformers")


def without_others(state: State) -> State:
    """The weights of a ViT's encoder in timm's names: without a classifier, and of a MoCo-v3 those of its base encoder."""
    own = {name.removeprefix(BASE_ENCODER): value for name, value in state.items() if name.startswith(BASE_ENCODER)}
    return {name: value for name, value in (own or state).items() if not name.startswith(CLASSIFIERS)}


def _standardisation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """How the processor in a checkpoint's folder standardises colours, and notes for the card."""
    file = folder / PROCESSOR_FILE
    if not file.is_file():
        return {}, [
            f"The checkpoint holds no {PROCESSOR_FILE}: colours are standardised by ImageNet's mean and deviation."
        ]
    settings = json.loads(file.read_text(encoding="utf-8"))
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    if not settings.get("do_normalize", True):
        return {"scale": scale, "standardize": "none"}, []
    try:
        moments = {"mean": settings["image_mean"], "std": settings["image_std"]}
    except KeyError as error:
        raise ValueError(
            f"{file} has no {error}, by which colours are standardised: add it, or take the file away."
        ) from error
    return {"scale": scale, "standardize": "dataset", **moments}, []
