"""A table of numbers and categories with holes, from pre-training to features, a probe, imputation and a fine-tuned model."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from runs import MIXED_MODEL, make_recipe, train, write_mixed
from transformers import AutoFeatureExtractor, AutoModelForPreTraining, AutoModelForSequenceClassification, pipeline

from hf_maskssl import embed, impute
from hf_maskssl.commands.impute import error_lines
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune

SMA_MIXED: dict[str, Any] = {
    **{name: value for name, value in MIXED_MODEL.items() if name not in ("patch_size", "image_size")},
    "model_type": "sma",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_masked_per_query": 1,
}
SPLITS = {"split": "random", "split_seed": 3, "split_fractions": [0.6, 0.2, 0.2]}


@pytest.mark.parametrize("model", [MIXED_MODEL, SMA_MIXED], ids=["metamae", "sma"])
def test_from_pretraining_to_words(model: dict[str, Any], tmp_path: Path) -> None:
    data = write_mixed(tmp_path / "table.csv") | SPLITS
    folder = tmp_path / "pretrained"
    _, state = train(make_recipe(folder, model=model, data=data, probe={"every_steps": 3, "k": 3}, max_steps=3))
    assert all(np.isfinite(list(entry.values())).all() for entry in state.history)
    assert {"train/numbers", "train/categories"} <= set().union(*state.history)
    report = json.loads((folder / "data_report.json").read_text())
    assert report["categories"] == {"b": 3, "d": 2, "e": 4}
    assert AutoModelForPreTraining.from_pretrained(folder).config.category_counts == [0, 3, 0, 2, 4, 0]
    # The same features of a file, a DataFrame, dicts and lists, and by transformers' pipeline.
    table = pd.read_csv(tmp_path / "table.csv")
    found = embed(str(folder), table)
    rows = table.astype(object).where(table.notna(), None)[list("abcdef")]
    features_of = pipeline("masked-feature-extraction", model=str(folder))
    others = {
        "file": embed(str(folder), str(tmp_path / "table.csv")),
        "dicts": embed(str(folder), rows.to_dict("records")),
        "lists": embed(str(folder), rows.to_numpy().tolist()),
        "pipeline": np.array([features_of(row) for row in rows.to_dict("records")[:5]]),
    }
    for name, other in others.items():
        np.testing.assert_allclose(other, found[: len(other)], rtol=1e-4, atol=1e-5, err_msg=name)
    # A word that training did not have is a hole.
    strange, holed = (table.assign(b=word) for word in ("unheard of", None))
    np.testing.assert_allclose(embed(str(folder), strange), embed(str(folder), holed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [MIXED_MODEL, SMA_MIXED], ids=["metamae", "sma"])
def test_holes_are_filled_with_the_datas_own_words(model: dict[str, Any], tmp_path: Path) -> None:
    data = write_mixed(tmp_path / "table.csv") | {"quantile_columns": ["c"]}
    train(make_recipe(tmp_path / "pretrained", model=model, data=data, max_steps=1))
    table = pd.read_csv(tmp_path / "table.csv")
    table.loc[0, "b"] = "unheard of"
    filled = impute(tmp_path / "pretrained", table, hidden_share=0.5)
    names = list("abcdef")
    was_missing = table[names].isna().to_numpy()
    np.testing.assert_array_equal(filled.was_missing[:, 0], was_missing)
    assert not filled.data[names].isna().any(axis=None) and filled.data.loc[0, "b"] == "unheard of"
    pd.testing.assert_frame_equal(
        filled.data.where(~filled.data.isin([])).mask(table.isna()).astype(object), table.astype(object)
    )
    assert set(filled.data["b"]) <= {"low", "mid", "high", "unheard of"} and set(filled.data["e"]) <= {1, 2, 3, 5}
    assert set(map(str, filled.data["d"])) <= {"True", "False"}
    errors = {error.name: error for error in filled.errors}
    for name in names:
        error = errors[name]
        assert (error.rmse is None) == (error.wrong is not None) == (name in "bde")
        assert error.wrong is None or 0.0 <= error.wrong <= 1.0
    lines = error_lines(filled.errors)
    assert [line.split()[0] for line in lines] == ["rmse", "a", "c", "f", "wrong", "b", "d", "e"]
    assert max(map(len, lines)) <= 80 and lines[-1].count("%") == 2
    rows = table[names].astype(object).where(table[names].notna(), None)
    for given in (rows.to_dict("records"), rows.to_numpy().tolist()):
        again = impute(tmp_path / "pretrained", given, hidden_share=0.0).data
        assert isinstance(again[0], type(given[0]))
        found = [list(row.values()) if isinstance(row, dict) else row for row in again]
        assert [row[1] for row in found] == filled.data["b"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("model", [MIXED_MODEL, SMA_MIXED], ids=["metamae", "sma"])
def test_a_finetuned_model_reads_rows_of_words(model: dict[str, Any], tmp_path: Path) -> None:
    data = write_mixed(tmp_path / "table.csv") | SPLITS
    train(make_recipe(tmp_path / "pretrained", model=model, data=data, max_steps=1))
    settings = FinetuningArguments(
        checkpoint=str(tmp_path / "pretrained"),
        output_dir=str(tmp_path / "run"),
        num_train_epochs=1.0,
        batch_size=8,
        seeds=[0],
        save_model=True,
    )
    finetune(FinetuningRecipe(model={}, data=data_arguments(**data), finetuning=settings), write_finetuned_card)
    head = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    processor = AutoFeatureExtractor.from_pretrained(tmp_path / "run" / "model")
    inputs = processor([{"a": 1.0, "b": "low", "c": None, "d": True, "e": 5, "f": -0.5}] * 2, return_tensors="pt")
    with torch.no_grad():
        assert head(**inputs).logits.isfinite().all()
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "'b': 'high'" in card


def test_a_model_learns_which_word_goes_with_which_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Columns that say the same: what is hidden is found from the others, words and numbers alike."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 4, 400)
    words = np.array(["north", "east", "south", "west"])
    table = pd.DataFrame({"a": kind * 2.0, "b": words[kind], "c": words[::-1][kind], "d": 5.0 - kind})
    table.to_csv(tmp_path / "table.csv", index=False)
    model = SMA_MIXED | {
        "series_length": 4,
        "category_counts": [0, 4, 4, 0],
        "masking": "random",
        "num_hidden_layers": 1,
    }
    data = {"source": "csv", "data_files": str(tmp_path / "table.csv"), "kind": "tabular", "scale": 1.0}
    data |= {"max_train_samples": None}
    with caplog.at_level(logging.WARNING):
        train(make_recipe(tmp_path / "run", model=model, data=data, max_steps=80, batch_size=128, learning_rate=1e-2))
    # Rows of which nearly nothing is left are none that training, which hides two of four, has seen.
    errors = impute(tmp_path / "run", table, hidden_share=0.1).errors
    assert [error.name for error in errors] == list("abcd")
    for error in errors:
        if error.wrong is None:
            assert error.rmse is not None and error.rmse_of_mean is not None and error.rmse < 0.4 * error.rmse_of_mean
        else:
            assert error.wrong < 0.25 < 0.6 < (error.wrong_of_most_frequent or 0.0)
