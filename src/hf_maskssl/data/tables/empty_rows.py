"""Rows whose input is empty: which they are, and how those of a stream are left out."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from .rows import Rows

# Columns of the inputs of a row. A row is empty where one of the columns is null, or where all columns of one input are
# blank: a pair of texts may lack one of them, a text beside a picture may not.
Inputs: TypeAlias = Sequence[Sequence[str]]


class NumberColumns(tuple[str, ...]):
    """Columns of one input of numbers, whose rows may lack some values: empty is a row in which nothing was observed.

    Attributes:
        invalid_value: Number that says that none was measured, beside null and NaN; None where there is none.
    """

    invalid_value: float | None = None


def number_columns(columns: Iterable[str], invalid_value: float | None = None) -> NumberColumns:
    """The columns of an input of numbers."""
    made = NumberColumns(columns)
    made.invalid_value = invalid_value
    return made


# White space, and characters that are not seen: separators, characters of control and of format.
BLANK = r"\A[\s\p{Z}\p{Cc}\p{Cf}]*\z"

NAMED_COLUMNS = 4

logger = logging.getLogger(__name__)


def empty_reason(inputs: Inputs) -> str:
    """Why rows are left out, in words."""
    parts = []
    for columns in inputs:
        if isinstance(columns, NumberColumns) and len(columns) > NAMED_COLUMNS:
            parts.append(f"any of {len(columns)} columns")
        else:
            parts.append(f"column {' or '.join(map(repr, columns))}")
    return f"nothing in {' or '.join(parts)}"


def empty_rows(rows: Dataset, inputs: Inputs) -> np.ndarray:
    """(rows,) bool, whether the input of each row is empty."""
    empty = np.zeros(len(rows), dtype=bool)
    for columns in inputs:
        if isinstance(columns, NumberColumns):
            empty |= observed_values(rows, columns)[0] == 0
            continue
        blank = np.ones(len(rows), dtype=bool)
        for name in columns:
            empty |= _flags(rows, name, lambda values: values.is_null())
            blank &= _flags(rows, name, _is_blank)
        empty |= blank
    return empty


def check_text(rows: Dataset, column: str, split: str) -> None:
    """Refuse strings that are not UTF-8, which some readers pass on as they are.

    Raises:
        ValueError: Naming split and column.
    """
    for chunk in rows.data.column(column).chunks:
        values = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        kind = values.type.value_type if pa.types.is_list(values.type) else values.type
        try:
            if _is_text(kind):
                values.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{split} split, column {column!r}: {error}: save the file as UTF-8") from error


def missing_values(rows: Dataset, columns: Iterable[str]) -> dict[str, int]:
    """Column -> number of rows with null or NaN in it; columns without such rows are left out."""
    found = {
        name: int(_flags(rows, name, lambda values: pc.is_null(values, nan_is_null=True)).sum())
        for name in dict.fromkeys(columns)
    }
    return {name: count for name, count in found.items() if count}


def observed_values(rows: Dataset, columns: NumberColumns) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) int64 twice: the values of each row that were observed, and all of them. A file, as of a picture, counts as one."""
    observed, total = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    for name in columns:
        found = [np.zeros((2, 0), dtype=np.int64)]
        for chunk in rows.data.column(name).chunks:
            found.append(_counts(chunk, columns.invalid_value))
        counts = np.concatenate(found, axis=1)
        counts = counts if rows._indices is None else counts[:, rows._indices.column(0).to_numpy()]
        observed, total = observed + counts[0], total + counts[1]
    return observed, total


def _counts(values: pa.Array, invalid_value: float | None) -> np.ndarray:
    """(2, rows): observed numbers and all numbers of each row, lists in lists together; a null list counts as one number."""
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    if not _is_list(values.type):
        is_observed = ~np.asarray(_is_missing(values, invalid_value).to_numpy(zero_copy_only=False), dtype=bool)
        return np.stack([is_observed, np.ones_like(is_observed)]).astype(np.int64)
    if (size := _even_size(values, invalid_value)) is not None:
        return np.full((2, len(values)), size)
    owners = pc.list_parent_indices(values).to_numpy()
    inner = _counts(pc.list_flatten(values), invalid_value)
    counts = np.stack([np.bincount(owners, part, minlength=len(values)) for part in inner]).astype(np.int64)
    counts[1] = np.maximum(counts[1], np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=np.int64))
    return counts


