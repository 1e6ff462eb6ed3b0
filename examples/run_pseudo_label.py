"""Label pictures with depth and classes: `hf-maskssl pseudo-label` as a script.

accelerate launch examples/run_pseudo_label.py --data_dir PICTURES --output_dir FOLDER
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("pseudo-label")
