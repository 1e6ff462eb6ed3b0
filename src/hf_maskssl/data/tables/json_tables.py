"""JSON files whose one object holds a whole table, which is read as a single row."""

from collections.abc import Sequence
from typing import TypeAlias

from datasets import Dataset, IterableDataset

from ...checks import shown
from .first_rows import first_rows
from .rows import Row

AnyDataset: TypeAlias = Dataset | IterableDataset
FILE_FIELDS = {"bytes", "path"}  # of a picture or sound, which a cell may hold
# Of pandas' orients: the field beside `data`, and the types of it and of a row.
ORIENTS: dict[str, tuple[str, type, type]] = {"split": ("columns", list, list), "table": ("schema", dict, dict)}
ADVICE = (
    'which would be one row: write a list of rows, [{"a": 1, "b": 2}, ...], or one row a line, as '
    "pandas' to_json(orient='records') does"
)


def refuse_whole_table(rows: AnyDataset, place: str, is_tabular: bool) -> None:
    """Refuse rows of a JSON file whose object holds a whole table in a form that no kind of data reads.

    Args:
        rows: Rows as `datasets` reads them.
        place: The source and its files, as errors name them.
        is_tabular: Whether the kind reads one number per cell, for which lists are no cells.

    Raises:
        ValueError: It does; the error says which form was found, and which one is read.
    """
    found = first_rows(rows, 2)
    form = _form(found[0]) if found else None
    if form is None and is_tabular and len(found) == 1:
        form = _lists_form(found[0])
    if form is not None:
        raise ValueError(f"{place}: the file is one object with {form}, {ADVICE}")


def _form(row: Row) -> str | None:
    """How an object holds a table; None where it holds the cells of one row."""
    cells = list(row.values())
    if len(cells) > 1 and all(isinstance(cell, dict) and len(cell) > 1 for cell in cells):
        keys = [set(cell) for cell in cells]
        if all(one == keys[0] for one in keys) and not keys[0] <= FILE_FIELDS and not any(map(_is_deep, cells)):
            return f"an object for each of {shown(list(row))} (pandas' orient 'columns' or 'index')"
    data = row.get("data")
    for orient, (beside, its_type, row_type) in ORIENTS.items():
        if isinstance(row.get(beside), its_type) and isinstance(data, list) and data and isinstance(data[0], row_type):
            return f"all rows below 'data', beside {beside!r} (pandas' orient {orient!r})"
    lists = [name for name, cell in row.items() if isinstance(cell, list) and cell and isinstance(cell[0], dict)]
    if len(cells) == len(lists) == 1:
        return f"all rows below {lists[0]!r}"
    return None


def _is_deep(cell: dict[str, object]) -> bool:
    return any(isinstance(value, dict | list) for value in cell.values())


def _lists_form(row: Row) -> str | None:
    """How the only row holds columns of a table as lists of one length; None where it does not."""
    cells: Sequence[object] = list(row.values())
    if len(cells) < 2:
        return None
    lengths = {len(cell) if isinstance(cell, list) else 0 for cell in cells}
    return f"a list for each of {shown(list(row))}" if len(lengths) == 1 and lengths != {0} else None
