"""Fine-tuning on rows that are longer than what the model reads: it sees windows, and rows are scored."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from finetuning_runs import raise_in_step, write_recipe
from runs import assert_same_weights, weights
from transformers import AutoFeatureExtractor, AutoModelForSequenceClassification

import tiny_models
from forked import launch
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.tables.windows import WindowedRows, window_starts
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.predictions import load_predictions, predictions_path
from hf_maskssl.training.finetuning.results import Run
from hf_maskssl.training.finetuning.setup import FinetuningSetup
from hf_maskssl.training.finetuning.stopping import RunStopped
from hf_maskssl.training.finetuning.sweep import finetune

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROWS = {"train": 14, "valid": 7, "test": 9}
WINDOW, STRIDE = 12, 7
RATE, FRAME, HOP = 1000, 40, 20
MODELS: dict[str, dict[str, Any]] = {
    "series": tiny_models.section("metamae", **{**tiny_models.MODALITIES["metamae"]["series"], "num_channels": 1}),
    "sounds": tiny_models.section(
        "metamae", modality="image", image_size=[4, WINDOW], num_channels=1, patch_size=[2, 3]
    ),
}


def values_of(split: str, kind: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of one to five windows, and a label by their level."""
    random = np.random.default_rng(sorted(ROWS).index(split))
    levels = np.arange(ROWS[split]) % 2
    samples = (HOP if kind == "sounds" else 1) * random.integers(8, 50, ROWS[split])
    return [
        random.normal(2 * level - 1, 1 + level, count) for level, count in zip(levels, samples, strict=True)
    ], levels


def make(folder: Path, kind: str = "series", task: str = "classification", **fields: Any) -> FinetuningRecipe:
    folder.mkdir(exist_ok=True)
    files = {}
    for split in ROWS:
        values, labels = values_of(split, kind)
        files[split] = str(folder / f"{split}.parquet")
        scaled = labels if task == "classification" else 300.0 + 40.0 * labels + 0.1 * np.arange(len(labels))
        pq.write_table(pa.table({"x": [one.tolist() for one in values], "label": scaled}), files[split])
    data: dict[str, Any] = {"window": WINDOW, "stride": STRIDE, "label_column": "label", "task": task}
    if kind == "sounds":
        data |= {"kind": "spectrogram", "sampling_rate": RATE, "frame_length": FRAME, "hop_length": HOP}
    else:
        data |= {"kind": "series"}
    data |= {"source": "parquet", "data_files": files, "input_column": "x"}
    data |= {"validation_split": "valid", "test_split": "test", **fields.pop("data", {})}
    own = {"output_dir": str(folder / "run"), "num_train_epochs": 2.0, "batch_size": 8, "learning_rate": 1e-2}
    return FinetuningRecipe(
        MODELS[kind], data_arguments(**data), FinetuningArguments(**(own | {"seeds": [0]} | fields))
    )


