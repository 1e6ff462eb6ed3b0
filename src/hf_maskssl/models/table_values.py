"""Raw values of a table's cells as numbers: categories as class numbers, dates as parts, heavy tails as normal scores."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from .standardization import Array

# A category as JSON keeps it, in the data's own form, and a cell of a table.
Category: TypeAlias = str | int | bool
Cell: TypeAlias = object

UNSEEN = -1.0  # class number of a category that training did not have
DATE_PARTS = ("year", "month", "day", "weekday", "hour")
# scikit-learn's `QuantileTransformer` cuts normal scores off here.
QUANTILE_EDGE = 1e-7


@runtime_checkable
class Table(Protocol):
    """A table of pandas, or of any library with its methods."""

    columns: Sequence[str]

    def astype(self, kind: type) -> "Table": ...

    def notna(self) -> object: ...

    def where(self, condition: object, other: object) -> "Table": ...

    def to_dict(self, orient: str) -> list[dict[str, Cell]]: ...


def rows_of_table(table: Table | Mapping[str, Sequence[Cell] | Array], columns: Sequence[str]) -> list[list[Cell]]:
    """The cells of each row in the order of `columns`, None where nothing is.

    Args:
        table: Table, or column -> its cells.
        columns: Names of the columns to read.

    Raises:
        ValueError: A column is not there, or columns have other lengths.
    """
    present = list(table.columns if isinstance(table, Table) else table)
    missing = [name for name in columns if name not in present]
    if missing:
        raise ValueError(
            f"the model was trained on the columns {list(columns)}, of which {missing} are not in {present}"
        )
    if isinstance(table, Table):
        whole = table.astype(object)
        return [[row[name] for name in columns] for row in whole.where(table.notna(), None).to_dict("records")]
    lengths = {name: len(table[name]) for name in columns}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected columns of one length, got {lengths}")
    return [list(row) for row in zip(*(table[name] for name in columns), strict=True)]


def is_missing(value: Cell) -> bool:
    """Whether a cell holds nothing: None, NaN, a time that is none, or a text of which nothing is seen."""
    if isinstance(value, Array | list):  # no cell of a table, as its reader will say
        return False
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def category_key(value: Cell) -> str:
    """The text by which a category is found: 3, 3.0 and "3" are the same, as are True and "True".

    Raises:
        ValueError: The value is no word, boolean or whole number.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    raise ValueError(f"expected a word, a boolean or a whole number, got {str(value)[:40]!r} ({type(value).__name__})")


def category_numbers(categories: Sequence[Category]) -> dict[str, int]:
    """Text of a category -> its class number; booleans are also found as 0 and 1, and in small letters.

    Raises:
        ValueError: Two categories have the same text.
    """
    numbers = {category_key(category): number for number, category in enumerate(categories)}
    if len(numbers) < len(categories):
        raise ValueError(f"categories: expected different ones, got {list(categories)}")
    for number, category in enumerate(categories):
        if isinstance(category, bool):
            numbers |= {str(int(category)): number, str(category).lower(): number}
    return numbers


def number_of(value: Cell) -> float:
    """A cell of a column of numbers; a text may be one, as in a file in which another cell of the column is a word.

    Raises:
        ValueError: The cell holds no number.
    """
    if is_missing(value):
        return np.nan
    try:
        return float(value)  # type: ignore[arg-type]  # what has no float says so
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a number, got {str(value)[:40]!r} ({type(value).__name__})") from error


def date_numbers(value: Cell, parts: Sequence[str]) -> list[float]:
    """Parts of a date, all NaN where it is missing. Monday is weekday 0; the hour has its minutes as a fraction.

    Args:
        value: Date, time, or a text such as 2026-11-27 or 2026-11-27 23:55:00.
        parts: Names among `DATE_PARTS`.

    Raises:
        ValueError: The value is no date.
    """
    if is_missing(value):
        return [np.nan] * len(parts)
    when = date_of(value)
    numbers = {
        "year": float(when.year),
        "month": float(when.month),
        "day": float(when.day),
        "weekday": float(when.weekday()),
        "hour": when.hour + when.minute / 60 + when.second / 3600,
    }
    return [numbers[part] for part in parts]


