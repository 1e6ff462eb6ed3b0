"""What a recipe's `training` section may say, and the whole recipe of a pre-training run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from huggingface_hub.utils import validate_repo_id

from ...data.arguments import DataArguments
from ...evaluation.arguments import ProbeArguments
from ...files import JsonObject
from ...recipes import load_recipe


@dataclass
class PretrainingArguments:
    """How the model is optimised, watched and saved.

    Attributes:
        output_dir: folder of checkpoints, pictures and the final model.
        init_from: Hub name or folder of a ViT or ViT-MAE, as which a MultiMAE's encoder and rgb projection begin (`load_vit`);
            or of a BERT, as which a PoS-BERT begins, heads included (data.tokenizer must be its own). None begins with random
            weights. The sizes must be its own, and for a ViT-MAE model.position_order column_first.
        init_positions: "same": its position embeddings must be the MultiMAE's; "drop": begin without them.
        seed: of initial weights, data order, masks and dropout.
        max_steps: optimiser steps.
        batch_size: samples per process and forward pass; the effective batch is this times processes times
            `gradient_accumulation_steps`.
        gradient_accumulation_steps: forward passes per optimiser step. The task contrastive loss sees the negatives of
            one forward pass (of all processes) only.
        learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon: AdamW.
        decay_norm_and_bias: also decay biases, norms and single tokens, as the MetaMAE authors do.
        lr_scheduler_type: after the warm-up.
        warmup_steps: steps of linear warm-up from 0.
        max_grad_norm: clip the gradient to this l2 norm; None does not clip.
        mixed_precision: "no", "bf16" or "fp16"; None takes what `accelerate launch` or its configuration file says.
        gradient_checkpointing: recompute the encoder's activations in the backward pass, for memory.
        tf32: let float32 matrix products on a GPU (Ampere and later) run in TensorFloat-32, which reads 10 of the 23 bits of a
            factor's fraction and is several times as fast; None leaves torch as it is, which is full float32. As in
            transformers' TrainingArguments; mixed_precision "bf16" is faster still.
        torch_compile: compile the layers that can be (a decoder that is differentiated twice cannot).
        cuda_graphs: record a whole step as a CUDA graph, once for each shape of batch, and replay it: for small models, whose
            steps are mostly the launching of kernels. On one CUDA GPU, in float32 or bf16; the losses are those without it.
        num_workers, pin_memory: of the data loader.
        data_on_device: collate a small training split (at most 1 GiB) once and keep it on the device. Batches are the same as
            without it, except with `cuda_graphs`: there texts are padded to the longest of all, so that one graph does for all
            batches, and their masks are drawn at that length.
        logging_steps: steps between two lines of the log and trackers, means over that window.
        eval_steps: steps between two validation losses; 0 never.
        eval_batches: at most so many validation batches.
        save_steps: steps between two checkpoints; 0 saves at the end only.
        save_total_limit: checkpoints to keep, the best one not counted.
        save_best: keep the checkpoint with the lowest validation loss as `checkpoint-best`.
        picture_steps: steps between two pictures of reconstructions; 0 never.
        report_to: trackers of Accelerate: "tensorboard", "wandb", "trackio", ...
        project_name: of the trackers.
        resume: continue from the newest sound checkpoint in `output_dir`; starts anew where there is none.
        push_to_hub: upload the final model to `hub_model_id`, private when `hub_private`.
    """

    output_dir: str = "outputs/run"
    init_from: str | None = None
    init_positions: Literal["same", "drop"] = "same"
    seed: int = 0
    max_steps: int = 100_000
    batch_size: int = 64
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    decay_norm_and_bias: bool = True
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    max_grad_norm: float | None = None
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    gradient_checkpointing: bool = False
    tf32: bool | None = None
    torch_compile: bool = False
    cuda_graphs: bool = False
    num_workers: int = 0
    pin_memory: bool = True
    data_on_device: bool = False
    logging_steps: int = 50
    eval_steps: int = 0
    eval_batches: int = 20
    save_steps: int = 5000
    save_total_limit: int = 2
    save_best: bool = False
    picture_steps: int = 0
    report_to: list[str] = field(default_factory=list)
    project_name: str = "hf_maskssl"
    resume: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private: bool = False

    def __post_init__(self) -> None:
        at_least = {
            "max_steps": 1,
            "batch_size": 1,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            "eval_batches": 1,
            "save_total_limit": 1,
            "warmup_steps": 0,
            "eval_steps": 0,
            "save_steps": 0,
            "picture_steps": 0,
            "num_workers": 0,
        }
        for name, smallest in at_least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"training.{name} must be at least {smallest}, got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise ValueError(f"training.learning_rate must be positive, got {self.learning_rate}.")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"training.max_grad_norm must be positive or absent, got {self.max_grad_norm}.")
        if self.warmup_steps > self.max_steps:
            raise ValueError(
                f"training.warmup_steps={self.warmup_steps} is more than training.max_steps={self.max_steps}: the run would end "
                "before the learning rate is reached."
            )
        if self.save_best and not self.eval_steps:
            raise ValueError("training.save_best needs a validation loss: set training.eval_steps above 0.")
        if self.cuda_graphs:
            self._check_cuda_graphs()
        self._check_hub()

    def _check_cuda_graphs(self) -> None:
        reasons = {
            "torch_compile": "compiled layers would have to be recorded in torch's own way",
            "gradient_checkpointing": "recomputing reads the state of the random numbers, which a recording cannot",
        }
        for name, reason in reasons.items():
            if getattr(self, name):
                raise ValueError(
                    f"training.cuda_graphs and training.{name} exclude each other: {reason}. Set one to false."
                )
        if self.gradient_accumulation_steps > 1:
            raise ValueError(
                f"training.cuda_graphs records steps of one batch, got training.gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps}: set it to 1 and raise training.batch_size, or leave graphs out."
            )
        if self.mixed_precision == "fp16":
            raise ValueError(
                "training.cuda_graphs works with training.mixed_precision 'no' and 'bf16', got 'fp16', whose loss scaling looks "
                "at the gradients in every step: set one otherwise."
            )

    def _check_hub(self) -> None:
        """A name that the Hub would refuse after days of training is refused now."""
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("training.push_to_hub needs training.hub_model_id, such as 'org/metamae-pfam'.")
        if self.hub_model_id is not None:
            try:
                validate_repo_id(self.hub_model_id)
            except ValueError as error:
                raise ValueError(f"training.hub_model_id: {error}") from error
            if "/" not in self.hub_model_id:
                raise ValueError(
                    f"training.hub_model_id must be 'organisation/name', such as 'org/metamae-pfam', got '{self.hub_model_id}'."
                )


@dataclass
class PretrainingRecipe:
    """A whole pre-training run: `model` holds `model_type` and configuration fields."""

    model: JsonObject
    data: DataArguments
    probe: ProbeArguments
    training: PretrainingArguments


def flat_settings(recipe: PretrainingRecipe) -> JsonObject:
    """`section/field` -> value, of the kinds that every tracker takes."""
    sections = asdict(recipe).items()
    settings = {f"{section}/{name}": value for section, fields in sections for name, value in fields.items()}
    plain = (bool, int, float, str)
    return {name: value if isinstance(value, plain) else str(value) for name, value in settings.items()}


def learning_settings(args: PretrainingArguments) -> dict[str, str]:
    """The fields that decide what a step does to the weights, and how the optimiser groups them, each as JSON."""
    names: tuple[str, ...] = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_steps")
    names += ("decay_norm_and_bias", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "mixed_precision", "tf32")
    every = settings_as_json(args)
    return {name: every[name] for name in names}


def settings_as_json(section: DataArguments | PretrainingArguments) -> dict[str, str]:
    """Field of a section -> its value as JSON, which also has a text for what is not a number."""
    return {name: json.dumps(value, default=str) for name, value in asdict(section).items()}


def load_pretraining_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainingRecipe:
    """Read a recipe and the command line's `--field value` overrides; errors as in `load_recipe`.

    A bare field name that several sections know means the training section's.
    """
    sections = {"model": dict, "data": DataArguments, "probe": ProbeArguments, "training": PretrainingArguments}
    return PretrainingRecipe(**load_recipe(path, overrides, sections, primary="training"))
