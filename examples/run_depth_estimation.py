"""Fine-tune an encoder to tell the depth of every pixel, over several seeds.

    python examples/run_depth_estimation.py RECIPE.yaml [--any_field value ...]
    accelerate launch examples/run_depth_estimation.py RECIPE.yaml [--any_field value ...]

As run_finetune.py, for recipes whose `data.task` is depth_estimation. `--inputs rgb`, `--inputs depth` or
`--inputs rgb depth` chooses what the model reads. A modality that the checkpoint was not pre-trained with is described under
`model.modalities` and gets a new input projection: MAE pre-trained on rgb alone reads depth in this way.

`data.label_column` holds depth maps; pixels that are 0, negative or NaN are not known. `data.label_scale` turns them into metres.
Reports delta_1 and the RMSE over the pixels whose depth is known, and keeps the best model, for AutoModelForDepthEstimation.
"""

from hf_maskssl.hub.cards import write_finetuned_card
from hf_maskssl.scripts import run_script
from hf_maskssl.training.finetuning.sweep import finetune_from_command_line

if __name__ == "__main__":
    run_script(lambda: finetune_from_command_line(str(__doc__), write_finetuned_card, task="depth_estimation"))
