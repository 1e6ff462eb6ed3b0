"""Opening a checkpoint as what is to be exported: its encoder, or the head that it was saved with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from ...checkpoint_folders import load_listed
from ...files import did_you_mean
from ...methods import Method, find_method

ENCODER = "encoder"


@dataclass(frozen=True)
class OpenedModel:
    """A model that is exported.

    Attributes:
        model: Model in evaluation mode, float32.
        head: Name of the head, "encoder" without one.
        method: Record of the model's method.
    """

    model: PreTrainedModel
    head: str
    method: Method


def head_name(auto_class: type[_BaseAutoModelClass]) -> str:
    """The name of an Auto class on the command line: "encoder", "sequence_classification", ..."""
    words = auto_class.__name__.removeprefix("AutoModel").removeprefix("For")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words).lower() or ENCODER


def heads_of(method: Method) -> dict[str, type[PreTrainedModel]]:
    """Name -> class of everything of a method that is exported; its pre-training model, which draws masks, is not."""
    found = {head_name(AutoModel): method.model_classes[AutoModel]}
    others = {name: kind for name, kind in method.model_classes.items() if name is not AutoModelForPreTraining}
    return found | {head_name(auto_class): kind for auto_class, kind in others.items()}


def open_model(folder: Path, head: str | None = None) -> OpenedModel:
    """Open a checkpoint as its encoder or with its head.

    Args:
        folder: Checkpoint folder.
        head: Name of a head, or "encoder"; None is the head that was saved, or the encoder of a pre-training checkpoint.

    Raises:
        ValueError: The method has no such head, or the checkpoint lacks its weights.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    method = find_method(config)
    heads = heads_of(method)
    saved = saved_head(heads, config.architectures)
    wanted = saved if head is None else head
    if wanted not in heads:
        raise ValueError(
            f"--head: {method.model_type} has no head {wanted!r}{did_you_mean(wanted, heads)}; it has {list(heads)}, and "
            f"this checkpoint {_has(saved)}."
        )
    loaded = load_listed(heads[wanted], folder, config)
    missing = sorted([*loaded.missing, *loaded.reshaped])
    if missing:
        raise ValueError(
            f"--head {wanted}: {folder} holds no weights of it ({missing[0]} is missing); it has {_has(saved)}: "
            "fine-tune it first, or export what it has."
        )
    return OpenedModel(loaded.model.eval().requires_grad_(False), wanted, method)


def saved_head(heads: Mapping[str, type[PreTrainedModel]], architectures: list[str] | None) -> str:
    """The name of the head that a checkpoint was saved with, "encoder" where that is none of the method's."""
    saved = (architectures or [""])[0]
    return next((name for name, kind in heads.items() if kind.__name__ == saved), ENCODER)


def _has(saved: str) -> str:
    return f"'{ENCODER}'" if saved == ENCODER else f"'{ENCODER}' and '{saved}'"
