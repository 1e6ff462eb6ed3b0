"""A sweep as a YAML file: what is changed in which recipe, with which seeds, and the paper's numbers beside."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from ...checks import check_seeds, shown
from ...files import JsonObject, JsonView
from ...recipes import RecipeLoader, build_section, find_packaged, names_in, nearest, yaml_reason

Verb = Literal["pretrain", "probe", "finetune"]
CASE_NAME = "name"


@dataclass(frozen=True)
class PaperNumbers:
    """The paper's numbers, shown beside those of a sweep.

    Attributes:
        source: Paper and place in it, such as "MetaMAE, Table 6".
        what: Words for what the numbers are, with their unit.
        values: Column of the paper's table, such as a data set -> {setting: number}. A setting is named as the sweep's table
            names it, or, where the grid has one axis, by its value.
    """

    source: str
    what: str
    values: dict[str, dict]  # YAML's keys may be numbers


@dataclass(frozen=True)
class Setting:
    """One row of a sweep's table.

    Attributes:
        name: Words for it, unique in the sweep: "mask_ratio=0.5", or the name of a case.
        values: The values of the grid's axes in words, in their order; the name alone of a case.
        overrides: `section.field` -> value.
    """

    name: str
    values: tuple[str, ...]
    overrides: JsonObject


@dataclass(frozen=True)
class Sweep:
    """The fields of a sweep's file.

    Attributes:
        recipe: Path or name of the recipe that is changed; a list means the same changes to each of several recipes, such as
            those of several data sets.
        title: Words for the table and the plot.
        notes: Words that the table's page ends with, such as what differs from the paper.
        verbs: Names of what each run does: "pretrain" and "probe"; "pretrain" and "finetune"; all three; "pretrain" alone; or
            "finetune" alone, with a recipe of fine-tuning.
        finetune_recipe: Path or name of the recipe of fine-tuning, where runs pre-train and fine-tune.
        probe_recipe: Path or name of the recipe whose data are probed, by its section `probe`, where pre-training reads other
            rows; a list means one for each of several recipes. None means the recipe itself.
        seeds: Seeds of the runs: each setting is run once with each.
        overrides: `section.field` -> value, over the recipe, in all runs. Where runs pre-train and fine-tune, the sections of
            the recipe of fine-tuning are `finetuning`, `finetune.data` and `finetune.model`. A field that holds a table is
            reached into by further names: `model.modalities.depth.loss`, and null removes an entry.
        reduced: Overrides that make runs of the file's own recipe small; they do not hold where the command line names another
            recipe.
        grid: `section.field` -> list of values; each combination is a setting.
        cases: A list of settings, each a table of its `name` and overrides; in place of a grid.
        score: Name of the score that the plot shows and that leads the table; None means the first one that a run has. Names
            are "probe/linear_accuracy", "finetune/mean_iou", "validation/loss" and the like.
        curve_points: Number of online probes in pre-training, at equal distances; 0 means none. With some, the plot shows the
            linear probe over the seconds of training.
        paper: The paper's numbers (`PaperNumbers`); None means none.
    """

    recipe: str | list[str]
    title: str = ""
    notes: str = ""
    verbs: list[Verb] = field(default_factory=lambda: ["pretrain", "probe"])
    finetune_recipe: str | None = None
    probe_recipe: str | list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    overrides: JsonObject = field(default_factory=dict)
    reduced: JsonObject = field(default_factory=dict)
    grid: dict[str, list] | None = None  # the values may be anything
    cases: list[dict] | None = None
    score: str | None = None
    curve_points: int = 0
    paper: JsonObject | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            ValueError: Naming the field, what was expected and what came.
        """
        check_seeds("seeds", self.seeds)
        if self.curve_points < 0:
            raise ValueError(f"curve_points: expected at least 0, got {self.curve_points}")
        _check_verbs(self.verbs, self.finetune_recipe)
        if not self.recipes:
            raise ValueError("recipe: expected a recipe or a list of some, got an empty list")
        if len(set(self.recipes)) != len(self.recipes):
            raise ValueError(f"recipe: expected different recipes, got {self.recipes}")
        if self.probe_recipe is not None and (
            "probe" not in self.verbs or len(self.probe_recipes) != len(self.recipes)
        ):
            raise ValueError(
                f"probe_recipe: expected one for each of the recipes {self.recipes}, and the verb probe, got "
                f"{self.probe_recipe!r} with the verbs {self.verbs}"
            )
        if (self.grid is None) == (self.cases is None):
            came = "neither" if self.grid is None else "both"
            raise ValueError(f"expected one of the fields 'grid' and 'cases', got {came}")
        if self.curve_points and "pretrain" not in self.verbs:
            raise ValueError("curve_points: probes on the way of pre-training need the verb 'pretrain'; leave it out")
        _check_axes(self.grid)
        _check_cases(self.cases)
        self.paper_numbers()

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes."""
        return [self.recipe] if isinstance(self.recipe, str) else list(self.recipe)

    @property
    def probe_recipes(self) -> list[str | None]:
        """Names of the recipes of probes, one for each recipe."""
        if self.probe_recipe is None:
            return [None] * len(self.recipes)
        return [self.probe_recipe] if isinstance(self.probe_recipe, str) else [*self.probe_recipe]

    @property
    def common_overrides(self) -> JsonObject:
        """The overrides of all runs."""
        return {**self.reduced, **self.overrides}

    @property
    def axes(self) -> list[str]:
        """Names of the columns that tell settings apart: the grid's fields without their sections where that is enough."""
        if self.grid is None:
            return ["setting"]
        last = [name.rpartition(".")[2] for name in self.grid]
        return last if len(set(last)) == len(last) else list(self.grid)

    def settings(self) -> list[Setting]:
        """All settings, in the order of the table."""
        if self.grid is None:
            found = []
            for case in self.cases or []:
                overrides = {name: value for name, value in case.items() if name != CASE_NAME}
                found.append(Setting(case[CASE_NAME], (case[CASE_NAME],), overrides))
            return found
        found = []
        for values in itertools.product(*self.grid.values()):
            words = tuple(value_words(value) for value in values)
            name = ", ".join(f"{axis}={word}" for axis, word in zip(self.axes, words, strict=True))
            found.append(Setting(name, words, dict(zip(self.grid, values, strict=True))))
        return found

    def numbers_of_axis(self) -> list[float] | None:
        """The values of a grid of one axis that are all numbers; else None."""
        if self.grid is None or len(self.grid) != 1:
            return None
        (values,) = self.grid.values()
        are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return [float(value) for value in values] if are_numbers else None

    def paper_numbers(self) -> PaperNumbers | None:
        """The section `paper`, its settings by their names in the table.

        Raises:
            ValueError: A field that it does not have, a setting that the sweep does not have, or a value that is no number.
        """
        if self.paper is None:
            return None
        paper: PaperNumbers = build_section("paper", PaperNumbers, self.paper)
        settings = self.settings()
        names = {setting.name: setting.name for setting in settings}
        if self.grid is not None and len(self.grid) == 1:
            names |= {setting.values[0]: setting.name for setting in settings}
        columns: dict[str, JsonObject] = {}
        for column, values in paper.values.items():
            columns[column] = {}
            for key, value in values.items():
                word = value_words(key)
                if word not in names:
                    raise ValueError(
                        f"paper.values.{column}: {shown(word)} is no setting of this sweep{nearest(word, names)}; "
                        f"known: {list(names)}"
                    )
                if not isinstance(value, int | float | None) or isinstance(value, bool):
                    raise ValueError(f"paper.values.{column}.{word}: expected a number, got {shown(value)}")
                columns[column][names[word]] = None if value is None else float(value)
        return PaperNumbers(paper.source, paper.what, columns)


