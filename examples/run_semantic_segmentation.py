"""Fine-tune an encoder to name the class of every pixel: `hf-maskssl segment` as a script.

accelerate launch examples/run_semantic_segmentation.py RECIPE.yaml [--any_field value ...]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("segment")
