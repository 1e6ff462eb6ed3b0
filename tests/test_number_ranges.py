"""Every number of every section and configuration has its range; what is no setting is refused by its field's name."""

import dataclasses
import math
from typing import Any, get_args, get_type_hints

import pytest

import tiny_models
from hf_maskssl.annotation.pseudo_labels import PseudoLabelArguments
from hf_maskssl.annotation.tag_folder import TaggingArguments
from hf_maskssl.checks import Range
from hf_maskssl.data.arguments import ARGUMENTS
from hf_maskssl.data.installed_kinds import OWN_KINDS
from hf_maskssl.embedding.arguments import EmbedArguments
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.recipes import build_config, own_fields
from hf_maskssl.training import PretrainingArguments
from hf_maskssl.training.finetuning.arguments import FinetuningArguments

# What a kind of data cannot do without.
NEEDED: dict[str, dict[str, Any]] = {
    "spectrogram": {"sampling_rate": 8000},
    "vision_language": {"text_column": "t"},
    "masked_text": {"tokenizer": "t"},
    "unified": {
        "input_column": None,
        "source": "parts",
        "parts": {"one": {"source": "digits"}, "other": {"source": "digits"}},
    },
    "multimodal": {"task": "depth_estimation", "label_column": "d", "input_column": {"rgb": "rgb"}},
}
SECTIONS: dict[str, tuple[type, dict[str, Any]]] = {
    "training": (PretrainingArguments, {}),
    "finetuning": (FinetuningArguments, {}),
    "probe": (ProbeArguments, {}),
    "tagging": (TaggingArguments, {"output_dir": "o", "source": "text"}),
    "embed": (EmbedArguments, {"model": "m", "output": "o", "data": "d"}),
    "pseudo_labels": (PseudoLabelArguments, {"output_dir": "o"}),
}
SECTIONS |= {
    kind.name: (ARGUMENTS[kind.name], {"input_column": "x", "source": "some/name", **NEEDED.get(kind.name, {})})
    for kind in OWN_KINDS
}


def numeric_types(hint: Any) -> set[type]:
    """int and float, wherever they stand in an annotation; a bool is no number, and what is in Any is not known."""
    if hint in (int, float):
        return {hint}
    return set().union(*(numeric_types(part) for part in get_args(hint) if part is not Any), set())


def numeric_fields(kind: type) -> dict[str, set[type]]:
    hints = get_type_hints(kind)
    found = {field.name: numeric_types(hints[field.name]) for field in dataclasses.fields(kind) if field.init}
    return {name: types for name, types in found.items() if types}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_number_of_a_section_has_a_range(section: str) -> None:
    kind, base = SECTIONS[section]
    kind(**base)
    fields = numeric_fields(kind)
    assert fields
    for name, types in fields.items():
        assert name in kind.RANGES, f"{name}: give it a range in RANGES"  # type: ignore[attr-defined]
        for value in outside(kind.RANGES[name], types):  # type: ignore[attr-defined]
            with pytest.raises(ValueError, match=rf"{name}\b"):
                kind(**base | {name: in_its_form(kind, name, value)})


def outside(known: Range, types: set[type]) -> list[float]:
    """Numbers out of a range, and what no range takes."""
    values: list[float] = [math.nan, math.inf, -math.inf] if float in types else []
    if math.isfinite(known.low):
        values += [known.low] if known.excludes_low else [known.low - 1]
    if math.isfinite(known.high):
        values += [known.high] if known.excludes_high else [known.high + 1]
    return values


def in_its_form(kind: type, name: str, value: float) -> Any:
    """A number as the field holds it: itself, or one of a list or a dictionary."""
    default = {field.name: field for field in dataclasses.fields(kind)}[name]
    example = default.default if default.default_factory is dataclasses.MISSING else default.default_factory()
    if isinstance(example, list):
        return [value, *example[1:]]
    return {**example, next(iter(example)): value} if isinstance(example, dict) else value


MODELS = {
    "metamae": tiny_models.section("metamae", **tiny_models.MODALITIES["metamae"]["image"]),
    "metamae tokens": tiny_models.section("metamae", **tiny_models.MODALITIES["metamae"]["tokens"]),
    "sma": tiny_models.section("sma", **tiny_models.MODALITIES["sma"]["tokens"]),
    "sma series": tiny_models.section("sma", **tiny_models.MODALITIES["sma"]["series"]),
    "multimae": tiny_models.section("multimae", modalities=tiny_models.SCENES),
    "pos_minimax_bert": tiny_models.section("pos_minimax_bert"),
}
# Where a negative number means something, or the field is not the method's own.
MAY_BE_NEGATIVE = {"semantic_loss_ignore_index"}
# What models of another modality read.
UNUSED = {
    "metamae": {"series_length", "vocab_size", "max_position_embeddings", "pad_token_id"},
    "metamae tokens": {"series_length", "image_size", "patch_size"},
    "sma": {"series_length", "image_size"},
    "sma series": {"image_size", "vocab_size", "max_position_embeddings", "pad_token_id", "word_delimiter_id"},
}
# BERT's: the ids of tokens that the model itself does not use, and what decoders do.
FOREIGN = {"bos_token_id", "eos_token_id", "num_labels"}


@pytest.mark.parametrize("model", MODELS)
def test_every_number_of_a_configuration_is_checked(model: str) -> None:
    values = MODELS[model]
    config = build_config(values)
    hints = {field.name: field.type for field in dataclasses.fields(config)}
    missed = []
    for name in own_fields(config).keys() - FOREIGN:
        types = numeric_types(hints[name])
        wrong: list[Any] = [math.nan, math.inf, -1.5] if float in types else [-1] if int in types else []
        if name in MAY_BE_NEGATIVE or name == "target_mean":
            wrong = [value for value in wrong if value not in (-1, -1.5)]
        if name in UNUSED.get(model, set()):
            continue
        for value in wrong:
            try:
                build_config(values | {name: value})
                missed.append((name, value))
            except ValueError as error:
                assert name in str(error), (name, value)
    assert missed == []


@pytest.mark.parametrize("model", ["metamae", "sma", "multimae", "pos_minimax_bert"])
def test_a_dropout_of_one_is_no_setting(model: str) -> None:
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
        with pytest.raises(ValueError, match=f"`{name}` is a probability, expected 0 to below 1, got 1.0"):
            build_config(MODELS[model] | {name: 1.0})
