"""Whole recipes of pre-training, and what their words on the command line mean."""

from pathlib import Path

import pytest
from runs import make_recipe, write_recipe

from hf_maskssl.training import load_pretraining_recipe

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "recipes"


def test_a_written_recipe_is_read_back(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "run", probe={"every_steps": 3}, warmup_steps=1)
    assert load_pretraining_recipe(write_recipe(recipe, tmp_path / "recipe.yaml")) == recipe


def test_names_that_the_probe_has_too_mean_the_training_section() -> None:
    words = ["--learning_rate", "2e-3", "--batch_size", "7", "--weight_decay=0.5", "--probe.batch_size", "9"]
    recipe = load_pretraining_recipe(RECIPES / "digits.yaml", words)
    assert (recipe.training.learning_rate, recipe.training.batch_size, recipe.training.weight_decay) == (2e-3, 7, 0.5)
    assert (recipe.probe.learning_rate, recipe.probe.batch_size, recipe.probe.weight_decay) == (1e-4, 9, 1e-4)


def test_flags_fields_of_the_model_and_lists() -> None:
    recipe = load_pretraining_recipe(
        RECIPES / "digits.yaml",
        ["--resume", "--hidden_size", "32", "--report_to", "tensorboard", "--max_grad_norm", "1"],
    )
    assert recipe.training.resume and recipe.model["hidden_size"] == 32
    assert recipe.training.report_to == ["tensorboard"] and recipe.training.max_grad_norm == 1.0


def test_an_unknown_word_is_named_with_the_nearest_field() -> None:
    with pytest.raises(ValueError, match=r"override --learning_rat: unknown field \(did you mean 'learning_rate'\?\)"):
        load_pretraining_recipe(RECIPES / "digits.yaml", ["--learning_rat", "1"])


def test_a_recipe_that_only_probes_takes_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_pretraining_recipe(RECIPES / "fluorescence.yaml", ["--max_train_samples", "5"])
    assert recipe.data.max_train_samples == 5 and recipe.model == {}
