"""What a run of pre-training says: what it begins with, each look of a watcher, and where everything is at its end."""

import logging
import shlex
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import DistributedType

from ...checkpoint_folders import RECIPE_FILE
from ...files import JsonObject
from ...terminal import VOICE, counted, duration, say_json, shell_line
from .averages import WEIGHT
from .checkpoints import BEST

if TYPE_CHECKING:
    from .loop import Pretrainer

# Parts of a loss, beside the whole, that the moving line shows.
SHOWN_PARTS = 3
RANKME = "probe/rankme"
PRECISIONS = {"no": "float32", "fp16": "float16 with float32 weights", "bf16": "bfloat16 with float32 weights"}

logger = logging.getLogger(__name__)


def say_start(run: "Pretrainer") -> None:
    """Say what the run works with, before its first step; `prepare_data` has said what the data are."""
    facts = _facts(run)
    processes, passes = facts["processes"], facts["gradient_accumulation_steps"]
    per_step = f"{run.args.batch_size} x {counted(processes, 'process')} x {counted(passes, 'forward pass')}"
    steps = f"{run.args.max_steps:,}"
    if facts["epochs"] is not None:
        steps += f", or {facts['epochs']:.4g} epochs of {counted(facts['rows'], 'row')}"
    trained, every = facts["trained_parameters"], facts["parameters"]
    share = "" if trained == every else f", {trained:,} of them trained"
    start = "" if run.args.init_from is None else f", begun from {run.args.init_from}"
    for name, text in (
        ("model", f"{facts['model_type']}, {every:,} parameters{share}{start}"),
        ("device", f"{facts['device']}, {facts['precision']}, {counted(processes, 'process')}"),
        ("step", f"{counted(facts['rows_per_step'], 'row')} ({per_step})"),
        ("steps", steps),
        ("output", str(run.output_dir)),
    ):
        logger.info("%s: %s", name, text)
    VOICE.shares_rows = True
    if run.args.json_log:
        say_json("start", facts)


def say_values(run: "Pretrainer", values: Mapping[str, float]) -> None:
    """Print named values of the present step as JSON, where the recipe wants it."""
    if run.args.json_log and values:
        say_json("log", {"step": run.state.step, **values})


def say_look(run: "Pretrainer", values: Mapping[str, float]) -> None:
    """Say what a watcher has seen, beside what it saw before the first step."""
    shown = [name for name in values if not _is_part(name) and not is_rankme(name)]
    if not shown:
        return
    untrained = run.state.history[0] if run.state.history and run.state.history[0]["step"] == 0 else {}
    words: list[str] = []
    for name in shown:
        text = f"{title(name)} {number(values[name])}"
        if run.state.step and name in untrained:
            text += f" ({'untrained ' if not words else ''}{number(untrained[name])})"
        words.append(text)
    step = f"step {run.state.step:,}" if run.state.step else "untrained"
    logger.info("%s: %s", step, ", ".join(words))


def say_end(run: "Pretrainer") -> None:
    """Say where everything is, and what to type next; of a run that was stopped `finish` has said it."""
    state, folder = run.state, run.output_dir
    if state.interrupted:
        if run.args.json_log:
            say_json("stopped", {"step": state.step, "seconds": state.seconds, "output_dir": str(folder)})
        return
    loss = state.latest("train/loss")
    logger.info(
        "finished: %s in %s%s",
        counted(state.step, "step"),
        duration(state.seconds),
        "" if loss is None else f", loss {number(loss)}",
    )
    best = _best(run)
    if best is not None:
        kept = f", kept in {folder / BEST}" if run.args.save_best else ""
        logger.info("best: validation loss %s at step %s%s", number(best[0]), f"{best[1]:,}", kept)
    untrained = state.history[0] if state.history and state.history[0]["step"] == 0 else {}
    changes = [
        f"{title(name)} {number(value)} -> {number(last)}"
        for name, value in untrained.items()
        if name.startswith("probe/") and (last := state.latest(name)) is not None
    ]
    if changes:
        logger.info("probe: %s", ", ".join(changes))
    logger.info("model: %s", folder)
    pictures = folder / "pictures"
    drawn = sorted(pictures.glob("*.png")) if pictures.is_dir() else []
    if drawn:
        logger.info("pictures: %s (%s)", pictures, counted(len(drawn), "file"))
    logger.info("next:")
    parts = run.prepared.parts or {"": run.prepared}
    for name, part in parts.items():
        held_out = part.validation is not None or part.test is not None
        for command in next_commands(folder / name, can_probe=held_out and part.task is not None):
            logger.info("%s", command)
    if run.args.json_log:
        score = {} if best is None else {"best_loss": best[0], "best_step": best[1]}
        say_json("end", {"step": state.step, "seconds": state.seconds, "output_dir": str(folder), **score})


