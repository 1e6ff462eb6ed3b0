"""Tag words with their parts of speech: `hf-maskssl tag` as a script.

python examples/run_tag_pos.py RECIPE.yaml --output_dir FOLDER [--num_proc 8]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("tag")
