"""JSON files that hold a whole table as one value, which would be read as a single row or as rows without names."""

import itertools
import json
import re
from collections.abc import Sequence
from typing import TypeAlias

import fsspec
from datasets import Dataset, IterableDataset

from ...checks import shown
from .files import READING_ERRORS
from .first_rows import first_rows
from .rows import Row

AnyDataset: TypeAlias = Dataset | IterableDataset
FILE_FIELDS = {"bytes", "path"}  # of a picture or sound, which a cell may hold
# Of pandas' orients: the field beside `data`, and the types of it and of a row.
ORIENTS: dict[str, tuple[str, type, type]] = {"split": ("columns", list, list), "table": ("schema", dict, dict)}
SPLIT_FIELDS = ("columns", "index", "data")  # in pandas' order: the index of a long table stands in front of its rows
EITHER = "'columns' or 'index'"
WRITE_ROWS = (
    'write a list of rows, [{"a": 1, "b": 2}, ...], or one row a line, as pandas\' to_json(orient=\'records\') does'
)
CHARACTERS = 200_000  # of a file that are looked at
NAMED_KEYS = 5
# Texts, a text that is cut off, and the signs of objects and lists.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|"|[\[\]{},]', re.DOTALL)
CLOSED_BY = {"{": "}", "[": "]"}


def look_for_whole_table(path: str) -> str | None:
    """Words on a JSON file whose first value is a whole table in one of pandas' orients but 'records', or lists without names.

    The file's beginning tells: of 200,000 rows in orient 'index' `datasets` would make as many columns, which takes hours.

    Args:
        path: File or address, compressed or not.
    """
    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            value = _beginning(file.read(CHARACTERS).lstrip())
    except READING_ERRORS:  # reading the rows says what is wrong
        return None
    if isinstance(value, dict):
        form = _form(value)
        return form and f"the file is one object with {form}, which would be one row: {WRITE_ROWS}"
    first = value[0] if isinstance(value, list) and value else {}
    if isinstance(first, dict | str):  # rows, or texts
        return None
    rows = "lists without names of columns (pandas' orient 'values')" if isinstance(first, list) else "numbers"
    return f"the file begins with a list of {rows}: {WRITE_ROWS}"


def refuse_lists(rows: AnyDataset, place: str) -> None:
    """Refuse the only row of JSON files where it holds the columns of a table as lists, for kinds that read one number a cell.

    Args:
        rows: Rows as `datasets` reads them.
        place: Words in front of the message.

    Raises:
        ValueError: It does.
    """
    found = first_rows(rows, 2)
    cells: Sequence[object] = list(found[0].values()) if len(found) == 1 else []
    lengths = {len(cell) if isinstance(cell, list) else 0 for cell in cells}
    if len(cells) > 1 and len(lengths) == 1 and lengths != {0}:
        raise ValueError(
            f"{place}the file is one object with a list for each of {_names(found[0])}, which would be one row: {WRITE_ROWS}"
        )


def _beginning(text: str) -> object:
    """The list, or the one object, of a JSON text as far as it is there; None of another value, or several objects."""
    open_signs: list[str] = []
    whole, closing = 0, ""  # end of the last entry that is complete, and what closes the value behind it
    for token in TOKEN.finditer(text):
        sign = token[0]
        if sign in CLOSED_BY:
            open_signs.append(sign)
        elif not open_signs or sign == '"':
            break
        elif sign in ",]}":
            if sign != ",":
                open_signs.pop()
            whole = token.start() if sign == "," else token.end()
            closing = "".join(CLOSED_BY[one] for one in reversed(open_signs))
            if not open_signs:
                break
    if text[:whole].startswith("{") and not open_signs and text[whole:].strip():  # rows, one a line
        return None
    try:
        return json.loads(text[:whole] + closing) if whole else None
    except (ValueError, RecursionError):  # reading the rows says what is wrong
        return None


def _form(row: Row) -> str | None:
    """How an object holds a table; None where it holds the cells of one row."""
    cells = list(row.values())
    if cells and all(isinstance(cell, dict) and cell for cell in cells) and not set(cells[0]) <= FILE_FIELDS:
        is_wide = len(cells) > 1 and len(cells[0]) > 1 and not any(map(_is_deep, cells))
        # Of a long table the last object is cut.
        are_alike = all(set(cell) == set(cells[0]) for cell in cells[:-1]) and set(cells[-1]) <= set(cells[0])
        orient = "'index'" if _is_counted(row) else "'columns'" if all(map(_is_counted, cells)) else None
        if are_alike and (is_wide or orient):
            return f"an object for each of {_names(row)} (pandas' orient {orient or EITHER})"
    data = row.get("data")
    for orient, (beside, its_type, row_type) in ORIENTS.items():
        has_rows = isinstance(data, list) and data and isinstance(data[0], row_type)
        is_split = isinstance(row.get("index"), list) and set(row) <= set(SPLIT_FIELDS)
        if isinstance(row.get(beside), its_type) and (has_rows or (orient == "split" and is_split)):
            return f"all rows below 'data', beside {beside!r} (pandas' orient {orient!r})"
    lists = [name for name, cell in row.items() if isinstance(cell, list) and cell and isinstance(cell[0], dict)]
    if len(lists) == 1:
        return f"all rows below {lists[0]!r}"
    return None


def _is_counted(row: Row) -> bool:
    """Whether the names are 0, 1, ..., as pandas numbers rows."""
    return all(name == str(number) for name, number in zip(row, itertools.count(), strict=False))


def _is_deep(cell: dict[str, object]) -> bool:
    return any(isinstance(value, dict | list) for value in cell.values())


def _names(row: Row) -> str:
    names = list(row)
    more = "" if len(names) <= NAMED_KEYS else ", ..."
    return shown(names[:NAMED_KEYS]) + more
