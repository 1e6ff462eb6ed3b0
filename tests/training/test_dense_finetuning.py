"""MultiMAE's transfers through the scripts: maps learnt from any modalities, scored pixel by pixel, and what is refused."""

import dataclasses
import json
import logging
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from dense_runs import DEPTH, MULTIMAE, RGB_ALONE, SCENES, make_dense, pretrained_multimae
from finetuning_runs import MODELS, make_finetuning
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    EvalPrediction,
    ViTConfig,
    ViTModel,
)

import tiny_models
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.tables.splits import read_splits
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint
from hf_maskssl.hub.conversion import convert
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe, load_finetuning_recipe
from hf_maskssl.training.finetuning.models import head_class, read_config
from hf_maskssl.training.finetuning.results import Run
from hf_maskssl.training.finetuning.scores import MapScorer, predicted_class_maps, predicted_depth_maps
from hf_maskssl.training.finetuning.sweep import Finetuner, finetune
from hf_maskssl.training.finetuning.trials import EpochTeller

pytestmark = pytest.mark.usefixtures("private_cache", "blank_pictures")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ADDED_DEPTH = {"model_type": "multimae", "modalities": {"depth": DEPTH}}


def run_script(name: str, recipe: FinetuningRecipe, folder: Path, monkeypatch: Any, *words: str) -> dict[str, Any]:
    """The script on a recipe; what results.json holds."""
    sections = {section: dataclasses.asdict(getattr(recipe, section)) for section in ("data", "finetuning")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"model": recipe.model, **sections}, sort_keys=False))
    monkeypatch.setattr(sys, "argv", [name, str(folder / "recipe.yaml"), *words])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return json.loads((folder / "run" / "results.json").read_text())


def rendered_test_scenes(label: str) -> tuple[dict[str, Any], np.ndarray]:
    """Pictures and labels of the test scenes, as they come."""
    rows = read_splits(data_arguments(**SCENES))["test"]
    images = {name: [row[name] for row in rows] for name in ("rgb", "depth")}
    return images, np.stack([np.asarray(row[label]) for row in rows]).astype(np.int64)


# From the script to the scores.


@pytest.mark.parametrize(
    ("checkpoint", "inputs"),
    [("both", ["rgb"]), ("both", ["depth"]), ("rgb", ["rgb", "depth"]), (None, ["depth", "rgb"])],
)
def test_segmentation_script_reports_the_score_of_the_kept_model(
    checkpoint: str | None, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint and pretrained_multimae(tmp_path / "start", **(RGB_ALONE if checkpoint == "rgb" else {}))
    model_section = {None: MULTIMAE, "rgb": ADDED_DEPTH}.get(checkpoint, {})
    recipe = make_dense(tmp_path, "semantic_segmentation", model_section, checkpoint=folder and str(folder))
    words = ["--inputs", *inputs, "--layer_decay", "0.75", "--max_steps", "4"]
    results = run_script("run_semantic_segmentation.py", recipe, tmp_path, monkeypatch, *words)
    assert results["inputs"] == sorted(inputs, reverse=True)  # in the model's order
    report = (tmp_path / "run" / "results.md").read_text()
    assert "mean_iou (%)" in report and f"with {' + '.join(results['inputs'])} as input" in report

    model, info = AutoModelForSemanticSegmentation.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.head_modalities == results["inputs"] and model.config.id2label[3] == "box"
    images, labels = rendered_test_scenes("semseg")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "run" / "model")
    batch = processor({name: images[name] for name in inputs}, return_tensors="pt")
    with torch.no_grad():
        logits = model(inputs=batch["inputs"]).logits
        logits = torch.nn.functional.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
    said = logits.argmax(1).numpy()
    shares = []
    for number in range(10):
        union = int(((said == number) | (labels == number)).sum())
        if union:
            shares.append(int(((said == number) & (labels == number)).sum()) / union)
    assert results["scores"]["test"]["mean_iou"]["mean"] == pytest.approx(np.mean(shares), rel=1e-4)


