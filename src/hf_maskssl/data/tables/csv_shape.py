"""How a CSV file is written: the character between its cells, the decimal point, and whether it has a line of names."""

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import fsspec

from ...checks import shown
from ...terminal import counted

COMMA, POINT = ",", "."
DELIMITERS = (COMMA, ";", "\t", "|")
NAMES = {COMMA: "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
LINES = 50  # first lines, which tell
CHARACTERS = 100_000  # of a line that are looked at: the csv module refuses longer cells
# In front of the decimals, thousands may have a mark between them.
DECIMAL_COMMA = re.compile(r"\s*[-+]?(?:\d+|\d{1,3}(?:[.'\s]\d{3})+),(\d+)([eE][-+]?\d+)?\s*")
DECIMAL_POINT = re.compile(r"\s*[-+]?(?:\d*|\d{1,3}(?:[,'\s]\d{3})+)\.\d+([eE][-+]?\d+)?\s*")
INDEX_LEVEL = re.compile(r"__index_level_\d+__")  # columns that the names of rows become
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
    lines = _first_lines(path)
    header = lines[:1]
    delimiter = max(DELIMITERS, key=lambda one: len(_cells(header, one)))
    cells = _cells(lines[1:], delimiter)
    commas = [found[1] for found in map(DECIMAL_COMMA.fullmatch, cells) if found]
    # Three digits behind a comma may be thousands, which decimal points beside them say.
    are_decimals = any(len(digits) != 3 for digits in commas) or not any(map(DECIMAL_POINT.fullmatch, cells))
    decimal = COMMA if delimiter != COMMA and commas and are_decimals else POINT
    return CsvShape(delimiter, decimal, tuple(_cells(header, delimiter)))


def _first_lines(path: str) -> list[str]:
    """The first lines of a CSV file that hold something: pandas skips empty ones, too."""
    with fsspec.open(path, "rt", encoding="utf-8-sig", newline="", compression="infer") as file:
        lines = [line for line in itertools.islice(file, LINES) if line.strip("\r\n")]
    if lines and "\0" in lines[0]:  # UTF-16 without a mark is valid UTF-8 as long as its letters are English
        raise UnicodeDecodeError(
            "utf-8", lines[0].encode()[:20], 0, 1, "every other character is a zero, as in UTF-16"
        )
    return lines


@dataclass(frozen=True)
class FirstLine:
    """What the first line of a CSV file and the rows below it have to do with each other.

    Attributes:
        repeated: Names that stand there more than once; pandas tells the second by ".1", the third by ".2".
        fault: Words on rows that would be read wrongly; None where there are none.
        has_row_names: Whether each row has one cell more than there are names, which is then the row's own name, as R writes it.
    """

    repeated: tuple[str, ...]
    fault: str | None
    has_row_names: bool


def look_at_first_line(path: str, delimiter: str) -> FirstLine:
    """Compare the first line of a CSV file with its first rows.

    Where the first row has more cells than there are names, pandas takes the first cells of every row for the row's name, and
    moves all others to the left. That is right for the names of rows that R writes. It is wrong where each row ends in a
    delimiter and the first line does not, where a text holds the delimiter, and where other lines stand in front of the names.

    Args:
        path: File or address, compressed or not.
        delimiter: Character between cells.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    lines = _first_lines(path)
    try:
        header, *rows = csv.reader((line[:CHARACTERS] for line in lines), delimiter=delimiter)
    except csv.Error:  # a cell of many lines, longer than this reader takes and pandas does
        header, rows = _cells(lines[:1], delimiter), []
    rows = rows[:-1] if len(lines) == LINES else rows  # the last line may break off within a cell
    repeated = tuple(name for name, count in Counter(header).items() if name and count > 1)
    size = len(rows[0]) if rows else 0
    if size <= len(header):
        return FirstLine(repeated, None, False)
    what = f"the first line has {counted(len(header), 'name')}, {shown(', '.join(header))}, but row 0 has {size} cells"
    whole = [row for row in rows if len(row) == size]
    if size == len(header) + 1 and not any(row[-1].strip() for row in whole):
        return FirstLine(
            repeated, f"{what}, the last of which is empty: let the first line end in {delimiter!r}, too", False
        )
    names = {row[0] for row in whole}
    if size == len(header) + 1 and len(header) > 1 and len(names) == len(rows):
        return FirstLine(repeated, None, True)
    advice = "name every column, put quotes around cells that hold the delimiter, and delete what stands in front of the names"
    return FirstLine(repeated, f"{what}: {advice}", False)


def other_delimiter(columns: Sequence[str], delimiter: str) -> str | None:
    """A sentence on what separates the cells, where the given delimiter has found one column whose name holds another.

    Args:
        columns: Names of the columns that were read.
        delimiter: Character that they were read with.
    """
    names = [name for name in columns if not INDEX_LEVEL.fullmatch(name)]  # commas of decimals make more
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
