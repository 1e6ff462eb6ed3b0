"""What a recipe's data are, and what its run will need: parameters, memory and time, by some steps on this machine."""

import contextlib
import dataclasses
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from accelerate.state import PartialState
from transformers import AutoModelForPreTraining, PreTrainedConfig, TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as TransformersArguments

from ..checkpoint_folders import checkpoint_folder
from ..data.arguments import DataArguments
from ..data.kinds.tokens import TokenArguments
from ..data.masked_text.arguments import MaskedTextArguments
from ..data.preparation import read_data
from ..data.processors import load_processor
from ..data.tables.report import DataReport
from ..recipes import build_config, read_yaml
from ..terminal import counted, duration, one_voice, wrapped
from .finetuning.arguments import FinetuningRecipe, load_finetuning_recipe
from .finetuning.models import choose_inputs, head_class, read_config
from .finetuning.results import Run
from .finetuning.scores import LabelUnit
from .finetuning.setup import FinetuningSetup
from .finetuning.trials import Trials
from .pretraining.arguments import PretrainingRecipe, load_pretraining_recipe
from .pretraining.console import device_words, number
from .pretraining.loop import Pretrainer
from .pretraining.mask_ratio import with_default_ratio

# Training rows that are prepared for some steps, at least: classes are looked for, and texts may be joined to a sequence.
FEWEST_ROWS, TEXTS_OF_A_SEQUENCE = 256, 64
GIGABYTE = 1e9


@dataclass(frozen=True)
class Measured:
    """Some steps of a run.

    Attributes:
        seconds: Seconds of each step, the first left out.
        memory: Largest number of bytes in use: of the whole process, or on a GPU of the tensors there.
        all_memory: Number of bytes that there are.
        device: Device of the steps, in words.
    """

    seconds: list[float]
    memory: int
    all_memory: int
    device: str


@dataclass(frozen=True)
class Description:
    """A recipe's data and the needs of its run.

    Attributes:
        report: Counts of rows, columns, classes and missing values.
        model: Name and number of parameters of the model, in words.
        rows: Number of rows of an optimiser step, over all forward passes, on one process.
        steps: Number of steps of one training.
        runs: Number of trainings: in fine-tuning seeds times learning rates, twice where there is a baseline from scratch.
        epochs: Passes over the training rows; None of a stream.
        measured: Some steps; None where none were taken.
    """

    report: DataReport
    model: str
    rows: int
    steps: int
    runs: int
    epochs: float | None
    measured: Measured | None

    def lines(self, width: int = 80) -> list[str]:
        """All of it in words, no line longer than `width`."""
        epochs = "" if self.epochs is None else f", {number(self.epochs)} epochs"
        steps = f"{self.steps:,} steps of {counted(self.rows, 'row')}{epochs}"
        found = [f"model: {self.model}", f"run: {steps}" if self.runs == 1 else f"runs: {self.runs}, each of {steps}"]
        if self.measured is not None:
            found += self._measured_lines(self.measured)
        return [*self.report.lines(width), *(line for text in found for line in wrapped(text, width).split("\n"))]

    def _measured_lines(self, measured: Measured) -> list[str]:
        step = statistics.median(measured.seconds)
        memory, every = measured.memory / GIGABYTE, measured.all_memory / GIGABYTE
        steps = self.steps * self.runs
        return [
            f"step: {number(step)} s on {measured.device}, the median of {len(measured.seconds)}",
            f"memory: {memory:.1f} GB at the most, of {every:.0f} GB",
            f"time: about {duration(steps * step)} here for {counted(steps, 'step')} on one process; validation, probes, "
            "pictures and checkpoints come on top",
        ]


def describe(path: str | Path, overrides: Sequence[str] = (), steps: int = 3) -> Description:
    """Describe the data of a recipe and what its run will need; nothing is written but the caches of prepared rows.

    Args:
        path: Recipe of pre-training or of fine-tuning.
        overrides: Words of the command line that change its fields.
        steps: Number of steps to time, after a first one, on a part of the rows; 0 takes none and prepares no rows.

    Raises:
        ValueError: The recipe or the data cannot work.
        FileNotFoundError: No such recipe, data or checkpoint.
    """
    with one_voice(quiet=True):  # what the log would say is in the description
        if "finetuning" in read_yaml(path):
            return _describe_finetuning(load_finetuning_recipe(path, overrides), steps)
        return _describe_pretraining(load_pretraining_recipe(path, overrides), steps)


