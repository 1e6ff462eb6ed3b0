"""Pre-train an encoder from a recipe.

    accelerate launch examples/run_pretrain.py RECIPE.yaml [--any_field value ...]

Any field of the recipe can be changed: `--max_steps 1000`, `--hidden_size 64`. Where sections share a name, as with
`--learning_rate 1e-3`, the `training` section is meant; for another write it out: `--probe.learning_rate 1e-3`. `--resume`
continues an interrupted run.
"""

import logging

from accelerate.state import PartialState

from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.hub.publish import publish
from hf_maskssl.scripts import recipe_words, run_script
from hf_maskssl.training import load_pretraining_recipe, pretrain


def main() -> None:
    recipe = load_pretraining_recipe(*recipe_words(str(__doc__)))
    state = pretrain(recipe, write_card=write_model_card)
    repo_id = recipe.training.hub_model_id
    if recipe.training.push_to_hub and repo_id and not state.interrupted and PartialState().is_main_process:
        publish(recipe.training.output_dir, repo_id, private=recipe.training.hub_private)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    run_script(main)
