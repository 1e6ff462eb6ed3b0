"""Checkpoints of a run, written whole, and the finished model at the top of the folder."""

import dataclasses
import logging
import shutil
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list
from torch.distributed.tensor import DTensor
from transformers.dynamic_module_utils import custom_object_save

from ...checkpoint_folders import RECIPE_FILE
from ...data.processors import split_processor
from ...files import incomplete_folder, write_json
from .arguments import effective_recipe
from .checkpoints import (
    BEST,
    MANIFEST,
    STATE_FILE,
    checkpoint_folder,
    copy_as,
    find_problem,
    replace_files,
    seal,
    thin_out,
)
from .parts import split_run
from .state import NonFiniteLossError

if TYPE_CHECKING:
    from .loop import Pretrainer

logger = logging.getLogger(__name__)


def save(run: "Pretrainer", best: bool = False) -> None:
    """A sealed checkpoint of this step; `best` also keeps it as `checkpoint-best`."""
    run.window.check_finite()
    _check_weights(run)
    final = checkpoint_folder(run.output_dir, run.state.step)
    if not final.exists() or find_problem(final) is not None:
        named = [incomplete_folder(final) if run.accelerator.is_main_process else final]
        if run.accelerator.num_processes > 1:
            broadcast_object_list(named)  # every process writes its random numbers there
        folder = named[0]
        run.note_energy()
        run.accelerator.save_state(str(folder / "training_state"), safe_serialization=True)
        run.state.window, run.state.window_batches = run.window.reduced(), run.window.batches
        run.state.updates = run.scheduler.last_epoch
        _save_model(run, folder)
        run.accelerator.wait_for_everyone()
        if run.accelerator.is_main_process:
            write_json(folder / STATE_FILE, dataclasses.asdict(run.state))
            seal(folder, final)
    if run.accelerator.is_main_process:
        if best:
            copy_as(final, run.output_dir / BEST)
        thin_out(run.output_dir, run.args.save_total_limit, newest=final)
    run.accelerator.wait_for_everyone()


def _check_weights(run: "Pretrainer") -> None:
    """Refuse to save weights that are not finite: an overflowed gradient spoils them one step before the loss shows it."""
    parts = chain(run.model.parameters(), run.model.buffers())
    local = [part.to_local() if isinstance(part, DTensor) else part for part in parts]
    is_finite = torch.stack([torch.isfinite(part).all() for part in local]).all()
    if run.any_process(not is_finite):
        raise NonFiniteLossError(
            f"the weights are NaN or infinite after step {run.state.step}, although its loss was finite: the gradient "
            f"overflowed on {run.window.describe_rows(*run.rows)}"
        )


def _save_model(run: "Pretrainer", folder: Path) -> None:
    """Write model and processor by `save_pretrained`, and the card; those of parts into folders of their names."""
    state_dict = run.accelerator.get_state_dict(run.model)
    if not run.accelerator.is_main_process:
        return
    run.bare_model.save_pretrained(folder, state_dict=dict(state_dict))  # a copy: tied weights are removed from it
    if run.prepared.processor is not None:
        run.prepared.processor.save_pretrained(folder)
    for part in split_run(run.recipe, run.state, run.bare_model, run.prepared, state_dict):
        part.model.save_pretrained(folder / part.name, state_dict=part.weights)
        if part.processor is not None:
            part.processor.save_pretrained(folder / part.name)
        numeric = split_processor(part.processor)[0]
        if numeric is not None:  # from_pretrained(..., subfolder=PART) looks for code at the top
            custom_object_save(numeric, folder)
        text = effective_recipe(part.recipe)
        (folder / part.name / RECIPE_FILE).write_text(text, encoding="utf-8")
        if run.write_card is not None:
            run.write_card(folder / part.name, part.recipe, part.state)
    if run.write_card is not None:  # last, since it looks at what was saved
        run.write_card(folder, run.recipe, run.state)


def finish(run: "Pretrainer") -> None:
    """Save the last step; a complete run also puts its model at the top of `output_dir`."""
    run.state.interrupted = run.state.step < run.args.max_steps
    save(run)
    if run.accelerator.is_main_process and not run.state.interrupted:
        last = checkpoint_folder(run.output_dir, run.state.step)
        for name in ("", *run.prepared.parts):
            target = run.output_dir / name
            target.mkdir(exist_ok=True)
            replace_files(target, partial(_copy_model_files, last / name))
    elif run.accelerator.is_main_process:
        reason = run.signals.received or "SIGTERM, SIGUSR1 or Ctrl-C in another process"
        logger.warning("%s: stopped and saved at step %d; --resume continues.", reason, run.state.step)
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()


def _copy_model_files(checkpoint: Path, folder: Path) -> None:
    """Copy the files that a reader of the model needs, without those that only a resumed run needs."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.name != MANIFEST:
            shutil.copy2(path, folder / path.name)
