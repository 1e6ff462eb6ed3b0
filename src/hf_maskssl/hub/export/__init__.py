"""Checkpoints as ONNX, as a torch.export program or as a plain ViT: files that run without this package."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ...checkpoint_folders import checkpoint_folder
from ...data.arguments import checkpoint_name
from ...data.processors import load_processor
from ...files import JsonObject, did_you_mean, refuse_full_folder, whole_folder
from .checking import TOLERANCE, ExportDiffers, check_difference, largest_difference, outputs_of
from .description import FORMATS, ExportFormat, describe, write_description
from .heads import OpenedModel, open_model
from .programs import check_packages, quiet, run_program, write_program
from .readme import write_readme
from .shapes import ExportInputs, export_inputs
from .vit import check_vit_request, export_vit

__all__ = ["FORMATS", "TOLERANCE", "ExportDiffers", "ExportOptions", "export"]

# What prepares the inputs travels with the program.
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        format: "onnx", "torch-export" or "vit".
        head: Name of the head, or "encoder"; None means what the checkpoint was saved as.
        inputs: Names of the modalities to read, for models of several; None means those of the head, or all.
        fixed_length: Whether to keep one length where the model takes several.
        observed_mask: Whether to read a mask of missing values beside the values.
        tolerance: Largest difference from the model's outputs, as a share of the largest value where this is above 1.
    """

    format: ExportFormat = "onnx"
    head: str | None = None
    inputs: Sequence[str] | None = None
    fixed_length: bool = False
    observed_mask: bool = False
    tolerance: float = TOLERANCE


def export(model: str, output: Path, options: ExportOptions | None = None) -> JsonObject:
    """Export a checkpoint into a folder, which appears when the export has been compared with the model, or not at all.

    Args:
        model: Checkpoint folder or Hub name.
        output: Folder to write; must be new or empty.
        options: What is exported; None is the checkpoint as it was saved, to ONNX.

    Returns:
        What export.json says: "model", "head", "inputs", "outputs", "labels", "check" with its "largest_difference", ...

    Raises:
        ValueError: An unknown format, head or input, a model that the format cannot hold, or a folder that holds something.
        ExportDiffers: The export does not compute what the model computes.
        ImportError: A package of the format is missing.
        FileNotFoundError: No such checkpoint.
    """
    options = options or ExportOptions()
    if options.format not in get_args(ExportFormat):
        raise ValueError(
            f"--format: expected one of {list(FORMATS)}, got {options.format!r}{did_you_mean(options.format, FORMATS)}."
        )
    refuse_full_folder(output, "--output")
    if options.format != "vit":
        check_packages(options.format)
    source = checkpoint_folder(model, "MODEL")
    with quiet():
        opened = open_model(source, options.head)
    if options.format == "vit":
        check_vit_request(opened, options.inputs, options.observed_mask)
    with whole_folder(output, "--output") as folder:
        return _fill(folder, source, checkpoint_name(model), opened, options)


def _fill(folder: Path, source: Path, name: str, opened: OpenedModel, options: ExportOptions) -> JsonObject:
    """Write everything into `folder` and compare it with the model."""
    processor = load_processor(source)
    if options.format == "vit":
        inputs, difference = export_vit(opened, options.inputs, folder)
    else:
        inputs = export_inputs(
            opened.model, opened.method, opened.head, processor, options.inputs, options.fixed_length
        )
        if options.observed_mask:
            inputs = inputs.with_observed_mask(opened.model.config)
        difference = _write_and_compare(folder, opened, inputs, options)
        for pattern in PROCESSOR_FILES:
            for file in source.glob(pattern):
                shutil.copyfile(file, folder / file.name)
    check_difference(difference, options.tolerance)
    description = describe(opened, inputs, options.format, source, name)
    description["check"] = {"tolerance": options.tolerance, "largest_difference": difference}
    write_description(folder, description)
    write_readme(folder, description, opened.model.config, processor)
    return description


def _write_and_compare(folder: Path, opened: OpenedModel, inputs: ExportInputs, options: ExportOptions) -> float:
    kind = options.format
    assert kind != "vit", "`export_vit` writes that one"
    write_program(opened.model, inputs, kind, folder)
    return largest_difference(
        outputs_of(opened.model), lambda given: run_program(folder, kind, given), inputs.checks()
    )