def date_of(value: Cell) -> datetime.datetime:
    """A cell as a time.

    Raises:
        ValueError: The value is no date.
    """
    value = value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        try:
            return datetime.datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        except ValueError:
            pass  # the error below says what is expected
    raise ValueError(f"expected a date such as 2026-11-27 or 2026-11-27 23:55:00, got {str(value)[:40]!r}")


@dataclass(frozen=True)
class RowReader:
    """Reads the cells of a row of a table as numbers.

    Attributes:
        columns: Names of the columns in their order.
        date_parts: Column of dates -> its parts.
        categories: Column of categories -> text of each category -> its class number.
        invalid_value: Number that says that none was measured.
    """

    columns: Sequence[str]
    date_parts: Mapping[str, Sequence[str]]
    categories: Mapping[str, Mapping[str, int]]
    invalid_value: float | None

    def numbers_of(self, row: object) -> np.ndarray:
        """(1, T) float64: numbers as they are, class numbers or `UNSEEN`, parts of dates; NaN where nothing is.

        Args:
            row: Cells in the order of the columns, or {column: cell}.

        Raises:
            ValueError: Another number of cells, a column that is not there, or a cell that is no value of its column.
        """
        values: list[float] = []
        for name, cell in zip(self.columns, self._cells(row), strict=True):
            try:
                values += self._numbers_of_cell(name, cell)
            except ValueError as error:
                raise ValueError(f"column {name!r}: {error}") from error
        return np.array([values])

    def _cells(self, row: object) -> list[Cell]:
        columns = list(self.columns)
        if isinstance(row, Mapping):
            missing = [name for name in columns if name not in row]
            if missing or not columns:
                raise ValueError(
                    f"expected a row with the columns {columns}, of which {missing} are not in {list(row)}"
                )
            return [row[name] for name in columns]
        cells: list[Cell] = list(row) if isinstance(row, Array | Sequence) else [row]
        if len(cells) == 1 and len(columns) != 1 and isinstance(cells[0], Array | list):
            cells = list(cells[0])  # (1, T)
        if len(cells) != len(columns):
            raise ValueError(f"expected a cell for each of the columns {columns}, got {len(cells)}")
        return cells

    def _numbers_of_cell(self, column: str, cell: Cell) -> list[float]:
        if column in self.date_parts:
            return date_numbers(cell, self.date_parts[column])
        numbers = self.categories.get(column)
        if numbers is None:
            return [number_of(cell)]
        if is_missing(cell):
            return [np.nan]
        key = category_key(cell)
        if self.invalid_value is not None and key == category_key(self.invalid_value):
            return [np.nan]
        return [float(numbers.get(key, UNSEEN))]


def normal_scores(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Values as the normal scores of their ranks, as scikit-learn's `QuantileTransformer(output_distribution="normal")` gives.

    Args:
        values: (n,) float64; NaN stays NaN.
        quantiles: (Q,) ascending, the values at Q shares evenly spaced from 0 to 1.
    """
    landmarks = np.asarray(quantiles, dtype=np.float64)
    shares = np.linspace(0.0, 1.0, len(landmarks))
    # From both sides, so that a value that many rows share gets the middle of its ranks.
    above = np.interp(values, landmarks, shares)
    below = np.interp(-values, -landmarks[::-1], -shares[::-1])
    found = 0.5 * (above - below)
    found = np.where(values - QUANTILE_EDGE < landmarks[0], 0.0, found)
    found = np.where(values + QUANTILE_EDGE > landmarks[-1], 1.0, found)
    edge = QUANTILE_EDGE - np.spacing(1.0)
    normal = NormalDist()
    scores = [np.nan if one != one else normal.inv_cdf(min(max(one, edge), 1 - edge)) for one in found.tolist()]
    return np.where(np.isnan(values), np.nan, np.array(scores, dtype=np.float64).reshape(values.shape))


def undo_normal_scores(scores: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Values (n,) whose normal scores these are; beyond the ends those of the ends."""
    normal = NormalDist()
    shares = np.array([np.nan if one != one else normal.cdf(one) for one in scores.tolist()], dtype=np.float64)
    shares = np.where(shares - QUANTILE_EDGE < 0.0, 0.0, np.where(shares + QUANTILE_EDGE > 1.0, 1.0, shares))
    return np.interp(shares.reshape(scores.shape), np.linspace(0.0, 1.0, len(quantiles)), quantiles)
