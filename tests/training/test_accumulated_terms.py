"""Batches with unequally many masked tokens that are accumulated to one step train a model as one large batch does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_recipe, train, weights

import tiny_models
from hf_maskssl.data.preparation import PreparedData
from hf_maskssl.training.pretraining import loop
from hf_maskssl.training.pretraining.accumulating import AccumulatedMean

LENGTHS, WIDTH = [9, 3, 4, 8, 2, 9, 6, 3], 9
MAE = {"num_adaptation_steps": 0, "contrastive_weight": 0.0}


def texts() -> list[dict[str, Any]]:
    """Padded texts with masks of their own: a sample has the same one in whatever batch it is."""
    draws = torch.Generator().manual_seed(0)
    rows = []
    for number, length in enumerate(LENGTHS):
        is_real = torch.arange(WIDTH) < length
        ids = torch.randint(3, 7, (WIDTH,), generator=draws)
        is_masked = is_real & (torch.arange(WIDTH) >= max(1, length // 3))
        rows.append(
            {"input_ids": ids * is_real, "attention_mask": is_real.long(), "is_masked": is_masked, "index": number}
        )
    return rows


def stacked(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.parametrize(("model_type", "fields"), [("sma", {"masking": "random"}), ("metamae", MAE)])
def test_two_batches_train_as_one(
    model_type: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = PreparedData(texts(), None, None, None, stacked, None, None, None, ("index",))  # type: ignore[arg-type]
    monkeypatch.setattr(loop, "prepare_data", lambda *_, **__: prepared)
    model = tiny_models.section(model_type, **tiny_models.MODALITIES[model_type]["tokens"], **fields)

    def trained(name: str, parts: int) -> dict[str, torch.Tensor]:
        settings = {
            "batch_size": 4 // parts,
            "gradient_accumulation_steps": parts,
            "max_steps": 3,
            "learning_rate": 1e-2,
        }
        train(make_recipe(tmp_path / name, model, **settings, max_grad_norm=1.0, adam_epsilon=1e-3))
        return weights(tmp_path / name)

    def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
        return max((first[name] - second[name]).abs().max().item() for name in first)

    whole = trained("whole", 1)
    assert difference(whole, trained("halves", 2)) < 1e-6
    assert difference(whole, trained("quarters", 4)) < 1e-6
    monkeypatch.setattr(AccumulatedMean, "weighed", lambda self, loss, terms: loss)
    assert difference(whole, trained("alike", 2)) > 1e-4
