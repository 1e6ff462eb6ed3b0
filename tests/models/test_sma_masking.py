"""SMA's masks (Eqs. 3-5, appendix D) and the paper's other maskings, against slow loops."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sma_cases import CASES, PADDED_CASES, make_batch, make_draws, small_model

from hf_maskssl import SMAForMaskedModeling
from hf_maskssl.models.guided_masking import (
    attention_per_query,
    attention_received,
    iterative_mask,
    top_attention_overlap,
)
from hf_maskssl.models.masking import (
    group_scores,
    mask_top_scores,
    num_masked_tokens,
    patch_groups,
    span_groups,
    word_groups,
)


def row_length(batch: dict[str, torch.Tensor], row: int, width: int) -> int:
    return int(batch["attention_mask"][row].sum()) if "attention_mask" in batch else width


def places(is_masked: torch.Tensor) -> set[int]:
    return set(torch.nonzero(is_masked).flatten().tolist())


# counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "ratio", "masked"),
    [
        (1024, 0.15, 154),
        (36864, 0.75, 27648),
        (28, 0.2, 6),
        (256, 0.3, 77),
        (10, 0.25, 2),
        (14, 0.25, 4),
        (10, 0.15, 2),
    ],
)
def test_counts_of_the_papers_sizes_are_rounded_half_to_even(tokens: int, ratio: float, masked: int) -> None:
    assert num_masked_tokens(tokens, ratio) == masked


@given(tokens=st.integers(1, 5000), ratio=st.floats(0.01, 0.99))
def test_counts_are_those_of_single_precision(tokens: int, ratio: float) -> None:
    product = torch.tensor(ratio, dtype=torch.float32) * torch.tensor(tokens, dtype=torch.float32)
    expected = 0 if tokens == 1 else min(max(int(product.round()), 1), tokens - 1)
    assert num_masked_tokens(tokens, ratio) == expected


# top k -------------------------------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    ratio=st.floats(0.05, 0.95),
    is_padded=st.booleans(),
)
def test_the_highest_scores_of_real_tokens_are_masked(
    lengths: list[int], seed: int, ratio: float, is_padded: bool
) -> None:
    width = max(lengths)
    scores = torch.rand(len(lengths), width, generator=torch.Generator().manual_seed(seed))
    limit = num_masked_tokens(width, ratio)
    is_real, counts = None, torch.full((len(lengths),), limit)
    if is_padded:
        is_real = torch.arange(width) < torch.tensor(lengths)[:, None]
        counts = torch.tensor([num_masked_tokens(length, ratio) for length in lengths])
    found = mask_top_scores(scores, counts if is_padded else limit, limit, is_real)
    for row, count in enumerate(counts.tolist()):
        real = range(lengths[row] if is_padded else width)
        assert places(found[row]) == set(sorted(real, key=lambda place: -scores[row, place].item())[:count])


def test_one_number_for_all_and_one_per_sample_agree() -> None:
    scores = torch.rand(3, 10, generator=torch.Generator().manual_seed(0))
    for count in range(1, 10):
        same = mask_top_scores(scores, count, count)
        assert torch.equal(same, mask_top_scores(scores, torch.full((3,), count), count))
        assert (same.sum(1) == count).all()


# guided ------------------------------------------------------------------------------------------------------------


def slow_attention(model: SMAForMaskedModeling, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Eq. 2 and its softmax, number by number: (B, heads, L, N)."""
    encoder, config = model.sma, model.config
    tokens = encoder.embeddings.tokenize(
        *(batch.get(name) for name in ("input_ids", "input_values", "pixel_values", "attention_mask"))
    )
    embedded = encoder.embeddings(tokens)
    attention = encoder.input_layer.attention
    qk_size = config.qk_channels or config.hidden_size
    heads = attention.num_heads
    width = qk_size // heads
    result = []
    for row in range(len(embedded)):
        source = embedded[row] if encoder.latents is None else encoder.latents
        queries = attention.query(encoder.input_layer.attention_norm(source))
        keys = attention.key_value(embedded[row])[:, :qk_size]
        maps = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(width)
            if "attention_mask" in batch:
                scores[:, batch["attention_mask"][row] == 0] = -math.inf
            maps.append(scores.softmax(-1))
        result.append(torch.stack(maps))
    return torch.stack(result)


