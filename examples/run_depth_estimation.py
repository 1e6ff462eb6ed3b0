"""Fine-tune an encoder to estimate the depth of every pixel: `hf-maskssl depth` as a script.

accelerate launch examples/run_depth_estimation.py RECIPE.yaml [--any_field value ...]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("depth")
