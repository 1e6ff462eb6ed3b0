"""Describe data and what a run on them will need, without training.

    hf-maskssl describe RECIPE [--steps 3] [--any_field value ...]
    hf-maskssl describe DATA [--steps 3] [--kind KIND] [--minutes 10]

RECIPE is one of pre-training or of fine-tuning, a file or the name of a recipe
of the package; any of its fields can be changed, as with pretrain and finetune.
DATA is what pretrain takes in its place, a file or a folder: described is the
recipe that pretrain would write for it, with the same options.

Prints rows, classes, columns and missing values, what is left out and why; then
the parameters of the model and, by some steps on this machine, memory and time.
--steps 0 leaves the steps out: then rows are read, and pictures of kind
multimodal opened, but nothing is prepared. The runs themselves write the same
of their data to data_report.json beside their results.
"""

import tempfile
from pathlib import Path

from ..scripts import OneLineErrors, recipe_words
from ..terminal import terminal_width, wrapped
from ..training.needs import describe
from ..training.own_data import WANTED_STEPS, recipe_from_data
from .pretrain import DEFAULT_MINUTES, is_data

STEPS = 3  # unless the command line says otherwise


def main() -> None:
    """Read the command line, and print the description."""
    path, words = recipe_words(str(__doc__))
    parser = OneLineErrors(add_help=False, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=STEPS)
    if is_data(path):
        parser.add_argument("--kind")
        parser.add_argument("--label_column")
        parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES)
    options, overrides = parser.parse_known_args(words)
    if options.steps < 0:
        parser.error(f"--steps: expected a number of 0 or more, got {options.steps}")
    if not is_data(path):
        print("\n".join(describe(path, overrides, options.steps).lines(terminal_width())))
        return
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes: expected a number above 0, got {options.minutes}")
    _describe_data(path, options.kind, options.label_column, options.minutes, options.steps, overrides)


def _describe_data(
    data: str, kind: str | None, label_column: str | None, minutes: float, steps: int, overrides: list[str]
) -> None:
    """Describe data by the recipe that they would get, which is not kept."""
    remarks: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_from_data(
            data,
            str(Path(folder) / "recipe"),
            kind,
            label_column,
            minutes,
            max_steps=None if steps else WANTED_STEPS,  # without timed steps nothing says how many fit into the time
            overrides=overrides,
            say=remarks.append,
        )
        description = describe(recipe, overrides, steps)
    width = terminal_width()
    lines = description.lines(width)
    if not steps:
        lines = [*description.report.lines(width), f"model: {description.model}"]
    about_data = [wrapped(remark, width) for remark in remarks if not remark.startswith(("recipe:", "size:"))]
    print("\n".join([*about_data, *lines]))
