"""A tiny checkpoint and a few rows of every kind of data."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.io import wavfile
from transformers import AutoModelForPreTraining

import tiny_models
from hf_maskssl.data import build_config
from hf_maskssl.data.arguments import DataArguments, data_arguments
from hf_maskssl.data.preparation import PreparedData, prepare_data

ROWS = 11
LETTERS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
# Depth and colours are read; the third is only predicted.
MODALITIES = {"rgb": tiny_models.RGB, "depth": tiny_models.DEPTH, "norm_rgb": tiny_models.NORM_RGB}


@dataclass(frozen=True)
class Case:
    """A kind of data.

    Attributes:
        model: The `model` section of a recipe.
        data: The `data` section without the place of the files.
        write: Function that writes the rows into a folder and gives what DATA names, and the fields that a recipe needs.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    write: Callable[[Path], tuple[Path, dict[str, Any]]]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_pictures(folder: Path) -> tuple[Path, dict[str, Any]]:
    for row in range(ROWS):
        path = folder / "pictures" / ("cat" if row % 2 else "dog") / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random(row).integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    return folder / "pictures", {"source": "imagefolder", "data_dir": str(folder / "pictures")}


def write_sounds(folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "sounds").mkdir()
    for row in range(ROWS):
        samples = random(row).integers(-9000, 9000, 900).astype(np.int16)
        wavfile.write(folder / "sounds" / f"{row:02d}.wav", 4000, samples)
    return folder / "sounds", {"source": "audiofolder", "data_dir": str(folder / "sounds")}


def write_series(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.save(folder / "signal.npy", random().normal(size=(ROWS, 3, 12)))
    return folder / "signal.npy", {"source": "numpy", "data_files": str(folder / "signal.npy")}


def write_table(folder: Path) -> tuple[Path, dict[str, Any]]:
    columns = {name: random(place).normal(size=ROWS) for place, name in enumerate("abcdef")}
    names = {"name": [f"row {row}" for row in range(ROWS)], "label": ["x", "y"] * 5 + ["x"]}
    pd.DataFrame({**columns, **names}).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv", {"source": "csv", "data_files": str(folder / "table.csv")}


def write_texts(folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = ["".join("acgt"[number] for number in random(row).integers(0, 4, 1 + row % 7)) for row in range(ROWS)]
    (folder / "texts.txt").write_text("\n".join(lines))
    return folder / "texts.txt", {"source": "text", "data_files": str(folder / "texts.txt")}


def write_words(folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "vocab.txt").write_text("\n".join(LETTERS))
    lines = [
        " ".join("abcdefghij"[number] for number in random(row).integers(0, 10, 2 + row % 7)) for row in range(ROWS)
    ]
    (folder / "words.txt").write_text("\n\n".join(lines))
    fields = {"source": "text", "data_files": str(folder / "words.txt"), "tokenizer": str(folder / "vocab.txt")}
    return folder / "words.txt", fields


def write_captions(folder: Path) -> tuple[Path, dict[str, Any]]:
    pictures, _ = write_pictures(folder)
    names = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    lines = [json.dumps({"file_name": name, "caption": "acgt"[: 1 + row % 4]}) for row, name in enumerate(names)]
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    return pictures, {"source": "imagefolder", "data_dir": str(pictures)}


def write_modalities(folder: Path) -> tuple[Path, dict[str, Any]]:
    for row in range(ROWS):
        for name, shape, kind in (("rgb", (16, 16, 3), np.uint8), ("depth", (16, 16), np.uint16)):
            path = folder / "scenes" / name / f"{row:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random(row).integers(1, 255, shape).astype(kind)).save(path)
    return folder / "scenes", {"source": "multimodal_folder", "data_dir": str(folder / "scenes")}


CASES: dict[str, Case] = {
    "image": Case(
        tiny_models.section("metamae", modality="image", image_size=[8, 8], num_channels=1, patch_size=[2, 2]),
        {"kind": "image", "input_column": "image", "scale": 1 / 255},
        write_pictures,
    ),
    "spectrogram": Case(
        tiny_models.section("metamae", modality="image", image_size=[8, 8], num_channels=1, patch_size=[2, 2]),
        {"kind": "spectrogram", "input_column": "audio", "sampling_rate": 4000},
        write_sounds,
    ),
    "series": Case(
        tiny_models.section("metamae", **tiny_models.MODALITIES["metamae"]["series"]),
        {"kind": "series", "input_column": "signal"},
        write_series,
    ),
    "tabular": Case(
        tiny_models.section("sma", modality="series", series_length=6, num_channels=1),
        {"kind": "tabular", "label_column": "label"},
        write_table,
    ),
    "tokens": Case(
        tiny_models.section("metamae", **tiny_models.TOKENS),
        {"kind": "tokens", "input_column": "text", "alphabet": "acgt"},
        write_texts,
    ),
    "latents": Case(
        tiny_models.section("sma", **tiny_models.LATENTS, modality="tokens", vocab_size=7, max_position_embeddings=12),
        {"kind": "tokens", "input_column": "text", "alphabet": "acgt"},
        write_texts,
    ),
    "masked_text": Case(
        tiny_models.section("pos_minimax_bert", next_sentence_prediction="none", tasks=["mlm"]),
        {"kind": "masked_text", "input_column": "text"},
        write_words,
    ),
    "vision_language": Case(
        tiny_models.section(
            "metamae",
            **(tiny_models.MODALITIES["metamae"]["vision_language"] | {"image_size": 8, "num_channels": 1}),
        ),
        {"kind": "vision_language", "input_column": "image", "text_column": "caption", "alphabet": "acgt"},
        write_captions,
    ),
    "multimodal": Case(
        tiny_models.section("multimae", modalities=MODALITIES),
        {"kind": "multimodal", "input_column": {"rgb": "rgb", "depth": "depth"}},
        write_modalities,
    ),
}


@dataclass(frozen=True)
class Made:
    """A checkpoint and its rows.

    Attributes:
        model: Checkpoint folder.
        data: What DATA names.
        args: Data section that reads the same rows.
    """

    model: str
    data: str
    args: DataArguments


def make(kind: str, folder: Path) -> Made:
    """Write rows and an untrained checkpoint with the processor that pre-training would save."""
    case = CASES[kind]
    data, fields = case.write(folder)
    args = data_arguments(**{**case.data, **fields})
    config = build_config(case.model)
    prepared: PreparedData = prepare_data(args, config)
    torch.manual_seed(0)
    AutoModelForPreTraining.from_config(config).save_pretrained(folder / "model")
    prepared.processor.save_pretrained(folder / "model")  # type: ignore[union-attr]
    return Made(str(folder / "model"), str(data), args)


def assert_same_features(found: Any, expected: Any) -> None:
    """Equal but for rounding in single precision, which is that of the largest of the numbers that were added up."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * max(1.0, float(np.abs(expected).max())))
