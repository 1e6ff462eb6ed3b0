"""Measure frozen encoders beside baselines: `hf-maskssl probe` as a script.

python examples/run_linear_probe.py MODEL [MODEL ...] RECIPE.yaml [--any_field value] [--output FOLDER]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("probe")
