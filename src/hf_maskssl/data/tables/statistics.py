"""Mean and standard deviation of a training split, measured a batch at a time."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import IterableDataset

from ..arguments import DataArguments
from .caching import BATCH_ROWS, cached_map
from .empty_rows import WithoutEmpty
from .preparing import Preparer, raw_columns
from .rows import Column, Rows
from .sources import AnyDataset, chosen_numbers
from .windows import WindowedRows

STATISTICS_ROWS = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MomentsOfBatch:
    """A map from a batch of raw rows to one row: the number of its values, their mean and their sum of squares about it.

    Of each channel or feature, over the values that are not missing.

    Attributes:
        prepare: Preparer, which knows the columns and how they are opened.
        values: Callable that makes of a batch and its row numbers the values (K, n) of K channels or features, scaled and
            not yet standardised; NaN = missing.
        description: Text that decides the result.
        numbers: Number (n,) that each row had before some were drawn, for errors; None where all are measured.
    """

    prepare: Preparer
    values: Callable[[Rows, Sequence[int]], np.ndarray]
    description: str
    numbers: np.ndarray | None = None

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        values = self.values(batch, indices if self.numbers is None else self.numbers[list(indices)].tolist())
        is_missing = np.isnan(values)
        if not values.size:
            mean = np.zeros(len(values))
        elif is_missing.any():
            count = np.maximum((~is_missing).sum(axis=1), 1)
            mean = np.where(is_missing, 0.0, values).sum(axis=1) / count
        else:
            mean = values.mean(axis=1)
        squares = np.where(is_missing, 0.0, (values - mean[:, None]) ** 2).sum(axis=1)
        return {
            "count": [(~is_missing).sum(axis=1).tolist()],
            "mean": [mean.tolist()],
            "squares": [squares.tolist()],
        }


def measured_moments(
    measure: MomentsOfBatch, args: DataArguments, train_split: AnyDataset
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean (K,) and standard deviation (K,) float64 of at most 10,000 rows; None where they hold no value.

    Both are NaN for a channel or feature that is missing in all of them.

    `split_seed` chooses the rows; of a stream they are the first ones.

    Raises:
        ValueError: A value that cannot be prepared, naming split, row and column.
    """
    moments = [batch for batch in _moments(measure, args, train_split) if any(batch["count"])]
    return merge_moments(moments) if moments else None


def _moments(measure: MomentsOfBatch, args: DataArguments, train_split: AnyDataset) -> list[dict[str, Any]]:
    rows = raw_columns(train_split, measure.prepare)
    if isinstance(rows, IterableDataset):
        logger.info("mean and standard deviation are measured on the first %d rows of the stream", STATISTICS_ROWS)
        moments = []
        measure_filled = WithoutEmpty(measure, measure.prepare.inputs, measure.prepare.split)
        for start, batch in enumerate(rows.take(STATISTICS_ROWS).iter(batch_size=BATCH_ROWS)):
            first = start * BATCH_ROWS
            count = len(batch[measure.prepare.used_columns[0]])
            result = measure_filled(batch, range(first, first + count))
            if result:
                moments.append({name: values[0] for name, values in result.items()})
        return moments
    # Rows that were left out or not drawn keep their numbers in the file.
    numbers = None if rows._indices is None else rows._indices.column(0).to_numpy()
    if len(rows) > STATISTICS_ROWS:
        logger.info("mean and standard deviation are measured on %d of %d rows", STATISTICS_ROWS, len(rows))
        drawn = chosen_numbers(len(rows), STATISTICS_ROWS, args.split_seed)
        rows, numbers = rows.select(drawn), drawn if numbers is None else numbers[drawn]
    measure = dataclasses.replace(measure, numbers=numbers)
    return cached_map(rows, measure, measure.description).with_format(None).to_list()


def moments_of_windows(measure: MomentsOfBatch, rows: WindowedRows, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The moments of long rows, by at most 10,000 of these windows of the training split; drawn by the seed.

    Raises:
        ValueError: A value that cannot be prepared, naming split, row and column.
    """
    chosen = np.arange(len(rows))
    if len(rows) > STATISTICS_ROWS:
        logger.info("mean and standard deviation are measured on %d of %d windows", STATISTICS_ROWS, len(rows))
        chosen = chosen_numbers(len(rows), STATISTICS_ROWS, seed)
    moments = []
    for start in range(0, len(chosen), BATCH_ROWS):
        batch, owners = rows.raw(chosen[start : start + BATCH_ROWS])
        moments.append({name: values[0] for name, values in measure(batch, owners.tolist()).items()})
    moments = [batch for batch in moments if any(batch["count"])]
    return merge_moments(moments) if moments else None


def merge_moments(moments: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of several batches together (Chan, Golub and LeVeque 1979).

    Args:
        moments: `count` (K,), `mean` (K,) and `squares` (K,), the sum of squared distances from the mean, of each batch.

    Returns:
        Mean (K,) and standard deviation (K,), float64; NaN where there is no value.
    """
    count = mean = squares = np.zeros(1)
    for batch in moments:
        batch_mean, batch_squares = np.asarray(batch["mean"]), np.asarray(batch["squares"])
        batch_count = np.asarray(batch["count"], dtype=np.float64)
        total = count + batch_count
        at_least_one = np.maximum(total, 1.0)
        distance = batch_mean - mean
        mean = mean + distance * (batch_count / at_least_one)
        squares = squares + batch_squares + distance**2 * (count * batch_count / at_least_one)
        count = total
    nothing = count == 0
    return np.where(nothing, np.nan, mean), np.where(nothing, np.nan, np.sqrt(squares / np.maximum(count, 1.0)))
