"""Fine-tuning on small tasks: learnt, chosen, scored, kept, continued, and refused where it cannot work."""

import dataclasses
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from finetuning_runs import MODELS, ROWS, TASKS, make_finetuning, write_recipe, write_task
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    set_seed,
)

from forked import launch
from hf_maskssl.data.collators import BatchCollator
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.evaluation.metrics import score_outputs
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning import trials
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, load_finetuning_recipe
from hf_maskssl.training.finetuning.predictions import load_predictions
from hf_maskssl.training.finetuning.results import Run, summarise, write_results
from hf_maskssl.training.finetuning.scores import FinetuningCollator, LabelUnit
from hf_maskssl.training.finetuning.sweep import Finetuner, finetune
from hf_maskssl.training.finetuning.trials import Trials

pytestmark = pytest.mark.usefixtures("private_cache", "blank_pictures")
HEADLINE = {"classification": "accuracy", "regression": "spearman", "token_classification": "token_accuracy"}
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """(learning rate, seed) of every run that was trained, in order."""
    found: list[tuple[float, int]] = []
    original = Trials.train

    def train(self: Trials, run: Any, keep: bool = False) -> dict[str, Any]:
        found.append((run.learning_rate, run.seed))
        return original(self, run, keep)

    monkeypatch.setattr(Trials, "train", train)
    return found


def pretrained(folder: Path, model: dict[str, Any] | None = None, seed: int = 7) -> Path:
    """A pre-training checkpoint with random weights, and the tokenizer of the small tasks."""
    config = build_config(model or MODELS["metamae"])
    set_seed(seed)
    AutoModelForPreTraining.from_config(config).save_pretrained(folder / "checkpoint")
    recipe = make_finetuning(folder)
    processor: Any = prepare_data(recipe.data, config).processor
    processor.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    runs = [{name: value for name, value in run.items() if name != "seconds"} for run in results["runs"]]
    return {**results, "runs": runs}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def contents_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder) if (folder / name).is_file()}


