"""The labels of a data set: their names and their numbers."""

import bisect
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset

from ..arguments import DENSE_TASKS, DataArguments, Task
from .empty_rows import missing_values
from .files import FOLDER_ENDINGS, SPLIT_ADVICE
from .label_columns import (
    IGNORED_LABEL,
    MULTI_LABEL,
    check_column_types,
    encode_column,
    rows_without_labels,
    task_counts,
)
from .report import DataReport, SplitReport
from .sources import AnyDataset

STREAM_ROWS = 10_000
NAMED_ROWS = 5
NAMED_IDS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelSpace:
    """The rule by which a label column becomes numbers.

    Attributes:
        task: Name of the task: a class, a real number, a class per token, or a class or depth per pixel.
        names: Names of the classes in the order of their ids; empty for real numbers.
        are_strings: Whether the column holds names; otherwise it holds ids.
        values: The id that the column has for each class, in rising order; empty where ids are 0, 1, 2, ...
        columns: Names of the columns of labels where there are several, one a task; empty with a single one. They are then the
            `names` as well.
    """

    task: Task
    names: tuple[str, ...] = ()
    are_strings: bool = False
    values: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def num_labels(self) -> int:
        """Number of outputs of a head: the number of classes or of columns, 1 for real numbers."""
        if self.columns:
            return len(self.columns)
        return 1 if self.task in ("regression", "depth_estimation") else len(self.names)

    def encode(self, value: object) -> int | float:
        """One label as a number.

        Raises:
            ValueError: The label is missing, not finite, or not a class of the training split.
        """
        value = value.item() if isinstance(value, np.generic) else value
        value = float(value) if isinstance(value, Decimal) else value
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            raise ValueError(f"the label is {value}: drop the row or give it a label (data.drop_missing_labels)")
        if self.are_strings:
            if str(value) not in self.names:
                raise ValueError(f"label {value!r} is not in the training split, whose labels are {list(self.names)}")
            return self.names.index(str(value))
        if not isinstance(value, (int, float)):
            advice = (
                "store numbers and not texts"
                if isinstance(value, str)
                else "store one label a row, of lists of a single number that number, of one-hot rows the place of the 1"
            )
            raise ValueError(f"expected one number as label (task {self.task!r}), got {value!r:.60}: {advice}")
        if self.task == "regression":
            if abs(value) > np.finfo(np.float32).max:
                raise ValueError(f"label {value} is too large for single precision: divide the labels by a constant")
            return float(value)
        if self.values:
            place = bisect.bisect_left(self.values, value)
            if self.values[place : place + 1] != (value,):
                raise ValueError(
                    f"label {value} is not in the training split, whose class ids are {list(self.values[:NAMED_IDS])}"
                )
            return place
        if int(value) != value or not 0 <= value < len(self.names):
            raise ValueError(f"label {value} is not one of the {len(self.names)} classes 0..{len(self.names) - 1}")
        return int(value)

    def encode_columns(
        self, cells: Mapping[str, Sequence[object] | np.ndarray], where: Callable[[int, str], str]
    ) -> np.ndarray:
        """Encode the labels of several columns.

        Args:
            cells: Column -> a cell for each row.
            where: Place of a row and its column -> words for errors.

        Returns:
            (rows, columns) float32, see `encode_column`.

        Raises:
            ValueError: A cell that is neither a label nor empty.
        """
        found = []
        for name in self.columns:

            def place_of(place: int, column: str = name) -> str:
                return where(place, column)

            found.append(encode_column(cells[name], self.task, place_of))
        return np.stack(found, axis=1)

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
        if self.values:
            kept = [self.encode(value) for value in labels[keep].tolist()]
            labels = labels.copy()
            labels[keep] = kept
        wrong = keep & ((labels < 0) | (labels >= len(self.names)) | (labels % 1 != 0))
        if wrong.any():
            # `encode` raises the error of this one label.
            self.encode(labels[wrong][0].item())
        return np.where(keep, labels, IGNORED_LABEL).astype(np.int64)


