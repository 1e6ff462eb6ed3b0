"""Layer-wise learning-rate decay: the nearer to the input, the slower (Clark et al. 2020, https://arxiv.org/abs/2003.10555).

BEiT, MAE and MultiMAE fine-tune with it; the minimax paper's decays are 0.65 for classification and 0.75 for dense tasks
(Wang et al. 2023, Table 7).
"""

import re
from collections import defaultdict

import torch
from transformers import PreTrainedModel

from ...files import JsonObject

# Learned tokens of our encoders, and MultiMAE's learned positions: like biases they are not decayed.
UNDECAYED = re.compile(r"(?:.*\.)?(?:bias|global_tokens|cls_token|positions_\w+)")


def layer_ids(model: PreTrainedModel) -> dict[str, int]:
    """The distance of each parameter from the input, in a model with a head.

    Args:
        model: Model whose encoder, `model.base_model`, has its layers in `layers`, or in `encoder.layer` as BERT's.

    Returns:
        Parameter name -> 0 for embeddings and learned tokens, i + 1 for layer i, and
        the number of layers + 1 for the encoder's final norm or pooler and for the head.

    Raises:
        ValueError: The encoder has no such layers.
    """
    prefix = re.escape(model.base_model_prefix)
    names = [name for name, _ in model.named_parameters()]
    in_layer = {name: re.match(rf"{prefix}\.(?:layers|encoder\.layer)\.(\d+)\.", name) for name in names}
    numbers = {name: int(match[1]) for name, match in in_layer.items() if match is not None}
    if not numbers:
        raise ValueError(
            f"finetuning.layer_decay: expected an encoder whose weights are named '{model.base_model_prefix}.layers.0. ...' or "
            f"'{model.base_model_prefix}.encoder.layer.0. ...', but those of {type(model).__name__} are {names[:3]}, ...: leave "
            "layer_decay out."
        )
    last = max(numbers.values()) + 2
    before = re.compile(rf"{prefix}\.(?!norm\.|pooler\.)")
    return {name: numbers[name] + 1 if name in numbers else 0 if before.match(name) else last for name in names}


def layer_decay_groups(
    model: PreTrainedModel, decay: float, learning_rate: float, weight_decay: float
) -> list[JsonObject]:
    """Parameter groups for an optimizer: every trained parameter once, with a lower rate the nearer it is to the input.

    The learning rate of id i is `learning_rate * decay ** (number of layers + 1 - i)`, so a head has all of it. Tensors of
    one dimension, biases, global and class tokens and MultiMAE's positions are not decayed (so does the authors' fine-tuning).

    Args:
        model: Model with a head; see `layer_ids`.
        decay: Factor between two layers, in (0, 1].
        learning_rate: Learning rate of the head.
        weight_decay: Weight decay of all other tensors.

    Returns:
        {"params", "lr", "weight_decay"} by rising id; within an id the decayed ones first.

    Raises:
        ValueError: The encoder has no layers that `layer_ids` finds.
    """
    ids = layer_ids(model)
    last = max(ids.values())
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_exempt = parameter.ndim <= 1 or UNDECAYED.fullmatch(name) is not None
            groups[ids[name], is_exempt].append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * decay ** (last - number),
            "weight_decay": 0.0 if is_exempt else weight_decay,
        }
        for (number, is_exempt), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
