"""Predictions of GLUE's test sets, whose labels are not public, in the files that its server scores."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ...data.arguments import DEFAULT_FRACTIONS, DataArguments, is_hub_name
from ...data.collators import BatchCollator
from ...data.preparation import prepare_data, read_data
from ...data.tables.rows import Row
from ...data.tables.sources import read_split
from ...evaluation.glue import task_name
from ...evaluation.glue_server import DIAGNOSTIC, SERVER_TASKS, submission_text, words_of_classes
from ...files import JsonObject, write_whole
from .results import Run
from .scores import LabelUnit
from .setup import FinetuningSetup
from .trials import Trials

FOLDER = "glue"  # folder in the output_dir
INDEX = "idx"  # column of nyu-mll/glue: the row's number in its test set

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class UnlabelledCollator:
    """The data's collator, without labels and row numbers, which no forward pass takes."""

    collator: BatchCollator

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = self.collator(rows)
        return {name: values for name, values in batch.items() if name not in ("labels", "index")}


class GlueTest:
    """The test sets of the task that a recipe fine-tunes to; they are read before the training, so that it is not in vain.

    Args:
        setup: Setup of the runs.

    Attributes:
        words: The server's word for each class; none for values.
        sections: Name of a file -> the data section of its test set.
        numbers: Name of a file -> the number of each row in its test set.

    Raises:
        ValueError: No task of GLUE, other classes than the task's, a test set that lacks columns or rows, or rows that are empty.
        FileNotFoundError: A file that does not exist.
    """

    def __init__(self, setup: FinetuningSetup) -> None:
        self.setup = setup
        data = setup.recipe.data
        task = task_name(dataclasses.asdict(data))
        if task not in SERVER_TASKS:
            raise ValueError(
                f"finetuning.predict_test: expected a task of GLUE, {list(SERVER_TASKS)}, as data.config_name or as the last "
                f"part of data.data_dir, got {task!r}: name it so, or leave predict_test out."
            )
        self.words = words_of_classes(task, setup.data.label_names)
        self.sections = {
            name: section
            for name, split in SERVER_TASKS[task].files.items()
            if (section := _section(data, name, split))
        }
        self.numbers: dict[str, list[int]] = {}
        missing = [name for name in SERVER_TASKS[task].files if name not in self.sections]
        if not self.sections:
            raise ValueError(
                f"finetuning.predict_test: data.data_files names no test set of {task}: expected the splits "
                f"{list(SERVER_TASKS[task].files.values())}, such as {{train: ..., validation: ..., test: test.parquet}}."
            )
        if missing:
            logger.warning("finetuning.predict_test: data.data_files names no test set for %s: left out", missing)
        for name, section in self.sections.items():
            with setup.state.main_process_first():  # the others find the rows in the cache
                left_out = read_data(section, setup.config, setup.data.processor).report.splits["train"].left_out
            self.numbers[name] = _row_numbers(section, name)
            if left_out:
                raise ValueError(
                    f"finetuning.predict_test: the server wants a prediction for every row of {name}, but rows are left out: "
                    f"{left_out}. Give them a text."
                )

    def predict(self, trials: Trials, model: Path) -> list[Path]:
        """Write a file for each test set; every process must call this.

        Args:
            trials: Trials of the runs.
            model: Folder of the model that is kept.

        Returns:
            The files, `output_dir`/glue/NAME.tsv.

        Raises:
            ValueError: Outputs that are not finite.
        """
        head = trials.open_model(model)
        return [self._predict(name, section, trials, head) for name, section in self.sections.items()]

    def _predict(self, name: str, section: DataArguments, trials: Trials, head: torch.nn.Module) -> Path:
        with self.setup.state.main_process_first():
            prepared = prepare_data(section, self.setup.config, self.setup.data.processor)
        rows: Any = prepared.train
        trainer = trials.trainer(head, Run(self.setup.args.learning_rates[0], 0), LabelUnit())
        trainer.data_collator = UnlabelledCollator(prepared.collator)
        trainer.compute_metrics = None
        output = trainer.evaluation_loop(
            trainer.get_test_dataloader(rows), f"Predicting {name}", metric_key_prefix="test"
        )
        path = self.setup.folder / FOLDER / f"{name}.tsv"
        if self.setup.state.is_main_process:
            text = submission_text(np.asarray(output.predictions), self.numbers[name], self.words)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))
            logger.info("predictions of %d test rows in %s", len(self.numbers[name]), path)
        self.setup.state.wait_for_everyone()
        return path


def _row_numbers(section: DataArguments, name: str) -> list[int]:
    """The number of each row in its test set, by column idx, else by the order of the file."""
    raw = read_split(section, section.train_split)
    assert isinstance(raw, Dataset), "fine-tuning refuses streams"
    numbers = [int(number) for number in (raw[INDEX][:] if INDEX in raw.column_names else range(len(raw)))]
    if sorted(numbers) != list(range(len(numbers))):
        raise ValueError(
            f"finetuning.predict_test: column {INDEX!r} of {name} holds the numbers {min(numbers)} to {max(numbers)} in "
            f"{len(numbers)} rows, expected 0 to {len(numbers) - 1}, each once: give the whole test set"
        )
    return numbers


def _section(data: DataArguments, name: str, split: str) -> DataArguments | None:
    """The data section that reads a test set as plain texts; None where there is no such set."""
    fields: JsonObject = {"train_split": split}
    if isinstance(data.data_files, dict):
        if split not in data.data_files:
            return None
    elif name == DIAGNOSTIC:
        if not is_hub_name(data.source):
            return None
        fields = {"train_split": "test", "config_name": DIAGNOSTIC.lower()}
    fields |= {"label_column": None, "task": "classification", "drop_missing_labels": False, "max_train_samples": None}
    fields |= {"validation_split": None, "test_split": None, "validation_fraction": 0.0, "split": "given"}
    fields |= {"split_fractions": list(DEFAULT_FRACTIONS), "split_column": None}
    if "label_mask_column" in data.__dataclass_fields__:
        fields["label_mask_column"] = None
    section: DataArguments = dataclasses.replace(data, **fields)
    return section
