"""The setup of a fine-tuning recipe before its first run: checkpoint, configuration, data, labels."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from datasets import IterableDataset

from ...checkpoint_folders import checkpoint_folder
from ...data.arguments import TASKS_OF_COLUMNS
from ...data.preparation import prepare_data
from ...data.processors import load_processor
from ...data.tables.report import REPORT_FILE
from ...data.tables.splits import split_names
from ...evaluation.arguments import check_library_models
from ...evaluation.probe_targets import moments_of_columns
from ...files import write_json
from ...launch import launched_state
from ...locks import FolderLock
from .arguments import FinetuningRecipe
from .models import choose_inputs, complete_processor, new_inputs, read_config
from .scored_labels import check_scored_labels
from .scores import FinetuningRows, LabelUnit, rows_of
from .windows import one_window_a_row, windows_of

T = TypeVar("T")

# Task -> transformers' name of it, by which heads choose their loss.
PROBLEM_TYPES: Mapping[str, Literal["regression", "single_label_classification", "multi_label_classification"]] = {
    "classification": "single_label_classification",
    "multi_label_classification": "multi_label_classification",
    "regression": "regression",
}
LABEL_ROWS = 1024  # rows whose labels are read at a time


class FinetuningSetup:
    """The parts that all runs of a recipe share.

    Args:
        recipe: Recipe of the runs.

    Attributes:
        args: The recipe's finetuning section.
        state: Accelerate's state of the processes.
        folder: Folder of the results, `output_dir`.
        lock: Lock of the folder; held here while the data are prepared, and by whoever writes there.
        checkpoint: Folder of the encoder; None without.
        config: Configuration of the model, with the labels of the data.
        inputs: Modalities that the model reads; None where it has one input.
        data: The prepared splits.
        task, num_labels, metric: Task, number of outputs, and the score by which runs are compared.

    Raises:
        ValueError: A recipe whose parts do not fit each other or the data, or a launch with FSDP or DeepSpeed, or of
            processes that do not know of each other.
        FileNotFoundError: No such checkpoint or data.
    """

    def __init__(self, recipe: FinetuningRecipe) -> None:
        refuse_sharding()
        self.recipe, self.args = recipe, recipe.finetuning
        self.state = launched_state()
        self.folder = Path(self.args.output_dir)
        self.lock = FolderLock(self.folder, "finetuning.output_dir", self.state)
        with self.lock:
            self._prepare()

    def _prepare(self) -> None:
        recipe = self.recipe
        # Before the data, which may take hours to prepare.
        check_library_models(self.args.baseline_models)
        self.args.headline_metric(str(recipe.data.task))
        self._check_held_out(split_names(recipe.data))
        name = self.args.checkpoint
        self.checkpoint = None if name is None else checkpoint_folder(name, "finetuning.checkpoint")
        self.config = read_config(recipe.model, self.checkpoint)
        data = choose_inputs(self.config, recipe.data, self.args.inputs, recipe.model)
        self.inputs = list(data.input_column) if isinstance(data.input_column, dict) else None
        processor = None if self.checkpoint is None else load_processor(self.checkpoint)
        with self.state.main_process_first():  # the others find the prepared rows in the cache
            processor = complete_processor(processor, data, self.config)
            self.data = prepare_data(data, self.config, processor, require_labels=True)
        self.task = str(self.data.task)
        self.num_labels = int(self.data.num_labels or 0)
        self._check_data()
        self.metric = self.args.headline_metric(self.task, self.num_labels)
        names = self.data.label_names or []
        scored = {name: one_window_a_row(rows) for name, rows in self.splits().items()}
        check_scored_labels(scored, self.task, self.metric, self.ignore_index, names)
        self._set_labels()

    def _check_data(self) -> None:
        if isinstance(self.data.train, IterableDataset):
            raise ValueError("data.streaming: fine-tuning draws its rows in random order; set it to false.")
        self._check_frozen()
        for name in ("mixup", "cutmix", "label_smoothing"):
            if vars(self.args)[name] and self.task != "classification":
                raise ValueError(
                    f"finetuning.{name}={vars(self.args)[name]} mixes classes of rows, but data.task is {self.task!r}: leave it "
                    "out."
                )
        train = self.data.report.splits.get("train")
        lacks = self.recipe.data.may_lack_columns or (train is not None and train.missing_share is not None)
        if lacks and (self.args.mixup or self.args.cutmix):
            raise ValueError(
                "finetuning.mixup and finetuning.cutmix mix whole pictures, but rows of this data lack values or modalities "
                "(data.allow_missing, data.invalid_value, NaN): leave mixing out."
            )
        without_classes = (*TASKS_OF_COLUMNS, "depth_estimation", "dense_regression")
        if self.task not in without_classes and self.num_labels < 2:
            raise ValueError(f"data.label_column: expected at least two classes, found {self.data.label_names}.")
        wanted, there = self.args.labelled_samples, self.row_counts()["train"]
        if wanted is not None and wanted > there:
            raise ValueError(f"finetuning.labelled_samples is {wanted}; there are {there} training rows.")

    def _check_held_out(self, splits: Sequence[str]) -> None:
        if "validation" not in splits and "test" not in splits:
            raise ValueError(
                "data.test_split: fine-tuning needs rows to score that it was not trained on; set data.test_split, "
                "data.validation_split or data.validation_fraction."
            )
        if "validation" not in splits:
            args = self.args
            needs: dict[str, object] = (
                {"early_stopping_patience": args.early_stopping_patience} if args.early_stopping_patience else {}
            )
            if len(args.learning_rates) > 1:
                needs["learning_rate"] = args.learning_rate
            if args.search_trials:
                needs["search_trials"] = args.search_trials
            if args.eval_steps:
                needs["eval_steps"] = args.eval_steps
            for name, value in needs.items():
                raise ValueError(
                    f"finetuning.{name}={value} needs a validation split to choose on; set "
                    "data.validation_split or data.validation_fraction."
                )

    def _check_frozen(self) -> None:
        keeps = "freeze_encoder" if self.args.freeze_encoder else None if self.args.peft is None else "peft"
        if keeps is None or self.checkpoint is None or self.args.from_scratch:
            return
        new = [name for name in new_inputs(self.config, self.checkpoint) if name in (self.inputs or [])]
        if new:
            raise ValueError(
                f"finetuning.{keeps}: the input projection of {new} is new, as the checkpoint was not pre-trained with it, and "
                f"has to be trained: leave {keeps} out, or choose other finetuning.inputs."
            )

    def _set_labels(self) -> None:
        config, names = self.config, self.data.label_names
        config.num_labels = self.num_labels
        if names is not None:
            config.id2label = dict(enumerate(names))
            config.label2id = {name: number for number, name in enumerate(names)}
        if self.task in PROBLEM_TYPES:
            config.problem_type = PROBLEM_TYPES[self.task]

    def splits(self) -> dict[str, FinetuningRows]:
        """The splits of the data by name."""
        splits = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {name: rows_of(split) for name, split in splits.items() if split is not None}

    @property
    def ignore_index(self) -> int:
        """The class of unlabelled pixels: a model's own, or 255 as in transformers' segmentation models."""
        return self.config.to_dict().get("semantic_loss_ignore_index", 255)

    def row_counts(self) -> dict[str, int]:
        """Rows of each split, not their windows where these are pooled."""
        return {name: len(one_window_a_row(split)) for name, split in self.splits().items()}

    def write_report(self) -> None:
        """Write the report of the data; by the main process, once nothing refuses the runs."""
        write_json(self.folder / REPORT_FILE, self.data.report.to_json())

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process: files may appear while others read."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def training_rows(self, seed: int) -> FinetuningRows:
        """The training rows of a seed: all, or `labelled_samples` drawn from them, with all windows of each."""
        rows = rows_of(self.data.train)
        if self.args.labelled_samples is None:
            return rows
        order = np.random.default_rng(seed).permutation(self.row_counts()["train"])
        return windows_of(rows, np.sort(order[: self.args.labelled_samples]).tolist())

    def label_unit(self, rows: FinetuningRows) -> LabelUnit:
        """The unit in which a regression learns: mean and standard deviation of these rows' labels, of each column, with
        `standardize_labels`."""
        if self.task != "regression" or not self.args.standardize_labels:
            return LabelUnit()
        rows = one_window_a_row(rows)
        numbers = range(len(rows))
        parts = [rows.__getitems__(numbers[start : start + LABEL_ROWS]) for start in numbers[::LABEL_ROWS]]
        labels = np.array([row["labels"] for part in parts for row in part], dtype=np.float64)
        if labels.ndim == 2:
            mean, std = moments_of_columns(labels)
            return LabelUnit(tuple(mean), tuple(std))
        return LabelUnit(float(labels.mean()), float(labels.std()) or 1.0)


def refuse_sharding() -> None:
    """Refuse a launch that splits a model over processes.

    Raises:
        ValueError: The launch asks for FSDP or DeepSpeed.
    """
    for name in ("FSDP", "DeepSpeed"):
        if parse_flag_from_env(f"ACCELERATE_USE_{name.upper()}"):
            raise ValueError(
                f"the launch asks for {name}, but fine-tuning runs data-parallel only: take "
                "examples/accelerate/eight_gpus.yaml."
            )


def launched_precision() -> str:
    """The mixed precision of `accelerate launch`."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
