"""Train a WordPiece tokenizer: `hf-maskssl tokenizer` as a script.

python examples/train_tokenizer.py RECIPE.yaml --vocab_size 30000 --output_dir FOLDER
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("tokenizer")
