"""Every fine-tuning recipe, as written and with each documented override: read, sourced, and run for one step."""

import dataclasses
import io
import re
import shlex
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import CONFIG_MAPPING, AutoModelForPreTraining

from hf_maskssl.data import DataArguments, build_config, build_processor, load_splits
from hf_maskssl.data.builtin import SOURCES
from hf_maskssl.data.text.tokenizers import BERT_SPECIAL_TOKENS
from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.finetuning.arguments import FinetuningRecipe, load_finetuning_recipe
from hf_maskssl.training.finetuning.models import load_model
from hf_maskssl.training.finetuning.sweep import Finetuner, finetune

pytestmark = pytest.mark.usefixtures("private_cache", "blank_pictures")
RECIPES = sorted((Path(__file__).resolve().parent.parent / "examples" / "recipes").glob("finetune_*.yaml"))
SOURCE = re.compile(r"#\s(paper, (Table \d+|appendix A|section [\d.]+)|authors' code|the data set|ours)([;:\s(,].*)?$")
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
# Wang et al., Table 5, copied a second time: learning rate, batch size, weight decay, schedule, warm-up ratio.
TABLE_5 = {"finetune_pos_bert_glue": (2e-5, 32, 0.1, "linear", 0.06)}
# Wang et al., Table 7, copied a second time: learning rate, its end, epochs, those of the warm-up, weight decay, layer decay,
# drop path, input size.
TABLE_7 = {
    "finetune_multimae_imagenet1k": (4e-3, 1e-6, 100, 5, 0.05, 0.65, 0.1, 224),
    "finetune_multimae_imagenets50": (4e-3, 1e-6, 100, 5, 0.05, 0.65, 0.1, 224),
    "finetune_multimae_nyuv2_segmentation": (1e-4, 1e-6, 100, 20, 0.05, 0.75, 0.1, 224),
    "finetune_multimae_nyuv2_depth": (1e-4, 0.0, 2000, 100, 1e-4, 0.75, 0.0, 256),
}
READY = {
    "finetune_digits",
    "finetune_captioned_scenes",
    "finetune_sma_year",
    "finetune_multimae_scenes_segmentation",
    "finetune_multimae_scenes_depth",
    "finetune_multimae_taskonomy",
    "finetune_multimae_ade20k",
    "finetune_multimae_hypersim",
}
SCRIPTS = {"semantic_segmentation": "run_semantic_segmentation.py", "depth_estimation": "run_depth_estimation.py"}
METRICS = {
    "finetune_sma_glue": {"accuracy": 7, "f1": 2, "spearman": 1, "matthews": 2},
    # The eight tasks, and three of them from local files.
    "finetune_pos_bert_glue": {"accuracy": 4 + 2, "f1": 2, "spearman": 1, "matthews": 1 + 1},
    "finetune_sma_molecules": {"roc_auc": 4, "rmse": 3},
    "finetune_sma_proteins": {"spearman": 4, "accuracy": 2},
}
# Of everything that no recipe changes; two patches by two of the smallest picture.
MULTIMAE_WIDTHS: dict[str, Any] = {
    "image_size": 32,
    "decoder_hidden_size": 8,
    "decoder_num_attention_heads": 2,
    "num_visible_tokens": 4,
    "segmentation_hidden_size": 64,
    "segmentation_num_layers": 1,
    "depth_hidden_size": 8,
    "depth_reassemble_sizes": [4, 8, 8, 8],
}
SMILES = ["CCO", "c1ccccc1O", "C1CCCCC1N", "CC(=O)O", "c1ccncc1C", "CCN", "OC1CCCC1", "C1CCNCC1"]
ROWS = 80
CHECKPOINTS = tempfile.TemporaryDirectory()
PICTURES = 8  # multimodal rows in each split