@pytest.mark.parametrize("case", [*CASES, *PADDED_CASES])
@torch.no_grad()
def test_guided_masks_follow_the_equations(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    found = model(**batch, **draws)
    assert torch.equal(found.query_mask, draws["query_mask"].long())
    assert torch.equal(found.mask.bool(), model.sample_mask(**batch, **draws))
    for row, attention in enumerate(slow_attention(model, batch)):
        total = torch.zeros(attention.shape[-1])
        for head in attention:
            for query in torch.nonzero(draws["query_mask"][row]).flatten():
                total += head[query]
        length = row_length(batch, row, len(total))
        order = total.argsort(descending=True)[: num_masked_tokens(length, model.config.mask_ratio)]
        assert places(found.mask[row]) == set(order.tolist())


@pytest.mark.parametrize("case", ["self-tokens", "padded-cross-tokens"])
@pytest.mark.parametrize("num_masked_per_query", [1, 8])
@torch.no_grad()
def test_projected_queries_and_projected_keys_give_the_same_attention(case: str, num_masked_per_query: int) -> None:
    """Few queries are multiplied with the key weights, many are not: both are Eq. 2."""
    model, batch = small_model(case, num_masked_per_query=num_masked_per_query), make_batch(case)
    tokens = model.sma.embeddings.tokenize(batch["input_ids"], None, None, batch.get("attention_mask"))
    torch.manual_seed(0)
    chosen = model._choose_queries(tokens, None, None)
    found = model.sma.attention_to_inputs(tokens, chosen)
    by_query = model.sma.attention_to_inputs(tokens, chosen, per_query=True)
    attention = slow_attention(model, batch)
    expected = (attention.mean(1) * chosen.mask[..., None]).sum(1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(by_query.sum(1), expected)


@pytest.mark.parametrize("case", ["self-series", "padded-self-tokens", "cross-image", "padded-cross-series"])
def test_queries_are_drawn_among_real_ones_in_the_right_number(case: str) -> None:
    rows = 4 * 200
    model, batch = small_model(case), make_batch(case, rows)
    torch.manual_seed(0)
    query_mask = model(**batch).query_mask
    for row in range(rows):
        wanted = round(row_length(batch, row, model.config.num_tokens) * model.config.mask_ratio / 2)
        assert query_mask[row].sum() == max(1, min(wanted, query_mask.shape[1]))
    seen = query_mask.view(rows // 4, 4, -1).sum(0)  # lengths repeat every four rows
    if "attention_mask" in batch and not model.config.is_cross_attention:
        assert not query_mask[batch["attention_mask"] == 0].any()
        assert (seen[batch["attention_mask"][-4:] == 1] > 0).all()
    else:
        assert (seen > 0).all()


@torch.no_grad()
def test_one_random_head_per_query() -> None:
    model, batch, draws = (
        small_model("self-tokens", head_aggregation="random"),
        make_batch("self-tokens"),
        make_draws("self-tokens"),
    )
    heads = torch.randint(0, 2, draws["query_mask"].shape, generator=torch.Generator().manual_seed(3))
    found = model(**batch, **draws, query_heads=heads)
    for row, attention in enumerate(slow_attention(model, batch)):
        chosen = torch.nonzero(draws["query_mask"][row]).flatten().tolist()
        total = sum(attention[heads[row, query], query] for query in chosen)
        assert places(found.mask[row]) == set(total.argsort(descending=True)[: found.mask[row].sum()].tolist())


@torch.no_grad()
def test_chosen_queries_can_be_masked_themselves() -> None:
    found = small_model("padded-self-tokens", mask_queries=True)(
        **make_batch("padded-self-tokens"), **make_draws("padded-self-tokens")
    )
    assert (found.mask[found.query_mask.bool()] == 1).all()


# the schedule ------------------------------------------------------------------------------------------------------


def slow_schedule(
    kind: str, share: float, received: torch.Tensor, noise: torch.Tensor, length: int, ratio: float
) -> set:
    order = [place for place in received.argsort(descending=True).tolist() if received[place] > 0]
    count = num_masked_tokens(length, ratio)
    if kind == "mix":
        guided = order[: min(round(ratio * (1 - 0.8 * share) * length), count)]
        others = sorted(set(order) - set(guided), key=lambda place: -noise[place].item())
        return set(guided) | set(others[: count - len(guided)])
    candidates = order[: max(round(length * (ratio + (0.8 - ratio) * share)), count)]
    return set(sorted(candidates, key=lambda place: -noise[place].item())[:count])


@pytest.mark.parametrize("kind", ["mix", "widen"])
@pytest.mark.parametrize("case", ["self-series", "padded-cross-tokens", "padded-self-tokens"])
@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.5, 1.0])
@torch.no_grad()
def test_the_schedule_goes_from_random_to_guided(kind: str, case: str, progress: float) -> None:
    fields: dict[str, Any] = {"mask_schedule": kind, "mask_schedule_start": 0.8, "mask_schedule_fraction": 0.5}
    model, batch, draws = small_model(case, **fields), make_batch(case), make_draws(case)
    model.set_training_progress(progress)
    share = (1 + math.cos(math.pi * min(progress / 0.5, 1.0))) / 2
    found = model(**batch, **draws).mask
    for row, attention in enumerate(slow_attention(model, batch)):
        received = attention.mean(0)[draws["query_mask"][row]].sum(0)
        length = row_length(batch, row, len(received))
        expected = slow_schedule(kind, share, received, draws["noise"][row], length, model.config.mask_ratio)
        assert places(found[row]) == expected
    if progress >= 0.5:
        assert torch.equal(found, small_model(case)(**batch, **draws).mask)


def test_without_a_call_masking_is_guided_and_without_a_schedule_a_call_changes_nothing() -> None:
    batch, draws = make_batch("self-series"), make_draws("self-series")
    plain, scheduled = small_model("self-series"), small_model("self-series", mask_schedule="mix")
    plain.set_training_progress(0.0)
    assert torch.equal(plain(**batch, **draws).mask, scheduled(**batch, **draws).mask)


# the exact procedure -----------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**16),
    tokens=st.integers(4, 20),
    queries=st.integers(1, 6),
    ratio=st.floats(0.1, 0.9),
)
def test_iterative_masking_takes_the_queries_in_turn(seed: int, tokens: int, queries: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(3, queries, tokens, generator=generator).softmax(-1)
    used = torch.randint(1, queries + 1, (3,), generator=generator)
    counts = torch.tensor([num_masked_tokens(tokens - row, ratio) for row in range(3)])
    is_real = torch.arange(tokens) < torch.tensor([tokens, tokens - 1, tokens - 2])[:, None]
    attention = attention * is_real[:, None]
    found = iterative_mask(attention, used, counts, int(counts.max()))
    for row in range(3):
        masked: list[int] = []
        share = math.ceil(counts[row] / used[row])
        for query in range(int(used[row])):
            order = [place for place in attention[row, query].argsort(descending=True).tolist() if place not in masked]
            masked += order[: min(share, int(counts[row]) - len(masked))]
        assert places(found[row]) == set(masked) and len(masked) == counts[row]


def test_padding_that_ties_with_real_tokens_is_not_masked() -> None:
    attention = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    is_real = torch.tensor([[True, True, True, True, False, False]])
    found = iterative_mask(attention, torch.tensor([1]), torch.tensor([3]), 3, is_real)
    assert found.sum() == 3 and not found[0, 4:].any()


@pytest.mark.parametrize("case", ["cross-image", "self-tokens", "padded-self-tokens", "padded-cross-series"])
@torch.no_grad()
def test_an_iterative_model_masks_the_right_number(case: str) -> None:
    model, batch = small_model(case, masking="iterative"), make_batch(case)
    found = model(**batch)
    for row in range(4):
        length = row_length(batch, row, model.config.num_tokens)
        assert found.mask[row].sum() == num_masked_tokens(length, model.config.mask_ratio)
    if "attention_mask" in batch:
        assert (found.mask[batch["attention_mask"] == 0] == 0).all()


@torch.no_grad()
def test_with_one_query_the_approximation_is_exact() -> None:
    batch = make_batch("self-series")
    query_mask = torch.zeros(4, 10, dtype=torch.bool)
    query_mask[:, 3] = True
    exact = small_model("self-series", masking="iterative")(**batch, query_mask=query_mask)
    approximate = small_model("self-series")(**batch, query_mask=query_mask)
    assert torch.equal(exact.mask, approximate.mask)


def test_overlap_of_top_attentions() -> None:
    same = torch.tensor([[[0.1, 0.5, 0.4, 0.0], [0.0, 0.3, 0.7, 0.0]]])
    apart = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]])
    one = torch.tensor([[[0.5, 0.4, 0.1, 0.0], [0.0, 0.5, 0.4, 0.1]]])
    found = [top_attention_overlap(attention, 2).item() for attention in (same, apart, one)]
    assert found == pytest.approx([0.5, 0.0, 0.25])


