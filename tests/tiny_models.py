"""How small a model is in tests: one catalogue of tiny configurations, a method at a time.

`SIZES[model_type]` holds widths and depths, `MODALITIES` what a modality's models read. A test that needs another size writes the
difference: `SIZES["sma"] | MODALITIES["sma"]["image"] | {"num_latents": 4}`.
"""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

import hf_maskssl  # noqa: F401  (registers the methods)

Fields = dict[str, Any]

ENCODER: Fields = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DECODER: Fields = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}
SIZES: dict[str, Fields] = {
    "metamae": {**ENCODER, **DECODER, "projector_output_size": 8},
    "sma": {**ENCODER, "mask_ratio": 0.4, "num_masked_per_query": 2},
    "multimae": {
        **ENCODER,
        **DECODER,
        "image_size": 16,
        "patch_size": 8,
        "num_visible_tokens": 3,
        "segmentation_hidden_size": 64,
        "segmenter_hidden_size": 16,
        "segmenter_num_attention_heads": 2,
        "segmenter_intermediate_size": 24,
        "depth_hidden_size": 8,
        "depth_reassemble_sizes": [4, 6, 8, 8],
    },
    "pos_minimax_bert": {**ENCODER, "vocab_size": 30, "max_position_embeddings": 12},
}
# The latents of a Perceiver IO encoder.
LATENTS: Fields = {"encoder_type": "cross_attention", "num_latents": 5, "embedding_size": 12}
TOKENS: Fields = {"modality": "tokens", "vocab_size": 7, "max_position_embeddings": 9}
# A table of numbers and categories.
MIXED: Fields = {"modality": "series", "series_length": 6, "num_channels": 1, "category_counts": [0, 3, 0, 2, 4, 0]}
MODALITIES: dict[str, dict[str, Fields]] = {
    "metamae": {
        "tokens": TOKENS,
        "series": {"modality": "series", "series_length": 12, "num_channels": 3, "patch_size": 2},
        "tabular": {"modality": "series", "series_length": 6, "num_channels": 1, "patch_size": 1},
        "mixed": {**MIXED, "patch_size": 1},
        "image": {"modality": "image", "image_size": [4, 6], "num_channels": 5, "patch_size": [2, 3]},
        "vision_language": {
            "modality": "vision_language",
            "image_size": 4,
            "num_channels": 3,
            "patch_size": 2,
            "vocab_size": 7,
            "max_position_embeddings": 5,
        },
    },
    "sma": {
        "tokens": {"modality": "tokens", "vocab_size": 11, "max_position_embeddings": 12},
        "series": {"modality": "series", "series_length": 10, "num_channels": 3},
        "mixed": MIXED,
        "image": {"modality": "image", "image_size": [4, 6], "num_channels": 2},
    },
}
# Aligned pictures, the entries of a MultiMAE's `modalities`.
RGB: Fields = {"kind": "continuous", "num_channels": 3}
DEPTH: Fields = {"kind": "continuous", "num_channels": 1, "loss": "l1"}
SEMSEG: Fields = {"kind": "categorical", "num_classes": 5, "stride": 2, "embedding_size": 4}
NORM_RGB: Fields = {"target_of": "rgb", "loss": "standardized_mse"}
SCENES: dict[str, Fields] = {"rgb": RGB, "depth": DEPTH, "semseg": SEMSEG, "norm_rgb": NORM_RGB}


def section(model_type: str, **changes: Any) -> Fields:
    """The `model` section of a recipe."""
    return {"model_type": model_type, **SIZES[model_type], **changes}


def with_classes(values: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Values whose first axis counts rows and one other columns, with a class number in each column of categories."""
    values = values.clone()
    for column, count in enumerate(config.category_counts or []):
        if count:
            place = (slice(None), 0, column) if values.shape[1] == 1 else (slice(None), column, 0)
            values[place] = (values[place] * 1000).round().abs() % count
    return values


def config(model_type: str, **changes: Any) -> PreTrainedConfig:
    return AutoConfig.for_model(**section(model_type, **changes))