def test_depth_script_reports_the_score_of_the_kept_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pretrained_multimae(tmp_path / "start")
    fields: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 30, "eval_steps": 15, "seeds": [0, 1]}
    recipe = make_dense(tmp_path, "depth_estimation", {}, checkpoint=str(folder), **fields)
    results = run_script("run_depth_estimation.py", recipe, tmp_path, monkeypatch, "--inputs", "rgb")
    assert results["metric"] == "delta_1" and results["scores"]["test"]["delta_1"]["half_width"] is not None
    assert "| rmse |" in (tmp_path / "run" / "results.md").read_text()
    model = AutoModelForDepthEstimation.from_pretrained(tmp_path / "run" / "model")
    images, depth = rendered_test_scenes("depth")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "run" / "model")
    with torch.no_grad():
        said = model(**processor(images["rgb"], return_tensors="pt")).predicted_depth.numpy()
    true = depth / 1000  # metres: the label is not standardised
    assert 1 < true.mean() < 6
    ratio = np.maximum(np.maximum(said, 1e-9) / true, true / np.maximum(said, 1e-9))
    kept = results["runs"][results["model"]["seed"]]["test"]
    assert kept["delta_1"] == pytest.approx((ratio < 1.25).mean(), rel=1e-3)
    assert kept["rmse"] == pytest.approx(np.sqrt(((said - true) ** 2).mean()), rel=1e-4)
    assert kept["delta_1"] > 0.15 and kept["rmse"] < 0.7 * np.sqrt((true**2).mean())  # it has learnt something


def test_classification_takes_the_image_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pretrained_multimae(tmp_path / "start")
    recipe = make_dense(tmp_path, "classification", {}, checkpoint=str(folder))
    results = run_script(
        "run_finetune.py", recipe, tmp_path, monkeypatch, "--inputs", "depth", "--layer_decay", "0.65"
    )
    assert results["metric"] == "accuracy" and results["inputs"] == ["depth"]
    kept = AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "model")
    assert kept.config.id2label[0] == "box"


# Where weights and inputs come from.


def test_modality_the_checkpoint_lacks_gets_a_new_projection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_maskssl")
    folder = pretrained_multimae(tmp_path / "start", **RGB_ALONE, dirichlet_alpha={"rgb": 2.0})
    recipe = make_dense(
        tmp_path, "semantic_segmentation", ADDED_DEPTH, checkpoint=str(folder), inputs=["rgb", "depth"]
    )
    finetuner = Finetuner(recipe)
    model = finetuner.trials.new_model()
    place = "multimae.embeddings.projections"
    assert f"new and random: {place}.depth.bias, {place}.depth.weight" in caplog.text
    saved = load_file(folder / "model.safetensors")
    found = model.state_dict()
    for name in saved:
        if name.startswith("multimae."):
            assert torch.equal(found[name], saved[name]), name
    assert found[f"{place}.depth.weight"].std() > 0
    # Its pictures are prepared as a new checkpoint's would be; those of rgb as the checkpoint's.
    data: Any = finetuner.data
    assert data.processor.modalities["depth"]["standardize"] == "robust"
    batch = data.collator([data.train[0]])
    assert set(batch["inputs"]) == {"rgb", "depth"} and abs(batch["inputs"]["depth"].mean()) < 1
    with pytest.raises(ValueError, match=r"freeze_encoder: the input projection of \['depth'\] is new"):
        frozen = dataclasses.replace(recipe.finetuning, freeze_encoder=True)
        Finetuner(dataclasses.replace(recipe, finetuning=frozen))


def test_model_section_changes_a_modality_and_keeps_the_others(tmp_path: Path) -> None:
    folder = pretrained_multimae(tmp_path / "start")
    fields = {"modalities": {"depth": {"loss": "mse"}, "thermal": DEPTH}, "drop_path_rate": 0.1}
    config: Any = read_config(fields, folder)
    assert list(config.modalities) == ["rgb", "depth", "thermal"] and config.drop_path_rate == 0.1
    assert config.modalities["depth"] == DEPTH | {"loss": "mse"}


def test_only_the_chosen_modalities_are_read(tmp_path: Path) -> None:
    for inputs, columns, expected in (
        (["depth"], None, ["depth"]),
        (None, {"depth": "depth"}, ["depth"]),
        (None, "rgb", ["rgb"]),
        (None, None, ["rgb", "depth"]),
    ):
        recipe = make_dense(
            tmp_path, "semantic_segmentation", data={"input_column": columns}, inputs=inputs, overwrite=True
        )
        finetuner = Finetuner(recipe)
        rows: Any = finetuner.data.train
        assert list(finetuner.data.collator([rows[0]])["inputs"]) == expected
        assert finetuner.config.head_modalities == expected


