"""Adapters: only they and the head are trained, what is saved opens and merges to the same, and errors name what to do."""

import copy
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_runs import MULTIMAE, make_dense, pretrained_multimae
from finetuning_runs import MODELS, SMA_MODEL, make_finetuning
from safetensors.torch import load_file
from test_finetuning import pretrained
from test_stopped_finetuning import raise_in_step
from text_runs import BERT_MODEL, write_pairs, write_sentences
from transformers import AutoConfig, AutoModelForPreTraining, AutoModelForSequenceClassification

import tiny_models
from hf_maskssl.checkpoint_folders import check_checkpoint
from hf_maskssl.data import data_arguments
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.hub.load_checkpoint import arguments_of
from hf_maskssl.methods import find_method
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.adapters import (
    add_adapter,
    load_adapter,
    merge_folder,
    merged,
    parameter_counts,
    save_adapter,
    target_names,
)
from hf_maskssl.training.finetuning.arguments import FinetuningRecipe
from hf_maskssl.training.finetuning.models import head_class, load_model
from hf_maskssl.training.finetuning.stopping import RunStopped
from hf_maskssl.training.finetuning.sweep import finetune

pytest.importorskip("peft", reason="the extra peft")
LORA: dict[str, Any] = {"type": "lora", "r": 4, "target_modules": "all-linear"}
SLOW = pytest.mark.slow
SHORT: dict[str, Any] = {"seeds": [0], "num_train_epochs": 2.0, "peft": LORA}


def recipe_of(case: str, folder: Path, **changes: Any) -> FinetuningRecipe:
    """A short run on a checkpoint of random weights in `folder`/checkpoint."""
    if case in ("semantic_segmentation", "depth_estimation"):
        checkpoint = folder / "checkpoint"
        if not checkpoint.is_dir():
            pretrained_multimae(checkpoint)
        fields = {"peft": LORA, "checkpoint": str(checkpoint), "inputs": ["rgb"]} | changes
        return make_dense(folder, case, model={}, **fields)
    if case == "bert":
        checkpoint = folder / "checkpoint" if (folder / "checkpoint").is_dir() else pretrained_bert(folder)
        data = write_pairs(folder, {"train": 16, "valid": 8, "test": 8})
        return make_finetuning(folder, model={}, data=data, **SHORT | {"checkpoint": str(checkpoint)} | changes)
    model = MODELS[case]
    checkpoint = folder / "checkpoint" if (folder / "checkpoint").is_dir() else pretrained(folder, model)
    return make_finetuning(folder, model={}, **SHORT | {"checkpoint": str(checkpoint)} | changes)


def pretrained_bert(folder: Path) -> Path:
    """A PoS-BERT of random weights with the tokenizer of generated sentences."""
    config = build_config(BERT_MODEL)
    AutoModelForPreTraining.from_config(config).save_pretrained(folder / "checkpoint")
    processor: Any = prepare_data(
        data_arguments(**{**write_sentences(folder), "validation_split": None}), config
    ).processor
    processor.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


TINY: dict[str, tuple[dict[str, Any], str]] = {
    **{name: (fields, "classification") for name, fields in MODELS.items()},
    "sma_tokens": (SMA_MODEL, "token_classification"),
    "latents_tokens": (MODELS["sma_latents"], "token_classification"),
    "bert": (BERT_MODEL, "classification"),
    "segmentation": (MULTIMAE, "semantic_segmentation"),
    "depth": (MULTIMAE, "depth_estimation"),
}


