"""Tables of results, for Markdown and for terminals."""

import math
from collections.abc import Mapping, Sequence

FEWEST_DECIMALS, FEWEST_DIGITS, DIGITS_OF_HALF_WIDTH = 2, 3, 2


def markdown_table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> str:
    """A Markdown table, without a final line break.

    Args:
        rows: Rows of cells: text, integers (as they are), floats, None (a dash), or {"mean": float, "half_width": float |
            None} (91.25 ± 0.50). Numbers have two decimals, small ones as many as three significant digits need (0.0123), but
            not more than two significant digits of the half width need (0.05 ± 0.43, 0.0123 ± 0.0045). Columns of numbers are
            aligned to the right.
        columns: The head, one name a column.

    Raises:
        ValueError: A row has not one cell for each column, or a cell is of another kind.
    """
    for position, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"Row {position} of the table has {len(row)} cells for {len(columns)} columns: {row!r}.")
    alignments = [
        "---" if not rows or any(isinstance(row[column], str) for row in rows) else "---:"
        for column in range(len(columns))
    ]
    body = [[_format_cell(cell) for cell in row] for row in rows]
    lines = [[_format_cell(name) for name in columns], alignments, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text_table(rows: Sequence[Sequence[object]], columns: Sequence[str], width: int = 80) -> str:
    """A table for a terminal, without a final line break: the first column to the left, the others to the right.

    Args:
        rows: Rows of cells as in `markdown_table`; None becomes an empty cell.
        columns: The head, one name a column.
        width: Characters of a line. Where it is too narrow, the first column loses the beginnings of its texts (which in
            paths say less than the ends), down to 16 characters each; where that is not enough, columns that find no place stand
            in further tables below, each with the first column.

    Raises:
        ValueError: A row or cell that `markdown_table` refuses.
    """
    markdown_table(rows, columns)  # checks the cells
    lines = [[_format_cell(name) for name in columns]]
    lines += [["" if cell is None else _format_cell(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    room = width - sum(2 + other for other in widths[1:])  # for the first column
    first = min(widths[0], max(16, room if room >= 16 else width // 3))
    blocks: list[list[int]] = [[]]
    for column in range(1, len(columns)):
        if blocks[-1] and first + sum(2 + widths[other] for other in [*blocks[-1], column]) > width:
            blocks.append([])
        blocks[-1].append(column)
    tables = []
    for block in blocks:
        drawn = []
        for line in lines:
            name = line[0] if len(line[0]) <= first else "…" + line[0][len(line[0]) - first + 1 :]
            cells = [line[column].rjust(widths[column]) for column in block]
            drawn.append("  ".join([name.ljust(first), *cells]).rstrip())
        tables.append("\n".join(drawn))
    return "\n\n".join(tables)


def significant(value: float, digits: int = FEWEST_DIGITS) -> str:
    """A number with so many significant digits at least, and no exponent."""
    return f"{value:.{max(0, _decimals(value, digits))}f}"


def _decimals(value: float, digits: int) -> int:
    """The number of decimals that show so many significant digits; below 0 before the decimal point."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def _format_numbers(mean: float, half_width: float | None) -> str:
    decimals = _decimals(mean, FEWEST_DIGITS)
    if half_width:
        of_half_width = _decimals(half_width, DIGITS_OF_HALF_WIDTH)
        decimals = min(decimals, of_half_width) if mean else of_half_width
    decimals = max(FEWEST_DECIMALS, decimals)
    if half_width is not None:
        return f"{mean:.{decimals}f} ± {half_width:.{decimals}f}"
    text = f"{mean:.{decimals}f}"  # of a number by itself, such as 0.05, zeros at the end say nothing
    return text[: len(text) - decimals + FEWEST_DECIMALS] + text[len(text) - decimals + FEWEST_DECIMALS :].rstrip("0")


def _format_cell(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, Mapping) and set(cell) == {"mean", "half_width"}:
        return _format_numbers(cell["mean"], cell["half_width"])
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return _format_numbers(cell, None)
    if isinstance(cell, int | str):
        return str(cell).replace("|", "\\|").replace("\n", " ")
    raise ValueError(
        "A table cell must be text, a number, None or {'mean': ..., 'half_width': ...}, "
        f"got {type(cell).__name__}: {cell!r}."
    )
