"""The fields of a recipe's `training` section, and the whole recipe of a pre-training run."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import yaml
from huggingface_hub.utils import validate_repo_id

from ...checks import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SEED, SHARE_BELOW_1, Range, check_numbers
from ...data.arguments import DataArguments
from ...evaluation.arguments import ProbeArguments
from ...files import JsonObject
from ...recipes import load_recipe

PICTURES = 5  # times that pictures are drawn in a run whose recipe does not say when


@dataclass
class PretrainingArguments:
    """Settings of a run: how the model is optimised, watched and saved.

    Attributes:
        output_dir: Folder of the checkpoints, the pictures and the final model.
        init_from: Hub name or folder of the model whose weights the run starts from; None means random weights. It may be a
            checkpoint of this package, of the same method (of a run, converted, with a head, or an encoder alone), that has read
            other data: of another length, image size, number of channels or vocabulary, other columns or modalities. What fits is
            taken, learned positions are interpolated, words and named columns keep their rows, and the rest is new; the log, the
            card and `start_report.json` list it. The layers of the encoder must be alike. Beside that, a MultiMAE starts from a
            ViT, DeiT or ViT-MAE (its encoder and rgb projection, by `load_vit`; a ViT-MAE needs model.position_order
            column_first, one with learned positions model.position_embeddings learned), a PoS-BERT from a BERT with its heads,
            whose tokenizer data.tokenizer must then be. A resumed run goes on from its own checkpoint alone.
        init_positions: Name of the way to start position embeddings: "same" takes them (interpolated, where a checkpoint of this
            package has another grid; a ViT's must equal fixed ones of the MultiMAE); "drop" leaves them out.
        init_statistics: Name of the source of mean and standard deviation by which inputs are standardised, where `init_from` is
            a checkpoint of this package and data.standardize is "dataset": "keep" takes the checkpoint's for the columns,
            channels and modalities that it knows and measures those of the others, "measure" measures all on the data of now.
        init_freeze: Whether to train only what `init_from` has not given: a new modality's projection and decoder, say.
        seed: Seed of the initial weights, the order of the data, the masks and dropout.
        max_steps: Number of optimiser steps.
        batch_size: Number of samples per process and forward pass; the effective batch is this times processes times
            `gradient_accumulation_steps`.
        gradient_accumulation_steps: Number of forward passes per optimiser step, which is that of one large batch: a mean over
            the terms of all of them. Only what is of one forward pass (of all processes) stays so: the negatives of the task
            contrastive loss, MetaMAE's adaptation and DABS's objectives, whose passes count alike.
        learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon: Options of AdamW.
        decay_norm_and_bias: Whether to decay biases, norms and single tokens too, as the MetaMAE authors do.
        lr_scheduler_type: Shape of the learning rate's schedule after the warm-up.
        warmup_steps: Number of steps in which the learning rate rises linearly from 0.
        max_grad_norm: Largest l2 norm of the gradient, which is clipped to it; None means no clipping.
        mixed_precision: "no", "bf16" or "fp16"; None means what `accelerate launch` or its configuration file says.
        gradient_checkpointing: Whether to save memory by computing the encoder's activations again in the backward pass.
        tf32: Whether float32 matrix products on a GPU (Ampere and later) run in TensorFloat-32, which reads 10 of the 23 bits of
            a factor's fraction and is several times as fast. None means torch's own setting, which is full float32. The field of
            the same name in transformers' TrainingArguments does the same; mixed_precision "bf16" is faster still.
        torch_compile: Whether to compile the layers that can be compiled (a decoder that is differentiated twice cannot).
        cuda_graphs: Whether to record a whole step as a CUDA graph, once for each shape of batch, and to replay it. This helps
            small models, whose steps are mostly the launching of kernels. It needs one CUDA GPU and float32 or bf16; the losses
            are the same as without it.
        num_workers, pin_memory: Options of the data loader.
        shuffle_buffer: Number of rows of a stream (`data.streaming`) among which the next one is drawn. None means 1,000, or ten
            batches where these are more.
        data_on_device: Whether to collate a small training split (at most 1 GiB) once and to keep it on the device. Batches are
            the same as without it, except with `cuda_graphs`: there texts are padded to the longest of all, so that one graph
            serves all batches, and their masks are drawn at that length.
        logging_steps: Number of steps between two lines of the log and the trackers, which hold means over these steps.
        eval_steps: Number of steps between two validation losses; 0 means never.
        auto_mask_steps: Number of steps of the first short runs by which `model.mask_ratio: auto` chooses a ratio
            (`training.pretraining.mask_ratio`); the better half of them then takes twice as many.
        eval_batches: Largest number of batches that a validation loss is taken from.
        save_steps: Number of steps between two checkpoints; 0 means one checkpoint, at the end.
        save_total_limit: Number of checkpoints to keep, beside the best one.
        save_best: Whether to keep the checkpoint with the lowest validation loss as `checkpoint-best`.
        picture_steps: Number of steps between two pictures of reconstructions; 0 means never, None five pictures a run.
        quiet: Whether the run says nothing but its warnings.
        json_log: Whether to print a line of JSON on stdout for the start, each logged step and the end of the run.
        report_to: Names of Accelerate's trackers: "tensorboard", "wandb", "trackio", ...
        project_name: Name of the project in the trackers.
        resume: Whether to continue from the newest sound checkpoint in `output_dir`; without one the run starts anew.
        push_to_hub: Whether to upload the final model to `hub_model_id`.
        hub_model_id: Name of the Hub repository, `organisation/name`.
        hub_private: Whether a repository that the upload creates is private.
    """

    output_dir: str = "outputs/run"
    init_from: str | None = None
    init_positions: Literal["same", "drop"] = "same"
    init_statistics: Literal["keep", "measure"] = "keep"
    init_freeze: bool = False
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
    shuffle_buffer: int | None = None
    data_on_device: bool = False
    logging_steps: int = 50
    eval_steps: int = 0
    auto_mask_steps: int = 100
    eval_batches: int = 20
    save_steps: int = 5000
    save_total_limit: int = 2
    save_best: bool = False
    picture_steps: int | None = None
    quiet: bool = False
    json_log: bool = False
    report_to: list[str] = field(default_factory=list)
    project_name: str = "hf_maskssl"
    resume: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private: bool = False

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("max_steps", "batch_size", "gradient_accumulation_steps"), AT_LEAST_1),
        **dict.fromkeys(
            ("logging_steps", "eval_batches", "auto_mask_steps", "save_total_limit", "shuffle_buffer"), AT_LEAST_1
        ),
        **dict.fromkeys(("warmup_steps", "eval_steps", "save_steps", "picture_steps", "num_workers"), AT_LEAST_0),
        **dict.fromkeys(("learning_rate", "max_grad_norm", "adam_epsilon"), ABOVE_0),
        **dict.fromkeys(("adam_beta1", "adam_beta2"), SHARE_BELOW_1),
        "weight_decay": AT_LEAST_0,
        "seed": SEED,
    }

    def __post_init__(self) -> None:
        check_numbers("training.", self, self.RANGES)
        if self.warmup_steps > self.max_steps:
            raise ValueError(
                f"training.warmup_steps={self.warmup_steps} is more than training.max_steps={self.max_steps}: the run would end "
                "before the learning rate is reached."
            )
        if self.save_best and not self.eval_steps:
            raise ValueError("training.save_best needs a validation loss: set training.eval_steps above 0.")
        if self.init_freeze and self.init_from is None:
            raise ValueError("training.init_freeze keeps the weights of training.init_from as they are: set that too.")
        if self.cuda_graphs:
            self._check_cuda_graphs()
        self._check_hub()

    @property
    def steps_between_pictures(self) -> int:
        """Steps between two pictures; 0 means never."""
        return math.ceil(self.max_steps / PICTURES) if self.picture_steps is None else self.picture_steps

    @property
    def rows_in_buffer(self) -> int:
        """Rows of a stream among which the next one is drawn."""
        return max(1000, 10 * self.batch_size) if self.shuffle_buffer is None else self.shuffle_buffer

    def _check_cuda_graphs(self) -> None:
        recomputing = "recomputing reads the state of the random numbers, which a recording cannot"
        for name, is_set, reason in (
            ("torch_compile", self.torch_compile, "compiled layers would have to be recorded in torch's own way"),
            ("gradient_checkpointing", self.gradient_checkpointing, recomputing),
        ):
            if is_set:
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
        """Refuse now a name that the Hub would refuse after days of training."""
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
    """`section/field` -> value, of types that every tracker takes."""
    sections = asdict(recipe).items()
    settings = {f"{section}/{name}": value for section, fields in sections for name, value in fields.items()}
    plain = (bool, int, float, str)
    return {name: value if isinstance(value, plain) else str(value) for name, value in settings.items()}


def effective_recipe(recipe: PretrainingRecipe, without: Sequence[str] = ("resume",)) -> str:
    """The recipe with every field written out, as YAML that `load_pretraining_recipe` reads.

    Args:
        recipe: The run.
        without: Fields of the training section that are left out.
    """
    sections: JsonObject = {"model": dict(recipe.model)}
    sections |= {name: asdict(vars(recipe)[name]) for name in ("data", "probe", "training")}
    for name in without:
        sections["training"].pop(name)
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=110)


def learning_settings(args: PretrainingArguments) -> dict[str, str]:
    """The fields that decide what a step does to the weights, and how the optimiser groups them, each as JSON."""
    names: tuple[str, ...] = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_steps")
    names += ("decay_norm_and_bias", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "mixed_precision", "tf32")
    every = settings_as_json(args)
    return {name: every[name] for name in names}


def settings_as_json(section: DataArguments | PretrainingArguments) -> dict[str, str]:
    """Field of a section -> its value as JSON, which has a text for NaN and infinity too."""
    return {name: json.dumps(value, default=str) for name, value in asdict(section).items()}


def load_pretraining_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainingRecipe:
    """Read a recipe and the command line's `--field value` overrides; errors as in `load_recipe`.

    A bare field name that several sections know means the training section's.
    """
    sections = {"model": dict, "data": DataArguments, "probe": ProbeArguments, "training": PretrainingArguments}
    return PretrainingRecipe(**load_recipe(path, overrides, sections, primary="training"))
