"""Fine-tuning of adapters and a head, by peft: the encoder's own weights stay as they are.

LoRA: Hu et al. 2022, https://arxiv.org/abs/2106.09685.
"""

import dataclasses
import functools
import importlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel

from ...extras import missing_extra
from ...files import JsonView, did_you_mean
from ...recipes import nearest
from .adapter_types import ALL_LINEAR, TYPES
from .models import load_model

ADAPTER_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# What a recipe does not choose: the head is always trained, and the base is always the checkpoint.
OURS = (
    "peft_type",
    "task_type",
    "modules_to_save",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
)


def load_peft() -> ModuleType:
    """The package peft.

    Raises:
        ImportError: It is missing; the error names the extra that brings it.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise missing_extra("finetuning.peft", "peft", error) from error


def add_adapter(model: PreTrainedModel, section: JsonView, checkpoint: str | None) -> torch.nn.Module:
    """Put adapters into a model's encoder: they and the head are trained, all else is frozen.

    Args:
        model: Model with a head; changed in place.
        section: Recipe's `finetuning.peft`.
        checkpoint: Folder or Hub name of the encoder, which the adapter's file names as its base; None for random weights.

    Returns:
        peft's model, which holds the given one.

    Raises:
        ImportError: peft is missing.
        ValueError: An unknown or impossible option, or layers that the encoder does not have.
    """
    peft = load_peft()
    class_name, preset = TYPES[section["type"]]
    config_class = getattr(peft, class_name)  # a table names it
    options = {name: value for name, value in section.items() if name not in ("type", "target_modules")}
    known = [field.name for field in dataclasses.fields(config_class) if field.name not in OURS]
    for name in options:
        if name not in known:
            raise ValueError(f"finetuning.peft.{name}: no option of {section['type']}{nearest(name, known)}.")
    targets = target_names(model, section.get("target_modules", ALL_LINEAR))
    try:
        config = config_class(target_modules=targets, modules_to_save=head_names(model), **preset | options)
        adapted = peft.get_peft_model(model, config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"finetuning.peft: {error}") from error
    config.base_model_name_or_path = checkpoint
    bare = [name for name, _ in model.named_parameters(recurse=False)]
    if bare:
        for name in bare:
            model.get_parameter(name).requires_grad_(True)
        adapted.save_pretrained = functools.partial(_save_with_parameters, adapted, bare)
    return adapted


def _save_with_parameters(
    adapted: Any, names: Sequence[str], folder: str, **options: Any
) -> None:  # Any: peft's classes
    """`save_pretrained` of an adapted model whose head has parameters outside of modules, which peft does not save.

    It reads them from the adapter's file as it reads all else.
    """
    type(adapted).save_pretrained(adapted, folder, **options)
    path = Path(folder) / WEIGHTS_FILE
    own = {f"base_model.model.{name}": adapted.get_base_model().get_parameter(name).detach() for name in names}
    save_file(load_file(path) | own, path, metadata={"format": "pt"})


def target_names(model: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """The full names of the linear layers that get an adapter.

    Args:
        model: Model whose encoder is `model.base_model`.
        targets: "all-linear" for every linear layer of the encoder behind its embeddings, or the last parts of names, such
            as ["qkv", "mlp.up"].

    Raises:
        ValueError: A name that no linear layer has.
    """
    prefix = model.base_model_prefix
    linear = [
        f"{prefix}.{name}"
        for name, module in model.base_model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("embeddings.")
    ]
    if targets == ALL_LINEAR:
        return linear
    found: list[str] = []
    for target in [targets] if isinstance(targets, str) else targets:
        matches = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not matches:
            ends = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(
                f"finetuning.peft.target_modules: no linear layer of {type(model).__name__} is named "
                f"{target!r}{did_you_mean(target, ends)}; they end in {ends}, or take '{ALL_LINEAR}'."
            )
        found += matches
    return list(dict.fromkeys(found))


def head_names(model: PreTrainedModel) -> list[str]:
    """The parts of a model beside its encoder that have weights."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    return (folder / ADAPTER_FILE).is_file()


def save_adapter(model: Any, folder: Path) -> None:  # Any: peft's classes, which may be absent
    """Write adapter, head and configuration, without the encoder's own weights."""
    model.save_pretrained(str(folder))
    model.get_base_model().config.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's, which says nothing of the task
    for file in folder.glob("*.py"):
        file.unlink()  # code goes with a whole model


def merged(model: Any) -> PreTrainedModel:  # Any as above
    """A plain model that computes what the adapted one does; that one is used up."""
    return model.merge_and_unload()


def load_adapter(task: str, config: PreTrainedConfig, folder: Path, checkpoint: Path) -> torch.nn.Module:
    """The model of an adapter's folder.

    Args:
        task: Task of the head.
        config: Configuration of the model.
        folder: Folder that `save_adapter` wrote.
        checkpoint: Folder of the encoder that it adapts.
    """
    return load_peft().PeftModel.from_pretrained(load_model(task, config, checkpoint), str(folder))


def merge_folder(task: str, config: PreTrainedConfig, folder: Path, checkpoint: Path, output: Path) -> None:
    """Write the plain model of an adapter's folder, with everything else that lies there.

    Args:
        task: Task of the head.
        config: Configuration of the model.
        folder: Folder that `save_adapter` wrote.
        checkpoint: Folder of the encoder that it adapts.
        output: Folder to write to.
    """
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith("adapter_"):
            shutil.copyfile(file, output / file.name)
    merged(load_adapter(task, config, folder, checkpoint)).save_pretrained(output)


def parameter_counts(model: torch.nn.Module) -> dict[str, int]:
    """Numbers of a model's trained parameters, and of all that it has without copies of the head that peft keeps."""
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    total = sum(each.numel() for name, each in model.named_parameters() if ".original_module." not in name)
    return {"trained": trained, "all": total}


def described(section: Mapping[str, object]) -> str:
    """The adapter in words: "lora (r=8, target_modules=all-linear)"."""
    options = {"target_modules": ALL_LINEAR, **section}
    words = ", ".join(f"{name}={value}" for name, value in options.items() if name != "type")
    return f"{section['type']} ({words})"
