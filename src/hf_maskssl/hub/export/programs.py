"""ONNX and torch.export programs of a model, written and run again; by the exporters of transformers."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ...extras import missing_extra
from ..load_checkpoint import arguments_of
from .shapes import ExportInputs, Tensors

ProgramFormat = Literal["onnx", "torch-export"]
# Our names -> modules and classes of transformers.exporters.
EXPORTERS: dict[str, tuple[str, str]] = {
    "onnx": ("exporter_onnx", "OnnxExporter"),
    "torch-export": ("exporter_dynamo", "DynamoExporter"),
}
PROGRAM_FILES: dict[str, str] = {"onnx": "model.onnx", "torch-export": "model.pt2"}
PACKAGES: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": ()}


class NamedOutputs(torch.nn.Module):
    """A model whose outputs are a plain dictionary of its tensors, so that a program of it needs no class of ours."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: object) -> Tensors:
        """The tensors among the model's outputs, by name."""
        return {name: value for name, value in self.model(**inputs).items() if isinstance(value, torch.Tensor)}


def exporters_module(name: str) -> ModuleType:
    """A module of transformers.exporters.

    Raises:
        ImportError: This version of transformers lacks it.
    """
    try:
        importlib.import_module("transformers.exporters.metadata")
        return importlib.import_module(f"transformers.exporters.{name}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("transformers"):
            raise
        raise ImportError(
            "Exporting needs the exporters of transformers 5.23 or later, for Python 3.11 or later: pip install -U transformers"
        ) from error


def check_packages(kind: ProgramFormat) -> None:
    """See that a format's packages are there.

    Raises:
        ImportError: A package is missing; the error names the extra that brings it.
    """
    for package in PACKAGES[kind]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise missing_extra("Exporting to ONNX", "export", error) from error
    exporters_module(EXPORTERS[kind][0])


def write_program(model: PreTrainedModel, inputs: ExportInputs, kind: ProgramFormat, folder: Path) -> None:
    """Write a model's program with export.json, which says how it was traced, as transformers' `ExportedModel` reads it.

    Args:
        model: Model in evaluation mode.
        inputs: Inputs to trace with, and their free sizes.
        kind: Format of the program.
        folder: Folder to write to.
    """
    module_name, class_name = EXPORTERS[kind]
    module = exporters_module(module_name)
    exporter_class = getattr(module, class_name)  # a table names it
    with quiet():
        config = exporter_class.config_class(dynamic_shapes=inputs.dynamic_shapes())
        wrapped = NamedOutputs(model).eval()
        exporter_class().export(wrapped, arguments_of(inputs.example), config).save_pretrained(folder)


def run_program(folder: Path, kind: ProgramFormat, inputs: Tensors) -> Tensors:
    """The outputs of a program that was written, by name.

    Args:
        folder: Folder that `write_program` wrote.
        kind: Format of the program.
        inputs: Tensors by name.
    """
    path = folder / PROGRAM_FILES[kind]
    with quiet(), torch.inference_mode():
        if kind == "torch-export":
            return torch.export.load(str(path)).module()(**arguments_of(inputs))
        runtime: Any = importlib.import_module("onnxruntime")  # has no types
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        arrays = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()]
        return {name: torch.from_numpy(value) for name, value in zip(names, session.run(None, arrays), strict=True)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence for the exporters, which print steps and warn of versions; errors are raised as ever."""
    verbosity, level = transformers_logging.get_verbosity(), logging.root.manager.disable
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        transformers_logging.set_verbosity(verbosity)
        if shows_progress:
            transformers_logging.enable_progress_bar()
