"""What fine-tuning says: what it begins with, how each run goes, the scores and where everything is at its end."""

import logging
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...evaluation.reports import significant, text_table
from ...files import JsonView
from ...terminal import VOICE, WIDTH, MovingLine, counted, say_json, shell_line
from ..pretraining.console import PRECISIONS, device_words, number
from .adapters import described, is_adapter, parameter_counts
from .results import Run, adapter_lines, baseline_search_lines, outliers_sentence, search_lines
from .setup import launched_precision

if TYPE_CHECKING:
    from .sweep import Finetuner

logger = logging.getLogger(__name__)


def say_start(tuner: "Finetuner") -> None:
    """Say what the runs work with, before the first; `prepare_data` has said what the data are."""
    args, setup = tuner.args, tuner.setup
    processes, passes = setup.state.num_processes, args.gradient_accumulation_steps
    per_step = args.batch_size * processes * passes
    rows = args.labelled_samples or setup.row_counts()["train"]
    samples = len(setup.training_rows(args.seeds[0]))
    steps = args.max_steps or round(args.num_train_epochs * max(1, -(-samples // per_step)))
    trained_on = counted(rows, "row") + ("" if samples == rows else f", {counted(samples, 'window')} of them")
    start = "random weights" if args.checkpoint is None or args.from_scratch else str(args.checkpoint)
    runs = len(args.seeds) * len(args.learning_rates)
    kept = ", the encoder frozen" if args.freeze_encoder else f", {described(args.peft)}" if args.peft else ""
    precision = PRECISIONS[args.mixed_precision or launched_precision()]
    for name, text in (
        ("model", f"{setup.config.model_type} from {start}{kept}"),
        ("task", f"{setup.task}, {counted(setup.num_labels, 'output')}, chosen by {tuner.metric}"),
        ("device", f"{device_words(setup.state.device)}, {precision}, {counted(processes, 'process')}"),
        (
            "step",
            f"{counted(per_step, 'row' if samples == rows else 'window')} ({args.batch_size} x {counted(processes, 'process')} x "
            f"{counted(passes, 'forward pass')})",
        ),
        ("steps", f"{steps:,} a run, or {steps * per_step / samples:.4g} epochs of {trained_on}"),
        (
            "runs",
            f"{runs:,}: {counted(len(args.seeds), 'seed')} x {counted(len(args.learning_rates), 'learning rate')}",
        ),
        ("output", str(setup.folder)),
    ):
        logger.info("%s: %s", name, text)
    VOICE.shares_rows = True
    if args.json_log:
        facts = {"task": setup.task, "metric": tuner.metric, "rows": setup.row_counts(), "runs": runs, "steps": steps}
        say_json(
            "start", {**facts, "rows_per_step": per_step, "processes": processes, "output_dir": str(setup.folder)}
        )


class RunLine(TrainerCallback):
    """The line that moves while a run trains, and a line of the log for each validation.

    Args:
        run: The run.
        metric: Name of the headline metric.
        with_json: Whether to print what is logged as JSON, too.
    """

    def __init__(self, run: Run, metric: str, with_json: bool) -> None:
        self.run, self.metric, self.with_json = run, metric, with_json
        self.line: MovingLine | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        model = kwargs.get("model")
        if isinstance(model, torch.nn.Module):
            counts = parameter_counts(model)
            share = "" if counts["trained"] == counts["all"] else f", {counts['trained']:,} of them trained"
            logger.info("%s: %s parameters%s", self.run.title, f"{counts['all']:,}", share)
        self.line = MovingLine("step", state.max_steps, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.line is not None:
            self.line.update(state.global_step - self.line.done)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if logs is None:
            return
        if self.line is not None and "loss" in logs:
            self.line.tell([("loss", number(float(logs["loss"]))), ("epoch", number(state.epoch or 0))])
        if self.with_json:
            run = {"learning_rate": self.run.learning_rate, "seed": self.run.seed, "step": state.global_step}
            say_json("log", {**logs, **run})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if state.is_world_process_zero and metrics is not None:
            score = significant(metrics[f"eval_{self.metric}"], 4)
            logger.info("%s, epoch %.4g: validation %s %s", self.run.title, state.epoch or 0, self.metric, score)

    def close(self) -> None:
        """End the line, however the run ended."""
        if self.line is not None:
            self.line.close()


def say_end(folder: Path, results: JsonView, json_log: bool, write_model: bool) -> None:
    """Say where everything is, and what to type next.

    Args:
        folder: Folder of the results.
        results: Content of results.json.
        json_log: Whether to print the scores as JSON, too.
        write_model: Whether a model was kept.
    """
    logger.info("results: %s, results.json", folder / "results.md")
    pictures = results.get("pictures", {})
    if pictures:
        logger.info("pictures: %s", ", ".join(str(folder / path) for path in pictures.values()))
    if write_model:
        logger.info("model: %s (seed %d)", folder / "model", results["model"]["seed"])
        if not is_adapter(folder / "model"):  # an adapter is no whole model
            logger.info("next:")
            model = shlex.quote(str(folder / "model"))
            name = shlex.quote(f"you/{folder.name}")
            logger.info("%s", shell_line(["hf-maskssl", "publish", model, name, "--dry_run"]))
    if json_log:
        scores = {"metric": results["metric"], "learning_rate": results["learning_rate"], "scores": results["scores"]}
        say_json("end", {**scores, "output_dir": str(folder)})


def terminal_report(results: JsonView, width: int = WIDTH) -> str:
    """The scores as text of at most `width` characters a line."""
    table = results["table"]
    blocks = [text_table(table["rows"], table["columns"], width), textwrap.fill(results["selection"], width)]
    blocks += [textwrap.fill(line, width) for line in (*search_lines(results), *adapter_lines(results))]
    compared = results.get("tables", {}).get("baselines")
    if compared is not None:  # the headline, the difference and the runs: other scores stand in results.md
        columns = [*compared["columns"][:2], "difference", compared["columns"][-1]]
        rows = [[*row[:2], *row[-2:]] for row in compared["rows"]]
        blocks.append(text_table(rows, columns, width))
    blocks += [textwrap.fill(line, width) for line in baseline_search_lines(results)]
    if results.get("outliers") is not None:
        blocks.append(textwrap.fill(outliers_sentence(results["outliers"]), width))
    return "\n\n".join(blocks)
