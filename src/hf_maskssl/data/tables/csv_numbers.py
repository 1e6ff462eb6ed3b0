"""Numbers of CSV files as people write them: with marks between thousands, and beside words that say that none was measured."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import fsspec
import pandas as pd
import pyarrow as pa
from datasets import Dataset

from .caching import cached_map
from .csv_shape import COMMA, POINT, CsvShape
from .csv_words import MISSING_WORDS

LOOKED_AT = 100_000  # first rows, which tell
# Marks between thousands beside each decimal point; the blanks are those that printed numbers have, too.
MARKS = {POINT: (COMMA, "'", "’", " ", "\u00a0", "\u202f"), COMMA: (POINT, "'", "’", " ", "\u00a0", "\u202f")}
# What a cell of a column of numbers may hold instead of one, in small letters and without blanks, beside `MISSING_WORDS`.
UNUSUAL_WORDS = (
    *(
        "",
        "?",
        "-",
        "--",
        "---",
        "–",
        "—",
        ".",
        "..",
        "...",
        "…",
        "*",
        "x",
        "na",
        "n.a.",
        "n.a",
        "nan",
        "none",
        "nil",
        "null",
    ),
    *(
        "k.a.",
        "k.a",
        "n.v.",
        "n.d.",
        "nd",
        "s.o.",
        "missing",
        "unknown",
        "unbekannt",
        "inconnu",
        "\\n",
        "(null)",
        "#nv",
    ),
    *("#div/0!", "#value!", "#wert!", "#ref!", "#bezug!", "#name?", "#num!", "#zahl!", "#null!"),
)
MOST_WORDS = 0.5  # share of a column's cells, at the most, that may be such words
MOST_STRANGE = 5  # other words of a column, at the most, that is still taken for one of numbers


@dataclass(frozen=True)
class CsvNumbers:
    """How a CSV file writes its numbers.

    Attributes:
        thousands: Character between thousands; None where numbers have none.
        missing_words: Words, as they are written, that stand in columns of numbers where none was measured.
    """

    thousands: str | None
    missing_words: tuple[str, ...]


def numbers_of_csv(path: str, shape: CsvShape) -> CsvNumbers:
    """How a CSV file writes its numbers, by its first 100,000 rows.

    Args:
        path: File or address, compressed or not.
        shape: How its cells are cut.
    """
    # pandas would refuse addresses with versions of fsspec that datasets takes.
    with fsspec.open(path, "rt", encoding="utf-8-sig", newline="", compression="infer") as file:
        cells = pd.read_csv(file, sep=shape.delimiter, dtype=str, keep_default_na=False, nrows=LOOKED_AT)
    looks = [_Look(cells[name].value_counts(sort=False).to_dict(), shape.decimal) for name in cells.columns]
    looks = [look for look in looks if look.are_mostly_numbers and not look.strange]
    marks = sorted({look.mark for look in looks if look.mark}, key=MARKS[shape.decimal].index)
    words = dict.fromkeys(word for look in looks if look.mark in (None, *marks[:1]) for word in look.words)
    return CsvNumbers(marks[0] if marks else None, tuple(words))


def cells_beside_numbers(counts: Mapping[str, int], decimal: str) -> list[str]:
    """The few cells of a column of words that keep it from being one of numbers; none where it is no such column.

    Args:
        counts: Cell, as it is written -> its rows.
        decimal: Character in front of decimals.
    """
    look = _Look(counts, decimal)
    return [*look.words, *look.strange] if look.are_mostly_numbers else []


class _Look:
    """The cells of one column.

    Attributes:
        mark: Character between thousands, None where there is none.
        marked: Numbers with it.
        words: Other cells that say that nothing was measured, without those that are known without a field.
        strange: All further cells.
        are_mostly_numbers: Whether the column is one of numbers.
    """

    def __init__(self, counts: Mapping[str, int], decimal: str) -> None:
        counts = {cell: number for cell, number in counts.items() if cell and cell not in MISSING_WORDS}
        plain = number_pattern(decimal, None)
        others = [cell for cell in counts if not plain.fullmatch(cell)]
        self.mark: str | None = None
        self.marked: list[str] = []
        for mark in MARKS[decimal]:
            pattern = number_pattern(decimal, mark)
            marked = [cell for cell in others if pattern.fullmatch(cell)]
            if len(marked) > len(self.marked):
                self.mark, self.marked = mark, marked
        others = [cell for cell in others if cell not in set(self.marked)]
        self.words = [cell for cell in others if "".join(cell.split()).lower() in UNUSUAL_WORDS]
        self.strange = [cell for cell in others if cell not in set(self.words)]
        others_count = sum(counts[cell] for cell in others)
        are_few = others_count <= MOST_WORDS * sum(counts.values()) and len(self.strange) <= MOST_STRANGE
        self.are_mostly_numbers = bool(counts) and are_few


def number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """Pattern of a cell that is a number, with this mark between all its thousands, of which it has some; None: without marks."""
    point = re.escape(decimal)
    whole = (
        rf"\d*{point}?\d+|\d+{point}?"
        if thousands is None
        else rf"\d{{1,3}}({re.escape(thousands)}\d{{3}})+({point}\d*)?"
    )
    return re.compile(rf"\s*[-+]?({whole})([eE][-+]?\d+)?\s*")


def with_thousands_read(rows: Dataset, thousands: str, decimal: str) -> Dataset:
    """Rows of a CSV file in which columns of numbers with marks between thousands are float64; other columns stay as they are.

    Args:
        rows: Rows of one split, such columns as texts.
        thousands: Character between thousands.
        decimal: Character in front of decimals.
    """
    read = ThousandsRead((), thousands, decimal)
    columns = tuple(
        name
        for name in rows.column_names
        if pa.types.is_string(rows.data.schema.field(name).type)
        or pa.types.is_large_string(rows.data.schema.field(name).type)
        if read.are_numbers(rows.data.column(name))
    )
    if not columns:
        return rows
    read = ThousandsRead(columns, thousands, decimal)
    found = cached_map(rows.with_format("arrow"), read, f"thousands {columns} {thousands} {decimal}")
    return found.with_format(None)


@dataclass(frozen=True)
class ThousandsRead:
    """A batch with columns of texts -> the same with the numbers that they stand for.

    Attributes:
        columns: Columns of numbers.
        thousands: Character between thousands.
        decimal: Character in front of decimals.
    """

    columns: tuple[str, ...]
    thousands: str
    decimal: str

    def __call__(self, batch: pa.Table, indices: Sequence[int]) -> pa.Table:
        for name in self.columns:
            values = pa.array([self._read(cell) for cell in batch[name].to_pylist()], pa.float64())
            batch = batch.set_column(batch.column_names.index(name), name, values)
        return batch

    def are_numbers(self, cells: pa.ChunkedArray) -> bool:
        """Whether all cells that are there are numbers, and some have the mark."""
        plain, marked = number_pattern(self.decimal, None), number_pattern(self.decimal, self.thousands)
        texts = [text for text in cells.unique().to_pylist() if text is not None and text.strip()]
        is_marked = [marked.fullmatch(text) is not None for text in texts]
        return any(is_marked) and all(
            is_one or plain.fullmatch(text) for text, is_one in zip(texts, is_marked, strict=True)
        )

    def _read(self, cell: str | None) -> float | None:
        if cell is None or not cell.strip():
            return None
        return float(cell.strip().replace(self.thousands, "").replace(self.decimal, POINT))
