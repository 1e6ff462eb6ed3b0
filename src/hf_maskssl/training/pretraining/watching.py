"""Watchers of a model in training: its loss on held-out rows, its features, its reconstructions.

A `Watcher` of your own is passed to `pretrain` beside those of the recipe (`recipe_watchers`).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from accelerate.utils import DistributedType, send_to_device
from transformers import AutoModelForPreTraining, PreTrainedModel

from ...data import find_kind
from ...data.arguments import DataArguments
from ...data.preparation import PreparedData
from ...data.tables.preparing import plain_rows
from ...data.tables.rows import Row
from ...evaluation.online import labelled_held_out, online_probe
from ...models.pretraining import pretraining_hooks
from ...pictures.curves import draw_curves
from ...pictures.pretraining import draw_pretraining
from .arguments import PretrainingRecipe
from .averages import add_parts, averages
from .batches import validation_batches

if TYPE_CHECKING:
    from .loop import Pretrainer

logger = logging.getLogger(__name__)


class Watcher(ABC):
    """An observer of a run: every so many steps, after the last one, and with `at_start` before the first.

    Every process calls it at the same step.

    Args:
        every: Steps between two looks; 0 never looks.
    """

    at_start = False

    def __init__(self, every: int) -> None:
        self.every = every

    def check(self, run: "Pretrainer") -> None:  # noqa: B027  most have no needs
        """Check the needs of the watcher, once the data is there and before anything is trained.

        Raises:
            ValueError: The watcher lacks something that it needs.
        """

    @abstractmethod
    def look(self, run: "Pretrainer") -> dict[str, float]:
        """Named values for the log, the history and the trackers; may be none."""


class Validation(Watcher):
    """The mean loss of the validation split, with the same rows and masks every time."""

    at_start = True  # measures the untrained model for comparison

    def check(self, run: "Pretrainer") -> None:
        validation, processes = run.prepared.validation, run.accelerator.num_processes
        if validation is None:
            raise ValueError(
                "training.eval_steps needs validation data: name data.validation_split or data.validation_fraction."
            )
        if isinstance(validation, Sized) and len(validation) < processes:
            raise ValueError(
                f"training.eval_steps: the validation split has {len(validation)} rows for {processes} processes: give "
                "each at least one."
            )

    @torch.no_grad()
    def look(self, run: "Pretrainer") -> dict[str, float]:
        """The validation loss; the lowest so far is noted in the run's state."""
        run.model.eval()
        totals: dict[str, torch.Tensor] = {}
        count = 0
        for number, (rows, batch) in enumerate(validation_batches(run.prepared, run.args, run.accelerator)):
            run.seed(0, number)
            outputs = run.model(**send_to_device(run.inputs(batch), run.accelerator.device))
            add_parts(totals, {"loss": outputs.loss, **(outputs.loss_parts or {})}, rows, torch.float64)
            count += rows
        run.model.train()
        if not count:
            raise ValueError("training.eval_steps: the validation stream gave fewer rows than there are processes.")
        sums = run.accelerator.reduce(torch.stack(list(totals.values())), reduction="mean").tolist()
        means = averages(dict(zip(totals, sums, strict=True)), count)
        state = run.state
        if run.args.save_best and state.step and (state.best_loss is None or means["loss"] < state.best_loss):
            state.best_loss, state.best_step = means["loss"], state.step
        return {f"validation/{name}": value for name, value in means.items()}


