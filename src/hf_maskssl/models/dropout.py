"""Dropout whose masks are cheap to draw on a CPU (Srivastava et al. 2014; what is kept is scaled up).

For `nn.functional.dropout` the CPU's generator computes a random number of 53 bits per value, which can cost more than the
layer before it. Here a value takes 16 bits: it is dropped where they, read as a whole number, lie below 65536 p, rounded.
"""

import math

import torch
from torch import nn

LEVELS = 2**16  # values of 16 random bits
DRAWS = 4  # draws of 16 bits in an int64
FEWEST = 8192  # values; PyTorch's own function has fewer operations, which costs less below


def draw_keep(shape: torch.Size | tuple[int, ...], threshold: int) -> torch.Tensor:
    """`shape` uint8 on the CPU: 0 with a probability of `threshold` / 65536, else 1, from PyTorch's generator."""
    size = math.prod(shape)
    bits = torch.empty(-(-size // DRAWS), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits are random
    return bits.view(torch.int16)[:size].ge_(threshold - LEVELS // 2).to(torch.uint8).view(shape)


def draws_cheaply(x: torch.Tensor, p: float) -> bool:
    """Whether `dropout` of these values draws its mask here, and not in PyTorch's own function."""
    return (
        x.device.type == "cpu"
        and x.is_floating_point()
        and x.numel() >= FEWEST
        and 0 < round(p * LEVELS) < LEVELS
        and not torch.compiler.is_compiling()  # the compiler makes one loop of the draw and all around it
    )


def dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """`nn.functional.dropout`: zeros with probability p, the rest divided by the probability to be kept.

    On a CPU p is rounded to a multiple of 1/65536 and the scale is that of the rounded p, so that the mean stays exact; one
    byte per value is held for the backward pass. It can be differentiated any number of times. On other devices, for few
    values, in compiled and exported programs, and where p would be rounded to 0 or 1, it is PyTorch's own function.

    Args:
        x: (...), floating point.
        p: Probability to drop, 0 to 1.
        training: Whether to drop; False returns x itself.

    Raises:
        ValueError: `p` is no probability.
    """
    if not training or not draws_cheaply(x, p):
        return nn.functional.dropout(x, p, training)
    threshold = round(p * LEVELS)
    # Autograd keeps the bytes alone. The scale comes last, so that half precision does not round it.
    return (x * draw_keep(x.shape, threshold)).mul_(LEVELS / (LEVELS - threshold))


class Dropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return input
        return dropout(input, self.p, True)