def next_commands(folder: Path, can_probe: bool) -> list[str]:
    """Commands for the model of a finished run.

    Args:
        folder: Folder of the run, which holds its recipe.
        can_probe: Whether the recipe names labels and a split to score, which a probe needs.
    """
    model, recipe = (shlex.quote(str(path)) for path in (folder, folder / RECIPE_FILE))
    commands = [["probe", model, recipe]] if can_probe else []
    commands.append(["embed", model, recipe, f"--output {shlex.quote(f'{folder.name}-features.parquet')}"])
    commands.append(["publish", model, shlex.quote(f"you/{folder.name}"), "--dry_run"])
    return [shell_line(["hf-maskssl", *words]) for words in commands]


def weightiest(means: Mapping[str, float]) -> list[tuple[str, str]]:
    """The loss and the parts that make most of it, each with its value in words.

    Args:
        means: Values of `averages`: a part counts for its value times its `weight/NAME`, where it has one.
    """
    parts = [name for name in means if "/" not in name and name != "loss" and means[name] != means["loss"]]
    parts.sort(key=lambda name: -abs(means[name] * means.get(WEIGHT + name, 1.0)))
    return [(name, number(means[name])) for name in ("loss", *parts[:SHOWN_PARTS])]


def title(name: str) -> str:
    """A logged name in words: "validation/loss" -> "validation loss", "probe/linear_accuracy" -> "linear accuracy".

    The probes' metric is one, so that of the second goes without saying.
    """
    section, _, rest = name.partition("/")
    if section == "probe" and "/" in rest:  # a score of one part
        part, _, score = rest.partition("/")
        return f"{part} {title(f'probe/{score}')}"
    if name == RANKME:
        return "RankMe"
    if name.startswith("probe/knn_"):
        return "kNN"
    return name.removeprefix("probe/").replace("/", " ").replace("linear_", "linear ")


def is_rankme(name: str) -> bool:
    """Whether a logged value is RankMe, of the features of the model or of one of its parts."""
    return name.startswith("probe/") and name.endswith(RANKME.removeprefix("probe"))


def number(value: float) -> str:
    """A value in three digits, or all that stand in front of the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def device_words(device: torch.device) -> str:
    """A device by its name: "NVIDIA H100", "cpu with 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu with {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else device.type


def _is_part(name: str) -> bool:
    """Whether a value of validation only says what the loss is made of; the history and the curves have it."""
    return name.startswith("validation/") and name != "validation/loss"


def _best(run: "Pretrainer") -> tuple[float, int] | None:
    """The lowest validation loss and its step, untrained ones apart; None without validation."""
    found = [(row["validation/loss"], int(row["step"])) for row in run.state.history if "validation/loss" in row]
    return min((pair for pair in found if pair[1]), default=None)


def _facts(run: "Pretrainer") -> JsonObject:
    """What the run works with, as JSON writes it."""
    accelerator, args, train = run.accelerator, run.args, run.prepared.train
    rows = len(train) if isinstance(train, Sized) else None
    per_step = args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    name = device_words(accelerator.device)
    if accelerator.distributed_type == DistributedType.FSDP:
        name += ", sharded"
    return {
        "model_type": run.bare_model.config.model_type,
        "parameters": run.parameters[0],
        "trained_parameters": run.parameters[1],
        "device": name,
        "precision": PRECISIONS.get(accelerator.mixed_precision, accelerator.mixed_precision),
        "processes": accelerator.num_processes,
        "batch_size": args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "rows_per_step": per_step,
        "rows": rows,
        "max_steps": args.max_steps,
        "epochs": None if rows is None else args.max_steps * per_step / rows,
        "output_dir": str(run.output_dir),
    }
