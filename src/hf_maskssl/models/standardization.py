"""Subtracting means and dividing by standard deviations, and missing values as NaN and as a mask, for all three processors."""

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
# The squares of smaller values can be added up in double precision, as the standard deviation wants.
LARGEST_VALUE = 1e150


def beyond_range(values: np.ndarray) -> np.ndarray:
    """Whether each value is infinite, or too large to be standardised; a missing one (NaN) is not."""
    is_beyond: np.ndarray = np.abs(values) > LARGEST_VALUE
    return is_beyond


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
        values: (C, ...) float array; NaN = missing, which stays NaN.
        mode: `"dataset"` applies `mean` and `std` (nothing while they are None), `"sample"` uses the sample's own per
            channel, `"none"` changes nothing.
        mean: One number per entry of `axis`.
        std: One number per entry of `axis`.
        axis: The axis of `values` along which the statistics run: 0 (channels) or the last (features of a row).

    Returns:
        Array of the same shape.
    """
    if mode == "sample":
        own_mean, own_std = _moments(values)
        return (values - own_mean) / (own_std + SAMPLE_EPSILON)
    if mode == "none" or mean is None or std is None:
        return values
    shape = [1] * values.ndim
    shape[axis] = -1
    return (values - np.reshape(mean, shape)) / np.reshape(std, shape)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of (C, ...) values, both (C, 1, ...), over what is not missing."""
    rest = tuple(range(1, values.ndim))
    is_missing = np.isnan(values)
    if not is_missing.any():
        return values.mean(axis=rest, keepdims=True), values.std(axis=rest, keepdims=True)
    count = np.maximum((~is_missing).sum(axis=rest, keepdims=True), 1)
    mean = np.where(is_missing, 0.0, values).sum(axis=rest, keepdims=True) / count
    squares = np.where(is_missing, 0.0, values - mean) ** 2
    return mean, np.sqrt(squares.sum(axis=rest, keepdims=True) / count)


def unstandardize(
    values: np.ndarray,
    mode: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    axis: int = 0,
    sample: np.ndarray | None = None,
) -> np.ndarray:
    """Undo `standardize`.

    Args:
        values: (C, ...) float array of standardised values.
        mode, mean, std, axis: Arguments of `standardize`.
        sample: Values that `standardize` was given, whose own moments `"sample"` takes.

    Returns:
        Array of the same shape.

    Raises:
        ValueError: `"sample"` without a sample.
    """
    if mode == "sample":
        if sample is None:
            raise ValueError("standardize is 'sample': give the sample, whose mean and standard deviation are needed")
        own_mean, own_std = _moments(sample)
        return values * (own_std + SAMPLE_EPSILON) + own_mean
    if mode == "none" or mean is None or std is None:
        return values
    shape = [1] * values.ndim
    shape[axis] = -1
    return values * np.reshape(std, shape) + np.reshape(mean, shape)


def without_invalid(values: np.ndarray, invalid_value: float | None) -> np.ndarray:
    """Raw values with NaN where they are `invalid_value`, which says that none was measured."""
    if invalid_value is None or not (values == invalid_value).any():
        return values
    return np.where(values == invalid_value, np.nan, values)


def as_model_inputs(name: str, samples: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Prepared samples as the model takes them.

    Args:
        name: Name of the input, `input_values` or `pixel_values`.
        samples: Prepared samples, NaN = missing.

    Returns:
        `name`, with zeros in place of missing values, and where any sample has some, `observed_mask`, bool arrays of the same
        shapes: True = observed.

    Raises:
        ValueError: A sample in which everything is missing.
    """
    missing = [np.isnan(sample) for sample in samples]
    if not any(flags.any() for flags in missing):
        return {name: list(samples)}
    for number, flags in enumerate(missing):
        if flags.all():
            raise ValueError(f"sample {number} of {len(samples)} has no value that was observed: drop it")
    filled = [
        np.where(flags, np.zeros((), sample.dtype), sample) for flags, sample in zip(missing, samples, strict=True)
    ]
    return {name: filled, "observed_mask": [~flags for flags in missing]}