def _describe_pretraining(recipe: PretrainingRecipe, steps: int) -> Description:
    recipe = with_default_ratio(recipe)
    config, args = build_config(recipe.model), recipe.training
    report = read_data(recipe.data, config, complete=True).report
    per_step = args.batch_size * args.gradient_accumulation_steps
    with torch.device("meta"):
        model = _model_words(config, AutoModelForPreTraining.from_config(config))
    rows = report.splits["train"].windows or report.splits["train"].rows
    epochs = None if rows is None else args.max_steps * per_step / rows
    measured = None
    if steps:
        with _aside() as folder:
            few = dataclasses.replace(
                args,
                output_dir=str(folder),
                report_to=[],
                resume=False,
                push_to_hub=False,
                picture_steps=0,
                quiet=True,
                json_log=False,
            )
            data = _few_rows(recipe.data, per_step * (steps + 1))
            run = Pretrainer(dataclasses.replace(recipe, data=data, training=few), watchers=[])
            measured = _measured(lambda: run.time_steps(steps + 1), run.accelerator.device)
    return Description(report, model, per_step, args.max_steps, 1, epochs, measured)


def _describe_finetuning(recipe: FinetuningRecipe, steps: int) -> Description:
    args = recipe.finetuning
    checkpoint = None if args.checkpoint is None else checkpoint_folder(args.checkpoint, "finetuning.checkpoint")
    config = read_config(recipe.model, checkpoint)
    data = choose_inputs(config, recipe.data, args.inputs, recipe.model)
    raw = read_data(data, config, None if checkpoint is None else load_processor(checkpoint), require_labels=True)
    if raw.labels is not None:
        config.num_labels = raw.labels.num_labels
    with torch.device("meta"):
        model = _model_words(config, head_class(str(data.task), config).from_config(config))
    per_step = args.batch_size * args.gradient_accumulation_steps
    rows = args.labelled_samples or raw.report.splits["train"].rows or 0
    total = args.max_steps or round(args.num_train_epochs * -(-rows // per_step))
    has_baseline = args.baselines and args.checkpoint is not None and not args.from_scratch
    runs = len(args.seeds) * len(args.learning_rates) * (2 if has_baseline else 1)
    measured = None
    if steps:
        with _aside() as folder:
            few = dataclasses.replace(
                args,
                output_dir=str(folder),
                seeds=args.seeds[:1],
                learning_rate=args.learning_rates[:1],
                labelled_samples=None,
                baselines=False,
                baseline_models=[],
                baseline_trials=0,
                report_to=[],
                json_log=False,
            )
            short = _few_rows(recipe.data, per_step * (steps + 1))
            setup = FinetuningSetup(dataclasses.replace(recipe, data=short, finetuning=few))
            measured = _measured(lambda: _time_finetuning(setup, steps + 1), setup.state.device)
    return Description(raw.report, model, per_step, total, runs, total * per_step / max(1, rows), measured)


def _few_rows(data: DataArguments, rows: int) -> DataArguments:
    """The data section with no more training rows than some steps take."""
    joins = any(isinstance(part, TokenArguments | MaskedTextArguments) for part in (data, *data.sections().values()))
    return data.with_few_rows(max(FEWEST_ROWS, rows * (TEXTS_OF_A_SEQUENCE if joins else 1)))


def _model_words(config: PreTrainedConfig, model: torch.nn.Module) -> str:
    return f"{config.model_type}, {sum(one.numel() for one in model.parameters()):,} parameters"


@contextlib.contextmanager
def _aside() -> Iterator[Path]:
    """A folder that is removed again; what is done with it meanwhile says nothing."""
    logging.disable(logging.WARNING)
    try:
        with one_voice(quiet=True), tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        logging.disable(logging.NOTSET)


def _measured(run: Callable[[], list[float]], device: torch.device) -> Measured:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = run()
    if device.type == "cuda":
        memory, every = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    else:
        memory, every = _peak_of_process(), psutil.virtual_memory().total
    return Measured(seconds[1:], memory, every, device_words(device))


def _peak_of_process() -> int:
    """Largest number of bytes of memory that this process has had."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _Enough(Exception):
    """Ends a training after the steps that are timed."""


class _Clock(TrainerCallback):
    """Takes the time of each step, and ends the training after some."""

    def __init__(self, steps: int) -> None:
        self.steps, self.seconds, self.started = steps, list[float](), 0.0

    def on_step_begin(
        self, args: TransformersArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.started = time.perf_counter()

    def on_step_end(
        self, args: TransformersArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        _wait(PartialState().device)
        self.seconds.append(time.perf_counter() - self.started)
        if len(self.seconds) == self.steps:
            raise _Enough


def _time_finetuning(setup: FinetuningSetup, steps: int) -> list[float]:
    """Seconds of each of some steps of fine-tuning."""
    trials, run = Trials(setup), Run(setup.args.learning_rates[0], setup.args.seeds[0])
    clock = _Clock(steps)
    trainer = trials.trainer(trials.new_model(), run, LabelUnit(), setup.training_rows(run.seed))
    trainer.add_callback(clock)
    trainer.args.max_steps = max(trainer.args.max_steps, steps)
    try:
        trainer.train()
    except _Enough:
        return clock.seconds
    finally:
        trainer.patience.end()
    return clock.seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
