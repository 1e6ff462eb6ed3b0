"""How a CSV file is written: the character between its cells, the decimal point, and whether it has a line of names."""

import csv
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import fsspec

COMMA, POINT = ",", "."
DELIMITERS = (COMMA, ";", "\t", "|")
NAMES = {COMMA: "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
LINES = 50  # first lines, which tell
CHARACTERS = 100_000  # of a line that are looked at: the csv module refuses longer cells
# In front of the decimals, thousands may have a mark between them.
DECIMAL_COMMA = re.compile(r"\s*[-+]?(?:\d+|\d{1,3}(?:[.'\s]\d{3})+),(\d+)([eE][-+]?\d+)?\s*")
DECIMAL_POINT = re.compile(r"\s*[-+]?(?:\d*|\d{1,3}(?:[,'\s]\d{3})+)\.\d+([eE][-+]?\d+)?\s*")
MEASURED = re.compile(r"\s*(-\d+|[-+]?\d*[.,]\d+)([eE][-+]?\d+)?\s*")


@dataclass(frozen=True)
class CsvShape:
    """How a CSV file is written.

    Attributes:
        delimiter: Character between cells.
        decimal: Character in front of decimals.
        header: Cells of the first line.
    """

    delimiter: str
    decimal: str
    header: tuple[str, ...]

    @property
    def lacks_names(self) -> bool:
        """Whether the first line holds signs and decimals, as lines of data do; whole numbers may be names, such as years."""
        return sum(MEASURED.fullmatch(cell) is not None for cell in self.header) > 1


def shape_of_csv(path: str) -> CsvShape:
    """How a CSV file is written, by its first lines.

    The delimiter is the one of comma, semicolon, tab and bar that cuts the first line into most cells; a comma where none does.

    Args:
        path: File or address, compressed or not.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    with fsspec.open(path, "rt", encoding="utf-8-sig", newline="", compression="infer") as file:
        lines = list(itertools.islice(file, LINES))
    header = lines[:1]
    delimiter = max(DELIMITERS, key=lambda one: len(_cells(header, one)))
    cells = _cells(lines[1:], delimiter)
    commas = [found[1] for found in map(DECIMAL_COMMA.fullmatch, cells) if found]
    # Three digits behind a comma may be thousands, which decimal points beside them say.
    are_decimals = any(len(digits) != 3 for digits in commas) or not any(map(DECIMAL_POINT.fullmatch, cells))
    decimal = COMMA if delimiter != COMMA and commas and are_decimals else POINT
    return CsvShape(delimiter, decimal, tuple(_cells(header, delimiter)))


def other_delimiter(columns: Sequence[str], delimiter: str) -> str | None:
    """A sentence on what separates the cells, where the given delimiter has found one column whose name holds another.

    Args:
        columns: Names of the columns that were read.
        delimiter: Character that they were read with.
    """
    names = [name for name in columns if not name.startswith("__index_level_")]  # commas of decimals make more
    found = [other for other in DELIMITERS if other != delimiter and len(names) == 1 and other in names[0]]
    if not found:
        return None
    return (
        f"the first line, {names[0][:60]!r}, is one name where data.delimiter is {json.dumps(delimiter)}: set data.delimiter to "
        f'{NAMES[found[0]]}, {json.dumps(found[0])}, and data.decimal to "," if that stands in front of decimals'
    )


def _cells(lines: Sequence[str], delimiter: str) -> list[str]:
    """The cells of lines, each taken by itself: a quote that a line leaves open ends with it."""
    shortened = ([line[:CHARACTERS]] for line in lines)
    return [cell for line in shortened for row in csv.reader(line, delimiter=delimiter) for cell in row]
