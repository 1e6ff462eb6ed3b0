"""Run the settings of a sweep: a grid or a list of changes to a recipe.

    hf-maskssl sweep SWEEP [--workers N] [--any_field value ...]
    hf-maskssl sweep SWEEP --dry_run
    hf-maskssl sweep --list

SWEEP is a YAML file, or the name of a sweep of the package: those of the
papers' tables, such as metamae_table6. They run at reduced size on small data;
--recipe names others, such as metamae_pamap2 for the paper's. A file holds
  recipe: digits                          a recipe, or a list of several
  verbs: [pretrain, probe]                or pretrain, finetune; or finetune
  seeds: [0, 1, 2]
  overrides: {training.max_steps: 200}    in all runs
  grid: {model.mask_ratio: [0.5, 0.85]}   or cases: [{name: ..., ...}, ...]
  paper: {source: ..., what: ..., values: {column: {0.5: 89.3}}}

Writes results.json, results.md (one table, the paper's number beside) and
results.png. Each run is a process of its own. The same command goes on after an
interruption: finished runs are kept, stopped ones continue, failed ones are
tried again. Runs of changed settings are new runs. Exit code 1: some failed.
"""

import argparse
from pathlib import Path

from ..evaluation.reports import text_table
from ..scripts import OneLineErrors
from ..terminal import terminal_width, wrapped
from ..training.sweeps.plan import command_line_overrides, plan_runs
from ..training.sweeps.run import Ended, dry_lines, run_sweep
from ..training.sweeps.sweep_file import Sweep, find_sweep, load_sweep, sweep_folder, sweep_names
from .recipes import titled_lines


def main() -> None:
    """Read the command line, and run, list or describe."""
    options, words = parse_arguments()
    if options.list:
        print("\n".join(list_lines()))
        return
    name = find_sweep(options.sweep).stem
    sweep = changed_sweep(options, words)
    runs = plan_runs(sweep)
    output = options.output_dir or Path("outputs") / name
    if options.dry_run:
        print("\n".join(wrapped(line, terminal_width()) for line in dry_lines(sweep, runs, output, options.workers)))
        return
    ended = run_sweep(name, sweep, runs, output, options.workers, options.overwrite)
    print("\n".join(end_lines(ended, output)), flush=True)
    if ended.failed:
        raise SystemExit(1)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the words that change fields of the recipe."""
    parser = OneLineErrors(
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP", nargs="?", help="file or name of a sweep")
    add("--list", action="store_true", help="whether to list the package's sweeps")
    add("--dry_run", action="store_true", help="whether to list the runs alone")
    add("--output_dir", type=Path, metavar="FOLDER", help="folder of the results; default: outputs/NAME")
    add("--recipe", nargs="+", metavar="RECIPE", help="recipes in place of the file's")
    add("--probe_recipe", nargs="+", metavar="RECIPE", help="recipes of the probes' data, one each")
    add("--finetune_recipe", metavar="RECIPE", help="recipe of fine-tuning in place of the file's")
    add("--seeds", nargs="+", type=int, metavar="N", help="seeds in place of the file's")
    add("--workers", type=int, default=1, metavar="N", help="number of runs at a time; default: %(default)s")
    add("--overwrite", action="store_true", help="whether to throw former runs away")
    options, words = parser.parse_known_args()
    if options.sweep is None and not options.list:
        parser.error("SWEEP: expected a file or the name of a sweep, got nothing")
    if options.workers < 1:
        parser.error(f"--workers: expected at least 1, got {options.workers}")
    return options, words


def changed_sweep(options: argparse.Namespace, words: list[str]) -> Sweep:
    """The sweep of the file, with what the command line changes."""
    given = {name: vars(options)[name] for name in ("recipe", "probe_recipe", "finetune_recipe", "seeds")}
    changes = {name: value for name, value in given.items() if value is not None}
    sweep = load_sweep(options.sweep, changes)
    return load_sweep(options.sweep, changes | {"overrides": command_line_overrides(sweep, words)}) if words else sweep


def list_lines() -> list[str]:
    """A line of at most 80 columns for each sweep of the package."""
    rows = [(name, load_sweep(sweep_folder() / f"{name}.yaml").title) for name in sweep_names()]
    return [*titled_lines(rows), "", "`hf-maskssl sweep NAME --dry_run` lists the runs of one."]


def end_lines(ended: Ended, output: Path) -> list[str]:
    """The table, and what has failed or is missing."""
    table, width = ended.results["table"], terminal_width()
    lines = [text_table(table["rows"], table["columns"], width), "", f"Written: {output / 'results.md'}"]
    lines += [wrapped(f"failed: {title}: {error}", width) for title, error in ended.failed.items()]
    if ended.missing > len(ended.failed):
        lines.append(f"{ended.missing} runs have no result yet; the same command goes on with them.")
    return lines