class OnlineProbe(Watcher):
    """A probe of frozen features of labelled rows. The main process alone probes; the others wait at their next exchange.

    Of data in several parts every part with labels is probed: "probe/PART/linear_accuracy".
    """

    at_start = True  # measures the untrained encoder for comparison

    def check(self, run: "Pretrainer") -> None:
        for prepared in self._probed(run).values():
            task, _ = labelled_held_out(prepared)
            run.recipe.probe.headline_metric(task)

    def look(self, run: "Pretrainer") -> dict[str, float]:
        model = whole_model(run)
        found: dict[str, float] = {}
        if model is None:
            return found
        for name, prepared in self._probed(run).items():
            part = model if name is None else pretraining_hooks(model).parts[name]
            scores = online_probe(part.base_model, prepared, run.recipe.probe, run.accelerator.device)
            found |= scores if name is None else {_of_part(score, name): value for score, value in scores.items()}
        return found

    def _probed(self, run: "Pretrainer") -> dict[str | None, PreparedData]:
        """The data to probe by the name of their part; that of data without parts is None."""
        labelled: dict[str | None, PreparedData] = {
            name: part for name, part in run.prepared.parts.items() if part.task is not None
        }
        return labelled or {None: run.prepared}


def _of_part(name: str, part: str) -> str:
    """The name of a value that one part has: "probe/knn_accuracy" -> "probe/PART/knn_accuracy"."""
    first, _, rest = name.partition("/")
    return f"{first}/{part}/{rest}"


class Pictures(Watcher):
    """Pictures of reconstructions and curves. Every process computes them, because losses gather; the main process writes."""

    def look(self, run: "Pretrainer") -> dict[str, float]:
        folder = run.output_dir / "pictures"
        folder.mkdir(exist_ok=True)
        is_main = run.accelerator.is_main_process
        step = f"{run.state.step:08d}"
        parts = pretraining_hooks(run.bare_model).parts
        sections = find_kind(run.recipe.data.kind).part_data(run.recipe.data, run.bare_model.config)
        for name, prepared in run.prepared.parts.items():
            path = folder / f"reconstruction-{name}-{step}.png" if is_main else None
            self._draw(run, parts[name], prepared, sections[name][0], path)
        if not run.prepared.parts:
            path = folder / f"reconstruction-{step}.png" if is_main else None
            self._draw(run, run.bare_model, run.prepared, run.recipe.data, path)
        if is_main and run.state.history:
            draw_curves(run.state.history, folder / "curves.png")
        return {}

    def _draw(
        self, run: "Pretrainer", model: PreTrainedModel, prepared: PreparedData, args: DataArguments, path: Path | None
    ) -> None:
        if pretraining_hooks(model).reason_against_reconstruction() is not None:
            return
        source = plain_rows(prepared.train) if prepared.validation is None else prepared.validation
        batch = prepared.collator([row for _, row in zip(range(8), cast(Iterable[Row], source), strict=False)])
        try:
            draw_pretraining(model, batch, path, prepared.processor, args)
        except ValueError as error:
            if run.args.picture_steps is not None:
                raise
            # The recipe does not ask for pictures, and the method of another package may lack what they show.
            logger.warning("no pictures of reconstructions: %s", error)


def recipe_watchers(recipe: PretrainingRecipe) -> list[Watcher]:
    """The watchers that a recipe asks for, in the order of their calls."""
    watchers = [
        Validation(recipe.training.eval_steps),
        OnlineProbe(recipe.probe.every_steps),
        Pictures(recipe.training.steps_between_pictures),
    ]
    return [watcher for watcher in watchers if watcher.every]


def whole_encoder(run: "Pretrainer") -> PreTrainedModel | None:
    """The encoder for the main process, as `whole_model`."""
    model = whole_model(run)
    return None if model is None else cast(PreTrainedModel, model.base_model)


def whole_model(run: "Pretrainer") -> PreTrainedModel | None:
    """The model for the main process; under FSDP a copy with all weights, which every process helps to gather."""
    is_main = run.accelerator.is_main_process
    if run.accelerator.distributed_type != DistributedType.FSDP:
        return run.bare_model if is_main else None
    weights = run.accelerator.get_state_dict(run.model)
    if not is_main:
        return None
    copy = AutoModelForPreTraining.from_config(run.bare_model.config)
    copy.load_state_dict(weights)
    return cast(PreTrainedModel, copy.to(run.accelerator.device))
