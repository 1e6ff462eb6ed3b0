# /// script
# requires-python = ">=3.10"
# dependencies = ["hf-maskssl[train,text]"]
# ///
"""Pre-train an encoder from a recipe: `hf-maskssl pretrain` as a script.

accelerate launch examples/run_pretrain.py RECIPE.yaml [--any_field value ...]

Without an install, by uv and the lines at the top of this file; here, or on a rented machine, with the model on the Hub:

uv run examples/run_pretrain.py RECIPE.yaml
hf jobs uv run --flavor a10g-small --secrets HF_TOKEN examples/run_pretrain.py RECIPE.yaml --push_to_hub --hub_model_id org/name
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("pretrain")
