"""What could not be scored in the end is told before the training, and what was scored is kept whatever fails later."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finetuning_runs import make_finetuning

from hf_maskssl.training.finetuning import setup, sweep
from hf_maskssl.training.finetuning.scored_labels import check_scored_labels
from hf_maskssl.training.finetuning.setup import FinetuningSetup
from hf_maskssl.training.finetuning.sweep import finetune
from hf_maskssl.training.finetuning.trials import Trials


class Labels:
    """Rows that have labels alone."""

    def __init__(self, *labels: Any) -> None:
        self.labels = [np.asarray(label) for label in labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, rows: Any) -> list[dict[str, Any]]:
        return [{"labels": self.labels[row]} for row in rows]


@pytest.mark.parametrize(
    ("task", "metric", "labels", "message"),
    [
        ("classification", "roc_auc", [1, 1, 1], "all 3 rows of the test split have the class 1: take more rows"),
        ("classification", "roc_auc", [1, 0], None),
        ("classification", "roc_auc", [*[1] * 100, 0], None),
        ("classification", "accuracy", [1, 1], None),
        ("regression", "spearman", [1.0, 1.0], None),
        ("token_classification", "token_accuracy", [[-100, -100]], "none of the 1 rows of the test split has a label"),
        ("token_classification", "token_accuracy", [[-100], [3]], None),
        ("semantic_segmentation", "mean_iou", [[[255, 255]]], "none of the 1 rows of the test split"),
        ("semantic_segmentation", "mean_iou", [[[255, 0]]], None),
        ("depth_estimation", "delta_1", [[[0.0, np.nan]]], "none of the 1 rows of the test split"),
        ("depth_estimation", "rmse", [[[0.0, 0.5]]], None),
    ],
)
def test_what_cannot_be_scored(task: str, metric: str, labels: list[Any], message: str | None) -> None:
    splits: Any = {"train": Labels(0), "test": Labels(*labels)}
    if message is None:
        check_scored_labels(splits, task, metric, 255)
    else:
        with pytest.raises(ValueError, match=message):
            check_scored_labels(splits, task, metric, 255)


def test_one_class_in_a_split_is_told_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trials, "train", lambda *words: pytest.fail("training began"))
    for split in ("valid", "test"):
        recipe = make_finetuning(tmp_path, metric="roc_auc")
        path = tmp_path / f"classification-{split}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, "label", pa.array([1] * len(table))), path)
        name = {"valid": "validation"}.get(split, split)
        with pytest.raises(
            ValueError, match=f"finetuning.metric 'roc_auc' .* rows of the {name} split have the class 1"
        ):
            finetune(recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "spearman"}, "'spearman' does not measure a classification task; expected one of"),
        ({"rows": {"train": 8}}, "data.test_split: fine-tuning needs rows to score"),
        (
            {"rows": {"train": 8, "test": 4}, "early_stopping_patience": 2},
            "early_stopping_patience=2 needs a validation",
        ),
    ],
)
def test_settings_are_checked_before_the_data_are_read(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "prepare_data", lambda *words, **options: pytest.fail("the data were read"))
    with pytest.raises(ValueError, match=message):
        FinetuningSetup(make_finetuning(tmp_path, **changes))


def test_scores_are_kept_where_scoring_the_test_split_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    recipe = make_finetuning(tmp_path, num_train_epochs=1.0, seeds=[0])
    with monkeypatch.context() as patch:
        patch.setattr(Trials, "_score", lambda *words: (_ for _ in ()).throw(RuntimeError("no memory")))
        with pytest.raises(RuntimeError, match="no memory"):
            finetune(recipe)
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    assert kept["complete"] is False and set(kept["scores"]) == {"validation"}
    monkeypatch.setattr(Trials, "train", lambda *words: pytest.fail("trained again"))
    results = finetune(recipe)
    assert results["runs"][0]["validation"] == kept["runs"][0]["validation"] and results["runs"][0]["test"]
    assert "complete" not in json.loads((tmp_path / "run" / "results.json").read_text())


def test_scores_are_kept_where_a_picture_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.Finetuner, "_draw", lambda *words: (_ for _ in ()).throw(RuntimeError("no font")))
    with pytest.raises(RuntimeError, match="no font"):
        finetune(make_finetuning(tmp_path, num_train_epochs=1.0, seeds=[0]))
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["scores"]) == {"validation", "test"}
