"""What fine-tuning keeps beside its scores: predictions, pictures, outliers, and the baselines that one flag adds."""

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dense_runs import make_dense, pretrained_multimae
from finetuning_runs import make_finetuning
from test_finetuning import pretrained

from hf_maskssl.evaluation import baselines
from hf_maskssl.evaluation.dense_baselines import dense_baseline_scores, pixel_features
from hf_maskssl.evaluation.metrics import load_metric, score_outputs
from hf_maskssl.training.finetuning import drawing
from hf_maskssl.training.finetuning.predictions import load_predictions, map_rows, predictions_path
from hf_maskssl.training.finetuning.results import Run
from hf_maskssl.training.finetuning.sweep import Finetuner, finetune
from hf_maskssl.training.finetuning.trials import Trials

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(folder, seed) of every run that was trained, in order."""
    found: list[tuple[str, int]] = []
    original = Trials.train

    def train(self: Trials, run: Any, keep: bool = False) -> dict[str, Any]:
        found.append((self.folder.name, run.seed))
        return original(self, run, keep)

    monkeypatch.setattr(Trials, "train", train)
    return found


# Predictions, pictures and outliers.


def test_stored_predictions_give_the_scores_and_are_drawn_again(tmp_path: Path, trained: list[Any]) -> None:
    recipe = make_finetuning(tmp_path, num_train_epochs=2.0)
    results = finetune(recipe)
    folder = tmp_path / "run"
    rows = datasets.Dataset.from_parquet(str(tmp_path / "classification-test.parquet"))
    for record in results["runs"]:
        stored = load_predictions(predictions_path(folder, Run(1e-2, record["seed"])))
        assert stored is not None and stored.split == "test" and stored.true.tolist() == list(rows["label"])
        accuracy = load_metric("accuracy").compute(predictions=stored.said, references=stored.true)
        assert accuracy is not None and accuracy["accuracy"] == pytest.approx(record["test"]["accuracy"])
        assert [point["epoch"] for point in record["history"]] == [1.0, 2.0]
        chosen = record["history"][round(record["epoch"]) - 1]
        assert chosen["accuracy"] == record["validation"]["accuracy"] and chosen["loss"] > 0
    assert results["pictures"] == {
        "Validation scores": "pictures/validation.png",
        "Confusion matrix": "pictures/confusion_matrix.png",
    }
    assert "![Confusion matrix](pictures/confusion_matrix.png)" in (folder / "results.md").read_text()
    before = {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}
    shutil.rmtree(folder / "pictures")
    assert finetune(recipe)["pictures"] == results["pictures"] and len(trained) == 2
    assert {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()} == before


def test_output_of_an_earlier_version_opens_and_what_it_lacks_is_said(
    tmp_path: Path, trained: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_finetuning(tmp_path, num_train_epochs=1.0)
    finetune(recipe)
    folder = tmp_path / "run"
    shutil.rmtree(folder / "pictures")
    for seed in (0, 1):
        run = Run(1e-2, seed)
        predictions_path(folder, run).unlink()
        record = json.loads(run.record_path(folder).read_text())
        del record["history"]
        run.record_path(folder).write_text(json.dumps(record))
    material = json.loads((folder / "runs" / "recipe.json").read_text())
    assert "finetuning.baselines" not in material  # earlier versions did not have it
    results = finetune(recipe)
    assert len(trained) == 2 and results["pictures"] == {} and "outliers" not in results
    assert "Pictures leave out 2 of 2 runs" in caplog.text
    (folder / "runs" / f"{Run(1e-2, 0).name}.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="seed_0.npz holds no predictions that can be read.*delete it"):
        finetune(recipe)


def test_outliers_are_named_by_their_row_and_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_maskssl")
    recipe = make_finetuning(tmp_path, "regression", num_train_epochs=4.0)
    path = tmp_path / "regression-test.parquet"
    rows = pq.read_table(path).to_pydict()
    rows["label"][13] += 5000.0  # nothing in the word says so
    pq.write_table(pa.table(rows), path)
    results = finetune(recipe)
    outliers = results["outliers"]
    first = outliers["shown"][0]
    assert (first["row"], first["input"], first["true"]) == (13, rows["word"][13], pytest.approx(rows["label"][13]))
    assert first["residual"] == pytest.approx(first["predicted"] - first["true"]) and first["residual"] < -4900
    stored = [load_predictions(predictions_path(tmp_path / "run", Run(1e-2, seed))) for seed in (0, 1)]
    assert first["predicted"] == pytest.approx(np.mean([entry.said[13] for entry in stored if entry is not None]))
    assert outliers["count"] >= 1 and outliers["rows"] == 20 and "4 robust standard deviations" in outliers["rule"]
    report = (tmp_path / "run" / "results.md").read_text()
    sentence = f"Outliers: {outliers['count']} of 20 test rows"
    assert sentence in report and sentence in caplog.text and f"| 13 | {rows['word'][13]} | " in report
    assert results["pictures"]["Predicted against true values"] == "pictures/predicted_against_true.png"
    # Nothing was lost on the way: the stored values give the scores.
    for record, entry in zip(results["runs"], stored, strict=True):
        assert entry is not None
        assert score_outputs(entry.said, entry.true, "regression") == pytest.approx(record["test"], rel=1e-5)


def test_without_a_test_split_the_validation_rows_are_drawn(tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path, "token_classification", seeds=[0], max_steps=2, data={"test_split": None})
    results = finetune(recipe)
    stored = load_predictions(predictions_path(tmp_path / "run", Run(1e-2, 0)))
    assert stored is not None and stored.split == "validation" and "Confusion matrix" in results["pictures"]
    words = datasets.Dataset.from_parquet(str(tmp_path / "token_classification-valid.parquet"))
    assert stored.true.tolist() == [label for row in words["label"] for label in row]
    assert np.mean(stored.said == stored.true) == pytest.approx(results["runs"][0]["validation"]["token_accuracy"])


# Baselines.


def test_baselines_are_those_of_the_same_rows_and_seeds(tmp_path: Path, trained: list[Any]) -> None:
    checkpoint = pretrained(tmp_path)
    recipe = make_finetuning(
        tmp_path, model={}, checkpoint=str(checkpoint), num_train_epochs=2.0, metric="roc_auc", baselines=True
    )
    results = finetune(recipe)
    assert trained == [("run", 0), ("run", 1), ("from_scratch", 0), ("from_scratch", 1)]
    models = {model["name"]: model for model in results["baselines"]["models"]}
    assert list(models) == ["from_scratch", "constant", "raw"] and results["baselines"]["missing"] == []
    # As an arm of its own would give it.
    args = dataclasses.replace(
        recipe.finetuning, from_scratch=True, baselines=False, output_dir=str(tmp_path / "alone")
    )
    alone = finetune(dataclasses.replace(recipe, finetuning=args))
    for run, other in zip(models["from_scratch"]["runs"], alone["runs"], strict=True):
        assert run["scores"] == other["test"]
    differences = [
        run["test"]["roc_auc"] - other["test"]["roc_auc"]
        for run, other in zip(results["runs"], alone["runs"], strict=True)
    ]
    found = models["from_scratch"]["differences"]["roc_auc"]
    assert found["mean"] == pytest.approx(np.mean(differences))
    # Student's t of one degree of freedom, from a table.
    assert found["half_width"] == pytest.approx(12.7062 * np.std(differences, ddof=1) / np.sqrt(2), rel=1e-4)
    labels = datasets.Dataset.from_parquet(str(tmp_path / "classification-test.parquet"))["label"]
    common = np.bincount(datasets.Dataset.from_parquet(str(tmp_path / "classification-train.parquet"))["label"])
    scores = models["constant"]["runs"][0]["scores"]
    assert scores["roc_auc"] == 0.5 and scores["accuracy"] == np.mean(np.array(labels) == common.argmax())
    assert models["raw"]["scores"]["roc_auc"]["mean"] > 0.95  # counting letters is enough
    assert models["raw"]["scores"]["roc_auc"]["half_width"] is None
    report = (tmp_path / "run" / "results.md").read_text()
    assert "| without pre-training |" in report and "| always the most frequent class |" in report
    assert "n-grams" in report
    # Nothing is computed twice, and without the flag the runs are the same.
    assert finetune(recipe)["baselines"] == results["baselines"]
    plain = finetune(dataclasses.replace(recipe, finetuning=dataclasses.replace(recipe.finetuning, baselines=False)))
    assert len(trained) == 6 and "baselines" not in plain and plain["scores"] == results["scores"]


def test_few_labels_are_those_of_the_seed_and_random_weights_are_said(tmp_path: Path) -> None:
    results = finetune(
        make_finetuning(tmp_path, "regression", labelled_samples=6, max_steps=2, baselines=True, metric="rmse")
    )
    models = {model["name"]: model for model in results["baselines"]["models"]}
    assert list(models) == ["constant", "raw"] and "random weights" in results["baselines"]["missing"][0]
    assert [run["seed"] for run in models["constant"]["runs"]] == [0, 1]
    labels = np.array(datasets.Dataset.from_parquet(str(tmp_path / "regression-train.parquet"))["label"])
    test = np.array(datasets.Dataset.from_parquet(str(tmp_path / "regression-test.parquet"))["label"])
    for run in models["constant"]["runs"]:
        chosen = np.random.default_rng(run["seed"]).permutation(48)[:6]
        expected = np.sqrt(np.mean((labels[chosen].mean() - test) ** 2))
        assert run["scores"]["rmse"] == pytest.approx(expected, rel=1e-5)
    report = (tmp_path / "run" / "results.md").read_text()
    assert "always the mean label" in report and "fine-tuned minus it, rmse" in report


@pytest.mark.parametrize(
    "task",
    [
        "semantic_segmentation",
        pytest.param("depth_estimation", marks=pytest.mark.slow),
        pytest.param("dense_regression", marks=pytest.mark.slow),
    ],
)
def test_dense_runs_are_drawn_and_compared(task: str, tmp_path: Path) -> None:
    folder = pretrained_multimae(tmp_path / "start")
    data = {"label_scale": 0.001} if task == "dense_regression" else {}
    recipe = make_dense(tmp_path, task, {}, data, checkpoint=str(folder), inputs=["rgb"], baselines=True)
    results = finetune(recipe)
    stored = load_predictions(predictions_path(tmp_path / "run", Run(1e-3, 0)))
    test: Any = Finetuner(recipe).data.test
    assert stored is not None and stored.rows.tolist() == map_rows(6) == list(range(6))
    assert np.allclose(stored.true, np.stack([test[row]["labels"] for row in range(6)]))
    assert (
        results["pictures"]["Maps"] == "pictures/maps.png" and (tmp_path / "run" / "pictures" / "maps.png").is_file()
    )
    if task == "semantic_segmentation":  # of six test rows all are kept, so that pixels can be counted
        confusion: Any = stored.confusion
        counts = np.zeros_like(confusion)
        np.add.at(counts, (stored.true.reshape(-1), stored.said.reshape(-1)), 1)
        assert np.array_equal(counts, confusion) and "Confusion matrix" in results["pictures"]
    models = {model["name"]: model for model in results["baselines"]["models"]}
    assert list(models) == ["from_scratch", "constant", "raw"]
    headline = results["metric"]
    raw, constant = (models[name]["scores"][headline]["mean"] for name in ("raw", "constant"))
    assert (constant > raw > 0) if task == "dense_regression" else (raw > constant > 0)


def test_maps_of_other_runs_are_drawn_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another learning rate on the same rows, and a folder that holds nothing."""
    folder = pretrained_multimae(tmp_path / "start")
    fields: dict[str, Any] = {"checkpoint": str(folder), "inputs": ["rgb"], "max_steps": 1}
    finetune(make_dense(tmp_path / "other", "semantic_segmentation", {}, **fields))
    drawn: list[Any] = []
    monkeypatch.setattr(
        drawing, "draw_class_maps", lambda samples, *args: drawn.extend(samples) or tmp_path / "run" / "a"
    )
    compared = {"fast": str(tmp_path / "other" / "run"), "none": str(tmp_path / "nothing")}
    fields |= {"learning_rate": 1e-2, "compare_with": compared}
    finetune(make_dense(tmp_path, "semantic_segmentation", {}, **fields))
    stored = load_predictions(predictions_path(tmp_path / "other" / "run", Run(1e-3, 0)))
    assert stored is not None and len(drawn) == 6
    for place, sample in enumerate(drawn):
        assert list(sample.others) == ["fast"] and np.array_equal(sample.others["fast"], stored.said[place])
    assert "(none) holds no predictions of the rows that are drawn here" in caplog.text


