"""The search for hyper-parameters: trials of one seed, chosen on the validation split alone, before the seeds are trained."""

import copy
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence

from ...checks import changes
from ...evaluation.metrics import LOWER_IS_BETTER
from ...evaluation.reports import markdown_table, significant
from ...files import JsonObject, JsonView, remove_folder, write_json, write_whole
from .arguments import FinetuningArguments, FinetuningRecipe
from .material import changed_since, material_fields
from .results import Run, settings_words
from .search_space import (
    Sampler,
    SearchRange,
    chosen_sampler,
    default_space,
    draw_values,
    parse_space,
    space_to_json,
)
from .setup import FinetuningSetup
from .trials import Trials

FOLDER, TRIALS_FILE, TABLE_FILE = "search", "trials.json", "trials.md"

logger = logging.getLogger(__name__)


def search(recipe: FinetuningRecipe) -> tuple[FinetuningRecipe, JsonObject]:
    """Try `search_trials` draws of hyper-parameters on the first seed; trials that have ended are not repeated.

    Args:
        recipe: Recipe with `finetuning.search_trials`.

    Returns:
        The recipe with the values of the best trial, and {"trials", "space", "sampler", "best", "score", "metric"} of the search.

    Raises:
        ValueError: No validation split, ranges that a run cannot work with, or trials of another recipe in `output_dir`.
        RunStopped: SIGTERM or Ctrl-C came; the same call goes on.
    """
    return Search(recipe).run()


