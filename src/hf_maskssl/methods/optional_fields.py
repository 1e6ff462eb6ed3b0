"""Fields that only some configurations have, with the answer that holds for all others."""

from typing import Any

from transformers import PreTrainedConfig


def _said(config: PreTrainedConfig, name: str, otherwise: Any) -> Any:  # fields have any type
    return getattr(config, name, otherwise)  # the one place that asks for fields that may be absent


def modality(config: PreTrainedConfig) -> str | None:
    """What a model reads, `model.modality`; None for a model of another package."""
    return _said(config, "modality", None)


def part_names(config: PreTrainedConfig) -> list[str]:
    """Names of the parts of a model of several kinds of data; empty for all others."""
    return list(_said(config, "part_names", []))


def takes_channels_last(config: PreTrainedConfig) -> bool:
    """Whether a model takes series as (B, T, C), each step a token, rather than (B, C, T)."""
    return bool(_said(config, "channels_last", False))


def wants_special_tokens(config: PreTrainedConfig) -> bool:
    """Whether texts come with the tokenizer's special tokens: other models have a class token of their own, or none."""
    return bool(_said(config, "wants_special_tokens", False))


def pretraining_data_kind(config: PreTrainedConfig) -> str | None:
    """The one `data.kind` that a model is pre-trained on; None where its modality decides."""
    return _said(config, "pretraining_data_kind", None)


def padding_id(config: PreTrainedConfig) -> int | None:
    """The model's own id of padding."""
    return _said(config, "pad_token_id", None)


def trains_pooler(config: PreTrainedConfig) -> bool:
    """Whether pre-training trains the pooler: next sentence prediction does, where there is a choice."""
    return _said(config, "next_sentence_prediction", None) != "none"


def word_tasks(config: PreTrainedConfig) -> list[str]:
    """Names of the tasks of words, in data that comes masked; empty where the model masks by itself."""
    return list(_said(config, "tasks", None) or [])


def wants_words(config: PreTrainedConfig) -> bool:
    """Whether masked text is to say which word a piece belongs to: the model moves the masks."""
    return bool(_said(config, "wants_words", False))


def category_counts(config: PreTrainedConfig) -> list[int] | None:
    """The number of categories of each column of a table, 0 for numbers; None where a model reads numbers alone."""
    return _said(config, "category_counts", None)


def target_moments(config: PreTrainedConfig) -> tuple[Any, Any]:  # numbers, or nested lists of them
    """Mean and standard deviation by which a model's targets are standardised."""
    mean, std = _said(config, "target_mean", None), _said(config, "target_std", None)
    return 0.0 if mean is None else mean, 1.0 if std is None else std
