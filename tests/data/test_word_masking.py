"""Whole words are hidden: against a slow copy of the rules, and by what must hold of every draw."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskssl.data.masked_text.word_masking import mask_words, word_numbers

MASK, FIRST, VOCABULARY = 4, 5, 60
RANDOM_IDS = np.arange(FIRST, VOCABULARY)
Sequence = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# (pieces, task, is text) of every word.
words = st.lists(
    st.tuples(st.integers(1, 5), st.integers(-1, 3), st.sampled_from([True, True, True, False])), min_size=1
)
shares = st.floats(0.01, 0.9)
samplings = st.sampled_from(["proportional", "balanced"])


def sequence(of: list[tuple[int, int, bool]], seed: int = 0) -> Sequence:
    """ids, tasks, starts and is_text of these words; of a word that is not text one piece is special."""
    rng = np.random.default_rng(seed)
    lengths = [length for length, _, _ in of]
    tasks = np.repeat([task for _, task, _ in of], lengths).astype(np.int8)
    starts = np.concatenate([[1] + [0] * (length - 1) for length in lengths]).astype(np.int8)
    is_text = np.ones(sum(lengths), dtype=bool)
    for end, (length, _, text) in zip(np.cumsum(lengths), of, strict=True):
        is_text[end - rng.integers(1, length + 1)] &= text
    return rng.choice(RANDOM_IDS, size=sum(lengths)), tasks, starts, is_text


def mask(of: Sequence, seed: int, probability: float, sampling: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return mask_words(*of, rng, mask_id=MASK, random_ids=RANDOM_IDS, probability=probability, sampling=sampling)


def word_places(starts: np.ndarray) -> list[list[int]]:
    places: list[list[int]] = []
    for place, begins in enumerate(starts):
        if begins or not places:
            places.append([])
        places[-1].append(place)
    return places


@given(of=words, seed=st.integers(0, 99))
def test_numbered_words_are_those_that_may_be_masked(of: list[tuple[int, int, bool]], seed: int) -> None:
    ids, tasks, starts, is_text = sequence(of, seed)
    found = word_numbers(tasks, starts, is_text)
    for number, places in enumerate(word_places(starts)):
        may_be = tasks[places[0]] >= 0 and is_text[places].all()
        assert found[places].tolist() == [number if may_be else -100] * len(places)
    _, labels = mask((ids, tasks, starts, is_text), seed, 0.9, "proportional")
    assert (found[labels != -100] >= 0).all()


def reference(of: Sequence, seed: int, probability: float, sampling: str) -> tuple[list[int], list[int]]:
    """Word by word, from the same random numbers."""
    ids, tasks, starts, is_text = of
    rng = np.random.default_rng(seed)
    masked, labels = ids.tolist(), [-100] * len(ids)
    every = word_places(starts)
    candidates = [n for n, places in enumerate(every) if tasks[places[0]] >= 0 and all(is_text[p] for p in places)]
    if not candidates:
        return masked, labels
    budget = max(1, round(probability * sum(is_text)))
    waiting = [every[number] for number in rng.permutation(candidates)]
    order = rng.permutation(sorted({tasks[p[0]] for p in waiting})).tolist() if sampling == "balanced" else []
    taken: list[list[int]] = []
    while waiting and sum(map(len, taken)) < budget:
        following = waiting[0]
        if sampling == "balanced":
            pieces = Counter(tasks[p] for places in taken for p in places)
            there = [task for task in order if any(tasks[p[0]] == task for p in waiting)]
            task = min(there, key=lambda task: (pieces[task], there.index(task)))
            following = next(places for places in waiting if tasks[places[0]] == task)
        waiting.remove(following)
        if not taken or sum(map(len, taken)) + len(following) <= budget:
            taken.append(following)
    chosen = sorted(place for places in taken for place in places)
    fates, others = rng.random(len(chosen)), rng.integers(len(RANDOM_IDS), size=len(chosen))
    for place, fate, other in zip(chosen, fates, others, strict=True):
        labels[place] = masked[place]
        if fate < 0.8:
            masked[place] = MASK
        elif fate < 0.9:
            masked[place] = int(RANDOM_IDS[other])
    return masked, labels


@settings(max_examples=150, deadline=None)
@given(words, st.integers(0, 2**32), shares, samplings)
def test_agrees_with_the_slow_rules(of: list, seed: int, probability: float, sampling: str) -> None:
    made = sequence(of, seed)
    masked, labels = mask(made, seed, probability, sampling)
    assert (masked.tolist(), labels.tolist()) == reference(made, seed, probability, sampling)
    assert masked.dtype == labels.dtype == np.int64


@settings(max_examples=150, deadline=None)
@given(words, st.integers(0, 2**32), shares, samplings)
def test_every_draw(of: list, seed: int, probability: float, sampling: str) -> None:
    ids, tasks, starts, is_text = made = sequence(of, seed)
    before = ids.copy()
    masked, labels = mask(made, seed, probability, sampling)
    np.testing.assert_array_equal(ids, before)
    is_target = labels != -100
    np.testing.assert_array_equal(labels[is_target], ids[is_target])
    np.testing.assert_array_equal(masked[~is_target], ids[~is_target])
    budget = max(1, round(probability * is_text.sum()))
    taken, left_out = [], []
    for places in word_places(starts):
        # Whole or not at all.
        assert len(set(is_target[places])) == 1
        if (tasks[places] >= 0).all() and is_text[places].all():
            (taken if is_target[places[0]] else left_out).append(len(places))
        else:
            assert not is_target[places].any()
    assert len(taken) <= 1 or sum(taken) <= budget
    # Nothing is left that would have had room, and a sequence with candidates always has a target.
    assert all(length > budget - sum(taken) for length in left_out)
    assert taken or not left_out


def test_what_stands_in_place_of_a_piece() -> None:
    made = sequence([(1, 0, True)] * 40_000)
    masked, labels = mask(made, 1, 0.5, "proportional")
    is_target = labels != -100
    count = is_target.sum()
    assert count == 20_000
    kept, is_mask = (masked == labels)[is_target], (masked == MASK)[is_target]
    random_pieces = masked[is_target][~is_mask & ~kept]
    # A random piece is the true one now and then.
    for share, got in ((0.8, is_mask), (0.1 + 0.1 / len(RANDOM_IDS), kept)):
        assert abs(got.mean() - share) < 5 * np.sqrt(share * (1 - share) / count)
    expected = len(random_pieces) / len(RANDOM_IDS)
    drawn = Counter(random_pieces.tolist())
    assert set(drawn) == set(RANDOM_IDS.tolist())
    assert all(abs(drawn[number] - expected) < 6 * np.sqrt(expected) for number in drawn)


def test_words_are_drawn_in_proportion_or_balanced() -> None:
    """60 words of task 0, 30 of 1, 8 of 2 and 2 of 3, the first of two pieces each."""
    of = [(2, 0, True)] * 60 + [(1, 1, True)] * 30 + [(1, 2, True)] * 8 + [(1, 3, True)] * 2 + [(1, -1, True)] * 40
    made = sequence(of)
    pieces = {}
    for sampling in ("proportional", "balanced"):
        labels = np.stack([mask(made, seed, 0.15, sampling)[1] for seed in range(300)])
        pieces[sampling] = np.stack([((labels != -100) & (made[1] == task)).sum(axis=1) for task in range(4)], axis=1)
        assert (pieces[sampling].sum(axis=1) == 30).all()
    np.testing.assert_allclose(
        pieces["proportional"].mean(axis=0) / 30, [120 / 160, 30 / 160, 8 / 160, 2 / 160], atol=0.02
    )
    # The two words of task 3 and the eight of task 2 are all taken, the others share what is left.
    assert (pieces["balanced"][:, 3] == 2).all() and (pieces["balanced"][:, 2] == 8).all()
    assert (pieces["balanced"][:, 0] == 10).all() and (pieces["balanced"][:, 1] == 10).all()


def test_a_budget_of_one_piece_is_shared_over_time() -> None:
    made = sequence([(1, 0, True)] * 90 + [(1, 1, True)] * 10)
    for sampling, share in (("proportional", 0.1), ("balanced", 0.5)):
        drawn = [made[1][mask(made, seed, 0.001, sampling)[1] != -100].tolist() for seed in range(1000)]
        assert all(len(tasks) == 1 for tasks in drawn)
        assert np.mean(drawn) == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 1000))


def test_nothing_to_take() -> None:
    ids, tasks, starts, is_text = made = sequence([(2, -1, True), (3, 0, False)])
    masked, labels = mask(made, 0, 0.9, "balanced")
    np.testing.assert_array_equal(masked, ids)
    assert (labels == -100).all()