def recipe_label(recipe: str) -> str:
    """A recipe's name in tables; of a path the last folder and the file, as in "pamap2/pretrain"."""
    path = Path(recipe)
    return path.stem if path.parent == Path() else f"{path.parent.name}/{path.stem}"


def value_words(value: object) -> str:
    """A value as a table shows it: words as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def sweep_folder() -> Path:
    """The folder of the sweeps that come with the package."""
    return Path(__file__).resolve().parents[2] / "sweep_files"


def sweep_names() -> list[str]:
    """Names of the sweeps that come with the package, sorted: file names without the ending."""
    return names_in(sweep_folder())


def find_sweep(sweep: str | Path) -> Path:
    """The file of a sweep.

    Args:
        sweep: Path of a YAML file, or name of a sweep of the package, such as "metamae_table6".

    Raises:
        FileNotFoundError: Neither.
    """
    expected = "'recipe:' and 'grid:' or 'cases:', or a name of those that `hf-maskssl sweep --list` shows"
    return find_packaged(sweep, sweep_folder(), "sweep", expected)


def load_sweep(sweep: str | Path, changes: JsonView | None = None) -> Sweep:
    """Read a sweep and check its own fields; those of its recipes are checked when its runs are planned.

    Args:
        sweep: Path of a YAML file, or name of a sweep of the package.
        changes: Field -> value, in place of the file's; `overrides` are added to the file's, and with another `recipe` nothing is
            reduced.

    Raises:
        ValueError: The file is no YAML, has an unknown field (with the nearest known name), or a value that does not fit.
        FileNotFoundError: No such file.
    """
    path = find_sweep(sweep)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"sweep {path} is not readable YAML: {yaml_reason(error)}") from error
    if not isinstance(content, dict):
        came = "an empty file" if content is None else shown(content)
        raise ValueError(f"sweep {path}: expected fields such as 'recipe:' and 'grid:', got {came}")
    changes = dict(changes or {})
    values = content | changes
    if isinstance(content.get("overrides"), dict):
        values["overrides"] = content["overrides"] | changes.get("overrides", {})
    if "recipe" in changes:
        values.pop("reduced", None)
    if "recipe" not in values:
        raise ValueError(f"sweep {path}: recipe: missing; name a recipe of the package or a file")
    try:
        found: Sweep = build_section("sweep", Sweep, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _check_verbs(verbs: list[Verb], finetune_recipe: str | None) -> None:
    known = ["pretrain", "probe", "finetune"]
    in_order = [verb for verb in known if verb in verbs]
    if not verbs or verbs != in_order or ("probe" in verbs and "pretrain" not in verbs):
        raise ValueError(
            "verbs: expected [pretrain, probe], [pretrain, finetune], [pretrain, probe, finetune], [pretrain] or "
            f"[finetune], got {verbs}"
        )
    both = {"pretrain", "finetune"} <= set(verbs)
    if both and finetune_recipe is None:
        raise ValueError("finetune_recipe: expected the recipe of fine-tuning beside the verbs pretrain and finetune")
    if not both and finetune_recipe is not None:
        raise ValueError(
            f"finetune_recipe: expected nothing without the verbs pretrain and finetune, got {finetune_recipe!r}; a sweep that "
            "only fine-tunes names its recipe in the field 'recipe'"
        )


def _check_axes(grid: Mapping[str, list[object]] | None) -> None:
    if grid is None:
        return
    if not grid:
        raise ValueError(
            "grid: expected at least one field with its values, such as model.mask_ratio: [0.5, 0.85], got none"
        )
    for name, values in grid.items():
        if not values:
            raise ValueError(f"grid.{name}: expected a list of values, got an empty one")
        words = [value_words(value) for value in values]
        if len(set(words)) != len(words):
            raise ValueError(f"grid.{name}: expected different values, got {shown(values)}")


def _check_cases(cases: list[JsonObject] | None) -> None:
    if cases is None:
        return
    if not cases:
        raise ValueError(
            "cases: expected at least one setting, such as {name: deep, model.num_hidden_layers: 12}, got none"
        )
    names = []
    for position, case in enumerate(cases):
        name = case.get(CASE_NAME)
        if not isinstance(name, str) or not name:
            raise ValueError(f"cases[{position}]: expected a {CASE_NAME!r}, the words of its row, got {shown(name)}")
        if name in names:
            raise ValueError(f"cases[{position}].name: {name!r} is there twice; name them apart")
        names.append(name)
        if wrong := [field for field in case if not isinstance(field, str)]:
            raise ValueError(f"cases[{position}]: expected section.field as the name of a field, got {wrong[0]!r}")
