"""MetaMAE under transformers' common tests."""

import pytest
import torch
from adapters import Case, Inputs, adapters

from hf_maskssl.methods.metamae import METHOD
from hf_maskssl.models.masking import num_visible_tokens
from tiny_models import MODALITIES, SIZES

pytestmark = pytest.mark.slow
VOCABULARY = 30  # resizing takes 15 words away
SMALL = SIZES["metamae"] | {"mask_ratio": 0.5}


def token_batch(size: int) -> Inputs:
    ids = torch.randint(0, VOCABULARY, (size, 9))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def image_batch(size: int) -> Inputs:
    return {"pixel_values": torch.randn(size, 5, 4, 6)}


def make_case(name: str, modality: str, inputs, num_tokens: int, **more) -> Case:
    visible = num_visible_tokens(num_tokens, SMALL["mask_ratio"])
    return Case(
        name=name,
        method=METHOD,
        fields=SMALL | MODALITIES["metamae"][modality] | ({"vocab_size": VOCABULARY} if modality == "tokens" else {}),
        inputs=inputs,
        num_tokens=num_tokens,
        encoded={"": 1 + num_tokens, "MetaMAEForPretraining": 1 + visible},  # behind the class token
        draws={
            "MetaMAEForPretraining": lambda size: {
                "noise": torch.rand(size, num_tokens),
                "nearby_noise": torch.rand(size, num_tokens),
            }
        },
        **more,
    )


globals().update(
    adapters(
        make_case("Tokens", "tokens", token_batch, 9),
        make_case("Image", "image", image_batch, 4),
    )
)
