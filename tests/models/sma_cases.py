"""Small SMAs of both encoders and every modality, with batches and draws, for the tests of this folder."""

from typing import Any

import torch

import tiny_models
from hf_maskssl import SMAConfig, SMAForMaskedModeling
from tiny_models import LATENTS, SIZES

SMALL: dict[str, Any] = SIZES["sma"] | {
    "num_hidden_layers": 3,
    "decoder_intermediate_size": 12,
    "initializer_range": 0.3,  # attention that is far from uniform
}
ENCODERS: dict[str, dict[str, Any]] = {
    "self": {"encoder_type": "self_attention"},
    "cross": {
        **LATENTS,
        "qk_channels": 8,
        "v_channels": 24,
        "num_cross_attention_heads": 4,
        "cross_intermediate_size": 20,
        "decoder_qk_channels": 8,
        "decoder_v_channels": 10,
        "decoder_num_attention_heads": 2,
        "use_bias": True,
    },
}
MODALITIES = tiny_models.MODALITIES["sma"]
# "self-tokens", ..., and with padding at the end of rows and in the middle of one.
CASES = [f"{encoder}-{modality}" for encoder in ENCODERS for modality in MODALITIES]
PADDED_CASES = ["padded-self-tokens", "padded-cross-tokens", "padded-self-series", "padded-cross-series"]
# Values are missing: whole tokens, and some channels of others.
HOLED_CASES = ["holed-self-series", "holed-self-mixed", "holed-cross-image"]


def small_config(case: str, **changes: Any) -> SMAConfig:
    encoder, modality = case.removeprefix("padded-").removeprefix("holed-").split("-")
    return SMAConfig(**(SMALL | ENCODERS[encoder] | MODALITIES[modality] | changes))


def small_model(case: str, seed: int = 0, **changes: Any) -> SMAForMaskedModeling:
    torch.manual_seed(seed)
    return SMAForMaskedModeling(small_config(case, **changes))


def make_batch(case: str, batch_size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    config = small_config(case)
    length = config.num_tokens
    batch: dict[str, torch.Tensor] = {}
    if config.modality == "tokens":
        batch["input_ids"] = torch.randint(0, config.vocab_size, (batch_size, length), generator=generator)
    elif config.modality == "series":
        values = torch.randn(batch_size, length, config.num_channels, generator=generator)
        batch["input_values"] = tiny_models.with_classes(values, config)
    else:
        shape = (batch_size, config.num_channels, *config.image_size)
        batch["pixel_values"] = torch.randn(shape, generator=generator)
    if case.startswith("padded"):
        lengths = torch.tensor([length, length - 1, length - 4, 4] * batch_size)[:batch_size]
        mask = (torch.arange(length) < lengths[:, None]).long()
        mask[1, 2:4] = 0  # holes
        batch["attention_mask"] = mask
    return with_holes(batch) if case.startswith("holed") else batch


def with_holes(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With NaN for missing values: none in the first row, whole tokens in the second, both in the third, most in the last."""
    name = next(iter(batch))
    observed = torch.ones_like(batch[name])
    tokens = observed if name == "input_values" else observed.movedim(1, -1)  # (B, ..., C)
    tokens[1:3, 1:3] = 0
    tokens[2:3, -1:, ..., :1] = 0
    tokens[3:, 3:] = 0
    return {name: batch[name].masked_fill(observed == 0, torch.nan), "observed_mask": observed.long()}


def is_real(batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """(B, N) bool, the tokens that are neither padding nor missing."""
    if "attention_mask" in batch:
        return batch["attention_mask"].bool()
    if "observed_mask" not in batch:
        return None
    observed = batch["observed_mask"].bool()
    return observed.any(-1) if "input_values" in batch else observed.any(1).flatten(1)


def make_draws(case: str, batch_size: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Two queries for every sample, and noise."""
    generator = torch.Generator().manual_seed(seed)
    config, batch = small_config(case), make_batch(case, batch_size)
    draws = torch.rand(batch_size, config.num_queries, generator=generator)
    real = is_real(batch)
    if real is not None and not config.is_cross_attention:
        draws = draws.masked_fill(~real, 2.0)
    query_mask = torch.zeros_like(draws, dtype=torch.bool).scatter(1, draws.argsort(1)[:, :2], True)
    return {"query_mask": query_mask, "noise": torch.rand(batch_size, config.num_tokens, generator=generator)}


def to_double(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
