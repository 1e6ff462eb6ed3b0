"""Results live once: a JSON file under benchmarks/results/, from which the tables in Markdown files are written.

A results file holds anything its script wants to keep, and what to show of it:

    {"table": {"columns": ["model", "accuracy"], "rows": [["MAE", {"mean": 91.2, "half_width": 0.5}]]}, ...}

In a Markdown file, `<!-- table:metamae_probe -->` ... `<!-- /table:metamae_probe -->`, each on a line of its own,
enclose the table of benchmarks/results/metamae_probe.json. A file with several tables keeps them as {"tables":
{"digits": {...}}} and they are called `<!-- table:metamae_probe/digits -->`. To rewrite README.md, docs/**/*.md and
model_cards/*.md:

    python benchmarks/markdown_tables.py [--check]
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_maskssl.evaluation.reports import markdown_table

MARKER = re.compile(r"^<!-- (?P<closing>/?)table:(?P<name>[\w.-]+(?:/[\w.-]+)?) -->[ \t]*$", re.MULTILINE)


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
    parser.add_argument("files", nargs="*", type=Path, help="default: README.md, docs/**/*.md, model_cards/*.md")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of the JSON files")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a table is out of date")
    options = parser.parse_args(arguments)
    folders = (Path("docs"), Path("model_cards"))
    files = options.files or [
        Path("README.md"),
        *(path for folder in folders for path in sorted(folder.rglob("*.md"))),
    ]
    changed = update_tables(files, options.results, options.check)
    for path in changed:
        print(f"{path} {'is out of date' if options.check else 'was rewritten'}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