def _even_size(values: pa.Array, invalid_value: float | None) -> int | None:
    """The number of numbers in each of some lists, where all have as many and none is missing, as mostly in large arrays."""
    size = 1
    while _is_list(values.type):
        lengths = pc.min_max(pc.list_value_length(values)).as_py()
        if values.null_count or not lengths["min"] or lengths["min"] != lengths["max"]:
            return None
        size *= lengths["min"]
        values = pc.list_flatten(values)
    return None if pc.any(_is_missing(values, invalid_value)).as_py() else size


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_missing(values: pa.Array, invalid_value: float | None) -> pa.Array:
    """Whether single values are null, NaN or the number of what was not measured; files, as of pictures, only where null."""
    is_missing = pc.is_null(values, nan_is_null=True)
    if invalid_value is None or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return is_missing
    return pc.or_(is_missing, pc.equal(values.cast(pa.float64()), invalid_value).fill_null(True))


def _flags(rows: Dataset, column: str, test: Callable[[pa.Array], pa.Array]) -> np.ndarray:
    """(rows,) bool, what `test` finds of the values of a column, which are not copied: pictures may be among them."""
    parts = [np.zeros(0, dtype=bool)]
    for chunk in rows.data.column(column).chunks:
        values = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        parts.append(np.asarray(test(values).to_numpy(zero_copy_only=False), dtype=bool))
    flags = np.concatenate(parts)
    # `data` holds all rows of the file, of which a split may be a choice.
    return flags if rows._indices is None else flags[rows._indices.column(0).to_numpy()]


def _is_blank(values: pa.Array) -> pa.Array:
    if _is_text(values.type):
        return pc.match_substring_regex(values, BLANK).fill_null(True)
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        return values.is_null()
    if not _is_text(values.type.value_type):
        return pc.equal(pc.list_value_length(values).fill_null(0), 0)
    # A list of words is blank where every word is.
    seen = pc.invert(_is_blank(pc.list_flatten(values))).to_numpy(zero_copy_only=False)
    owners = pc.list_parent_indices(values).to_numpy()
    return pa.array(np.bincount(owners[seen.astype(bool)], minlength=len(values)) == 0)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_blank_value(value: Any) -> bool:
    """Whether one raw value is null, a text of which nothing is seen, or a list without an entry or of such texts alone."""
    if isinstance(value, str):
        return not (value.strip() and value.isprintable()) and bool(_is_blank(pa.array([value]))[0].as_py())
    if isinstance(value, list):
        return all(word is None or (isinstance(word, str) and is_blank_value(word)) for word in value)
    return value is None


def _has_no_number(value: Any, invalid_value: float | None) -> bool:
    """Whether a raw value is null, NaN, the number of what was not measured, or a list of such alone; no file is opened."""
    if isinstance(value, list | np.ndarray):
        return all(_has_no_number(part, invalid_value) for part in value)
    return value is None or value != value or (invalid_value is not None and value == invalid_value)


@dataclass
class WithoutEmpty:
    """What prepares batches of a stream, given the rows that are not empty; a warning counts those left out.

    Attributes:
        prepare: Callable that makes columns of a batch of raw columns and its row numbers.
        inputs: The columns of the inputs.
        split: Name of the split, for messages.
        left_out: Number of rows left out so far, in this process.
    """

    prepare: Callable[[Rows, Sequence[int]], Any]
    inputs: Inputs
    split: str
    left_out: int = field(default=0, compare=False)

    def __call__(self, batch: Rows, indices: Sequence[int]) -> Any:
        """Prepare a batch; an empty dictionary where no row is left, which datasets takes for no rows."""
        kept = [place for place in range(len(indices)) if not self._is_empty(batch, place)]
        if len(kept) == len(indices):
            return self.prepare(batch, indices)
        self._tell(len(indices) - len(kept), indices)
        if not kept:
            return {}
        batch = {name: [values[place] for place in kept] for name, values in batch.items()}
        return self.prepare(batch, [indices[place] for place in kept])

    def _is_empty(self, batch: Rows, place: int) -> bool:
        for columns in self.inputs:
            values = [batch[name][place] for name in columns]
            if isinstance(columns, NumberColumns):
                is_empty = all(_has_no_number(value, columns.invalid_value) for value in values)
            else:
                is_empty = any(value is None for value in values) or all(is_blank_value(value) for value in values)
            if is_empty:
                return True
        return False

    def _tell(self, count: int, indices: Sequence[int]) -> None:
        before, self.left_out = self.left_out, self.left_out + count
        # The first time, and whenever their number has one digit more.
        if not before or len(str(before)) < len(str(self.left_out)):
            logger.warning(
                "%s split: so far %d rows of the stream have %s and are left out (some of rows %d to %d)",
                self.split,
                self.left_out,
                empty_reason(self.inputs),
                indices[0],
                indices[-1],
            )
