"""Subtracting means and dividing by standard deviations, for all three processors."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np


@runtime_checkable
class Array(Protocol):
    """An array of NumPy, torch or any other library that knows its number of axes."""

    @property
    def ndim(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator["Array"]: ...


# Numbers in the forms that callers have: one number, an array, or lists in lists.
Numbers: TypeAlias = float | Array | Sequence["Numbers"]

STANDARDIZE_MODES = ("dataset", "sample", "none")
# This term keeps a constant sample finite; it is far below the spread of any real signal after `scale`.
SAMPLE_EPSILON = 1e-6


def check_statistics(
    mode: str, mean: Sequence[float] | None, std: Sequence[float] | None, length: int
) -> tuple[list[float] | None, list[float] | None]:
    """Refuse statistics that cannot be applied.

    Args:
        mode: One of `STANDARDIZE_MODES`.
        mean: `length` numbers, or None while they have not been measured.
        std: `length` positive numbers, or None together with `mean`.
        length: Number of channels (or features).

    Returns:
        `mean` and `std` as plain lists, as JSON keeps them.

    Raises:
        ValueError: An unknown mode, a wrong count, or a standard deviation that is not positive and finite.
    """
    if mode not in STANDARDIZE_MODES:
        raise ValueError(f"standardize: expected one of {list(STANDARDIZE_MODES)}, got {mode!r}")
    if (mean is None) != (std is None):
        raise ValueError("mean and std: give both or neither")
    if mean is None or std is None:
        return None, None
    mean, std = [float(value) for value in mean], [float(value) for value in std]
    if len(mean) != length or len(std) != length:
        raise ValueError(f"mean and std: expected {length} numbers each, got {len(mean)} and {len(std)}")
    if not np.isfinite(mean).all() or not np.isfinite(std).all() or min(std) <= 0.0:
        raise ValueError(f"mean must be finite and std positive and finite, got mean {mean} and std {std}")
    return mean, std


def standardize(
    values: np.ndarray, mode: str, mean: Sequence[float] | None, std: Sequence[float] | None, axis: int = 0
) -> np.ndarray:
    """Standardise one sample.

    Args:
        values: (C, ...) float array.
        mode: `"dataset"` applies `mean` and `std` (nothing while they are None), `"sample"` uses the sample's own per
            channel, `"none"` changes nothing.
        mean: One number per entry of `axis`.
        std: One number per entry of `axis`.
        axis: The axis of `values` along which the statistics run: 0 (channels) or the last (features of a row).

    Returns:
        Array of the same shape.
    """
    if mode == "sample":
        rest = tuple(range(1, values.ndim))
        return (values - values.mean(axis=rest, keepdims=True)) / (
            values.std(axis=rest, keepdims=True) + SAMPLE_EPSILON
        )
    if mode == "none" or mean is None or std is None:
        return values
    shape = [1] * values.ndim
    shape[axis] = -1
    return (values - np.reshape(mean, shape)) / np.reshape(std, shape)
