"""Baselines are tuned by rows that choose: the untuned model is a trial, scored rows have no part, nothing is done twice."""

import json
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from finetuning_runs import make_finetuning

from hf_maskssl.evaluation import deep_baselines, library_baselines
from hf_maskssl.evaluation.arguments import PACKAGES, LibraryModel
from hf_maskssl.evaluation.baselines import RawInputs
from hf_maskssl.evaluation.library_baselines import library_probe
from hf_maskssl.training.finetuning.baseline_search import SPACES, BaselineSearch
from hf_maskssl.training.finetuning.console import terminal_report
from hf_maskssl.training.finetuning.search_space import RandomTrial
from hf_maskssl.training.finetuning.sweep import finetune

pytestmark = pytest.mark.usefixtures("private_cache")

SPLITS = {"validation": 16, "test": 20}
PATCHED = {"PATIENCE": 1, "MAX_EPOCHS": 2}


@pytest.mark.parametrize("name", get_args(LibraryModel))
def test_every_model_takes_what_is_drawn(name: LibraryModel, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        pytest.skip("the extra baselines is not installed")
    for constant, value in PATCHED.items():
        monkeypatch.setattr(deep_baselines, constant, value)
    monkeypatch.setattr(library_baselines, "FOREST", {"n_estimators": 5})
    random = np.random.default_rng(0)
    values = random.normal(size=(80, 3)).astype(np.float32)
    labels = (values[:, 0] + 0.3 * random.normal(size=80) > 0).astype(np.int64)
    train, test = (RawInputs(labels[rows], values[rows]) for rows in (slice(60), slice(60, 80)))
    trial = RandomTrial(0, 1)
    settings: Any = {key: each.draw(trial, key) for key, each in SPACES[name].items()}
    untuned, tuned = (
        library_probe(name, train, test, "classification", 0, settings=chosen)[0].outputs for chosen in ({}, settings)
    )
    assert untuned is not None and tuned is not None and not np.allclose(untuned, tuned)
    if name == "xgboost":  # which says nothing of names that it does not know
        from xgboost import XGBClassifier

        assert set(settings) <= set(XGBClassifier().get_params())
    else:
        with pytest.raises(TypeError, match="no_such_setting"):
            library_probe(name, train, test, "classification", 0, settings={"no_such_setting": 1})


def test_settings_are_those_of_the_network_and_its_training() -> None:
    if find_spec(PACKAGES["tabnet"]) is None:
        pytest.skip("the extra baselines is not installed")
    settings = {"n_d": 16, "n_steps": 4, "gamma": 1.5, "lambda_sparse": 0.5, "learning_rate": 3e-3}
    network = deep_baselines.TabularNetwork("tabnet", "classification", 0, "cpu", settings)
    network.classes = np.arange(2)
    network.network = network._build(3, 2)
    built: Any = network.network
    assert (built.n_d, built.n_a, built.n_steps, built.gamma) == (16, 16, 4, 1.5)
    assert [group["lr"] for group in network._optimizer().param_groups] == [3e-3] and network.sparsity == 0.5


def search(path: Path, fit: Any, trials: int = 6, metric: str = "accuracy", seed: int = 0) -> BaselineSearch:
    return BaselineSearch("mlp", trials, seed, metric, "the validation split", path, fit)


def test_trials_are_drawn_by_the_seed_and_never_repeated(tmp_path: Path) -> None:
    seen: list[Mapping[str, float]] = []

    def fit(settings: Mapping[str, float]) -> dict[str, float]:
        seen.append(settings)
        return {"accuracy": 1 / (1 + abs(settings.get("layer_size", 0) - 200))}

    found = search(tmp_path / "a.json", fit, trials=4).run()
    assert seen[0] == {} and len(seen) == 4 and len({trial["layer_size"] for trial in seen[1:]}) == 3
    assert all(set(settings) == set(SPACES["mlp"]) for settings in seen[1:])
    nearest = min(seen[1:], key=lambda settings: abs(settings["layer_size"] - 200))
    assert found["settings"] == nearest == seen[found["best"]] and found["score"] > found["untuned_score"] == 1 / 201
    assert (found["trials"], found["failed"], found["rows"]) == (4, 0, "the validation split")
    assert found["space"]["alpha"] == "0 or 1e-06 to 0.001, log"
    first = list(seen)
    search(tmp_path / "a.json", fit, trials=6).run()
    assert len(seen) == 6, "four were stored"
    again = search(tmp_path / "a.json", fit, trials=4).run()
    assert again == found and len(seen) == 6
    search(tmp_path / "b.json", fit, trials=4).run()
    assert seen[6:] == first
    search(tmp_path / "c.json", fit, trials=2, seed=1).run()
    assert seen[-1] != first[1]
    # Trials of other ranges, as another version has them, are tried anew.
    content = json.loads((tmp_path / "a.json").read_text())
    content["trials"][2]["settings"]["layer_size"] = 7
    (tmp_path / "a.json").write_text(json.dumps(content))
    before = len(seen)
    assert search(tmp_path / "a.json", fit, trials=4).run() == found and len(seen) == before + 2


def test_errors_are_better_when_lower_and_a_fit_that_fails_is_no_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hf_maskssl")
    given = iter([5.0, 4.0, ValueError("outputs are no numbers"), float("nan"), 6.0])

    def fit(settings: Mapping[str, float]) -> dict[str, float]:
        value = next(given)
        if isinstance(value, ValueError):
            raise value
        return {"rmse": value}

    found = search(tmp_path / "a.json", fit, trials=5, metric="rmse").run()
    assert (found["best"], found["score"], found["untuned_score"], found["failed"]) == (1, 4.0, 5.0, 2)
    assert "trial 2: failed: outputs are no numbers" in caplog.text and "trial 0: rmse 5.0000 (untuned)" in caplog.text
    with pytest.raises(ValueError, match="accuracy cannot be computed on the validation split"):
        search(tmp_path / "b.json", lambda settings: {"rmse": 1.0}, trials=2).run()


def test_tuned_baselines_stand_in_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    scored: list[tuple[int, bool]] = []  # rows that are scored, and whether hyper-parameters are given
    original = library_baselines.library_probe

    def counted(*words: Any, **options: Any) -> Any:
        assert options["validation"] is not None and len(options["validation"]) == SPLITS["validation"]
        scored.append((len(words[2]), bool(options["settings"])))
        return original(*words, **options)

    monkeypatch.setattr(library_baselines, "library_probe", counted)
    fields: dict[str, Any] = {"max_steps": 1, "baselines": True, "baseline_models": ["hist_gradient_boosting"]}
    results = finetune(make_finetuning(tmp_path, baseline_trials=3, **fields))
    model = results["baselines"]["models"][-1]
    found = model["search"]
    assert found["trials"] == 3 and found["metric"] == "accuracy" and found["score"] >= found["untuned_score"]
    is_tuned = found["best"] > 0
    tests = [(SPLITS["test"], is_tuned)] * 2
    validations = [(SPLITS["validation"], given) for given in (False, True, True)]
    assert scored == [*validations, *tests], "test rows are scored once a seed, after the search"
    assert model["title"] == "gradient-boosted trees of the raw inputs, tuned"
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stored["baselines"]["models"][-1]["search"] == found
    line = "gradient-boosted trees of the raw inputs, tuned: " + (
        "the best of 3 trials" if is_tuned else "none of 3 trials"
    )
    assert line in (tmp_path / "run" / "results.md").read_text()
    assert line in " ".join(terminal_report(results).split())
    # Nothing is done twice, and a further trial is one fit.
    assert finetune(make_finetuning(tmp_path, baseline_trials=3, **fields))["baselines"] == results["baselines"]
    assert len(scored) == 5
    finetune(make_finetuning(tmp_path, baseline_trials=4, **fields))
    assert scored[5] == (SPLITS["validation"], True) and len(scored) in (6, 8)


@pytest.mark.parametrize("rows", [60, 48])
def test_without_rows_to_choose_by_a_tenth_of_the_training_rows_does(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    """The validation split is the one that is scored, so that it cannot choose."""
    fitted: list[tuple[int, int]] = []
    original = library_baselines.library_probe

    def counted(*words: Any, **options: Any) -> Any:
        fitted.append((len(words[1]), len(words[2])))
        return original(*words, **options)

    monkeypatch.setattr(library_baselines, "library_probe", counted)
    recipe = make_finetuning(
        tmp_path,
        "regression",
        data={"test_split": None},
        rows={"train": rows, "valid": 16},
        max_steps=1,
        seeds=[0],
        baselines=True,
        baseline_models=["hist_gradient_boosting"],
        baseline_trials=2,
    )
    found = finetune(recipe)["baselines"]
    if rows == 48:
        assert not fitted and "48 training rows are too few to keep a tenth apart (50 are not)" in found["missing"][-1]
        return
    assert fitted == [(54, 6), (54, 6), (60, 16)]
    assert found["models"][-1]["search"]["rows"] == "a tenth of the training rows"


def test_trials_of_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finetuning.baseline_trials=3 tunes finetuning.baseline_models, of which"):
        make_finetuning(tmp_path, baselines=True, baseline_trials=3)
