"""Which tokens of several modalities are seen: numbers, shares and distributions (MultiMAE paper, section 3.3)."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimae_cases import make_batch, small_model
from scipy import stats

from hf_maskssl.models import input_checks, masking, multimodal_masking
from hf_maskssl.models.multimodal_masking import (
    VisibleTokens,
    deal_visible_tokens,
    restrict_proportions,
    sample_proportions,
    spread_over_tokens,
    visible_tokens,
)

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=5)
UNLIKELY = 1e-4  # of a fixed seed, in tests of distributions


def draws(sizes: list[int], batch_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(batch_size, len(sizes), generator=generator) ** 3 + 1e-3
    noise, shuffle_noise = torch.rand(2, batch_size, sum(sizes), generator=generator)
    return shares / shares.sum(1, keepdim=True), noise, shuffle_noise


def visible_per_modality(found: VisibleTokens, sizes: list[int], is_there: torch.Tensor | None = None) -> torch.Tensor:
    """(B, M) numbers of visible tokens."""
    hidden = found.is_masked if is_there is None else found.is_masked | ~is_there
    return torch.stack([(~part).sum(1) for part in hidden.split(sizes, dim=1)], dim=1)


def chosen_by(found: VisibleTokens, row: int) -> list[int]:
    ids = found.ids[row] if found.mask is None else found.ids[row][found.mask[row]]
    return ids.tolist()


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, share=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_every_sample_sees_the_same_number_by_the_authors_rule(sizes: list[int], share: float, seed: int) -> None:
    """Shares rounded half to even, then whole modalities by their sorted draws, then as many as are left over or short."""
    num_visible = max(1, round(share * sum(sizes)))
    proportions, noise, shuffle_noise = draws(sizes, 3, seed)
    found = deal_visible_tokens(proportions, noise, shuffle_noise, sizes, num_visible)
    assert found.mask is None and found.ids.shape == (3, num_visible)
    for row in range(3):
        dealt, start = [], 0
        for place, size in enumerate(sizes):
            wanted = int(np.round(np.float32(proportions[row, place].item()) * np.float32(num_visible)))
            order = noise[row, start : start + size].argsort()
            dealt += [start + token for token in range(size) if order[token] < wanted]
            start += size
        rest = [token for token in range(sum(sizes)) if token not in dealt]
        dealt.sort(key=lambda token, row=row: shuffle_noise[row, token])  # type: ignore[misc]
        rest.sort(key=lambda token, row=row: shuffle_noise[row, token])  # type: ignore[misc]
        expected = sorted((dealt + rest)[:num_visible])
        assert chosen_by(found, row) == expected
        assert torch.nonzero(~found.is_masked[row]).flatten().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, share=st.floats(0, 1), seed=st.integers(0, 2**16), data=st.data())
def test_what_a_sample_lacks_is_neither_visible_nor_hidden(
    sizes: list[int], share: float, seed: int, data: st.DataObject
) -> None:
    num_visible = max(1, round(share * sum(sizes)))
    rows = st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)).filter(any)
    is_present = torch.tensor([data.draw(rows) for _ in range(3)])
    proportions, noise, shuffle_noise = draws(sizes, 3, seed)
    proportions = restrict_proportions(proportions, is_present)
    torch.testing.assert_close(proportions.sum(1), torch.ones(3))
    found = deal_visible_tokens(proportions, noise, shuffle_noise, sizes, num_visible, is_present)
    is_there = spread_over_tokens(is_present, sizes)
    assert not (found.is_masked & ~is_there).any()
    for row in range(3):
        chosen = chosen_by(found, row)
        assert chosen == torch.nonzero(is_there[row] & ~found.is_masked[row]).flatten().tolist()
        assert len(chosen) == min(num_visible, int(is_there[row].sum()))


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**16), share=st.floats(0, 1))
def test_shapes_do_not_depend_on_values_on_a_gpu(sizes: list[int], seed: int, share: float) -> None:
    is_present = torch.tensor([[True] * len(sizes), [True] + [False] * (len(sizes) - 1)])
    num_visible = max(1, round(share * sum(sizes)))
    proportions, noise, shuffle_noise = draws(sizes, 2, seed)
    arguments: Any = (restrict_proportions(proportions, is_present), noise, shuffle_noise, sizes, num_visible)
    expected = deal_visible_tokens(*arguments, is_present)
    with pytest.MonkeyPatch.context() as patch:
        for module in (masking, multimodal_masking):
            patch.setattr(module, "values_are_readable", lambda tensor: False)
        found = deal_visible_tokens(*arguments, is_present)
    assert found.ids.shape[1] == min(num_visible, sum(sizes))
    assert torch.equal(found.is_masked, expected.is_masked)
    assert [chosen_by(found, row) for row in (0, 1)] == [chosen_by(expected, row) for row in (0, 1)]


def test_shares_are_kept_but_for_rounding() -> None:
    """10 of 60 tokens, none of which is short."""
    sizes = [20, 20, 20]
    for proportions, expected in (
        ([0.5, 0.3, 0.2], {(5, 3, 2)}),
        ([1.0, 0.0, 0.0], {(10, 0, 0)}),
        ([0.25, 0.35, 0.4], {(2, 4, 4)}),  # 2.5 and 3.5 go to the even neighbour
        ([0.34, 0.33, 0.33], {(4, 3, 3), (3, 4, 3), (3, 3, 4)}),  # one is left over
    ):
        _, noise, shuffle_noise = draws(sizes, 50, 0)
        found = deal_visible_tokens(torch.tensor([proportions] * 50), noise, shuffle_noise, sizes, 10)
        assert {tuple(row) for row in visible_per_modality(found, sizes).tolist()} <= expected


def test_what_a_small_modality_cannot_give_comes_from_the_others() -> None:
    sizes = [4, 30, 30]
    _, noise, shuffle_noise = draws(sizes, 400, 0)
    found = deal_visible_tokens(torch.tensor([[1.0, 0.0, 0.0]] * 400), noise, shuffle_noise, sizes, 20)
    numbers = visible_per_modality(found, sizes)
    assert (numbers[:, 0] == 4).all() and (numbers.sum(1) == 20).all()
    assert numbers[:, 1].float().mean() == pytest.approx(8, abs=0.5)  # uniformly over the rest


def test_tokens_of_a_modality_are_seen_equally_often() -> None:
    sizes = [12, 18]
    _, noise, shuffle_noise = draws(sizes, 6000, 0)
    found = deal_visible_tokens(torch.tensor([[0.5, 0.5]] * 6000), noise, shuffle_noise, sizes, 8)
    for part in (~found.is_masked).split(sizes, dim=1):
        assert (part.sum(1) == 4).all()
        assert stats.chisquare(part.sum(0)).pvalue > UNLIKELY
        pairs = [(part[:, i] & part[:, j]).sum().item() for i, j in itertools.combinations(range(part.shape[1]), 2)]
        assert stats.chisquare(pairs).pvalue > UNLIKELY


# shares ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alphas", [[1.0, 1.0, 1.0], [0.2, 0.2, 0.2], [5.0, 5.0, 5.0], [0.5, 1.0, 4.0]], ids=str)
def test_shares_are_dirichlet(alphas: list[float]) -> None:
    """Every marginal of a Dirichlet distribution is a beta distribution."""
    torch.manual_seed(0)
    shares = sample_proportions(torch.tensor(alphas), torch.ones(8000, 3, dtype=torch.bool))
    torch.testing.assert_close(shares.sum(1), torch.ones(8000))
    total = sum(alphas)
    for place, alpha in enumerate(alphas):
        mean, marginal = alpha / total, shares[:, place]
        assert marginal.mean().item() == pytest.approx(mean, abs=0.02)
        assert marginal.var().item() == pytest.approx(mean * (1 - mean) / (total + 1), rel=0.08)
        assert stats.kstest(marginal.double().numpy(), stats.beta(alpha, total - alpha).cdf).pvalue > UNLIKELY


def test_shares_of_what_is_there_are_dirichlet_over_that() -> None:
    torch.manual_seed(0)
    is_present = torch.tensor([[True, False, True, True]] * 6000)
    shares = sample_proportions(torch.tensor([0.5, 7.0, 1.0, 2.0]), is_present)
    assert not shares[:, 1].any()
    for place, alpha in ((0, 0.5), (2, 1.0), (3, 2.0)):
        assert stats.kstest(shares[:, place].double().numpy(), stats.beta(alpha, 3.5 - alpha).cdf).pvalue > UNLIKELY
    alone = sample_proportions(torch.ones(4), torch.eye(4, dtype=torch.bool))
    assert torch.equal(alone, torch.eye(4))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_uniform_subsets_are_uniform(alpha: float) -> None:
    torch.manual_seed(0)
    is_present = torch.tensor([[True, True, False, True]] * 7000)
    shares = sample_proportions(torch.full((4,), alpha), is_present, uniform_subsets=True)
    torch.testing.assert_close(shares.sum(1), torch.ones(7000))
    codes = ((shares > 0) * torch.tensor([1, 2, 8, 4])).sum(1)
    counts = torch.bincount(codes, minlength=8)
    assert counts[0] == 0 and len(counts) == 8
    assert stats.chisquare(counts[1:]).pvalue > UNLIKELY
    pair = shares[codes == 3]  # of the two that were chosen: Dirichlet again
    assert stats.kstest(pair[:, 0].double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > UNLIKELY


# through the model -------------------------------------------------------------------------------------------------


def test_samples_and_draws_differ_and_alphas_go_by_name() -> None:
    """semseg gets next to nothing, wherever it stands among the modalities that are given."""
    torch.manual_seed(0)
    alphas = {"rgb": 50.0, "depth": 50.0, "semseg": 0.01}
    model = small_model("paper", dirichlet_alpha=alphas, num_visible_tokens=6)
    inputs = {
        name: image.repeat(10, *[1] * (image.dim() - 1)) for name, image in make_batch("paper")["inputs"].items()
    }
    masks = model(inputs=inputs).masks
    assert (masks["semseg"] == 0).sum() < 20 < 80 < (masks["depth"] == 0).sum()
    whole = torch.cat(list(masks.values()), dim=1)
    assert (whole.sum(1) == 12).all() and len(whole.unique(dim=0)) > 35
    assert not torch.equal(model(inputs=inputs).masks["depth"], masks["depth"])
    del inputs["depth"]
    masks = model(inputs=inputs).masks
    assert list(masks) == ["rgb", "semseg"] and (masks["semseg"] == 0).sum() < 20


def test_given_shares_are_those_of_what_is_there() -> None:
    """5 tokens, depth missing: 0.4 and 0.2 become two thirds and one third."""
    model, batch = small_model("lacking"), make_batch("lacking")
    batch["presence"] = {"depth": torch.zeros(4, dtype=torch.bool)}
    masks = model(**batch, proportions=torch.tensor([[0.4, 0.4, 0.2]] * 4)).masks
    assert [(masks[name] == 0).sum(1).tolist() for name in ("rgb", "semseg")] == [[3] * 4, [2] * 4]


def test_subsets_by_option() -> None:
    """With 7 visible tokens out of 6 + 6 + 6 a lone modality is seen whole; without the option that is rare."""
    torch.manual_seed(0)
    inputs = {
        name: image.repeat(50, *[1] * (image.dim() - 1)) for name, image in make_batch("paper")["inputs"].items()
    }
    shown = []
    for is_uniform in (False, True):
        model = small_model("paper", sample_modalities_uniformly=is_uniform, dirichlet_alpha=20.0)
        masks = model(inputs=inputs).masks
        shown.append(sum((mask.sum(1) == 0).sum().item() for mask in masks.values()))
    assert shown[0] < 10 < 60 < shown[1]


def test_explicit_masks_of_different_numbers() -> None:
    is_visible = torch.tensor([[1, 0, 0, 1, 1], [0, 0, 1, 0, 0]], dtype=torch.bool)
    found = visible_tokens(is_visible, None, limit=5)
    assert found.ids.shape == (2, 3) and [chosen_by(found, row) for row in (0, 1)] == [[0, 3, 4], [2]]
    assert torch.equal(found.is_masked, ~is_visible)
    assert visible_tokens(is_visible[:1], None, limit=5).mask is None
    assert input_checks.values_are_readable(is_visible)
