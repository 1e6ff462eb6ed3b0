"""Fine-tune an encoder to name the class of every pixel, over several seeds.

    python examples/run_semantic_segmentation.py RECIPE.yaml [--any_field value ...]
    accelerate launch examples/run_semantic_segmentation.py RECIPE.yaml [--any_field value ...]

As run_finetune.py, for recipes whose `data.task` is semantic_segmentation. `--inputs rgb`, `--inputs depth` or
`--inputs rgb depth` chooses what the model reads. A modality that the checkpoint was not pre-trained with is described under
`model.modalities` and gets a new input projection: MAE pre-trained on rgb alone reads depth in this way.

`data.label_column` holds class maps; pixels with the model's `semantic_loss_ignore_index` (255) have no class.
Reports mIoU, and keeps the best model, for AutoModelForSemanticSegmentation.
"""

from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.scripts import run_script
from hf_maskssl.training.finetuning.sweep import finetune_from_command_line

if __name__ == "__main__":
    run_script(lambda: finetune_from_command_line(str(__doc__), write_finetuned_card, task="semantic_segmentation"))
