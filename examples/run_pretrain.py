"""Pre-train an encoder from a recipe: `hf-maskssl pretrain` as a script.

accelerate launch examples/run_pretrain.py RECIPE.yaml [--any_field value ...]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("pretrain")
