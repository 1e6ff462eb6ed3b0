"""The model that is fine-tuned: its configuration, its inputs, its head and its weights."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForSemanticSegmentation,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from ...checkpoint_folders import load_listed
from ...data.arguments import DataArguments
from ...data.multimodal.arguments import MultimodalArguments
from ...data.preparation import build_processor
from ...data.processors import Processor
from ...data.tables.splits import read_splits
from ...files import JsonObject, JsonView
from ...methods import METHODS
from ...models.configuration_multimae import MultiMAEConfig
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ...models.vit_exchange import VIT_TYPES
from ...recipes import build_config, own_fields
from .scores import LabelUnit

# Task -> Auto classes; the first that a configuration is registered with is taken.
HEADS: dict[str, tuple[type[_BaseAutoModelClass], ...]] = {
    "classification": (AutoModelForSequenceClassification, AutoModelForImageClassification),
    "multi_label_classification": (AutoModelForSequenceClassification, AutoModelForImageClassification),
    "regression": (AutoModelForSequenceClassification, AutoModelForImageClassification),
    "token_classification": (AutoModelForTokenClassification,),
    "semantic_segmentation": (AutoModelForSemanticSegmentation,),
    "depth_estimation": (AutoModelForDepthEstimation,),
    "dense_regression": (AutoModelForImageToImage,),
}

logger = logging.getLogger(__name__)


def read_config(fields: JsonView, checkpoint: Path | None) -> PreTrainedConfig:
    """The checkpoint's configuration with the `model` section's changes, or the section's alone.

    The section's `modalities` may name some: fields of known ones are changed, and new ones are added.

    Raises:
        ValueError: Neither is given, an unknown or impossible field, or another `model_type` than the checkpoint's.
    """
    if checkpoint is None:
        if not fields:
            raise ValueError(
                "finetuning.checkpoint: name the encoder to start from, or give the recipe a model section to start from "
                "random weights."
            )
        return build_config(fields)
    saved = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    if fields.get("model_type", saved.model_type) != saved.model_type:
        advice = "correct one of them"
        if fields["model_type"] == MultiMAEConfig.model_type and saved.model_type in VIT_TYPES:
            advice = f"`hf-maskssl convert multimae {checkpoint} FOLDER` makes a MultiMAE of it"
        raise ValueError(
            f"model.model_type is {fields['model_type']!r}, but finetuning.checkpoint {checkpoint} is of "
            f"{saved.model_type!r}: {advice}."
        )
    return changed_config(saved, fields)


def changed_config(saved: PreTrainedConfig, fields: JsonView) -> PreTrainedConfig:
    """An encoder's configuration with the changes of a `model` section, as `read_config` makes them.

    Raises:
        ValueError: An unknown or impossible field.
    """
    own = own_fields(saved)
    changes = dict(fields)
    if "modalities" in own and isinstance(fields.get("modalities"), Mapping):
        changes["modalities"] = _merged_modalities(own["modalities"], fields["modalities"])
        if isinstance(own["dirichlet_alpha"], Mapping) and "dirichlet_alpha" not in fields:
            # This field belongs to pre-training, but it must name every input.
            del own["dirichlet_alpha"]
    return build_config({"model_type": saved.model_type, **own, **changes})


def choose_inputs(
    config: PreTrainedConfig, data: DataArguments, inputs: Sequence[str] | None, fields: JsonView
) -> DataArguments:
    """Make a configuration of several modalities read some of them alone.

    Sets `head_modalities`, unless the `model` section (`fields`) does, in the order of the configuration.

    Args:
        config: Configuration, changed in place.
        data: The recipe's data section.
        inputs: Modalities; None takes those of `data.input_column`, or every input of the model.
        fields: The recipe's model section.

    Returns:
        The data section, reading these modalities and no other.

    Raises:
        ValueError: The model has no modalitiesor lacks these inputs, or one of them is the label.
    """
    if not isinstance(config, MultiMAEConfig):
        if inputs is not None:
            raise ValueError(
                f"finetuning.inputs chooses among the modalities of a model that has several; {config.model_type} has one "
                "input: leave it out."
            )
        return data
    if not isinstance(data, MultimodalArguments):
        return data  # `prepare_data` raises the error
    known = [modality.name for modality in config.inputs()]
    columns = data.input_column if isinstance(data.input_column, dict) else {}
    if isinstance(data.input_column, str):
        columns = {"rgb": data.input_column}
    wanted = inputs if inputs is not None else list(columns) or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        field = "finetuning.inputs" if inputs is not None else "data.input_column"
        raise ValueError(
            f"{field}: the model reads {known}, not {unknown}: describe what is new under model.modalities, as in "
            "{depth: {kind: continuous, num_channels: 1}}, or choose among those it reads."
        )
    chosen = [name for name in known if name in wanted]
    if inputs is not None or config.head_modalities is None:
        config.head_modalities = fields.get("head_modalities") or chosen
    return dataclasses.replace(data, input_column={name: columns.get(name, name) for name in chosen})


def complete_processor(processor: Processor, data: DataArguments, config: PreTrainedConfig) -> Processor:
    """A checkpoint's processor, with what `data.modality_options` and the training split say of modalities that it lacks."""
    if not isinstance(processor, MultiMAEImageProcessor) or not isinstance(config, MultiMAEConfig):
        return processor
    wanted = [modality.source for modality in config.modality_table().values()]
    missing = [name for name in dict.fromkeys(wanted) if name not in processor.modalities]
    if missing:
        fresh = build_processor(data, config, read_splits(data)["train"])
        assert isinstance(fresh, MultiMAEImageProcessor)
        processor.modalities |= {name: fresh.modalities[name] for name in missing}
    return processor


