"""The search for hyper-parameters: on validation alone, resumed where it was stopped, and the best trained on the seeds."""

import importlib.util
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from finetuning_runs import make_finetuning
from test_finetuning import write_recipe
from test_stopped_finetuning import raise_in_step

from hf_maskssl.training.finetuning.arguments import FinetuningRecipe, load_finetuning_recipe
from hf_maskssl.training.finetuning.search_space import draw_values, parse_space
from hf_maskssl.training.finetuning.stopping import RunStopped
from hf_maskssl.training.finetuning.sweep import Finetuner, finetune, finetune_from_command_line
from hf_maskssl.training.finetuning.trials import Trials

SPACE: dict[str, Any] = {"learning_rate": [1e-4, 1e-2, "log"], "weight_decay": [0, 0.1], "batch_size": [4, 8]}
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="the extra search")
SAMPLERS = ["random", pytest.param("optuna", marks=needs_optuna)]


def recipe_of(folder: Path, **changes: Any) -> FinetuningRecipe:
    fields = {"num_train_epochs": 1.0, "search_trials": 3, "search": SPACE, "save_model": False}
    return make_finetuning(folder, **fields | changes)


@pytest.fixture
def random_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_maskssl.training.finetuning.search.chosen_sampler", lambda: "random")


def trials_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "run" / "search" / "trials.json").read_text())["trials"]


