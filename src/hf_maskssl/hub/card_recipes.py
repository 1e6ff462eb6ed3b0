"""Recipes on model cards: what differs from the defaults, and below it every field."""

import dataclasses
from collections.abc import Callable
from typing import Any

import yaml

from ..data.arguments import checkpoint_name
from ..files import JsonObject
from ..recipes import build_config
from ..training.finetuning.arguments import FinetuningRecipe
from ..training.pretraining.arguments import PretrainingRecipe, effective_recipe

# Fields about a run's start and output, which do not describe the model.
NOT_REPRODUCED = ("output_dir", "resume", "push_to_hub", "hub_model_id", "hub_private", "quiet", "json_log")
NOT_REPRODUCED_FINETUNING: tuple[str, ...] = (
    "output_dir",
    "overwrite",
    "report_to",
    "quiet",
    "json_log",
    "search_trials",
    "push_to_hub",
    "hub_model_id",
    "hub_private",
)
# Fields that a reader looks for, also where they have their defaults.
ALWAYS_SHOWN = ("source", "kind", "task")


def pretraining_recipe_text(recipe: PretrainingRecipe) -> str:
    """The recipe's section of a card; both of its recipes are YAML that `load_pretraining_recipe` reads."""
    differing: JsonObject = {"model": differing_model_fields(recipe.model)}
    for name, section in _sections(recipe).items():
        differing[name] = differing_fields(section)
    _remove(differing["training"], NOT_REPRODUCED)
    return _folded(_yaml(differing), effective_recipe(recipe, NOT_REPRODUCED))


def finetuned_recipe_text(recipe: FinetuningRecipe) -> str:
    """The recipe's section of a card; both of its recipes are YAML that `load_finetuning_recipe` reads."""
    model = dict(recipe.model)
    sections: JsonObject = {"model": differing_model_fields(model) if "model_type" in model else model}
    sections["data"] = differing_fields(recipe.data)
    sections["finetuning"] = _without_place(differing_fields(recipe.finetuning))
    return _folded(_yaml(sections), finetuned_recipe(recipe))


def finetuned_recipe(recipe: FinetuningRecipe) -> str:
    """The recipe with every field written out, as YAML that `load_finetuning_recipe` reads."""
    sections: JsonObject = {"model": dict(recipe.model), "data": dataclasses.asdict(recipe.data)}
    sections["finetuning"] = _without_place(dataclasses.asdict(recipe.finetuning))
    return _yaml(sections)


def differing_fields(section: Any) -> JsonObject:  # any dataclass of a recipe
    """The fields of a section without which it would be another one, and those that readers look for."""
    fields = {entry.name: vars(section)[entry.name] for entry in dataclasses.fields(section) if entry.init}
    return _needed(fields, lambda values: type(section)(**values), ALWAYS_SHOWN)


def differing_model_fields(fields: JsonObject) -> JsonObject:
    """The fields of a model section without which its configuration would be another one."""
    return _needed(fields, lambda values: build_config(values).to_dict(), ("model_type",))


def _needed(fields: JsonObject, build: Callable[[JsonObject], object], always: tuple[str, ...]) -> JsonObject:
    """Leave out one field after the other, as long as the rest builds the same."""
    whole, kept = build(fields), dict(fields)
    for name in fields:
        if name in always:
            continue
        fewer = {other: value for other, value in kept.items() if other != name}
        try:
            is_same = build(fewer) == whole
        except (ValueError, TypeError):  # the others do not go without it
            is_same = False
        kept = fewer if is_same else kept
    return kept


def _sections(recipe: PretrainingRecipe) -> dict[str, Any]:
    return {"data": recipe.data, "probe": recipe.probe, "training": recipe.training}


def _remove(fields: JsonObject, names: tuple[str, ...]) -> None:
    for name in names:
        fields.pop(name, None)


def _without_place(fields: JsonObject) -> JsonObject:
    """The finetuning section without where it was run."""
    _remove(fields, NOT_REPRODUCED_FINETUNING)
    if fields.get("checkpoint") is not None:
        fields["checkpoint"] = checkpoint_name(fields["checkpoint"])
    return fields


def _yaml(sections: JsonObject) -> str:
    shown = {name: fields for name, fields in sections.items() if fields}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110)


def _folded(differing: str, whole: str) -> str:
    return (
        f"What differs from the defaults of this version:\n\n```yaml\n{differing}```\n\n"
        f"<details>\n<summary>Every field</summary>\n\n```yaml\n{whole}```\n\n</details>"
    )
