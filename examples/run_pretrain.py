"""Pre-train an encoder from a recipe.

    accelerate launch examples/run_pretrain.py RECIPE.yaml [--any_field value ...]

A field of the recipe's `training` section, or of any other section that has no namesake there, is changed as
`--learning_rate 1e-3`; otherwise write the section: `--probe.learning_rate 1e-3`. `--resume` continues an interrupted run.
"""

import sys

from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.hub.publish import publish
from hf_maskssl.training import load_pretraining_recipe, pretrain


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    recipe = load_pretraining_recipe(sys.argv[1], sys.argv[2:])
    state = pretrain(recipe, write_card=write_model_card)
    if recipe.training.push_to_hub and not state.interrupted and state.is_main_process:
        publish(recipe.training.output_dir, recipe.training.hub_model_id, private=recipe.training.hub_private)


if __name__ == "__main__":
    main()
