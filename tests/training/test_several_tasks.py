"""Several tasks with gaps, end to end: fine-tuned over Trainer, probed, embedded, and by a plain Trainer of one's own."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from finetuning_runs import MODELS
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import AutoModel, AutoModelForSequenceClassification, Trainer, TrainingArguments

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import compare, measure_checkpoint, notes
from hf_maskssl.evaluation.features import Features
from hf_maskssl.evaluation.metrics import load_metric, score_columns, score_outputs, tasks_left_out
from hf_maskssl.evaluation.metrics.mean_roc_auc import task_roc_aucs
from hf_maskssl.evaluation.probe import knn_probe, run_linear_probe
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.predictions import load_predictions
from hf_maskssl.training.finetuning.scores import LabelUnit
from hf_maskssl.training.finetuning.setup import FinetuningSetup
from hf_maskssl.training.finetuning.sweep import finetune

pytestmark = pytest.mark.usefixtures("private_cache", "blank_pictures")
LETTERS = "ACGT"
ROWS = {"train": 64, "validation": 32, "test": 40}
CLASSES = ["mostly A", "begins with A", "rare"]
VALUES = ["share of A", "length"]


def write_tasks(folder: Path, task: str = "multi_label_classification") -> dict[str, Any]:
    """Words of A and C with a third of the labels missing; nothing has both classes of "rare" but training rows."""
    files = {}
    for number, (split, count) in enumerate(ROWS.items()):
        random = np.random.default_rng(number)
        words = ["".join(random.choice(["A", "C"], size=int(random.integers(4, 10)))) for _ in range(count)]
        share = np.array([word.count("A") / len(word) for word in words])
        if task == "regression":
            columns = {VALUES[0]: 300 + 40 * share, VALUES[1]: np.array([float(len(word)) for word in words])}
        else:
            begins = np.array([float(word[0] == "A") for word in words])
            rare = np.zeros(count)
            rare[0] = float(split == "train")
            columns = dict(zip(CLASSES, [(share > 0.5).astype(float), begins, rare], strict=True))
        for place, name in enumerate(columns):
            columns[name] = columns[name].copy()
            columns[name][1 + place :: 3] = np.nan
        files[split] = str(folder / f"{task}-{split}.parquet")
        pd.DataFrame({"word": words, **columns}).to_parquet(files[split], index=False)
    section = {"source": "parquet", "data_files": files, "kind": "tokens", "input_column": "word", "alphabet": LETTERS}
    section |= {"label_column": VALUES if task == "regression" else CLASSES, "task": task}
    return section | {"validation_split": "validation", "test_split": "test"}


def recipe(
    folder: Path, task: str = "multi_label_classification", model: str = "metamae", **finetuning: Any
) -> FinetuningRecipe:
    fields: dict[str, Any] = {"output_dir": str(folder / "run"), "num_train_epochs": 8.0, "batch_size": 8}
    fields |= {"learning_rate": 1e-2, "seeds": [0]}
    data = data_arguments(**write_tasks(folder, task))
    return FinetuningRecipe(MODELS[model], data, FinetuningArguments(**(fields | finetuning)))


@pytest.mark.parametrize("model", ["metamae", "sma"])
def test_tasks_are_fine_tuned_and_scored_by_the_mean_roc_auc(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        results = finetune(recipe(tmp_path, model=model, baselines=model == "sma"))
    assert results["metric"] == "mean_roc_auc" and results["label_names"] == CLASSES
    assert results["scores"]["test"]["mean_roc_auc"]["mean"] > 0.8
    assert "test split: the mean ROC-AUC is over 2 of 3 tasks; 1 have no rows of both classes: ['rare']" in caplog.text
    folder = tmp_path / "run"
    stored = load_predictions(next((folder / "runs").glob("*.npz")))
    assert stored is not None and stored.said.shape == stored.true.shape == (ROWS["test"], 3)
    assert 0 < stored.said.min() and stored.said.max() < 1
    there = ~np.isnan(stored.true)
    expected = np.mean([roc_auc_score(stored.true[there[:, t], t], stored.said[there[:, t], t]) for t in (0, 1)])
    assert results["runs"][0]["test"]["mean_roc_auc"] == pytest.approx(expected)
    kept = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert kept.config.problem_type == "multi_label_classification"
    assert kept.config.id2label == dict(enumerate(CLASSES))
    report = json.loads((folder / "data_report.json").read_text())
    assert report["splits"]["test"]["tasks"]["rare"]["positive"] == 0
    if model == "sma":
        constant, raw = (
            {one["name"]: one for one in results["baselines"]["models"]}[name] for name in ("constant", "raw")
        )
        assert constant["title"] == "always each task's share of class 1"
        assert constant["scores"]["mean_roc_auc"]["mean"] == 0.5 < raw["scores"]["mean_roc_auc"]["mean"]


def test_columns_of_values_are_learnt_in_units_of_their_own(tmp_path: Path) -> None:
    results = finetune(recipe(tmp_path, "regression", num_train_epochs=12.0))
    assert (
        set(results["scores"]["test"]) == {"spearman", "rmse"} and results["scores"]["test"]["spearman"]["mean"] > 0.7
    )
    stored = load_predictions(next((tmp_path / "run" / "runs").glob("*.npz")))
    assert stored is not None and np.nanmean(stored.true[:, 0]) > 300 > 20 > np.nanmean(stored.true[:, 1])
    there = ~np.isnan(stored.true)
    errors = [np.sqrt(np.mean((stored.said - stored.true)[there[:, t], t] ** 2)) for t in range(2)]
    assert results["runs"][0]["test"]["rmse"] == pytest.approx(np.mean(errors))
    # The kept model speaks in the labels' own units.
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    setup = FinetuningSetup(recipe(tmp_path, "regression"))
    rows: Any = setup.data.test
    batch = setup.data.collator([rows[row] for row in range(4)])
    with torch.no_grad():
        said = kept(**{name: batch[name] for name in batch if name not in ("labels", "index")}).logits
    np.testing.assert_allclose(said.numpy(), stored.said[:4], rtol=1e-4)


def test_units_of_columns_are_measured_on_what_is_there(tmp_path: Path) -> None:
    setup = FinetuningSetup(recipe(tmp_path, "regression"))
    unit = setup.label_unit(setup.training_rows(0))
    raw = pd.read_parquet(write_tasks(tmp_path, "regression")["data_files"]["train"])
    np.testing.assert_allclose(unit.mean, raw[VALUES].mean().to_numpy(), rtol=1e-6)
    np.testing.assert_allclose(unit.std, raw[VALUES].std(ddof=0).to_numpy(), rtol=1e-5)
    learnt = unit.to_learnt(torch.tensor([[300.0, float("nan")]]))
    assert learnt.isnan().tolist() == [[False, True]]
    assert unit != LabelUnit() and unit.to_original(learnt.numpy())[0, 0] == pytest.approx(300.0)


def test_no_task_with_both_classes_is_refused_before_the_training(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    made.data.label_column = ["rare"]
    with pytest.raises(ValueError, match="none of 1 tasks has rows of both in the validation split of 22 rows"):
        FinetuningSetup(made)


def test_a_plain_trainer_accumulates_to_the_same_step(tmp_path: Path) -> None:
    """A Trainer script of one's own, with nothing but the collator's labels; one step, in one batch or in four."""
    config = build_config(MODELS["metamae"])
    prepared = prepare_data(data_arguments(**write_tasks(tmp_path)), config)
    config.num_labels, config.problem_type = 3, "multi_label_classification"
    weights = []
    for batch_size, accumulated in ((16, 1), (4, 4)):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        args = TrainingArguments(
            str(tmp_path / "trainer"),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            use_cpu=True,
        )

        def collate(rows: Any) -> dict[str, torch.Tensor]:
            batch = prepared.collator(rows)
            del batch["index"]
            return batch

        trainer = Trainer(
            model, args, data_collator=collate, train_dataset=prepared.train, eval_dataset=prepared.validation
        )
        trainer.train()
        assert np.isfinite(trainer.evaluate()["eval_loss"])
        weights.append(model.classifier.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


# Probes and metrics.


def draw_features(count: int, seed: int, classes: bool = True) -> Features:
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, 6)).astype(np.float32)
    truth = values @ np.random.default_rng(9).normal(size=(6, 3)) + random.normal(size=(count, 3))
    labels = (truth > 0).astype(np.float32) if classes else truth.astype(np.float32)
    labels[random.random(size=labels.shape) < 0.3] = -100 if classes else np.nan
    return Features(values, labels)


def test_the_exact_probe_is_a_model_for_each_task_on_the_rows_that_have_it() -> None:
    train, test = draw_features(80, 0), draw_features(60, 1)
    run = run_linear_probe(train, test, "multi_label_classification", ProbeArguments(), 0)
    mean, std = train.values.mean(0), train.values.std(0)
    expected = []
    for task in range(3):
        rows = train.required_labels()[:, task] != -100
        model = LogisticRegression(C=1.0, max_iter=1000)
        model.fit((train.values[rows] - mean) / std, train.required_labels()[rows, task])
        scored = test.required_labels()[:, task] != -100
        said = model.decision_function((test.values - mean) / std)
        expected.append(roc_auc_score(test.required_labels()[scored, task], said[scored]))
        np.testing.assert_allclose(run.predictions[:, task], said, rtol=1e-3, atol=1e-3)
    assert run.scores == {"mean_roc_auc": pytest.approx(np.mean(expected), abs=1e-3)}


@pytest.mark.parametrize("classes", [True, False])
def test_what_a_gap_of_training_holds_changes_no_probe(classes: bool) -> None:
    task = "multi_label_classification" if classes else "regression"
    metric = "mean_roc_auc" if classes else "spearman"
    train, test = draw_features(80, 0, classes), draw_features(60, 1, classes)
    args = [ProbeArguments(), ProbeArguments(solver="adam", num_epochs=30, learning_rate=0.05)]
    scores = [run_linear_probe(train, test, task, one, 0).scores[metric] for one in args]
    assert min(scores) > 0.7 and knn_probe(train, test, task, ProbeArguments(), 0)[metric] > 0.6
    # Rows whose labels are gaps alone teach nothing, whatever their features are: for kNN they are no neighbours that vote.
    empty = Features(test.values[:20], np.full((20, 3), -100 if classes else np.nan, dtype=np.float32))
    both = Features(
        np.concatenate([train.values, empty.values]),
        np.concatenate([train.required_labels(), empty.required_labels()]),
    )
    everyone = ProbeArguments(k=200)
    assert knn_probe(both, test, task, everyone, 0)[metric] == pytest.approx(
        knn_probe(train, test, task, everyone, 0)[metric]
    )


def test_a_task_of_one_class_in_training_is_not_learnt_but_others_are() -> None:
    train, test = draw_features(80, 0), draw_features(60, 1)
    train.required_labels()[:, 1] = np.where(train.required_labels()[:, 1] == 0, -100, train.required_labels()[:, 1])
    run = run_linear_probe(train, test, "multi_label_classification", ProbeArguments(), 0)
    assert (run.predictions[:, 1] == 0).all() and task_roc_aucs(run.predictions, test.required_labels())[1] == 0.5
    nothing = Features(train.values, np.ones_like(train.required_labels()))
    with pytest.raises(ValueError, match="none of 3 tasks has training rows of class 0 and of class 1"):
        run_linear_probe(nothing, test, "multi_label_classification", ProbeArguments(), 0)


def test_the_mean_roc_auc_is_that_of_sklearn_for_each_column_with_both_classes() -> None:
    random = np.random.default_rng(5)
    said = random.normal(size=(50, 4)).round(1)  # with ties
    true = random.integers(0, 2, size=(50, 4)).astype(np.float32)
    true[random.random(size=true.shape) < 0.4] = -100
    true[:, 2] = np.where(true[:, 2] == 0, np.nan, true[:, 2])
    expected = [roc_auc_score(true[rows, t], said[rows, t]) for t in (0, 1, 3) if (rows := true[:, t] >= 0).any()]
    assert score_outputs(said, true, "multi_label_classification") == {
        "mean_roc_auc": pytest.approx(np.mean(expected))
    }
    assert load_metric("mean_roc_auc").compute(predictions=said, references=true) == {
        "mean_roc_auc": pytest.approx(np.mean(expected))
    }
    assert tasks_left_out(true, ["a", "b", "c", "d"]) == ["c"]
    louder = np.where(true == -100, 99.0, said)
    assert score_outputs(louder, true, "multi_label_classification") == score_outputs(
        said, true, "multi_label_classification"
    )
    with pytest.raises(ValueError, match="none of 1 tasks has both among 50 rows"):
        score_outputs(said[:, 2:3], true[:, 2:3], "multi_label_classification")
    with pytest.raises(ValueError, match="rmse needs two labelled rows of every column, got 1"):
        score_columns(said[:, :1], np.array([[1.0], *[[np.nan]] * 49]), ["rmse"])


def test_a_checkpoint_is_probed_beside_baselines_and_says_which_tasks_it_leaves_out(tmp_path: Path) -> None:
    section = write_tasks(tmp_path)
    config = build_config(MODELS["metamae"])
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path / "checkpoint")
    processor: Any = prepare_data(data_arguments(**section), config).processor
    processor.save_pretrained(tmp_path / "checkpoint")
    measured = measure_checkpoint(str(tmp_path / "checkpoint"), data_arguments(**section), ProbeArguments())
    result = measured.result
    assert result["metric"] == "mean_roc_auc" and result["tasks_left_out"] == ["rare"]
    assert result["baselines"]["majority"]["linear"][0]["mean_roc_auc"] == 0.5
    differences = compare([measured])
    assert (
        differences[0]["linear"]["low"] <= differences[0]["linear"]["difference"] <= differences[0]["linear"]["high"]
    )
    assert "The mean ROC-AUC leaves out 1 tasks, which have no test rows of both classes: ['rare']." in notes(
        [measured], differences
    )


def test_labels_go_along_with_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_maskssl.commands import embed

    section = write_tasks(tmp_path)
    config = build_config(MODELS["metamae"])
    AutoModel.from_config(config).save_pretrained(tmp_path / "checkpoint")
    processor: Any = prepare_data(data_arguments(**section), config).processor
    processor.save_pretrained(tmp_path / "checkpoint")
    file = section["data_files"]["test"]
    words = [str(tmp_path / "checkpoint"), file, "--output", str(tmp_path / "features"), "--input_column", "word"]
    words += ["--label_column", str(CLASSES), "--task", "multi_label_classification"]
    monkeypatch.setattr(sys, "argv", ["embed", *words])
    embed.main()
    found = pd.concat(map(pd.read_parquet, (tmp_path / "features").rglob("*.parquet")))
    raw = pd.read_parquet(file)
    raw = raw[raw[CLASSES].notna().any(axis=1)]
    pd.testing.assert_frame_equal(found[CLASSES].reset_index(drop=True), raw[CLASSES].reset_index(drop=True))