def test_no_recipe_is_missing() -> None:
    assert {path.stem for path in RECIPES} == set(TABLES) | set(TABLE_5) | set(TABLE_7) | READY
    assert len(VARIANTS) > 45


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_value_names_its_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    script = SCRIPTS.get(load_finetuning_recipe(path).data.task, "run_finetune.py")
    assert text.startswith("# ") and f"{script} examples/recipes/{path.name}" in text
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
    assert owner.data.kind == {"pos_minimax_bert": "masked_text"}.get(owner.model["model_type"], recipe.data.kind)
    assert owner.model["model_type"] == recipe.model.get("model_type", "metamae")


@pytest.mark.parametrize("name", TABLES)
def test_recipe_has_the_values_of_the_papers_table(name: str) -> None:
    args = load_finetuning_recipe(RECIPES[0].with_name(f"{name}.yaml")).finetuning
    assert (args.learning_rates, args.num_train_epochs, args.batch_size, args.weight_decay) == TABLES[name]
    assert (args.adam_beta1, args.adam_beta2) == (0.9, 0.999)  # appendix B


@pytest.mark.parametrize("name", TABLE_5)
def test_pos_bert_recipe_has_the_values_of_table_5(name: str) -> None:
    args = load_finetuning_recipe(RECIPES[0].with_name(f"{name}.yaml")).finetuning
    found = (args.learning_rate, args.batch_size, args.weight_decay, args.lr_scheduler_type, args.warmup_ratio)
    assert found == TABLE_5[name]


@pytest.mark.parametrize("name", TABLE_7)
def test_multimae_recipe_has_the_values_of_table_7(name: str) -> None:
    path = RECIPES[0].with_name(f"{name}.yaml")
    recipe = load_finetuning_recipe(path)
    args = recipe.finetuning
    pretraining = load_pretraining_recipe(path.with_name(f"{Path(args.checkpoint or '').name}.yaml"))
    config = build_config(pretraining.model | recipe.model)
    found = (
        args.learning_rate,
        args.min_learning_rate,
        args.num_train_epochs,
        round(args.warmup_ratio * args.num_train_epochs),
        args.weight_decay,
        args.layer_decay,
        config.drop_path_rate,
        config.native_size[0],
    )
    assert found == TABLE_7[name]
    assert (args.adam_beta1, args.adam_beta2, args.lr_scheduler_type) == (0.9, 0.999, "cosine")


@pytest.mark.parametrize("name", METRICS)
def test_tasks_are_scored_as_the_papers_table_scores_them(name: str) -> None:
    variants = [variant.values for variant in VARIANTS if variant.values[0].stem == name]
    metrics = [load_finetuning_recipe(path, words).finetuning.metric for path, words in variants]
    assert {metric: metrics.count(metric) for metric in metrics} == METRICS[name]


def signature(path: Path, words: list[str]) -> tuple[Any, ...]:
    """What decides which code a variant runs through: model, kind and source of the data, task, score, inputs, split."""
    recipe = load_finetuning_recipe(path, words)
    data, args = recipe.data, recipe.finetuning
    source = data.source if data.source in (*SOURCES, "multimodal_folder") else "table"
    columns = len(data.input_column) if isinstance(data.input_column, list) else 1
    model = recipe.model.get("model_type", "metamae")
    return model, data.kind, source, data.task, args.metric, str(args.inputs), data.split.partition("_")[0], columns


def picture_side(path: Path, words: list[str]) -> int:
    """The height of the pictures that a variant asks for; 0 where the checkpoint's stays."""
    side: int = load_finetuning_recipe(path, words).model.get("image_size", [0])[0]
    return side


# One variant of each signature takes a step, that of the smallest pictures; the others read their rows, choose their columns and
# build their model.
LARGEST_FIRST = sorted(reversed(VARIANTS), key=lambda variant: -picture_side(*variant.values))
TRAINED = list({signature(*variant.values): variant for variant in LARGEST_FIRST}.values())
BUILT = [variant for variant in VARIANTS if variant not in TRAINED]


