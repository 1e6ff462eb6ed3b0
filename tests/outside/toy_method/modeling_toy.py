"""Models of the toy method."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from .configuration_toy import ToyConfig


@dataclass
class ToyOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None


class ToyPreTrainedModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    main_input_name = "pixel_values"


class ToyModel(ToyPreTrainedModel):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        height, width = config.image_size
        self.encode = nn.Linear(config.num_channels * height * width, config.hidden_size)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        pooled = torch.tanh(self.encode(pixel_values.flatten(1)))
        return BaseModelOutputWithPooling(last_hidden_state=pooled[:, None], pooler_output=pooled)


class ToyForPreTraining(ToyPreTrainedModel):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.toy = ToyModel(config)
        self.decode = nn.Linear(config.hidden_size, self.toy.encode.in_features)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: object) -> ToyOutput:
        is_masked = torch.rand_like(pixel_values) < self.config.mask_ratio
        logits = self.decode(self.toy(pixel_values.masked_fill(is_masked, 0.0)).pooler_output)
        error = (logits.view_as(pixel_values) - pixel_values).square()
        loss = (error * is_masked).sum() / is_masked.sum().clamp(min=1)
        return ToyOutput(loss=loss, loss_parts={"reconstruction": loss.detach()}, logits=logits)
