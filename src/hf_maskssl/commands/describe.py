"""Describe the data of a recipe and what its run will need, without training.

    hf-maskssl describe RECIPE [--steps 3] [--any_field value ...]

RECIPE is one of pre-training or of fine-tuning, a file or the name of a recipe
of the package; any of its fields can be changed, as with pretrain and finetune.

Prints rows, classes, columns and missing values, what is left out and why; then
the parameters of the model and, by some steps on this machine, memory and time.
--steps 0 leaves the steps out: then rows are read, and pictures of kind
multimodal opened, but nothing is prepared. The runs themselves write the same
of their data to data_report.json beside their results.
"""

from ..scripts import OneLineErrors, recipe_words
from ..terminal import terminal_width
from ..training.needs import describe

STEPS = 3  # unless the command line says otherwise


def main() -> None:
    path, words = recipe_words(str(__doc__))
    parser = OneLineErrors(add_help=False, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=STEPS)
    options, overrides = parser.parse_known_args(words)
    if options.steps < 0:
        parser.error(f"--steps: expected a number of 0 or more, got {options.steps}")
    print("\n".join(describe(path, overrides, options.steps).lines(terminal_width())))