class Search:
    """The trials of a recipe.

    Args:
        recipe: Recipe with `finetuning.search_trials`.

    Attributes:
        space: Range of each field.
        folder: Folder of the trials, `output_dir`/search.
        sampler: "optuna" or "random"; that of the stored trials where there are some.
    """

    def __init__(self, recipe: FinetuningRecipe) -> None:
        self.recipe, self.args = recipe, recipe.finetuning
        self.space = search_space(self.args)
        self.setup = FinetuningSetup(recipe)
        self.folder = self.setup.folder / FOLDER
        self.metric = self.setup.metric
        self.maximizes = self.metric not in LOWER_IS_BETTER
        self.sampler: Sampler = self.setup.broadcast(self._stored_content().get("sampler") or chosen_sampler())
        self.material = self._material() if self._is_main else {}

    def run(self) -> tuple[FinetuningRecipe, JsonObject]:
        """Run the trials that are missing and choose the best."""
        wanted = self.args.search_trials
        with self.setup.lock:
            trials: list[JsonObject] = self.setup.broadcast(self._stored() if self._is_main else [])
            fields = self.setup.broadcast(material_fields(self.setup, self.recipe) if self._is_main else {})
            changed_since(self.setup, fields, self.space)  # for which the runs would be refused after all trials
            if self._is_main:
                self.setup.write_report()
            logger.info("%d trials (%s) of seed %d, over", wanted, self.sampler, self.args.seeds[0])
            for name, each in self.space.items():
                logger.info("  %s: %s", name, each)
            for number in range(wanted):
                if number < len(trials) and trials[number]["score"] is not None:
                    logger.info("trial %d: stored already", number)
                else:
                    trials = self._try(trials[:number], number)
            ended = trials[:wanted]
            best = (max if self.maximizes else min)(ended, key=lambda trial: trial["score"])
            self._write(trials, best["number"])
        logger.info(
            "best: trial %d, validation %s %s: %s",
            best["number"],
            self.metric,
            significant(best["score"], 4),
            words(best),
        )
        found = {
            "trials": wanted,
            "space": space_to_json(self.space),
            "sampler": self.sampler,
            "best": best["values"],
            "score": best["score"],
            "metric": self.metric,
        }
        args = dataclasses.replace(self.args, **best["values"])
        return dataclasses.replace(self.recipe, finetuning=args), found

    @property
    def _is_main(self) -> bool:
        return self.setup.state.is_main_process

    def _try(self, earlier: list[JsonObject], number: int) -> list[JsonObject]:
        """Train one trial; its values are stored before it begins, its score when it has ended."""
        seed = self.args.seeds[0]
        values = self.setup.broadcast(
            draw_values(self.space, earlier, seed, self.maximizes, self.sampler) if self._is_main else {}
        )
        trial: JsonObject = {"number": number, "values": values, "score": None}
        logger.info("trial %d: %s", number, words(trial))
        self._write([*earlier, trial])
        setup = copy.copy(self.setup)
        setup.args = dataclasses.replace(
            self.args,
            **values,
            seeds=[seed],
            save_model=False,
            predict_test=False,
            push_to_hub=False,
            baselines=False,
            baseline_models=[],
            baseline_trials=0,
            report_to=[],
        )
        setup.folder = self.folder / f"trial_{number}"
        record = Trials(setup, scores_test=False).train(Run(setup.args.learning_rates[0], seed))
        trial |= {"score": record["validation"][self.metric], "validation": record["validation"]}
        trial |= {name: record[name] for name in ("epoch", "steps", "training_loss", "seconds")}
        self._write([*earlier, trial])
        if self._is_main:
            remove_folder(setup.folder)
        self.setup.state.wait_for_everyone()
        return [*earlier, trial]

    def _stored_content(self) -> JsonObject:
        path = self.folder / TRIALS_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _stored(self) -> list[JsonObject]:
        """The trials of an earlier call, which must be of this recipe.

        Raises:
            ValueError: They are of another recipe.
        """
        stored, material = self._stored_content(), self.material
        if not stored:
            return []
        changed = changes(stored["recipe"], material)
        if changed and not self.args.overwrite:
            raise ValueError(
                f"{self.folder} holds trials of another recipe ({'; '.join(changed)}): take back the change, name another "
                "finetuning.output_dir, or set finetuning.overwrite to throw those trials away."
            )
        if changed:
            remove_folder(self.folder)
            return []
        return stored["trials"]

    def _material(self) -> JsonObject:
        fields = material_fields(self.setup, self.recipe)
        searched = {f"finetuning.{name}" for name in self.space}
        fields = {name: value for name, value in fields.items() if name not in searched}
        fields |= {"search": space_to_json(self.space), "seed": self.args.seeds[0]}
        return json.loads(json.dumps(fields))

    def _write(self, trials: Sequence[JsonView], best: int | None = None) -> None:
        """Write the trials as JSON and as a table."""
        if not self._is_main:
            return
        content = {
            "metric": self.metric,
            "sampler": self.sampler,
            "best": best,
            "trials": trials,
            "recipe": self.material,
        }
        write_json(self.folder / TRIALS_FILE, content)
        text = trials_table(trials, self.metric, best)
        write_whole(self.folder / TABLE_FILE, lambda aside: aside.write_text(text, encoding="utf-8"))


def search_space(args: FinetuningArguments) -> dict[str, SearchRange]:
    """The ranges of a recipe, or those around its own values.

    Raises:
        ValueError: Ranges that are none, or that lead out of what the fields may be.
    """
    space = default_space(vars(args)) if args.search is None else parse_space(args.search)
    for end in ("low", "high"):
        values: JsonObject = {
            name: each.choices[0] if each.choices else vars(each)[end] for name, each in space.items()
        }
        values |= {name: int(values[name]) for name, each in space.items() if each.whole}
        dataclasses.replace(args, **values)  # refuses values that no run can work with
    return space


def trials_table(trials: Sequence[JsonView], metric: str, best: int | None) -> str:
    """The trials as Markdown, the best one marked."""
    names = list(trials[0]["values"])
    rows = [
        [
            f"**{trial['number']}**" if trial["number"] == best else str(trial["number"]),
            *(_shown(trial["values"][name]) for name in names),
            None if trial["score"] is None else significant(trial["score"], 4),
            trial.get("seconds"),
        ]
        for trial in trials
    ]
    table = markdown_table(rows, ["trial", *names, f"validation, {metric}", "seconds"])
    return f"# Trials of the search\n\nChosen on the validation split alone.\n\n{table}\n"


def words(trial: Mapping[str, JsonObject]) -> str:
    """The values of a trial in a line."""
    return settings_words(trial["values"])


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
