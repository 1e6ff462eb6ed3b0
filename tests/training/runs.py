"""Tiny runs for the tests of this folder: a recipe of a few lines, and ways to look at what a run left behind."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import load_file

import tiny_models
from hf_maskssl import SMAForMaskedModeling
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.models.modeling_sma import ChosenQueries
from hf_maskssl.models.multimodal_input import ModalityPatches
from hf_maskssl.models.multimodal_masking import VisibleTokens, deal_visible_tokens
from hf_maskssl.models.tokenized_input import TokenizedInput
from hf_maskssl.training import Pretrainer, PretrainingArguments, PretrainingRecipe, RunState

MODEL = tiny_models.section(
    "metamae", modality="image", image_size=[8, 8], num_channels=1, patch_size=[2, 2], mask_ratio=0.75
)
TABLE_MODEL: dict[str, Any] = {
    "modality": "series",
    "series_length": 6,
    "patch_size": 1,
    "image_size": None,
    "mask_ratio": 0.5,
}
TEXT_MODEL: dict[str, Any] = {**tiny_models.TOKENS, "mask_ratio": 0.5}
PLAIN_MAE: dict[str, Any] = {"num_adaptation_steps": 0, "contrastive_weight": 0.0}
SMA_MODEL: dict[str, Any] = {
    "model_type": "sma",
    "modality": "image",
    "image_size": [8, 8],
    "num_channels": 1,
    "encoder_type": "cross_attention",
    "num_latents": 6,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_masked_per_query": 8,
    "initializer_range": 0.3,  # attention far from uniform: ties would let rounding choose the mask
}
SMA_TEXT_MODEL: dict[str, Any] = {
    "model_type": "sma",
    "modality": "tokens",
    "vocab_size": 7,
    "max_position_embeddings": 9,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_masked_per_query": 1,
    "initializer_range": 0.3,
}
# 42 rows in batches of 4: an epoch is 10 batches, and two rows are left over.
DATA: dict[str, Any] = {"source": "digits", "kind": "image", "scale": 0.0625, "max_train_samples": 42, "cache": True}
LABELLED: dict[str, Any] = {"label_column": "label", "test_split": "test", "max_test_samples": 30}
TRAINING: dict[str, Any] = {
    "max_steps": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 0,
    "picture_steps": 0,
}


def make_recipe(
    output_dir: Path,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    probe: dict[str, Any] | None = None,
    **training: Any,
) -> PretrainingRecipe:
    """A recipe of MetaMAE on a few digits, with these changes; `model` stands alone when it names its type."""
    model, data = model or {}, data or {}
    return PretrainingRecipe(
        model=model if "model_type" in model else MODEL | model,
        data=data_arguments(**(data if "parts" in data else DATA | data)),
        probe=ProbeArguments(**(probe or {})),
        training=PretrainingArguments(**(TRAINING | {"output_dir": str(output_dir)} | training)),
    )


def write_recipe(recipe: PretrainingRecipe, path: Path) -> Path:
    """The recipe as a file, for a run in another process."""
    sections = {name: dataclasses.asdict(getattr(recipe, name)) for name in ("data", "probe", "training")}
    path.write_text(yaml.safe_dump({"model": recipe.model, **sections}, sort_keys=False))
    return path


def train(recipe: PretrainingRecipe) -> tuple[Pretrainer, RunState]:
    trainer = Pretrainer(recipe)
    return trainer, trainer.run()


def draws_of_the_sample(self: Any, name: str, draw: torch.Tensor | None, tokens: TokenizedInput) -> torch.Tensor:
    """In place of `MetaMAEMaskSampler.draw`: masks that a sample gets in whatever batch it is."""
    content = tokens.patches.sum(-1) if tokens.patches is not None else tokens.ids.cumsum(-1)  # type: ignore[union-attr]
    noise = content * 12.9898 + torch.arange(content.shape[1]) * (78.233 if name == "noise" else 37.719)
    return (torch.sin(noise) * 43758.5453) % 1


def tokens_of_the_sample(self: Any, images: ModalityPatches, *draws: Any) -> VisibleTokens:
    """In place of `MultiMAEForPretraining._draw_visible`: tokens that a sample gets in whatever batch it is."""
    content = torch.cat(
        [images.patches[grid.name][..., 0] for grid in images.grids], dim=1
    )  # no sum: its last digit varies
    noise = (torch.sin(content * 12.9898 + torch.arange(content.shape[1]) * 78.233) * 4375.85453) % 1
    shares = torch.full((images.batch_size, len(images.grids)), 1 / len(images.grids))
    present = images.is_present()
    return deal_visible_tokens(shares, noise, noise.roll(1, 1), images.sizes, self.config.num_visible_tokens, present)


choose_queries = SMAForMaskedModeling._choose_queries


def queries_of_the_sample(self: Any, tokens: TokenizedInput, query_mask: Any, query_heads: Any) -> ChosenQueries:
    """In place of `SMAForMaskedModeling._choose_queries`: two queries that a sample gets in whatever batch it is."""
    if tokens.patches is not None:
        content = tokens.patches.sum((1, 2))
    else:  # the batch decides how much padding follows a sample
        ids = tokens.ids if tokens.attention_mask is None else tokens.ids * tokens.attention_mask  # type: ignore[operator]
        content = (ids * (1 + torch.arange(ids.shape[1]))).sum(1)  # type: ignore[union-attr]
    length = tokens.shape[1] if self.sma.latents is None else self.config.num_latents
    noise = (torch.sin(content[:, None] * 12.9898 + torch.arange(length) * 78.233) * 43758.5453) % 1
    if tokens.attention_mask is not None and self.sma.latents is None:
        noise = noise.masked_fill(tokens.attention_mask == 0, -1.0)
    chosen = torch.zeros_like(noise, dtype=torch.bool).scatter(1, noise.topk(2, dim=1).indices, True)
    return choose_queries(self, tokens, chosen, query_heads)


def write_text(path: Path) -> dict[str, Any]:
    """A file of 42 short texts of different lengths, and the data section that reads it."""
    path.write_text("\n".join("ACGTTGCAAC"[: 3 + row % 6] + "ACGT"[row % 4] for row in range(42)))
    text = {"source": "text", "data_files": str(path), "kind": "tokens", "input_column": "text", "alphabet": "ACGT"}
    return {**text, "scale": 1.0}


def write_holes(path: Path) -> dict[str, Any]:
    """A table of 42 rows of which some lack values, so that some batches do, and the data section that reads it."""
    values = np.random.default_rng(0).normal(size=(42, 6)).round(4)
    values[np.random.default_rng(1).random(values.shape) < 0.1] = np.nan
    values[20] = np.nan  # left out
    table = pd.DataFrame(values, columns=list("abcdef")).assign(label=np.arange(42) % 2)
    table.to_csv(path, index=False)
    return {"source": "csv", "data_files": str(path), "kind": "tabular", "label_column": "label", "scale": 1.0}


MIXED_MODEL: dict[str, Any] = {**TABLE_MODEL, "num_channels": 1, "category_counts": [0, 3, 0, 2, 4, 0]}


def write_mixed(path: Path) -> dict[str, Any]:
    """A table of 42 rows of numbers and categories, with holes, and the data section that reads it."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(42, 6)).round(4), columns=list("abcdef"))
    table["b"] = random.permutation(["low", "mid", "high"] * 14)
    table["d"] = random.permutation([True, False] * 21).astype(object)
    table["e"] = random.permutation([1, 2, 3, 5] * 11)[:42]
    table = table.mask(random.random(table.shape) < 0.1)
    table.assign(label=np.arange(42) % 2).to_csv(path, index=False)
    found = {"source": "csv", "data_files": str(path), "kind": "tabular", "label_column": "label", "scale": 1.0}
    return {**found, "category_columns": ["b", "d", "e"]}