def test_attention_of_given_scores() -> None:
    scores = torch.randn(2, 3, 4, 6)
    weights = torch.rand(2, 3, 4)
    is_real = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0]]).bool()
    keys = torch.eye(6).expand(2, -1, -1)
    expected = scores.masked_fill(~is_real[:, None, None], -math.inf).softmax(-1) * weights[..., None]
    torch.testing.assert_close(attention_received(scores, keys, weights, is_real), expected.sum((1, 2)))
    torch.testing.assert_close(attention_per_query(scores, keys, weights, is_real), expected.sum(1))
    huge = attention_received(scores * 1e4, keys, weights, is_real)  # exponentials that would overflow
    assert torch.isfinite(huge).all()


# the other maskings ------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(text=st.text(alphabet="ab ", min_size=2, max_size=30), seed=st.integers(0, 999), ratio=st.floats(0.1, 0.8))
def test_words_are_masked_whole_but_for_the_last(text: str, seed: int, ratio: float) -> None:
    ids = torch.tensor([[" ab".index(letter) for letter in text]])
    groups, is_delimiter = word_groups(ids, 0)
    assert is_delimiter[0].tolist() == [letter == " " for letter in text]
    noise = torch.rand(1, len(text), generator=torch.Generator().manual_seed(seed))
    count = num_masked_tokens(len(text), ratio)
    scores = torch.where(is_delimiter, group_scores(noise, groups) - (len(text) + 1) ** 2, group_scores(noise, groups))
    masked = places(mask_top_scores(scores, count, count)[0])
    words, start = [], 0
    for word in text.split(" "):
        words.append(set(range(start, start + len(word))))
        start += len(word) + 1
    letters = set().union(*words)
    assert len(masked) == count
    assert masked >= letters or masked <= letters  # blanks only when every letter is masked
    cut = [word for word in words if masked & word and not word <= masked]
    assert len(cut) <= 1
    for word in cut:  # from its beginning
        assert masked & word == set(sorted(word)[: len(masked & word)])


