"""Draw what a pre-trained MultiMAE sees and predicts: `hf-maskssl predict` as a script.

python examples/multimae_predict.py CHECKPOINT [--output FOLDER]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("predict")
