"""Averages of named losses over steps or batches: those of tasks weigh each batch by how much of the task it held."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

from ..models.configuration_pos_minimax_bert import NEXT_SENTENCE

COUNT = "count/"
WEIGHT = "weight/"
PRESENT = "present/"  # among sums alone: of the batches that held some of the task
# Beside a progress bar there is room for so many values.
SHOWN_PARTS = 6


def add_parts(
    sums: MutableMapping[str, Any], parts: Mapping[str, torch.Tensor], rows: float = 1.0, dtype: Any = torch.float32
) -> None:
    """Add one batch's values to sums.

    Args:
        sums: Name -> sum so far; changed in place.
        parts: Name -> scalar. One that has a `count/NAME` beside it is a mean over so many terms, and its `weight/NAME`
            says something only where there are any.
        rows: Weight of the batch for values without a count.
        dtype: Of the sums.
    """
    for name, value in parts.items():
        count = parts.get(COUNT + name)
        weight: Any = 1.0 if name.startswith(COUNT) else rows if count is None else count.to(dtype)
        task = name.removeprefix(WEIGHT)
        if task != name and COUNT + task in parts:
            weight = rows * (parts[COUNT + task] > 0).to(dtype)
            sums[PRESENT + task] = sums.get(PRESENT + task, 0.0) + weight
        sums[name] = sums.get(name, 0.0) + weight * value.to(dtype)


def averages(sums: Mapping[str, float], rows: float, batches: int = 1) -> dict[str, float]:
    """What `add_parts` summed as averages.

    Args:
        sums: Name -> sum.
        rows: Sum of the batches' weights.
        batches: Counts are divided by this; 1 leaves totals.

    Returns:
        Name -> average; of a task's weight over the batches that held some of the task. What concerns a task of which there
        was nothing is left out, but its count: it is unknown, not 0.
    """
    found = {}
    for name, total in sums.items():
        if name.startswith(PRESENT):
            continue
        share = sums.get(COUNT + name, sums.get(PRESENT + name.removeprefix(WEIGHT), rows))
        if name.startswith(COUNT):
            found[name] = total / batches
        elif share > 0:
            found[name] = total / share
    return found


def shown_beside_progress(means: Mapping[str, float]) -> dict[str, str]:
    """What a progress bar has room for: all losses, or of many the whole one and the worst task's, as `noun 8.17`."""
    names = [name for name in means if "/" not in name]
    if len(names) <= SHOWN_PARTS:
        return {name: f"{means[name]:.4g}" for name in names}
    shown = {"loss": f"{means['loss']:.4g}"}
    tasks = [name for name in names if WEIGHT + name in means and name != NEXT_SENTENCE]
    if tasks:
        worst = max(tasks, key=means.__getitem__)
        shown["worst"] = f"{worst} {means[worst]:.3g}"
    return shown
