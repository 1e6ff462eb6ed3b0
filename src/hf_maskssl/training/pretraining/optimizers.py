"""The optimiser of a pre-training run."""

import torch
from transformers import PreTrainedModel

from ...files import JsonObject
from .arguments import PretrainingArguments


def build_optimizer(model: PreTrainedModel, args: PretrainingArguments, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over what is trained; without `decay_norm_and_bias` in two groups, the second with no weight decay.

    Args:
        model: Whose parameters.
        args: The recipe's training section.
        device: Where the parameters will be: on CPU and CUDA one kernel updates all of them.
    """
    groups: list[JsonObject] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if not args.decay_norm_and_bias:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        plain = [p for name, p in named if p.ndim < 2 or "token" in name.rsplit(".", 1)[-1]]
        chosen = {id(p) for p in plain}
        groups = [
            {"params": [p for _, p in named if id(p) not in chosen]},
            {"params": plain, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        groups,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=args.weight_decay,
        fused=device.type in ("cuda", "cpu"),
    )
