"""The record of the toy method, which its distribution names as an entry point."""

import torch
from transformers import AutoModel, AutoModelForPreTraining

from hf_maskssl import Description, Method
from toy_method.configuration_toy import ToyConfig
from toy_method.modeling_toy import ToyForPreTraining, ToyModel


def example_inputs(config: ToyConfig) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)}


METHOD = Method(
    config_class=ToyConfig,
    model_classes={AutoModel: ToyModel, AutoModelForPreTraining: ToyForPreTraining},
    describe=lambda config: Description(
        name="Toy",
        summary="An encoder pre-trained by guessing hidden pixels",
        title="Nobody 2026",
        url="https://example.org/toy",
        repository="https://example.org/toy.git",
        bibtex="@misc{nobody2026toy,\n  title = {Toy}\n}",
    ),
    example_inputs=example_inputs,
)
