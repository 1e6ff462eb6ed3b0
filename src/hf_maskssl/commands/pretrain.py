"""Pre-train an encoder from a recipe, or from data alone.

    hf-maskssl pretrain RECIPE [--any_field value ...]
    accelerate launch -m hf_maskssl pretrain RECIPE [--any_field value ...]
    hf-maskssl pretrain DATA [--kind KIND] [--minutes 10] [--any_field value]

RECIPE is a YAML file or the name of a recipe of the package, such as digits
(`hf-maskssl recipes` lists them). Any of its fields can be changed:
--max_steps 1000, --hidden_size 64 (`hf-maskssl fields` lists them). Where
sections share a name, as with --learning_rate 1e-3, the training section is
meant; for another write it out: --probe.learning_rate 1e-3. --resume goes on
with an interrupted run.

DATA is a file (CSV, Parquet, JSON, text, NumPy, FASTA), or a folder of pictures
or sounds. A recipe for it is written to NAME.yaml, and run:
  --kind KIND            tabular, series, image, spectrogram or tokens;
                         guessed by the columns where it is not given
  --label_column COLUMN  labels for probes on the way
  --minutes MINUTES      time for the run on this machine; default: 10
  --name NAME            name of recipe and output; default: that of the data
"""

import re
from pathlib import Path

from accelerate.state import PartialState

from ..data.builtin import SOURCES
from ..hub.cards import write_model_card
from ..hub.publish import publish
from ..recipes import RECIPE_ENDINGS, recipe_names
from ..scripts import OneLineErrors, recipe_words
from ..terminal import wrapped
from ..training import load_pretraining_recipe, pretrain, with_mask_ratio
from ..training.own_data import recipe_from_data

DEFAULT_MINUTES = 10.0


def main() -> None:
    """Read the command line, and train."""
    path, overrides = recipe_words(str(__doc__))
    if is_data(path):
        path, overrides = written_recipe(path, overrides)
    recipe = with_mask_ratio(load_pretraining_recipe(path, overrides))
    state = pretrain(recipe, write_card=write_model_card)
    repo_id = recipe.training.hub_model_id
    if recipe.training.push_to_hub and repo_id and not state.interrupted and PartialState().is_main_process:
        publish(recipe.training.output_dir, repo_id, private=recipe.training.hub_private)


def is_data(word: str) -> bool:
    """Whether the first word names data and not a recipe: it is a folder, or a file that is no YAML."""
    if Path(word).suffix.lower() in RECIPE_ENDINGS or word in recipe_names():
        return False
    return Path(word).exists() or word in SOURCES or Path(word).suffix != ""


def written_recipe(data: str, words: list[str]) -> tuple[str, list[str]]:
    """Write a recipe for data; returns its path, and the words that change its fields."""
    parser = OneLineErrors(add_help=False, allow_abbrev=False)
    parser.add_argument("--kind")
    parser.add_argument("--label_column")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES)
    parser.add_argument("--max_steps", type=int)
    parser.add_argument(
        "--name", default=re.sub(r"[^\w.-]+", "_", Path(data).resolve().name.partition(".")[0]) or "data"
    )
    options, overrides = parser.parse_known_args(words)
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes: expected a number above 0, got {options.minutes}")
    if options.max_steps is not None and options.max_steps < 1:
        parser.error(f"--max_steps: expected a number of 1 or more, got {options.max_steps}")
    if PartialState().num_processes > 1:
        parser.error(f"DATA {data}: several processes need a recipe; write it by one: hf-maskssl pretrain {data}")
    path = recipe_from_data(data, **vars(options), overrides=overrides, say=lambda text: print(wrapped(text)))
    print(flush=True)
    return str(path), overrides
