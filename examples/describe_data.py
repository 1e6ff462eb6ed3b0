"""Describe the data of a recipe without training: `hf-maskssl describe` as a script.

python examples/describe_data.py RECIPE.yaml [--any_field value ...]
"""

from hf_maskssl.commands import run

if __name__ == "__main__":
    run("describe")
