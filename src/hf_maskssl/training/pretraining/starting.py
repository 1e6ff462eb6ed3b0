"""Where pre-training begins when not from random weights: from another model's, where a method knows how."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from ...files import JsonObject

logger = logging.getLogger(__name__)

# What the shapes of BERT's weights do not show.
SAME_IN_BERT = ("num_attention_heads", "hidden_act", "layer_norm_eps")
SENTENCE_WEIGHTS = ("bert.pooler.", "cls.seq_relationship.")


def start_from(model: Any, name: str, positions: str) -> Any:
    """Give a new pre-training model the weights of another one.

    Args:
        model: A MultiMAE, whose encoder and rgb projection become those of a ViT or ViT-MAE; or a PoS-BERT, which becomes a
            BERT (or another PoS-BERT), heads included.
        name: Hub name or folder.
        positions: Of a ViT: "same", its position embeddings must be the model's; "drop" begins without them.

    Returns:
        The model to train, which may be another object.

    Raises:
        ValueError: Another kind of model, sizes that differ, or nothing of that name.
    """
    if hasattr(model.base_model, "load_vit"):
        vit = _read(AutoModel.from_pretrained, name)
        try:
            model.base_model.load_vit(vit, positions=positions)
        except ValueError as error:
            raise ValueError(f"training.init_from={name!r}, training.init_positions: {error}") from error
        logger.info("The encoder begins as %s, the decoders and other modalities at random.", name)
        return model
    if model.base_model_prefix == "bert":
        return _as_bert(model, name)
    raise ValueError(
        f"training.init_from={name!r} starts a MultiMAE from a ViT or a PoS-BERT from a BERT; {type(model).__name__} cannot: "
        "remove it."
    )


def read_start(name: str) -> PreTrainedConfig:
    """The configuration of the model to begin with.

    Raises:
        ValueError: There is none of that name, or none that can be read.
    """
    config: PreTrainedConfig = _read(AutoConfig.from_pretrained, name)
    return config


def _read(load: Callable[..., Any], name: str, **options: Any) -> Any:
    """What `load` gives for a name; what transformers says of one that it cannot find fills lines and names no field."""
    try:
        return load(name, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"training.init_from={name!r} is neither a folder nor a Hub name from which a model can be read: {reason}."
        ) from error


def _as_bert(model: Any, name: str) -> Any:
    """New are only what the balancer remembers and, without next sentence prediction, the weights of that."""
    config = model.config
    saved, own = read_start(name).to_dict(), config.to_dict()
    options: JsonObject = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    start, info = _read(type(model).from_pretrained, name, config=config, **options)
    new = ("balancer.", *(SENTENCE_WEIGHTS if config.next_sentence_prediction == "none" else ()))
    problems = {
        "other settings": [key for key in SAME_IN_BERT if saved.get(key) != own[key]],
        "missing weights": [key for key in info["missing_keys"] if not key.startswith(new)],
        "weights too many": [key for key in info["unexpected_keys"] if not key.startswith(SENTENCE_WEIGHTS)],
        "weights of other shapes": [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]],
    }
    found = ", ".join(f"{what}: {sorted(keys)[:3]}" for what, keys in problems.items() if keys)
    if found:
        raise ValueError(
            f"training.init_from={name!r} is no BERT of the sizes that the model section gives ({found}): take its sizes, a "
            "checkpoint with its pre-training heads, or, where those of next sentence prediction are missing, "
            "model.next_sentence_prediction none."
        )
    logger.info("The model begins as %s.", name)
    return start.train()
