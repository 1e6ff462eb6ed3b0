"""Rules by which the losses of several tasks become one.

Minimax: softmax-weighted gradient descent (Wang et al., "Task-Robust Pre-Training for Worst-Case Downstream Adaptation",
https://arxiv.org/abs/2306.12070). Beside it what the paper compares with (Table 2): no balancing, uncertainty weighting,
GradNorm and dynamic weight averaging.

A task's loss is the mean of its terms over the whole batch of an optimiser step: of all processes and of all accumulated
batches. Each batch returns a loss whose average over processes and accumulated batches is the balanced loss of that whole
batch, the convention of `models/distributed.py`. Over several accumulated batches the weights are only known when all of
them have been seen, hence a first pass:

    totals = [balancer.measure(...) for each batch]         # forward passes; with gradients where `needs_gradients`
    totals = [balancer.count(...) for each batch]           # or, where not `needs_losses`, no forward pass at all
    balancer.begin_step(sum of totals)                      # one weight per task for all that follows
    balancer(...).loss.backward() for each batch            # the same batches, masks and dropout again
    balancer.end_step()
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import initialization as init

from .distributed import all_reduce_sum, world_size
from .pretraining import MaskedPretraining

Result = TypeVar("Result")

TASK_BALANCING = ("none", "minimax", "uncertainty", "gradnorm", "dwa")
SCHEDULES = ("constant", "theorem")
THEOREM_CONSTANTS = ("distance", "lipschitz", "bound")
# Method -> its options with their defaults, as the papers have them.
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    # alpha 1 is the paper's choice (Remark 3.3). distance R_0, lipschitz L' and bound B are Theorem 3.1's constants.
    "minimax": {
        "alpha": 1.0,
        "schedule": "constant",
        "distance": None,
        "lipschitz": None,
        "bound": None,
        "momentum": 0.0,
    },
    "uncertainty": {},
    "gradnorm": {"alpha": 1.5, "learning_rate": 0.025},
    "dwa": {"temperature": 2.0, "interval": 1000},  # interval: ours, the paper has epochs
}


def check_task_balancing(name: str, options: Mapping[str, Any] | None) -> None:
    """Refuse settings that `TaskBalancer` could not work with.

    Args:
        name: One of `TASK_BALANCING`.
        options: Values of `OPTIONS[name]` that differ from their defaults.

    Raises:
        ValueError: There is no such method or option, or an option's value is impossible or would have no effect.
    """
    if name not in TASK_BALANCING:
        raise ValueError(f"`task_balancing` must be one of {list(TASK_BALANCING)}, got {name!r}.")
    options = options or {}
    unknown = sorted(set(options) - set(OPTIONS[name]), key=str)
    if unknown:
        known = sorted(OPTIONS[name]) or "none"
        raise ValueError(f"`task_balancing_options`: '{name}' has no option {unknown}; its options are: {known}.")
    for option, value in options.items():
        expected = _expected(name, option, value)
        if expected:
            raise ValueError(f"`task_balancing_options`: '{option}' of '{name}' must be {expected}, got {value!r}.")
    if name == "minimax":
        _check_schedule(options)


def _expected(name: str, option: str, value: object) -> str | None:
    """The expectation that the value breaks, or None where it will do."""
    if option == "schedule":
        return None if value in SCHEDULES else f"one of {list(SCHEDULES)}"
    if option == "interval":
        return None if type(value) is int and value >= 1 else "an integer of at least 1"
    if option in THEOREM_CONSTANTS and value is None:
        return None
    number = math.nan  # no comparison below holds for it
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        number = value
    if option == "momentum":
        return None if 0 <= number < 1 else "a number from 0 to below 1"
    if name == "gradnorm" and option == "alpha":
        return None if number >= 0 else "a number of at least 0"
    return None if number > 0 else "a number above 0"


def _check_schedule(options: Mapping[str, Any]) -> None:
    given = [name for name in THEOREM_CONSTANTS if options.get(name) is not None]
    if options.get("schedule", "constant") == "constant":
        if given:
            raise ValueError(
                f"`task_balancing_options`: {given} belong to the schedule 'theorem', expected none of them with "
                f"'constant', got {dict(options)}. Set schedule: theorem, or remove them."
            )
        return
    missing = [name for name in THEOREM_CONSTANTS if name not in given]
    if missing:
        raise ValueError(
            f"`task_balancing_options`: the schedule 'theorem' needs {missing}, numbers above 0 (Theorem 3.1: distance "
            f"R_0 to the solution, Lipschitz constant L', bound B of the losses), got {dict(options)}."
        )
    if "alpha" in options:
        raise ValueError(
            "`task_balancing_options`: the schedule 'theorem' computes 'alpha', expected none, got "
            f"{options['alpha']!r}. Remove it, or set schedule: constant."
        )


@dataclass
class TaskTotals:
    """The totals of this process over some batches of one optimiser step; totals of further batches can be added.

    Attributes:
        sums: (T,) sum of each task's terms; None where they were only counted.
        counts: (T,) number of these terms.
        num_batches: Batches in them.
        gradients: (T, P) gradient of each of `sums` with respect to the last shared weight, where the method needs it.
    """

    sums: torch.Tensor | None
    counts: torch.Tensor
    num_batches: int = 1
    gradients: torch.Tensor | None = None

    def __add__(self, other: "TaskTotals") -> "TaskTotals":
        sums = gradients = None
        if self.sums is not None and other.sums is not None:
            sums = self.sums + other.sums
        if self.gradients is not None and other.gradients is not None:
            gradients = self.gradients + other.gradients
        return TaskTotals(sums, self.counts + other.counts, self.num_batches + other.num_batches, gradients)


@dataclass
class BalancedLoss:
    """The tasks' losses as one.

    Attributes:
        loss: Scalar with gradient, whose average over processes and accumulated batches is the balanced loss.
        task_losses: (T,) each task's mean over the whole batch of the step, detached; 0 for a task without terms in it. Where
            terms were only counted: this batch's part, whose average over the accumulated batches is that mean.
        weights: (T,) factors of these losses, detached; 0 for a task without terms.
        counts: (T,) terms of each task in the whole batch.
    """

    loss: torch.Tensor
    task_losses: torch.Tensor
    weights: torch.Tensor
    counts: torch.Tensor


@dataclass
class _Plan:
    """The values that all batches of an optimiser step share: (T,) each, detached."""

    losses: torch.Tensor | None  # None: not known before all batches have passed
    weights: torch.Tensor
    counts: torch.Tensor
    denominators: torch.Tensor  # local sum / denominator, averaged over processes and batches, is the mean over all


class TaskBalancer(nn.Module):
    """A rule that joins the losses of several tasks, with its state.

    Args:
        tasks: Names of the tasks, in the order of all (T,) tensors.
        name: Name of the method, one of `TASK_BALANCING`.
        options: Settings of the method, see `OPTIONS`.
        beside: Further tasks, after the others in all (T,) tensors, that the method does not weigh: each has as much weight as
            all of `tasks` together.

    Raises:
        ValueError: `check_task_balancing` refuses the settings; or `tasks` is empty, or a name is there twice.
    """

    def __init__(
        self, tasks: Sequence[str], name: str, options: Mapping[str, Any] | None = None, beside: Sequence[str] = ()
    ) -> None:
        super().__init__()
        check_task_balancing(name, options)
        self.tasks = [*tasks, *beside]
        self.num_balanced = len(tasks)
        if not tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"`tasks` must be different names, at least one, got {self.tasks}.")
        self.name = name
        self.rule = _RULES[name](self.num_balanced, **{**OPTIONS[name], **(options or {})})
        self._plan: _Plan | None = None

    def extra_repr(self) -> str:
        return f"{self.name}, tasks={self.tasks}"

    @property
    def needs_first_pass(self) -> bool:
        """Whether accumulated batches must all be measured before the first of them is differentiated."""
        return self.name != "none"

    @property
    def needs_losses(self) -> bool:
        """Whether the weights depend on losses; if not, a first pass may `count` and need not `measure`."""
        return self.rule.needs_losses

    @property
    def needs_gradients(self) -> bool:
        """Whether measuring takes gradients, so a first pass must not run under `torch.no_grad`."""
        return self.rule.needs_gradients

    @property
    def takes_gradients(self) -> bool:
        """Whether a call takes gradients now, and so reads `shared_weight`."""
        return self.needs_gradients and self.training and torch.is_grad_enabled()

    def forward(
        self,
        sums: torch.Tensor | Sequence[torch.Tensor],
        counts: torch.Tensor,
        shared_weight: torch.Tensor | None = None,
    ) -> BalancedLoss:
        """The loss of one batch: the whole one of this process's optimiser step, or one between `begin_step` and `end_step`.

        In training mode with gradients enabled, a call outside `begin_step` counts as an optimiser step; nothing else
        changes the method's state.

        Args:
            sums: (T,) sum of this process's terms of each task, carrying gradients; 0 where there are none. As a list of
                scalars, GradNorm goes back through each task's own graph alone, and not T times through all.
            counts: (T,) number of these terms.
            shared_weight: Weight of the last layer that all tasks share; GradNorm needs it in training.

        Returns:
            `BalancedLoss`, in float32, or float64 where `sums` is.

        Raises:
            ValueError: `sums` or `counts` do not have one entry per task; GradNorm lacks `shared_weight`.
        """
        plan = self._plan
        if plan is None:
            totals = self.measure(sums, counts, shared_weight)
            plan = self._make_plan(totals, updates_state=self.training and torch.is_grad_enabled())
        stacked = _stacked(sums)
        dtype = torch.promote_types(stacked.dtype, plan.weights.dtype)
        means = torch.where(plan.counts > 0, stacked.to(dtype) / plan.denominators, 0)
        losses = plan.losses
        if losses is None:
            losses = all_reduce_sum(means.detach()) / world_size()
        number, weights = self.num_balanced, plan.weights
        loss = self.rule(self.rule.combine, means[:number], weights[:number])
        if len(self.tasks) > number:
            loss = loss + (weights[number:] * means[number:]).sum()
        return BalancedLoss(loss, losses, weights, plan.counts)

    def measure(
        self,
        sums: torch.Tensor | Sequence[torch.Tensor],
        counts: torch.Tensor,
        shared_weight: torch.Tensor | None = None,
    ) -> TaskTotals:
        """The totals of one batch of this process for `begin_step`. Arguments and errors are those of `forward`."""
        expected = (len(self.tasks),)
        stacked = _stacked(sums)
        if stacked.shape != expected or counts.shape != expected:
            raise ValueError(
                f"`sums` and `counts` must have shape {expected}, one entry for each of {self.tasks}, got "
                f"{tuple(stacked.shape)} and {tuple(counts.shape)}."
            )
        dtype = torch.promote_types(stacked.dtype, torch.float32)
        gradients = None
        if self.takes_gradients and shared_weight is not None:
            gradients = _gradients(sums[: self.num_balanced], shared_weight, dtype)
        return TaskTotals(stacked.detach().to(dtype), counts.detach().to(dtype), 1, gradients)

    def count(self, counts: torch.Tensor) -> TaskTotals:
        """The totals of one batch for a method that does not need losses, from its (T,) terms of each task on this process.

        Raises:
            ValueError: The method's weights depend on losses.
        """
        if self.needs_losses:
            raise ValueError(
                f"'{self.name}' weighs tasks by their losses, which `count` does not see: call `measure`."
            )
        return TaskTotals(None, counts.detach().to(torch.float32))

    def begin_step(self, totals: TaskTotals) -> None:
        """Fix the weights of an optimiser step over several batches, and in training mode update the method's state.

        Args:
            totals: Sum of the results of `measure` or `count` for all of this process's batches. Every process must call this.

        Raises:
            ValueError: GradNorm in training mode lacks gradients.
        """
        self._plan = self._make_plan(totals, updates_state=self.training)

    def end_step(self) -> None:
        """End the step that `begin_step` began."""
        self._plan = None

    def loss_parts(self, balanced: BalancedLoss) -> dict[str, torch.Tensor]:
        """Scalars for a log: {task: its loss}, {weight/task: its weight} and {count/task: its number of terms}."""
        named = {"": balanced.task_losses, "weight/": balanced.weights, "count/": balanced.counts}
        return {
            prefix + task: value
            for prefix, values in named.items()
            for task, value in zip(self.tasks, values.unbind(), strict=True)
        }

    @torch.no_grad()
    def _make_plan(self, totals: TaskTotals, updates_state: bool) -> _Plan:
        if totals.sums is None:
            counts = all_reduce_sum(totals.counts)
            safe_counts = torch.where(counts > 0, counts, 1)
            weights = self._weights(torch.zeros_like(counts), counts > 0)
            return _Plan(None, weights, counts, safe_counts / (world_size() * totals.num_batches))
        sums, counts = all_reduce_sum(torch.stack([totals.sums, totals.counts])).unbind()
        is_present = counts > 0
        safe_counts = torch.where(is_present, counts, 1)
        losses = torch.where(is_present, sums / safe_counts, 0)
        weights = self._weights(losses, is_present)
        if updates_state:
            number, gradients = self.num_balanced, totals.gradients
            if gradients is not None:
                gradients = all_reduce_sum(gradients) / safe_counts[:number, None]
            self.rule(self.rule.update, losses[:number], is_present[:number], gradients)
        return _Plan(losses, weights, counts, safe_counts / (world_size() * totals.num_batches))

    def _weights(self, losses: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        number = self.num_balanced
        weights = self.rule(self.rule.weights_of, losses[:number], is_present[:number])
        if len(self.tasks) == number:
            return weights
        total = weights.sum()
        total = torch.where(total > 0, total, 1)
        return torch.cat([weights, total * is_present[number:]])


def _stacked(sums: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    return sums if isinstance(sums, torch.Tensor) else torch.stack(list(sums))


def _gradients(
    sums: torch.Tensor | Sequence[torch.Tensor], shared_weight: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """(T, P) gradient of each of `sums` with respect to `shared_weight` of P entries."""
    rows = []
    for task in sums:
        gradient = None
        if task.requires_grad:  # an absent task's sum is a constant
            (gradient,) = torch.autograd.grad(task, shared_weight, retain_graph=True, allow_unused=True)
        rows.append(torch.zeros_like(shared_weight) if gradient is None else gradient)
    return torch.stack([row.detach().flatten().to(dtype) for row in rows])


# ---- the methods --------------------------------------------------------------------------------------------------


class BalancingRule(nn.Module):
    """No balancing, and the base of the other methods. `losses`, `is_present` and weights are (T,).

    A method's parameters and buffers are its rule's own, so a model's `_init_weights` calls `reset_state` of the modules of
    this class: transformers passes over a module without tensors of its own, as `TaskBalancer` is.
    """

    needs_losses = False
    needs_gradients = False

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks

    def forward(self, work: Callable[..., Result], *args: Any) -> Result:
        """`work(*args)`, a method of this rule. Offloaded parameters exist only while a module's forward runs."""
        return work(*args)

    def reset_state(self) -> None:
        """Set parameters and buffers to initial values, except those that were loaded from a checkpoint."""

    def weights_of(self, losses: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        """Weights of this step, a tensor of their own: updates are made in place and before the backward pass."""
        return is_present.to(losses.dtype)

    def update(self, losses: torch.Tensor, is_present: torch.Tensor, gradients: torch.Tensor | None) -> None:
        """Take note of an optimiser step: its losses and, where needed, their gradients (T, P)."""

    def combine(self, means: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Scalar from `means` (T,), this batch's part of the losses, which carries the gradient."""
        return (weights * means).sum()


class _Minimax(BalancingRule):
    """Weights softmax(alpha * loss) over the tasks (Eq. 7 and Algorithm 1), constants for the gradient.

    With `momentum`, the losses in the softmax are running averages, for batches too small to estimate them.
    """

    needs_losses = True
    num_steps: torch.Tensor
    running_losses: torch.Tensor
    running_shares: torch.Tensor

    def __init__(
        self,
        num_tasks: int,
        alpha: float,
        schedule: str,
        distance: float | None,
        lipschitz: float | None,
        bound: float | None,
        momentum: float,
    ) -> None:
        super().__init__(num_tasks)
        self.alpha, self.momentum = alpha, momentum
        # These are R_0 L' and B of Theorem 3.1
        self.theorem = (distance * lipschitz, bound) if distance and lipschitz and bound else None
        # A checkpoint holds them only where something depends on them; one of BERT holds nothing but BERT's weights.
        is_running, is_scheduled = bool(momentum), self.theorem is not None
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64), persistent=is_scheduled)
        self.register_buffer("running_losses", torch.zeros(num_tasks, dtype=torch.float32), persistent=is_running)
        # The sum of the averaging weights so far, which corrects the start from zero as Adam's bias correction does.
        self.register_buffer("running_shares", torch.zeros(num_tasks, dtype=torch.float32), persistent=is_running)

    def reset_state(self) -> None:
        for buffer in (self.num_steps, self.running_losses, self.running_shares):
            init.zeros_(buffer)

    def weights_of(self, losses: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        if self.momentum:
            running, shares = self._average(losses, is_present)
            losses = running / torch.where(is_present, shares, 1)
        return _softmax(self._alpha(losses.dtype) * losses, is_present)

    def update(self, losses: torch.Tensor, is_present: torch.Tensor, gradients: torch.Tensor | None) -> None:
        self.num_steps += 1
        if self.momentum:
            running, shares = self._average(losses, is_present)
            self.running_losses.copy_(running)
            self.running_shares.copy_(shares)

    def _average(self, losses: torch.Tensor, is_present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Running averages with this step's losses; an absent task keeps its own."""
        share = (1 - self.momentum) * is_present.to(losses.dtype)
        running = self.running_losses.to(losses.dtype) * (1 - share) + losses * share
        return running, self.running_shares.to(losses.dtype) * (1 - share) + share

    def _alpha(self, dtype: torch.dtype) -> float | torch.Tensor:
        if self.theorem is None:
            return self.alpha
        scale, bound = self.theorem
        roots = (self.num_steps + 1).to(dtype).sqrt() / scale
        # The theorem asks for at least this alpha, which is negative where the bound of the losses is very small.
        return (4 * roots * (4 * self.num_tasks * bound * roots).log()).clamp(min=0)


class _Uncertainty(BalancingRule):
    """exp(-s) * loss + s with a learned log variance s per task (Kendall et al. 2018, https://arxiv.org/abs/1705.07115).

    The authors' form of MultiMAE: no factor 1/2, and no term at all for a loss of exactly 0.
    """

    needs_losses = True

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.log_variances = nn.Parameter(torch.zeros(num_tasks))

    def reset_state(self) -> None:
        init.zeros_(self.log_variances)

    def weights_of(self, losses: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        return torch.where(losses != 0, (-self.log_variances).to(losses.dtype).exp(), 0)

    def combine(self, means: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        log_variances = self.log_variances.to(means.dtype)
        # The weights are computed afresh, because those in `weights` carry no gradient.
        return torch.where(weights > 0, (-log_variances).exp() * means + log_variances, 0).sum()


class _GradNorm(BalancingRule):
    """Weights that are trained so that the tasks' gradients have norms in proportion to r^alpha, where r is how far a
    task's loss is from where it began, relative to the others (Chen et al. 2018, https://arxiv.org/abs/1711.02257).
    """

    needs_losses = True
    needs_gradients = True
    task_weights: torch.Tensor
    initial_losses: torch.Tensor

    def __init__(self, num_tasks: int, alpha: float, learning_rate: float) -> None:
        super().__init__(num_tasks)
        self.alpha, self.learning_rate = alpha, learning_rate
        self.register_buffer("task_weights", torch.ones(num_tasks, dtype=torch.float32))
        self.register_buffer("initial_losses", torch.zeros(num_tasks, dtype=torch.float32))  # 0: not seen yet

    def reset_state(self) -> None:
        init.ones_(self.task_weights)
        init.zeros_(self.initial_losses)

    def weights_of(self, losses: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        return torch.where(is_present, self.task_weights.to(losses.dtype), 0)

    def update(self, losses: torch.Tensor, is_present: torch.Tensor, gradients: torch.Tensor | None) -> None:
        if gradients is None:
            raise ValueError(
                "GradNorm in training needs `shared_weight`, the weight of the last layer that all tasks share, with "
                "gradients enabled, for every batch of the step; got none."
            )
        weights = self.task_weights.to(losses.dtype)
        initial = self.initial_losses.to(losses.dtype)
        initial = torch.where((initial == 0) & is_present, losses, initial)
        ratios = torch.where(is_present & (initial > 0), losses / initial, is_present.to(losses.dtype))
        rates = ratios / _mean(ratios, is_present)
        norms = gradients.norm(dim=1)
        target = _mean(weights * norms, is_present) * rates.pow(self.alpha)
        # Gradient of |weight * norm - target|, with the target held
        changed = weights - self.learning_rate * (weights * norms - target).sign() * norms
        # Ours: the weight stays positive, also after a step larger than itself. Below 0 its task's loss would grow.
        changed = torch.where(is_present, changed.clamp(min=1e-3), 0)
        # All weights keep the sum T; an absent task keeps its own.
        changed = changed * (torch.where(is_present, weights, 0).sum() / changed.sum().clamp(min=1e-12))
        self.task_weights.copy_(torch.where(is_present, changed, weights))
        self.initial_losses.copy_(initial)


class _DynamicWeightAverage(BalancingRule):
    """T softmax(r / temperature), where r is a task's loss in the last epoch over that in the one before (Liu et al. 2019,
    https://arxiv.org/abs/1803.10704, Eq. 7). An epoch is `interval` optimiser steps; weights are 1 in the first two.
    """

    needs_losses = True
    num_steps: torch.Tensor
    window: torch.Tensor
    history: torch.Tensor

    def __init__(self, num_tasks: int, temperature: float, interval: int) -> None:
        super().__init__(num_tasks)
        self.temperature, self.interval = temperature, interval
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        # The sum of the losses of this epoch's steps, and the number of steps with the task
        self.register_buffer("window", torch.zeros(2, num_tasks, dtype=torch.float32))
        # Mean losses of the last epoch and of the one before; 0: none yet
        self.register_buffer("history", torch.zeros(2, num_tasks, dtype=torch.float32))

    def reset_state(self) -> None:
        for buffer in (self.num_steps, self.window, self.history):
            init.zeros_(buffer)

    def weights_of(self, losses: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        last, before = self.history.to(losses.dtype).unbind()
        ratios = torch.where((last > 0) & (before > 0), last / torch.where(before > 0, before, 1), 1)
        return _softmax(ratios / self.temperature, is_present) * is_present.sum()

    def update(self, losses: torch.Tensor, is_present: torch.Tensor, gradients: torch.Tensor | None) -> None:
        self.num_steps += 1
        self.window += torch.stack([losses, is_present.to(losses.dtype)])
        is_full = self.num_steps % self.interval == 0
        total, count = self.window.unbind()
        last = self.history[0]
        # A task that did not occur in the epoch keeps its former mean.
        finished = torch.stack([torch.where(count > 0, total / count.clamp(min=1), last), last])
        self.history.copy_(torch.where(is_full, finished, self.history))
        self.window.copy_(torch.where(is_full, 0, self.window))


_RULES: dict[str, type[BalancingRule]] = {
    "none": BalancingRule,
    "minimax": _Minimax,
    "uncertainty": _Uncertainty,
    "gradnorm": _GradNorm,
    "dwa": _DynamicWeightAverage,
}


def _softmax(scores: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
    """Softmax of (T,) over the tasks that are present; 0 for the others, also where none is."""
    return torch.where(is_present, scores.masked_fill(~is_present, -math.inf).softmax(0), 0)


def _mean(values: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
    """Mean of (T,) over the tasks that are present, positive."""
    return (torch.where(is_present, values, 0).sum() / is_present.sum().clamp(min=1)).clamp(min=1e-12)


class TaskPretraining(MaskedPretraining):
    """A pre-training model whose loss joins several tasks, with weights that the accumulated batches of one step share.

    Attributes:
        balancer: Balancer of the tasks.
        measure_tasks: Method that gives a batch's `TaskTotals`, with the draws that `forward` will make from the same seed.
        always_measures: Whether batches have unequally many terms, so that a step of several batches is always measured
            before the first of them is differentiated.
    """

    balancer: TaskBalancer
    measure_tasks: Callable[..., TaskTotals]
    always_measures = False

    def reason_against_fsdp(self) -> str | None:
        if not self.balancer.needs_gradients:
            return None
        return "GradNorm takes gradients of the last shared layer's weight inside the forward pass. Train it with DDP."

    def weight_to_compare(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The last weight that all tasks share, where `balancer` compares the tasks' gradients there; else None.

        Raises:
            ValueError: It is offloaded (`device_map`, `accelerate.cpu_offload`).
        """
        if not self.balancer.takes_gradients:
            return None
        if weight.device.type == "meta":
            raise ValueError(
                "GradNorm takes gradients of a weight that is offloaded: load the model without offloading, or train it with "
                "another `task_balancing`."
            )
        return weight

    def needs_first_pass(self, batch: Mapping[str, object]) -> bool:
        """Whether a step with this batch among others must be measured before its gradients are taken."""
        return self.always_measures
