"""Tasks of one optimiser step that spreads over several batches."""

from typing import TYPE_CHECKING

import torch

from ...models.task_balancing import TaskPretraining
from .batches import Batch

if TYPE_CHECKING:
    from ...models.task_balancing import TaskBalancer, TaskTotals
    from .loop import Pretrainer


def balance_tasks(run: "Pretrainer", step: int, taken: list[Batch]) -> "TaskBalancer | None":
    """Measure the tasks over all batches of a step, where their weights or means depend on all of them.

    Returns:
        The balancer, which must be informed when the step ends; None where each batch can be taken by itself.
    """
    if len(taken) <= 1:
        return None
    model = run.bare_model  # unwrapping takes longer than the check above
    if not isinstance(model, TaskPretraining):
        return None
    # Method and model are the same on every process; what the batches hold is not, so the processes agree.
    is_certain = model.balancer.needs_first_pass or model.always_measures
    if not is_certain and not run.any_process(any(model.needs_first_pass(batch) for batch in taken)):
        return None
    totals: TaskTotals | None = None
    for part, batch in enumerate(taken):
        run.seed(step, part)
        with torch.set_grad_enabled(model.balancer.needs_gradients), run.accelerator.autocast():
            measured = model.measure_tasks(**batch)
        totals = measured if totals is None else totals + measured
    assert totals is not None, "a step has batches"
    model.balancer.begin_step(totals)
    return model.balancer
