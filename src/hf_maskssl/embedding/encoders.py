"""The encoder of a checkpoint with the processor that prepares its inputs, and the kind of data that both go with."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..checkpoint_folders import RECIPE_FILE, checkpoint_folder
from ..data.kinds import KINDS
from ..data.processors import Processor, load_processor
from ..evaluation import features
from ..evaluation.features import Precision, TokenEncoder, real_tokens
from ..methods import optional_fields
from ..models.layers import masked_mean
from ..recipes import read_yaml

Pooling = Literal["auto", "pooler", "mean"]
HASHED_BYTES = 2**20  # read at once


@dataclass(frozen=True)
class Encoder:
    """An encoder and what goes with it.

    Attributes:
        model: Base model, on its device.
        processor: Processor that turns raw values into inputs; None for columns of ids.
        kind: Name of the kind of data, `data.kind`.
        name: Name or folder that it came from.
        folder: Folder of its files; None for a model of this process.
    """

    model: PreTrainedModel
    processor: Processor
    kind: str
    name: str
    folder: Path | None = None

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        config: PreTrainedConfig = self.model.config
        return config

    @property
    def label_column(self) -> str | None:
        """The column of labels that the recipe beside the checkpoint names for probes; None without."""
        recipe = None if self.folder is None else self.folder / RECIPE_FILE
        if recipe is None or not recipe.is_file():
            return None
        section = read_yaml(recipe).get("data")
        label = section.get("label_column") if isinstance(section, dict) else None
        return label if isinstance(label, str) else None

    def pooled(self, pooling: Pooling) -> nn.Module:
        """The model, whose `pooler_output` is what `pooling` says.

        Args:
            pooling: "pooler": the model's own; "mean": the mean over all tokens but prefix and padding; "auto": the model's
                own where pre-training trains it, else the mean.
        """
        is_mean = pooling == "mean" or (pooling == "auto" and not optional_fields.trains_pooler(self.config))
        return MeanPooled(self.model) if is_mean else self.model

    def digest(self) -> str:
        """A text that other weights, another configuration or another processor change."""
        found = hashlib.sha256()
        if self.folder is None:
            raise ValueError("the model has no folder: save it first (save_pretrained)")
        for path in sorted(self.folder.iterdir()):
            if path.suffix not in (".safetensors", ".json", ".txt", ".model") or not _is_of_model(path.name):
                continue
            found.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(HASHED_BYTES):
                    found.update(block)
        return found.hexdigest()[:32]


def _is_of_model(name: str) -> bool:
    """Whether a file belongs to model or processor, and not to the run that made it."""
    return name.startswith(("model", "config.", "preprocessor", "tokenizer", "vocab", "special_tokens", "merges"))


class MeanPooled(nn.Module):
    """An encoder whose `pooler_output` is the mean of its tokens, without prefix, padding and absent modalities."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_prefix_tokens = encoder.num_prefix_tokens if isinstance(encoder, TokenEncoder) else 1

    def forward(self, **inputs: torch.Tensor) -> BaseModelOutputWithPooling:
        """Encode a batch, whose shapes are the encoder's."""
        states = self.encoder(**inputs).last_hidden_state
        tokens = states[:, self.num_prefix_tokens :].float()
        return BaseModelOutputWithPooling(states, masked_mean(tokens, real_tokens(self.encoder, inputs, tokens)))


def load_encoder(model: str | PreTrainedModel, processor: Processor = None, device: str = "cpu") -> Encoder:
    """The encoder of a checkpoint, or of a model of this process.

    Args:
        model: Checkpoint folder, Hub name, or a model, of which the base model is taken.
        processor: Processor of a model of this process; None means that it reads ids. A checkpoint's own is in its folder.
        device: Device to put a checkpoint's model on; a model of this process stays where it is.

    Raises:
        FileNotFoundError: There is no such folder or repository.
        ValueError: It is no checkpoint, has a processor of another package, or reads no kind of data that is known.
    """
    if isinstance(model, PreTrainedModel):
        base = cast(PreTrainedModel, model.base_model)
        name = type(model).__name__
        return Encoder(base, processor, kind_of(base.config, processor, name), name)
    folder = checkpoint_folder(model)
    encoder = features.load_encoder(folder, device)
    found = load_processor(folder) if processor is None else processor
    return Encoder(encoder, found, kind_of(encoder.config, found, model), model, folder)


def kind_of(config: PreTrainedConfig, processor: Processor, name: str) -> str:
    """The kind of data that a model with this processor reads.

    Raises:
        ValueError: None, as the model is of another package.
    """
    for kind in KINDS.values():
        if kind.reads(config, processor):
            return kind.name
    if parts := optional_fields.part_names(config):
        raise ValueError(
            f"MODEL {name!r}: expected a model of one kind of data, got one with the parts {', '.join(parts)}: give the folder "
            f"of one of them, {name}/{parts[0]}"
        )
    modality = optional_fields.modality(config)
    if modality not in {kind.modality for kind in KINDS.values()}:
        raise ValueError(
            f"MODEL {name!r}: expected an encoder of this package, got model_type {config.model_type!r} with modality "
            f"{modality!r}"
        )
    came = "there is none" if processor is None else f"it is a {type(processor).__name__}"
    raise ValueError(
        f"MODEL {name!r}: its processor should prepare {modality} inputs, but {came}: give the folder of a whole "
        "checkpoint (in Python, the argument `processor`)"
    )


def chosen_device(device: str | None) -> str:
    """The device asked for; where none is, the GPU if there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def chosen_precision(precision: Literal["auto"] | Precision, device: str) -> Precision:
    """The precision asked for; under "auto" bfloat16 on a GPU."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") else "no"
