"""The help topics that Python brings along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import datasets
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher

from .source import Source

if TYPE_CHECKING:
    from ..arguments import DataArguments


def read_pydoc(args: DataArguments, split: str) -> Dataset | IterableDataset:
    """Columns `topic` and `text`, of every topic that `help("topics")` lists.

    Raises:
        ValueError: A split other than "train".
    """
    if split != "train":
        raise ValueError(
            f"data.source 'pydoc' has one split, 'train', got {split!r}: set data.split to 'random' to cut it"
        )
    # Imported here: only this source needs it.
    from pydoc_data.topics import topics

    features = datasets.Features({"topic": datasets.Value("string"), "text": datasets.Value("string")})
    if args.streaming:
        return IterableDataset.from_generator(_pydoc_rows, features=features)
    # The topics go through a file, so that results computed from them are cached too; another Python has other topics.
    return Dataset.from_generator(
        _pydoc_rows, features=features, fingerprint=Hasher.hash(["pydoc", sorted(topics.items())])
    )


def _pydoc_rows() -> Iterator[dict[str, str]]:
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        yield {"topic": topic, "text": topics[topic]}


PYDOC = Source("pydoc", "the help topics of Python", read_pydoc, input_column="text")
