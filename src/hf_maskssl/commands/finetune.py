"""`hf-maskssl finetune`, `segment` and `depth`: fine-tuning of a recipe over several seeds."""

from pathlib import Path

from ..hub.cards import write_finetuned_card
from ..hub.publish import publish
from ..training.finetuning.sweep import finetune_from_command_line

FINETUNE = """Fine-tune an encoder on a task of the recipe, over several seeds.

    hf-maskssl finetune RECIPE [--any_field value ...]
    accelerate launch -m hf_maskssl finetune RECIPE [--any_field value ...]

RECIPE is a file or the name of a recipe of the package. --checkpoint names the
encoder: the folder of a pre-training run, or a Hub name. Any other field can
be changed as well (`hf-maskssl fields finetuning` lists them); where sections
share a name, the finetuning section is meant. --inputs rgb depth chooses what
a MultiMAE reads, --layer_decay 0.65 lets layers near the input learn slowly,
--peft "{type: lora, r: 8}" trains an adapter and the head alone, --search 20
tries 20 draws of learning rate and decay before the seeds are trained.

Writes results.json, results.md and the best model (for the task's Auto class,
such as AutoModelForSequenceClassification, with its card) to output_dir. After
an interruption, give the same command again: the seeds and learning rates that
have ended are kept; one that was stopped goes on, a killed one starts anew.

Runs on one device or data-parallel on several; not with FSDP or DeepSpeed.
`hf-maskssl publish OUTPUT_DIR/model org/name` puts the model on the Hub."""

DENSE = """Fine-tune an encoder to {aim}, over several seeds.

    hf-maskssl {verb} RECIPE [--any_field value ...]
    accelerate launch -m hf_maskssl {verb} RECIPE [--any_field value ...]

Like finetune, for recipes whose data.task is {task}.
--inputs rgb, --inputs depth or --inputs rgb depth chooses what the model reads.
A modality that the checkpoint was not pre-trained with is described under
model.modalities and gets a new input projection: an MAE that was pre-trained
on rgb alone reads depth in this way.

{labels}"""
SEGMENT = DENSE.format(
    verb="segment",
    aim="name the class of every pixel",
    task="semantic_segmentation",
    labels="""data.label_column holds class maps; pixels with the model's
semantic_loss_ignore_index (255) have no class. Reports mIoU, and keeps the
best model, for AutoModelForSemanticSegmentation.""",
)
DEPTH = DENSE.format(
    verb="depth",
    aim="estimate the depth of every pixel",
    task="depth_estimation",
    labels="""data.label_column holds depth maps; the depth of pixels that are 0, negative
or NaN is not known. data.label_scale turns them into metres. Reports delta_1
and the RMSE over the pixels whose depth is known, and keeps the best model,
for AutoModelForDepthEstimation.""",
)


def upload(folder: Path, repo_id: str, private: bool) -> None:
    """Put a fine-tuned model on the Hub."""
    publish(folder, repo_id, private=private)


def main() -> None:
    """Fine-tune on any task."""
    finetune_from_command_line(FINETUNE, write_finetuned_card, publish=upload)


def segment() -> None:
    """Fine-tune on semantic segmentation."""
    finetune_from_command_line(SEGMENT, write_finetuned_card, task="semantic_segmentation", publish=upload)


def depth() -> None:
    """Fine-tune on depth estimation."""
    finetune_from_command_line(DEPTH, write_finetuned_card, task="depth_estimation", publish=upload)
