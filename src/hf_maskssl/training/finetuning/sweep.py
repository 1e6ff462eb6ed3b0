"""Fine-tuning of a recipe: every seed and learning rate, chosen on validation, scored on test."""

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from accelerate.state import PartialState

from ...evaluation.metrics import LOWER_IS_BETTER
from ...files import (
    JsonObject,
    JsonView,
    incomplete_folder,
    remove_folder,
    remove_incomplete,
    replace_folder,
    write_json,
)
from ...scripts import recipe_words
from ...terminal import one_voice
from .adapters import described, is_adapter, merge_folder
from .arguments import FinetuningRecipe, load_finetuning_recipe
from .baselines import Baselines
from .console import say_end, say_start, terminal_report
from .drawing import PICTURES, Drawing
from .glue_predictions import FOLDER as PREDICTIONS
from .glue_predictions import GlueTest
from .material import RECIPE_OF_RUNS, changed_since, material_fields, recipe_sections
from .results import Run, read_runs, summarise, write_results
from .search import search
from .setup import FinetuningSetup
from .stopping import RunStopped
from .trials import SCRATCH, Trials

FROM_SCRATCH = "from_scratch"  # folder of the output_dir: the runs without pre-training

# Called with the kept model's folder, the recipe and the results.
CardWriter = Callable[[Path, FinetuningRecipe, JsonView], None]
# Called with the kept model's folder, the name of the Hub repository and whether a new one is private.
Publisher = Callable[[Path, str, bool], object]

logger = logging.getLogger(__name__)


def finetune(recipe: FinetuningRecipe, write_card: CardWriter | None = None) -> JsonObject:
    """Fine-tune on every seed with every learning rate; returns the content of results.json (see `Finetuner.run`).

    With `search_trials`, hyper-parameters are searched first (`search`), and the best ones are trained on every seed.

    Raises:
        RunStopped: SIGTERM or Ctrl-C came while a run was trained; it is saved, and the same call goes on with it.
    """
    with one_voice(recipe.finetuning.quiet):
        found = None
        if recipe.finetuning.search_trials:
            recipe, found = search(recipe)
        return Finetuner(recipe, write_card, found).run()


def finetune_from_command_line(
    document: str,
    write_card: CardWriter | None = None,
    task: str | None = None,
    publish: Publisher | None = None,
) -> None:
    """The scripts' main function: it reads RECIPE.yaml and its overrides, writes results.md and prints the scores.

    Args:
        document: Docstring of the script, printed where there is no recipe.
        write_card: Function that writes the card, as in `finetune`.
        task: Name of the only `data.task` that the script is for; None allows every one.
        publish: Function that uploads the kept model, where `push_to_hub` asks for it.

    Raises:
        ValueError: The recipe is of another task.
    """
    recipe = load_finetuning_recipe(*recipe_words(document))
    if task is not None and recipe.data.task != task:
        raise ValueError(f"data.task is {recipe.data.task!r}; this script is for {task!r}: take run_finetune.py.")
    args = recipe.finetuning
    try:
        results = finetune(recipe, write_card)
    except RunStopped as stop:
        logger.warning("%s", stop)
        return
    if PartialState().is_main_process:
        if not args.json_log:
            print(f"\n{terminal_report(results)}\n", flush=True)
        with one_voice(args.quiet):
            say_end(Path(args.output_dir), results, args.json_log, args.save_model)
        if args.push_to_hub and args.hub_model_id is not None and publish is not None:
            publish(Path(args.output_dir) / "model", args.hub_model_id, args.hub_private)