def test_span_lengths_have_the_mean_that_is_asked_for() -> None:
    noise = torch.rand(40, 2000, generator=torch.Generator().manual_seed(0))
    for mean in (1.0, 2.5, 8.0):
        groups = span_groups(noise, mean)
        number = groups.max(1).values.float() + 1
        assert (2000 / number).mean() == pytest.approx(mean, rel=0.03)
        assert ((groups[:, 1:] - groups[:, :-1]) >= 0).all() and (groups[:, 0] == 0).all()


def test_patches_are_squares_of_pixels() -> None:
    groups = patch_groups((4, 6), 2).view(4, 6)
    for row in range(4):
        for col in range(6):
            assert groups[row, col] == (row // 2) * 3 + col // 2


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("self-tokens", {"masking": "random"}),
        ("padded-self-tokens", {"masking": "word", "word_delimiter_id": 3}),
        ("padded-cross-series", {"masking": "span"}),
        ("cross-image", {"masking": "patch", "mask_patch_size": 2}),
        ("cross-image", {"masking": "random"}),
        ("padded-cross-tokens", {"masking": "random"}),
    ],
)
def test_every_masking_masks_the_right_number_of_real_tokens(case: str, fields: dict[str, Any]) -> None:
    model, batch = small_model(case, **fields), make_batch(case)
    found = model(**batch)
    assert found.query_mask is None
    for row in range(4):
        length = row_length(batch, row, model.config.num_tokens)
        assert found.mask[row].sum() == num_masked_tokens(length, model.config.mask_ratio)
    if "attention_mask" in batch:
        assert (found.mask[batch["attention_mask"] == 0] == 0).all()


def test_the_same_draws_give_the_same_mask() -> None:
    model, batch = small_model("self-tokens", masking="span"), make_batch("self-tokens")
    draws = {"noise": torch.rand(4, 12), "span_noise": torch.rand(4, 12)}
    assert torch.equal(model(**batch, **draws).mask, model(**batch, **draws).mask)


def test_random_masking_takes_the_largest_draws() -> None:
    model, batch, noise = small_model("self-series", masking="random"), make_batch("self-series"), torch.rand(4, 10)
    assert torch.equal(model(**batch, noise=noise).mask.bool(), mask_top_scores(noise, 4, 4))


def test_patch_masking_masks_whole_patches() -> None:
    model = small_model("cross-image", masking="patch", mask_patch_size=2, mask_ratio=0.5)
    mask = model(**make_batch("cross-image")).mask.view(4, 2, 2, 3, 2)
    assert ((mask.sum((2, 4)) == 4) | (mask.sum((2, 4)) == 0)).all()
