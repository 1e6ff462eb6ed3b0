"""Fine-tune an encoder on a task of the recipe, over several seeds.

    python examples/run_finetune.py RECIPE.yaml [--any_field value ...]
    accelerate launch examples/run_finetune.py RECIPE.yaml [--any_field value ...]

`--checkpoint` names the encoder: a folder that run_pretrain.py wrote, or a Hub name. Any other field of the recipe can be
changed as well; where sections share a name, the `finetuning` section is meant. `--inputs rgb depth` chooses what a MultiMAE
reads, `--layer_decay 0.65` lets the layers near the input learn more slowly.

Writes results.json, results.md and the best model (for the task's Auto class, such as AutoModelForSequenceClassification,
with its card) to `output_dir`. After an interruption, give the same command again: the seeds and learning rates that have
ended are kept, the one that was interrupted starts anew from its first step.

Runs on one device or data-parallel on several; not with FSDP or DeepSpeed. The model is put on the Hub by
`python -m hf_maskssl.hub.publish OUTPUT_DIR/model org/name`.
"""

from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.scripts import run_script
from hf_maskssl.training.finetuning.sweep import finetune_from_command_line

if __name__ == "__main__":
    run_script(lambda: finetune_from_command_line(str(__doc__), write_finetuned_card))
