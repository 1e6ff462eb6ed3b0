"""Attention with dropout on a CPU, against attention written out with the very weights that were dropped."""

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_maskssl.models import attention_dropout as module
from hf_maskssl.models.attention_dropout import attend_with_dropout, fits

SHAPES = [(3, 4, 5, 7), (1, 6, 9, 9), (5, 2, 1, 3)]  # batch, heads, queries, keys
WIDTH, SCALING = 6, 0.4


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Query, key and value as a layer has them: heads side by side in memory."""
    torch.manual_seed(0)
    batch, heads, queries, keys = shape
    sizes = (queries, keys, keys)
    return [torch.randn(batch, n, heads, WIDTH, dtype=dtype).transpose(1, 2).requires_grad_() for n in sizes]


def masks(shape: tuple[int, ...]) -> dict[str, torch.Tensor | None]:
    batch, heads, queries, keys = shape
    is_real = torch.ones(batch, 1, 1, keys, dtype=torch.bool)
    is_real[-1, ..., keys // 2 + 1 :] = False
    return {
        "none": None,
        "padding": is_real,
        "each query": is_real.expand(-1, 1, queries, -1),
        "two dimensions": torch.randn(queries, keys),
        "each head": torch.randn(batch, heads, queries, keys),
    }


def written_out(
    parts: list[torch.Tensor], mask: torch.Tensor | None, factors: torch.Tensor | float = 1.0
) -> torch.Tensor:
    query, key, value = parts
    scores = SCALING * query @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) * factors) @ value


def same(found: torch.Tensor, expected: torch.Tensor, parts: list[torch.Tensor]) -> None:
    weights = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    pair = [torch.autograd.grad((each * weights).sum(), parts) for each in (found, expected)]
    for first, second in zip(*pair, strict=True):
        torch.testing.assert_close(first, second)


def dropped_factors(shape: tuple[int, ...], p: float, seed: int) -> torch.Tensor:
    """(B, heads, M, N): what each weight is multiplied by, read off with values that are unit vectors and equal scores."""
    batch, heads, queries, keys = shape
    zeros = [torch.zeros(batch, heads, n, keys, dtype=torch.float64) for n in (queries, keys)]
    torch.manual_seed(seed)
    one_hot = torch.eye(keys, dtype=torch.float64).expand(batch, heads, -1, -1)
    return attend_with_dropout(*zeros, one_hot, None, SCALING, p) * keys


@pytest.mark.parametrize("chunk", [1, 40, 150, 2**19])
@pytest.mark.parametrize("name", ["none", "padding", "each query", "two dimensions", "each head"])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_dropout_it_is_attention(
    shape: tuple[int, ...], name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    parts, mask = inputs(shape), masks(shape)[name]
    found = attend_with_dropout(*parts, mask, SCALING, 0.0)
    same(found, written_out(parts, mask), parts)
    sdpa = F.scaled_dot_product_attention(
        *parts, attn_mask=None if mask is None else mask.to(_kind(mask)), scale=SCALING
    )
    torch.testing.assert_close(found, sdpa)


def _kind(mask: torch.Tensor) -> torch.dtype:
    return torch.bool if mask.dtype == torch.bool else torch.float64


@pytest.mark.parametrize("chunk", [40, 2**19])
@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_dropped_weights_are_left_out_and_the_others_scaled(
    shape: tuple[int, ...], p: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    factors = dropped_factors(shape, p, seed=1)
    threshold = round(p * 65536)
    kept = factors[factors != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 65536 / (65536 - threshold)))
    for mask in masks(shape).values():
        parts = inputs(shape)
        torch.manual_seed(1)
        same(attend_with_dropout(*parts, mask, SCALING, p), written_out(parts, mask, factors), parts)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_weights_fall_with_their_probability(p: float) -> None:
    """In each of the four parts of a number of the generator alike."""
    factors = dropped_factors((1, 8, 512, 64), p, seed=0)
    is_dropped = (factors == 0).flatten().view(-1, 4).double()
    bound = 5 * (p * (1 - p) / len(is_dropped)) ** 0.5
    assert ((is_dropped.mean(0) - p).abs() < bound).all()
    # Neighbours fall independently of each other.
    centred = is_dropped - p
    assert ((centred[:, 0] * centred[:, 1]).mean().abs() < 5 * p * (1 - p) / len(is_dropped) ** 0.5).item()


def test_gradients_against_finite_differences() -> None:
    parts, mask = inputs((2, 2, 3, 4)), masks((2, 2, 3, 4))["padding"]

    def attended(*parts: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(4)
        return attend_with_dropout(*parts, mask, SCALING, 0.3)

    assert gradcheck(attended, parts)
    torch.manual_seed(4)
    (first,) = torch.autograd.grad(attended(*parts).pow(2).sum(), parts[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_float32_checkpoints_and_no_grad_give_the_same() -> None:
    parts = inputs((2, 3, 4, 5), torch.float32)
    found: list[Any] = []
    for way in ("plain", "checkpoint", "no grad"):
        torch.manual_seed(2)
        given = (*parts, None, SCALING, 0.5)
        if way == "no grad":
            with torch.no_grad():
                assert torch.equal(attend_with_dropout(*given), found[0][0])
            continue
        output = (
            attend_with_dropout(*given)
            if way == "plain"
            else checkpoint(attend_with_dropout, *given, use_reentrant=False)
        )
        found.append([output.detach(), *torch.autograd.grad(output.square().sum(), parts)])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_what_it_is_for() -> None:
    assert fits(torch.zeros(1)) and fits(torch.zeros(1, dtype=torch.float64))
    assert not fits(torch.zeros(1, dtype=torch.bfloat16)) and not fits(torch.zeros(1, device="meta"))
