"""Pre-train an encoder from a recipe.

    hf-maskssl pretrain RECIPE [--any_field value ...]
    accelerate launch -m hf_maskssl pretrain RECIPE [--any_field value ...]

RECIPE is a YAML file or the name of a recipe of the package, such as digits
(`hf-maskssl recipes` lists them). Any of its fields can be changed:
--max_steps 1000, --hidden_size 64 (`hf-maskssl fields` lists them). Where
sections share a name, as with --learning_rate 1e-3, the training section is
meant; for another write it out: --probe.learning_rate 1e-3. --resume goes on
with an interrupted run.
"""

from accelerate.state import PartialState

from ..hub.cards import write_model_card
from ..hub.publish import publish
from ..scripts import recipe_words
from ..training import load_pretraining_recipe, pretrain


def main() -> None:
    recipe = load_pretraining_recipe(*recipe_words(str(__doc__)))
    state = pretrain(recipe, write_card=write_model_card)
    repo_id = recipe.training.hub_model_id
    if recipe.training.push_to_hub and repo_id and not state.interrupted and PartialState().is_main_process:
        publish(recipe.training.output_dir, repo_id, private=recipe.training.hub_private)