def measure_labels(args: DataArguments, train_split: AnyDataset) -> LabelSpace | None:
    """The label space of the training split, None when no label column is named.

    Names come from a `ClassLabel` feature; strings are sorted and numbered; so are whole numbers, whose values are the
    names: 0, 1, 2 are ids already, others get the ids 0, 1, ... in their order.

    Args:
        args: The recipe's data section, not of a dense task (see `multimodal.measure_label_maps`).
        train_split: Whole split: a few rows might lack classes. Of a stream without `ClassLabel` the first 10,000 rows are read.

    Raises:
        ValueError: Labels that are neither whole numbers nor strings.
    """
    if args.label_column is None or args.task in DENSE_TASKS:
        return None
    if isinstance(args.label_column, list):
        check_column_types(train_split, args.label_column)
        return LabelSpace(args.task, tuple(args.label_column), columns=tuple(args.label_column))
    check_label_type(args, train_split)
    if args.task == "regression":
        return LabelSpace("regression")
    names = _class_label_names((train_split.features or {}).get(args.label_column))
    if names is not None:
        return LabelSpace(args.task, tuple(names))
    found = _unique_values(train_split, args.label_column)
    strings = sorted(value for value in found if isinstance(value, str))
    if strings and len(strings) == len(found):
        _warn_of_blanks(args.label_column, strings)
        return LabelSpace(args.task, tuple(strings), are_strings=True)
    numbers = [value for value in found if not isinstance(value, str) and value != IGNORED_LABEL]
    if strings or not numbers or not all(_is_whole(value) for value in numbers):
        raise ValueError(
            f"data.label_column {args.label_column!r}: expected whole numbers or strings as classes, got "
            f"{sorted(map(str, found))[:10]}; for real numbers set data.task to regression"
        )
    return _by_values(args.task, {int(value) for value in numbers})