UNIFIED_MODEL: dict[str, Any] = {
    "model_type": "unified",
    "shared": tiny_models.SIZES["metamae"] | {"mask_ratio": 0.5},
    "parts": {
        "digits": {"modality": "image", "image_size": [8, 8], "num_channels": 1, "patch_size": [2, 2]},
        "table": {"modality": "series", "series_length": 6, "num_channels": 1, "patch_size": 1},
    },
}


def unified_data(table: dict[str, Any]) -> dict[str, Any]:
    """The data section of `UNIFIED_MODEL`: 42 digits, and a table of fewer rows."""
    parts = {"digits": DATA | LABELLED, "table": table | {"input_column": list("abcdef"), "label_column": None}}
    return {"source": "parts", "kind": "unified", "parts": parts}


def write_long(path: Path) -> dict[str, Any]:
    """Seven series with a gap, and the data section that reads them by windows of six steps."""
    random = np.random.default_rng(0)
    rows = [random.normal(size=length).round(4).tolist() for length in (40, 6, 25, 3, 31, 18, 50)]
    rows[0][10:22] = [float("nan")] * 12
    pd.DataFrame({"s": rows}).to_parquet(path)
    return {
        "source": "parquet",
        "data_files": str(path),
        "kind": "series",
        "input_column": "s",
        "window": 6,
        "scale": 1.0,
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a finished run, or one of its checkpoints, holds."""
    return load_file(folder / "model.safetensors")


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys() and first
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def without_time(state: RunState) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(state).items() if name != "seconds"}


class Killed(BaseException):
    """Ends a run as nothing in it expects, from within the test's process."""
