"""Proof that a checkpoint folder loads both ways of the cargo rule, each in a fresh process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedConfig

import hf_maskssl

SCRIPT = Path(__file__).with_name("load_checkpoint.py")
TOLERANCE = 1e-5
BATCH_SIZE = 2


def check_loading(folder: Path) -> None:
    """Load the encoder with the package registered, and with the package absent from the folder's own code.

    Both run in processes of their own, without network, on one generated batch; what they give must agree.

    Args:
        folder: What `save_pretrained` wrote. Its code is run.

    Raises:
        ValueError: A way fails, leaves a weight random, or gives other outputs than the other; the message says which.
    """
    config = AutoConfig.from_pretrained(folder)
    ways = {"with hf_maskssl imported": [], "without hf_maskssl, trust_remote_code=True": ["--without_package"]}
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.safetensors"
        save_file(example_inputs(config), inputs)
        outputs, processes = [], []
        for number, flags in enumerate(ways.values()):
            outputs.append(Path(scratch) / f"outputs-{number}.safetensors")
            processes.append(_start(folder, inputs, outputs[-1], flags, Path(scratch) / f"modules-{number}"))
        # Both run at the same time, so both are waited for before either is judged.
        errors = [process.communicate()[1] for process in processes]
        problems = [
            f"{way}: {error.strip().splitlines()[-1] if error.strip() else f'exit code {process.returncode}'}"
            for way, process, error in zip(ways, processes, errors, strict=True)
            if process.returncode
        ]
        if problems:
            raise ValueError("\n- ".join([f"{folder} does not load", *problems]))
        compare_outputs(folder, *(load_file(path) for path in outputs))


def _start(folder: Path, inputs: Path, outputs: Path, flags: list[str], modules: Path) -> subprocess.Popen[str]:
    source = str(Path(hf_maskssl.__file__).resolve().parent.parent)  # may be known to this process alone
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        "HF_MODULES_CACHE": str(modules),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    command = [sys.executable, str(SCRIPT), str(folder), str(inputs), str(outputs), *flags]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def compare_outputs(folder: Path, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Refuse outputs of the two ways that differ.

    Raises:
        ValueError: Other names, or values further apart than `TOLERANCE`.
    """
    if set(first) != set(second):
        raise ValueError(f"{folder}: the two ways of loading give {sorted(first)} and {sorted(second)}.")
    for name, value in first.items():
        distance = (value.float() - second[name].float()).abs().max().item()
        if not distance <= TOLERANCE:  # NaN too
            raise ValueError(
                f"{folder}: `{name}` differs by {distance:.3g} between the package's code and the folder's own, which "
                "is of another version: save the model again with the installed package."
            )


def example_inputs(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """A small random batch that a model of this configuration takes.

    Returns:
        Argument -> tensor; `inputs.NAME` is the entry NAME of the argument `inputs`.

    Raises:
        ValueError: The model type is unknown here.
    """
    if config.model_type not in EXAMPLE_INPUTS:
        raise ValueError(
            f"model_type '{config.model_type}' is not of this package: expected one of {list(EXAMPLE_INPUTS)}."
        )
    return EXAMPLE_INPUTS[config.model_type](config)


def _signal_and_tokens(config: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    if config.has_patches:
        name = "input_values" if config.modality == "series" else "pixel_values"
        signal = torch.randn(BATCH_SIZE, config.num_channels, *config.signal_shape, generator=generator)
        is_channels_last = config.modality == "series" and getattr(config, "channels_last", False)
        inputs[name] = signal.transpose(1, 2).contiguous() if is_channels_last else signal
    if config.has_tokens:
        shape = (BATCH_SIZE, config.max_position_embeddings)
        inputs["input_ids"] = torch.randint(config.vocab_size, shape, generator=generator)
        inputs["attention_mask"] = torch.ones(shape, dtype=torch.int64)
        inputs["attention_mask"][-1, shape[1] // 2 + 1 :] = 0  # a padded row
    return inputs


def _sentence_pairs(config: Any) -> dict[str, torch.Tensor]:
    inputs = _signal_and_tokens(config)
    segments = torch.zeros_like(inputs["input_ids"])
    segments[:, segments.shape[1] // 2 :] = min(1, config.type_vocab_size - 1)
    return inputs | {"token_type_ids": segments}


def _aligned_images(config: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for modality in config.inputs():
        shape = (BATCH_SIZE, *modality.size(tuple(config.image_size)))
        if modality.is_categorical:
            images = torch.randint(modality.num_classes, shape, generator=generator)
        else:
            images = torch.randn(shape[0], modality.num_channels, *shape[1:], generator=generator)
        inputs[f"inputs.{modality.name}"] = images
    return inputs


# A new method adds its line here: model type -> a batch for its encoder.
EXAMPLE_INPUTS: dict[str, Callable[[Any], dict[str, torch.Tensor]]] = {
    "metamae": _signal_and_tokens,
    "sma": _signal_and_tokens,
    "multimae": _aligned_images,
    "pos_minimax_bert": _sentence_pairs,
}
