"""Measure saved encoders with a linear and a nearest-neighbour probe on frozen features.

    python examples/run_linear_probe.py MODEL [MODEL ...] RECIPE.yaml [--any_field value] [--output FOLDER]

MODEL is a checkpoint folder or a Hub name; the recipe's `data` and `probe` sections say what is measured and how. The
paper's protocol takes 100 epochs; the exact solver takes seconds:

    python examples/run_linear_probe.py outputs/quickstart examples/recipes/digits.yaml --solver exact

Writes result.json, table.md and scores.png. With several models or seeds, means come with their 95 % intervals.
"""

import logging

import hf_maskssl  # noqa: F401  registers the package's models with AutoModel
from hf_maskssl.evaluation.evaluate_checkpoint import main

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
