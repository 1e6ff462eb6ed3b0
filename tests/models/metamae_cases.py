"""Small MetaMAEs of every modality, with batches and draws, for the tests of this folder."""

from typing import Any

import torch

import tiny_models
from hf_maskssl import MetaMAEConfig, MetaMAEForPretraining
from tiny_models import SIZES

SMALL: dict[str, Any] = SIZES["metamae"] | {
    "decoder_num_hidden_layers": 2,
    "mask_ratio": 0.5,
    "nearby_ratio": 0.5,
    "contrastive_weight": 0.7,
}
MODALITIES = tiny_models.MODALITIES["metamae"]
# Tokens with padding, and values that are missing, behave differently enough to be cases of their own.
HOLED_CASES = ["holed_series", "holed_tabular", "holed_mixed", "holed_image"]
CASES = [*MODALITIES, "padded_tokens", *HOLED_CASES]


def small_config(case: str, **changes: Any) -> MetaMAEConfig:
    return MetaMAEConfig(**(SMALL | MODALITIES[case.removeprefix("padded_").removeprefix("holed_")] | changes))


def small_model(case: str, seed: int = 0, **changes: Any) -> MetaMAEForPretraining:
    torch.manual_seed(seed)
    return MetaMAEForPretraining(small_config(case, **changes))


def make_batch(case: str, batch_size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    config = small_config(case)
    batch: dict[str, torch.Tensor] = {}
    if config.modality == "series":
        values = torch.randn(batch_size, config.num_channels, config.series_length, generator=generator)
        batch["input_values"] = tiny_models.with_classes(values, config)
    if config.modality in ("image", "vision_language"):
        batch["pixel_values"] = torch.randn(batch_size, config.num_channels, *config.image_size, generator=generator)
    if config.has_tokens:
        length = config.max_position_embeddings
        batch["input_ids"] = torch.randint(0, config.vocab_size, (batch_size, length), generator=generator)
        if case in ("padded_tokens", "vision_language", "holed_vision_language"):
            lengths = torch.tensor([length, length - 1, length - 2, max(2, length - 5)] * batch_size)[:batch_size]
            batch["attention_mask"] = (torch.arange(length) < lengths[:, None]).long()
    return with_holes(batch, config.patch_shape) if case.startswith("holed") else batch


def with_holes(batch: dict[str, torch.Tensor], patch_shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """With NaN for missing values: none in the first row, whole patches in the second, both in the third, most in the last."""
    name = next(name for name in ("input_values", "pixel_values") if name in batch)
    values = batch[name].clone()
    observed = torch.ones_like(values)
    whole = (
        (..., slice(0, patch_shape[-1])) if len(patch_shape) == 1 else (..., *(slice(0, size) for size in patch_shape))
    )
    observed[1:3][whole] = 0
    observed[2:3, :1, ..., -1] = 0  # a channel of the last column: of one value, a patch
    observed[3:] = 0
    observed[3:][whole] = 1
    observed[3:, ..., -1] = 1
    batch[name] = values.masked_fill(observed == 0, torch.nan)
    return batch | {"observed_mask": observed.long()}


def make_draws(case: str, batch_size: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, small_config(case).num_tokens)
    names = ("noise", "nearby_noise", "query_noise")  # the last is read by guided masking alone
    return {name: torch.rand(shape, generator=generator) for name in names}


def to_double(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
