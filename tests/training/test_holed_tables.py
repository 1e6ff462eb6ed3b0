"""A table with missing values, from pre-training to features, a probe and a fine-tuned model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import TABLE_MODEL, make_recipe, train, write_holes
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, pipeline

from hf_maskssl import embed
from hf_maskssl.data import prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.features import extract_features
from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune

SMA_TABLE: dict[str, Any] = {
    "model_type": "sma",
    "modality": "series",
    "series_length": 6,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_masked_per_query": 1,
}


@pytest.mark.parametrize(
    "model", [TABLE_MODEL, pytest.param(SMA_TABLE, marks=pytest.mark.slow)], ids=["metamae", "sma"]
)
def test_from_pretraining_to_a_finetuned_model(model: dict[str, Any], tmp_path: Path) -> None:
    data = write_holes(tmp_path / "table.csv") | {
        "split": "random",
        "split_seed": 3,
        "split_fractions": [0.6, 0.2, 0.2],
    }
    trainer, state = train(make_recipe(tmp_path / "pretrained", model=model, data=data, max_steps=3))
    assert all(np.isfinite(list(entry.values())).all() for entry in state.history)
    report = json.loads((tmp_path / "pretrained" / "data_report.json").read_text())
    assert 0.02 < report["splits"]["train"]["missing_share"] < 0.2
    encoder = AutoModel.from_pretrained(tmp_path / "pretrained")
    prepared = prepare_data(data_arguments(**data), encoder.config, trainer.prepared.processor)
    features = extract_features(encoder, prepared.train, prepared.collator, batch_size=7)
    assert np.isfinite(features.values).all() and len(features) == len(prepared.train)
    # Rows by themselves, some of which lack values and some of which do not, have the features that they have in a batch.
    rows = [prepared.train[row] for row in range(6)]
    alone = extract_features(encoder, rows, prepared.collator, batch_size=1)
    np.testing.assert_allclose(alone.values, features.values[:6], rtol=1e-4, atol=1e-5)
    # And so in Python and in transformers' pipeline: lists, and dicts in which None is missing.
    table = [[0.5, None, 0.1, float("nan"), -1.0, 0.3], [0.0] * 6]
    found = embed(str(tmp_path / "pretrained"), table)
    assert np.isfinite(found).all()
    named = [dict(zip("abcdef", row, strict=True)) for row in table]
    features_of = pipeline("masked-feature-extraction", model=str(tmp_path / "pretrained"))
    for row, expected in zip(named, found, strict=True):
        np.testing.assert_allclose(features_of(row), expected, rtol=1e-4, atol=1e-5)
    recipe = FinetuningRecipe(
        model={},
        data=data_arguments(**data),
        finetuning=FinetuningArguments(
            checkpoint=str(tmp_path / "pretrained"),
            output_dir=str(tmp_path / "run"),
            num_train_epochs=1.0,
            batch_size=8,
            seeds=[0],
            save_model=True,
        ),
    )
    finetune(recipe, write_finetuned_card)
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "| missing values | " in card
    head = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    processor = AutoFeatureExtractor.from_pretrained(tmp_path / "run" / "model")
    inputs = processor([[1.0, None, 0.5, float("nan"), 2.0, 0.1], [0.0] * 6], return_tensors="pt")
    with torch.no_grad():
        assert head(**inputs).logits.isfinite().all()
