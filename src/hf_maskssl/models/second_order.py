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
        normalized, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, normalized, mean, rstd)
        return normalized

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _NormalizeGrad.apply(grad, *ctx.saved_tensors), None


class _NormalizeGrad(torch.autograd.Function):
    """P(g) = rstd (g - mean(g) - n mean(g n)), with n = (x - mean) rstd; x receives the gradient of n and rstd as well."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: torch.Tensor,
        x: torch.Tensor,
        normalized: torch.Tensor,
        mean: torch.Tensor,
        rstd: torch.Tensor,
    ) -> torch.Tensor:
        projected = _project(grad, x, mean, rstd)
        ctx.save_for_backward(grad, x, normalized, mean, rstd, projected)
        return projected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> Tensors:
        grad, x, normalized, mean, rstd, projected = ctx.saved_tensors
        for_grad = _project(cotangent, x, mean, rstd)  # the projection is symmetric
        # -rstd (n mean(P(g) c) + P(g) mean(c n) + P(c) mean(g n)), with the cotangent c
        for_x = normalized * _row_mean(projected, cotangent)
        for_x.addcmul_(projected, _row_mean(cotangent, normalized))
        for_x.addcmul_(for_grad, _row_mean(grad, normalized)).mul_(-rstd)
        return for_grad, for_x, None, None, None


def _row_mean(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vecdot(left, right).unsqueeze(-1) / left.shape[-1]


def _project(grad: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor) -> torch.Tensor:
    wanted = [True, False, False]  # the gradient of x alone
    return torch.ops.aten.native_layer_norm_backward(grad, x, x.shape[-1:], mean, rstd, None, None, wanted)[0]


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
        scores = (query * scaling) @ key.transpose(-2, -1)
        if mask is not None:
            scores.add_(mask)
        weights = scores.softmax(-1).to(value.dtype)  # autocast gives float32
        context = weights @ value
        ctx.save_for_backward(query, key, value, weights, context)
        ctx.scaling = scaling
        return context

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Tensors:
        return (*_AttentionGrad.apply(grad, *ctx.saved_tensors, ctx.scaling), None, None)


class _AttentionGrad(torch.autograd.Function):
    """Gradients of query, key and value. The weights are a function of query and key, which receive their gradient.

    With the weights W, the gradient G that arrives and D = rowsum(G o context): the softmax passes on S = W o C, where
    C = G value^T - D. Everything is proportional to `scaling`, which is applied to the small factors of each product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        weights: torch.Tensor,
        context: torch.Tensor,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        centred = (grad @ value.transpose(-2, -1)).sub_(torch.linalg.vecdot(grad, context).unsqueeze(-1))
        scores_grad = centred * weights
        ctx.save_for_backward(grad, query, key, value, weights, centred, scores_grad)
        ctx.scaling = scaling
        for_query = (scores_grad @ key).mul_(scaling)
        return for_query, scores_grad.transpose(-2, -1) @ (query * scaling), weights.transpose(-2, -1) @ grad

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_query: torch.Tensor, to_key: torch.Tensor, to_value: torch.Tensor) -> Tensors:
        grad, query, key, value, weights, centred, scores_grad = ctx.saved_tensors
        to_query, to_key = to_query * ctx.scaling, to_key * ctx.scaling
        # What arrives at S from S key and S^T query, less its mean under the weights
        arriving = torch.cat([to_query, query], -1) @ torch.cat([key, to_key], -1).transpose(-2, -1)
        arriving.sub_(torch.linalg.vecdot(arriving, weights).unsqueeze(-1))
        to_products = arriving * weights  # what arrives at G value^T
        # What arrives at W, from S and from W^T G, and what the softmax passes on of it
        to_weights = arriving.mul_(centred).add_(grad @ to_value.transpose(-2, -1))
        to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        for_grad = (weights @ to_value).add_(to_products @ value)
        for_query = (scores_grad @ to_key).add_(to_scores @ (key * ctx.scaling))
        for_key = (scores_grad.transpose(-2, -1) @ to_query).add_(to_scores.transpose(-2, -1) @ (query * ctx.scaling))
        return for_grad, for_query, for_key, to_products.transpose(-2, -1) @ grad, None, None, None


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