class Finetuner:
    """The runs of a recipe; stored runs are not repeated.

    Args:
        recipe: Recipe of the runs.
        write_card: Function that writes the README.md of the model that is kept; called on the main process at the end.
        searched: What a search for hyper-parameters says of itself; None without one.

    Raises:
        ValueError: The recipe does not fit (`FinetuningSetup`), or runs in `output_dir` belong to another one.
        FileNotFoundError: No such checkpoint or data.
    """

    def __init__(
        self, recipe: FinetuningRecipe, write_card: CardWriter | None = None, searched: JsonObject | None = None
    ) -> None:
        self.setup = setup = FinetuningSetup(recipe)
        self.recipe, self.args, self.write_card, self.searched = recipe, setup.args, write_card, searched
        self.state, self.folder = setup.state, setup.folder
        self.config, self.data, self.metric = setup.config, setup.data, setup.metric
        self.trials = Trials(setup)
        self.is_announced = True  # whether `run` begins with what it works with
        self.material = self.setup.broadcast(material_fields(setup, recipe) if self.state.is_main_process else {})
        with setup.lock:
            throws_away = bool(self._changed())
        self.glue_test = GlueTest(setup) if self.args.predict_test else None
        self.baselines = self._plan_baselines(throws_away) if self.args.baselines else None

    def run(self) -> JsonObject:
        """Train what is missing, choose the learning rate, score the test split, write results.json and results.md.

        Returns:
            The content of results.json: "scores" {split: {metric: {"mean", "half_width"}}} of the chosen "learning_rate",
            "runs" with every seed and learning rate, "selection" in words, "table", "settings".
        """
        with self.setup.lock:
            self.claim_folder()
            if self.is_announced:
                say_start(self)
            try:
                with self.trials.energy:
                    return self._run()
            except Exception:
                if self.state.is_main_process:
                    self._keep_scores()
                raise

    def _run(self) -> JsonObject:
        records: dict[Run, JsonObject] = self.setup.broadcast(read_runs(self.folder))
        rates, seeds = self.args.learning_rates, self.args.seeds
        for run in [Run(rate, seed) for rate in rates for seed in seeds]:
            if run in records:
                logger.info("%s: stored already", run.title)
            else:
                records[run] = self.trials.train(run)
        chosen = self._best_rate(records)
        for run in [Run(chosen, seed) for seed in seeds]:
            if self.data.test is not None and records[run]["test"] is None:
                records[run] = self.trials.score_stored(run, records[run])
        results = summarise(
            {run: records[run] for run in records if run.learning_rate in rates and run.seed in seeds},
            chosen,
            self.metric,
        )
        results |= self._description()
        if self.args.save_model:
            results["model"] = dataclasses.asdict(self._keep_best(records, chosen))
        if self.glue_test is not None:
            self.state.wait_for_everyone()  # the main process has put the model there
            files = self.glue_test.predict(self.trials, self.folder / "model")
            results["test_predictions"] = [path.relative_to(self.folder).as_posix() for path in files]
        self.trials.remove_scratch()
        if self.state.is_main_process:
            self._clean_up()
            write_results(self.folder, results)
        if self.baselines is not None:
            results |= self.baselines.compare(results)
        results |= self._draw(results)
        if self.state.is_main_process:
            write_results(self.folder, results)
            if self.args.save_model and self.write_card is not None:
                self.write_card(self.folder / "model", self.recipe, results)
        self.state.wait_for_everyone()
        return results

    def _keep_scores(self) -> None:
        """Write results.json of the runs that have ended where a later one failed, unless it is there already."""
        found = {
            run: record for run, record in read_runs(self.folder).items() if record["validation"] or record["test"]
        }
        found = {run: found[run] for run in found if run.seed in self.args.seeds}
        rates = [rate for rate in self.args.learning_rates if any(run.learning_rate == rate for run in found)]
        if not rates or (self.folder / "results.json").is_file():
            return
        found = {run: found[run] for run in found if run.learning_rate == rates[0]}
        results = summarise(found, rates[0], self.metric) | {"complete": False} | self._description()
        write_results(self.folder, results)
        logger.warning("%s holds the scores of %d run(s) that had ended.", self.folder / "results.json", len(found))

    def _changed(self) -> list[str]:
        """The fields that had other values when the stored runs were made (`changed_since`)."""
        return changed_since(self.setup, self.material, () if self.searched is None else self.searched["best"])

    def claim_folder(self) -> None:
        """Make the folder this recipe's, under its lock: stored runs of another one are removed, as the recipe asks, and what
        the runs work with is written. Until then a refused recipe has changed nothing there.

        Raises:
            ValueError: Runs of another recipe are there.
        """
        changed = self._changed()  # another call may have been here since
        if self.state.is_main_process:
            if changed:
                for name in ("results.json", "results.md"):
                    (self.folder / name).unlink(missing_ok=True)
                # The runs last and at once: while they are there, their recipe says that the folder is not this one's.
                for name in (FROM_SCRATCH, PICTURES, SCRATCH, PREDICTIONS, "runs"):
                    remove_folder(self.folder / name)
            write_json(self.folder / RECIPE_OF_RUNS, self.material)
            self.setup.write_report()
        self.state.wait_for_everyone()

    def _plan_baselines(self, throws_away: bool) -> Baselines:
        """Plan the baselines; the runs without pre-training are checked now, not at the end.

        Args:
            throws_away: Whether the runs that are there will be removed.
        """
        from_scratch = None
        if self.setup.checkpoint is not None and not self.args.from_scratch:
            args = dataclasses.replace(
                self.args,
                from_scratch=True,
                baselines=False,
                baseline_models=[],
                baseline_trials=0,
                save_model=False,
                predict_test=False,
                push_to_hub=False,
                output_dir=str(self.folder / FROM_SCRATCH),
                overwrite=self.args.overwrite or throws_away,
            )
            with one_voice(quiet=True):  # the log has described its data already
                from_scratch = Finetuner(dataclasses.replace(self.recipe, finetuning=args))
            from_scratch.is_announced = False
        ignore_index = self.setup.ignore_index
        return Baselines(
            self.folder, self.data, self.metric, self.args, from_scratch, self.setup.training_rows, ignore_index
        )

    def _draw(self, results: JsonView) -> JsonObject:
        """Draw the pictures on the main process; every process gets the result."""
        found: JsonObject = {}
        if self.state.is_main_process:
            compared = {name: Path(folder) for name, folder in (self.args.compare_with or {}).items()}
            found = Drawing(self.folder, self.data, self.recipe.data, self.config, results, compared).draw()
        return self.setup.broadcast(found)

    def _best_rate(self, records: Mapping[Run, JsonObject]) -> float:
        def mean_score(rate: float) -> float:
            scores = [records[Run(rate, seed)]["validation"][self.metric] for seed in self.args.seeds]
            return float(np.mean(scores)) * (-1 if self.metric in LOWER_IS_BETTER else 1)

        rates = self.args.learning_rates
        return rates[0] if len(rates) == 1 else max(rates, key=mean_score)

    def _keep_best(self, records: Mapping[Run, JsonObject], chosen: float) -> Run:
        runs = [Run(chosen, seed) for seed in self.args.seeds]
        best = runs[0]
        if self.data.validation is not None:
            sign = -1 if self.metric in LOWER_IS_BETTER else 1
            best = max(runs, key=lambda run: sign * records[run]["validation"][self.metric])
        final = self.folder / "model"
        if not self.setup.broadcast(self._kept_run() == best and self._is_as_asked(final)):
            source = self.trials.stored_model(best)
            if self.state.is_main_process:
                replace_folder(source, final)
                remove_folder(self.folder / PREDICTIONS)  # those are the former model's
        if self.args.merge_adapter and self.state.is_main_process and is_adapter(final):
            self._merge(final)
        return best

    def _is_as_asked(self, final: Path) -> bool:
        """Whether a model is there, and an adapter where one is asked for."""
        wants_adapter = self.trials.saves_adapter and not self.args.merge_adapter
        return final.is_dir() and (is_adapter(final) or not wants_adapter)

    def _merge(self, final: Path) -> None:
        """Put a plain model in the place of its adapter."""
        assert self.setup.checkpoint is not None, "an adapter has a checkpoint"
        folder = incomplete_folder(final)
        merge_folder(self.setup.task, copy.deepcopy(self.config), final, self.setup.checkpoint, folder)
        replace_folder(folder, final)

    def _kept_run(self) -> Run | None:
        """The run whose model is in `output_dir`/model."""
        path = self.folder / "results.json"
        kept = json.loads(path.read_text(encoding="utf-8")).get("model") if path.is_file() else None
        return None if kept is None else Run(**kept)

    def _clean_up(self) -> None:
        """Remove models that are not wanted after all."""
        for path in list((self.folder / "runs").iterdir()):
            if path.is_dir():
                remove_folder(path)
        remove_incomplete(self.folder)

    def _description(self) -> JsonObject:
        return {
            "task": self.setup.task,
            "inputs": self.setup.inputs,
            "num_labels": self.setup.num_labels,
            "label_names": self.data.label_names,
            "rows": self.setup.row_counts(),
            "adapter": None if self.args.peft is None else described(self.args.peft),
            "search": self.searched,
            "settings": {"model": self.recipe.model, **recipe_sections(self.recipe)},
            "configuration": self.config.to_diff_dict(),
        }
