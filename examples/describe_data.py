"""Tell what a recipe reads: rows, classes and features, and what is left out and why, without training.

    python examples/describe_data.py RECIPE.yaml [--any_field value ...]

RECIPE is one of pre-training or of fine-tuning; any of its fields can be changed, as with run_pretrain.py and run_finetune.py.
Rows are read, and pictures of kind "multimodal" opened, but nothing is prepared. The runs themselves write the same to
data_report.json beside their results.
"""

import logging
import sys

from hf_maskssl.data import DataReport, build_config, read_data
from hf_maskssl.data.processors import load_processor
from hf_maskssl.evaluation.evaluate_checkpoint import checkpoint_folder
from hf_maskssl.recipes import read_yaml
from hf_maskssl.training import load_finetuning_recipe, load_pretraining_recipe
from hf_maskssl.training.finetuning.models import choose_inputs, read_config

WIDTH = 80


def describe(path: str, overrides: list[str]) -> DataReport:
    """What is left of the data of a recipe, as a run of it would find."""
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
    """Command line."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    report = describe(sys.argv[1], sys.argv[2:])
    print("\n".join(report.lines(WIDTH)))


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    main()
