"""A small problem of three tasks, trained under every task balancing, by one process or as one of two."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hf_maskssl.models.task_balancing import TaskBalancer

THEOREM = {"schedule": "theorem", "distance": 2.0, "lipschitz": 0.5, "bound": 3.0}
# Name -> method, options that make its state change within three steps
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "minimax": ("minimax", {"alpha": 2.0}),
    "minimax-momentum": ("minimax", {"alpha": 2.0, "momentum": 0.7}),
    "minimax-theorem": ("minimax", {**THEOREM, "distance": 80.0, "bound": 60.0}),
    "uncertainty": ("uncertainty", {}),
    "gradnorm": ("gradnorm", {}),
    "dwa": ("dwa", {"interval": 1, "temperature": 0.5}),
}
NUM_STEPS = 4


class Problem(nn.Module):
    """A shared layer and a head per task, each sample with some of the tasks."""

    def __init__(self, case: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.heads = nn.Linear(4, 5), nn.Linear(5, 3)
        self.balancer = TaskBalancer(["a", "b", "c"], *CASES[case])
        self.double()

    def sums(self, rows: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        errors = (self.heads(self.trunk(rows["inputs"]).tanh()) - rows["targets"]).square()
        return (errors * rows["valid"]).sum(0), rows["valid"].sum(0), self.trunk.weight

    def forward(self, rows: dict[str, torch.Tensor]) -> Any:
        balanced = self.balancer(*self.sums(rows))
        return balanced.loss, balanced.task_losses, balanced.weights


def problem_rows(step: int) -> dict[str, torch.Tensor]:
    """Eight samples; one task is only in the second half of them, in the second step nowhere."""
    generator = torch.Generator().manual_seed(step)
    rows = {name: torch.randn(8, size, generator=generator) for name, size in (("inputs", 4), ("targets", 3))}
    rows["targets"] *= torch.tensor([1.0, 2.0, 0.3])
    rows["valid"] = (torch.rand(8, 3, generator=generator) < 0.7).double()
    rows["valid"][:4, 2] = 0
    if step == 1:
        rows["valid"][:, 2] = 0
    return {name: value.double() for name, value in rows.items()}


def train(
    case: str, part_sizes: tuple[int, ...] = (8,), rank: int | None = None, counted: bool = False
) -> dict[str, torch.Tensor]:
    """A few optimiser steps over this process's rows in parts, measured first or only `counted`; losses, weights,
    parameters and state."""
    problem = Problem(case)
    called = problem if rank is None else DistributedDataParallel(problem)
    found: dict[str, torch.Tensor] = {}
    for step in range(NUM_STEPS):
        rows = problem_rows(step)
        if rank is not None:
            rows = {name: value[4 * rank : 4 * rank + 4] for name, value in rows.items()}
        parts = [
            dict(zip(rows, values, strict=True))
            for values in zip(*(value.split(part_sizes) for value in rows.values()), strict=True)
        ]
        if len(parts) > 1:
            if counted:
                totals = [problem.balancer.count(part["valid"].sum(0)) for part in parts]
            else:
                totals = [problem.balancer.measure(*problem.sums(part)) for part in parts]
            problem.balancer.begin_step(sum(totals[1:], totals[0]))
        total, found[f"{step}.losses"] = torch.zeros((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for part in parts:
            loss, losses, weights = called(part)
            (loss / len(parts)).backward()
            total += loss.detach() / len(parts)
            found[f"{step}.losses"] += losses / len(parts)
            found[f"{step}.weights"] = weights.double()
        problem.balancer.end_step()
        if rank is not None:
            dist.all_reduce(total)
            total /= 2
        found[f"{step}.loss"] = total
        for name, parameter in problem.named_parameters():
            assert parameter.grad is not None, name
            parameter.data -= 0.1 * parameter.grad
            parameter.grad = None
    return found | {name: value.detach().clone() for name, value in problem.state_dict().items()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9, msg=key)
