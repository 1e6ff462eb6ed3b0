"""The labels of a data set: their names and their numbers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset

from ..arguments import DENSE_TASKS, DataArguments, Task
from .sources import AnyDataset

IGNORED_LABEL = -100
STREAM_ROWS = 10_000
NAMED_ROWS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelSpace:
    """The rule by which a label column becomes numbers.

    Attributes:
        task: Name of the task: a class, a real number, a class per token, or a class or depth per pixel.
        names: Names of the classes in the order of their ids; empty for real numbers.
        are_strings: Whether the column holds names; otherwise it holds ids.
    """

    task: Task
    names: tuple[str, ...] = ()
    are_strings: bool = False

    @property
    def num_labels(self) -> int:
        """Number of outputs of a head: the number of classes, 1 for real numbers."""
        return 1 if self.task in ("regression", "depth_estimation") else len(self.names)

    def encode(self, value: object) -> int | float:
        """One label as a number.

        Raises:
            ValueError: The label is missing, not finite, or not a class of the training split.
        """
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            raise ValueError(f"the label is {value}: drop the row or give it a label (data.drop_missing_labels)")
        if self.are_strings:
            if str(value) not in self.names:
                raise ValueError(f"label {value!r} is not in the training split, whose labels are {list(self.names)}")
            return self.names.index(str(value))
        if not isinstance(value, (int, float)):
            raise ValueError(f"expected one number as label (task {self.task!r}), got {value!r:.60}")
        if self.task == "regression":
            return float(value)
        if int(value) != value or not 0 <= value < len(self.names):
            raise ValueError(f"label {value} is not one of the {len(self.names)} classes 0..{len(self.names) - 1}")
        return int(value)

    def encode_tokens(
        self, values: Sequence[str | float] | np.ndarray, mask: Sequence[int] | np.ndarray | None, length: int
    ) -> np.ndarray:
        """Encode the labels of one sequence.

        Args:
            values: One label per token; -100 is ignored.
            mask: One number per token, 0 where the label is to be ignored; None where every label counts.
            length: Number of tokens of the whole sequence.

        Returns:
            (length,) int64, ignored places -100.

        Raises:
            ValueError: Another number of labels or mask entries than tokens.
        """
        if np.ndim(values) != 1:
            raise ValueError(f"expected a list with one label per token (task {self.task!r}), got {values!r:.60}")
        for name, sequence in (("labels", values), ("label mask entries", mask)):
            if sequence is not None and len(sequence) != length:
                raise ValueError(f"expected one of the {name} per token, got {len(sequence)} for {length} tokens")
        labels = np.asarray([self.encode(value) for value in values] if self.are_strings else values)
        keep = labels != IGNORED_LABEL
        if mask is not None:
            keep &= np.asarray(mask) != 0
        wrong = keep & ((labels < 0) | (labels >= len(self.names)) | (labels % 1 != 0))
        if wrong.any():
            # `encode` raises the error of this one label.
            self.encode(labels[wrong][0].item())
        return np.where(keep, labels, IGNORED_LABEL).astype(np.int64)


def measure_labels(args: DataArguments, train_split: AnyDataset) -> LabelSpace | None:
    """The label space of the training split, None when no label column is named.

    Names come from a `ClassLabel` feature; strings are sorted and numbered; integers are ids already.

    Args:
        args: The recipe's data section, not of a dense task (see `multimodal.measure_label_maps`).
        train_split: Whole split: a few rows might lack classes. Of a stream without `ClassLabel` the first 10,000 rows are read.

    Raises:
        ValueError: Labels that are neither integers from 0 nor strings.
    """
    if args.label_column is None or args.task in DENSE_TASKS:
        return None
    if args.task == "regression":
        return LabelSpace("regression")
    names = _class_label_names((train_split.features or {}).get(args.label_column))
    if names is not None:
        return LabelSpace(args.task, tuple(names))
    found = _unique_values(train_split, args.label_column)
    strings = sorted(value for value in found if isinstance(value, str))
    if strings and len(strings) == len(found):
        return LabelSpace(args.task, tuple(strings), are_strings=True)
    ids = [value for value in found if not isinstance(value, str) and value != IGNORED_LABEL]
    if strings or not ids or any(int(value) != value or value < 0 for value in ids):
        raise ValueError(
            f"data.label_column {args.label_column!r}: expected integers from 0 or strings as classes, got "
            f"{sorted(map(str, found))[:10]}; for real numbers set data.task to regression"
        )
    return LabelSpace(args.task, tuple(str(number) for number in range(int(max(ids)) + 1)))


def drop_missing_labels(split: AnyDataset, args: DataArguments, role: str) -> AnyDataset:
    """The rows of a split whose label is there; a warning counts the others. All rows stay where no label column is named.

    Args:
        split: Raw rows; not a stream, whose rows cannot be counted beforehand.
        args: `label_column` is read.
        role: Name of the split, for the warning.
    """
    missing = missing_labels(split, args.label_column)
    if len(missing) == 0 or isinstance(split, IterableDataset):
        return split
    logger.warning("%s; they are dropped", _missing_words(split, args.label_column, role, missing))
    return split.select(np.setdiff1d(np.arange(len(split)), missing))


def refuse_missing_labels(split: AnyDataset, args: DataArguments, role: str) -> None:
    """Refuse a split with missing labels; in a stream they are met when their row is prepared.

    Raises:
        ValueError: Labels are missing; the error names the column, the first rows and their number.
    """
    missing = missing_labels(split, args.label_column)
    if len(missing):
        raise ValueError(
            f"{_missing_words(split, args.label_column, role, missing)}: fill them, or set data.drop_missing_labels "
            "to true to leave such rows out"
        )


def missing_labels(split: AnyDataset, column: str | None) -> np.ndarray:
    """(n,) numbers of the rows whose label is null or NaN; none for streams and for columns that are not there."""
    if not isinstance(split, Dataset) or column not in split.column_names:
        return np.zeros(0, dtype=np.int64)
    labels = split.select_columns([column]).with_format("arrow")[:].column(0)
    return np.flatnonzero(pc.is_null(labels, nan_is_null=True).to_numpy())


def _missing_words(split: AnyDataset, column: str | None, role: str, rows: np.ndarray) -> str:
    named = ", ".join(map(str, rows[:NAMED_ROWS])) + (", ..." if len(rows) > NAMED_ROWS else "")
    return f"{role} split, row {named}, column {column!r}: the label is missing in {len(rows)} of {len(split)} rows"


def _class_label_names(feature: object) -> list[str] | None:
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        feature = feature.feature
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _unique_values(dataset: AnyDataset, column: str) -> list[str | int | float]:
    """Values that occur, without missing ones."""
    if isinstance(dataset, IterableDataset):
        logger.info("classes of %r are taken from the first %d rows of the stream", column, STREAM_ROWS)
        values: set[str | int | float | None] = set()
        for row in dataset.take(STREAM_ROWS):
            values.update(row[column] if isinstance(row[column], list) else [row[column]])
    else:
        table = dataset.select_columns([column]).with_format("arrow")[:]
        array = table.column(0)
        while (
            pa.types.is_list(array.type)
            or pa.types.is_large_list(array.type)
            or pa.types.is_fixed_size_list(array.type)
        ):
            array = pc.list_flatten(array)
        values = set(pc.unique(array).to_pylist())
    return [value for value in values if value is not None and value == value]
