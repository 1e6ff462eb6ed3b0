"""Fill in what is missing in a table or in series, by a pre-trained model.

    hf-maskssl impute CHECKPOINT DATA [--output FILE]

CHECKPOINT is a folder or a Hub name of a pre-trained MetaMAE or SMA of tables
or series. DATA is a table with the columns that it was trained on (.csv, .tsv,
.json, .jsonl, also packed as .gz, or .parquet), of a logger one row a time
step, of series also with a column of lists; or an array (n, channels, steps) in
an .npy file. NaN, null and empty cells are missing.
FILE is written in the same form, categories in the data's own words, beside it
FILE.json with the errors on values that were hidden on purpose.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ..checkpoint_folders import checkpoint_folder
from ..evaluation.imputation import ImputationError, Imputed, impute
from ..evaluation.imputation_files import HoledFile, ending_of
from ..evaluation.logger_imputation import impute_logger, is_of_logger
from ..evaluation.series_imputation import impute_column, series_columns
from ..files import write_json, write_whole
from ..scripts import OneLineErrors


def main(argv: Sequence[str] | None = None) -> Path:
    """Command line; returns the file of the filled data."""
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or Hub name of a pre-training checkpoint")
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="file with missing values: .csv, .json, .parquet, .npy"
    )
    parser.add_argument("--output", type=Path, help="file to write; default: DATA with `.imputed` before its ending")
    parser.add_argument(
        "--hidden_share",
        type=float,
        default=0.1,
        help="share of the values that are hidden to measure the error; default: %(default)s",
    )
    parser.add_argument("--input_column", help="column of lists with the series, where DATA has several such columns")
    parser.add_argument("--group_column", help="column of a logger's table that tells its series apart")
    parser.add_argument("--time_column", help="column of a logger's table with the time of each row")
    parser.add_argument("--seed", type=int, default=0, help="seed of the hidden values; default: %(default)s")
    parser.add_argument("--batch_size", type=int, default=256, help="number of rows at a time; default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="write over a file that exists")
    options = parser.parse_args(argv)
    ending = ending_of(options.data)
    stem = options.data.name.removesuffix(ending)
    output = options.output or options.data.with_name(f"{stem}.imputed{ending}")
    if (ending and ending_of(output) != ending) or output.resolve() == options.data.resolve():
        raise ValueError(f"--output {output}: expected another file than DATA, ending in {ending} as it does")
    if output.exists() and not options.overwrite:
        raise ValueError(f"--output {output} exists: take another name, or write over it by --overwrite")
    if options.batch_size < 1:
        raise ValueError(f"--batch_size: expected at least 1, got {options.batch_size}")
    source = HoledFile.read(options.data)
    folder = checkpoint_folder(options.checkpoint, "CHECKPOINT")
    found = _filled(folder, source, options)
    write_whole(output, lambda path: source.write(found.data, path))
    report = output.with_name(f"{output.name}.json")
    missing = int(found.was_missing.sum())
    errors = [dataclasses.asdict(error) for error in found.errors]
    write_json(report, {"values": found.was_missing.size, "missing": missing, "errors": errors})
    print(f"{missing:,} of {found.was_missing.size:,} values were missing")
    for line in error_lines(found.errors):
        print(line)
    print(f"Written: {output}")
    print(f"Written: {report}")
    return output


def _filled(folder: Path, source: HoledFile, options: argparse.Namespace) -> Imputed:
    """The data filled in as what they are: a logger's table, a table with a column of series, a table, or an array."""
    settings = {"hidden_share": options.hidden_share, "seed": options.seed, "batch_size": options.batch_size}
    if source.is_table and is_of_logger(folder, list(source.data.columns)):
        return impute_logger(folder, source.data, options.group_column, options.time_column, **settings)
    for name in ("group_column", "time_column"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name}: DATA has not all the channels of a logger's table that CHECKPOINT was trained on, or it was trained "
                "on other data: leave it out, or name the checkpoint of that table"
            )
    columns = series_columns(folder, source.data) if source.is_table else []
    if options.input_column is not None and options.input_column not in columns:
        raise ValueError(
            f"--input_column {options.input_column}: expected a column of lists, for a checkpoint of series; there are {columns}"
        )
    if len(columns) > 1 and options.input_column is None:
        raise ValueError(f"DATA: {columns} all hold lists: name the column of the series by --input_column")
    if columns:
        return impute_column(folder, source.data, options.input_column or columns[0], **settings)
    return impute(folder, source.data, **settings)


def error_lines(errors: Sequence[ImputationError]) -> list[str]:
    """A table of the errors of numbers and one of those of categories, at most 80 columns wide."""
    numbers = [(one.name, one.rmse, one.rmse_of_mean, one.values) for one in errors if one.rmse is not None]
    categories = [
        (one.name, one.wrong, one.wrong_of_most_frequent, one.values) for one in errors if one.wrong is not None
    ]
    return [
        *_table("rmse", "of the mean", numbers, lambda value: f"{value:.4g}"),
        *_table("wrong", "of the commonest", categories, lambda value: f"{100 * value:.1f} %"),
    ]


def _table(
    measure: str,
    compared: str,
    rows: Sequence[tuple[str, float | None, float | None, int]],
    words: Callable[[float], str],
) -> list[str]:
    """Name, error, error of what it is compared with, and number of values, a line each; nothing without rows."""
    if not rows:
        return []
    width = min(30, max(7, *(len(name) for name, *_ in rows)))
    lines = [f"{'':{width}} {measure:>14} {compared:>16} {'values':>10}"]
    for name, own, other, values in rows:
        short = name if len(name) <= width else f"{name[: width - 3]}..."
        errors = ["" if one is None else words(one) for one in (own, other)]
        lines.append(f"{short:{width}} {errors[0]:>14} {errors[1]:>16} {values:>10,}")
    return lines
