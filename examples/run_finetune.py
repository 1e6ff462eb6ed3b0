"""Fine-tune an encoder on a task of the recipe, over several seeds.

    python examples/run_finetune.py RECIPE.yaml [--any_field value ...]
    accelerate launch examples/run_finetune.py RECIPE.yaml [--any_field value ...]

`--checkpoint` names the encoder: a folder that run_pretrain.py wrote, or a Hub name. Any other field of the recipe can be
changed as well; where sections share a name, the `finetuning` section is meant.

Writes results.json, results.md and the best model (for AutoModelForSequenceClassification or
AutoModelForTokenClassification, with its card) to `output_dir`. After an interruption, give the same command again: the
seeds and learning rates that have ended are kept, the one that was interrupted starts anew from its first step.

Runs on one device or data-parallel on several; not with FSDP or DeepSpeed. The model is put on the Hub by
`python -m hf_maskssl.hub.publish OUTPUT_DIR/model org/name`.
"""

import logging
import sys

from accelerate.state import PartialState

from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.training.finetuning import finetune
from hf_maskssl.training.finetuning_arguments import load_finetuning_recipe


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    recipe = load_finetuning_recipe(sys.argv[1], sys.argv[2:])
    finetune(recipe, write_card=write_finetuned_card)
    if PartialState().is_main_process:
        with open(f"{recipe.finetuning.output_dir}/results.md", encoding="utf-8") as report:
            print(report.read())


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    main()
