"""Small runs of every method and modality, and what the training loop would have noted of one: material for cards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hf_maskssl import ArrayImageProcessor, SeriesFeatureExtractor, SpectrogramFeatureExtractor
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.processors import ImageTextProcessor
from hf_maskssl.data.text.tokenizers import build_bert_tokenizer, build_byte_tokenizer, build_character_tokenizer
from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune
from hf_maskssl.training.pretraining.state import RunState
from tiny_models import section

METAMAE = section("metamae", num_hidden_layers=1, intermediate_size=32)
SERIES = {"modality": "series", "num_channels": 3, "series_length": 20, "patch_size": 5}
TOKENS = {"modality": "tokens", "vocab_size": 8, "max_position_embeddings": 10}
IMAGE = {"modality": "image", "num_channels": 1, "image_size": 8, "patch_size": 2}
PAIRS = {**IMAGE, "modality": "vision_language", "vocab_size": 8, "max_position_embeddings": 6}
ROWS = {"modality": "series", "num_channels": 1, "series_length": 6, "patch_size": 1}
SMA = {
    "model_type": "sma",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_masked_per_query": 1,
}
MULTIMAE = section("multimae", intermediate_size=32)
COLOURS: dict[str, Any] = {"rgb": {"kind": "continuous", "num_channels": 3}}
SCENES: dict[str, Any] = {
    **COLOURS,
    "depth": {"kind": "continuous", "num_channels": 1, "loss": "l1"},
    "semseg": {"kind": "categorical", "num_classes": 5, "stride": 4, "embedding_size": 4},
    "norm_rgb": {"target_of": "rgb", "loss": "standardized_mse"},
}
POS_BERT = section(
    "pos_minimax_bert", vocab_size=12, max_position_embeddings=16, num_hidden_layers=1, intermediate_size=32
)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "two", "sample", "##s", "of", "text", "a", "one"]
LATENTS = {"encoder_type": "cross_attention", "num_latents": 4, "embedding_size": 8}

# Name -> model section (the sizes of `model_section` left out), data section, what makes the processor.
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[], Any]]] = {
    "image": (
        IMAGE,
        {"input_column": "image", "label_column": "label", "test_split": "test", "scale": 1 / 16},
        lambda: ArrayImageProcessor(1, 8, scale=1 / 16, standardize="dataset", mean=[0.3], std=[0.4]),
    ),
    "series": (
        SERIES,
        {"source": "org/sensors", "kind": "series", "input_column": ["x", "y", "z"], "validation_split": "dev"},
        lambda: SeriesFeatureExtractor(3, 20),
    ),
    "tabular": (
        ROWS,
        {
            "source": "csv",
            "data_files": "rows.csv",
            "kind": "tabular",
            "label_column": "y",
            "validation_fraction": 0.1,
        },
        lambda: SeriesFeatureExtractor(1, 6, statistics_axis="feature", feature_names=list("abcdef")),
    ),
    "spectrogram": (
        IMAGE,
        {
            "source": "org/sounds",
            "kind": "spectrogram",
            "input_column": "audio",
            "sampling_rate": 8000,
            "test_split": "test",
        },
        lambda: SpectrogramFeatureExtractor(8000, num_mel_bins=8, num_frames=8),
    ),
    "tokens": (
        TOKENS,
        {
            "source": "text",
            "data_files": "dna.txt",
            "kind": "tokens",
            "input_column": "text",
            "alphabet": "ACGT",
            "test_split": "test",
        },
        lambda: build_character_tokenizer("ACGT", 10),
    ),
    "ids": (
        TOKENS,
        {"source": "org/ids", "kind": "tokens", "input_column": "ids", "validation_split": "validation"},
        lambda: None,
    ),
    "pairs": (
        PAIRS,
        {
            "source": "org/pairs",
            "kind": "vision_language",
            "input_column": "image",
            "text_column": "caption",
            "alphabet": "ACGT",
            "test_split": "test",
        },
        lambda: ImageTextProcessor(ArrayImageProcessor(1, 8), build_character_tokenizer("ACGT", 6)),
    ),
    "pairs_of_ids": (
        PAIRS,
        {
            "source": "org/pairs",
            "kind": "vision_language",
            "input_column": "image",
            "text_column": "ids",
            "test_split": "test",
        },
        lambda: ImageTextProcessor(ArrayImageProcessor(1, 8), None),
    ),
}
RUNS |= {
    "sma_text": (
        {**SMA, "modality": "tokens", "vocab_size": 262, "max_position_embeddings": 24, "pad_token_id": 0},
        {"source": "org/texts", "kind": "tokens", "input_column": "text", "tokenizer": "utf-8", "pack": True}
        | {"test_split": "test"},
        lambda: build_byte_tokenizer(24),
    ),
    "sma_words": (
        {**SMA, **LATENTS, "modality": "tokens", "vocab_size": 262, "max_position_embeddings": 24}
        | {"masking": "word", "word_delimiter_id": 38},
        {"source": "text", "data_files": "text.txt", "kind": "tokens", "input_column": "text", "tokenizer": "utf-8"}
        | {"test_split": "test"},
        lambda: build_byte_tokenizer(24),
    ),
    "sma_molecules": (
        {**SMA, "modality": "tokens", "vocab_size": 8, "max_position_embeddings": 10},
        {"source": "csv", "data_files": "smiles.csv", "kind": "tokens", "input_column": "smiles", "alphabet": "CNO=1"}
        | {"split": "scaffold"},
        lambda: build_character_tokenizer("CNO=1", 10),
    ),
    "sma_tabular": (
        {**SMA, "modality": "series", "num_channels": 1, "series_length": 6},
        {"source": "csv", "data_files": "rows.csv", "kind": "tabular", "label_column": "y"}
        | {"validation_fraction": 0.1},
        lambda: SeriesFeatureExtractor(
            1, 6, statistics_axis="feature", feature_names=list("abcdef"), channels_last=True
        ),
    ),
    "sma_series": (
        {**SMA, "modality": "series", "num_channels": 3, "series_length": 20},
        {"source": "org/sensors", "kind": "series", "input_column": ["x", "y", "z"], "validation_split": "dev"},
        lambda: SeriesFeatureExtractor(3, 20, channels_last=True),
    ),
    "sma_values": (
        {**SMA, "modality": "series", "num_channels": 3, "series_length": 20},
        {"source": "org/sensors", "kind": "series", "input_column": ["x", "y", "z"], "validation_split": "dev"},
        lambda: None,
    ),
    "sma_image": (
        {**SMA, **LATENTS, "modality": "image", "num_channels": 3, "image_size": 8},
        {"source": "org/pictures", "input_column": "image", "test_split": "test"},
        lambda: ArrayImageProcessor(3, 8),
    ),
}
RUNS |= {
    "multimae": (
        {**MULTIMAE, "modalities": SCENES, "task_balancing": "minimax"},
        {"source": "scenes", "kind": "multimodal", "label_column": "label", "test_split": "test", "augment": True},
        lambda: MultiMAEImageProcessor(SCENES, 16),
    ),
    "multimae_tensors": (
        {**MULTIMAE, "modalities": SCENES},
        {"source": "org/rooms", "kind": "multimodal", "input_column": {"rgb": "photo", "depth": "z"}}
        | {"test_split": "test"},
        lambda: None,
    ),
    "multimae_rgb": (
        {**MULTIMAE, "modalities": COLOURS},
        {"source": "multimodal_folder", "data_dir": "rooms", "kind": "multimodal", "validation_fraction": 0.1},
        lambda: MultiMAEImageProcessor(None, 16),
    ),
}
RUNS |= {
    "pos_bert": (
        POS_BERT,
        {"source": "pydoc", "kind": "masked_text", "tagger": "nltk", "wordpiece_size": 12, "validation_fraction": 0.1},
        lambda: bert_tokenizer(16),
    ),
    "pos_bert_tagged": (
        {**POS_BERT, "tasks": ["verb", "noun"], "task_balancing": "none", "next_sentence_prediction": "none"},
        {"source": "org/tagged", "kind": "masked_text", "input_column": "words", "tag_column": "tags"}
        | {"document_column": "file", "tokenizer": "org/bert", "mask_sampling": "balanced", "num_maskings": 0}
        | {"sequence_length": 12, "test_split": "test"},
        lambda: bert_tokenizer(16),
    ),
    "bert": (
        {**POS_BERT, "tasks": ["mlm"], "next_sentence_prediction": "none"},
        {"source": "text", "data_files": "books.txt", "kind": "masked_text", "input_column": "text"}
        | {"tokenizer": "../pieces/vocab.txt", "test_split": "test"},
        lambda: None,
    ),
}


def bert_tokenizer(max_length: int) -> Any:
    return build_bert_tokenizer({piece: number for number, piece in enumerate(PIECES)}, max_length)


def model_section(name: str) -> dict[str, Any]:
    """The whole model section of a run."""
    fields = RUNS[name][0]
    return fields if "model_type" in fields else {**METAMAE, **fields}


def finished_state() -> RunState:
    """30 steps, probed at 10, 20 (the best) and 30."""
    history: list[dict[str, float]] = [
        {"step": step, "train/loss": 1 / step, "train/reconstruction": 0.5 / step, "train/learning_rate": 1e-4}
        for step in (10, 20, 30)
    ]
    for entry, score in zip(history, (0.5, 0.75, 0.625), strict=True):
        entry["validation/loss"] = 2 * entry["train/loss"]
        entry["probe/linear_accuracy"] = score
        entry["probe/knn_accuracy"] = score - 0.25
        entry["probe/rankme"] = float(np.float32(4.5))
    layout = {"num_processes": 2, "batch_size": 32, "gradient_accumulation_steps": 1, "seed": 7}
    return RunState(step=30, seconds=12.3, history=history, layout=layout)


def finetune_digits(folder: Path, **finetuning: Any) -> Path:
    """One step of fine-tuning on a few digits; the model that is kept, with its card."""
    fields = {"seeds": [3, 4], "max_steps": 1, "batch_size": 8, "output_dir": str(folder / "run")}
    data = data_arguments(
        test_split="test", label_column="label", validation_fraction=0.1, max_train_samples=32, max_test_samples=20
    )
    recipe = FinetuningRecipe(METAMAE | IMAGE, data, FinetuningArguments(**(fields | finetuning)))
    finetune(recipe, write_card=write_finetuned_card)
    return folder / "run" / "model"


def probe_report(model: str, source: str = "digits", **data: Any) -> dict[str, Any]:
    """What run_linear_probe.py writes of one model."""
    runs = [{"seed": seed, "accuracy": score, "converged": True} for seed, score in enumerate((0.9, 0.92, 0.94))]
    measured = {
        "model": model,
        "task": "classification",
        "metric": "accuracy",
        "test_split": "test",
        "rows": {"train": 1437, "test": 360},
        "linear": runs,
        "knn": runs[:1],
    }
    table = {"columns": ["model", "linear probe, accuracy (%)"]}
    table["rows"] = [[model, {"mean": 92.0, "half_width": 4.97}], ["untrained encoder (seed 0)", 50.0]]
    differences = {"columns": ["difference", "points"], "rows": [[f"{Path(model).name} − untrained encoder", "+42"]]}
    return {
        "data": {"source": source, "label_column": "label", "test_split": "test", "input_column": "image", **data},
        "probe": {"labels_per_class": 5},
        "results": [measured],
        "table": table,
        "tables": {"scores": table, "differences": differences},
        "notes": ["A note."],
    }
