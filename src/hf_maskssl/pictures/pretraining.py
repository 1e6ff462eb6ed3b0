"""Drawing functions of pre-training, which `Kind.picture` names."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..data import find_kind
from ..data.arguments import DataArguments
from ..data.processors import Processor
from ..methods.entry_points import load_function
from ..models.modeling_multimae import MultiMAEForPretraining
from .modalities import draw_modalities, known_class_names
from .reconstruction import draw_reconstruction

Batch = Mapping[str, torch.Tensor]


def draw_pretraining(
    model: PreTrainedModel, batch: Batch, path: Path | None, processor: Processor, args: DataArguments
) -> Path | None:
    """Draw a model's output for a batch, in the way of its kind of data.

    Args:
        model: A pre-training model.
        batch: Batch of its collator.
        path: PNG, PDF or SVG file to write. None writes nothing: in a run of several processes the losses are gathered,
            so every process must call this, and one of them gives a path.
        processor: Processor that prepared the batch.
        args: The recipe's data section.

    Returns:
        The path.
    """
    return load_function(find_kind(args.kind).picture)(model, batch, path, processor, args)


def reconstruction(
    model: PreTrainedModel, batch: Batch, path: Path | None, processor: Processor, args: DataArguments
) -> Path | None:
    """`draw_reconstruction`, of one input or of an image and a text."""
    return draw_reconstruction(model, batch, path, processor)


def modalities(
    model: MultiMAEForPretraining, batch: Batch, path: Path | None, processor: Processor, args: DataArguments
) -> Path | None:
    """`draw_modalities`, of several aligned pictures."""
    return draw_modalities(model, batch, path, processor, class_names=known_class_names(args))
