"""Prepare the papers' data sets: from the files of the original release to
Parquet with the paper's splits, checked, and recipes that read it.

    hf-maskssl data list
    hf-maskssl data show NAME
    hf-maskssl data prepare NAME --raw FOLDER [--output_dir FOLDER]
    hf-maskssl data prepare NAME --download

FOLDER of --raw holds the release, unpacked; `show` says which files, where
they come from, under which licence, and what differs from the paper. Counts
that are not those of the whole release are warnings. In the output folder:
  SPLIT.parquet      rows of a split, or, for aligned pictures,
  SPLIT/MODALITY/CLASS/NAME.EXT, links to the release where it is unchanged
  pretrain.yaml, ... a recipe for each use, with the paper's number
  prepared.json      counts, source, licence
"""

import argparse
from pathlib import Path

from ..preparing.catalogue import DATA_SETS, find_data_set
from ..preparing.downloads import download
from ..preparing.pages import list_lines, show_lines
from ..preparing.prepare import Prepared, command_of, first_commands, prepare
from ..preparing.record import PaperData
from ..recipes import nearest
from ..scripts import OneLineErrors
from ..terminal import shell_line

ACTIONS = ("list", "show", "prepare")


def main() -> None:
    """List, show or prepare data sets."""
    options = parse_arguments()
    if options.action == "list":
        print("\n".join(list_lines()))
        return
    record = find_data_set(options.name)
    if options.action == "show":
        print("\n".join(show_lines(record)))
        return
    roots = download(record) if options.download else (options.raw,)
    prepared = prepare(
        record,
        roots,
        options.output_dir or Path(record.name),
        partial=options.partial,
        max_rows=options.max_rows,
        keeps_paths=options.paths,
        overwrite=options.overwrite,
    )
    print("\n".join(report_lines(record, prepared)))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = OneLineErrors(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("action", metavar="ACTION", nargs="?", default="list", help="list, show or prepare; default: %(default)s")
    add("name", metavar="NAME", nargs="?", help="name of a data set")
    add("--raw", type=Path, metavar="FOLDER", help="folder of the release")
    add("--download", action="store_true", help="whether to fetch the release first")
    add("--output_dir", type=Path, metavar="FOLDER", help="folder to write; default: NAME")
    add("--partial", action="store_true", help="whether to leave out rows without their file")
    add("--max_rows", type=int, metavar="N", help="number of rows of a split at most, for a trial")
    add("--paths", action="store_true", help="whether to write paths of pictures and sounds")
    add("--overwrite", action="store_true", help="whether to replace an earlier preparation")
    options = parser.parse_args()
    if options.action not in ACTIONS:
        known = [*ACTIONS, *DATA_SETS]
        parser.error(
            f"ACTION: expected one of {list(ACTIONS)}, got {options.action!r}{nearest(options.action, known)}"
        )
    if options.action != "list" and options.name is None:
        parser.error(f"NAME: expected the name of a data set to {options.action}, got nothing")
    if options.action == "prepare" and (options.raw is None) != options.download:
        parser.error("expected one of --raw FOLDER and --download")
    if options.max_rows is not None and options.max_rows < 1:
        parser.error(f"--max_rows: expected a number of 1 or more, got {options.max_rows}")
    return options


def report_lines(record: PaperData, prepared: Prepared) -> list[str]:
    """What was written, and the commands to go on with."""
    rows = ", ".join(f"{split} {count:,}" for split, count in prepared.rows.items())
    classes = ", ".join(f"{name} {count:,}" for name, count in prepared.classes.items())
    lines = [f"Written: {prepared.folder}", f"rows: {rows}"]
    if classes:
        lines.append(f"classes: {classes}")
    compared = [split for split, expected in record.rows.items() if expected is not None]
    if not prepared.differences and compared:
        which = "Counts" if len(compared) == len(record.rows) else f"Counts of {', '.join(compared)}"
        lines.append(f"{which} are those of the whole release.")
    lines.append("Next:")
    for use, path in prepared.recipes:
        lines += [shell_line(words) for words in first_commands(use, prepared.folder)]
        lines += [shell_line(command_of(record, use, path)), f"    # {use.expected}"]
    return lines