def test_runs_of_an_earlier_version_are_not_repeated(tmp_path: Path) -> None:
    """Fields that it did not have are at their defaults."""
    recipe = make_dense(tmp_path, "semantic_segmentation", inputs=["rgb"], max_steps=1)
    first = finetune(recipe)
    path = tmp_path / "run" / "runs" / "recipe.json"
    stored = json.loads(path.read_text())
    for name in ("finetuning.mixup", "finetuning.label_smoothing", "data.label_channels", "data.augmentation"):
        del stored[name]
    path.write_text(json.dumps(stored))
    assert finetune(recipe)["runs"] == first["runs"]
    del stored["finetuning.weight_decay"]
    path.write_text(json.dumps(stored | {"finetuning.mixup": 0.5}))
    with pytest.raises(ValueError, match=r"finetuning.mixup was 0.5, is now 0.0"):
        finetune(recipe)


def test_models_of_a_library_have_a_run_for_each_seed(tmp_path: Path) -> None:
    recipe = make_finetuning(
        tmp_path, max_steps=2, baselines=True, baseline_models=["random_forest", "hist_gradient_boosting"]
    )
    results = finetune(recipe)
    models = {model["name"]: model for model in results["baselines"]["models"]}
    assert list(models) == ["constant", "raw", "random_forest", "hist_gradient_boosting"]
    forest = models["random_forest"]
    assert [run["seed"] for run in forest["runs"]] == recipe.finetuning.seeds
    assert (
        forest["runs"][0]["what"].startswith("RandomForestClassifier on")
        and forest["scores"]["accuracy"]["mean"] > 0.8
    )
    text = (tmp_path / "run" / "results.md").read_text()
    assert "random forest of the raw inputs" in text
    path = tmp_path / "run" / "runs" / "baseline_random_forest-seed_0.json"
    before = path.stat().st_mtime_ns
    assert finetune(recipe)["baselines"] == results["baselines"] and path.stat().st_mtime_ns == before


