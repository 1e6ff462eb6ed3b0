"""The runs of a sweep: every setting of every recipe with every seed, checked before the first one begins."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...data.arguments import DataArguments
from ...evaluation.arguments import ProbeArguments
from ...files import JsonObject, JsonView
from ...recipes import KNOWN_SECTIONS, build_config, build_recipe, nearest, override_fields, read_yaml
from ..digests import changed_fields, encoder_settings, portable, settings_digest, weights_digest
from ..finetuning.arguments import FinetuningArguments, FinetuningRecipe
from ..finetuning.material import IMMATERIAL
from ..finetuning.models import changed_config, choose_inputs
from ..pretraining.arguments import PretrainingArguments, PretrainingRecipe
from .sweep_file import Setting, Sweep, recipe_label

# Raised when the way in which runs are made or measured changes: runs of before are not looked at then.
VERSION = 1
PRETRAINING = {"model": dict, "data": DataArguments, "probe": ProbeArguments, "training": PretrainingArguments}
PROBING = {"data": DataArguments, "probe": ProbeArguments}
FINETUNING = {"model": dict, "data": DataArguments, "finetuning": FinetuningArguments}
# Where runs pre-train and fine-tune: what stands in front of a field of the second recipe's sections but `finetuning`.
DOWNSTREAM = "finetune."
CHECKPOINTS_OF_A_RUN = 5
# Field -> what sets it instead.
OWN_FIELDS = {
    **dict.fromkeys(("training.seed", "probe.seeds", "finetuning.seeds"), "seeds"),
    **dict.fromkeys(("training.output_dir", "finetuning.output_dir"), "--output_dir"),
}
LONGEST_NAME = 60  # characters of a setting in the name of its folder
# A sweep keeps scores, not models, and compares its settings with each other.
_QUIET_FINETUNING = {"finetuning.save_model": False, "finetuning.baselines": False, "finetuning.baseline_models": []}
_QUIET_FINETUNING |= {"finetuning.baseline_trials": 0}


@dataclass(frozen=True, eq=False)  # two runs are never the same, and their sections cannot be hashed
class SweepRun:
    """One setting of one recipe with one seed.

    Attributes:
        setting: The setting.
        recipe: Name or path of the recipe, as the sweep has it.
        seed: Seed of weights, order of the data, masks, probes and fine-tuning.
        verbs: Names of what it does.
        pretraining: Sections of the run's pre-training; None where it does not pre-train.
        probing: Sections `data` and `probe` of its probes; None where it does not probe.
        finetuning: Sections of its fine-tuning; None where it does not fine-tune.
        digest: Digits of everything that its scores depend on.
        encoder_digest: Digits of what its encoder depends on; None without pre-training. Runs that differ in
            fine-tuning alone share an encoder.
    """

    setting: Setting
    recipe: str
    seed: int
    verbs: tuple[str, ...]
    pretraining: JsonObject | None
    probing: JsonObject | None
    finetuning: JsonObject | None
    digest: str
    encoder_digest: str | None

    @property
    def title(self) -> str:
        """Words for people."""
        return f"{self.setting.name}, {recipe_label(self.recipe)}, seed {self.seed}"

    def folder(self, output: Path) -> Path:
        """Folder of its files; another one where something else is run under the same name."""
        words = re.sub(r"[^\w.=-]+", "_", f"{recipe_label(self.recipe)}-{self.setting.name}")[:LONGEST_NAME]
        return output / "runs" / f"{words}-seed_{self.seed}-{self.digest}"

    def encoder_folder(self, output: Path) -> Path:
        """Folder of its encoder."""
        return output / "encoders" / str(self.encoder_digest)


def plan_runs(sweep: Sweep) -> list[SweepRun]:
    """All runs, seed by seed, so that a sweep which is stopped has all settings; each is checked by the classes of its sections.

    Raises:
        ValueError: A field that no section knows (with the nearest known name), or a value that it does not take; the
            message names the setting.
        FileNotFoundError: No such recipe.
    """
    _check_fields(sweep)
    runs = []
    for seed in sweep.seeds:
        for name in sweep.recipes:
            for setting in sweep.settings():
                try:
                    runs.append(_plan(sweep, name, setting, seed))
                except ValueError as error:
                    raise ValueError(f"{setting.name}, recipe {name}: {error}") from error
    return runs


def _check_fields(sweep: Sweep) -> None:
    """Refuse changes that would have no effect, and recipes that tables could not tell apart."""
    labels = [recipe_label(recipe) for recipe in sweep.recipes]
    if len(set(labels)) != len(labels):
        raise ValueError(f"recipe: {sweep.recipes} have the names {labels} in tables: give their files different ones")
    of_settings = {field for setting in sweep.settings() for field in setting.overrides}
    for field in sorted({*sweep.common_overrides, *of_settings}):
        if field in OWN_FIELDS:
            raise ValueError(f"{field} is set for each run by the sweep: name {OWN_FIELDS[field]}")
        if _is_downstream(field) and "finetune" not in sweep.verbs:
            raise ValueError(f"{field} has no effect: the verbs {list(sweep.verbs)} do not fine-tune")


def command_line_overrides(sweep: Sweep, words: Sequence[str]) -> JsonObject:
    """`--field value` of the command line as overrides of a sweep.

    Args:
        sweep: The sweep; the fields are those of its first recipe, with `--finetuning.field`, `--finetune.data.field` and
            `--finetune.model.field` those of its recipe of fine-tuning.
        words: Words of the command line.

    Returns:
        `section.field` -> value.

    Raises:
        ValueError: A word that fits no field, or several, or one that the grid sets.
    """
    first = sweep.recipes[0]
    if "pretrain" not in sweep.verbs:
        return override_fields(first, words, FINETUNING, "finetuning")
    groups: dict[bool, list[str]] = {False: [], True: []}
    is_downstream = False
    for word in words:
        if word.startswith("--"):
            is_downstream = word.startswith(("--finetuning.", f"--{DOWNSTREAM}"))
        groups[is_downstream].append(word.replace(f"--{DOWNSTREAM}", "--", 1) if is_downstream else word)
    found = override_fields(first, groups[False], PRETRAINING, "training")
    if groups[True]:
        if sweep.finetune_recipe is None:
            raise ValueError(f"override {groups[True][0]}: this sweep does not fine-tune; its verbs are {sweep.verbs}")
        downstream = override_fields(sweep.finetune_recipe, groups[True], FINETUNING, "finetuning")
        found |= {
            name if name.startswith("finetuning.") else DOWNSTREAM + name: downstream[name] for name in downstream
        }
    if without_effect := [field for field in found if field in (sweep.grid or {})]:
        raise ValueError(
            f"override --{without_effect[0]}: the sweep's grid sets it in every run; change the grid in a copy of the file"
        )
    return found


def _plan(sweep: Sweep, name: str, setting: Setting, seed: int) -> SweepRun:
    overrides = {**sweep.common_overrides, **setting.overrides}
    if "pretrain" not in sweep.verbs:
        sections = with_overrides(read_yaml(name), {**_QUIET_FINETUNING, **overrides, "finetuning.seeds": [seed]})
        tuned = checked_finetuning(sections, name)
        settings = _finetuning_settings(tuned) | {"checkpoint": _start(tuned.finetuning.checkpoint)}
        digest = settings_digest([VERSION, sweep.verbs, settings, portable(setting.overrides)])
        return SweepRun(setting, name, seed, tuple(sweep.verbs), None, None, sections, digest, None)
    upstream = {field: value for field, value in overrides.items() if not _is_downstream(field)}
    # Baselines are the same for every setting; who wants them names them.
    upstream = {"probe.baselines": False, **upstream, "training.seed": seed, "probe.seeds": [seed]}
    sections = with_overrides(read_yaml(name), upstream)
    recipe = checked_pretraining(sections, name)
    if "training.save_steps" not in upstream:
        sections["training"]["save_steps"] = max(1, recipe.training.max_steps // CHECKPOINTS_OF_A_RUN)
    # What a setting changes counts even where it is a field that does not change an encoder, such as a precision.
    own = {field: value for field, value in setting.overrides.items() if field in upstream and "probe." not in field}
    # The validation losses are scores of a sweep.
    validated = [recipe.training.eval_steps, recipe.training.eval_batches]
    if (sweep.score or "").startswith("validation/") and not recipe.training.eval_steps:
        raise ValueError(f"score: {sweep.score} needs validation losses: set training.eval_steps above 0")
    start = _start(recipe.training.init_from)
    encoder = [VERSION, encoder_settings(recipe), portable(own), sweep.curve_points, validated, start]
    everything: JsonObject = {"encoder": encoder, "probe": changed_fields(recipe.probe)}
    probing = {section: sections.get(section, {}) for section in PROBING} if "probe" in sweep.verbs else None
    if (probe_recipe := dict(zip(sweep.recipes, sweep.probe_recipes, strict=True))[name]) is not None:
        of_probes = {field: value for field, value in upstream.items() if field.startswith("probe.")}
        found = read_yaml(probe_recipe)
        probing = with_overrides({section: found.get(section, {}) for section in PROBING}, of_probes)
        checked = build_recipe(probing, probe_recipe, (), PROBING)
        everything["probe"] = {section: changed_fields(checked[section]) for section in PROBING}
    downstream = None
    if sweep.finetune_recipe is not None:
        changes = {field.removeprefix(DOWNSTREAM): overrides[field] for field in overrides if _is_downstream(field)}
        changes = {**_QUIET_FINETUNING, **changes, "finetuning.seeds": [seed]}
        downstream = with_overrides(read_yaml(sweep.finetune_recipe), changes)
        everything["finetuning"] = _finetuning_settings(
            checked_finetuning(downstream, sweep.finetune_recipe, recipe.model)
        )
    digest = settings_digest([VERSION, sweep.verbs, everything, portable(setting.overrides)])
    return SweepRun(
        setting, name, seed, tuple(sweep.verbs), sections, probing, downstream, digest, settings_digest(encoder)
    )


def _start(checkpoint: str | None) -> list[object]:
    """A checkpoint that runs begin with, and the hash of its weights where it lies here."""
    is_here = checkpoint is not None and Path(checkpoint).is_dir()
    return [portable(checkpoint), weights_digest(Path(str(checkpoint))) if is_here else None]


def _is_downstream(field: str) -> bool:
    return field.startswith(("finetuning.", DOWNSTREAM))


def with_overrides(sections: JsonView, overrides: JsonView) -> JsonObject:
    """A recipe's sections with `section.field` -> value.

    A further name reaches into a field that holds a table, from which the value None removes an entry.

    Raises:
        ValueError: A name without a section, one that reaches into what is no table, or one of an entry to remove that is not
            there.
    """
    changed = copy.deepcopy(dict(sections))
    for name, value in overrides.items():
        section, _, field = name.partition(".")
        if not field or section not in KNOWN_SECTIONS:
            raise ValueError(
                f"override {name!r}: expected section.field with a section of {list(KNOWN_SECTIONS)}"
                f"{nearest(section, KNOWN_SECTIONS)}"
            )
        place = changed[section] = changed.get(section) or {}  # a section may be empty
        *within, last = field.split(".")
        for position, step in enumerate(within):
            reached = ".".join([section, *within[: position + 1]])
            if not isinstance(place.get(step), dict):
                known = [key for key, entry in place.items() if isinstance(entry, dict)]
                raise ValueError(f"override {name!r}: {reached} is no table of this recipe{nearest(step, known)}")
            place = place[step]
        if within and value is None:
            if last not in place:
                raise ValueError(f"override {name!r}: there is no entry {last!r} to remove{nearest(last, place)}")
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    return changed


def checked_pretraining(sections: JsonView, name: str = "recipe") -> PretrainingRecipe:
    """The recipe of pre-training that sections make; the model's configuration is built, so that each field is known.

    Args:
        sections: Section -> field -> value.
        name: Name of the recipe, for errors.

    Raises:
        ValueError: As `load_recipe` and `build_config`.
    """
    recipe = PretrainingRecipe(**build_recipe(sections, name, (), PRETRAINING))
    build_config(recipe.model)
    return recipe


def checked_finetuning(sections: JsonView, name: str = "recipe", encoder: JsonView | None = None) -> FinetuningRecipe:
    """The recipe of fine-tuning that sections make.

    Args:
        sections: Section -> field -> value.
        name: Name of the recipe, for errors.
        encoder: The model section of the pre-training before it, to which its own is added; None where there is none.

    Raises:
        ValueError: As `load_recipe` and `build_config`.
    """
    recipe = FinetuningRecipe(**build_recipe(sections, name, (), FINETUNING))
    if encoder is not None:
        changes = {field: value for field, value in recipe.model.items() if field != "model_type"}
        config = changed_config(build_config(encoder), changes)
        choose_inputs(config, recipe.data, recipe.finetuning.inputs, recipe.model)
    return recipe


def _finetuning_settings(recipe: FinetuningRecipe) -> JsonObject:
    """What fine-tuning of an encoder depends on."""
    without = (IMMATERIAL | {"checkpoint"}) - {"learning_rate", "seeds", "search", "search_trials"}
    return {
        "model": portable(recipe.model),
        "data": changed_fields(recipe.data) | {"kind": recipe.data.kind},
        "finetuning": changed_fields(recipe.finetuning, without),
    }
