"""Write the features of data: a frozen encoder's numbers for every row.

    hf-maskssl embed MODEL DATA --output FEATURES [options] [--field value]
    hf-maskssl embed MODEL RECIPE.yaml --output FEATURES [options]

MODEL is a checkpoint folder or a name on the Hub; its processor prepares the
rows as in training. DATA is a file (csv, parquet, json, txt, npy, npz, fasta),
a folder of pictures, sounds, tables or modalities, an address (s3://, hf://), a
name on the Hub, or digits, scenes, captioned_scenes, pydoc. The input column is
found by name and type; --input_column COLUMN names it, --streaming reads rows
as they come, and so for every field of a recipe's data section (hf-maskssl
fields data).
FEATURES is a .parquet or .npy file (with NAME.rows.parquet beside it), or a
folder for Parquet shards; an address works, too. Rows without input are left
out, counted and named. After an interruption give the command again.
Many processes: accelerate launch -m hf_maskssl embed ...
"""

import argparse
import sys
from itertools import takewhile

from transformers.utils import logging

from ..embedding.arguments import EmbedArguments
from ..embedding.run import EmbedReport, embed_to
from ..recipes import RECIPE_ENDINGS
from ..scripts import OneLineErrors


def parse_arguments(words: list[str]) -> EmbedArguments:
    """The command line: MODEL and DATA in front, then options; others are fields of the data section."""
    parser = OneLineErrors(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output", required=True, help=argparse.SUPPRESS)
    add("--recipe", help=argparse.SUPPRESS)
    add("--tokens", action="store_true", help="a row for each token, in order")
    add("--pooling", default="auto", choices=("auto", "pooler", "mean"), help="tokens to one row")
    add("--id_column", metavar="COLUMN", help="column that names rows; it goes along")
    add("--keep", nargs="+", default=[], metavar="COLUMN", help="further columns that go along")
    add("--splits", nargs="+", metavar="SPLIT", help="splits of the data; default: all")
    add("--batch_size", type=int, default=64, help="default: %(default)s rows")
    add("--num_workers", type=int, default=0, help="processes that prepare rows")
    add("--device", help="default: the GPU if there is one")
    add("--precision", default="auto", choices=("auto", "no", "bf16"), help="auto: bf16 on a GPU")
    add("--shard_rows", type=int, default=10_000, help="default: %(default)s rows of a shard")
    add("--overwrite", action="store_true", help="write over features that exist")
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    options, overrides = parser.parse_known_args(words[len(names) :])
    if not 1 <= len(names) <= 2:
        parser.error(f"expected MODEL and DATA (or --recipe RECIPE) in front of all options, got {names}")
    data = names[1] if len(names) > 1 else None
    if data is not None and data.lower().endswith(RECIPE_ENDINGS) and options.recipe is None:
        data, options.recipe = None, data
    return EmbedArguments(model=names[0], data=data, overrides=overrides, **vars(options))


def told(report: EmbedReport, id_column: str | None = None) -> str:
    """What was done, in lines of at most 80 columns."""
    lines = report.data.lines()
    lines += [f"left out of the stream: {count:,} rows, {reason}" for reason, count in report.left_out.items()]
    if report.done_before:
        lines.append(f"{report.done_before:,} shards were written before and are kept")
    if report.pools_windows:
        lines.append("a row is the mean of its windows; --pool_windows false gives each")
    lines.append(f"{report.rows:,} rows of {report.width:,} numbers in {report.seconds:.1f} s, written to")
    lines += [f"  {name}" for name in report.written]
    color = next((f" --color {name}" for name in report.carried if name != id_column), "")
    lines.append(f"next: hf-maskssl map {report.written[0]}{color} --output map.html")
    return "\n".join(lines)


def main() -> None:
    logging.disable_progress_bar()  # loading the weights takes a moment only
    args = parse_arguments(sys.argv[1:])
    report = embed_to(args)
    if report is not None:
        print(told(report, args.id_column))