# What a run gives.


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS)
def test_task_is_learnt_and_the_kept_model_has_the_reported_score(model: str, task: str, tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path, task, MODELS[model], seeds=[0], num_train_epochs=12.0)
    results = finetune(recipe)
    assert results["metric"] == HEADLINE[task]
    assert results["scores"]["test"][HEADLINE[task]]["mean"] > 0.9
    auto_class: Any = (
        AutoModelForTokenClassification if task == "token_classification" else AutoModelForSequenceClassification
    )
    kept, info = auto_class.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    rows = datasets.Dataset.from_parquet(str(tmp_path / f"{task}-test.parquet"))
    batch = tokenizer(rows["word"][:], padding=True, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        logits = kept(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    if task == "token_classification":
        width = logits.shape[1]
        labels = np.array([[*row, *[-100] * (width - len(row))] for row in rows["label"]])
        logits = logits.argmax(-1)
    else:
        labels = np.array(rows["label"])
        logits = logits[:, 0] if task == "regression" else logits
    if task == "regression":
        # A rank correlation jumps where two nearly equal predictions change places: the predictions themselves are compared.
        (path,) = (tmp_path / "run" / "runs").glob("*.npz")
        said = load_predictions(path).said
        np.testing.assert_allclose(logits, said, rtol=1e-5)
        assert score_outputs(said, labels, task) == pytest.approx(results["runs"][0]["test"], rel=1e-5)
        assert results["runs"][0]["test"]["rmse"] < 20  # of labels around 320, with a deviation of 14
        assert 300 < logits.mean() < 340
    else:
        assert score_outputs(logits, labels, task) == pytest.approx(results["runs"][0]["test"], rel=1e-4)


def test_results_hold_every_run_and_their_intervals(tmp_path: Path) -> None:
    results = finetune(make_finetuning(tmp_path, seeds=[0, 1, 2], num_train_epochs=2.0))
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    assert [run["seed"] for run in written["runs"]] == [0, 1, 2]
    scores = [run["test"]["roc_auc"] for run in written["runs"]]
    interval = written["scores"]["test"]["roc_auc"]
    assert interval["mean"] == pytest.approx(np.mean(scores))
    # Student's t of two degrees of freedom, from a table.
    assert interval["half_width"] == pytest.approx(4.30265 * np.std(scores, ddof=1) / np.sqrt(3), rel=1e-5)
    assert set(written["scores"]["test"]) == {"accuracy", "weighted_f1", "matthews", "f1", "roc_auc"}
    assert written["rows"] == {"train": 48, "validation": 16, "test": 20}
    report = (tmp_path / "run" / "results.md").read_text()
    assert "| accuracy (%) |" in report and "random weights" in report and "chosen on the validation split" in report
    assert not any("trainer" in name or "partial" in name for name in files_of(tmp_path / "run"))
    assert {name for name in files_of(tmp_path / "run" / "runs")} == {
        "recipe.json",
        *(f"learning_rate_0.01-seed_{seed}.{kind}" for seed in (0, 1, 2) for kind in ("json", "npz")),
    }


def test_errors_are_reported_with_three_digits(tmp_path: Path) -> None:
    runs = {
        Run(1e-3, seed): {"learning_rate": 1e-3, "seed": seed, "validation": None, "epoch": 2.0, "seconds": 1.5}
        | {"test": {"rmse": rmse, "spearman": 0.5 + seed / 100}}
        for seed, rmse in enumerate([0.0412, 0.0435, 0.0455])
    }
    results = summarise(runs, 1e-3, "rmse")
    settings = {"checkpoint": None, "from_scratch": False, "freeze_encoder": False, "labelled_samples": None}
    write_results(tmp_path, results | {"settings": {"finetuning": settings}, "rows": {"train": 3}})
    report = (tmp_path / "results.md").read_text()
    assert "| rmse | 0.0434 ± 0.00535 | 3 |" in report and "| 0.0412 |" in report
    assert "| spearman (%) | 51.00 ± 2.48 | 3 |" in report
    assert (
        json.loads((tmp_path / "results.json").read_text())["scores"]["test"]["rmse"]["mean"]
        == results["scores"]["test"]["rmse"]["mean"]
    )


def test_the_best_epoch_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_maskssl")
    results = finetune(make_finetuning(tmp_path, "regression", seeds=[3], learning_rate=3e-2, metric="rmse"))
    scores = [float(record.args[3]) for record in caplog.records if "validation" in record.msg]  # type: ignore
    run = results["runs"][0]
    assert len(scores) == run["validations"] == 6
    assert run["validation"]["rmse"] == pytest.approx(min(scores), rel=1e-3)  # the log has four digits
    assert run["epoch"] == 1 + int(np.argmin(scores))


def test_learning_rate_is_chosen_on_validation_and_only_it_is_tested(tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path, "regression", learning_rate=[1e-6, 1e-2], metric="rmse")
    results = finetune(recipe)
    assert results["learning_rate"] == 1e-2
    means = {entry["learning_rate"]: entry["mean"] for entry in results["learning_rates"]}
    assert means[1e-2] < means[1e-6]
    tested = {(run["learning_rate"], run["seed"]): run["test"] is not None for run in results["runs"]}
    assert tested == {(1e-6, 0): False, (1e-6, 1): False, (1e-2, 0): True, (1e-2, 1): True}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"data_report.json", "model", "pictures", "results.json", "results.md", "runs"}
    # A single rate scores the test split at once, several put it off and read the model back: one and the same.
    alone = finetune(make_finetuning(tmp_path, "regression", output_dir=str(tmp_path / "alone"), metric="rmse"))
    for run, other in zip(results["runs"][2:], alone["runs"], strict=True):
        assert run["test"] == pytest.approx(other["test"], rel=1e-4)


def test_without_validation_the_last_epoch_is_scored(tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path, data={"validation_split": None}, seeds=[4, 5])
    results = finetune(recipe)
    assert "no validation split" in results["selection"] and "last epoch" in results["selection"]
    assert [run["epoch"] for run in results["runs"]] == [6.0, 6.0]
    assert all(run["validation"] is None for run in results["runs"]) and "validation" not in results["scores"]
    assert results["model"]["seed"] == 4  # the test split chooses nothing


def test_without_test_the_report_says_so(tmp_path: Path) -> None:
    results = finetune(make_finetuning(tmp_path, data={"test_split": None}, save_model=False, num_train_epochs=1.0))
    assert "optimistic" in results["selection"] and list(results["scores"]) == ["validation"]
    assert not (tmp_path / "run" / "model").exists()


def test_early_stopping(tmp_path: Path) -> None:
    results = finetune(make_finetuning(tmp_path, seeds=[0], early_stopping_patience=2, learning_rate=1e-12))
    # The first validation is the best; two more without a better one.
    assert results["runs"][0]["validations"] == 3 and results["runs"][0]["epoch"] == 1.0


def test_validation_every_few_steps(tmp_path: Path) -> None:
    results = finetune(make_finetuning(tmp_path, seeds=[0], max_steps=8, eval_steps=2))
    assert (results["runs"][0]["validations"], results["runs"][0]["steps"]) == (4, 8)


def test_a_seed_gives_the_same_run_again_and_another_seed_another(tmp_path: Path) -> None:
    first, second = (
        without_seconds(finetune(make_finetuning(tmp_path, "regression", output_dir=str(tmp_path / name))))["runs"]
        for name in ("a", "b")
    )
    assert first == second
    assert first[0]["training_loss"] != first[1]["training_loss"]
    # Where nothing is learnt, the initial weights alone make the difference.
    still = finetune(make_finetuning(tmp_path, "regression", learning_rate=1e-12, max_steps=1))["runs"]
    assert still[0]["validation"]["rmse"] != pytest.approx(still[1]["validation"]["rmse"], rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_accumulated_batches_are_one_large_batch(task: str, tmp_path: Path) -> None:
    weights, losses = [], []
    for parts in (1, 4):
        folder = tmp_path / str(parts)
        recipe = make_finetuning(
            tmp_path,
            task,
            seeds=[0],
            output_dir=str(folder),
            max_steps=3,
            batch_size=16 // parts,
            gradient_accumulation_steps=parts,
            adam_epsilon=0.1,  # Adam is otherwise blind to the scale of the gradient, and clipping evens it out
            max_grad_norm=None,
            data={"validation_split": None},
        )
        losses.append(finetune(recipe)["runs"][0]["training_loss"])
        weights.append(load_file(folder / "model" / "model.safetensors"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=2e-3, atol=2e-4)


def test_labelled_samples_are_drawn_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finetuner = Finetuner(make_finetuning(tmp_path, labelled_samples=10))
    draws = [
        [row["index"] for row in (finetuner.setup.training_rows(seed)[i] for i in range(10))] for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 10
    results = finetuner.run()
    assert results["runs"][0]["steps"] == 6 * 2
    assert "10 of the training rows" in (tmp_path / "run" / "results.md").read_text()


# Where a run starts from.


@pytest.mark.parametrize("model", MODELS)
def test_frozen_encoder_is_the_checkpoints_and_the_head_is_learnt(model: str, tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path, MODELS[model])
    recipe = make_finetuning(
        tmp_path, model={}, checkpoint=str(checkpoint), freeze_encoder=True, seeds=[0], num_train_epochs=1.0
    )
    finetuner = Finetuner(recipe)
    finetuner.run()
    set_seed(0)
    fresh = finetuner.trials.new_model().state_dict()
    encoder = AutoModel.from_pretrained(checkpoint).state_dict()
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    for name, value in kept.base_model.state_dict().items():
        assert torch.equal(value, encoder[name]), name
    head = {name: value for name, value in kept.state_dict().items() if not name.startswith(kept.base_model_prefix)}
    assert head and not any(torch.equal(value, fresh[name]) for name, value in head.items() if value.numel() > 1)
    assert "the encoder frozen" in (tmp_path / "run" / "results.md").read_text()


@pytest.mark.parametrize("model", MODELS)
def test_frozen_encoder_has_no_dropout(model: str, tmp_path: Path) -> None:
    fields = MODELS[model] | {"hidden_dropout_prob": 0.5}
    inputs = {"input_ids": torch.randint(3, 7, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}
    found = []
    for is_frozen in (True, False):
        network = Finetuner(make_finetuning(tmp_path, model=fields, freeze_encoder=is_frozen, overwrite=True))
        encoder = network.trials.new_model().train().base_model
        found.append(torch.equal(*(encoder(**inputs).last_hidden_state for _ in range(2))))
    assert found == [True, False]


@pytest.mark.parametrize("from_scratch", [False, True])
def test_run_starts_from_the_checkpoints_weights_unless_told_otherwise(from_scratch: bool, tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path)
    recipe = make_finetuning(tmp_path, model={}, checkpoint=str(checkpoint), from_scratch=from_scratch)
    model = Finetuner(recipe).trials.new_model()
    encoder = AutoModel.from_pretrained(checkpoint).state_dict()
    same = [
        torch.equal(value, encoder[name]) for name, value in model.base_model.state_dict().items() if value.ndim > 1
    ]
    assert all(same) if not from_scratch else not all(same)


def test_model_section_changes_the_checkpoints_configuration(tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path)
    model = {"model_type": "metamae", "hidden_dropout_prob": 0.25}
    config = Finetuner(make_finetuning(tmp_path, model=model, checkpoint=str(checkpoint))).config
    assert (config.hidden_dropout_prob, config.hidden_size, config.num_labels) == (0.25, 16, 2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"model_type": "vit"}, "model.model_type is 'vit'.*'metamae'"),
        ({"hiden_size": 8}, r"model.hiden_size \(did you mean 'hidden_size'\?\)"),
        ({"intermediate_size": 8}, "does not fit the model.*other shapes.*metamae"),
        ({"num_hidden_layers": 3}, "does not fit the model: missing weights.*metamae"),
    ],
)
def test_model_section_that_does_not_fit_the_checkpoint(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        finetune(make_finetuning(tmp_path, model=model, checkpoint=str(checkpoint)))


def test_a_finetuned_model_is_a_checkpoint_too_and_gets_a_new_head(tmp_path: Path) -> None:
    finetune(make_finetuning(tmp_path, seeds=[0], num_train_epochs=1.0))
    other = tmp_path / "other"
    other.mkdir()
    recipe = make_finetuning(other, "regression", model={}, checkpoint=str(tmp_path / "run" / "model"), seeds=[0])
    assert finetune(recipe)["metric"] == "spearman"


# Stopped, continued, changed.


def test_a_stopped_call_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, trained: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = without_seconds(finetune(make_finetuning(tmp_path, "regression", output_dir=str(tmp_path / "whole"))))
    recipe = make_finetuning(tmp_path, "regression")
    trained.clear()
    original = trials.write_json

    def fail_at_the_second_run(path: Any, data: Any) -> None:
        if "seed_1" in str(path):
            raise KeyboardInterrupt
        original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(trials, "write_json", fail_at_the_second_run)
        with pytest.raises(KeyboardInterrupt):
            finetune(recipe)
    assert not (tmp_path / "run" / "results.json").exists()
    found = without_seconds(finetune(recipe))
    assert trained == [(1e-2, 0), (1e-2, 1), (1e-2, 1)]
    expected["settings"] = found["settings"]  # another output_dir
    assert found == expected
    assert {name.split("/")[0] for name in files_of(tmp_path / "run")} == {
        "model",
        "data_report.json",
        "pictures",
        "results.json",
        "results.md",
        "runs",
    }


def test_finished_runs_are_not_repeated_and_seeds_and_rates_can_be_added(
    tmp_path: Path, trained: list[tuple[float, int]]
) -> None:
    short: dict[str, Any] = {"num_train_epochs": 2.0, "save_model": False}
    finetune(make_finetuning(tmp_path, **short))
    finetune(make_finetuning(tmp_path, **short))
    assert trained == [(1e-2, 0), (1e-2, 1)]
    results = finetune(make_finetuning(tmp_path, **short, seeds=[0, 1, 2]))
    assert trained[2:] == [(1e-2, 2)] and len(results["runs"]) == 3
    results = finetune(make_finetuning(tmp_path, **short, seeds=[2], learning_rate=[1e-2, 1e-5]))
    assert trained[3:] == [(1e-5, 2)]
    assert [(run["learning_rate"], run["seed"]) for run in results["runs"]] == [(1e-5, 2), (1e-2, 2)]
    # Its test scores were put off and its model thrown away: it is trained once more.
    results = finetune(make_finetuning(tmp_path, **short, seeds=[2], learning_rate=1e-5))
    assert trained[4:] == [(1e-5, 2)] and results["runs"][0]["test"]["accuracy"] >= 0


def test_model_wanted_afterwards_is_trained_again(tmp_path: Path, trained: list[tuple[float, int]]) -> None:
    finetune(make_finetuning(tmp_path, seeds=[0], save_model=False))
    results = finetune(make_finetuning(tmp_path, seeds=[0], save_model=True))
    assert trained == [(1e-2, 0), (1e-2, 0)] and results["model"] == {"learning_rate": 1e-2, "seed": 0}
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")


def test_changed_recipe_is_refused_or_starts_afresh(tmp_path: Path, trained: list[tuple[float, int]]) -> None:
    finetune(make_finetuning(tmp_path, seeds=[0], num_train_epochs=1.0))
    written = contents_of(tmp_path / "run")
    fields: dict[str, Any] = {"seeds": [0], "num_train_epochs": 1.0, "batch_size": 4, "logging_steps": 1}
    changed = make_finetuning(tmp_path, data={"max_train_samples": 20}, **fields)
    message = (
        "data.max_train_samples was None, is now 20.*; finetuning.batch_size was 8, is now 4.*finetuning.overwrite"
    )
    with pytest.raises(ValueError, match=message):
        finetune(changed)
    predicting = dataclasses.replace(changed.finetuning, overwrite=True, save_model=True, predict_test=True)
    with pytest.raises(ValueError, match="finetuning.predict_test: expected a task of GLUE"):
        finetune(dataclasses.replace(changed, finetuning=predicting))
    assert contents_of(tmp_path / "run") == written, "a refused run changes nothing, not even with overwrite"
    finetune(dataclasses.replace(changed, finetuning=dataclasses.replace(changed.finetuning, overwrite=True)))
    assert len(trained) == 2


def test_other_weights_under_the_checkpoints_name_are_noticed(tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path)
    recipe = make_finetuning(tmp_path, model={}, checkpoint=str(checkpoint), seeds=[0], num_train_epochs=1.0)
    finetune(recipe)
    pretrained(tmp_path, seed=8)
    with pytest.raises(ValueError, match="weights was '"):
        finetune(recipe)


@pytest.mark.parametrize("cache", [True, False])
def test_other_rows_or_another_configuration_under_one_name_are_noticed(cache: bool, tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path)
    data = {"cache": cache}
    recipe = make_finetuning(tmp_path, model={}, data=data, checkpoint=str(checkpoint))
    Finetuner(recipe).claim_folder()
    Finetuner(recipe)
    if cache:  # files that were written again, the same inside
        Finetuner(make_finetuning(tmp_path, model={}, data=data, checkpoint=str(checkpoint)))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    with pytest.raises(ValueError, match="model.layer_norm_eps was 1e-05, is now 0.001"):
        Finetuner(recipe)
    (checkpoint / "config.json").write_text(json.dumps(config))
    path = tmp_path / "classification-test.parquet"
    rows = datasets.Dataset.from_parquet(str(path)).to_dict()
    datasets.Dataset.from_dict({**rows, "label": [1 - label for label in rows["label"]]}).to_parquet(str(path))
    # Rows that are prepared as they are read are known by their files alone, which are read as one.
    place = r"runs of another recipe \(test rows" if cache else "test rows"
    with pytest.raises(ValueError, match=place + r" \(hash\) was '[^,]*, is now '[^,]*\): "):
        Finetuner(recipe)


def test_mixed_precision_is_the_recipes_before_the_launchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    found = {}
    for said in ("no", "bf16", None):
        finetuner = Finetuner(make_finetuning(tmp_path, mixed_precision=said, overwrite=True))
        trainer = finetuner.trials.trainer(finetuner.trials.new_model(), Run(1e-3, 0), LabelUnit())
        found[said] = trainer.accelerator.mixed_precision
        finetuner.claim_folder()
    assert found == {"no": "no", "bf16": "bf16", None: "bf16"}
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    with pytest.raises(ValueError, match="finetuning.mixed_precision was 'bf16', is now 'no'"):
        Finetuner(make_finetuning(tmp_path))


# What cannot work.


@pytest.mark.parametrize("name", ["FSDP", "DeepSpeed"])
def test_sharded_launches_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
    with pytest.raises(ValueError, match=f"{name}, but fine-tuning runs data-parallel only: take .*eight_gpus.yaml"):
        Finetuner(make_finetuning(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": []}, "finetuning.seeds"),
        ({"seeds": [1, 1]}, "finetuning.seeds"),
        ({"learning_rate": 0.0}, "finetuning.learning_rate"),
        ({"learning_rate": []}, "finetuning.learning_rate"),
        ({"batch_size": 0}, "finetuning.batch_size: expected at least 1, got 0"),
        ({"num_train_epochs": 0.0}, "finetuning.num_train_epochs"),
        ({"max_grad_norm": 0.0}, "finetuning.max_grad_norm"),
        ({"labelled_samples": 0}, "finetuning.labelled_samples"),
        ({"warmup_ratio": 1.0}, "finetuning.warmup_ratio"),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, "both set"),
        ({"metric": "f2"}, "finetuning.metric"),
        ({"from_scratch": True}, "finetuning.from_scratch.*finetuning.checkpoint"),
    ],
)
def test_impossible_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuningArguments(**fields)


@pytest.mark.parametrize(
    ("fields", "data", "message"),
    [
        ({}, {"validation_split": None, "test_split": None}, "data.test_split"),
        ({"learning_rate": [1e-3, 1e-2]}, {"validation_split": None}, "finetuning.learning_rate.*validation"),
        (
            {"early_stopping_patience": 1},
            {"validation_split": None},
            "finetuning.early_stopping_patience=1.*validation",
        ),
        ({"labelled_samples": 49}, {}, "labelled_samples is 49; there are 48"),
        ({"metric": "rmse"}, {}, "'rmse' does not measure a classification task.*roc_auc"),
        ({}, {"label_column": None}, "data.label_column"),
        ({}, {"streaming": True}, "data.streaming"),
    ],
)
def test_recipes_that_do_not_fit_the_data(
    fields: dict[str, Any], data: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(make_finetuning(tmp_path, data=data, **fields))


def test_without_checkpoint_and_model_there_is_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finetuning.checkpoint"):
        finetune(make_finetuning(tmp_path, model={}))
    with pytest.raises(FileNotFoundError, match="finetuning.checkpoint.*no such folder"):
        finetune(make_finetuning(tmp_path, model={}, checkpoint=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("task", TASKS)
def test_diverged_run_says_what_to_change(task: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learning rate 1e.38, seed 0.*lower finetuning.learning_rate"):
        finetune(make_finetuning(tmp_path, task, seeds=[0], learning_rate=1e38, max_grad_norm=None))


def test_collator_drops_row_numbers_but_errors_name_them() -> None:
    collator = FinetuningCollator(BatchCollator({"input_values": "sensor"}), LabelUnit(10.0, 2.0))
    rows = [{"input_values": np.zeros((1, 4)), "labels": np.float32(14), "index": 7 + row} for row in range(2)]
    batch = collator(rows)
    assert set(batch) == {"input_values", "labels"}
    assert batch["labels"].tolist() == [2.0, 2.0] and batch["labels"].dtype == torch.float32
    rows[1]["input_values"] = np.full((1, 4), np.nan)
    with pytest.raises(ValueError, match="row 8, column 'sensor'"):
        collator(rows)


# The script.


def test_a_written_recipe_is_read_back_and_overridden(tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path)
    path = write_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_finetuning_recipe(path) == recipe
    words = [
        "--learning_rate",
        "[1e-4, 5e-5]",
        "--checkpoint",
        "folder",
        "--task",
        "regression",
        "--hidden_size",
        "32",
    ]
    changed = load_finetuning_recipe(path, words)
    assert changed.finetuning.learning_rates == [1e-4, 5e-5] and changed.finetuning.checkpoint == "folder"
    assert changed.data.task == "regression" and changed.model["hidden_size"] == 32


@pytest.mark.slow
def test_script_on_two_processes_gives_what_one_gives_with_twice_the_batch(tmp_path: Path) -> None:
    # Rows that two processes cannot share evenly: what fills the last batch must not be scored.
    rows = {"train": 48, "valid": 17, "test": 21}
    rates = [1e-2, 1e-3]
    recipe = make_finetuning(tmp_path, "regression", rows=rows, batch_size=4, learning_rate=rates)
    path = write_recipe(recipe, tmp_path / "recipe.yaml")
    words = [str(EXAMPLES / "run_finetune.py"), str(path)]
    output = launch(EXAMPLES / "accelerate" / "two_cpu_processes.yaml", words).stdout
    assert output.count("spearman (%)") == 1  # one process reports
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    # Two accumulated batches are summed as two processes' are. In one batch the sums have another order, which at these
    # rates grows from the last digit to several per cent in 36 steps.
    alone = finetune(
        make_finetuning(
            tmp_path,
            "regression",
            rows=rows,
            batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=rates,
            output_dir=str(tmp_path / "1"),
        )
    )
    assert len(found["runs"]) == 4 and found["learning_rate"] == alone["learning_rate"]
    for run, other in zip(found["runs"], alone["runs"], strict=True):
        assert run["steps"] == other["steps"] == 36
        assert (run["learning_rate"], run["seed"]) == (other["learning_rate"], other["seed"])
        for split in ("validation", "test"):
            assert (run[split] is None) == (other[split] is None)
            if run[split] is not None:
                assert run[split]["rmse"] == pytest.approx(other[split]["rmse"], rel=1e-3)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")


def test_data_of_the_small_tasks_is_what_these_tests_take_it_for(tmp_path: Path) -> None:
    section = write_task(tmp_path, "classification")
    rows = datasets.Dataset.from_parquet(section["data_files"]["train"])
    assert len(rows) == ROWS["train"] and 0.3 < np.mean(rows["label"]) < 0.7


def test_trackers_keep_their_files_and_workers_load_batches(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe = make_finetuning(
        tmp_path, seeds=[0], num_train_epochs=1.0, report_to=["tensorboard"], num_workers=1, mixed_precision="bf16"
    )
    finetune(recipe)
    events = list((tmp_path / "run" / "logs").rglob("events.out.tfevents.*"))
    assert len(events) == 1 and events[0].parent.name == "learning_rate_0.01-seed_0"


def test_each_run_of_weights_and_biases_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = SimpleNamespace(run=object())
    ended: list[object] = []
    wandb.finish = lambda: ended.append(wandb.run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # type: ignore[arg-type]
    for trackers, count in ((["tensorboard"], 0), (["wandb"], 1)):
        trials.finish_wandb(SimpleNamespace(args=SimpleNamespace(report_to=trackers)))  # type: ignore[arg-type]
        assert len(ended) == count


def test_the_kept_models_card_is_written(tmp_path: Path) -> None:
    cards: list[tuple[Path, Any]] = []
    recipe = make_finetuning(tmp_path, seeds=[0], max_steps=1)
    for _ in range(2):  # a model that an earlier call kept needs it as well
        results = finetune(recipe, write_card=lambda folder, recipe, results: cards.append((folder, results)))
    assert cards == [(tmp_path / "run" / "model", results)] * 2
