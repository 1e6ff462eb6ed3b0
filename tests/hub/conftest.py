"""Finished runs as the training loop leaves them, without the training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from card_runs import RUNS, finished_state, model_section
from transformers import AutoModelForPreTraining

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.hub import cards
from hf_maskssl.recipes import build_config
from hf_maskssl.training.pretraining.arguments import PretrainingArguments, PretrainingRecipe

MakeRun = Callable[..., tuple[PretrainingRecipe, Any, Path]]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run("image")` is (recipe, state, checkpoint folder with model and processor, no card yet)."""

    def make(name: str, model: dict[str, Any] | None = None, **training: Any) -> tuple[PretrainingRecipe, Any, Path]:
        _, data, build_processor = RUNS[name]
        recipe = PretrainingRecipe(
            model={**model_section(name), **(model or {})},
            data=data_arguments(**data),
            probe=ProbeArguments(every_steps=10, max_samples=500),
            training=PretrainingArguments(**{"max_steps": 30, "batch_size": 32, "seed": 7, **training}),
        )
        folder = tmp_path / name
        torch.manual_seed(0)
        AutoModelForPreTraining.from_config(build_config(recipe.model)).save_pretrained(folder)
        processor = build_processor()
        if processor is not None:
            processor.save_pretrained(folder)
        return recipe, finished_state(), folder

    return make


@pytest.fixture
def blank_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards with a stand-in for the picture of curves."""
    monkeypatch.setattr(cards, "draw_curves", lambda history, path: path.write_bytes(b"picture"))
