"""Draw the masks that a pre-trained SMA chooses: `hf-maskssl masks` as a script.

python examples/draw_masks.py CHECKPOINT --recipe RECIPE.yaml [--output_dir FOLDER]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("masks")
