"""What transformers' common tests ask that this package's models do not do, by design: each with its reason."""

import re

from transformers import PreTrainedModel

# Model classes, data and tests, as regular expressions that match whole names, and the reason.
NO_VOCABULARY = "Image|Latents|Pixels.*"
BY_DESIGN: list[tuple[str, str, str, str]] = [
    (".*", NO_VOCABULARY, "test_resize_tokens_embeddings", "there is no vocabulary to resize"),
    (
        ".*SequenceClassification",
        NO_VOCABULARY,
        "test_load_with_mismatched_shapes",
        "it loads with another `vocab_size`",
    ),
    (
        ".*",
        NO_VOCABULARY,
        "test_model_get_set_embeddings",
        "the embedding is a projection of values, as a ViT's; no table",
    ),
    (
        "SMA.*",
        NO_VOCABULARY,
        "test_tied_weights_keys",
        "it sets `tie_word_embeddings`, which is refused where there are no words",
    ),
    (
        "SMAForSequenceClassification",
        "Tokens",
        "test_can_load_ignoring_mismatched_shapes",
        "it takes `target_std` for the deviation of initial weights and sets it, which is refused for tokens",
    ),
    (
        "MultiMAE.*",
        ".*",
        "test_model_main_input_name",
        "pictures come by name, in `inputs`; `pixel_values`, the second argument, is the tensor that generic code can make",
    ),
    (
        "MultiMAEForImageClassification",
        ".*",
        "test_can_load_ignoring_mismatched_shapes",
        "it takes `classifier_norm`, which keeps its size, for a part of `classifier`",
    ),
    (
        "MetaMAEForPretraining",
        ".*",
        "test_batching_equivalence",
        "the inner loss is divided by the batch's mean support size, as in the authors' code",
    ),
]


def reason_to_skip(model_class: type[PreTrainedModel], data: str, test: str) -> str | None:
    """The reason of the first row that matches."""
    names = (model_class.__name__, data, test)
    for *patterns, reason in BY_DESIGN:
        if all(re.fullmatch(pattern, name) for pattern, name in zip(patterns, names, strict=True)):
            return reason
    return None
