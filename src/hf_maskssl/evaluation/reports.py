"""Results live once: a JSON file under benchmarks/results/, from which the tables in Markdown files are written.

A results file holds anything its script wants to keep, and what to show of it:

    {"table": {"columns": ["model", "accuracy"], "rows": [["MAE", {"mean": 91.2, "half_width": 0.5}]]}, ...}

In a Markdown file, `<!-- table:metamae_probe -->` ... `<!-- /table:metamae_probe -->`, each on a line of its own,
enclose the table of benchmarks/results/metamae_probe.json. A file with several tables keeps them as {"tables":
{"digits": {...}}} and they are called `<!-- table:metamae_probe/digits -->`. To rewrite README.md, docs/*.md and
model_cards/*.md:

    python -m hf_maskssl.evaluation.reports [--check]
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MARKER = re.compile(r"^<!-- (?P<closing>/?)table:(?P<name>[\w.-]+(?:/[\w.-]+)?) -->[ \t]*$", re.MULTILINE)


def writable_folder(folder: Path, field: str) -> Path:
    """`folder`, made if need be, before hours are spent on what is to be written there.

    Args:
        folder: where results are to go.
        field: who asked for it, for the error: "training.output_dir".

    Raises:
        ValueError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{field} {folder} cannot be written: {error}. Name a folder you may write to.") from error
    return folder


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as JSON. It is written aside and renamed: the file is the old one or the new one, never half of
    one.

    NumPy numbers and arrays are written as numbers and lists, paths as strings. Missing folders are made.

    Raises:
        ValueError: `data` holds NaN or an infinite number (JSON has none); the message says where.
        TypeError: `data` holds something that JSON cannot.
    """
    path = Path(path)
    plain = _to_plain(data, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(plain, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")
        os.chmod(aside, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _to_plain(value: Any, place: str) -> Any:
    """`value` in JSON's own types; `place` is where it stands, for messages: "runs[2].accuracy"."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item, f"{place}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _to_plain(value.tolist(), place)
    if isinstance(value, list | tuple):
        return [_to_plain(item, f"{place}[{position}]") for position, item in enumerate(value)]
    if isinstance(value, np.generic):
        return _to_plain(value.item(), place)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{place or 'the value'} is {value}; a result must be finite. Use None where there is nothing to say."
        )
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{place or 'the value'} is a {type(value).__name__}, which JSON cannot hold.")


def markdown_table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> str:
    """A Markdown table, without a final line break.

    Args:
        rows: cells are text, integers (as they are), floats (two decimals), None (a dash), or
            {"mean": float, "half_width": float | None} (91.25 ± 0.50). Columns of numbers are aligned to the right.
        columns: the head, one name a column.

    Raises:
        ValueError: a row has not one cell for each column, or a cell is of another kind.
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


def text_table(rows: Sequence[Sequence[Any]], columns: Sequence[str], width: int = 80) -> str:
    """A table for a terminal, without a final line break: the first column to the left, the others to the right.

    Args:
        rows: cells as of `markdown_table`; None is left empty.
        columns: the head, one name a column.
        width: characters of a line. Where it is too narrow, the first column loses the beginnings of its texts (which in
            paths say less than the ends), down to 16 characters each.

    Raises:
        ValueError: as `markdown_table`.
    """
    markdown_table(rows, columns)  # checks the cells
    lines = [[_format_cell(name) for name in columns]]
    lines += [["" if cell is None else _format_cell(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    widths[0] = min(widths[0], max(16, width - sum(2 + other for other in widths[1:])))
    drawn = []
    for name, *others in lines:
        name = name if len(name) <= widths[0] else "…" + name[len(name) - widths[0] + 1 :]
        cells = [cell.rjust(size) for cell, size in zip(others, widths[1:], strict=True)]
        drawn.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(drawn)


def _format_cell(cell: Any) -> str:
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


def read_table(name: str, results_dir: str | Path) -> str:
    """The Markdown of table `name` ("file" or "file/part") of the results in `results_dir`.

    Raises:
        ValueError: there is no such results file, or it holds no such table.
    """
    file_name, _, part = name.partition("/")
    path = Path(results_dir) / f"{file_name}.json"
    if not path.is_file():
        raise ValueError(f"The table {name!r} is asked for, but there is no {path}; run the script that writes it.")
    results = json.loads(path.read_text(encoding="utf-8"))
    table = results.get("tables", {}).get(part) if part else results.get("table")
    if not isinstance(table, dict) or not {"columns", "rows"} <= set(table):
        key = f'"tables": {{"{part}": ...}}' if part else '"table"'
        raise ValueError(f'{path} must hold {key} with "columns" and "rows" for the table {name!r}.')
    return markdown_table(table["rows"], table["columns"])


def fill_tables(text: str, results_dir: str | Path) -> str:
    """`text` with what stands between each pair of table markers replaced by the table they name.

    Raises:
        ValueError: a marker lacks its partner, or a table is not there.
    """
    pieces: list[str] = []
    position = 0
    opened: re.Match[str] | None = None
    for marker in MARKER.finditer(text):
        name, closing = marker["name"], bool(marker["closing"])
        if closing != (opened is not None) or (opened is not None and opened["name"] != name):
            raise ValueError(_unpaired(text, opened if opened is not None else marker))
        if closing:
            pieces.append(f"\n{read_table(name, results_dir)}\n")
            position, opened = marker.start(), None
        else:
            pieces.append(text[position : marker.end()])
            position, opened = marker.end(), marker
    if opened is not None:
        raise ValueError(_unpaired(text, opened))
    return "".join(pieces) + text[position:]


def _unpaired(text: str, marker: re.Match[str]) -> str:
    line = text.count("\n", 0, marker.start()) + 1
    partner = f"<!-- {'' if marker['closing'] else '/'}table:{marker['name']} -->"
    where = "before it" if marker["closing"] else "after it, ahead of any other marker"
    return f"Line {line}: {marker.group().strip()} needs its partner {partner} {where}, on a line of its own."


def update_tables(files: Iterable[str | Path], results_dir: str | Path, check: bool = False) -> list[Path]:
    """Rewrite the tables of Markdown files from the results they come from.

    Args:
        files: Markdown files. All are read before the first is written.
        results_dir: the folder of the JSON files.
        check: change nothing, only tell.

    Returns:
        The files that were changed, or with `check` would be.

    Raises:
        ValueError: a marker lacks its partner, or a table is not there; the message names the file.
    """
    changed: dict[Path, str] = {}
    for path in map(Path, files):
        text = path.read_text(encoding="utf-8")
        try:
            filled = fill_tables(text, results_dir)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if filled != text:
            changed[path] = filled
    if not check:
        for path, filled in changed.items():
            path.write_text(filled, encoding="utf-8")
    return list(changed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: rewrite, or with --check compare, the tables of README.md and the cards. 1 when they differ."""
    parser = argparse.ArgumentParser(description="Write the tables of Markdown files from benchmarks/results/*.json.")
    parser.add_argument("files", nargs="*", type=Path, help="default: README.md, docs/*.md, model_cards/*.md")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of the JSON files")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a table is out of date")
    options = parser.parse_args(arguments)
    folders = (Path("docs"), Path("model_cards"))
    files = options.files or [Path("README.md"), *(path for folder in folders for path in sorted(folder.glob("*.md")))]
    changed = update_tables(files, options.results, options.check)
    for path in changed:
        print(f"{path} {'is out of date' if options.check else 'was rewritten'}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
