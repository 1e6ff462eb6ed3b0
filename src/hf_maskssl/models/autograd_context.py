"""The context of an autograd function with the types that torch's own leaves open."""

import torch
from torch.autograd.function import FunctionCtx


class Context(FunctionCtx):
    """What `forward` leaves for `backward`; torch passes an object of its own that has these."""

    saved_tensors: tuple[torch.Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class ScaledContext(Context):
    scaling: float
