"""Random cuts into splits as DABS makes them: rows shuffled by NumPy's old generator, and the first share taken.

pandas' `sample(frac=1, random_state=seed)`, which DABS calls, draws the same order.
"""

import math
from collections.abc import Sequence

import numpy as np

SEED = 42  # DABS's, everywhere
SHARE = 0.9


def shuffled(count: int, seed: int = SEED) -> np.ndarray:
    """Numbers of `count` rows in the order of pandas' `sample(frac=1, random_state=seed)`: (count,) int64."""
    return np.random.RandomState(seed).permutation(count)


def cut(count: int, splits: Sequence[str], share: float = SHARE, seed: int = SEED) -> list[str]:
    """The split of each of `count` rows: after a shuffle, the first `share` of the rows and the rest.

    Args:
        count: Number of rows.
        splits: Names of the two splits.
        share: Share of the first one, rounded up.
        seed: Seed of the shuffle.
    """
    return placed(shuffled(count, seed), splits, math.ceil(share * count))


def placed(order: np.ndarray, splits: Sequence[str], size: int) -> list[str]:
    """The split of each row: the first one's rows are the first `size` of `order`."""
    names = [splits[1]] * len(order)
    for row in order[:size].tolist():
        names[row] = splits[0]
    return names


def cut_by_group(groups: Sequence[object], splits: Sequence[str], share: float = 0.8, seed: int = SEED) -> list[str]:
    """The split of each row, every group cut by itself: DABS's cut of flowers, traffic signs and speakers.

    Args:
        groups: Group of each row; groups are shuffled in the order in which they first occur.
        splits: Names of the two splits.
        share: Share of the first one in each group, rounded down.
        seed: Seed of the one generator that shuffles all groups, one after the other.
    """
    random = np.random.RandomState(seed)
    members: dict[object, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    names = [splits[1]] * len(groups)
    for rows in members.values():
        order = np.arange(len(rows))
        random.shuffle(order)
        for place in order[: int(share * len(rows))].tolist():
            names[rows[place]] = splits[0]
    return names
