"""The parts of a model of several kinds of data, each as if it had been trained alone: for its checkpoint and its card."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ...data import find_kind
from ...data.preparation import PreparedData
from ...data.processors import Processor
from ...models.pretraining import pretraining_hooks
from ...recipes import own_fields
from .arguments import PretrainingRecipe
from .state import RunState

OBJECTIVES = "objectives"  # attribute of `modeling_unified.py` with the parts' pre-training models


@dataclass(frozen=True)
class TrainedPart:
    """One part of a run.

    Attributes:
        name: Name of the part.
        model: Its pre-training model.
        weights: Name in `model` -> tensor, of all its weights, those shared with other parts too.
        processor: Processor of its data.
        recipe: A recipe of the part alone, with the run's training section.
        state: The run's state with the values of the part alone.
    """

    name: str
    model: PreTrainedModel
    weights: dict[str, torch.Tensor]
    processor: Processor
    recipe: PretrainingRecipe
    state: RunState


def split_run(
    recipe: PretrainingRecipe,
    state: RunState,
    model: PreTrainedModel,
    prepared: PreparedData,
    weights: Mapping[str, torch.Tensor],
) -> Iterator[TrainedPart]:
    """The parts of a run; none of a model of one kind of data.

    Args:
        recipe, state: Recipe and state of the run.
        model: The model as a whole.
        prepared: Its data.
        weights: Its weights, whole, under all their names.
    """
    sections = find_kind(recipe.data.kind).part_data(recipe.data, model.config)
    for name, part in pretraining_hooks(model).parts.items():
        prefix = f"{OBJECTIVES}.{name}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        args, config = sections[name]
        fields = {"model_type": config.model_type, **own_fields(config)}
        training = dataclasses.replace(recipe.training, output_dir=str(Path(recipe.training.output_dir) / name))
        part_recipe = dataclasses.replace(recipe, model=fields, data=args, training=training)
        others = [other for other in sections if other != name]
        yield TrainedPart(
            name, part, own, prepared.parts[name].processor, part_recipe, _part_state(state, name, others)
        )


def _part_state(state: RunState, part: str, others: list[str]) -> RunState:
    """The state with the rows, losses and probes of one part, under the names that a run of the part alone gives them."""
    found = copy.copy(state)
    found.trained_with = others
    for counts in ("row_counts", "rows_left_out"):
        kept = {
            name.removeprefix(f"{part}/"): rows
            for name, rows in getattr(state, counts).items()
            if name.startswith(f"{part}/")
        }
        setattr(found, counts, kept)
    found.history = [_part_values(row, part) for row in state.history]
    return found


def _part_values(row: Mapping[str, float], part: str) -> dict[str, float]:
    values = {}
    for name, value in row.items():
        section, _, rest = name.partition("/")
        if name in ("step", "train/learning_rate"):
            values[name] = value
        elif rest == part:
            values[f"{section}/loss"] = value
        elif rest.startswith(f"{part}/"):
            values[f"{section}/{rest.removeprefix(f'{part}/')}"] = value
    return values
