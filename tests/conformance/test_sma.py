"""SMA under transformers' common tests: self-attention on tokens, and latents on series."""

import pytest
import torch
from adapters import Case, Inputs, adapters

from hf_maskssl.methods.sma import METHOD
from hf_maskssl.models.masking import num_masked_tokens
from tiny_models import LATENTS, MODALITIES, SIZES

pytestmark = pytest.mark.slow
VOCABULARY = 30  # resizing takes 15 words away
LENGTH = 9
SMALL = SIZES["sma"] | {"mask_ratio": 0.5}
VISIBLE = LENGTH - num_masked_tokens(LENGTH, SMALL["mask_ratio"])


def token_batch(size: int) -> Inputs:
    ids = torch.randint(0, VOCABULARY, (size, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def series_batch(size: int) -> Inputs:
    return {"input_values": torch.randn(size, LENGTH, 3)}


def query_draws(num_queries: int, edge: int = 0):
    """Two queries for every sample, none among so many at either end, where the mixins pad."""

    def draw(size: int) -> Inputs:
        chosen = edge + torch.rand(size, num_queries - 2 * edge).argsort(1)[:, :2]
        query_mask = torch.zeros(size, num_queries, dtype=torch.int64).scatter(1, chosen, 1)
        return {"query_mask": query_mask, "noise": torch.rand(size, LENGTH)}

    return draw


globals().update(
    adapters(
        Case(
            name="Tokens",
            method=METHOD,
            fields=SMALL | MODALITIES["sma"]["tokens"] | {"encoder_type": "self_attention", "vocab_size": VOCABULARY},
            inputs=token_batch,
            num_tokens=LENGTH,
            encoded={"": LENGTH, "SMAForMaskedModeling": VISIBLE},
            draws={"SMAForMaskedModeling": query_draws(LENGTH, edge=2)},
        ),
        Case(
            name="Latents",
            method=METHOD,
            fields=SMALL | MODALITIES["sma"]["series"] | LATENTS,
            inputs=series_batch,
            num_tokens=LENGTH,
            encoded={"": LATENTS["num_latents"]},
            keys={"": LENGTH, "SMAForMaskedModeling": VISIBLE},
            draws={"SMAForMaskedModeling": query_draws(LATENTS["num_latents"])},
        ),
    )
)
