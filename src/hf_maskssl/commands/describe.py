"""Describe the data of a recipe without training: rows, classes, features,
and what is left out and why.

    hf-maskssl describe RECIPE [--any_field value ...]

RECIPE is one of pre-training or of fine-tuning, a file or the name of a recipe
of the package; any of its fields can be changed, as with pretrain and finetune.
Rows are read, and pictures of kind multimodal opened, but nothing is prepared.
The runs themselves write the same to data_report.json beside their results.
"""

from ..checkpoint_folders import checkpoint_folder
from ..data import DataReport, build_config, read_data
from ..data.processors import load_processor
from ..recipes import read_yaml
from ..scripts import recipe_words
from ..training import load_pretraining_recipe
from ..training.finetuning.arguments import load_finetuning_recipe
from ..training.finetuning.models import choose_inputs, read_config

WIDTH = 80


def describe(path: str, overrides: list[str]) -> DataReport:
    """The report that a run of the recipe would write."""
    if "finetuning" not in read_yaml(path):
        recipe = load_pretraining_recipe(path, overrides)
        return read_data(recipe.data, build_config(recipe.model), complete=True).report
    tuning = load_finetuning_recipe(path, overrides)
    checkpoint = None if tuning.finetuning.checkpoint is None else checkpoint_folder(tuning.finetuning.checkpoint)
    config = read_config(tuning.model, checkpoint)
    data = choose_inputs(config, tuning.data, tuning.finetuning.inputs, tuning.model)
    processor = None if checkpoint is None else load_processor(checkpoint)
    return read_data(data, config, processor, require_labels=True).report


def main() -> None:
    path, overrides = recipe_words(str(__doc__))
    print("\n".join(describe(path, overrides).lines(WIDTH)))
