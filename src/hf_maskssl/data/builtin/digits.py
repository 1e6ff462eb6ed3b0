"""Handwritten digits of scikit-learn: 1,797 pictures of 8 x 8 pixels (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import datasets
import numpy as np
from datasets import Dataset, IterableDataset

from ...extras import missing_extra
from .source import Source

if TYPE_CHECKING:
    from ..arguments import DataArguments

DIGITS_TEST_ROWS = 360


def read_digits(args: DataArguments, split: str) -> Dataset | IterableDataset:
    """Columns `image` (8, 8) float32, 0 to 16, and `label`; a stratified fifth is the test split.

    Raises:
        ValueError: A split other than "train" and "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f"data.source 'digits' has the splits 'train' and 'test', got {split!r}")
    dataset = _load(split)
    return dataset.to_iterable_dataset() if args.streaming else dataset


@functools.cache  # the table takes a tenth of a second to parse
def _load(split: str) -> Dataset:
    # Imported here: only this source needs it.
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra("data.source 'digits'", "train", error) from error

    digits = load_digits()
    train, test = train_test_split(
        np.arange(len(digits.target)), test_size=DIGITS_TEST_ROWS, stratify=digits.target, random_state=0
    )
    rows = np.sort(train if split == "train" else test)
    features = datasets.Features(
        {"image": datasets.Array2D((8, 8), "float32"), "label": datasets.ClassLabel(names=[str(i) for i in range(10)])}
    )
    columns = {"image": digits.images[rows].astype(np.float32), "label": digits.target[rows]}
    return Dataset.from_dict(columns, features=features, split=datasets.NamedSplit(split))


DIGITS = Source("digits", "scikit-learn's handwritten digits", read_digits, input_column="image")