@pytest.mark.parametrize(("path", "words"), TRAINED)
def test_one_step_on_data_of_the_recipes_shape(path: Path, words: list[str], tmp_path: Path) -> None:
    recipe = load_finetuning_recipe(path, words)
    if recipe.data.split.startswith("scaffold"):
        pytest.importorskip("rdkit")
    data = write_raw_data(recipe.data, tmp_path)
    results = check_one_step(recipe, data, tmp_path)
    assert results["inputs"] == recipe.finetuning.inputs


@pytest.mark.parametrize(("path", "words"), BUILT)
def test_model_and_rows_of_the_recipes_shape(path: Path, words: list[str], tmp_path: Path) -> None:
    recipe = load_finetuning_recipe(path, words)
    check_model_and_rows(recipe, write_raw_data(recipe.data, tmp_path), tmp_path)


def check_model_and_rows(recipe: FinetuningRecipe, data: DataArguments, folder: Path) -> None:
    if data.split.startswith("scaffold"):
        pytest.importorskip("rdkit")
    finetuner = Finetuner(small_recipe(recipe, data, folder))
    batch = finetuner.data.collator([finetuner.data.train[row] for row in range(4)])
    model = load_model(finetuner.setup.task, finetuner.config, finetuner.setup.checkpoint)
    assert torch.isfinite(model(**batch).loss)
    check_configuration(recipe, finetuner.config.to_diff_dict())


def shared_folder(path: Path, words: list[str]) -> str:
    """The folder of the small real data sets that a variant reads, "" for other data."""
    return (load_finetuning_recipe(path, words).data.data_dir or "").partition("${HF_MASKSSL_SHARED}/data/")[2]


