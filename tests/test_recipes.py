"""Every recipe: read, sourced, built at its true size; one of each kind trained for a step on generated data."""

import copy
import dataclasses
import io
import itertools
import json
import math
import re
import shlex
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from PIL import Image
from scipy.io import wavfile
from transformers import AutoModelForPreTraining, PreTrainedModel

from hf_maskssl.data.arguments import LOCAL_SOURCES, DataArguments
from hf_maskssl.data.builtin import SOURCES
from hf_maskssl.data.kinds.tabular import TabularArguments
from hf_maskssl.data.kinds.tokens import TokenArguments
from hf_maskssl.data.kinds.vision_language import VisionLanguageArguments
from hf_maskssl.data.masked_text.arguments import MaskedTextArguments
from hf_maskssl.data.preparation import PreparedData, prepare_data
from hf_maskssl.data.text.arguments import TextArguments
from hf_maskssl.data.text.tokenizers import BERT_SPECIAL_TOKENS, build_character_tokenizer
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.recipes import build_config, load_recipe
from hf_maskssl.training.pretraining.arguments import PretrainingArguments, PretrainingRecipe

pytestmark = pytest.mark.usefixtures("private_cache")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Those of fine-tuning have tests of their own.
RECIPES = sorted(path for path in (EXAMPLES / "recipes").glob("*.yaml") if not path.stem.startswith("finetune_"))
SECTIONS = {"model": dict, "data": DataArguments, "probe": ProbeArguments, "training": PretrainingArguments}
SOURCE = re.compile(
    r"#\s(paper, (Table \d+|appendix ([AB]|D\.1)|section [\d.]+)|authors' code|BERT|DABS|the data set|ours)([;:\s(,].*)?$"
)
ROWS = 8

