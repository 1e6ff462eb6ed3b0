"""The comparison of an export with its model, on inputs of other sizes than those it was traced with."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from ..load_checkpoint import arguments_of
from .programs import NamedOutputs
from .shapes import Tensors

TOLERANCE = 1e-4


class ExportDiffers(ValueError):
    """An export does not compute what its model computes; the message says how much it differs."""


def largest_difference(
    expected: Callable[[Tensors], Tensors], found: Callable[[Tensors], Tensors], checks: Sequence[Tensors]
) -> float:
    """The largest difference of any output, as a share of that output's largest value where this is above 1.

    Args:
        expected: Function that gives the model's outputs by name.
        found: Function that gives the export's outputs by name.
        checks: Inputs to compare with.

    Raises:
        ExportDiffers: An output is missing or has another shape.
    """
    largest = 0.0
    for inputs in checks:
        theirs = found(inputs)
        for name, ours in expected(inputs).items():
            if name not in theirs or theirs[name].shape != ours.shape:
                shape = list(theirs[name].shape) if name in theirs else "nothing"
                raise ExportDiffers(f"the export gives {shape} as {name!r} where the model gives {list(ours.shape)}.")
            scale = max(1.0, ours.abs().max().item())
            difference = (theirs[name].double() - ours.double()).abs().max().item() / scale
            largest = max(largest, difference if difference == difference else float("inf"))  # NaN is none
    return largest


def check_difference(difference: float, tolerance: float) -> None:
    """Refuse an export that differs by more than `tolerance`.

    Raises:
        ExportDiffers: Saying by how much.
    """
    if not difference <= tolerance:
        raise ExportDiffers(
            f"the export differs from the model by up to {difference:.3g}, which is more than --tolerance {tolerance:g}: "
            "nothing was kept. Raise the tolerance if that is near enough, or try another --format."
        )


def outputs_of(model: PreTrainedModel) -> Callable[[Tensors], Tensors]:
    """The function that gives a model's outputs by name."""
    wrapped = NamedOutputs(model).eval()

    def run(inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            return wrapped(**arguments_of(inputs))

    return run
