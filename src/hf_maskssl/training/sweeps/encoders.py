"""Encoders of a sweep: each is pre-trained once into a folder of its own, and goes on where it was stopped."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ...files import JsonObject, JsonView, write_json
from ...models.task_balancing import TaskPretraining
from ..pretraining.arguments import PretrainingRecipe
from ..pretraining.loop import Pretrainer
from ..pretraining.watching import OnlineProbe, Validation, Watcher

DONE = "pretraining.json"
LOSS_POINTS = 20  # of the curve of losses that is kept


class TimedProbe(OnlineProbe):
    """An online probe that notes how long the run has trained, without the time for which it was watched."""

    seconds_watched: float | None = None

    def look(self, run: Pretrainer) -> dict[str, float]:
        """As `OnlineProbe`, `seconds`, and `seconds_watched`, by which a run that goes on knows what went before."""
        if self.seconds_watched is None:
            self.seconds_watched = run.state.latest("seconds_watched") or 0.0
        if run.accelerator.device.type == "cuda":
            torch.cuda.synchronize()  # what has been launched before belongs to the training
        started = time.perf_counter()
        seconds = run.state.seconds - self.seconds_watched
        values = super().look(run)
        self.seconds_watched += time.perf_counter() - started
        return values | {"seconds": seconds, "seconds_watched": self.seconds_watched}


def pretrain_encoder(
    recipe: PretrainingRecipe, curve_points: int = 0, notes: JsonView | None = None
) -> JsonObject | None:
    """Pre-train into `training.output_dir`, unless a finished encoder is there; no pictures, the checkpoints go.

    Args:
        recipe: The run. It goes on from its newest checkpoint.
        curve_points: Number of online probes at equal distances, beside one of the untrained encoder; they need labels.
        notes: Further entries of the record.

    Returns:
        The record, {"steps", "passes", "seconds" of training (with online probes without the time
        that they took; validation and saving count), "losses" {"train/NAME": mean of the last logged steps},
        "validation" {"validation/NAME": last value, and of several balanced tasks "validation/worst_task", the largest},
        "loss_curve" [[step, loss], ...], "curve" [{"step", "seconds", "name" of the score, "score"}, ...], and `notes`}; None
        where SIGTERM or Ctrl-C stopped the run, which the same call continues.
    """
    folder = Path(recipe.training.output_dir)
    if (folder / DONE).is_file():
        found: JsonObject = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return found
    args = dataclasses.replace(recipe.training, resume=True, save_total_limit=1, picture_steps=0)
    every = max(1, args.max_steps // curve_points) if curve_points else 0
    recipe = dataclasses.replace(recipe, training=args, probe=dataclasses.replace(recipe.probe, every_steps=every))
    probe = TimedProbe(every)
    watchers: list[Watcher] = [watcher for watcher in (Validation(args.eval_steps), probe) if watcher.every]
    trainer = Pretrainer(recipe, watchers=watchers)
    state = trainer.run()
    if state.interrupted:
        return None
    losses = [entry for entry in state.history if "train/loss" in entry]
    validated = [entry for entry in state.history if "validation/loss" in entry]
    record: JsonObject = {
        "steps": state.step,
        "passes": state.epoch,
        "seconds": round(state.latest("seconds") or state.seconds, 1),
        "losses": _of("train/", losses),
        "validation": _with_worst_task(_of("validation/", validated), trainer.bare_model),
        "loss_curve": [
            [entry["step"], entry["train/loss"]] for entry in losses[:: max(1, len(losses) // LOSS_POINTS)]
        ],
        "curve": [_point(entry) for entry in state.history if "seconds" in entry],
        **(notes or {}),
    }
    for path in folder.glob("checkpoint-*"):  # the finished model lies beside them
        shutil.rmtree(path)
    write_json(folder / DONE, record)
    return record


def _point(entry: dict[str, float]) -> JsonObject:
    """A look of the online probe, as the curve has it."""
    name = next(name for name in entry if name.startswith("probe/linear_"))
    return {"step": entry["step"], "seconds": entry["seconds"], "name": name, "score": entry[name]}


def _of(prefix: str, entries: list[dict[str, float]]) -> dict[str, float]:
    """The last entry's values of a group, without counts of terms, which serve averages."""
    last = entries[-1] if entries else {}
    return {name: value for name, value in last.items() if name.startswith(prefix) and "/count/" not in name}


def _with_worst_task(losses: dict[str, float], model: PreTrainedModel) -> dict[str, float]:
    """With the largest loss of the tasks that a model balances: what minimax pre-training lowers."""
    if not losses or not isinstance(model, TaskPretraining):
        return losses
    tasks = model.balancer.tasks[: model.balancer.num_balanced]
    # A task without a term in the validation rows has no loss.
    found = [losses[name] for task in tasks if (name := f"validation/{task}") in losses]
    return losses | ({"validation/worst_task": max(found)} if found else {})
