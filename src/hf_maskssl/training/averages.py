"""Averages of named losses over steps or batches: those of tasks weigh each batch by how much of the task it held."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

COUNT = "count/"


def add_parts(
    sums: MutableMapping[str, Any], parts: Mapping[str, torch.Tensor], rows: float = 1.0, dtype: Any = torch.float32
) -> None:
    """Add one batch's values to sums.

    Args:
        sums: Name -> sum so far; changed in place.
        parts: Name -> scalar. One that has a `count/NAME` beside it is a mean over so many terms.
        rows: Weight of the batch for values without a count.
        dtype: Of the sums.
    """
    for name, value in parts.items():
        count = parts.get(COUNT + name)
        weight = 1.0 if name.startswith(COUNT) else rows if count is None else count.to(dtype)
        sums[name] = sums.get(name, 0.0) + weight * value.to(dtype)


def averages(sums: Mapping[str, float], rows: float, batches: int = 1) -> dict[str, float]:
    """What `add_parts` summed as averages.

    Args:
        sums: Name -> sum.
        rows: Sum of the batches' weights.
        batches: Counts are divided by this; 1 leaves totals.

    Returns:
        Name -> average. A mean over terms of which there was none is left out: it is unknown, not 0.
    """
    found = {}
    for name, total in sums.items():
        count = sums.get(COUNT + name)
        if name.startswith(COUNT):
            found[name] = total / batches
        elif count is None:
            found[name] = total / rows
        elif count > 0:
            found[name] = total / count
    return found
