"""A stranger's script, plain transformers with one added import, on checkpoints of this package."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetuning_runs import MODELS, write_task
from transformers import AutoModelForPreTraining, AutoModelForSequenceClassification, AutoTokenizer

from forked import run_script
from hf_maskssl.data import build_config, build_processor, data_arguments, load_splits

SCRIPT = Path(__file__).with_name("plain_transformers.py")


def run_fresh(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter, where the order of the script's imports counts."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, *command]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=150)


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [("metamae", "utf-8"), ("sma", "alphabet"), ("sma_latents", "utf-8")],
)
def test_plain_script_learns_and_its_model_loads(name: str, tokenizer: str, tmp_path: Path) -> None:
    section = write_task(tmp_path, "classification")
    model = dict(MODELS[name])
    if tokenizer == "utf-8":
        section |= {"alphabet": None, "tokenizer": "utf-8"}
        model |= {"vocab_size": 262, "max_position_embeddings": 12}
    args = data_arguments(**section)
    config = build_config(model)
    rows = load_splits(args)["train"]
    processor = build_processor(args, config, rows)
    assert processor is not None
    torch.manual_seed(0)
    AutoModelForPreTraining.from_config(config).save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(rows["word"], rows["label"], strict=True))
    command = [str(SCRIPT), "checkpoint", "data.csv", "output"]
    result = run_fresh(command, tmp_path) if name == "metamae" else run_script(command, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-5000:]
    found = re.search(r"accuracy ([\d.]+) -> ([\d.]+)", result.stdout)
    assert found is not None and float(found[2]) > max(0.9, float(found[1]) - 0.01)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "output")
    AutoTokenizer.from_pretrained(tmp_path / "output")


def test_the_script_knows_nothing_but_the_import() -> None:
    code = SCRIPT.read_text(encoding="utf-8")
    assert code.count("hf_maskssl") == 1 and "trust_remote_code" not in code
