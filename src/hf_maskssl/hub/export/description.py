"""export.json: what an exported model reads and gives, for programs that have no other source."""

import importlib.metadata
import json
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedConfig

from ...files import JsonObject, write_json
from ...version import __version__
from .checking import outputs_of
from .heads import OpenedModel
from .shapes import ExportInputs

ExportFormat = Literal["onnx", "torch-export", "vit"]
FORMATS: dict[str, str] = {
    "onnx": "model.onnx, for onnxruntime",
    "torch-export": "model.pt2, for torch.export.load",
    "vit": "a ViTModel of transformers, for encoders of pictures",
}
DESCRIPTION = "export.json"
VERSIONS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
CLASSIFYING = ("classification", "segmentation")


def describe(opened: OpenedModel, inputs: ExportInputs, kind: ExportFormat, source: Path, name: str) -> JsonObject:
    """The content of export.json: model, head, inputs, outputs, lengths, labels, preprocessing and versions.

    A free size is a name in a shape: "batch", "length", "choices".

    Args:
        opened: Model that was exported.
        inputs: Inputs that it was traced with.
        kind: Format of the export.
        source: Checkpoint folder.
        name: Name of the checkpoint.
    """
    outputs = {} if kind == "vit" else outputs_of(opened.model)(inputs.example)
    length = inputs.length
    return {
        "model": type(opened.model).__name__,
        "model_type": opened.method.model_type,
        "head": opened.head,
        "format": kind,
        "checkpoint": name,
        "inputs": [
            {
                "name": name,
                "dtype": _dtype(value),
                "shape": [inputs.axes[name].get(axis, size) for axis, size in enumerate(value.shape)],
            }
            for name, value in inputs.example.items()
        ],
        "outputs": [{"name": name, "dtype": _dtype(value), "rank": value.ndim} for name, value in outputs.items()]
        or [{"name": "last_hidden_state", "dtype": "float32", "rank": 3}],
        "length": None if length is None else {"max": length.high, "multiple_of": length.step},
        "labels": labels_of(opened.model.config, opened.head),
        "preprocessing": preprocessing_of(source),
        "versions": {"hf_maskssl": __version__, **_versions(kind)},
    }


def write_description(folder: Path, description: JsonObject) -> None:
    """Write export.json; what the exporter of transformers has written there is kept beside it."""
    path = folder / DESCRIPTION
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, description | written)


def labels_of(config: PreTrainedConfig, head: str) -> list[str] | None:
    """The names of a classifying head's outputs, in their order; None for any other, or one output."""
    names = {int(number): str(name) for number, name in (config.id2label or {}).items()}
    if not any(word in head for word in CLASSIFYING) or len(names) < 2:
        return None
    return [names[number] for number in sorted(names)]


def preprocessing_of(source: Path) -> JsonObject | None:
    """The settings of a checkpoint's processor; None without one."""
    path = source / "preprocessor_config.json"
    if not path.is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: value for name, value in settings.items() if name != "auto_map"
    }  # names code that does not travel along


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _versions(kind: ExportFormat) -> dict[str, str]:
    packages = VERSIONS if kind == "onnx" else VERSIONS[:2]
    return {package: importlib.metadata.version(package) for package in packages}