def steps_of(value: np.ndarray, kind: str) -> int:
    return len(value) if kind == "series" else 1 + max(0, -(-(len(value) - FRAME) // HOP))


def part(value: np.ndarray, start: int, kind: str) -> np.ndarray:
    if kind == "series":
        return value[start : start + WINDOW]
    return value[start * HOP : (start + WINDOW - 1) * HOP + FRAME]


@pytest.mark.parametrize(
    ("kind", "task"), [("series", "classification"), ("series", "regression"), ("sounds", "classification")]
)
def test_a_row_is_scored_by_the_mean_of_its_windows(
    kind: str, task: str, tmp_path: Path, blank_pictures: None
) -> None:
    results = finetune(make(tmp_path, kind, task, save_model=True, baselines=True))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    processor = AutoFeatureExtractor.from_pretrained(tmp_path / "run" / "model")
    values, labels = values_of("test", kind)
    outputs, counts = [], []
    for value in values:
        starts = window_starts(steps_of(value, kind), WINDOW, STRIDE).tolist()
        counts.append(len(starts))
        logits = []
        for start in starts:  # by themselves, as a user would
            with torch.no_grad():
                logits.append(model(**processor(part(value, start, kind), return_tensors="pt")).logits[0].numpy())
        outputs.append(np.mean(logits, axis=0))
    assert max(counts) > 3 and min(counts) == 1
    stored = load_predictions(predictions_path(tmp_path / "run", Run(1e-2, 0)))
    assert stored is not None and stored.rows.tolist() == list(range(ROWS["test"]))
    assert results["rows"] == {"train": ROWS["train"], "validation": ROWS["valid"], "test": ROWS["test"]}
    scores = results["scores"]["test"]
    if task == "regression":
        said = np.stack(outputs)[:, 0]
        true = 300.0 + 40.0 * labels + 0.1 * np.arange(len(labels))
        np.testing.assert_allclose(stored.said, said, rtol=1e-4)
        np.testing.assert_allclose(stored.true, true, rtol=1e-6)
        assert scores["rmse"]["mean"] == pytest.approx(np.sqrt(np.mean((said - true) ** 2)), rel=1e-3)
    else:
        said = np.stack(outputs).argmax(axis=1)
        np.testing.assert_array_equal(stored.said, said)
        assert scores["accuracy"]["mean"] == pytest.approx(np.mean(said == labels))
    assert {model["name"] for model in results["baselines"]["models"]} == {"constant", "raw"}


def test_windows_that_are_not_pooled_are_rows(tmp_path: Path, blank_pictures: None) -> None:
    results = finetune(make(tmp_path, data={"pool_windows": False}))
    counts = {}
    for split, name in zip(ROWS, ("train", "validation", "test"), strict=True):
        counts[name] = sum(len(window_starts(len(one), WINDOW, STRIDE)) for one in values_of(split, "series")[0])
    assert results["rows"] == counts


@pytest.mark.parametrize("pooled", [True, False])
def test_labelled_samples_are_rows_with_all_their_windows(pooled: bool, tmp_path: Path) -> None:
    setup = FinetuningSetup(make(tmp_path, labelled_samples=5, data={"pool_windows": pooled}))
    rows = setup.training_rows(3)
    assert isinstance(rows, WindowedRows)
    if not pooled:
        assert len(rows) == 5
        return
    chosen = sorted(set(rows.chosen_owners.tolist()))
    every = [len(window_starts(len(one), WINDOW, STRIDE)) for one in values_of("train", "series")[0]]
    assert len(chosen) == 5 and len(rows) == sum(every[row] for row in chosen)
    assert chosen != sorted(set(setup.training_rows(4).chosen_owners.tolist()))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"labelled_samples is 15; there are 14 training rows"):
        FinetuningSetup(make(tmp_path / "more", labelled_samples=15))


def test_labels_are_counted_once_a_row(tmp_path: Path) -> None:
    setup = FinetuningSetup(make(tmp_path, task="regression"))
    labels = 300.0 + 40.0 * values_of("train", "series")[1] + 0.1 * np.arange(ROWS["train"])
    unit = setup.label_unit(setup.training_rows(0))
    assert (unit.mean, unit.std) == pytest.approx((labels.mean(), labels.std()), rel=1e-5)


def test_windows_are_drawn_anew_in_each_epoch_and_a_stopped_run_draws_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_pictures: None
) -> None:
    drawn: list[tuple[int, int]] = []
    original = WindowedRows._start

    def start(self: WindowedRows, number: int, owner: int) -> int:
        found = original(self, number, owner)
        if self.draws is not None:
            drawn.append((number, found))
        return found

    monkeypatch.setattr(WindowedRows, "_start", start)
    expected = finetune(make(tmp_path / "whole", save_model=True))["runs"][0]
    by_number: dict[int, set[int]] = {}
    for number, first in drawn:
        by_number.setdefault(number, set()).add(first)
    assert max(map(len, by_number.values())) > 1
    recipe = make(tmp_path / "stopped", save_model=True)
    with monkeypatch.context() as patch:
        raise_in_step(patch, 2, signal.SIGTERM)
        with pytest.raises(RunStopped):
            finetune(recipe)
    found = finetune(recipe)["runs"][0]
    assert found["training_loss"] == pytest.approx(expected["training_loss"], rel=1e-5)
    assert (found["validation"], found["test"]) == (expected["validation"], expected["test"])
    assert_same_weights(weights(tmp_path / "stopped" / "run" / "model"), weights(tmp_path / "whole" / "run" / "model"))


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """Windows that two processes cannot share evenly, of rows that lie partly in one and partly in the other."""
    recipe = make(tmp_path, batch_size=4, eval_batch_size=3, save_model=False)
    words = [str(EXAMPLES / "run_finetune.py"), str(write_recipe(recipe, tmp_path / "recipe.yaml"))]
    launch(EXAMPLES / "accelerate" / "two_cpu_processes.yaml", words)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    changes = {"gradient_accumulation_steps": 2, "eval_batch_size": 5, "output_dir": str(tmp_path / "alone")}
    alone = finetune(make(tmp_path, batch_size=4, save_model=False, **changes))
    assert found["rows"] == alone["rows"]
    for split in ("validation", "test"):
        assert found["runs"][0][split] == pytest.approx(alone["runs"][0][split], rel=1e-3)
    of_two, of_one = (load_predictions(predictions_path(tmp_path / name, Run(1e-2, 0))) for name in ("run", "alone"))
    assert of_two is not None and of_one is not None
    np.testing.assert_array_equal(of_two.said, of_one.said)
    np.testing.assert_array_equal(of_two.true, values_of("test", "series")[1])