@pytest.mark.parametrize("few", [None, 12])
def test_raw_inputs_are_read_once_for_all_baselines(
    few: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    read: list[int] = []
    original = baselines.read_raw_inputs

    def counted(split: Any, *words: Any) -> Any:
        read.append(len(split))
        return original(split, *words)

    monkeypatch.setattr(baselines, "read_raw_inputs", counted)
    models: list[Any] = ["random_forest", "hist_gradient_boosting"]
    fields = {"max_steps": 1, "labelled_samples": few, "baselines": True, "baseline_models": models}
    recipe = make_finetuning(tmp_path, **fields)
    finetune(recipe)
    assert sorted(read) == sorted([16, 20, *([48] if few is None else [12] * len(recipe.finetuning.seeds))])


def test_a_model_whose_package_is_absent_is_refused_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ImportError, match=r'The baseline xgboost needs xgboost, .*"hf_maskssl\[baselines\]"'):
        finetune(make_finetuning(tmp_path, max_steps=1, baselines=True, baseline_models=["mlp", "xgboost"]))
    assert not (tmp_path / "run" / "runs").exists()


def test_models_of_a_library_for_another_task_are_said_to_be_missing(tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path, "token_classification", max_steps=1, baselines=True, baseline_models=["mlp"])
    found = finetune(recipe)["baselines"]
    assert [model["name"] for model in found["models"]] == ["constant", "raw"]
    assert "with mlp: mlp is for classification and regression" in found["missing"][-1]
    with pytest.raises(
        ValueError, match="finetuning.baseline_models: expected different names, and finetuning.baselines"
    ):
        dataclasses.replace(recipe.finetuning, baselines=False)


