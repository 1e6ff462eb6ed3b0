"""Find the nearest rows of features: a table of queries and hits, or for
pictures a picture of them.

    hf-maskssl neighbors FEATURES --query ROW [ROW ...] [-k 5] [--output FILE]
    hf-maskssl neighbors FEATURES --queries FEATURES [-k 5] --output FILE

FEATURES is what hf-maskssl embed wrote: a .parquet or .npy file, or a folder.
--query takes rows of it, by their numbers in the table from 0 (or, with
--id_column COLUMN, by what stands there); a query is no hit of its own.
--queries takes all rows of other features by the same model. The search is
exact: by torch or, where it is installed and there are many rows, by FAISS.
FILE ends with .parquet, .csv, .md or, for rows that are picture files, .png.
Without one the hits are printed.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from ..embedding.encoders import chosen_device
from ..embedding.feature_files import FeatureTable, read_features
from ..embedding.neighbors import TABLE_ENDINGS, draw_hits, hits_table, nearest_rows, write_table
from ..embedding.rows import PATH, ROW, SPLIT
from ..evaluation.reports import significant
from ..recipes import nearest
from ..scripts import OneLineErrors

PICTURE_ENDINGS = (".png", ".pdf", ".svg")
PRINTED = 40
WIDTH = 80


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = OneLineErrors(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("features", metavar="FEATURES", help="features to search")
    add("--query", nargs="+", metavar="ROW", help="rows to look for")
    add("--queries", metavar="FEATURES", help="features to look for")
    add("--id_column", metavar="COLUMN", help="column that names rows")
    add("-k", type=int, default=5, help="number of hits; default: %(default)s")
    add("--measure", default="cosine", choices=("cosine", "euclidean"), help="default: %(default)s")
    add("--search", default="auto", choices=("auto", "exact", "faiss"), help="default: %(default)s")
    add("--title", metavar="COLUMN", help="column above each picture")
    add("--output", type=Path, metavar="FILE", help="table or picture to write")
    add("--overwrite", action="store_true", help="write over a file that exists")
    options = parser.parse_args(words)
    if (options.query is None) == (options.queries is None):
        parser.error("expected one of --query and --queries")
    return options


def chosen_rows(table: FeatureTable, names: list[str], id_column: str | None) -> np.ndarray:
    """Numbers of the rows that --query names.

    Raises:
        ValueError: A name or number of no row.
    """
    if id_column is not None:
        known = {
            str(value): place for place, value in reversed(list(enumerate(table.column(id_column, "--id_column"))))
        }
        for name in names:
            if name not in known:
                raise ValueError(f"--query {name}: no row has it in {id_column!r}{nearest(name, known)}")
        return np.array([known[name] for name in names])
    for name in names:
        if not name.isdigit() or int(name) >= len(table):
            raise ValueError(f"--query {name}: expected a row from 0 to {len(table) - 1} (or name --id_column)")
    return np.array([int(name) for name in names])


def main() -> None:
    options = parse_arguments(sys.argv[1:])
    output: Path | None = options.output
    if output is not None and output.suffix not in (*TABLE_ENDINGS, *PICTURE_ENDINGS):
        raise ValueError(
            f"--output {output}: expected a name that ends with {', '.join((*TABLE_ENDINGS, *PICTURE_ENDINGS))}"
        )
    if output is not None and output.exists() and not options.overwrite:
        raise ValueError(f"--output {output} exists: take another name, or write over it by --overwrite")
    table = read_features(options.features)
    own: np.ndarray | None = None
    if options.query is not None:
        own = chosen_rows(table, options.query, options.id_column)
        queries, numbers = table.select(own), own
    else:
        queries = read_features(options.queries, "--queries")
        numbers = np.arange(len(queries))
    found = nearest_rows(
        queries.values, table.values, options.k, options.measure, own, options.search, chosen_device(None)
    )
    if output is not None and output.suffix in PICTURE_ENDINGS:
        draw_hits(found, queries, table, output, options.title)
    else:
        hits = hits_table(found, queries, table, numbers.tolist())
        if output is None:
            hidden = [f"{side}_{name}" for side in ("query", "hit") for name in (ROW, SPLIT, PATH)]
            hits = hits.drop(columns=hidden, errors="ignore")
            four_digits = partial(significant, digits=4)
            print(
                hits.head(PRINTED).to_string(index=False, max_colwidth=24, line_width=WIDTH, float_format=four_digits)
            )
            return
        write_table(hits, output)
    print(f"{options.k} hits of {len(numbers):,} rows among {len(table):,}, written to {output}")
