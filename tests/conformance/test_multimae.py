"""MultiMAE and its heads under transformers' common tests, which give pixels alone: those of rgb."""

from dataclasses import replace

import pytest
import torch
from adapters import Case, Inputs, adapters

from hf_maskssl.methods.multimae import METHOD
from tiny_models import RGB, SIZES

pytestmark = pytest.mark.slow
NUM_TOKENS, NUM_VISIBLE = 4, 2


def draws(size: int) -> Inputs:
    return {"noise": torch.rand(size, NUM_TOKENS), "shuffle_noise": torch.rand(size, NUM_TOKENS)}


PIXELS = Case(
    name="Pixels",
    method=METHOD,
    fields=SIZES["multimae"]
    | {
        "modalities": {"rgb": RGB},
        "image_size": [16, 16],
        "patch_size": [8, 8],
        "num_visible_tokens": NUM_VISIBLE,
    },
    inputs=lambda size: {"pixel_values": torch.randn(size, 3, 16, 16)},
    num_tokens=NUM_TOKENS,
    encoded={"": 1 + NUM_TOKENS, "MultiMAEForPretraining": 1 + NUM_VISIBLE},  # behind the global token
    draws={"MultiMAEForPretraining": draws},
    labels={
        "MultiMAEForDepthEstimation": lambda size: {"labels": torch.full((size, 16, 16), 0.7)},
        "MultiMAEForDenseRegression": lambda size: {"labels": torch.full((size, 2, 16, 16), 0.7)},
    },
)
# The other heads of segmentation; convnext is the default.
HEADS = [
    replace(
        PIXELS,
        name=f"Pixels{head.title()}",
        fields=PIXELS.fields | {"segmentation_head": head},
        classes=("MultiMAEForSemanticSegmentation",),
    )
    for head in ("segmenter", "linear", "dpt")
]
SQUARED = replace(
    PIXELS,
    name="PixelsSquared",
    fields=PIXELS.fields | {"dense_regression_loss": "mse"},
    classes=("MultiMAEForDenseRegression",),
)

globals().update(adapters(PIXELS, *HEADS, SQUARED))