def _warn_of_blanks(column: str, names: Sequence[str]) -> None:
    """Warn of classes whose names are the same but for blanks at their ends."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.strip(), []).append(name)
    several = [one for one in alike.values() if len(one) > 1]
    if several:
        logger.warning(
            "data.label_column %r: classes differ in blanks alone, %s: if each is one class, take the blanks out of the data",
            column,
            several[:NAMED_IDS],
        )


def complete_classes(
    space: LabelSpace | None,
    args: DataArguments,
    held_out: Sequence[AnyDataset],
    cut_off: Sequence[AnyDataset] = (),
) -> LabelSpace | None:
    """Give classes to labels that only other splits have; warns of ids that are not 0, 1, 2, ...

    A cut by chance may leave a rare class without a training row, so all labels of splits that were cut off the training rows are
    classes. Of other splits only ids that lie between those of the training split are: ids beyond, such as the -1 of rows without
    a label, and new names stay errors.

    Args:
        space: Labels of the training split; the names of a `ClassLabel` stay as they are.
        args: `label_column` is read.
        held_out: The other splits; streams are left out.
        cut_off: Those of them that were cut off the training rows.
    """
    column = args.label_column
    if space is None or not space.names or args.task in DENSE_TASKS or not isinstance(column, str):
        return space
    found = {value for split in cut_off if isinstance(split, Dataset) for value in _unique_values(split, column)}
    if space.are_strings:
        names = {*space.names, *(value for value in found if isinstance(value, str))}
        return dataclasses.replace(space, names=tuple(sorted(names)))
    if not space.values and space.names != tuple(map(str, range(len(space.names)))):  # of a `ClassLabel`
        return space
    ids = set(space.values or range(len(space.names)))
    lowest, highest = min(ids), max(ids)
    ids |= {int(value) for value in found if _is_whole(value)}
    for split in held_out:
        if isinstance(split, Dataset):
            numbers = {int(value) for value in _unique_values(split, column) if _is_whole(value)}
            ids |= {number for number in numbers if lowest < number < highest}
    ids.discard(IGNORED_LABEL)
    space = _by_values(space.task, ids)
    if space.values:
        logger.warning(
            "data.label_column %r: the class ids are %s%s, not 0 to %d: these %d values become the classes 0 to %d, and "
            "id2label keeps the values",
            args.label_column,
            list(space.values[:NAMED_IDS]),
            " ..." if len(ids) > NAMED_IDS else "",
            len(ids) - 1,
            len(ids),
            len(ids) - 1,
        )
    return space


def _by_values(task: Task, ids: set[int]) -> LabelSpace:
    """Classes of whole numbers, in their order."""
    ordered = sorted(ids)
    is_dense = ordered == list(range(len(ordered)))
    return LabelSpace(task, tuple(map(str, ordered)), values=() if is_dense else tuple(ordered))


def check_label_type(args: DataArguments, split: AnyDataset) -> None:
    """Refuse a column that holds neither numbers nor strings, nor lists of them.

    Raises:
        ValueError: Naming the column and what it holds.
    """
    feature = (split.features or {}).get(str(args.label_column))
    while isinstance(feature, (datasets.List, datasets.LargeList)):
        feature = feature.feature
    if feature is None or isinstance(feature, datasets.ClassLabel):
        return
    dtype = feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__
    if not dtype.startswith(("int", "uint", "float", "bool", "string", "large_string", "decimal", "null")):
        raise ValueError(
            f"data.label_column {args.label_column!r}: it holds {dtype}, which is neither a class nor a number: make it strings "
            "or whole numbers (classes), or real numbers with data.task regression"
        )


def class_counts(split: Dataset, column: str, space: LabelSpace) -> dict[str, int]:
    """How many rows, or tokens, each class has, those without any among them; labels that are no class go by their value."""
    counts = dict.fromkeys(space.names, 0)
    for found in pc.value_counts(_flat_labels(split, column)).to_pylist():
        value = found["values"]
        if value is None or value != value or value == IGNORED_LABEL:
            continue
        try:
            name = space.names[int(space.encode(value))]
        except ValueError:  # preparing the row will say so
            name = f"{value} (no class)"
        counts[name] = counts.get(name, 0) + found["counts"]
    return counts


def describe_split(
    report: DataReport, name: str, rows: AnyDataset, args: DataArguments, labels: LabelSpace | None
) -> None:
    """Add to a report the rows, classes and missing values of a split; warns of classes without a training row."""
    split = report.splits.setdefault(name, SplitReport())
    if isinstance(rows, IterableDataset):
        return
    split.rows = len(rows)
    columns = [*args.columns_read(), *(column for column in args.label_columns().values() if column is not None)]
    if labels is not None and labels.task == MULTI_LABEL:
        split.tasks = task_counts(rows, labels.columns)
        columns = [name for name in columns if name not in labels.columns]
        _warn_of_untaught(split.tasks, name)
    split.missing = missing_values(rows, columns)
    if labels is None or not labels.names or args.task in DENSE_TASKS or not isinstance(args.label_column, str):
        return
    split.classes = class_counts(rows, args.label_column, labels)
    absent = [label for label, count in split.classes.items() if count == 0]
    if absent and name == "train":
        logger.warning(
            "train split, column %r: no row of %d of %d classes: %s%s",
            args.label_column,
            len(absent),
            len(labels.names),
            absent[:NAMED_IDS],
            " ..." if len(absent) > NAMED_IDS else "",
        )


def _warn_of_untaught(tasks: Mapping[str, Mapping[str, int]], split: str) -> None:
    """Warn of tasks that the training split has no example of both classes for."""
    one_sided = [name for name, counts in tasks.items() if not (counts["positive"] and counts["negative"])]
    if one_sided and split == "train":
        logger.warning(
            "train split: %d of %d tasks have no rows of both classes, so nothing can be learnt of them: %s%s",
            len(one_sided),
            len(tasks),
            one_sided[:NAMED_IDS],
            " ..." if len(one_sided) > NAMED_IDS else "",
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and math.isfinite(value) and int(value) == value


def drop_missing_labels(
    split: AnyDataset, args: DataArguments, role: str, report: DataReport | None = None
) -> AnyDataset:
    """The rows of a split whose label, or one of several, is there; a warning counts the others. All rows stay where no label
    column is named.

    Args:
        split: Raw rows; not a stream, whose rows cannot be counted beforehand.
        args: `label_column` is read.
        role: Name of the split, for the warning.
        report: Report that counts them as well.
    """
    missing = missing_labels(split, args)
    if len(missing) == 0 or isinstance(split, IterableDataset):
        return split
    logger.warning("%s; they are dropped", _missing_words(args, len(split), role, missing))
    if report is not None:
        report.leave_out(role, len(missing), f"no label in {_column_words(args)}")
    return split.select(np.setdiff1d(np.arange(len(split)), missing))


def refuse_missing_labels(
    split: AnyDataset, args: DataArguments, role: str, row_numbers: np.ndarray | None = None
) -> None:
    """Refuse a split with missing labels; in a stream they are met when their row is prepared.

    Args:
        split: Raw rows.
        args: `label_column` is read.
        role: Name of the split, for the error.
        row_numbers: Number that each row had before some were left out; None where none were.

    Raises:
        ValueError: Labels are missing; the error names the column, the first rows and their number.
    """
    missing = missing_labels(split, args)
    if len(missing):
        is_split = args.source in FOLDER_ENDINGS and len(missing) == len(split)
        missing = missing if row_numbers is None else row_numbers[missing]
        raise ValueError(
            f"{_missing_words(args, len(split), role, missing)}: fill them, or set data.drop_missing_labels "
            f"to true to leave such rows out{f'. Or classes were read as splits: {SPLIT_ADVICE}' if is_split else ''}"
        )


def missing_labels(split: AnyDataset, args: DataArguments) -> np.ndarray:
    """(n,) numbers of the rows whose label, or every one of several, is null or NaN; none for streams and for columns that are
    not there."""
    column = args.label_column
    if isinstance(column, list):
        return rows_without_labels(split, args)
    if not isinstance(split, Dataset) or column not in split.column_names:
        return np.zeros(0, dtype=np.int64)
    labels = split.select_columns([column]).with_format("arrow")[:].column(0)
    return np.flatnonzero(pc.is_null(labels, nan_is_null=True).to_numpy())


def _missing_words(args: DataArguments, total: int, role: str, rows: np.ndarray) -> str:
    what = "every label is" if isinstance(args.label_column, list) else "the label is"
    note = " (in a CSV column of numbers, NA, null, None and the like are missing)" if args.source == "csv" else ""
    named = ", ".join(map(str, rows[:NAMED_ROWS])) + (", ..." if len(rows) > NAMED_ROWS else "")
    return f"{role} split, row {named}, {_column_words(args)}: {what} missing in {len(rows)} of {total} rows{note}"


def _column_words(args: DataArguments) -> str:
    columns = args.target_columns()
    return f"column {columns[0]!r}" if len(columns) == 1 else f"{len(columns)} columns {columns[0]!r}..{columns[-1]!r}"


def _flat_labels(dataset: Dataset, column: str) -> pa.ChunkedArray:
    """The labels of all rows, those of tokens one after the other."""
    array = dataset.select_columns([column]).with_format("arrow")[:].column(0)
    while (
        pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
    ):
        array = pc.list_flatten(array)
    return array


def _class_label_names(feature: object) -> list[str] | None:
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        feature = feature.feature
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _unique_values(dataset: AnyDataset, column: str) -> list[str | int | float]:
    """Values that occur, without missing ones."""
    if isinstance(dataset, IterableDataset):
        logger.info("classes of %r are taken from the first %d rows of the stream", column, STREAM_ROWS)
        values: set[Any] = set()
        for row in dataset.take(STREAM_ROWS):
            for value in row[column] if isinstance(row[column], list) else [row[column]]:
                # Of a stream that does not tell the types of its columns.
                if value is not None and not isinstance(value, (str, int, float, Decimal)):
                    raise ValueError(
                        f"data.label_column {column!r}: expected whole numbers or strings as classes, got {value!r:.60}"
                    )
                values.add(value)
    else:
        values = set(pc.unique(_flat_labels(dataset, column)).to_pylist())
    return [value for value in values if value is not None and value == value]
