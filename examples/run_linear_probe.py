# /// script
# requires-python = ">=3.10"
# dependencies = ["hf-maskssl[train,text]"]
# ///
"""Measure frozen encoders beside baselines: `hf-maskssl probe` as a script.

python examples/run_linear_probe.py MODEL [MODEL ...] RECIPE.yaml [--any_field value] [--output FOLDER]

Without an install, by uv and the lines at the top of this file; here, or on a rented machine, of a model on the Hub:

uv run examples/run_linear_probe.py MODEL RECIPE.yaml
hf jobs uv run --flavor a10g-small examples/run_linear_probe.py org/name RECIPE.yaml
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("probe")
