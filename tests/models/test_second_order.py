"""Values against the ordinary operations; first and second derivatives against finite differences in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from hf_maskssl.models import second_order
from hf_maskssl.models.layers import SquaredError, split_heads
from hf_maskssl.models.second_order import BLOCK_BYTES, attention, gelu, layer_norm


def leaf(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def additive_mask() -> torch.Tensor:
    mask = torch.zeros(2, 1, 1, 5, dtype=torch.float64)
    mask[0, ..., 3:] = torch.finfo(torch.float64).min
    return mask


def test_gelu() -> None:
    x = leaf(3, 7)
    torch.testing.assert_close(gelu(x), F.gelu(x))
    assert gradcheck(gelu, x)
    assert gradgradcheck(gelu, x)


def test_layer_norm() -> None:
    norm = torch.nn.LayerNorm(6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = leaf(2, 3, 6)
    torch.testing.assert_close(layer_norm(x, norm), norm(x))

    def apply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(Wrapped(norm), {"norm.weight": weight, "norm.bias": bias}, (x,))

    # Also where the variance is as small as epsilon, which then takes part in every derivative.
    for scale in (1.0, 3e-3):
        values = (x * scale).detach().requires_grad_()
        assert gradcheck(apply, (values, norm.weight, norm.bias), eps=1e-7)
        assert gradgradcheck(apply, (values, norm.weight, norm.bias), eps=1e-7)


class Wrapped(torch.nn.Module):
    def __init__(self, norm: torch.nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, self.norm)


@pytest.mark.parametrize("mask", [None, additive_mask()], ids=["full", "padded"])
def test_attention(mask: torch.Tensor | None) -> None:
    query, key, value = (leaf(2, 2, 5, 3, seed=seed) for seed in range(3))

    def apply(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return attention(query, key, value, mask, 0.6)

    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.6)
    torch.testing.assert_close(apply(query, key, value), expected)
    assert gradcheck(apply, (query, key, value))
    assert gradgradcheck(apply, (query, key, value))


def test_squared_error() -> None:
    prediction, target = leaf(2, 3, 4), leaf(2, 3, 4, seed=1).detach()
    expected = (prediction - target).pow(2).mean(-1)
    torch.testing.assert_close(SquaredError.apply(prediction, target), expected)
    assert gradcheck(SquaredError.apply, (prediction, target))
    assert gradgradcheck(SquaredError.apply, (prediction, target))


@pytest.mark.parametrize("rows", [1, 2, 3], ids=["one", "two", "all"])
def test_attention_in_parts_of_the_batch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts, the last of them smaller, give value, gradients and second derivatives of the whole."""
    mask = torch.zeros(3, 1, 1, 5, dtype=torch.float64)
    mask[1, ..., 2:] = torch.finfo(torch.float64).min
    found = []
    for size in (BLOCK_BYTES, rows * 2 * 4 * 5 * 8):
        monkeypatch.setattr(second_order, "BLOCK_BYTES", size)
        query, key, value = leaf(3, 2, 4, 3), leaf(3, 2, 5, 3, seed=1), leaf(3, 2, 5, 3, seed=2)
        context = attention(query, key, value, mask, 0.6)
        gradients = torch.autograd.grad(context.square().sum(), (query, key, value), create_graph=True)
        second = torch.autograd.grad(torch.stack([part.pow(3).sum() for part in gradients]).sum(), (query, key, value))
        found.append([context, *gradients, *second])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parts", [2, 3])
def test_split_heads(parts: int) -> None:
    fused = leaf(2, 2, parts * 3 * 2)
    found = split_heads(fused, parts, 3)
    for place, part in enumerate(found):
        for head in range(3):
            columns = slice((place * 3 + head) * 2, (place * 3 + head + 1) * 2)
            torch.testing.assert_close(part[:, head], fused[..., columns], rtol=0, atol=0)

    def apply(fused: torch.Tensor) -> torch.Tensor:
        used = split_heads(fused, parts, 3)[:-1]
        return torch.stack([(part * (place + 1)).sin() for place, part in enumerate(used)])

    assert gradcheck(apply, fused)  # also with a part that nothing depends on
    assert gradgradcheck(apply, fused)