def test_dense_baselines_see_the_pixel_and_its_place(tmp_path: Path) -> None:
    recipe = make_dense(tmp_path, "depth_estimation", inputs=["rgb"])
    data = Finetuner(recipe).data
    rows: Any = data.test
    batch: Any = data.collator([rows[0], rows[1]])
    features = pixel_features(batch, data.collator)
    assert features.shape == (2, 32 * 32, 3 * 9 + 5)
    picture = batch["inputs"]["rgb"][1].numpy()
    row, column = 5, 17
    window = picture[:, row - 1 : row + 2, column - 1 : column + 2].reshape(-1)
    place = [-1 + 2 * row / 31, -1 + 2 * column / 31]
    expected = [*window, *place, place[0] ** 2, place[1] ** 2, place[0] * place[1]]
    assert features[1, row * 32 + column] == pytest.approx(np.array(expected), abs=1e-6)
    scores = dense_baseline_scores(data, "depth_estimation")["constant"]["scores"]
    train: Any = data.train
    labels = np.stack([train[number]["labels"] for number in range(12)]).astype(np.float64)
    true = np.stack([rows[number]["labels"] for number in range(6)]).astype(np.float64)
    # All pixels of twelve small scenes are fewer than are drawn at most.
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((true - labels[labels > 0].mean()) ** 2)), rel=1e-5)


def test_rows_of_maps_are_spread_over_the_split() -> None:
    assert map_rows(3) == [0, 1, 2] and map_rows(101) == [0, 20, 40, 60, 80, 100] and map_rows(1) == [0]
