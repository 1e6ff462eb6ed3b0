"""Measure saved encoders with a linear and a nearest-neighbour probe on frozen features.

    python examples/run_linear_probe.py MODEL [MODEL ...] RECIPE.yaml [--any_field value] [--output FOLDER]

MODEL is a checkpoint folder or a Hub name; the recipe's `data` and `probe` sections say what is measured and how:

    python examples/run_linear_probe.py outputs/quickstart/metamae examples/recipes/digits.yaml

Beside each score stand the untrained encoder of the same configuration, a linear model on the raw inputs and the most
frequent class (`--baselines false` saves their time). Two or more models are compared with the first one by paired
differences with 95 % intervals. `--protocol paper` is the MetaMAE paper's solver. Writes result.json, table.md, scores.png.
"""

import logging

import hf_maskssl  # noqa: F401  registers the package's models with AutoModel
from hf_maskssl.evaluation.evaluate_checkpoint import main
from hf_maskssl.scripts import run_script

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_script(main)
