"""Averages of named losses over steps or batches; a task's losses weigh each batch by its number of the task's terms."""

from collections.abc import Mapping, MutableMapping, Sequence

import torch

COUNT = "count/"
WEIGHT = "weight/"
PRESENT = "present/"  # only among sums: number of batches with terms of the task


def add_parts(
    sums: MutableMapping[str, torch.Tensor],
    parts: Mapping[str, torch.Tensor],
    rows: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Add one batch's values to sums.

    However many values there are, a GPU gets about a dozen kernels and is not waited for.

    Args:
        sums: Name -> sum so far, a scalar; changed in place. The sums of one call share memory.
        parts: Name -> scalar, all on one device. A value with a `count/NAME` is a mean over so many terms, and its
            `weight/NAME` counts only in batches with such terms.
        rows: Weight of the batch for values without a count.
        dtype: Type of the sums.
    """
    if not parts:
        return
    device = next(iter(parts.values())).device
    zero, one, per_row = (torch.full((), value, dtype=dtype, device=device) for value in (0.0, 1.0, rows))
    tasks = [name.removeprefix(COUNT) for name in parts if name.startswith(COUNT)]
    counts, present = zero.new_empty(0), zero.new_empty(0)
    if tasks:
        counts = _stacked([parts[COUNT + task] for task in tasks], dtype)
        present = (counts > 0).to(dtype) * per_row
    count_of = dict(zip(tasks, counts.unbind(), strict=True))
    present_of = {WEIGHT + task: value for task, value in zip(tasks, present.unbind(), strict=True)}
    # A mean is weighed by its terms, a weight by whether there were any, a count not at all, and all else by rows.
    factors = [one if name.startswith(COUNT) else present_of.get(name, count_of.get(name, per_row)) for name in parts]
    added = torch.stack(factors) * _stacked(list(parts.values()), dtype)
    is_weighed = [task for task in tasks if WEIGHT + task in parts]
    if is_weighed:
        added = torch.cat([added, torch.stack([present_of[WEIGHT + task] for task in is_weighed])])
    names = [*parts, *(PRESENT + task for task in is_weighed)]
    so_far = _stacked([sums.get(name, zero) for name in names], dtype)
    sums.update(zip(names, (so_far + added).unbind(), strict=True))


def _stacked(scalars: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Scalars as one vector (n,) of this type."""
    scalars = [value.reshape(()) for value in scalars]
    if len({value.dtype for value in scalars}) > 1:
        scalars = [value.to(dtype) for value in scalars]
    return torch.stack(scalars).to(dtype)


def averages(sums: Mapping[str, float], rows: float, batches: int = 1) -> dict[str, float]:
    """Averages from the sums of `add_parts`.

    Args:
        sums: Name -> sum.
        rows: Sum of the batches' weights.
        batches: Number by which counts are divided; 1 leaves totals.

    Returns:
        Name -> average; a task's weight is averaged over the batches with terms of the task. Values of a task without terms
        are left out, except its count: they are unknown, not 0.
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
