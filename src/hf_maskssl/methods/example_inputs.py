"""Small random batches that an encoder of any configuration takes, for checks of loading."""

import torch
from transformers import PreTrainedConfig

from .optional_fields import category_counts, takes_channels_last

BATCH_SIZE = 2


def signal_and_tokens(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The entries that the configuration's modality has: `input_values` (2, C, T) or `pixel_values` (2, C, H, W), float32, and
    `input_ids`, `attention_mask` (2, N), int64. Columns of categories hold class numbers.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    if config.has_patches:
        name = "input_values" if config.modality == "series" else "pixel_values"
        signal = torch.randn(BATCH_SIZE, config.num_channels, *config.signal_shape, generator=generator)
        for column, count in enumerate(category_counts(config) or []):
            if count:
                signal[:, 0, column] = torch.randint(count, (BATCH_SIZE,), generator=generator).float()
        is_channels_last = config.modality == "series" and takes_channels_last(config)
        inputs[name] = signal.transpose(1, 2).contiguous() if is_channels_last else signal
    if config.has_tokens:
        shape = (BATCH_SIZE, config.max_position_embeddings)
        inputs["input_ids"] = torch.randint(config.vocab_size, shape, generator=generator)
        inputs["attention_mask"] = torch.ones(shape, dtype=torch.int64)
        inputs["attention_mask"][-1, shape[1] // 2 + 1 :] = 0  # a padded row
    return inputs


def sentence_pairs(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask`, `token_type_ids` (2, N), int64."""
    inputs = signal_and_tokens(config)
    segments = torch.zeros_like(inputs["input_ids"])
    segments[:, segments.shape[1] // 2 :] = min(1, config.type_vocab_size - 1)
    return inputs | {"token_type_ids": segments}


def aligned_images(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """`inputs.NAME` of every modality: (2, C, H, W), float32, or classes (2, h, w), int64."""
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for modality in config.inputs():
        shape = (BATCH_SIZE, *modality.size(tuple(config.image_size)))
        if modality.is_categorical:
            images = torch.randint(modality.num_classes, shape, generator=generator)
        else:
            images = torch.randn(shape[0], modality.num_channels, *shape[1:], generator=generator)
        inputs[f"inputs.{modality.name}"] = images
    return inputs
