"""SMA, self-guided masked auto-encoding (Xie et al. 2024)."""

import dataclasses
from typing import Literal

from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from ..models.configuration_sma import SMAConfig
from ..models.modeling_sma import (
    SMAForMaskedModeling,
    SMAForSequenceClassification,
    SMAForTokenClassification,
    SMAModel,
)
from .example_inputs import signal_and_tokens
from .meanings import Meaning
from .papers import PERCEIVER_IO_BIBTEX, SMA_BIBTEX
from .record import Description, Method

SMA = Description(
    name="SMA",
    summary="An encoder pre-trained without labels by SMA, self-guided masked auto-encoding: the attention of its own "
    "first layer chooses which raw inputs (bytes, letters, values, pixels) are hidden and have to be predicted",
    title="Xie et al. 2024",
    url="https://arxiv.org/abs/2402.14789",
    repository="https://github.com/Johnathan-Xie/sma",
    bibtex=SMA_BIBTEX,
)


def describe(config: SMAConfig) -> Description:
    """SMA, or the baseline of its paper whose masks do not come from attention."""
    bibtex = SMA.bibtex + (PERCEIVER_IO_BIBTEX if config.is_cross_attention else "")
    if config.is_guided:
        return dataclasses.replace(SMA, bibtex=bibtex)
    hidden = {"random": "single tokens", "word": "whole words", "span": "spans", "patch": "patches"}[config.masking]
    return dataclasses.replace(
        SMA,
        name=f"MAE with {config.masking} masking",
        summary=f"An encoder pre-trained without labels by masked auto-encoding of raw inputs, with {hidden} hidden at "
        "random: a baseline of SMA, whose architecture it has, without masks that its attention chooses",
        bibtex=bibtex,
    )


def weight_meaning(config: SMAConfig, name: str) -> Meaning | None:
    """Learned positions, the table of words, and what reads and predicts values."""
    if name.endswith(("position_embeddings.weight", "decoder.positions.weight")):
        kind: Literal["places", "positions"] = "places" if config.has_tokens else "positions"
        return Meaning(kind, (config.modality,), config.grid_shape or (config.num_tokens,))
    if "decoder.output." in name or name.endswith("token_embeddings.weight"):
        return Meaning("words") if config.has_tokens else Meaning("values", (config.modality, config.num_channels))
    if "category_" in name:
        return Meaning("categories", grid=tuple(config.category_counts or []))
    if "value_projection." in name:
        return Meaning("values", (config.modality, config.num_channels))
    return None


METHOD = Method(
    config_class=SMAConfig,
    model_classes={
        AutoModel: SMAModel,
        AutoModelForPreTraining: SMAForMaskedModeling,
        AutoModelForSequenceClassification: SMAForSequenceClassification,
        AutoModelForImageClassification: SMAForSequenceClassification,
        AutoModelForAudioClassification: SMAForSequenceClassification,
        AutoModelForTokenClassification: SMAForTokenClassification,
    },
    describe=describe,
    example_inputs=signal_and_tokens,
    converter="hf_maskssl.hub.conversion.sma:convert_folder",
    weight_meaning=weight_meaning,
)
