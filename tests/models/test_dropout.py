"""Dropout: which values fall, the mean, the generator, derivatives, and where PyTorch's own function is called."""

from collections.abc import Callable

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from hf_maskssl.models import dropout as module
from hf_maskssl.models.dropout import LEVELS, Dropout, draw_keep, dropout

MANY = 2**20


def seeded(draw: Callable[[], torch.Tensor], seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return draw()


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_values_fall_with_their_probability(p: float) -> None:
    dropped = seeded(lambda: dropout(torch.ones(MANY), p, True))
    share = float((dropped == 0).float().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / MANY) ** 0.5
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=2e-4)
    # Whatever p is rounded to, what is kept is divided by just that probability.
    threshold = round(p * LEVELS)
    assert float(dropped.max()) == pytest.approx(LEVELS / (LEVELS - threshold), rel=1e-7)


@pytest.mark.parametrize("threshold", [1, 6554, 32768, 65535])
def test_a_value_falls_where_its_16_bits_lie_below_the_threshold(threshold: int) -> None:
    size = 10007  # no multiple of four
    keep = seeded(lambda: draw_keep((size,), threshold))
    words = seeded(lambda: torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None)).tolist()
    halves = [(word >> shift) & 0xFFFF for word in words for shift in (0, 16, 32, 48)][:size]
    signed = [half - 65536 if half >= 32768 else half for half in halves]
    assert keep.tolist() == [int(number + 32768 >= threshold) for number in signed]


def test_neighbours_places_and_draws_are_independent() -> None:
    keep = seeded(lambda: draw_keep((MANY,), LEVELS // 2)).double() - 0.5
    for lag in (1, 2, 3, 4, 8):
        assert abs(float((keep[lag:] * keep[:-lag]).mean())) < 5 * 0.25 / MANY**0.5
    for place in range(4):  # each of the four draws of an int64
        assert abs(float(keep[place::4].mean())) < 5 * 0.5 / (MANY / 4) ** 0.5


def test_the_generator_decides() -> None:
    x = torch.randn(3, 50, 64)
    first, again, other = (seeded(lambda: dropout(x, 0.3, True), seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert not torch.equal(dropout(x, 0.3, True), dropout(x, 0.3, True))


def test_the_gradient_has_the_mask_of_the_value() -> None:
    x = torch.randn(4, 48, 64).transpose(1, 2).requires_grad_()  # in another order than in memory
    y = dropout(x, 0.2, True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x * gradient)
    assert set(gradient.unique().tolist()) == {0.0, float(torch.tensor(LEVELS / (LEVELS - round(0.2 * LEVELS))))}


def test_first_and_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", 0)
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def apply(x: torch.Tensor) -> torch.Tensor:
        return seeded(lambda: dropout(x.sin(), 0.4, True)).square()

    assert gradcheck(apply, x)
    assert gradgradcheck(apply, x)


def test_one_byte_a_value_waits_for_the_backward_pass() -> None:
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        dropout(torch.randn(2, 64, 128, requires_grad=True), 0.1, True)
    assert [(tensor.dtype, tensor.numel()) for tensor in saved if tensor.numel() > 1] == [(torch.uint8, 2**14)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type_and_an_exact_scale(dtype: torch.dtype) -> None:
    x = torch.full((128, 128), 9.0, dtype=dtype, requires_grad=True)
    y = seeded(lambda: dropout(x, 0.1, True))
    assert y.dtype == dtype
    assert set(y.unique().tolist()) == {0.0, 10.0}  # a scale rounded to bfloat16 would give 9.9375
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype


def test_checkpointing_draws_the_same_mask_again() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(64, 256), Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(256, 8))
    x = torch.randn(64, 64)
    runs: list[Callable[[], torch.Tensor]] = [lambda: layer(x), lambda: checkpoint(layer, x, use_reentrant=False)]
    gradients = []
    for run in runs:
        layer.zero_grad()
        seeded(run).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == 4
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_off_in_evaluation_and_without_probability() -> None:
    x = torch.randn(128, 128)
    assert dropout(x, 0.5, False) is x
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(dropout(x, 1.0, True), torch.zeros_like(x))


@pytest.mark.parametrize(("p", "size"), [(0.1, 100), (1e-6, MANY), (1 - 1e-6, MANY)], ids=["few", "rare", "frequent"])
def test_pytorchs_own_function_where_that_is_better(p: float, size: int) -> None:
    x = torch.randn(size)
    found = seeded(lambda: dropout(x, p, True))
    torch.testing.assert_close(found, seeded(lambda: torch.nn.functional.dropout(x, p)), rtol=0, atol=0)


def test_compiled_and_exported_programs_have_pytorchs_own_function() -> None:
    layer = Dropout(0.5)
    x = torch.randn(128, 128)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    dropped = compiled(x)
    assert 0.45 < float((dropped == 0).float().mean()) < 0.55
    program = torch.export.export(layer.train(), (x,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets == {"aten.dropout.default"}


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
        dropout(torch.randn(128, 128), p, True)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
        Dropout(p)
