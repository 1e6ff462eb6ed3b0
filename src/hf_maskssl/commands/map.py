"""Draw a map of features: a point for every row, coloured by a column.

    hf-maskssl map FEATURES [--color COLUMN] --output map.png [map.html]

FEATURES is what hf-maskssl embed wrote: a .parquet or .npy file, or a folder.
--color takes a column that came along (a label, or one of --keep): a colour
for each class, or a scale for numbers. --method pca shows the two directions
along which the features vary most; umap (pip install "hf_maskssl[map]") shows
which rows are neighbours. Of more than 50,000 rows so many are drawn.

A picture ends with .png, .pdf or .svg. A page ends with .html: one file that
loads nothing, with what a row is where the pointer is; the wheel zooms, and a
click on a class hides it.
"""

import argparse
import sys
from pathlib import Path

from ..embedding.feature_files import read_features
from ..embedding.map_page import write_page
from ..embedding.maps import coloring, draw_map, map_features
from ..scripts import OneLineErrors

ENDINGS = (".png", ".pdf", ".svg", ".html")


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = OneLineErrors(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("features", metavar="FEATURES", help="features to draw")
    add("--color", metavar="COLUMN", help="column that colours the points")
    add("--method", default="pca", choices=("pca", "umap"), help="default: %(default)s")
    add("--seed", type=int, default=0, help="seed of UMAP and of the rows drawn")
    add("--output", type=Path, nargs="+", required=True, metavar="FILE", help="files to write")
    add("--overwrite", action="store_true", help="write over files that exist")
    return parser.parse_args(words)


def main() -> None:
    options = parse_arguments(sys.argv[1:])
    for path in options.output:
        if path.suffix not in ENDINGS:
            raise ValueError(f"--output {path}: expected a name that ends with {', '.join(ENDINGS)}")
        if path.exists() and not options.overwrite:
            raise ValueError(f"--output {path} exists: take another name, or write over it by --overwrite")
    table = read_features(options.features)
    if options.color is not None:
        table.column(options.color, "--color")  # before UMAP, which takes minutes
    found = map_features(table, options.method, options.seed)
    colors = coloring(found.table, options.color)
    for path in options.output:
        (write_page if path.suffix == ".html" else draw_map)(found, colors, path)
    rows = (
        f"{found.rows:,} rows" if found.rows == len(found.points) else f"{len(found.points):,} of {found.rows:,} rows"
    )
    print(f"{rows}, written to {', '.join(map(str, options.output))}")
