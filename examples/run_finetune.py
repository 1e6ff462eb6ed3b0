"""Fine-tune an encoder over several seeds: `hf-maskssl finetune` as a script.

accelerate launch examples/run_finetune.py RECIPE.yaml [--any_field value ...]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("finetune")
