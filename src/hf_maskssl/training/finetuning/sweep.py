"""Fine-tuning of a recipe: every seed and learning rate, chosen on validation, scored on test."""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from accelerate.state import PartialState

from ...data.arguments import fields_of_kinds
from ...evaluation.metrics import LOWER_IS_BETTER
from ...files import JsonObject, JsonView, write_json
from ...scripts import recipe_words
from ...terminal import one_voice
from ..digests import rows_digest, weights_digest
from .arguments import FinetuningRecipe, load_finetuning_recipe
from .baselines import Baselines
from .console import say_end, say_start, terminal_report
from .drawing import PICTURES, Drawing
from .results import Run, read_runs, summarise, write_results
from .setup import FinetuningSetup, launched_precision
from .stopping import RunStopped
from .trials import SCRATCH, Trials

# Fields that may change between two calls without changing a run's result.
IMMATERIAL = {"output_dir", "overwrite", "seeds", "learning_rate", "eval_batch_size", "num_workers", "logging_steps"}
IMMATERIAL |= {"report_to", "save_model", "num_proc", "baselines", "quiet", "json_log"}
FROM_SCRATCH = "from_scratch"  # folder of the output_dir: the runs without pre-training

# Called with the kept model's folder, the recipe and the results.
CardWriter = Callable[[Path, FinetuningRecipe, JsonView], None]

logger = logging.getLogger(__name__)


def finetune(recipe: FinetuningRecipe, write_card: CardWriter | None = None) -> JsonObject:
    """Fine-tune on every seed with every learning rate; returns the content of results.json (see `Finetuner.run`).

    Raises:
        RunStopped: SIGTERM or Ctrl-C came while a run was trained; it is saved, and the same call goes on with it.
    """
    with one_voice(recipe.finetuning.quiet):
        return Finetuner(recipe, write_card).run()


def finetune_from_command_line(document: str, write_card: CardWriter | None = None, task: str | None = None) -> None:
    """The scripts' main function: it reads RECIPE.yaml and its overrides, writes results.md and prints the scores.

    Args:
        document: Docstring of the script, printed where there is no recipe.
        write_card: Function that writes the card, as in `finetune`.
        task: Name of the only `data.task` that the script is for; None allows every one.

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


class Finetuner:
    """The runs of a recipe; stored runs are not repeated.

    Args:
        recipe: Recipe of the runs.
        write_card: Function that writes the README.md of the model that is kept; called on the main process at the end.

    Raises:
        ValueError: The recipe does not fit (`FinetuningSetup`), or runs in `output_dir` belong to another one.
        FileNotFoundError: No such checkpoint or data.
    """

    def __init__(self, recipe: FinetuningRecipe, write_card: CardWriter | None = None) -> None:
        self.setup = setup = FinetuningSetup(recipe)
        self.recipe, self.args, self.write_card = recipe, setup.args, write_card
        self.state, self.folder = setup.state, setup.folder
        self.config, self.data, self.metric = setup.config, setup.data, setup.metric
        self.trials = Trials(setup)
        self.is_announced = True  # whether `run` begins with what it works with
        self.material = self.setup.broadcast(self._material() if self.state.is_main_process else {})
        with setup.lock:
            self._check_recipe_of_runs()
        self.baselines = self._plan_baselines() if self.args.baselines else None

    def run(self) -> JsonObject:
        """Train what is missing, choose the learning rate, score the test split, write results.json and results.md.

        Returns:
            The content of results.json: "scores" {split: {metric: {"mean", "half_width"}}} of the chosen "learning_rate",
            "runs" with every seed and learning rate, "selection" in words, "table", "settings".
        """
        with self.setup.lock:
            self._check_recipe_of_runs()  # another call may have been here since
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

    def _check_recipe_of_runs(self) -> None:
        """Refuse stored runs of another recipe, or remove them with `finetuning.overwrite`; under the folder's lock."""
        path = self.folder / "runs" / "recipe.json"
        material = self.material
        stored = self.setup.broadcast(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else material)
        changed = [name for name in {**stored, **material} if stored.get(name) != material.get(name)]
        if changed and not self.args.overwrite:
            changes = ", ".join(f"{name} was {stored.get(name)!r}, is now {material.get(name)!r}" for name in changed)
            raise ValueError(
                f"{self.folder} holds runs of another recipe ({changes}): take back the change, name another "
                "finetuning.output_dir, or set finetuning.overwrite to throw those runs away."
            )
        if self.state.is_main_process:
            if changed:
                shutil.rmtree(self.folder / "runs")
                for name in (FROM_SCRATCH, PICTURES, SCRATCH):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                for name in ("results.json", "results.md"):
                    (self.folder / name).unlink(missing_ok=True)
            write_json(path, material)
        self.state.wait_for_everyone()

    def _material(self) -> JsonObject:
        """All fields that decide a run's result, as flat `section.field` names."""
        sections = self._sections()
        sections["data"] = fields_of_kinds() | sections["data"]  # as earlier versions stored it
        model = {name: value for name, value in self.config.to_diff_dict().items() if name != "transformers_version"}
        flat = {
            f"{section}.{name}": value
            for section, fields in {"model": model, **sections}.items()
            for name, value in fields.items()
            if name not in IMMATERIAL
        }
        flat["finetuning.mixed_precision"] = self.args.mixed_precision or launched_precision()
        weights = None if self.setup.checkpoint is None else weights_digest(self.setup.checkpoint)
        digests = {f"{name} rows (hash)": rows_digest(split) for name, split in self.setup.splits().items()}
        facts = {"weights": weights, "rows": self.setup.row_counts(), "processes": self.state.num_processes}
        return json.loads(json.dumps(flat | facts | digests))  # as a file of it is read

    def _sections(self) -> dict[str, JsonObject]:
        """The recipe's sections but for the model's, as plain dictionaries."""
        return {"data": dataclasses.asdict(self.recipe.data), "finetuning": dataclasses.asdict(self.args)}

    def _plan_baselines(self) -> Baselines:
        """Plan the baselines; the runs without pre-training are checked now, not at the end."""
        from_scratch = None
        if self.setup.checkpoint is not None and not self.args.from_scratch:
            args = dataclasses.replace(
                self.args,
                from_scratch=True,
                baselines=False,
                save_model=False,
                output_dir=str(self.folder / FROM_SCRATCH),
            )
            with one_voice(quiet=True):  # of its data the log has said all
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
            found = Drawing(self.folder, self.data, self.recipe.data, self.config, results).draw()
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
        if not self.setup.broadcast(self._kept_run() == best and final.is_dir()):
            source = self.trials.stored_model(best)
            if self.state.is_main_process:
                shutil.rmtree(final, ignore_errors=True)
                os.replace(source, final)
        return best

    def _kept_run(self) -> Run | None:
        """The run whose model is in `output_dir`/model."""
        path = self.folder / "results.json"
        kept = json.loads(path.read_text(encoding="utf-8")).get("model") if path.is_file() else None
        return None if kept is None else Run(**kept)

    def _clean_up(self) -> None:
        """Remove models that are not wanted after all."""
        for path in (self.folder / "runs").iterdir():
            if path.is_dir():
                shutil.rmtree(path)

    def _description(self) -> JsonObject:
        return {
            "task": self.setup.task,
            "inputs": self.setup.inputs,
            "num_labels": self.setup.num_labels,
            "label_names": self.data.label_names,
            "rows": self.setup.row_counts(),
            "settings": {"model": self.recipe.model, **self._sections()},
            "configuration": self.config.to_diff_dict(),
        }
