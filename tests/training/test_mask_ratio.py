"""`mask_ratio: auto`: successive halving by short runs, scored on rows that the test split has no part in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_runs import MULTIMAE, SCENES
from runs import LABELLED, SMA_MODEL, make_recipe, train, write_recipe

from hf_maskssl.commands import pretrain as command
from hf_maskssl.training import PretrainingRecipe, with_mask_ratio
from hf_maskssl.training.needs import describe
from hf_maskssl.training.pretraining import mask_ratio
from hf_maskssl.training.pretraining.mask_ratio import CHOICE_FILE, RATIOS, TRIALS_FOLDER

OPEN: dict[str, Any] = {"mask_ratio": "auto"}
FEW: dict[str, Any] = {"auto_mask_steps": 1, "max_steps": 2}


def stored(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CHOICE_FILE).read_text())
    return found


@pytest.mark.parametrize("best", [0.15, 0.5, 0.85])
def test_half_of_the_ratios_stay_for_twice_the_steps(
    best: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[float, int]] = []

    def trial(recipe: PretrainingRecipe, ratio: float, steps: int, ratios: list[float]) -> float:
        tried.append((ratio, steps))
        return -abs(ratio - best)

    monkeypatch.setattr(mask_ratio, "_trial", trial)
    found = with_mask_ratio(make_recipe(tmp_path, OPEN, max_steps=4, auto_mask_steps=10))
    assert found.model["mask_ratio"] == best == stored(tmp_path)["chosen"]
    nearest = sorted(RATIOS, key=lambda ratio: (abs(ratio - best), abs(ratio - 0.5)))[:2]
    assert sorted(tried) == sorted([(ratio, 10) for ratio in RATIOS] + [(ratio, 20) for ratio in nearest])
    assert with_mask_ratio(found) is found


@pytest.mark.parametrize(
    ("model", "data", "scored_by"),
    [({}, LABELLED, "linear probe"), (SMA_MODEL, {}, "reconstruction"), ({}, {}, "reconstruction")],
    ids=["metamae-labels", "sma", "metamae"],
)
def test_a_run_begins_with_the_ratio_that_its_trials_choose(
    model: dict[str, Any], data: dict[str, Any], scored_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(tmp_path / "run", model | OPEN, data, {"k": 2}, **FEW, save_steps=1)
    path = str(write_recipe(recipe, tmp_path / "recipe.yaml"))
    monkeypatch.setattr("sys.argv", ["hf-maskssl pretrain", path])
    command.main()
    found = stored(tmp_path / "run")
    assert found["scored_by"] == scored_by and found["ratios"] == list(RATIOS)
    assert [(rung["steps"], len(rung["scores"])) for rung in found["rungs"]] == [(1, 5), (2, 2)]
    last = found["rungs"][-1]["scores"]
    assert last[str(found["chosen"])] == max(last.values())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["mask_ratio"] == found["chosen"] and not (tmp_path / "run" / TRIALS_FOLDER).exists()
    # A resumed run takes the choice, and makes none.
    monkeypatch.setattr(mask_ratio, "_trial", lambda *_: pytest.fail("a resumed run has chosen before"))
    monkeypatch.setattr("sys.argv", ["hf-maskssl pretrain", path, "--max_steps", "3", "--resume"])
    command.main()


def test_a_model_that_guides_its_masks_is_scored_by_random_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    from_config = mask_ratio.AutoModelForPreTraining.from_config
    monkeypatch.setattr(
        mask_ratio.AutoModelForPreTraining,
        "from_config",
        lambda config: built.append(f"{config.masking} {config.mask_ratio}") or from_config(config),
    )
    # 0.7 and 0.85, the default, are more than the schedule starts from.
    guided = {"masking": "guided", "mask_schedule": "widen", "mask_schedule_start": 0.5}
    found = with_mask_ratio(make_recipe(tmp_path, guided | OPEN, **FEW))
    assert stored(tmp_path)["ratios"] == [0.15, 0.3, 0.5]
    assert found.model["mask_ratio"] in (0.15, 0.3, 0.5) and found.model["masking"] == "guided"
    by_random = [f"random {ratio}" for ratio in (0.15, 0.3, 0.5)]
    assert built == [one for ratio in (0.15, 0.3, 0.5) for one in (f"guided {ratio}", *by_random)]
    few = make_recipe(tmp_path / "few", guided | OPEN | {"mask_schedule_start": 0.1})
    with pytest.raises(ValueError, match="auto tries .*none goes with the other fields: .*`mask_schedule_start` 0.1"):
        with_mask_ratio(few)


def test_a_stopped_choice_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TRIALS_FOLDER / "0.15-1").mkdir(parents=True)
    recipe = make_recipe(tmp_path, OPEN, resume=True, **FEW)  # nothing to resume: a run that begins

    def trial(recipe: PretrainingRecipe, ratio: float, steps: int, ratios: list[float]) -> float:
        assert not (tmp_path / TRIALS_FOLDER).exists()
        return ratio

    monkeypatch.setattr(mask_ratio, "_trial", trial)
    assert with_mask_ratio(recipe).model["mask_ratio"] == 0.85


def test_the_error_is_that_of_every_ratio(tmp_path: Path) -> None:
    """Of a trial's own weights, with the same masks for each trial."""
    scores = [
        mask_ratio._trial(make_recipe(tmp_path / name, OPEN, batch_size=8, **FEW), ratio, 1, RATIOS)
        for name, ratio in (("a", 0.3), ("b", 0.3), ("c", 0.7))
    ]
    assert scores[0] == scores[1] != scores[2] and all(torch.isfinite(torch.tensor(scores)))


def test_what_cannot_be_chosen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model.mask_ratio: auto, but a multimae has no mask ratio: leave it out"):
        with_mask_ratio(make_recipe(tmp_path / "a", MULTIMAE | OPEN, SCENES | {"scale": 1.0}))
    with pytest.raises(ValueError, match="auto needs held-out rows of the stream: name data.validation_split"):
        with_mask_ratio(make_recipe(tmp_path / "b", OPEN, {"streaming": True, "cache": None}))
    train(make_recipe(tmp_path / "c", max_steps=1, save_steps=1))
    with pytest.raises(
        ValueError, match="mask_ratio.json, which holds .* is missing: set model.mask_ratio to what config"
    ):
        with_mask_ratio(make_recipe(tmp_path / "c", OPEN, resume=True))
    with pytest.raises(ValueError, match=r"auto is chosen by hf_maskssl.training.with_mask_ratio\(recipe\)"):
        train(make_recipe(tmp_path / "d", OPEN))
    with pytest.raises(ValueError, match="training.auto_mask_steps"):
        make_recipe(tmp_path / "e", OPEN, auto_mask_steps=0)


def test_a_run_is_described_with_the_default_ratio(tmp_path: Path) -> None:
    path = write_recipe(make_recipe(tmp_path / "run", OPEN), tmp_path / "recipe.yaml")
    assert "metamae" in describe(path, steps=0).model and not (tmp_path / "run").exists()
