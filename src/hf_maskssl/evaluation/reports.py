"""Tables of results, for Markdown and for terminals."""

from collections.abc import Mapping, Sequence


def markdown_table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> str:
    """A Markdown table, without a final line break.

    Args:
        rows: Rows of cells: text, integers (as they are), floats (two decimals), None (a dash), or
            {"mean": float, "half_width": float | None} (91.25 ± 0.50). Columns of numbers are aligned to the right.
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


def _format_cell(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, Mapping) and set(cell) == {"mean", "half_width"}:
        mean, half_width = cell["mean"], cell["half_width"]
        return f"{mean:.2f}" if half_width is None else f"{mean:.2f} ± {half_width:.2f}"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    if isinstance(cell, int | str):
        return str(cell).replace("|", "\\|").replace("\n", " ")
    raise ValueError(
        "A table cell must be text, a number, None or {'mean': ..., 'half_width': ...}, "
        f"got {type(cell).__name__}: {cell!r}."
    )