@pytest.mark.parametrize(("path", "words"), [variant for variant in VARIANTS if shared_folder(*variant.values)])
def test_shared_files_fit_the_recipe(
    path: Path, words: list[str], shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the real files; a step on rows of their shape is taken above."""
    folder = shared_folder(path, words)
    files = shared_data(folder)
    monkeypatch.setenv("HF_MASKSSL_SHARED", str(files.parents[folder.count("/") + 1]))
    recipe = load_finetuning_recipe(path, words)
    limits: dict[str, Any] = {"max_train_samples": 60, "max_validation_samples": 40, "max_test_samples": 40}
    if recipe.data.split.startswith("scaffold"):  # which is found for every row, wanted or not
        table = pq.read_table(files / str(recipe.data.data_files))
        some = table.take(list(range(0, len(table), max(1, len(table) // 600))))  # fewer hold one class
        pq.write_table(some, tmp_path / str(recipe.data.data_files))
        limits["data_dir"] = str(tmp_path)
    check_model_and_rows(recipe, dataclasses.replace(recipe.data, **limits), tmp_path)


def small_recipe(recipe: FinetuningRecipe, data: DataArguments, folder: Path) -> FinetuningRecipe:
    """The recipe on small data and a small checkpoint, for one step."""
    args = dataclasses.replace(
        recipe.finetuning,
        checkpoint=str(write_checkpoint(recipe, data, folder)),
        output_dir=str(folder / "run"),
        seeds=[0],
        max_steps=1,
        warmup_steps=0,
        batch_size=4,
        eval_batch_size=8,
        labelled_samples=None if recipe.finetuning.labelled_samples is None else 6,
        num_workers=0,
        save_model=False,
    )
    return FinetuningRecipe(recipe.model, data, args)


def check_one_step(recipe: FinetuningRecipe, data: DataArguments, folder: Path) -> dict[str, Any]:
    results = finetune(small_recipe(recipe, data, folder))
    assert results["metric"] == recipe.finetuning.metric
    assert {run["steps"] for run in results["runs"]} == {1}
    assert len(results["runs"]) == len(recipe.finetuning.learning_rates) and "test" in results["scores"]
    check_configuration(recipe, results["configuration"])
    return results


def check_configuration(recipe: FinetuningRecipe, written: dict[str, Any]) -> None:
    """Every model field of the recipe stands in the configuration, of which defaults may be left out."""
    changed = {name: value for name, value in recipe.model.items() if name != "model_type"}
    defaults = CONFIG_MAPPING[recipe.model.get("model_type", "metamae")]  # which the results leave out
    assert {name: written.get(name, getattr(defaults, name, None)) for name in changed} == changed


def write_checkpoint(recipe: FinetuningRecipe, data: DataArguments, folder: Path) -> Path:
    """A small encoder for these data, with the processor that a pre-training run on them would have saved.

    Texts and pictures are read as any others of their kind: their checkpoint is written once.
    """
    model_type = recipe.model.get("model_type", "metamae")
    if data.kind in ("tokens", "image", "multimodal"):
        folder = Path(CHECKPOINTS.name, f"{model_type}-{data.kind}-{Path(recipe.finetuning.checkpoint or '').name}")
        if (folder / "checkpoint").exists():
            return folder / "checkpoint"
        folder.mkdir(exist_ok=True)
    widths = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model: dict[str, Any] = {"model_type": model_type, **widths}
    if data.kind == "multimodal":
        # The modalities of pre-training, all of which its processor knows.
        owner = load_pretraining_recipe(RECIPES[0].with_name(f"{Path(recipe.finetuning.checkpoint or '').name}.yaml"))
        model |= {name: owner.model[name] for name in ("modalities", "patch_size")} | MULTIMAE_WIDTHS
        data = dataclasses.replace(owner.data, source=data.source, data_dir=data.data_dir, num_scenes=data.num_scenes)
    elif model_type == "pos_minimax_bert":
        characters = string.ascii_lowercase + string.digits + string.punctuation
        vocabulary = [*BERT_SPECIAL_TOKENS, *(mark + character for mark in ("", "##") for character in characters)]
        (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
        data = dataclasses.replace(data, tokenizer=str(folder / "vocab.txt"))
        model |= {"vocab_size": len(vocabulary), "max_position_embeddings": 48}
    elif data.kind == "tokens":
        model |= {"modality": "tokens", "vocab_size": 262, "max_position_embeddings": 48, "num_masked_per_query": 2}
        model |= {"encoder_type": "cross_attention", "num_latents": 4}
        data = dataclasses.replace(data, tokenizer="utf-8")
    elif data.kind == "vision_language":
        owner = load_pretraining_recipe(RECIPES[0].with_name("captioned_scenes.yaml"))
        names = ("modality", "image_size", "num_channels", "patch_size", "vocab_size", "max_position_embeddings")
        model |= {name: owner.model[name] for name in names}
        data = dataclasses.replace(owner.data, scene_size=data.scene_size, num_scenes=data.num_scenes)
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
    if args.source in ("scenes", "captioned_scenes"):
        return dataclasses.replace(args, scene_size=32, num_scenes=dict.fromkeys(args.num_scenes, PICTURES))
    if args.source == "multimodal_folder":
        for split in filter(None, (args.train_split, args.validation_split, args.test_split)):
            write_pictures(folder / "pictures" / split, None if args.task == "classification" else args.label_column)
        return dataclasses.replace(args, data_dir=str(folder / "pictures"), num_proc=None)
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


def write_pictures(root: Path, label: str | None) -> None:
    """Colours, depth in millimetres and 40 classes, as `modality/class/name.png`; and Taskonomy's maps to learn."""
    random = np.random.default_rng(0)
    for row in range(PICTURES):
        classes = random.integers(0, 41, size=(40, 48)).astype(np.uint8)
        pictures: dict[str, np.ndarray] = {
            "rgb": random.integers(0, 256, size=(40, 48, 3), dtype=np.uint8),
            "depth": random.integers(0, 10_000, size=(40, 48)).astype(np.uint16),
            "semseg": np.where(classes == 40, np.uint8(255), classes),
        }
        if label == "classes":  # true ones beside pseudo labels
            pictures[label] = pictures["semseg"]
        elif label is not None and label not in pictures:
            in_bytes = label in ("normal", "principal_curvature", "reshading")
            pictures[label] = pictures["rgb"] if in_bytes else pictures["depth"]
        for modality, pixels in pictures.items():
            path = root / modality / f"class{row % 2}" / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


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
