"""Collectives that carry gradients, so that a loss over many processes equals the loss of one process with the whole
batch.

The convention everywhere: each process returns a loss whose *average over processes* is the loss of the whole batch,
because `DistributedDataParallel` and FSDP average gradients over processes. All functions are the identity on a single
process.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import FunctionCtx


def world_size() -> int:
    """Number of processes; 1 when `torch.distributed` is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; 0 when `torch.distributed` is not initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes. Each process's output depends on every process's input, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad


class _GatherContext(FunctionCtx):
    rows: int


class _AllGather(torch.autograd.Function):
    """Concatenation over processes along dimension 0, in the order of ranks."""

    @staticmethod
    def forward(ctx: _GatherContext, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = tensor.shape[0]
        gathered = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(gathered, tensor.detach().contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: _GatherContext, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        start = rank() * ctx.rows
        return grad[start : start + ctx.rows]


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum of `tensor` (any shape, same on every process) over processes, differentiable once."""
    return tensor if world_size() == 1 else _AllReduceSum.apply(tensor)


def all_gather(tensor: torch.Tensor) -> torch.Tensor:
    """Rows of every process, (B, ...) -> (world_size * B, ...), differentiable once.

    Every process must hold the same number of rows: a loader that drops its last incomplete batch sees to that.
    """
    return tensor if world_size() == 1 else _AllGather.apply(tensor)


def global_mean_denominator(count: torch.Tensor) -> torch.Tensor:
    """The divisor of a local sum that makes the average over processes the mean over all terms.

    Args:
        count: Number of (weighted) terms on this process, a scalar; it carries no gradient.

    Returns:
        Scalar `count_of_all_processes / world_size`, at least a tiny positive number, so that a batch without any term
        gives 0.
    """
    if world_size() == 1:
        return count.clamp(min=1e-8)
    return (all_reduce_sum(count.detach()) / world_size()).clamp(min=1e-8)


def mean_over_scored(
    values: torch.Tensor, is_scored: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Mean of `values` over the entries of all processes that `is_scored`, of the same shape, marks True.

    Args:
        values, is_scored: Tensors of one shape, float and bool.
        num_items: Number of such entries in all accumulated batches and processes, which then divides this process's sum.
    """
    weight = is_scored.to(values.dtype)
    total = (values * weight).sum()
    return total / (global_mean_denominator(weight.sum()) if num_items is None else items_divisor(num_items, total))


def items_divisor(num_items: torch.Tensor | int, total: torch.Tensor) -> torch.Tensor:
    """A Trainer's `num_items_in_batch` as the divisor of a sum, at least 1."""
    return torch.as_tensor(num_items, device=total.device).clamp(min=1)


def with_all_parameters(loss: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """`loss` plus zero times every parameter, on several processes; on one the loss itself.

    `DistributedDataParallel` waits for a gradient of each parameter, even of those that a batch does not use.
    """
    if world_size() == 1 or not loss.requires_grad:
        return loss
    return loss + sum(0.0 * parameter.sum() for parameter in model.parameters() if parameter.requires_grad)


class SyncBatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` on (B, C) whose training statistics are those of all processes' rows.

    `nn.SyncBatchNorm` does the same on GPUs only; this one also runs on gloo, keeps the same state-dict keys, and is
    the plain `nn.BatchNorm1d` on one process or in evaluation mode.
    """

    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if world_size() == 1 or not self.training:
            return super().forward(input)
        # Moments in float32: sums of half-precision activations over a large batch lose their last digits.
        values = input.float()
        rows = all_reduce_sum(values.new_full((1,), values.shape[0]))  # a copy from the host would make a GPU wait
        mean = all_reduce_sum(values.sum(0)) / rows
        variance = all_reduce_sum((values - mean).pow(2).sum(0)) / rows
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * rows / (rows - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normalised = (values - mean) * torch.rsqrt(variance + self.eps)
        return (normalised * self.weight + self.bias).to(input.dtype)
