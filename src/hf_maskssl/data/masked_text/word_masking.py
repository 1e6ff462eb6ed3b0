"""Masking of whole words: the choice of words, and their replacement."""

from typing import Literal

import numpy as np

from ..tables.labels import IGNORED_LABEL

MaskSampling = Literal["proportional", "balanced"]

# Replacements of a chosen piece (Devlin et al. 2019, section 3.1); the rest stays.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


def mask_words(
    ids: np.ndarray,
    tasks: np.ndarray,
    starts: np.ndarray,
    is_text: np.ndarray,
    rng: np.random.Generator,
    *,
    mask_id: int,
    random_ids: np.ndarray,
    probability: float = 0.15,
    sampling: MaskSampling = "proportional",
) -> tuple[np.ndarray, np.ndarray]:
    """Choose whole words of a sequence as targets and hide them (whole word masking of BERT, Devlin et al. 2019).

    The budget is `probability` of the pieces of text, at least one. Words that have a task are drawn in random order, and
    each that fits into the rest of the budget is taken; the first is taken whatever its length. Each piece of a taken
    word becomes [MASK] (80 %), a random piece (10 %), or stays (10 %).

    Args:
        ids: (N,) pieces.
        tasks: (N,) the task of each piece's word, below 0 where it has none: such words are never taken.
        starts: (N,) other than 0 where a word begins; one always begins at the first piece.
        is_text: (N,) bool, False for special tokens: they do not count, and a word that holds one is never taken.
        rng: Generator of all draws.
        mask_id: Id of [MASK].
        random_ids: (n,) ids from which random pieces are drawn.
        probability: Share of pieces to take.
        sampling: Name of the way: "proportional" draws words of any task, "balanced" always one of the task with the fewest
            pieces so far, so that the tasks present share the budget equally as far as their words go.

    Returns:
        Two arrays (N,) int64: the pieces with those of the taken words hidden; the labels, the true id of every piece of a
        taken word and -100 elsewhere.
    """
    begins, words = _maskable_words(tasks, starts, is_text)
    lengths = np.diff(begins, append=len(ids))
    masked, labels = ids.astype(np.int64), np.full(len(ids), IGNORED_LABEL, dtype=np.int64)
    if len(words) == 0:
        return masked, labels
    budget = max(1, round(probability * int(np.count_nonzero(is_text))))
    words = rng.permutation(words)
    if sampling == "balanced":
        places = _draw_balanced(lengths[words].tolist(), tasks[begins[words]].tolist(), budget, rng)
    else:
        places = _draw(lengths[words].tolist(), budget)
    is_taken = np.zeros(len(begins), dtype=bool)
    is_taken[words[places]] = True
    chosen = np.flatnonzero(np.repeat(is_taken, lengths))
    labels[chosen] = masked[chosen]
    fate = rng.random(len(chosen))
    random_pieces = random_ids[rng.integers(len(random_ids), size=len(chosen))]
    is_random = fate < MASK_SHARE + RANDOM_SHARE
    masked[chosen] = np.where(fate < MASK_SHARE, mask_id, np.where(is_random, random_pieces, masked[chosen]))
    return masked, labels


def _maskable_words(tasks: np.ndarray, starts: np.ndarray, is_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places where words begin, and the numbers of those that may be masked."""
    begins = np.flatnonzero(starts)
    if len(begins) == 0 or begins[0] != 0:
        begins = np.concatenate([[0], begins])
    return begins, np.flatnonzero((tasks[begins] >= 0) & np.logical_and.reduceat(is_text, begins))


def word_numbers(tasks: np.ndarray, starts: np.ndarray, is_text: np.ndarray) -> np.ndarray:
    """(N,) int64, the number of each piece's word, -100 where `mask_words`, whose arguments these are, never takes it."""
    begins, words = _maskable_words(tasks, starts, is_text)
    numbers = np.full(len(begins), IGNORED_LABEL, dtype=np.int64)
    numbers[words] = words
    return np.repeat(numbers, np.diff(begins, append=len(tasks)))


def _draw(lengths: list[int], budget: int) -> list[int]:
    """Places of the words to take, from the lengths of words in the order drawn."""
    taken: list[int] = []
    for place, length in enumerate(lengths):
        if length <= budget or not taken:
            taken.append(place)
            budget -= length
            if budget <= 0:
                break
    return taken


def _draw_balanced(lengths: list[int], tasks: list[int], budget: int, rng: np.random.Generator) -> list[int]:
    """The balanced choice: a word of the task with the fewest pieces is next, among equals in a drawn order of the tasks."""
    waiting: dict[int, list[int]] = {task: [] for task in rng.permutation(np.unique(tasks)).tolist()}
    for place in reversed(range(len(tasks))):
        waiting[tasks[place]].append(place)
    pieces = dict.fromkeys(waiting, 0)
    taken: list[int] = []
    while waiting and budget > 0:
        task = min(waiting, key=pieces.__getitem__)
        place = waiting[task].pop()
        if not waiting[task]:
            del waiting[task]
        if lengths[place] <= budget or not taken:
            taken.append(place)
            pieces[task] += lengths[place]
            budget -= lengths[place]
    return taken