def test_inputs_are_several_words_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("finetuning: {seeds: [3]}\n")
    for words, expected in (
        (["--inputs", "rgb", "depth", "--seeds", "[1]"], ["rgb", "depth"]),
        (["--seeds", "[1]", "--finetuning.inputs", "depth"], ["depth"]),
        (["--inputs", "[rgb, depth]", "--seeds", "[1]"], ["rgb", "depth"]),
        (["--inputs", "rgb,depth", "--seeds", "[1]"], ["rgb", "depth"]),
        (["--inputs=rgb,depth", "--seeds=[1]"], ["rgb", "depth"]),
        (["--inputs", "rgb,", "depth", "--seeds", "[1]"], ["rgb", "depth"]),
        (["--inputs", "null", "--seeds", "[1]"], None),
    ):
        recipe = load_finetuning_recipe(tmp_path / "recipe.yaml", words)
        assert recipe.finetuning.inputs == expected and recipe.finetuning.seeds == [1]


# Scores of maps.


def test_class_maps_are_resized_one_by_one_and_their_scores_add_up() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3, 2, 3), torch.randint(0, 3, (4, 8, 9))
    labels[:, 0] = 7
    said = predicted_class_maps((logits, "hidden states"), labels)
    whole = torch.nn.functional.interpolate(logits, size=(8, 9), mode="bilinear", align_corners=False)
    assert torch.equal(said, whole.argmax(1))
    scorer = MapScorer("semantic_segmentation", Run(1e-3, 0), ignore_index=7)
    for part in (slice(0, 1), slice(1, 4)):
        found = scorer(EvalPrediction(said[part], labels[part]), compute_result=part.stop == 4)  # type: ignore[arg-type]
    alone = MapScorer("semantic_segmentation", Run(1e-3, 0), ignore_index=7)
    assert found == alone(EvalPrediction(said, labels), compute_result=True)  # type: ignore[arg-type]
    # Nothing is left over for the next validation.
    assert found == scorer(EvalPrediction(said, labels), compute_result=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["semantic_segmentation", "depth_estimation"])
