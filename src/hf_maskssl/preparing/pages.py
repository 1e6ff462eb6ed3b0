"""What is said of the data sets: the list, and all of one."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from ..terminal import WIDTH, shell_line
from .catalogue import DATA_SETS
from .prepare import command_of, first_commands
from .record import PaperData


def list_lines() -> Iterator[str]:
    """A line of at most 80 columns for each data set, those of one table of a paper together."""
    groups: dict[str, list[PaperData]] = {}
    for record in DATA_SETS.values():
        groups.setdefault(record.paper.partition(";")[0], []).append(record)
    width = max(len(name) for name in DATA_SETS)
    for paper, records in groups.items():
        yield f"{paper}:"
        for record in records:
            ways = f"  {record.name:{width}}  {how_to_get(record):8}  "
            yield textwrap.shorten(record.title.partition(": ")[2], WIDTH, initial_indent=ways, placeholder=" ...")
    yield ""
    yield "download: --download fetches it; --raw: unpack it yourself (terms, or no"
    yield "address). `hf-maskssl data show NAME` says from where, and which files."


def how_to_get(record: PaperData) -> str:
    """The option that brings the release."""
    return "download" if record.downloads else "--raw"


def show_lines(record: PaperData) -> Iterator[str]:
    """All of a record, in lines of at most 80 columns but for addresses."""
    yield from _field("", record.title, indent=0)
    yield ""
    yield from _field("paper", record.paper)
    yield from _field("source", record.source)
    yield from _field("licence", record.licence)
    if record.hub is not None:
        yield from _field("on the Hub", record.hub)
    for number, line in enumerate(record.layout):
        yield from _field("" if number else "files", line)
    yield from _field("splits", record.splits)
    counts = [f"{split} {'not documented' if count is None else f'{count:,}'}" for split, count in record.rows.items()]
    yield from _field("rows", ", ".join(counts))
    classes = [f"{name} {count:,}" for name, count in record.labels.items()]
    if classes:
        yield from _field("classes", ", ".join(classes))
    yield from _field("columns", ", ".join(_shortened(list(record.columns))))
    if record.note:
        yield from _field("note", record.note)
    for number, address in enumerate(record.documented):
        yield from _field("" if number else "documented", address)
    yield ""
    option = "--download" if record.downloads else "--raw FOLDER"
    yield f"  hf-maskssl data prepare {record.name} {option}"
    for use in record.uses:
        yield from (shell_line(words) for words in first_commands(use, Path(record.name)))
        yield shell_line(command_of(record, use, f"{record.name}/{use.file}"))
        yield from (f"    # {line}" for line in textwrap.wrap(use.expected, WIDTH - 6))


def _shortened(names: list[str]) -> list[str]:
    return names if len(names) < 9 else [*names[:3], "...", names[-1]]


def _field(name: str, text: str, indent: int = 12) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{name:{indent}}",
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
