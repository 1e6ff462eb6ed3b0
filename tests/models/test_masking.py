"""The random mask and the neighbourhood, against slow loops, for any size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskssl.models.masking import (
    adjacent_to,
    gather_tokens,
    num_visible_tokens,
    random_masking,
    visible_token_table,
)


@pytest.mark.parametrize(
    ("tokens", "ratio", "visible"), [(64, 0.85, 9), (128, 0.15, 108), (24, 0.35, 15), (28, 0.5, 14)]
)
def test_visible_counts_of_the_authors_runs(tokens: int, ratio: float, visible: int) -> None:
    assert num_visible_tokens(tokens, ratio) == visible


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**16),
    is_padded=st.booleans(),
)
def test_random_masking_keeps_the_smallest_draws_of_real_tokens(
    lengths: list[int], ratio: float, seed: int, is_padded: bool
) -> None:
    width = max(lengths)
    if not is_padded:
        lengths = [width] * len(lengths)
    noise = torch.rand(len(lengths), width, generator=torch.Generator().manual_seed(seed))
    attention_mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long() if is_padded else None
    mask = random_masking(noise, ratio, attention_mask, visible_token_table(width, ratio))
    for row, length in enumerate(lengths):
        order = sorted(range(length), key=lambda place: noise[row, place].item())
        visible = order[: num_visible_tokens(length, ratio)]
        expected = [place < length and place not in visible for place in range(width)]
        assert mask.is_masked[row].tolist() == expected
        kept = mask.ids_keep[row].tolist()
        if mask.keep_mask is not None:
            kept = [place for place, used in zip(kept, mask.keep_mask[row].tolist(), strict=True) if used]
        assert kept == visible
        shuffled = torch.empty(width, dtype=torch.long)
        shuffled[mask.ids_restore[row]] = torch.arange(width)
        assert shuffled[: len(visible)].tolist() == visible


@given(length=st.integers(2, 40), ratio=st.floats(0.01, 0.99))
def test_short_samples_keep_one_token_visible_and_one_masked(length: int, ratio: float) -> None:
    assert 1 <= num_visible_tokens(length, ratio) <= length - 1


def slow_neighbours(visible: np.ndarray) -> np.ndarray:
    near = np.zeros_like(visible)
    for place in np.ndindex(visible.shape):
        for axis in range(visible.ndim):
            for step in (-1, 1):
                other = list(place)
                other[axis] += step
                if 0 <= other[axis] < visible.shape[axis] and visible[tuple(other)]:
                    near[place] = True
    return near


@given(
    grid=st.one_of(st.tuples(st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    seed=st.integers(0, 999),
)
def test_adjacent_to_is_the_four_neighbourhood(grid: tuple[int, ...], seed: int) -> None:
    visible = np.random.default_rng(seed).random((3, *grid)) < 0.3
    near = adjacent_to(torch.from_numpy(visible.reshape(3, -1)), grid).numpy().reshape(3, *grid)
    for row in range(3):
        np.testing.assert_array_equal(near[row], slow_neighbours(visible[row]))


def test_gather_tokens_equals_gather() -> None:
    tokens, ids = torch.randn(3, 7, 4), torch.randint(0, 7, (3, 5))
    torch.testing.assert_close(gather_tokens(tokens, ids), tokens.gather(1, ids[..., None].expand(-1, -1, 4)))
    torch.testing.assert_close(gather_tokens(tokens[0], ids), tokens[0][ids])
