"""GELU, layer norm and attention that are cheap to differentiate twice.

Differentiating PyTorch's own kernels a second time falls apart into dozens of element-wise passes over the
activations, and the fused attention kernels refuse. Here the second derivatives are written out: value and gradient
are those of the ordinary operations, the gradient's gradient takes few passes and few temporaries. A third derivative
does not exist.

`grad` is the gradient that arrives in the first backward pass, `cotangent` what arrives at that gradient in the
second.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

Tensors = tuple[torch.Tensor | None, ...]


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _GeluGrad.apply(grad, *ctx.saved_tensors)


class _GeluGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.gelu_backward(grad, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> Tensors:
        grad, x = ctx.saved_tensors
        for_grad = torch.ops.aten.gelu_backward(cotangent, x)
        # gelu'' (x) = density(x) (2 - x^2)
        square = x.square()
        curvature = square.mul(-0.5).exp_().mul_(square.neg_().add_(2)).mul_(1 / math.sqrt(2 * math.pi))
        return for_grad, curvature.mul_(grad).mul_(cotangent)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Exact GELU of a tensor of any shape."""
    return _Gelu.apply(x)


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float) -> torch.Tensor:
        normalized, _, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, normalized, rstd)
        return normalized

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _NormalizeGrad.apply(grad, *ctx.saved_tensors), None


class _NormalizeGrad(torch.autograd.Function):
    """rstd (g - mean(g) - n mean(g n)) with n = (x - mean) rstd; x receives the gradient of n and rstd as well."""

    @staticmethod
    def forward(
        ctx: Any, grad: torch.Tensor, x: torch.Tensor, normalized: torch.Tensor, rstd: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(grad, normalized, rstd)
        return _project(grad, normalized, rstd)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> Tensors:
        grad, normalized, rstd = ctx.saved_tensors
        grad_mean, cotangent_mean = grad.mean(-1, keepdim=True), cotangent.mean(-1, keepdim=True)
        grad_along = _row_mean(grad, normalized)
        cotangent_along = _row_mean(cotangent, normalized)
        both = _row_mean(grad, cotangent)
        along = both - grad_mean * cotangent_mean - 3 * grad_along * cotangent_along
        for_x = grad * cotangent_along
        for_x.addcmul_(cotangent, grad_along).addcmul_(normalized, along)
        for_x.sub_(grad_mean * cotangent_along + cotangent_mean * grad_along).mul_(-rstd.square())
        return _project(cotangent, normalized, rstd), for_x, None, None


def _row_mean(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vecdot(left, right).unsqueeze(-1) / left.shape[-1]


def _project(grad: torch.Tensor, normalized: torch.Tensor, rstd: torch.Tensor) -> torch.Tensor:
    result = torch.addcmul(grad, normalized, _row_mean(grad, normalized), value=-1)
    return result.sub_(grad.mean(-1, keepdim=True)).mul_(rstd)


def layer_norm(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """`norm(x)` over the last dimension."""
    return torch.addcmul(norm.bias, _Normalize.apply(x, norm.eps), norm.weight)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        scores = (query @ key.transpose(-2, -1)).mul_(scaling)
        if mask is not None:
            scores.add_(mask)
        weights = scores.softmax(-1).to(value.dtype)  # autocast gives float32
        ctx.save_for_backward(query, key, value, weights)
        ctx.scaling = scaling
        return weights @ value

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Tensors:
        return (*_AttentionGrad.apply(grad, *ctx.saved_tensors, ctx.scaling), None, None)


class _AttentionGrad(torch.autograd.Function):
    """Gradients of query, key and value. The weights are a function of query and key, which receive their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        weights: torch.Tensor,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # weights o (dW - rowsum(dW o weights)), the softmax's gradient, scaled once for query and key alike
        weights_grad = grad @ value.transpose(-2, -1)
        offset = torch.linalg.vecdot(weights_grad, weights).unsqueeze(-1)
        weights_grad.sub_(offset)
        scores_grad = (weights_grad * weights).mul_(scaling)
        ctx.save_for_backward(grad, query, key, value, weights, weights_grad, offset, scores_grad)
        ctx.scaling = scaling
        return scores_grad @ key, scores_grad.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_query: torch.Tensor, to_key: torch.Tensor, to_value: torch.Tensor) -> Tensors:
        grad, query, key, value, weights, centred, offset, scores_grad = ctx.saved_tensors
        # What arrives at scores_grad / scaling, from dQ = S K and dK = S^T Q
        arriving = torch.cat([to_query, query], -1) @ torch.cat([key, to_key], -1).transpose(-2, -1)
        arriving.mul_(ctx.scaling)
        row = torch.linalg.vecdot(arriving, weights).unsqueeze(-1)
        # dW = grad V^T receives weights o (arriving - row)
        to_weights_grad = (arriving - row).mul_(weights)
        # weights receive arriving o (dW - offset) - row dW, and grad to_value^T from dV = W^T grad
        to_weights = arriving.mul_(centred).addcmul_(centred + offset, row, value=-1)
        to_weights.add_(grad @ to_value.transpose(-2, -1))
        to_scores = (
            to_weights.sub_(torch.linalg.vecdot(to_weights, weights).unsqueeze(-1)).mul_(weights).mul_(ctx.scaling)
        )
        for_grad = weights @ to_value + to_weights_grad @ value
        for_query = scores_grad @ to_key + to_scores @ key
        for_key = scores_grad.transpose(-2, -1) @ to_query + to_scores.transpose(-2, -1) @ query
        return for_grad, for_query, for_key, to_weights_grad.transpose(-2, -1) @ grad, None, None


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """softmax(scaling query key^T + mask) value.

    Args:
        query, key, value: (B, heads, N, head_dim).
        mask: additive, broadcastable to (B, heads, N, N), or None.

    Returns:
        (B, heads, N, head_dim).
    """
    # Every one of them takes part in several matrix products: one copy here saves many there.
    return _Attention.apply(query.contiguous(), key.contiguous(), value.contiguous(), mask, scaling)
