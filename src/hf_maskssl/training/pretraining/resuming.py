"""Resuming from a checkpoint: its weights and optimiser state, with the recipe's present settings."""

import logging
import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_model
from torch.optim.lr_scheduler import LambdaLR

from ...checks import changes
from ..digests import split_digests
from .arguments import learning_settings, settings_as_json
from .batches import stream_layout
from .checkpoints import (
    BEST,
    changed_settings,
    check_same_model,
    copy_as,
    find_problem,
    list_checkpoints,
    newest_sound_checkpoint,
    read_state,
    refuse_former_model,
    said_changes,
    warn_of_changed_data,
)
from .state import RunState

if TYPE_CHECKING:
    from .loop import Pretrainer

# Settings of an optimiser's parameter groups that hold from here on; the rest of a group is the checkpoint's.
GROUP_SETTINGS = ("lr", "initial_lr", "betas", "eps", "weight_decay")
# The scheduler's state in checkpoints of version 0.1 and before, which is a pickle.
FORMER_SCHEDULER = "custom_checkpoint_0.pkl"

logger = logging.getLogger(__name__)


def note_settings(run: "Pretrainer") -> None:
    """Write into the run's state what `resume` will compare a later run with."""
    args, processes = run.args, run.accelerator.num_processes
    run.state.layout = {
        "num_processes": processes,
        "batch_size": args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "seed": args.seed,
        **stream_layout(run.prepared, args, processes),
    }
    run.state.data = settings_as_json(run.recipe.data)
    run.state.training = learning_settings(args)
    if run.accelerator.is_main_process:
        run.state.rows = split_digests(run.prepared)
    splits = run.prepared.report.splits
    run.state.row_counts = {name: split.rows for name, split in splits.items() if split.rows is not None}
    run.state.rows_left_out = {name: sum(split.left_out.values()) for name, split in splits.items() if split.left_out}


def resume(run: "Pretrainer") -> None:
    """Continue from the newest sound checkpoint of the folder.

    Settings of the optimiser and the learning rate are those of the recipe, also where the checkpoint was written with
    others, which the log then names.

    Raises:
        ValueError: The checkpoint has another model, another layout (on which the order of the data depends) or other groups of
            parameters; a file of it is no plain data; or no checkpoint is sound.
    """
    folder = newest_sound_checkpoint(run.output_dir)
    if folder is None:
        _begin_anew(run.output_dir)
        return
    model = run.bare_model
    check_same_model(folder, model.config)
    state = RunState(**read_state(folder))
    _check_layout(folder, state.layout, run.state.layout)
    _check_groups(folder, state, run.state)
    if run.accelerator.distributed_type != DistributedType.FSDP:
        load_model(model, folder / "model.safetensors")  # into the weights where they are
    _load_training_state(run, folder, state)
    if run.accelerator.is_main_process:
        _log_changed_learning(folder, state, run.state)
        warn_of_changed_data(folder, state.data, run.state.data)
        _warn_of_changed_rows(folder, state.rows, run.state.rows)
    state.interrupted, state.data, state.training = False, run.state.data, run.state.training
    state.layout, state.rows = run.state.layout, run.state.rows
    state.row_counts, state.rows_left_out = run.state.row_counts, run.state.rows_left_out
    run.state = state
    run.window.restore(state.window, state.window_batches)
    best = run.output_dir / BEST
    if run.accelerator.is_main_process and run.args.save_best and state.best_step == state.step:
        # The run may have ended between the two copies of this checkpoint.
        if find_problem(best) is not None or read_state(best)["step"] != state.step:
            copy_as(folder, best)
    logger.info("Resumed from %s at step %d.", folder, state.step)


def _begin_anew(output_dir: Path) -> None:
    """Say that nothing is resumed, where nothing is lost by it.

    Raises:
        ValueError: There are damaged checkpoints, parts of which may be of use, or a finished model: a new run would be written
            over them.
    """
    damaged = list_checkpoints(output_dir)
    if damaged:
        raise ValueError(
            f"training.output_dir {output_dir}: none of its {len(damaged)} checkpoints is sound, the newest since "
            f"{find_problem(damaged[-1])}: put the files back, name another folder, or remove "
            f"{output_dir / 'checkpoint-*'} to start from the beginning."
        )
    refuse_former_model(output_dir)
    logger.warning("No checkpoint in %s: starting from the beginning.", output_dir)


