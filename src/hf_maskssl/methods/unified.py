"""One encoder for several kinds of data, trained with balanced losses."""

import torch
from transformers import AutoModel, AutoModelForPreTraining

from ..models.configuration_unified import UnifiedConfig
from ..models.modeling_unified import UnifiedForPretraining, UnifiedModel
from . import metamae, sma
from .meanings import Meaning
from .papers import METAMAE_BIBTEX, MINIMAX_BIBTEX, SMA_BIBTEX
from .record import Description, Method

PARTS = {"metamae": metamae.METHOD, "sma": sma.METHOD}
BIBTEX = {"metamae": METAMAE_BIBTEX, "sma": SMA_BIBTEX}


def describe(config: UnifiedConfig) -> Description:
    """The method of the parts, and minimax where it balances them."""
    of_part = PARTS[config.part_type].describe(config.part_config(config.part_names[0]))
    balanced = ", trained for the kind of data that is worst off" if config.task_balancing == "minimax" else ""
    return Description(
        name=f"Unified {of_part.name}",
        summary=f"One encoder for several kinds of data ({', '.join(config.part_names)}), pre-trained on all of them at once by "
        f"{of_part.name}, with embeddings and heads of each kind's own{balanced}",
        title=of_part.title,
        url=of_part.url,
        repository=of_part.repository,
        bibtex=BIBTEX[config.part_type] + (MINIMAX_BIBTEX if config.task_balancing == "minimax" else ""),
    )


def example_inputs(config: UnifiedConfig) -> dict[str, torch.Tensor]:
    """A small batch of every part, as `inputs.PART.ARGUMENT`."""
    record = PARTS[config.part_type]
    return {
        f"inputs.{part}.{name}": tensor
        for part in config.part_names
        for name, tensor in record.example_inputs(config.part_config(part)).items()
    }


def weight_meaning(config: UnifiedConfig, name: str) -> Meaning | None:
    """What the weight means in its part."""
    for prefix in ("unified.parts.", "objectives."):
        if name.startswith(prefix):
            part, _, rest = name.removeprefix(prefix).partition(".")
            meaning = PARTS[config.part_type].weight_meaning
            return None if meaning is None else meaning(config.part_config(part), rest)
    return None


METHOD = Method(
    config_class=UnifiedConfig,
    model_classes={AutoModel: UnifiedModel, AutoModelForPreTraining: UnifiedForPretraining},
    describe=describe,
    example_inputs=example_inputs,
    weight_meaning=weight_meaning,
)
