"""Open one checkpoint folder and write down its encoder's outputs: run by `loading.py` as a process of its own.

    python load_checkpoint.py FOLDER INPUTS.safetensors OUTPUTS.safetensors [--without_package]

It imports nothing of this package at its top, because it also plays the user who does not have it.
"""

import argparse
import importlib.abc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer

PACKAGE = "hf_maskssl"


class PackageBlocker(importlib.abc.MetaPathFinder):
    """An import hook that makes the package absent, however it is installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--without_package", action="store_true")
    options = parser.parse_args()
    remote: dict[str, Any] = {}
    if options.without_package:
        sys.meta_path.insert(0, PackageBlocker())
        remote = {"trust_remote_code": True}
    else:
        __import__(PACKAGE)
    load_processors(options.folder, remote)
    encoder, info = AutoModel.from_pretrained(options.folder, output_loading_info=True, **remote)
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(
            f"AutoModel leaves weights random: missing {sorted(info['missing_keys'])}, of another shape "
            f"{sorted(info['mismatched_keys'])}."
        )
    with torch.inference_mode():
        outputs = encoder(**arguments_of(load_file(options.inputs)))
    # The outputs are copied: safetensors refuses tensors that share memory, as a pooled vector may with the last hidden state.
    tensors = {name: value.contiguous().clone() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    save_file(tensors, options.outputs)


def arguments_of(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A file's tensors as arguments; `inputs.NAME` is the entry NAME of the argument `inputs`, which may have entries, too."""
    arguments: dict[str, Any] = {}
    for name, value in tensors.items():
        *tables, last = name.split(".")
        entries = arguments
        for table in tables:
            entries = entries.setdefault(table, {})
        entries[last] = value
    return arguments


def load_processors(folder: Path, remote: dict[str, Any]) -> None:
    """Open whatever prepares the inputs, through the Auto class that a user would take."""
    if (folder / "tokenizer_config.json").is_file():
        AutoTokenizer.from_pretrained(folder, **remote)
    settings_file = folder / "preprocessor_config.json"
    if not settings_file.is_file():
        return
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    auto_class = AutoImageProcessor if "image_processor_type" in settings else AutoFeatureExtractor
    auto_class.from_pretrained(folder, **remote)


if __name__ == "__main__":
    main()