def _load_training_state(run: "Pretrainer", folder: Path, state: RunState) -> None:
    """Optimiser, gradient scaler and random numbers as they were; the learning rate and the optimiser's settings of now."""
    groups = run.optimizer.param_groups
    settings = [{name: group[name] for name in GROUP_SETTINGS} for group in groups]
    with _without_former_scheduler(folder / "training_state") as training_state:
        try:
            run.accelerator.load_state(str(training_state))
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{folder / 'training_state'} holds a file that is no plain data, and was not read: {error}. Only programs of "
                "somebody else write such files: take the checkpoint away, and an earlier one is resumed."
            ) from error
    for group, own in zip(run.optimizer.param_groups, settings, strict=True):
        group.update(own)
    updates = state.updates if state.updates is not None else _former_updates(folder, state)
    go_to_update(run.scheduler, updates)


def go_to_update(scheduler: LambdaLR, updates: int) -> None:
    """Set the learning rate as it is after this number of updates of the weights."""
    rates = [base * factor(updates) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    scheduler.load_state_dict(
        scheduler.state_dict() | {"last_epoch": updates, "_step_count": updates + 1, "_last_lr": rates}
    )
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _former_updates(folder: Path, state: RunState) -> int:
    """Updates as a checkpoint of version 0.1 counts them; where it has no such file, one a step."""
    path = folder / "training_state" / FORMER_SCHEDULER
    if not path.is_file():
        return state.step
    try:
        return int(torch.load(path, weights_only=True)["last_epoch"])
    except (pickle.UnpicklingError, KeyError, TypeError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not the state of a learning rate's schedule, and was not read: {error}"
        ) from error


@contextmanager
def _without_former_scheduler(folder: Path) -> Iterator[Path]:
    """The folder without the scheduler's pickle of former versions, which Accelerate would load by running it."""
    if not any(folder.glob("custom_checkpoint_*.pkl")):
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        view = Path(name)
        for path in folder.iterdir():
            if not path.match("custom_checkpoint_*.pkl"):
                os.symlink(path.resolve(), view / path.name)
        yield view


def _check_layout(folder: Path, former: dict[str, int], now: dict[str, int]) -> None:
    """Refuse what would change the order of the data; a checkpoint of version 0.1 does not know all of a stream's."""
    titles = {name: name if name == "num_processes" else f"training.{name}" for name in former}  # that is no field
    before, after = ({title: layout.get(name) for name, title in titles.items()} for layout in (former, now))
    changed = changes(before, after)
    if changed:
        raise ValueError(
            f"{folder} was written with other settings ({'; '.join(changed)}), on which the order of the data depends: resume "
            "with the former values, or start another training.output_dir."
        )
    unknown = [name for name in now if name not in former]
    if unknown:
        logger.warning(
            "%s was written by an earlier version, which did not note %s of a stream: if they were others, or if several "
            "processes read it, the run goes on with other rows than it would have.",
            folder,
            " and ".join(f"training.{name}" for name in unknown),
        )


def _warn_of_changed_rows(folder: Path, former: dict[str, str], now: dict[str, str]) -> None:
    for name in now:
        if former.get(name, now[name]) != now[name]:
            logger.warning(
                "%s was written with other rows of the %s split than data.source has now, under the same name or with other "
                "settings: the run goes on with the rows of now. Put the former files back if that is not meant.",
                folder,
                name,
            )


def _check_groups(folder: Path, former: RunState, now: RunState) -> None:
    """Refuse other groups of parameters, whose momenta would go to other weights."""
    name = "decay_norm_and_bias"
    if name in changed_settings(former.training, now.training):
        raise ValueError(
            f"{folder} was written with another setting ({'; '.join(said_changes([name], former.training, now.training))}), "
            "which decides how the optimiser groups its parameters: resume with the former value, or start another "
            "training.output_dir."
        )


def _log_changed_learning(folder: Path, former: RunState, now: RunState) -> None:
    changed = changed_settings(former.training, now.training)
    if changed:
        values = "; ".join(said_changes(changed, former.training, now.training))
        logger.warning("From here on the run has other settings than %s: %s.", folder, values)