def adapted_model(case: str, folder: Path) -> tuple[Any, Any, str, Any]:
    """A model whose adapter and head are random, its configuration, task and a batch; its encoder is in `folder`/base."""
    fields, task = TINY[case]
    torch.manual_seed(0)
    config = build_config(fields)
    AutoModelForPreTraining.from_config(config).save_pretrained(folder / "base")
    config.num_labels = 3
    model: Any = add_adapter(load_model(task, copy.deepcopy(config), folder / "base"), LORA, str(folder / "base"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), config, task, arguments_of(find_method(config).example_inputs(config))


@pytest.mark.parametrize("case", TINY)
@torch.no_grad()
def test_what_is_saved_opens_and_merges_to_the_same(case: str, tmp_path: Path) -> None:
    model, config, task, batch = adapted_model(case, tmp_path)
    expected = model(**batch)[0]
    for name in ("adapter", "merged"):
        (tmp_path / name).mkdir()
    save_adapter(model, tmp_path / "adapter")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "config.json"}
    saved = sum(each.numel() for each in saved_tensors(tmp_path / "adapter").values())
    assert saved == parameter_counts(model)["trained"]
    opened: Any = load_adapter(task, config, tmp_path / "adapter", tmp_path / "base").eval()
    torch.testing.assert_close(opened(**batch)[0], expected, rtol=0, atol=0)
    merge_folder(task, config, tmp_path / "adapter", tmp_path / "base", tmp_path / "merged")
    plain: Any = head_class(task, config).from_pretrained(tmp_path / "merged", output_loading_info=True)
    merged_model, info = plain
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(merged_model.eval()(**batch)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", TINY)
def test_only_adapter_and_head_are_trained(case: str, tmp_path: Path) -> None:
    model, config, _, _ = adapted_model(case, tmp_path)
    prefix = f"base_model.model.{model.get_base_model().base_model_prefix}."
    for name, parameter in model.named_parameters():
        is_adapter = "lora_" in name
        is_head = not name.startswith(prefix) and ".original_module." not in name
        assert parameter.requires_grad == (is_adapter or is_head), name
        assert not is_adapter or name.startswith(prefix)


@pytest.mark.parametrize(
    "case",
    ["sma", "semantic_segmentation", *(pytest.param(case, marks=SLOW) for case in ("bert", "depth_estimation"))],
)
def test_a_run_trains_adapter_and_head(case: str, tmp_path: Path, blank_pictures: None) -> None:
    results = finetune(recipe_of(case, tmp_path))
    folder = tmp_path / "run" / "model"
    counts = results["runs"][0]["parameters"]
    tensors = saved_tensors(folder)
    assert sum(each.numel() for each in tensors.values()) == counts["trained"] < counts["all"]
    learnt = [name for name, each in tensors.items() if "lora_B" in name and each.any()]
    assert learnt and len(learnt) == sum("lora_B" in name for name in tensors)
    text = (tmp_path / "run" / "results.md").read_text()
    assert f"{counts['trained']:,} of {counts['all']:,} parameters" in text and "lora (" in text


@pytest.mark.parametrize("case", ["metamae", pytest.param("semantic_segmentation", marks=SLOW)])
def test_a_merged_model_is_a_plain_one(case: str, tmp_path: Path, blank_pictures: None) -> None:
    """Asked for at first, or afterwards: no run is repeated."""
    recipe = recipe_of(case, tmp_path)
    finetune(recipe)
    adapted = tmp_path / "run" / "model"
    config = AutoConfig.from_pretrained(adapted)
    task = str(recipe.data.task)
    expected = merged(load_adapter(task, config, adapted, tmp_path / "checkpoint")).state_dict()
    finetune(recipe_of(case, tmp_path, merge_adapter=True))
    assert not (adapted / "adapter_config.json").exists()
    plain: Any = head_class(task, config).from_pretrained(adapted, output_loading_info=True)
    model, info = plain
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=1e-6)


def test_a_regression_gives_labels_in_their_own_unit(tmp_path: Path) -> None:
    checkpoint = pretrained(tmp_path)
    recipe = make_finetuning(tmp_path, "regression", model={}, **SHORT | {"checkpoint": str(checkpoint)})
    finetune(recipe)
    config = AutoConfig.from_pretrained(tmp_path / "run" / "model")
    model: Any = load_adapter("regression", config, tmp_path / "run" / "model", checkpoint).eval()
    ids = torch.tensor([[1, 2, 1, 1, 2]])
    assert 250 < model(input_ids=ids)[0].item() < 400


