"""Writes the folders beside this file: what a version of the package saves, which later versions must open.

    PYTHONPATH=src:tests:tests/training python tests/saved/save_runs.py VERSION

Each method trains for two steps of four and is stopped there; a whole run gives the numbers that the stopped one must reach
when it is resumed. Written once for a version and never again.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from dense_runs import MULTIMAE, SCENES
from runs import LABELLED, MODEL, SMA_TEXT_MODEL, make_recipe, train, write_recipe, write_text
from safetensors.torch import save_file
from text_runs import BERT_MODEL, write_sentences
from transformers import AutoModel

from hf_maskssl.hub.card_recipes import NOT_REPRODUCED
from hf_maskssl.training.pretraining.arguments import effective_recipe

STEPS = 4
HERE = Path(__file__).resolve().parent


def cases() -> dict[str, dict[str, Any]]:
    """Model and data of each method; the files of the data lie in the present folder."""
    sentences = write_sentences(Path("."), {"train": 6})
    digits = LABELLED | {"validation_fraction": 0.1}
    return {
        "metamae": {"model": MODEL, "data": digits, "probe": {"every_steps": 2, "max_samples": 20, "k": 3}},
        "sma": {"model": SMA_TEXT_MODEL, "data": write_text(Path("text.txt"))},
        "multimae": {"model": MULTIMAE | {"task_balancing": "minimax"}, "data": SCENES | {"scale": 1.0}},
        "pos_minimax_bert": {"model": BERT_MODEL | {"task_balancing": "minimax"}, "data": sentences},
    }


def example_inputs(method: str) -> dict[str, Any]:
    """Inputs that follow from nothing but their shapes."""
    if method == "metamae":
        return {"pixel_values": torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)}
    if method == "multimae":
        rgb = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
        return {"inputs": {"rgb": rgb, "depth": rgb[:, :1].flip(-1)}}
    return {"input_ids": torch.arange(1, 13).reshape(2, 6) % 7}


def features(folder: Path, method: str) -> torch.Tensor:
    """The frozen encoder's hidden states of the example inputs."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**example_inputs(method)).last_hidden_state


def leave_code_out(checkpoint: Path) -> None:
    """Opened with the package, not with the code that travels: that code would stand in the repository a second time."""
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    for code in checkpoint.glob("*.py"):
        code.unlink()
        del manifest[code.name]
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    assert "auto_map" in config  # which stays: it names files that the package stands in for
    (checkpoint / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def main(version: str) -> None:
    root = HERE / version
    root.mkdir()
    os.chdir(root)
    for method, fields in cases().items():
        shared = {**fields, "logging_steps": 1, "max_steps": STEPS}
        _, whole = train(make_recipe(Path("whole"), **shared))
        recipe = make_recipe(Path(method), **shared, resume=True)
        write_recipe(recipe, Path(f"{method}.yaml"))
        Path("printed").mkdir(exist_ok=True)
        Path("printed", f"{method}.yaml").write_text(effective_recipe(recipe, NOT_REPRODUCED), encoding="utf-8")
        train(make_recipe(Path(method), **shared, save_steps=2))
        for path in (f"checkpoint-{STEPS:08d}", "README.md", "pictures"):
            shutil.rmtree(Path(method) / path, ignore_errors=True)
        for path in Path(method).iterdir():
            if path.is_file():
                path.unlink()  # the run's end; what the checkpoint holds is opened
        checkpoint = Path(method) / "checkpoint-00000002"
        leave_code_out(checkpoint)
        save_file({"hidden_states": features(checkpoint, method)}, f"{method}.safetensors")
        rest = [entry for entry in whole.history if entry["step"] > 2]
        Path(f"{method}.json").write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree("whole")


if __name__ == "__main__":
    main(sys.argv[1])
