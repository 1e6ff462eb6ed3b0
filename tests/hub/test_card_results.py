"""Results of a probe on a card, and the files by which the Hub shows results of its data sets."""

from typing import Any

import pytest
import yaml
from card_runs import probe_report
from huggingface_hub import ModelCard

from hf_maskssl.hub.card_results import eval_files, with_evaluation
from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.hub.publish import complete_card

pytestmark = pytest.mark.usefixtures("blank_curves")


@pytest.fixture
def card(make_run: Any) -> str:
    recipe, state, folder = make_run("image")
    write_model_card(folder, recipe, state)
    return (folder / "README.md").read_text()


def test_probe_stands_in_text_and_header(card: str) -> None:
    model = "/home/me/outputs/digits"
    text = with_evaluation(card, probe_report(model))
    assert "| this model | 92.00 ± 4.97 |" in text and "| this model − untrained encoder |" in text
    assert model not in text and "A note." in text and "with 5 labels per class: fitted to 1,437 rows" in text
    assert text.index("## Online probe") < text.index("## Evaluation\n") < text.index("## Recipe")
    assert "fine-tuning was not measured" in text and "only by the online probe" not in text
    linear, knn = ModelCard(text).data.eval_results
    assert linear.metric_value == pytest.approx(0.92) and linear.dataset_split == "test"
    assert "mean of 3 seeds, ± 0.0497 (95 % t interval)" in linear.metric_name and "1 run" in knn.metric_name
    assert text.split("## Use")[1].split("## Data")[0] == card.split("## Use")[1].split("## Data")[0]


def test_second_probe_replaces_the_first(card: str) -> None:
    once = with_evaluation(card, probe_report("digits"))
    assert with_evaluation(once, probe_report("digits")) == once


def test_results_on_data_of_the_hub_become_files(card: str) -> None:
    assert eval_files(card) == {}
    on_hub = card.replace("library_name:", "datasets: org/digits\nlibrary_name:", 1)
    text = with_evaluation(on_hub, probe_report("m", "org/digits", config_name="clean", revision="abc"))
    files = eval_files(complete_card(text, "me/model"))
    assert list(files) == [".eval_results/digits.yaml"]
    linear, knn = yaml.safe_load(files[".eval_results/digits.yaml"])
    assert linear["dataset"] == {"id": "org/digits", "task_id": "clean", "revision": "abc"} and knn["value"] == 0.9
    assert linear["value"] == 0.92 and "split test" in linear["notes"] and "linear probe" in linear["notes"]
    assert ModelCard(complete_card(text, "me/model")).data.model_name == "me/model"


def test_another_file_is_refused(card: str) -> None:
    with pytest.raises(ValueError, match="expected the result.json of `hf-maskssl probe`, got a file with .'scores'"):
        with_evaluation(card, {"scores": {}})
