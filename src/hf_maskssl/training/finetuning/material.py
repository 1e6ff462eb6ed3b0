"""The fields of a recipe that decide what a run of fine-tuning gives."""

import dataclasses
import json
from collections.abc import Collection

from ...checks import changes
from ...data.arguments import default_fields, fields_of_kinds
from ...files import JsonObject, JsonView
from ..digests import rows_digest, weights_digest
from .arguments import FinetuningArguments, FinetuningRecipe
from .setup import FinetuningSetup, launched_precision

RECIPE_OF_RUNS = "runs/recipe.json"  # in the output_dir: the material fields of the runs

# Fields that may change between two calls without changing a run's result.
IMMATERIAL = {"output_dir", "overwrite", "seeds", "learning_rate", "eval_batch_size", "num_workers", "logging_steps"}
IMMATERIAL |= {"report_to", "save_model", "num_proc", "baselines", "merge_adapter", "gradient_checkpointing"}
IMMATERIAL |= {
    "torch_compile",
    "push_to_hub",
    "hub_model_id",
    "hub_private",
    "search",
    "search_trials",
    "quiet",
    "json_log",
    "compare_with",
    "predict_test",
    "baseline_models",
    "baseline_trials",
}


def recipe_sections(recipe: FinetuningRecipe) -> dict[str, JsonObject]:
    """The recipe's sections but for the model's, as plain dictionaries."""
    return {"data": dataclasses.asdict(recipe.data), "finetuning": dataclasses.asdict(recipe.finetuning)}


def with_defaults(stored: JsonView, material: JsonView) -> JsonObject:
    """Stored material fields, with the defaults of those that the version which wrote them did not have."""
    defaults = {f"data.{name}": value for name, value in default_fields().items()}
    defaults |= {f"finetuning.{name}": value for name, value in dataclasses.asdict(FinetuningArguments()).items()}
    known: JsonObject = json.loads(json.dumps({name: defaults[name] for name in material if name in defaults}))
    return known | dict(stored)


def changed_since(setup: FinetuningSetup, material: JsonView, searched: Collection[str] = ()) -> list[str]:
    """The fields that had other values when the stored runs were made; every process must call this, under the folder's lock.

    Args:
        setup: Setup of the runs.
        material: `material_fields`.
        searched: Fields of the finetuning section that a search sets. Another trial may have become the best since: runs with
            the values of the former one are of no use, and are not worth an error.

    Raises:
        ValueError: Runs of another recipe are there, and `finetuning.overwrite` does not throw them away.
    """
    path = setup.folder / RECIPE_OF_RUNS
    stored = setup.broadcast(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else dict(material))
    stored = with_defaults(stored, material)
    changed = [name for name in {**stored, **material} if stored.get(name) != material.get(name)]
    others = [name for name in changed if name not in {f"finetuning.{name}" for name in searched}]
    if others and not setup.args.overwrite:
        before, after = ({name: each.get(name) for name in others} for each in (stored, material))
        said = "; ".join(changes(before, after))
        raise ValueError(
            f"{setup.folder} holds runs of another recipe ({said}): take back the change, name another "
            "finetuning.output_dir, or set finetuning.overwrite to throw those runs away."
        )
    return changed


def material_fields(setup: FinetuningSetup, recipe: FinetuningRecipe) -> JsonObject:
    """All fields that decide a run's result, as flat `section.field` names, with digests of rows and weights."""
    sections = recipe_sections(recipe)
    sections["data"] = fields_of_kinds() | sections["data"]  # as earlier versions stored it
    model = {name: value for name, value in setup.config.to_diff_dict().items() if name != "transformers_version"}
    flat = {
        f"{section}.{name}": value
        for section, fields in {"model": model, **sections}.items()
        for name, value in fields.items()
        if name not in IMMATERIAL
    }
    flat["finetuning.mixed_precision"] = recipe.finetuning.mixed_precision or launched_precision()
    weights = None if setup.checkpoint is None else weights_digest(setup.checkpoint)
    digests = {f"{name} rows (hash)": rows_digest(split) for name, split in setup.splits().items()}
    facts = {"weights": weights, "rows": setup.row_counts(), "processes": setup.state.num_processes}
    return json.loads(json.dumps(flat | facts | digests))  # as a file of it is read