@pytest.mark.slow
def test_the_best_trial_is_trained_on_the_seeds(
    tmp_path: Path, random_draws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[bool] = []
    original = Trials._score
    monkeypatch.setattr(
        Trials, "_score", lambda self, *words: scored.append(self.scores_test) or original(self, *words)
    )
    results = finetune(recipe_of(tmp_path))
    trials = trials_of(tmp_path)
    best = max(trials, key=lambda trial: trial["score"])
    assert len(trials) == 3 and results["search"]["best"] == best["values"]
    assert {run["learning_rate"] for run in results["runs"]} == {best["values"]["learning_rate"]}
    assert [run["seed"] for run in results["runs"]] == [0, 1]
    assert results["settings"]["finetuning"]["batch_size"] == best["values"]["batch_size"]
    assert scored == [True, True], "no trial looks at the test split"
    for trial in trials:
        assert 1e-4 <= trial["values"]["learning_rate"] <= 1e-2 and trial["values"]["batch_size"] in range(4, 9)
    table = (tmp_path / "run" / "search" / "trials.md").read_text()
    assert f"**{best['number']}**" in table and "weight_decay" in table
    assert "Chosen by 3 trials on the validation split" in (tmp_path / "run" / "results.md").read_text()
    assert sorted(path.name for path in (tmp_path / "run" / "search").iterdir()) == ["trials.json", "trials.md"]


@pytest.mark.slow
def test_a_stopped_search_goes_on(tmp_path: Path, random_draws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    fields = {"search": {"learning_rate": [1e-4, 1e-2, "log"]}, "search_trials": 2}
    finetune(recipe_of(tmp_path / "whole", **fields))
    with monkeypatch.context() as patch:
        raise_in_step(patch, 8, signal.SIGTERM)  # in the second trial
        with pytest.raises(RunStopped):
            finetune(recipe_of(tmp_path / "stopped", **fields))
    first, second = trials_of(tmp_path / "stopped")
    assert first["score"] is not None and second["score"] is None
    finetune(recipe_of(tmp_path / "stopped", **fields))
    for found, expected in zip(trials_of(tmp_path / "stopped"), trials_of(tmp_path / "whole"), strict=True):
        assert found["values"] == expected["values"] and found["score"] == expected["score"]


@pytest.mark.slow
def test_trials_can_be_added_and_those_of_another_recipe_are_refused(tmp_path: Path, random_draws: None) -> None:
    finetune(recipe_of(tmp_path, search_trials=1, seeds=[0]))
    before = trials_of(tmp_path)
    finetune(recipe_of(tmp_path, search_trials=2, seeds=[0]))
    assert trials_of(tmp_path)[0] == before[0] and len(trials_of(tmp_path)) == 2
    with pytest.raises(
        ValueError, match=r"holds trials of another recipe \(finetuning.adam_beta2 was 0.999, is now 0.9"
    ):
        finetune(recipe_of(tmp_path, search_trials=2, seeds=[0], adam_beta2=0.9))


def test_runs_of_another_recipe_are_refused_before_the_trials(tmp_path: Path, random_draws: None) -> None:
    Finetuner(recipe_of(tmp_path, weight_decay=0.02)).claim_folder()
    with pytest.raises(
        ValueError, match=r"run holds runs of another recipe \(finetuning.adam_beta2 was 0.999, is now 0.9\)"
    ):
        finetune(recipe_of(tmp_path, adam_beta2=0.9))
    assert not (tmp_path / "run" / "search").exists()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_are_repeated_and_stay_in_their_ranges(sampler: Any) -> None:
    space = parse_space(
        {
            "learning_rate": ["1e-5", 1e-1, "log"],  # YAML reads 1e-5 as a word
            "warmup_steps": [1, 3],
            "lr_scheduler_type": {"choices": ["linear", "cosine"]},
        }
    )
    trials: list[dict[str, Any]] = []
    for number in range(12):
        values = draw_values(space, trials, 0, True, sampler)
        assert values == draw_values(space, trials, 0, True, sampler)
        trials.append({"number": number, "values": values, "score": -abs(math.log10(values["learning_rate"]) + 3)})  # type: ignore[arg-type]
    rates = [trial["values"]["learning_rate"] for trial in trials]
    assert all(1e-5 <= rate <= 1e-1 for rate in rates) and len(set(rates)) == 12
    assert min(rates) < 1e-3 < max(rates), "evenly over the logarithm"
    assert {type(trial["values"]["warmup_steps"]) for trial in trials} == {int}
    assert {trial["values"]["lr_scheduler_type"] for trial in trials} == {"linear", "cosine"}


@needs_optuna
def test_optuna_learns_from_the_trials() -> None:
    space = parse_space({"learning_rate": [1e-5, 1e-1, "log"]})
    trials: list[dict[str, Any]] = []
    for _ in range(40):
        values = draw_values(space, trials, 0, True, "optuna")
        trials.append({"values": values, "score": -abs(math.log10(float(values["learning_rate"])) + 2)})
    last = [-trial["score"] for trial in trials[-10:]]
    assert sum(last) / 10 < 0.8, "random draws are 1.3 away"


def test_default_ranges_lie_around_the_recipes_learning_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from hf_maskssl.training.finetuning.search import search_space as ranges

    found = ranges(recipe_of(tmp_path, search=None, learning_rate=1e-3, layer_decay=0.75).finetuning)
    assert {name: str(each) for name, each in found.items()} == {
        "learning_rate": "0.0001 to 0.01, log",
        "weight_decay": "0 to 0.1",
        "warmup_ratio": "0 to 0.2",
        "layer_decay": "0.5 to 1",
    }


def test_the_command_line_counts_trials(tmp_path: Path) -> None:
    path = write_recipe(make_finetuning(tmp_path), tmp_path / "recipe.yaml")
    for words in (["--search", "7"], ["--search=7"], ["--search_trials", "7"]):
        found = load_finetuning_recipe(path, words).finetuning
        assert found.search_trials == 7 and found.search is None
    found = load_finetuning_recipe(path, ["--search", "{weight_decay: [0, 0.1]}", "--search", "2"]).finetuning
    assert found.search == {"weight_decay": [0, 0.1]} and found.search_trials == 2


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"learning_rat": [1, 2]}, r"no field that is searched \(did you mean 'learning_rate'"),
        (
            {"metric": {"choices": ["a", "b"]}},
            "finetuning.search.metric: no field that is searched; these are: learning_rate",
        ),
        ({"weight_decay": [0.1, 0.0]}, "expected two numbers, the lower one first, got"),
        ({"learning_rate": [0, 1, "log"]}, "the lower one first and above 0"),
        ({"learning_rate": [1e-5, 1e-3, "lin"]}, r"expected \[low, high\], \[low, high, log\] or"),
        ({"learning_rate": ["a", "b"]}, r"expected \[low, high\]"),
        ({"batch_size": [1, 2.5]}, "expected two whole numbers"),
        ({"lr_scheduler_type": [1, 2]}, r"expected \{choices: \[two values or more\]\}"),
        ({}, "expected a range for at least one field"),
    ],
)
def test_ranges_that_are_none_are_named(search: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        make_finetuning(tmp_path, search=search)


def test_what_cannot_be_searched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"is a list to try, but finetuning.search_trials is 3"):
        recipe_of(tmp_path, learning_rate=[1e-3, 1e-2])
    with pytest.raises(ValueError, match=r"finetuning.weight_decay: expected at least 0, got -1"):
        finetune(recipe_of(tmp_path, search={"weight_decay": [-1, 0]}))
    with pytest.raises(ValueError, match=r"finetuning.search_trials=3 needs a validation split to choose on"):
        finetune(
            recipe_of(tmp_path) if False else make_finetuning(tmp_path, rows={"train": 8, "test": 4}, search_trials=3)
        )
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"This search needs optuna, .*hf_maskssl\[search\]"):
        draw_values(parse_space({"weight_decay": [0, 1]}), [], 0, True, "optuna")


def test_the_kept_model_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {
        "push_to_hub": True,
        "hub_model_id": "org/name",
        "hub_private": True,
        "num_train_epochs": 1.0,
        "seeds": [0],
    }
    path = write_recipe(make_finetuning(tmp_path, **fields), tmp_path / "recipe.yaml")
    monkeypatch.setattr(sys, "argv", ["finetune", str(path)])
    sent: list[Any] = []
    finetune_from_command_line("", publish=lambda *words: sent.append(words))
    assert sent == [(tmp_path / "run" / "model", "org/name", True)]
