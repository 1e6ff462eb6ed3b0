# /// script
# requires-python = ">=3.10"
# dependencies = ["hf-maskssl[train,text]"]
# ///
"""Fine-tune an encoder over several seeds: `hf-maskssl finetune` as a script.

accelerate launch examples/run_finetune.py RECIPE.yaml [--any_field value ...]

Without an install, by uv and the lines at the top of this file; here, or on a rented machine:

uv run examples/run_finetune.py RECIPE.yaml
hf jobs uv run --flavor a10g-small examples/run_finetune.py RECIPE.yaml --checkpoint org/name
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("finetune")
