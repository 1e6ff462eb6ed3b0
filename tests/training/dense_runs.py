"""Small scenes, and MultiMAE checkpoints of random weights that are fine-tuned on them."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForPreTraining, set_seed

import tiny_models
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.recipes import build_config
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from tiny_models import DEPTH, RGB

MULTIMAE = tiny_models.section(
    "multimae",
    modalities={"rgb": RGB, "depth": DEPTH},
    image_size=32,
    num_visible_tokens=8,
    segmentation_num_layers=1,
    depth_reassemble_sizes=[4, 8, 8, 8],
)
RGB_ALONE = {"modalities": {"rgb": RGB}}
LABELS = {
    "semantic_segmentation": "semseg",
    "depth_estimation": "depth",
    "dense_regression": "depth",
    "classification": "label",
}
SCENES: dict[str, Any] = {
    "source": "scenes",
    "kind": "multimodal",
    "scene_size": 32,
    "num_scenes": {"train": 12, "validation": 4, "test": 6},
    "validation_split": "validation",
    "test_split": "test",
}


def make_dense(
    folder: Path, task: str, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **finetuning: Any
) -> FinetuningRecipe:
    """A recipe of a task on scenes, results in `folder`/run, with these changes."""
    fields = {"output_dir": str(folder / "run"), "max_steps": 2, "batch_size": 4, "learning_rate": 1e-3, "seeds": [0]}
    return FinetuningRecipe(
        model=MULTIMAE if model is None else model,
        data=data_arguments(**(SCENES | {"task": task, "label_column": LABELS[task]} | (data or {}))),
        finetuning=FinetuningArguments(**(fields | finetuning)),
    )


def pretrained_multimae(folder: Path, **changes: Any) -> Path:
    """A pre-training checkpoint with random weights and the processor of the scenes."""
    config = build_config(MULTIMAE | changes)
    set_seed(7)
    AutoModelForPreTraining.from_config(config).save_pretrained(folder)
    processor: Any = prepare_data(data_arguments(**SCENES), config).processor
    processor.save_pretrained(folder)
    return folder
