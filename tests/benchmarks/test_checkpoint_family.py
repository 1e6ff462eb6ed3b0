"""The family of checkpoints: cards, table and results agree, and one goes from its plan to a folder that can be published."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import PLANS, Places, Plan, Probed, card_of, make, problems, write_tables
from huggingface_hub import ModelCard

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.files import write_json
from hf_maskssl.hub.card_results import with_evaluation
from hf_maskssl.hub.publish import publish
from hf_maskssl.recipes import build_config
from hf_maskssl.training import load_pretraining_recipe

CARD = """---
library_name: transformers
---

# A model

## Training

| optimiser steps | 20 |

![Losses](curves.png)

More.

## Recipe
"""


def report(title: str, few: int | None = None) -> dict[str, Any]:
    """A probe as `probed` gives it."""
    rows = [
        ["metamae-sensors", 92.0, 91.0],
        ["untrained encoder (seed 0)", 50.0, 40.0],
        ["raw inputs: flat", 60.0, None],
    ]
    measured = {"model": "metamae-sensors", "task": "classification", "metric": "accuracy", "test_split": "test"}
    runs = [{"seed": 0, "accuracy": 0.92, "converged": True}]
    return {
        "title": title,
        "data": {"source": "digits", "label_column": "label", "test_split": "test"},
        "probe": {"labels_per_class": few},
        "results": [{**measured, "rows": {"train": 1437, "test": 360}, "linear": runs, "knn": runs}],
        "table": {"columns": ["model", "linear probe, accuracy (%)", "kNN, accuracy (%)"], "rows": rows},
        "notes": ["A note."],
    }


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Results, card and page of one checkpoint, as a call writes them."""
    found = Places.of_rehearsal(tmp_path)
    reports = [report("BasicMotions"), report("BasicMotions", 5)]
    record = {
        "name": "metamae-sensors",
        "title": "BasicMotions",
        "steps": 20,
        "seconds": 120.0,
        "parameters": 1_234_567,
    }
    write_json(found.results / "checkpoints" / "metamae-sensors.json", {**record, "reports": reports})
    found.cards.mkdir()
    text = card_of(with_evaluation(CARD, *reports), "metamae-sensors")
    (found.cards / "metamae-sensors.md").write_text(text)
    write_tables(found)
    return found


def test_committed_cards_and_page_are_those_of_the_committed_results() -> None:
    assert problems(Places(Path("unused"))) == []


def test_what_does_not_agree_is_named(places: Places) -> None:
    assert problems(places) == []
    card, page = places.cards / "metamae-sensors.md", places.page
    text = card.read_text()
    card.write_text(text.replace("92.00", "93.00"))
    page.write_text(page.read_text().replace("1.23 M", "1.24 M"))
    assert problems(places) == [
        "metamae-sensors.md: its evaluation is not that of the results",
        "checkpoints.md: its table is not that of the results",
    ]
    card.write_text(text.replace("| optimiser steps | 20 |", "| optimiser steps | 30 |"))
    assert "another number of steps" in problems(places)[0]
    card.unlink()
    assert problems(places)[0] == "metamae-sensors.md: there is no such card"


def test_card_and_table_read_well(places: Places) -> None:
    text = (places.cards / "metamae-sensors.md").read_text()
    assert "curves.png" not in text and "### BasicMotions, 5 labels per class\n" in text and "\n\nMore." in text
    assert ModelCard(text).data.model_name == "ORGANISATION/metamae-sensors"
    linear, _, few, _ = ModelCard(text).data.eval_results
    assert linear.dataset_name == few.dataset_name == "BasicMotions" and "5 labels per class" in few.metric_name
    first, second = [line for line in places.page.read_text().splitlines() if line.startswith("|")][2:]
    name = "[metamae-sensors](../model_cards/metamae-sensors.md)"
    assert first == f"| {name} | BasicMotions | 1.23 M | BasicMotions | accuracy (%) | 92.00 | 50.00 | 60.00 | 2 |"
    assert second.startswith("|  |  |  | BasicMotions, 5 labels per class | accuracy (%) |")
    tables = json.loads((places.results / "checkpoints.json").read_text())["tables"]
    assert tables["readme"]["rows"][0][0] == "[metamae-sensors](model_cards/metamae-sensors.md)"


@pytest.mark.parametrize("name", PLANS)
def test_plan_is_sound(name: str) -> None:
    """Recipe, overrides, and what is probed; the data are not needed for that."""
    plan = PLANS[name]
    words = [word for field, value in plan.settings.items() for word in (f"--{field}", json.dumps(value))]
    recipe = load_pretraining_recipe(checkpoints.RECIPES / f"{plan.recipe}.yaml", words)
    build_config(recipe.model)
    assert recipe.training.max_steps == plan.settings["training.max_steps"]
    for each in plan.probed:
        data = recipe.data if each.data is None else data_arguments(**each.data)
        assert data.label_column and ProbeArguments(**each.probe).headline_metric(data.task)
    assert len({(each.title, str(each.probe)) for each in plan.probed}) == len(plan.probed)
    dataclasses.asdict(plan)


def test_family_is_an_hour_or_two_of_work() -> None:
    assert len(PLANS) == 6 and 60 <= sum(plan.minutes for plan in PLANS.values()) <= 150


@pytest.mark.slow
def test_a_checkpoint_is_made_resumed_and_can_be_published(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    settings = {"data.max_train_samples": 200, "training.batch_size": 32}
    plan = Plan(
        "digits",
        "handwritten digits",
        settings,
        [Probed("digits"), Probed("digits", None, {"labels_per_class": 2})],
        1,
    )
    monkeypatch.setitem(PLANS, "metamae-digits", plan)
    places = Places.of_rehearsal(Path("made"))
    make("metamae-digits", plan, places, steps=2)
    write_tables(places)
    assert problems(places) == []
    folder = places.output / "metamae-digits"
    publish(folder, "org/name", dry_run=True)
    card = (folder / "README.md").read_text()
    assert "# MetaMAE pre-trained on handwritten digits" in card and str(tmp_path) not in card
    assert "| this model | " in card and "### digits, 2 labels per class" in card
    record = (places.results / "checkpoints" / "metamae-digits.json").read_text()
    assert str(tmp_path) not in record and "made/work" not in record
    caplog.clear()
    make("metamae-digits", plan, places, steps=2)
    assert "Nothing left to do: 2 of 2 steps." in caplog.text
    assert (folder / "README.md").read_text() == card
    with pytest.raises(ValueError, match="was begun by another plan"):
        make("metamae-digits", plan, places, steps=3)
