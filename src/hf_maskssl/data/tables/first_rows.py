"""The first rows of a data set or stream."""

from itertools import islice

from datasets import Dataset, IterableDataset

from .rows import Row


def first_rows(rows: Dataset | IterableDataset, count: int) -> list[Row]:
    """At most `count` rows as they come. `Dataset.take` of early versions of datasets raises where there are fewer."""
    return list(islice(iter(rows), count))
