"""Every fine-tuning recipe, as written and with each documented override: read, sourced, and run for one step."""

import dataclasses
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import AutoModelForPreTraining

from hf_maskssl.data import DataArguments, build_config, build_processor, load_splits
from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.finetuning import finetune
from hf_maskssl.training.finetuning_arguments import FinetuningRecipe, load_finetuning_recipe

RECIPES = sorted((Path(__file__).resolve().parent.parent / "examples" / "recipes").glob("finetune_*.yaml"))
SOURCE = re.compile(r"#\s(paper, (Table \d+|appendix A)|authors' code|the data set|ours)([;:\s(,].*)?$")
OVERRIDES = re.compile(r"^#   (\w+): (--.+)$", re.MULTILINE)
VARIANTS = [
    pytest.param(path, shlex.split(words), id=f"{path.stem}-{name}")
    for path in RECIPES
    for name, words in [("as_written", ""), *OVERRIDES.findall(path.read_text(encoding="utf-8"))]
]
# Paper, Tables 8c to 12c, copied a second time: learning rates, epochs, batch size, weight decay.
TABLES = {
    "finetune_sma_proteins": ([1e-4, 5e-5], 30, 64, 0.01),
    "finetune_sma_molecules": ([1e-4, 3e-5], 30, 32, 0.01),
    "finetune_sma_higgs": ([3e-5], 100, 128, 1e-5),
    "finetune_sma_imagenet100": ([1e-4], 200, 128 // 8, 0.01),
    "finetune_sma_glue": ([2e-5], 30, 32, 0.01),
}
METRICS = {
    "finetune_sma_glue": {"accuracy": 7, "f1": 2, "spearman": 1, "matthews": 2},
    "finetune_sma_molecules": {"roc_auc": 4, "rmse": 3},
    "finetune_sma_proteins": {"spearman": 4, "accuracy": 2},
}
SMILES = ["CCO", "c1ccccc1O", "C1CCCCC1N", "CC(=O)O", "c1ccncc1C", "CCN", "OC1CCCC1", "C1CCNCC1"]
ROWS = 80


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")


def test_no_recipe_is_missing() -> None:
    assert {path.stem for path in RECIPES} == set(TABLES) | {"finetune_digits", "finetune_sma_year"}
    assert len(VARIANTS) > 30


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_value_names_its_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ") and f"run_finetune.py examples/recipes/{path.name}" in text
    for line in [line for line in text.splitlines() if line.startswith(" ")]:
        assert SOURCE.search(line), f"{path.name}: no source in {line!r}"
    # What looks like overrides must be found as such, or it would go untested.
    assert len(re.findall(r"^#   \w+: ", text, re.MULTILINE)) == len(OVERRIDES.findall(text))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_output_folder_is_named_after_the_recipe(path: Path) -> None:
    assert load_finetuning_recipe(path).finetuning.output_dir == f"outputs/{path.stem}"


@pytest.mark.parametrize(("path", "words"), VARIANTS)
def test_checkpoint_is_what_a_pretraining_recipe_writes_and_reads_such_data(path: Path, words: list[str]) -> None:
    recipe = load_finetuning_recipe(path, words)
    folder = recipe.finetuning.checkpoint or ""
    owner = load_pretraining_recipe(path.with_name(f"{Path(folder).name}.yaml"))
    assert owner.training.output_dir == folder
    assert owner.data.kind == recipe.data.kind
    assert owner.model["model_type"] == recipe.model.get("model_type", "metamae")


@pytest.mark.parametrize("name", TABLES)
def test_recipe_has_the_values_of_the_papers_table(name: str) -> None:
    args = load_finetuning_recipe(RECIPES[0].with_name(f"{name}.yaml")).finetuning
    assert (args.learning_rates, args.num_train_epochs, args.batch_size, args.weight_decay) == TABLES[name]
    assert (args.adam_beta1, args.adam_beta2) == (0.9, 0.999)  # appendix B


@pytest.mark.parametrize("name", METRICS)
def test_tasks_are_scored_as_the_papers_table_scores_them(name: str) -> None:
    variants = [variant.values for variant in VARIANTS if variant.values[0].stem == name]
    metrics = [load_finetuning_recipe(path, words).finetuning.metric for path, words in variants]
    assert {metric: metrics.count(metric) for metric in metrics} == METRICS[name]


@pytest.mark.parametrize(("path", "words"), VARIANTS)
def test_one_step_on_data_of_the_recipes_shape(path: Path, words: list[str], tmp_path: Path) -> None:
    recipe = load_finetuning_recipe(path, words)
    if recipe.data.split.startswith("scaffold"):
        pytest.importorskip("rdkit")
    check_one_step(recipe, write_raw_data(recipe.data, tmp_path), tmp_path)


def shared_folder(path: Path, words: list[str]) -> str:
    """The folder of the small real data sets that a variant reads, "" for other data."""
    return (load_finetuning_recipe(path, words).data.data_dir or "").partition("${HF_MASKSSL_SHARED}/data/")[2]


@pytest.mark.parametrize(("path", "words"), [variant for variant in VARIANTS if shared_folder(*variant.values)])
def test_one_step_on_the_shared_files(
    path: Path, words: list[str], shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_folder(path, words)
    monkeypatch.setenv("HF_MASKSSL_SHARED", str(shared_data(folder).parents[folder.count("/") + 1]))
    data = load_finetuning_recipe(path, words).data
    if data.split.startswith("scaffold"):
        pytest.importorskip("rdkit")
    limits = {"max_train_samples": 60, "max_validation_samples": 40, "max_test_samples": 40}
    check_one_step(load_finetuning_recipe(path, words), dataclasses.replace(data, **limits), tmp_path)


def check_one_step(recipe: FinetuningRecipe, data: DataArguments, folder: Path) -> None:
    """The recipe on small data and a small checkpoint, for one step."""
    args = dataclasses.replace(
        recipe.finetuning,
        checkpoint=str(write_checkpoint(recipe.model.get("model_type", "metamae"), data, folder)),
        output_dir=str(folder / "run"),
        seeds=[0],
        max_steps=1,
        batch_size=4,
        eval_batch_size=8,
        labelled_samples=None if recipe.finetuning.labelled_samples is None else 6,
        num_workers=0,
        save_model=False,
    )
    results = finetune(FinetuningRecipe(recipe.model, data, args))
    assert results["metric"] == recipe.finetuning.metric
    assert {run["steps"] for run in results["runs"]} == {1}
    assert len(results["runs"]) == len(args.learning_rates) and "test" in results["scores"]
    changed = {name: value for name, value in recipe.model.items() if name != "model_type"}
    assert {name: results["configuration"].get(name) for name in changed} == changed


def write_checkpoint(model_type: str, data: DataArguments, folder: Path) -> Path:
    """A small encoder for these data, with the processor that a pre-training run on them would have saved."""
    widths = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model: dict[str, Any] = {"model_type": model_type, **widths}
    if data.kind == "tokens":
        model |= {"modality": "tokens", "vocab_size": 262, "max_position_embeddings": 48, "num_masked_per_query": 2}
        model |= {"encoder_type": "cross_attention", "num_latents": 4}
        data = dataclasses.replace(data, tokenizer="utf-8")
    elif data.kind == "image":
        channels, patches = (1, {"patch_size": [2, 2]}) if model_type == "metamae" else (3, {})
        model |= {"modality": "image", "image_size": [8, 8], "num_channels": channels, **patches}
    else:
        model |= {"modality": "series", "series_length": 90 if data.label_column == "year" else 28}
    config = build_config(model)
    processor: Any = build_processor(data, config, load_splits(data)["train"])
    AutoModelForPreTraining.from_config(config).save_pretrained(folder / "checkpoint")
    processor.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def write_raw_data(args: DataArguments, folder: Path) -> DataArguments:
    """Parquet files with the recipe's splits and columns; the section, pointed there."""
    if args.source == "digits":
        return dataclasses.replace(args, max_train_samples=60, max_test_samples=60)
    names = [name for name in (args.train_split, args.validation_split, args.test_split) if name is not None]
    files: Any = {}
    for number, name in enumerate(dict.fromkeys(names)):
        files[name] = str(folder / f"{number}.parquet")
        pq.write_table(pa.table(raw_columns(args, np.random.default_rng(number))), files[name])
    if args.split != "given":
        files = files[args.train_split]
    return dataclasses.replace(
        args, source="parquet", config_name=None, data_dir=None, data_files=files, max_validation_samples=None
    )


def raw_columns(args: DataArguments, random: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if args.kind == "tokens":
        for name in args.input_column if isinstance(args.input_column, list) else [args.input_column]:
            columns[str(name)] = [SMILES[row % len(SMILES)] * (1 + row // len(SMILES) % 4) for row in range(ROWS)]
    elif args.kind == "image":
        pixels = random.integers(0, 256, size=(ROWS, 8, 8, 3), dtype=np.uint8)
        columns[str(args.input_column)] = [png_file(image) for image in pixels]
    elif args.input_column is None:
        count = 90 if args.label_column == "year" else 28
        columns = {f"f{number}": random.normal(size=ROWS) for number in range(count)}
    else:
        columns[str(args.input_column)] = random.normal(size=(ROWS, 28)).tolist()
    labels = random.normal(size=ROWS) if args.task == "regression" else np.arange(ROWS) % 2
    return columns | {str(args.label_column): labels}


def png_file(pixels: np.ndarray) -> dict[str, Any]:
    """As a Hub data set with an `Image` column stores it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return {"bytes": buffer.getvalue(), "path": "image.png"}
