"""Checkpoints of every method and modality, as small as they can be, and every head of each."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

import tiny_models
from hf_maskssl.hub.export.heads import heads_of
from hf_maskssl.methods import METHODS

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"metamae {name}": ("metamae", fields) for name, fields in tiny_models.MODALITIES["metamae"].items()},
    **{f"sma {name}": ("sma", fields) for name, fields in tiny_models.MODALITIES["sma"].items()},
    "sma latents": ("sma", tiny_models.MODALITIES["sma"]["tokens"] | tiny_models.LATENTS),
    "multimae": ("multimae", {"modalities": tiny_models.SCENES}),
    "pos_minimax_bert": ("pos_minimax_bert", {}),
}
ALL = [(case, head) for case, (model_type, _) in CASES.items() for head in heads_of(METHODS[model_type])]


def save_model(folder: Path, case: str, head: str = "encoder", **changes: Any) -> Any:
    """Save a model of a case, all of whose weights are random."""
    model_type, fields = CASES[case]
    torch.manual_seed(0)
    config = tiny_models.config(model_type, **fields, **changes)
    model = heads_of(METHODS[model_type])[head](config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def config_of(folder: Path) -> Any:
    return AutoConfig.from_pretrained(folder)