def new_inputs(config: PreTrainedConfig, checkpoint: Path) -> list[str]:
    """Modalities that a configuration reads and the checkpoint's does not."""
    if not isinstance(config, MultiMAEConfig):
        return []
    saved: MultiMAEConfig = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    old = [modality.name for modality in saved.inputs()]
    return [modality.name for modality in config.inputs() if modality.name not in old]


def head_class(task: str, config: PreTrainedConfig) -> type[_BaseAutoModelClass]:
    """The Auto class of a task for a configuration.

    Raises:
        ValueError: The method has no model for this task.
    """
    method = METHODS.get(config.model_type)  # None: a model of transformers
    known = None if method is None else method.model_classes
    for auto_class in HEADS[task]:
        if known is None or auto_class in known:
            return auto_class
    raise ValueError(
        f"data.task {task!r}: {config.model_type} has no model for it; it has "
        f"{[auto_class.__name__ for auto_class in known or {}]}."
    )


def load_model(task: str, config: PreTrainedConfig, checkpoint: Path | None) -> PreTrainedModel:
    """A float32 model with the head of a task: its encoder from a checkpoint, or all of it random.

    Input projections of modalities that the checkpoint was not pre-trained with are new, as the paper has it for MAE
    (Bachmann et al. 2022, section 4.3); the log names them.

    Raises:
        ValueError: The checkpoint lacks other weights of the encoder, or has them in other shapes; or the method has no
            model for this task.
    """
    auto_class = head_class(task, config)
    if checkpoint is None:
        return auto_class.from_config(config)
    loaded = load_listed(auto_class, checkpoint, config)
    model = loaded.model
    # The head is new, or belongs to another task. Any other weight left random would go unnoticed.
    own = f"{model.base_model_prefix}."
    kinds = ("projections", "class_embeddings")
    added = tuple(f"{own}embeddings.{kind}.{name}." for kind in kinds for name in new_inputs(config, checkpoint))
    missing = [name for name in loaded.missing if name.startswith(own)]
    new = [name for name in missing if name.startswith(added)]
    missing = [name for name in missing if name not in new]
    reshaped = [name for name in loaded.reshaped if name.startswith(own)]
    if missing or reshaped:
        raise ValueError(
            f"finetuning.checkpoint {checkpoint} does not fit the model: missing weights {missing[:5]}, other shapes "
            f"{reshaped[:5]}; take the fields back that the model section changes, or name another checkpoint."
        )
    if new:
        logger.info("not in the checkpoint, so new and random: %s", ", ".join(new))
    return model


def to_original_unit(model: torch.nn.Module, unit: LabelUnit) -> None:
    """Let a model that has learnt standardised labels, of one column or several, give labels in their own unit."""
    if unit == LabelUnit():
        return
    num_outputs = np.size(unit.std)
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    if not layers or layers[-1].out_features != num_outputs or layers[-1].bias is None:
        raise ValueError(
            f"finetuning.standardize_labels: {type(model).__name__} does not end in a linear layer of {num_outputs} output(s) "
            "with a bias, into which the labels' unit could be put; set it to false."
        )
    with torch.no_grad():
        std = layers[-1].bias.new_tensor(unit.std).reshape(-1)
        layers[-1].weight.mul_(std[:, None])
        layers[-1].bias.mul_(std).add_(layers[-1].bias.new_tensor(unit.mean).reshape(-1))


def freeze(encoder: torch.nn.Module) -> None:
    """Take an encoder out of training: no gradients, and no dropout either, whatever `train()` says of its model."""
    encoder.requires_grad_(False)
    encoder.eval()
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]


def _merged_modalities(saved: Mapping[str, JsonView], changes: JsonView) -> dict[str, JsonObject]:
    """The saved modalities, with fields of some changed and others added."""
    return {name: {**saved.get(name, {}), **changes.get(name, {})} for name in dict.fromkeys([*saved, *changes])}
