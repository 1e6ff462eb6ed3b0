"""The context of an autograd function with the types that torch's own leaves open."""

import torch
from torch.autograd.function import FunctionCtx


class Context(FunctionCtx):
    """The members that `forward` sets for `backward`; torch passes an object of its own that has them."""

    saved_tensors: tuple[torch.Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class ScaledContext(Context):
    scaling: float
