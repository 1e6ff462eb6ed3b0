"""Proof that a checkpoint folder loads with this package and without it, each in a fresh process."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

import hf_maskssl

from ..methods import find_method

SCRIPT = Path(__file__).with_name("load_checkpoint.py")
TOLERANCE = 1e-5


def check_loading(folder: Path) -> None:
    """Load the encoder with the package registered, and with the package absent from the folder's own code.

    Both run in processes of their own, without network, on one generated batch; their outputs must agree.

    Args:
        folder: Folder that `save_pretrained` wrote. Its code is run.

    Raises:
        ValueError: A way fails, leaves a weight random, or gives other outputs than the other; the message says which.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    ways = {"with hf_maskssl imported": [], "without hf_maskssl, trust_remote_code=True": ["--without_package"]}
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.safetensors"
        save_file(find_method(config).example_inputs(config), inputs)
        outputs, processes = [], []
        for number, flags in enumerate(ways.values()):
            outputs.append(Path(scratch) / f"outputs-{number}.safetensors")
            processes.append(_start(folder, inputs, outputs[-1], flags, Path(scratch) / f"modules-{number}"))
        # Both run at the same time, so both are waited for before either is judged.
        errors = [process.communicate()[1] for process in processes]
        problems = [
            f"{way}: {last_error(error) or f'exit code {process.returncode}'}"
            for way, process, error in zip(ways, processes, errors, strict=True)
            if process.returncode
        ]
        if problems:
            raise ValueError("\n- ".join([f"{folder} does not load", *problems]))
        compare_outputs(folder, *(load_file(path) for path in outputs))


def last_error(output: str) -> str:
    """The line of a traceback that names its last error; messages may go on for many lines. The last line without one."""
    lines = output.strip().splitlines() or [""]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    return (named or lines)[-1]


def _start(folder: Path, inputs: Path, outputs: Path, flags: list[str], modules: Path) -> subprocess.Popen[str]:
    source = str(Path(hf_maskssl.__file__).resolve().parent.parent)  # perhaps only this process knows it
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
        ValueError: Other names of outputs, or values further apart than `TOLERANCE`.
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