# Paper, Tables 8 and 16, copied a second time: alpha, lambda, decoder depth, P_drop, mask ratio, batch size, tokens.
TABLE_8 = {
    "metamae_pamap2": (0.5, 1.0, 4, 0.1, 0.85, 256, 320 // 5),
    "metamae_higgs": (1.0, 1.0, 6, 0.1, 0.50, 256, 28),
    "metamae_eurosat": (0.1, 1.0, 4, 0.0, 0.85, 64, (64 // 8) ** 2),
    "metamae_genomics": (0.1, 0.01, 2, 0.0, 0.50, 32, 250),
    "metamae_pfam": (0.1, 1.0, 4, 0.0, 0.15, 128, 128),
    "metamae_librispeech": (0.1, 1.0, 4, 0.0, 0.85, 64, (224 // 16) ** 2),
    "metamae_wafermap": (0.1, 0.1, 6, 0.0, 0.15, 128, (32 // 4) ** 2),
    "metamae_imagenet32": (0.1, 0.1, 4, 0.0, 0.85, 64, (32 // 4) ** 2),
    "metamae_mscoco": (0.5, 0.1, 2, 0.0, 0.5, 64, (224 // 16) ** 2 + 32),
}
# SMA's Tables 8 to 12, copied a second time: tokens, layers, qk dimension, v dimension, heads, masking rate; latents and embed
# dimension of cross-attention; batch size, learning rate.
SMA_TABLES = {
    "sma_pfam": (1024, 16, 256, 1024, 8, 0.15, (256, 512), 256, 3e-4),
    "sma_guacamol": (256, 12, 768, 768, 12, 0.3, None, 128, 1e-4),
    "sma_higgs": (28, 4, 128, 128, 8, 0.2, None, 256, 1e-4),
    "sma_higgs_small": (28, 4, 128, 128, 8, 0.2, None, 256, 1e-4),
    "sma_year": (90, 4, 128, 128, 8, 0.2, None, 256, 1e-4),
    "sma_imagenet100": (36864, 8, 768, 768, 8, 0.75, (512, 196), 128, 1e-4),
    "sma_wikibooks": (1024, 16, 256, 1024, 8, 0.15, (256, 512), 256, 1e-4),
}
# Rows of the training set and passes over them (Tables 8 to 11 with note 6); the rest has no number of passes.
SMA_PASSES = {
    "sma_pfam": (32_207_059, 10),
    "sma_guacamol": (1_273_104, 30),
    "sma_higgs": (10_500_000, 50),
    "sma_higgs_small": (62_752, 800),
    "sma_imagenet100": (126_689, 200),
}
# Section 3.5 of MultiMAE and Table 6 of Wang et al., copied a second time: balancing, rows of the training set, epochs.
MULTIMAE_RUNS = {
    "multimae_imagenet1k": ("none", 1_281_167, 1600),
    "multimae_minimax_imagenet1k": ("minimax", 1_281_167, 1600),
    "multimae_minimax_imagenets50": ("minimax", 64_431, 800),
}
READY = {"digits", "spoken_digits", "higgs_small", "japanese_vowels", "basic_motions", "protein_corpus", "own_data"}
READY |= {"own_data_logger", "own_data_cells", "own_data_wide"}
READY |= {"secondary_structure", "fluorescence", "clothing64", "mixed_own_data"}
READY |= {"sma_higgs_shared", "sma_smiles_corpus", "sma_protein_corpus", "sma_brown", "sma_clothing64", "sma_own_data"}
READY |= {"sma_digits"}
READY |= {"captioned_scenes", "captioned_scenes_mismatch", "captioned_scenes_questions"}
READY |= {"unified", "multimae_scenes", "multimae_own_data", "multimae_add_modality"}
READY |= {"pos_bert_wikibooks", "pos_bert_brown", "pos_bert_pydoc", "pos_bert_own_data"}
# Overrides that recipes name in their heads, such as those of random masking.
OVERRIDES = re.compile(r"((?:--\w+ (?:\"[^\"]*\"|[\w\-]+(?:\.\d+)?) ?)+)")
OVERRIDDEN = ("--masking", "--pack", "--task_balancing", "--max_steps", "--tasks", "--tagger", "--modalities")
# Sentences of a document, tagged as examples/run_tag_pos.py writes them.
SENTENCES = [
    ("The old dog quickly chased him over a hill and barked", "DT JJ NN RB VBD PRP IN DT NN CC VBD"),
    ("Oh , she never saw 2 small cats", "UH , PRP RB VBD CD JJ NNS"),
    ("A new man often gave it to them but nobody knew", "DT JJ NN RB VBD PRP TO PRP CC NN VBD"),
]


def by_name(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_no_recipe_is_missing() -> None:
    assert {path.stem for path in RECIPES} == set(TABLE_8) | set(SMA_TABLES) | set(MULTIMAE_RUNS) | READY


@by_name(RECIPES)
def test_every_value_names_its_source(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    values = [line for line in lines if line.startswith(" ")]
    assert values
    for line in values:
        assert SOURCE.search(line), f"{path.name}: no source in {line!r}"


@by_name(RECIPES)
def test_recipe_is_read_with_every_section(path: Path) -> None:
    recipe = load_recipe(path, (), SECTIONS)
    assert isinstance(recipe["data"], DataArguments) and isinstance(recipe["probe"], ProbeArguments)
    task = recipe["data"].task if recipe["data"].label_column else "classification"
    recipe["probe"].headline_metric(task)


@by_name([path for path in RECIPES if "training:" in path.read_text(encoding="utf-8")])
def test_output_folder_is_named_after_the_recipe(path: Path) -> None:
    assert load_recipe(path, (), SECTIONS)["training"].output_dir == f"outputs/{path.stem}"


@by_name([path for path in RECIPES if path.stem in TABLE_8])
def test_paper_recipe_has_the_values_of_tables_7_8_and_16(path: Path) -> None:
    recipe = load_recipe(path, (), SECTIONS)
    config, training = build_config(recipe["model"]), recipe["training"]
    found = (
        config.adaptation_step_size,
        config.contrastive_weight,
        config.decoder_num_hidden_layers,
        config.hidden_dropout_prob,
        config.mask_ratio,
        training.batch_size,
        config.num_tokens,
    )
    assert found == TABLE_8[path.stem]
    encoder = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    decoder = (config.decoder_hidden_size, config.decoder_num_attention_heads, config.decoder_intermediate_size)
    assert (encoder, decoder) == ((256, 12, 8, 512), (128, 4, 256))
    assert (training.max_steps, training.learning_rate, training.weight_decay) == (100_000, 1e-4, 1e-4)


@by_name([path for path in RECIPES if path.stem in SMA_TABLES])
def test_sma_recipe_has_the_values_of_tables_8_to_12(path: Path) -> None:
    recipe = load_recipe(path, (), SECTIONS)
    config, training = build_config(recipe["model"]), recipe["training"]
    found = (
        config.num_tokens,
        config.num_hidden_layers,
        config.qk_channels,
        config.hidden_size,
        config.num_attention_heads,
        config.mask_ratio,
        (config.num_latents, config.embedding_size) if config.encoder_type == "cross_attention" else None,
        training.batch_size,
        training.learning_rate,
    )
    assert found == SMA_TABLES[path.stem]
    assert (training.weight_decay, training.adam_beta1, training.adam_beta2) == (0.01, 0.9, 0.999)
    if path.stem in SMA_PASSES:
        rows, passes = SMA_PASSES[path.stem]
        assert training.max_steps == round(rows * passes / training.batch_size)


@by_name([path for path in RECIPES if path.stem in MULTIMAE_RUNS])
def test_multimae_recipe_has_the_values_of_section_3_5_and_table_6(path: Path) -> None:
    recipe = load_recipe(path, (), SECTIONS)
    config, data, training = build_config(recipe["model"]), recipe["data"], recipe["training"]
    balancing, rows, epochs = MULTIMAE_RUNS[path.stem]
    assert config.task_balancing == balancing
    steps = (training.max_steps, training.warmup_steps)
    assert steps == (round(epochs * rows / 2048), round(40 * rows / 2048))
    found = (training.batch_size * 8, training.learning_rate, training.weight_decay, training.lr_scheduler_type)
    assert found == (2048, 8e-4, 0.05, "cosine")
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.95, 1e-8)
    encoder = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert (encoder, config.hidden_dropout_prob) == ((768, 12, 12, 3072), 0.0)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers) == (256, 2)
    inputs = [modality.name for modality in config.inputs()]
    outputs = {modality.name: modality.loss for modality in config.outputs()}
    assert inputs == ["rgb", "depth", "semseg"]
    assert outputs == {"rgb": "mse", "depth": "l1", "semseg": "cross_entropy", "norm_rgb": "standardized_mse"}
    assert config.modality_table()["semseg"].embedding_size == 64
    masking = (config.native_size, config.num_tokens, config.num_visible_tokens, config.dirichlet_alpha)
    assert masking == ((224, 224), 3 * (224 // 16) ** 2, 98, 1.0)
    assert (data.augment, data.crop_scale, data.flip_probability) == (True, [0.2, 1.0], 0.5)
    assert data.crop_ratio == pytest.approx([0.75, 1.33], abs=0.01)


def test_pos_bert_recipe_has_the_values_of_table_4() -> None:
    """Of Wang et al., and of the text around it, copied a second time."""
    recipe = load_recipe(EXAMPLES / "recipes" / "pos_bert_wikibooks.yaml", (), SECTIONS)
    config, data, training = build_config(recipe["model"]), recipe["data"], recipe["training"]
    encoder = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    assert (encoder, config.hidden_dropout_prob, config.attention_probs_dropout_prob) == ((12, 768, 12), 0.1, 0.1)
    assert (training.warmup_steps, training.learning_rate, training.lr_scheduler_type) == (10_000, 2e-4, "linear")
    assert (training.batch_size * 8, training.weight_decay, training.max_steps) == (256, 0.01, 1_000_000)
    found = (training.adam_epsilon, training.adam_beta1, training.adam_beta2, training.max_grad_norm)
    assert found == (1e-6, 0.9, 0.999, None)
    assert (config.task_balancing, len(config.tasks), config.next_sentence_prediction) == ("minimax", 9, "beside")
    assert (data.mlm_probability, data.num_maskings) == (0.15, 10)


@by_name([path for path in RECIPES if path.stem.startswith(("sma_", "multimae_", "pos_bert_"))])
def test_overrides_in_the_head_are_valid(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\n\n")[0]
    found = [
        shlex.split(match[1]) for match in OVERRIDES.finditer(head) if any(name in match[1] for name in OVERRIDDEN)
    ]
    assert found or path.stem.endswith("_own_data")
    for overrides in found:
        recipe = PretrainingRecipe(**load_recipe(path, overrides, SECTIONS, primary="training"))
        config = build_config(recipe.model)
        for name in {"--masking", "--task_balancing"} & set(overrides):
            assert getattr(config, name[2:]) == overrides[overrides.index(name) + 1]


@by_name(
    [path for path in RECIPES if path.stem in TABLE_8 or path.stem in ("digits", "higgs_small", "captioned_scenes")]
)
@pytest.mark.parametrize("objective", ["emix", "shed", "capri", "mae"])
def test_baselines_are_one_override(path: Path, objective: str) -> None:
    head = path.read_text(encoding="utf-8").partition("model:")[0]
    assert "--objective emix, shed, capri or mae" in head
    recipe = PretrainingRecipe(**load_recipe(path, ["--objective", objective], SECTIONS, primary="training"))
    assert build_config(recipe.model).objective == objective


@by_name([path for path in RECIPES if "model:" in path.read_text(encoding="utf-8")])
def test_model_is_built_at_true_size(path: Path) -> None:
    config = build_config(load_recipe(path, (), SECTIONS)["model"])
    with torch.device("meta"):
        model = AutoModelForPreTraining.from_config(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    if path.stem == "metamae_pamap2":  # the authors' model has 7.37 million parameters there
        assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(7.37e6, rel=1e-3)


def signature(path: Path) -> tuple[Any, ...]:
    """What decides which code a recipe runs through: model, kind and source of the data, task."""
    recipe = load_recipe(path, (), SECTIONS)
    model, data = recipe["model"], recipe["data"]
    source = data.source if data.source in {*LOCAL_SOURCES, *SOURCES} else "hub"
    of_the_model = [model.get(name) for name in ("model_type", "encoder_type", "task_balancing")]
    of_the_data = (data.kind, source, data.streaming, data.cache, data.label_column and data.task)
    return *of_the_model, *of_the_data, data.may_lack_columns


# One recipe of each signature takes a step; the others are read, and their models built, above.
TRAINED = list({signature(path): path for path in reversed(RECIPES)}.values())


@by_name(TRAINED)
def test_one_step_on_data_of_the_recipes_shape(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Callable[[str], Path]
) -> None:
    recipe = load_recipe(path, (), SECTIONS)
    if isinstance(recipe["data"], MaskedTextArguments) and recipe["data"].tagger is not None:
        monkeypatch.setenv("NLTK_DATA", str(shared_data("nltk_data")))
    monkeypatch.setenv("HF_MASKSSL_SHARED", str(tmp_path))
    # A recipe without a model is for probing: it takes the checkpoint's.
    pretrained = "captioned_scenes" if path.stem.startswith("captioned_scenes") else "protein_corpus"
    owner = recipe if recipe["model"] else load_recipe(EXAMPLES / "recipes" / f"{pretrained}.yaml", (), SECTIONS)
    config = build_config(shrink(owner["model"]))
    data = write_raw_data(recipe["data"], config, tmp_path)
    processor: Any = None
    if owner is not recipe and pretrained == "captioned_scenes":
        own = dataclasses.replace(owner["data"], scene_size=data.scene_size, num_scenes=data.num_scenes)
        processor = prepare_data(own, config).processor
    elif owner is not recipe:
        processor = build_character_tokenizer(owner["data"].alphabet, config.max_position_embeddings)
    prepared = prepare_data(data, config, processor)
    torch.manual_seed(0)
    model = AutoModelForPreTraining.from_config(config)
    batch = check_one_step(model, prepared, recipe["training"])
    assert ("presence" in batch) == data.may_lack_columns
    labelled = data.label_column is not None
    assert (prepared.task == data.task) if labelled else (prepared.task is None)


def check_one_step(model: PreTrainedModel, prepared: PreparedData, args: PretrainingArguments) -> dict[str, Any]:
    """Forward, backward, update: finite and not without effect anywhere. Gives the batch."""
    split: Any = prepared.train
    rows = list(itertools.islice(split, 4))
    batch = prepared.collator(rows)
    assert ("labels" in batch) == (prepared.task is not None or "labels" not in prepared.not_inputs)
    inputs = {name: value for name, value in batch.items() if name not in prepared.not_inputs}
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = model(**inputs).loss
    loss.backward()
    optimizer.step()
    assert math.isfinite(loss.item())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
        assert not torch.equal(parameter, before[name]), name
    return batch


def shrink(model: dict[str, Any]) -> dict[str, Any]:
    """The same model with few, narrow layers and short inputs; patches, channels and the objective stay."""
    if model["model_type"] == "sma":
        return shrink_sma(model)
    if model["model_type"] == "multimae":
        return shrink_multimae(model)
    if model["model_type"] == "unified":
        parts = {name: {**model["shared"], **part} for name, part in model["parts"].items()}
        small_parts = {name: shrink({"model_type": "metamae", **part}) for name, part in parts.items()}
        for part in small_parts.values():
            del part["model_type"]
        return model | {"shared": {}, "parts": small_parts}
    small = copy.deepcopy(model)
    if model["model_type"] == "pos_minimax_bert":
        return small | {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
    small["decoder_num_hidden_layers"] = 1
    small["projector_hidden_size"] = small["projector_output_size"] = 16
    patch: Any = small.get("patch_size")
    if small["modality"] in ("image", "vision_language"):
        small["image_size"] = [min(size, 4 * side) for size, side in zip(small["image_size"], patch, strict=True)]
    if small["modality"] == "series" and patch > 1:
        small["series_length"] = min(small["series_length"], 12 * patch)
    if "max_position_embeddings" in small:
        small["max_position_embeddings"] = min(small["max_position_embeddings"], 24)
    if small.get("vocab_size", 0) > 300:  # those of the built-in tokenizers are smaller
        small["vocab_size"] = len(string.ascii_letters) + 4  # of the tokenizer that `write_raw_data` builds
    return small


def shrink_sma(model: dict[str, Any]) -> dict[str, Any]:
    """As `shrink`: the kind of encoder, the masking and the vocabulary stay."""
    small = copy.deepcopy(model)
    small |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"qk_channels": 8, "v_channels": 16, "num_masked_per_query": 2}
    if small["encoder_type"] == "cross_attention":
        small |= {"num_latents": 8, "embedding_size": 12}
    if small["modality"] == "image":
        small["image_size"] = [8, 8]
    if "max_position_embeddings" in small:
        small["max_position_embeddings"] = min(small["max_position_embeddings"], 24)
    return small


def shrink_multimae(model: dict[str, Any]) -> dict[str, Any]:
    """As `shrink`: modalities, patches, losses and balancing stay; two patches by two of each modality."""
    small = copy.deepcopy(model)
    small |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
    small |= {"decoder_num_hidden_layers": 1, "num_visible_tokens": 4}
    return small | {"image_size": [2 * side for side in small["patch_size"]]}


def write_raw_data(args: DataArguments, config: Any, folder: Path) -> DataArguments:
    """Files with the recipe's columns and splits in its own format (Hub sets: Parquet); the section, pointed there."""
    if args.source == "digits":
        return args
    if parts := args.sections():
        written = {name: write_raw_data(part, config.part_config(name), folder) for name, part in parts.items()}
        return dataclasses.replace(args, parts={name: dataclasses.asdict(part) for name, part in written.items()})
    if args.source == "pydoc":
        return dataclasses.replace(args, max_train_samples=ROWS, max_validation_samples=2)
    if args.source in ("scenes", "captioned_scenes"):
        return dataclasses.replace(args, scene_size=config.image_size, num_scenes=dict.fromkeys(args.num_scenes, ROWS))
    if args.source == "multimodal_folder":
        pictures = write_folder(folder / "pictures", config, args.may_lack_columns)
        # One process: `map` over several puts a copy in place of os.environ, which monkeypatch then cannot restore.
        return dataclasses.replace(args, data_dir=str(pictures), num_proc=None)
    splits = {"train": args.train_split, "validation": args.validation_split, "test": args.test_split}
    names = [part for split in splits.values() if split is not None for part in split.split("+")]
    data = copy.deepcopy(args)
    if args.source not in LOCAL_SOURCES:
        data.source, data.config_name = "parquet", None
    data.data_dir = None
    data.data_files = {
        name: write_file(data.source, folder / str(number), raw_columns(args, config, seed=number))
        for number, name in enumerate(names)
    }
    if isinstance(data, MaskedTextArguments):
        if data.tokenizer is not None:
            pieces = [f"{mark}{letter}" for letter in [*string.ascii_lowercase, ",", "2"] for mark in ("", "##")]
            vocabulary = [*BERT_SPECIAL_TOKENS, *pieces]
            (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
            data.tokenizer = str(folder / "vocab.txt")
        data.num_proc = None
    elif isinstance(data, TextArguments) and data.tokenizer not in (None, "utf-8"):
        tokenizer = build_character_tokenizer(string.ascii_letters + " ", config.max_position_embeddings)
        tokenizer.save_pretrained(folder / "tokenizer")
        data.tokenizer = str(folder / "tokenizer")
    return data


def write_folder(root: Path, config: Any, lacks_some: bool) -> Path:
    """`ROWS` aligned pictures a third larger than the model's, as `modality/class/name.ext`.

    Args:
        lacks_some: Whether one file is left out.
    """
    random = np.random.default_rng(0)
    height, width = (4 * side // 3 for side in config.native_size)
    for modality in [modality for modality in config.modality_table().values() if modality.source == modality.name]:
        for row in range(ROWS):
            stem = root / modality.name / f"class{row % 3}" / str(row)
            stem.parent.mkdir(parents=True, exist_ok=True)
            if modality.is_categorical:
                pixels = random.integers(0, modality.num_classes, size=(height, width), dtype=np.uint8)
                Image.fromarray(pixels).save(stem.with_suffix(".png"))
            elif modality.num_channels == 3:
                pixels = random.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(stem.with_suffix(".jpg"))
            elif modality.num_channels == 1:
                millimetres = random.integers(500, 10_000, size=(height, width)).astype(np.uint16)
                Image.fromarray(millimetres).save(stem.with_suffix(".png"))
            else:
                np.save(stem.with_suffix(".npy"), random.normal(size=(modality.num_channels, height, width)))
    if lacks_some:
        (root / config.outputs()[-1].name / "class0" / "3.png").unlink()
    return root


def write_file(source: str, stem: Path, columns: dict[str, Any]) -> str | list[str]:
    """Columns as a file of that kind; `.npy` files for NumPy."""
    if source == "numpy":
        stem.mkdir()
        for name, values in columns.items():
            np.save(stem / f"{name}.npy", np.asarray(values))
        return [str(stem / f"{name}.npy") for name in columns]
    columns = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    file = stem.with_suffix(f".{source}")
    if source == "json":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif source == "text":
        file = stem.with_suffix(".txt")
        file.write_text("\n\n".join(columns["text"]), encoding="utf-8")  # blank lines end documents
    elif source == "csv":
        cells = {
            name: [json.dumps(one) if isinstance(one, list) else one for one in columns[name]] for name in columns
        }
        pa_csv.write_csv(pa.table(cells), file)
    else:
        assert source == "parquet"
        pq.write_table(pa.table(columns), file)
    return str(file)


def raw_columns(args: DataArguments, config: Any, seed: int) -> dict[str, Any]:
    """`ROWS` rows of the recipe's kind, at the size of `config`."""
    random = np.random.default_rng(seed)
    column: Any = args.input_column
    columns: dict[str, Any] = {}
    if args.kind == "masked_text":
        return sentence_columns(args)
    if args.kind == "tokens":
        longest = config.max_position_embeddings + 4
        # Lengths differ and reach beyond the longest the model takes, as in the real files; bases do not.
        lengths = [longest if len(args.alphabet or "") == 4 else int(random.integers(8, longest)) for _ in range(ROWS)]
        letters = list(args.alphabet or "ACDEFGHIKLMNPQRSTVWY")
        columns[column] = ["".join(random.choice(letters, length)) for length in lengths]
    elif args.kind == "tabular" and column is None:
        columns = {f"f{number}": random.normal(size=ROWS) for number in range(config.series_length)}
    elif isinstance(args, TabularArguments) and isinstance(column, list):
        columns = {name: np.exp(random.normal(size=ROWS)) for name in column}
        columns |= {name: [f"word {row % 2}" for row in range(ROWS)] for name in args.category_columns or ()}
        columns |= {name: [f"2026-01-{1 + row % 28:02}" for row in range(ROWS)] for name in args.date_columns or ()}
    elif args.kind == "tabular":
        columns[column] = random.normal(size=(ROWS, config.series_length))
    elif args.kind == "series":
        columns[column] = random.normal(size=(ROWS, config.num_channels, config.series_length))
    elif args.kind == "spectrogram":
        noise = random.normal(scale=3000, size=(ROWS, 8000)).astype(np.int16)
        waves = [wave[: 4000 + 500 * row] for row, wave in enumerate(noise)]
        # Bare samples come with a scale; without one they come as sound files.
        columns[column] = waves if args.scale != 1.0 else [wav_file(wave, args.sampling_rate or 0) for wave in waves]
    else:
        pixels = random.integers(0, 256, size=(ROWS, *config.image_size, config.num_channels), dtype=np.uint8)
        columns[column] = [png_file(image) for image in pixels] if config.num_channels == 3 else pixels
    if isinstance(args, VisionLanguageArguments) and args.text_column is not None:
        columns[args.text_column] = ["a man with a dog", "two people near an umbrella and a table"] * (ROWS // 2)
    return columns | label_columns(args, columns, random)


def sentence_columns(args: DataArguments) -> dict[str, Any]:
    """Texts, or where there are tags sentences of `ROWS` documents, words and tags in the columns that the recipe names."""
    column = str(args.input_column)
    if args.tag_column is None:
        return {column: [". ".join(text for text, _ in SENTENCES) for _ in range(ROWS)]}
    texts = [text for text, _ in SENTENCES] * ROWS
    tags = [tags.split() for _, tags in SENTENCES] * ROWS
    columns: dict[str, Any] = {
        args.tag_column: tags,
        str(args.document_column): np.arange(len(texts)) // len(SENTENCES),
    }
    if args.tag_column == "upos":
        return columns | {column: [text.split() for text in texts]}
    spans = [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]
    places = {
        name: [[span[end] for span in row] for row in spans] for end, name in enumerate(["word_starts", "word_ends"])
    }
    return columns | {column: texts} | places


def wav_file(wave: np.ndarray, rate: int) -> dict[str, Any]:
    """As a Hub data set with an `Audio` column stores it."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, wave)
    return {"bytes": buffer.getvalue(), "path": "sound.wav"}


def png_file(pixels: np.ndarray) -> dict[str, Any]:
    """As a Hub data set with an `Image` column stores it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return {"bytes": buffer.getvalue(), "path": "image.png"}


def label_columns(args: DataArguments, columns: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    if args.label_column is None:
        return {}
    if args.task == "regression":
        return {args.label_column: random.normal(size=ROWS)}
    if args.task == "classification":
        return {args.label_column: np.arange(ROWS) % 3}
    lengths = [len(text) for text in columns[str(args.input_column)]]
    labels = {args.label_column: [random.integers(0, 3, length).tolist() for length in lengths]}
    if isinstance(args, TokenArguments) and args.label_mask_column is not None:
        labels[args.label_mask_column] = [[int(place > 2) for place in range(length)] for length in lengths]
    return labels


@by_name([path for path in RECIPES if "HF_MASKSSL_SHARED" in path.read_text(encoding="utf-8")])
def test_ready_recipe_fits_the_real_files(
    path: Path, shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = re.search(r"HF_MASKSSL_SHARED}/data/([\w/]+)", path.read_text(encoding="utf-8"))
    assert folder is not None
    monkeypatch.setenv("HF_MASKSSL_SHARED", str(shared_data(folder[1]).parents[folder[1].count("/") + 1]))
    recipe = load_recipe(path, (), SECTIONS)
    owner = recipe if recipe["model"] else load_recipe(EXAMPLES / "recipes" / "protein_corpus.yaml", (), SECTIONS)
    config = build_config(owner["model"])
    processor = None
    if owner is not recipe:
        processor = build_character_tokenizer(owner["data"].alphabet, config.max_position_embeddings)
    data = recipe["data"]
    shares = data.kind == "masked_text" or (isinstance(data, TokenArguments) and data.pack)
    count = 100 if shares else 12  # texts, which share sequences
    few = dataclasses.replace(recipe["data"], max_train_samples=count, max_validation_samples=20, max_test_samples=4)
    prepared = prepare_data(few, config, processor)
    assert len(prepared.train) == 12 or shares
    batch = prepared.collator([prepared.train[number] for number in range(4)])
    if "input_ids" in batch:
        assert not (batch["input_ids"] == 1).any(), "letters outside the alphabet"
    inputs = {name: value for name, value in batch.items() if name not in prepared.not_inputs}
    with torch.no_grad():
        assert math.isfinite(AutoModelForPreTraining.from_config(config)(**inputs).loss.item())


# The launch configurations beside the recipes.

LAUNCHES = {
    "one_cpu_process": (DistributedType.NO, 1, 1),
    "one_gpu": (DistributedType.NO, 1, 1),
    "eight_gpus": (DistributedType.MULTI_GPU, 8, 1),
    "fsdp2": (DistributedType.FSDP, 8, 1),
    "several_nodes": (DistributedType.MULTI_GPU, 16, 2),
    "two_cpu_processes": (DistributedType.MULTI_GPU, 2, 1),
}


def test_no_launch_configuration_is_missing() -> None:
    assert {path.stem for path in (EXAMPLES / "accelerate").glob("*.yaml")} == set(LAUNCHES)


@pytest.mark.parametrize("name", LAUNCHES)
def test_launch_configuration_is_understood_by_accelerate(name: str) -> None:
    path = EXAMPLES / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))  # an unknown key is an error there
    assert (config.distributed_type, config.num_processes, config.num_machines) == LAUNCHES[name]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ") and f"--config_file examples/accelerate/{name}.yaml" in text
    if name == "fsdp2":
        assert yaml.safe_load(text)["fsdp_config"]["fsdp_version"] == 2