def test_diverged_maps_say_what_to_change(task: str) -> None:
    labels: torch.Tensor = torch.ones(1, 4, 4)
    if task == "depth_estimation":
        said = predicted_depth_maps(torch.full((1, 4, 4), torch.nan), labels)
    else:
        labels = labels.long()
        said = predicted_class_maps(torch.full((1, 3, 2, 2), torch.nan), labels)
    scorer = MapScorer(task, Run(1e-3, 0), ignore_index=255)
    with pytest.raises(ValueError, match="learning rate 0.001, seed 0.*lower finetuning.learning_rate"):
        scorer(EvalPrediction(said, labels), compute_result=True)  # type: ignore[arg-type]


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    weights = []
    for parts in (1, 2):
        recipe = make_dense(
            tmp_path,
            "semantic_segmentation",
            batch_size=4 // parts,
            gradient_accumulation_steps=parts,
            output_dir=str(tmp_path / str(parts)),
            adam_epsilon=0.1,  # Adam is otherwise blind to the scale of the gradient
            max_grad_norm=None,
            data={"validation_split": None},
        )
        finetune(recipe)
        weights.append(load_file(tmp_path / str(parts) / "model" / "model.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=2e-3, atol=1e-5)


def test_crops_are_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    recipe = make_dense(tmp_path, "semantic_segmentation", data={"augment": True}, max_steps=0, num_train_epochs=2.0)
    finetuner = Finetuner(recipe)
    rows: Any = finetuner.setup.training_rows(0)
    views = []
    for epoch, seed in ((0.0, 0), (1.0, 0), (0.0, 1), (0.0, 0)):
        args: Any = SimpleNamespace(seed=seed)
        EpochTeller(rows).on_epoch_begin(args, SimpleNamespace(epoch=epoch), None)  # type: ignore[arg-type]
        views.append(rows[3])
    assert not np.array_equal(views[0]["labels"], views[1]["labels"])
    assert not np.array_equal(views[0]["labels"], views[2]["labels"])
    assert all(np.array_equal(views[0][name], views[3][name]) for name in views[0])
    finetuner.run()


# Frozen features.


def test_probes_take_a_multimae(tmp_path: Path) -> None:
    folder = pretrained_multimae(tmp_path / "start")
    data = data_arguments(**SCENES, label_column="label", input_column={"depth": "depth"})
    result = evaluate_checkpoint(str(folder), data, ProbeArguments(solver="exact", k=2))
    assert result["rows"]["test"] == 6 and 0 <= result["linear"][0]["accuracy"] <= 1
    crops = dataclasses.replace(data, augment=True)
    same = evaluate_checkpoint(str(folder), crops, ProbeArguments(solver="exact", k=2))
    assert (same["linear"], same["knn"]) == (result["linear"], result["knn"]), "probes see whole training rows"
    dense = dataclasses.replace(data, task="semantic_segmentation", label_column="semseg")
    with pytest.raises(ValueError, match="task: expected one of .*semantic_segmentation"):
        evaluate_checkpoint(str(folder), dense, ProbeArguments())


# What cannot work.


@pytest.mark.parametrize(
    ("task", "data", "fields", "message"),
    [
        (
            "semantic_segmentation",
            {},
            {"inputs": ["rgb", "thermal"]},
            r"finetuning.inputs.*\['thermal'\].*model.modalities",
        ),
        ("depth_estimation", {}, {"inputs": ["rgb", "depth"]}, "data.label_column.*'depth' is also an input"),
        ("depth_estimation", {}, {}, "data.label_column.*'depth' is also an input"),
        ("semantic_segmentation", {}, {"metric": "rmse"}, "'rmse' does not measure a semantic_segmentation task"),
        ("semantic_segmentation", {"input_column": {"heat": "rgb"}}, {}, r"data.input_column.*\['heat'\]"),
    ],
)
def test_recipes_that_do_not_fit(
    task: str, data: dict[str, Any], fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        Finetuner(make_dense(tmp_path, task, data=data, **fields))


def test_inputs_are_for_models_of_several_modalities(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finetuning.inputs.*metamae has one input"):
        Finetuner(make_finetuning(tmp_path, inputs=["rgb"]))


def test_task_without_a_model_is_named() -> None:
    with pytest.raises(ValueError, match="data.task 'token_classification': multimae has no model.*DepthEstimation"):
        head_class("token_classification", build_config(MULTIMAE))
    assert (
        head_class("classification", build_config(MODELS["metamae"])).__name__ == "AutoModelForSequenceClassification"
    )


def test_script_of_another_task_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="data.task is 'classification'; this script is for 'depth_estimation'"):
        run_script("run_depth_estimation.py", make_dense(tmp_path, "classification"), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": []}, "finetuning.inputs: expected different"),
        ({"inputs": ["rgb", "rgb"]}, "finetuning.inputs: expected different"),
        ({"layer_decay": 0.0}, r"finetuning.layer_decay: expected a number in \(0, 1\] or nothing, got 0.0"),
        ({"layer_decay": 0.75, "freeze_encoder": True}, "finetuning.layer_decay=0.75.*freeze_encoder is true"),
        (
            {"min_learning_rate": 1e-3, "learning_rate": [1e-2, 1e-4], "lr_scheduler_type": "cosine"},
            "min_learning_rate",
        ),
        ({"min_learning_rate": 1e-6}, "min_learning_rate=1e-06 is where .* 'cosine' ends, which is 'linear'"),
    ],
)
def test_impossible_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuningArguments(**fields)


def test_a_plain_vit_is_fine_tuned_once_it_is_converted(tmp_path: Path) -> None:
    """MultiMAE's Table 1, DINO and others: on pictures of another size, with layer-wise learning rates."""
    fields: dict[str, Any] = {**tiny_models.ENCODER, "image_size": 16, "patch_size": 8}
    ViTModel(ViTConfig(**fields)).save_pretrained(tmp_path / "vit")
    model = {"model_type": "multimae", "image_size": [32, 32], "drop_path_rate": 0.1}
    with pytest.raises(
        ValueError, match="is of 'vit': `hf-maskssl convert multimae .*vit FOLDER` makes a MultiMAE of it"
    ):
        read_config(model, tmp_path / "vit")
    convert("multimae", tmp_path / "vit", tmp_path / "start")
    tuning: dict[str, Any] = {
        "checkpoint": str(tmp_path / "start"),
        "inputs": ["rgb"],
        "layer_decay": 0.75,
        "max_steps": 1,
    }
    results = finetune(make_dense(tmp_path, "classification", model, **tuning))
    assert 0 <= results["scores"]["test"]["accuracy"]["mean"] <= 1
    tuned, start = (AutoModel.from_pretrained(tmp_path / name) for name in ("run/model", "start"))
    assert tuned.config.position_size == (16, 16) and tuned.config.native_size == (32, 32)
    moved = (tuned.embeddings.positions_rgb - start.embeddings.positions_rgb).abs().max().item()
    assert 0 < moved < 0.01, "the learned positions are taken, and trained"
