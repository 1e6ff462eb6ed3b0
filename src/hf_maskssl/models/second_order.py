"""GELU, layer norm and attention that are cheap to differentiate twice.

Differentiating PyTorch's own kernels a second time falls apart into dozens of element-wise passes over the
activations, and the fused attention kernels refuse. Here the second derivatives are written out: value and gradient
are those of the ordinary operations, the gradient's gradient takes few passes and few temporaries. A third derivative
does not exist.

`grad` is the gradient that arrives in the first backward pass, `cotangent` what arrives at that gradient in the
second.
"""

import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .autograd_context import Context, ScaledContext

Tensors = tuple[torch.Tensor | None, ...]
BLOCK_BYTES = 2**20  # block of an attention map that is computed at a time


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> torch.Tensor:
        return _GeluGrad.apply(grad, *ctx.saved_tensors)


class _GeluGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.gelu_backward(grad, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, cotangent: torch.Tensor) -> Tensors:
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
    def forward(ctx: Context, x: torch.Tensor, eps: float) -> torch.Tensor:
        normalized, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, normalized, mean, rstd)
        return normalized

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _NormalizeGrad.apply(grad, *ctx.saved_tensors), None


class _NormalizeGrad(torch.autograd.Function):
    """P(g) = rstd (g - mean(g) - n mean(g n)), with n = (x - mean) rstd; x receives the gradient of n and rstd as well."""

    @staticmethod
    def forward(
        ctx: Context,
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
    def backward(ctx: Context, cotangent: torch.Tensor) -> Tensors:
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


def _blocks(query: torch.Tensor, key: torch.Tensor) -> list[slice]:
    """Parts of the batch whose attention maps stay in a CPU's cache between the operations on them; else all of it."""
    batch_size = query.shape[0]
    if query.device.type != "cpu":
        return [slice(0, batch_size)]
    of_a_row = query[0, :, :, 0].numel() * key.shape[2] * query.element_size()
    rows = max(1, BLOCK_BYTES // max(1, of_a_row))
    return [slice(start, start + rows) for start in range(0, batch_size, rows)]


def _flat(part: slice, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Rows `part` of (B, heads, ...) tensors as (rows * heads, ...)."""
    return [tensor[part].flatten(0, 1) for tensor in tensors]


def _add_product(
    total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scaling: float = 1.0, first: bool = False
) -> torch.Tensor:
    """total + scaling left @ right, in place; with `first` whatever `total` holds is forgotten."""
    return torch.baddbmm(total, left, right, beta=0 if first else 1, alpha=scaling, out=total)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: ScaledContext,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        weights = query.new_empty(*query.shape[:3], key.shape[2])
        context = value.new_empty(*query.shape[:3], value.shape[3])
        for part in _blocks(query, key):
            q, k, v, w, c = _flat(part, query, key, value, weights, context)
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scaling)
            if mask is not None:
                scores.view_as(weights[part]).add_(mask if mask.shape[0] == 1 else mask[part])
            torch.softmax(scores, -1, out=w)
            torch.bmm(w, v, out=c)
        ctx.save_for_backward(query, key, value, weights, context)
        ctx.scaling = scaling
        return context

    @staticmethod
    def backward(ctx: ScaledContext, grad: torch.Tensor) -> Tensors:
        return (*_AttentionGrad.apply(grad.contiguous(), *ctx.saved_tensors, ctx.scaling), None, None)


class _AttentionGrad(torch.autograd.Function):
    """Gradients of query, key and value. The weights are a function of query and key, which receive their gradient.

    With the weights W, the gradient G that arrives and D = rowsum(G o context): the softmax passes on S = W o C, where
    C = G value^T - D. Everything is proportional to `scaling`.
    """

    @staticmethod
    def forward(
        ctx: ScaledContext,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        weights: torch.Tensor,
        context: torch.Tensor,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        centred, found = torch.empty_like(weights), [torch.empty_like(part) for part in (query, key, value)]
        for part in _blocks(query, key):
            g, q, k, v, w, c, centre = _flat(part, grad, query, key, value, weights, context, centred)
            for_query, for_key, for_value = _flat(part, *found)
            torch.bmm(g, v.transpose(1, 2), out=centre)
            centre.sub_(torch.linalg.vecdot(g, c).unsqueeze(-1))
            scores_grad = centre * w
            _add_product(for_query, scores_grad, k, scaling, first=True)
            _add_product(for_key, scores_grad.transpose(1, 2), q, scaling, first=True)
            torch.bmm(w.transpose(1, 2), g, out=for_value)
        ctx.save_for_backward(grad, query, key, value, weights, centred)
        ctx.scaling = scaling
        return found[0], found[1], found[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: ScaledContext, to_query: torch.Tensor, to_key: torch.Tensor, to_value: torch.Tensor) -> Tensors:
        grad, query, key, value, weights, centred = ctx.saved_tensors
        arrived = [part.contiguous() for part in (to_query, to_key, to_value)]
        found = [torch.empty_like(part) for part in (grad, query, key, value)]
        scaling = ctx.scaling
        for part in _blocks(query, key):
            g, q, k, v, w, centre = _flat(part, grad, query, key, value, weights, centred)
            to_q, to_k, to_v = _flat(part, *arrived)
            for_grad, for_query, for_key, for_value = _flat(part, *found)
            # The cotangent of S comes from S key and S^T query, less its mean under the weights.
            arriving = torch.bmm(to_q, k.transpose(1, 2))
            _add_product(arriving, q, to_k.transpose(1, 2)).mul_(scaling)
            arriving.sub_(torch.linalg.vecdot(arriving, w).unsqueeze(-1))
            to_products = arriving * w  # cotangent of G value^T
            # The cotangent of W comes from S and from W^T G; the softmax passes it on.
            to_weights = _add_product(arriving.mul_(centre), g, to_v.transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_weights, w, -1, w.dtype)
            scores_grad = torch.mul(centre, w, out=to_weights)
            _add_product(torch.bmm(w, to_v, out=for_grad), to_products, v)
            _add_product(for_query, scores_grad, to_k, scaling, first=True)
            _add_product(for_query, to_scores, k, scaling)
            _add_product(for_key, scores_grad.transpose(1, 2), to_q, scaling, first=True)
            _add_product(for_key, to_scores.transpose(1, 2), q, scaling)
            torch.bmm(to_products.transpose(1, 2), g, out=for_value)
        return *found, None, None, None


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """softmax(scaling query key^T + mask) value.

    Args:
        query, key, value: (B, heads, N, head_dim).
        mask: Numbers added to the scores, broadcastable to (B, heads, N, N), or None.

    Returns:
        (B, heads, N, head_dim).
    """
    # Every one of them takes part in several matrix products: one copy here saves many there.
    return _Attention.apply(query.contiguous(), key.contiguous(), value.contiguous(), mask, scaling)