@pytest.mark.parametrize("case", ["sma", pytest.param("metamae", marks=SLOW)])
def test_a_stopped_run_goes_on_to_the_same_end(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    expected = finetune(recipe_of(case, tmp_path / "whole"))["runs"][0]
    with monkeypatch.context() as patch:
        raise_in_step(patch, 8, signal.SIGTERM)
        with pytest.raises(RunStopped):
            finetune(recipe_of(case, tmp_path / "stopped"))
    found = finetune(recipe_of(case, tmp_path / "stopped"))["runs"][0]
    assert found["validation"] == expected["validation"] and found["test"] == expected["test"]
    torch.testing.assert_close(
        *(saved_tensors(tmp_path / name / "run" / "model") for name in ("whole", "stopped")), rtol=0, atol=1e-6
    )


@pytest.mark.slow
def test_learning_rates_are_tried_and_baselines_scored(tmp_path: Path) -> None:
    """Stored adapters are opened again for the test split; runs without pre-training are saved whole."""
    results = finetune(recipe_of("metamae", tmp_path, learning_rate=[1e-3, 1e-2], baselines=True))
    assert results["scores"]["test"] and {run["learning_rate"] for run in results["runs"]} == {1e-3, 1e-2}
    assert any(model["name"] == "from_scratch" for model in results["baselines"]["models"])


def test_the_card_puts_the_adapter_on_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune(recipe_of("metamae", tmp_path), write_finetuned_card)
    text = (tmp_path / "run" / "model" / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert "PeftModel.from_pretrained(model" in code
    code = code.replace('"checkpoint"', f'"{tmp_path / "checkpoint"}"').replace(
        "ORGANISATION/NAME", str(tmp_path / "run" / "model")
    )
    found: dict[str, Any] = {}
    exec(code, found)
    assert len(found["classes"]) == 2


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_every_adapter_changes_the_model_and_merges_to_the_same(kind: str) -> None:
    torch.manual_seed(0)
    config = tiny_models.config("metamae", **tiny_models.MODALITIES["metamae"]["tokens"])
    model: Any = add_adapter(
        AutoModelForSequenceClassification.from_config(config).eval(), {"type": kind, "r": 4}, None
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    assert parameter_counts(model)["trained"] < parameter_counts(model)["all"]
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=ids).logits, expected, atol=1e-3)
        torch.testing.assert_close(merged(model)(input_ids=ids).logits, expected, rtol=0, atol=1e-5)


def test_layers_are_named_by_the_ends_of_their_names() -> None:
    config = tiny_models.config("multimae", modalities={"rgb": tiny_models.RGB, "depth": tiny_models.DEPTH})
    model: Any = head_class("semantic_segmentation", config).from_config(config)
    assert target_names(model, ["qkv", "mlp.up"]) == [
        f"multimae.layers.{layer}.{name}" for name in ("attention.qkv", "mlp.up") for layer in range(2)
    ]
    every = target_names(model, "all-linear")
    assert len(every) == 8 and all(name.startswith("multimae.layers.") for name in every)
    with pytest.raises(
        ValueError, match=r"no linear layer of MultiMAEFor.* is named 'qvk' \(did you mean 'qkv'\?\); they end in"
    ):
        target_names(model, ["qkv", "qvk"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft": {"type": "lorra"}}, r"peft.type: expected one of \['lora'.*got 'lorra' \(did you mean 'lora'"),
        ({"peft": {"r": 4}}, "peft.type: expected one of .*got None"),
        ({"peft": {"type": "lora", "target_modules": []}}, "target_modules: expected 'all-linear' or names"),
        ({"peft": LORA, "freeze_encoder": True}, "freeze_encoder=True is for an encoder without an adapter"),
        ({"peft": LORA, "layer_decay": 0.5}, "layer_decay=0.5 is for an encoder without an adapter"),
        ({"peft": LORA, "checkpoint": None}, "adapts the encoder of finetuning.checkpoint, which is not set"),
        ({"merge_adapter": True}, "there is no adapter to merge"),
        ({"push_to_hub": True}, "needs finetuning.hub_model_id, 'organisation/name'"),
        ({"push_to_hub": True, "hub_model_id": "org/a b"}, "finetuning.hub_model_id: "),
        ({"push_to_hub": True, "hub_model_id": "org/name", "save_model": False}, "set save_model to true"),
        ({"push_to_hub": True, "hub_model_id": "org/name", "peft": LORA}, "set merge_adapter to true"),
    ],
)
def test_impossible_fields_are_named(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        make_finetuning(tmp_path, **{"checkpoint": "encoder"} | fields)


def test_options_and_packages_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_models.config("metamae", **tiny_models.MODALITIES["metamae"]["tokens"])
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ValueError, match=r"finetuning.peft.lora_alpa: no option of lora \(did you mean 'lora_alpha'"):
        add_adapter(model, {"type": "lora", "lora_alpa": 3}, None)
    with pytest.raises(ValueError, match="finetuning.peft: .*r.*positive"):
        add_adapter(model, {"type": "lora", "r": 0}, None)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'finetuning.peft needs peft, .*pip install "hf_maskssl\[peft\]"'):
        add_adapter(model, LORA, None)


def test_an_adapter_alone_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_text(json.dumps({}))
    with pytest.raises(ValueError, match="holds an adapter alone, .*finetuning.merge_adapter"):
        check_checkpoint(tmp_path, "MODEL")


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"gradient_checkpointing": True}, {"gradient_checkpointing": True, "peft": LORA}])
def test_recomputed_activations_give_the_same_run(fields: dict[str, Any], tmp_path: Path) -> None:
    for name in ("plain", "recomputed"):
        (tmp_path / name).mkdir()
    expected = finetune(recipe_of("metamae", tmp_path / "plain", **{"peft": fields.get("peft")}))
    found = finetune(recipe_of("metamae", tmp_path / "recomputed", **{"peft": None} | fields))
    assert found["runs"][0]["training_loss"] == pytest.approx(expected["runs"][0]["training_loss"], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(tmp_path: Path) -> None:
    for name in ("plain", "compiled"):
        (tmp_path / name).mkdir()
    expected = finetune(recipe_of("metamae", tmp_path / "plain", peft=None))
    found = finetune(recipe_of("metamae", tmp_path / "compiled", peft=None, torch_compile=True))
    assert found["runs"][0]["training_loss"] == pytest.approx(expected["runs"][0]["training_loss"], rel=1e-3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "compiled" / "run" / "model")
    assert not any("_orig_mod" in name for name in model.state_dict())
