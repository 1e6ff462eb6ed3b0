"""Pre-train an encoder from a recipe.

    accelerate launch examples/run_pretrain.py RECIPE.yaml [--any_field value ...]

Any field of the recipe can be changed: `--max_steps 1000`, `--hidden_size 64`. Where sections share a name, as with
`--learning_rate 1e-3`, the `training` section is meant; for another write it out: `--probe.learning_rate 1e-3`. `--resume`
continues an interrupted run.
"""

import logging
import sys

from accelerate.state import PartialState

from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.hub.publish import UploadError, publish
from hf_maskssl.training import load_pretraining_recipe, pretrain


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    recipe = load_pretraining_recipe(sys.argv[1], sys.argv[2:])
    state = pretrain(recipe, write_card=write_model_card)
    repo_id = recipe.training.hub_model_id
    if recipe.training.push_to_hub and repo_id and not state.interrupted and PartialState().is_main_process:
        try:
            publish(recipe.training.output_dir, repo_id, private=recipe.training.hub_private)
        except UploadError as error:
            raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    main()
