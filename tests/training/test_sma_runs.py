"""SMA in the loop: the schedule of its masks follows the run, also a resumed one, and it learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import (
    LABELLED,
    SMA_MODEL,
    SMA_TEXT_MODEL,
    assert_same_weights,
    make_recipe,
    train,
    weights,
    without_time,
    write_text,
)

from hf_maskssl import SMAForMaskedModeling


def test_the_loop_tells_how_far_training_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    original = SMAForMaskedModeling.set_training_progress

    def listen(self: SMAForMaskedModeling, fraction: float) -> None:
        told.append(fraction)
        original(self, fraction)

    monkeypatch.setattr(SMAForMaskedModeling, "set_training_progress", listen)
    train(make_recipe(tmp_path, SMA_MODEL | {"mask_schedule": "widen"}, max_steps=5))
    assert told == [0.0, 0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize("kind", ["mix", "widen"])
def test_a_resumed_run_finds_its_place_in_the_schedule(
    kind: str, tmp_path: Path, resumed_at: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SMA_TEXT_MODEL | {"mask_schedule": kind, "hidden_dropout_prob": 0.1}
    fields: dict[str, Any] = {
        "model": model,
        "data": write_text(tmp_path / "text.txt"),
        "save_steps": 4,
        "max_steps": 10,
    }
    _, expected = train(make_recipe(tmp_path / "whole", **fields))
    original = SMAForMaskedModeling.set_training_progress

    def stop(self: SMAForMaskedModeling, fraction: float) -> None:
        if fraction == 0.6:
            raise KeyboardInterrupt
        original(self, fraction)

    with monkeypatch.context() as patch:
        patch.setattr(SMAForMaskedModeling, "set_training_progress", stop)
        with pytest.raises(KeyboardInterrupt):
            train(make_recipe(tmp_path / "cut", **fields))
    _, found = train(make_recipe(tmp_path / "cut", **fields, resume=True))
    assert resumed_at() == [4]
    assert_same_weights(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert without_time(found) == without_time(expected)


@pytest.mark.slow
def test_reconstruction_is_learnt(tmp_path: Path) -> None:
    """Well below what the mean of each pixel, known without looking at the others, would give."""
    model = SMA_MODEL | {"masking": "random", "mask_ratio": 0.3, "hidden_size": 32, "initializer_range": 0.1}
    fields: dict[str, Any] = {"max_steps": 400, "batch_size": 32, "learning_rate": 5e-3, "logging_steps": 50}
    model |= {"encoder_type": "self_attention", "decoder_query_residual": True, "intermediate_size": 64}
    trainer, state = train(make_recipe(tmp_path, model, LABELLED | {"max_train_samples": 600}, **fields))
    rows = trainer.prepared.train
    pixels = torch.stack([torch.tensor(rows[row]["pixel_values"]) for row in range(len(rows))])
    of_the_means = pixels.var(0).mean().item()
    assert state.history[-1]["train/loss"] < 0.85 * of_the_means
