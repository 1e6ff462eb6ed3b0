"""Baselines of fine-tuned models, scored on the same rows: no pre-training, one answer for all, a model of raw inputs."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from ...data.arguments import DENSE_TASKS
from ...data.preparation import PreparedData
from ...evaluation.arguments import METRICS_OF_TASK, LibraryModel, ProbeArguments, Settings
from ...evaluation.dense_baselines import dense_baseline_scores
from ...evaluation.metrics import score_outputs
from ...evaluation.statistics import mean_interval, paired_interval
from ...files import JsonObject, JsonView, write_json
from .arguments import FinetuningArguments
from .baseline_search import BaselineSearch
from .results import baselines_table
from .scores import FinetuningRows

if TYPE_CHECKING:
    from ...evaluation.baselines import RawInputs
    from ...evaluation.probe import ProbeRun
    from .sweep import Finetuner

TITLES = {
    "from_scratch": "without pre-training",
    "constant": "always the most frequent class",
    "raw": "linear model of the raw inputs",
    "mlp": "MLP of the raw inputs",
    "hist_gradient_boosting": "gradient-boosted trees of the raw inputs",
    "random_forest": "random forest of the raw inputs",
    "xgboost": "XGBoost of the raw inputs",
    "resnet": "ResNet of the raw inputs",
    "ft_transformer": "FT-Transformer of the raw inputs",
    "tabnet": "TabNet of the raw inputs",
}

# Task -> what is said of all rows alike, where that is no class.
CONSTANTS: Mapping[str, str] = {
    **dict.fromkeys(("regression", "depth_estimation", "dense_regression"), "always the mean label"),
    "multi_label_classification": "always each task's share of class 1",
}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Baselines:
    """The baselines of some fine-tuning runs.

    Attributes:
        folder: The `output_dir`; scores of simple models are kept in `runs`/baselines-*.json, and are not computed again.
        data: Data that the runs are trained and scored on.
        metric: Name of the headline metric.
        args: Arguments of the runs.
        from_scratch: Runs without pre-training (their `run()` gives the content of results.json); None where the runs
            start from random weights themselves.
        training_rows: The rows that a seed trains on.
        ignore_index: Class of unlabelled pixels.
        held_out, train: Raw inputs that have been read: of the splits that are not trained on, by name, and of the training rows
            of each seed, or of all under None.
    """

    folder: Path
    data: PreparedData
    metric: str
    args: FinetuningArguments
    from_scratch: "Finetuner | None"
    training_rows: Callable[[int], FinetuningRows]
    ignore_index: int
    held_out: dict[str, "RawInputs"] = dataclasses.field(default_factory=dict, init=False)
    train: dict[int | None, "RawInputs"] = dataclasses.field(default_factory=dict, init=False)

    def compare(self, results: JsonView) -> JsonObject:
        """Score what is missing and compare; every process must call this.

        Args:
            results: Results of the runs in the form of results.json.

        Returns:
            {"baselines": {"split", "missing": baselines that there are not, in words, "models": [{"name", "title", "runs":
            [{"seed", "scores"}], "scores" {metric: interval}, "differences" {metric: interval}, and where it was tuned "search":
            what `BaselineSearch.run` gives}]}, "tables": {"baselines": a table for reports}}. A difference is the fine-tuned
            score minus the baseline's, paired by seed, with its 95 % interval (Student's t). A model that depends on no seed has
            one run, of seed None, and no interval.
        """
        split = "test" if "test" in results["scores"] else "validation"
        models, missing = [], []
        if self.from_scratch is None:
            missing.append("without pre-training: the runs themselves start from random weights")
        else:
            logger.info("Baseline without pre-training, in %s", self.from_scratch.folder)
            models.append(("from_scratch", _runs_of(self.from_scratch.run(), split)))
        for name, runs in self._simple_models().items():
            models.append((name, runs))
        of_library, searches, reasons = self._library_models()
        models += of_library.items()
        missing += reasons
        own = {run["seed"]: run["scores"] for run in _runs_of(results, split)}
        described = [self._describe(name, runs, own, searches.get(name)) for name, runs in models]
        table = baselines_table(results["scores"][split], described, self.metric, split, len(own))
        return {
            "baselines": {"split": split, "missing": missing, "models": described},
            "tables": {"baselines": table},
        }

    def _describe(
        self, name: str, runs: list[JsonObject], own: Mapping[int, Mapping[str, float]], search: JsonObject | None
    ) -> JsonObject:
        by_seed = {run["seed"]: run["scores"] for run in runs}
        scores, differences = {}, {}
        for metric in runs[0]["scores"]:
            values = [scores_of_run[metric] for scores_of_run in by_seed.values()]
            scores[metric] = _interval(mean_interval(values))
            theirs = [by_seed.get(seed, by_seed.get(None, {}))[metric] for seed in own]
            differences[metric] = _interval(paired_interval(theirs, [entry[metric] for entry in own.values()]))
        title = self._title(name) + (", tuned" if search is not None else "")
        if not all(run.get("converged", True) for run in runs):
            title += " (not converged)"
        found = {"name": name, "title": title, "runs": runs, "scores": scores, "differences": differences}
        return found if search is None else found | {"search": search}

    def _title(self, name: str) -> str:
        return CONSTANTS.get(str(self.data.task), TITLES[name]) if name == "constant" else TITLES[name]

    def _simple_models(self) -> dict[str, list[JsonObject]]:
        """Runs of the models that are no networks, computed by the main process."""
        found = [self._scored_simple_models() if _is_main_process() else None]
        broadcast_object_list(found)
        return found[0] or {}

    def _scored_simple_models(self) -> dict[str, list[JsonObject]]:
        # Every seed gives the same, unless it draws few labels.
        seeds: list[int | None] = [None] if self.args.labelled_samples is None else [*self.args.seeds]
        found: dict[str, list[JsonObject]] = {}
        for seed in seeds:
            path = self.folder / "runs" / ("baselines.json" if seed is None else f"baselines-seed_{seed}.json")
            if not path.is_file():
                logger.info("Baselines without a network%s", "" if seed is None else f", seed {seed}")
                write_json(path, self._score_simple_models(seed))
            for name, entry in json.loads(path.read_text(encoding="utf-8")).items():
                found.setdefault(name, []).append({"seed": seed, **entry})
        return found

    def _library_models(self) -> tuple[dict[str, list[JsonObject]], dict[str, JsonObject], list[str]]:
        """Runs of the models of `baseline_models`, one a seed, by the main process; how those were tuned that were; and why there
        are none of some, in words."""
        found: list[tuple[dict[str, list[JsonObject]], dict[str, JsonObject], list[str]] | None] = [
            self._scored_library_models() if _is_main_process() and self.args.baseline_models else None
        ]
        broadcast_object_list(found)
        return found[0] or ({}, {}, [])

    def _scored_library_models(self) -> tuple[dict[str, list[JsonObject]], dict[str, JsonObject], list[str]]:
        found: dict[str, list[JsonObject]] = {}
        searches: dict[str, JsonObject] = {}
        reasons: list[str] = []
        for name in self.args.baseline_models:
            try:
                if str(self.data.task) in DENSE_TASKS:
                    task = self.data.task
                    raise ValueError(f"{name} is for classification and regression, not for {task}: leave it out")
                search = self._tune(name) if self.args.baseline_trials else None
                settings = {} if search is None else search["settings"]
                found[name] = [self._library_run(name, seed, settings) for seed in self.args.seeds]
                if search is not None:
                    searches[name] = search
            except ValueError as error:
                logger.warning("No baseline %s: %s", name, error)
                reasons.append(f"with {name}: {error}")
        return found, searches, reasons

    def _tune(self, name: LibraryModel) -> JsonObject:
        """What a search for the hyper-parameters of a model has found; the rows that are scored have no part in it.

        Raises:
            ValueError: There are neither rows that choose nor enough to keep some apart, or the untuned model does not work.
        """
        from ...evaluation import baselines
        from ...evaluation.library_baselines import FEWEST_ROWS, kept_apart

        seed = self.args.seeds[0]
        inputs = self._raw_inputs(None if self.args.labelled_samples is None else seed)
        train, rows = inputs["train"], "the validation split"
        _, choosing = baselines.held_out(inputs)
        if choosing is None:
            rows = "a tenth of the training rows"
            train, choosing = kept_apart(train, seed)
        if choosing is None:
            raise ValueError(
                f"there is no split but the scored one to choose hyper-parameters by, and {len(train)} training rows are too few "
                f"to keep a tenth apart ({FEWEST_ROWS} are not): set data.validation_fraction, or finetuning.baseline_trials to 0"
            )
        path = self.folder / "runs" / f"baseline_{name}-trials-seed_{seed}.json"
        logger.info("Baseline %s: %d trials on %s", name, self.args.baseline_trials, rows)

        splits = {"train": train, "validation": choosing, "test": choosing}

        def fit(settings: Settings) -> dict[str, float]:
            scores: dict[str, float] = self._fit(name, splits, seed, settings)["scores"]
            return scores

        return BaselineSearch(name, self.args.baseline_trials, seed, self.metric, rows, path, fit).run()

    def _library_run(self, name: LibraryModel, seed: int, settings: Settings) -> JsonObject:
        """The run of a model with a seed; stored, so that it is made once."""
        path = self.folder / "runs" / f"baseline_{name}{'-tuned' if settings else ''}-seed_{seed}.json"
        # Another trial may have been the best when the file was written.
        if not path.is_file() or json.loads(path.read_text(encoding="utf-8")).get("settings", {}) != settings:
            logger.info("Baseline %s, seed %d", name, seed)
            inputs = self._raw_inputs(None if self.args.labelled_samples is None else seed)
            made = self._fit(name, inputs, seed, settings)
            write_json(path, {"seed": seed, **made, **({"settings": settings} if settings else {})})
        entry: JsonObject = json.loads(path.read_text(encoding="utf-8"))
        return entry

    def _fit(self, name: LibraryModel, inputs: "Mapping[str, RawInputs]", seed: int, settings: Settings) -> JsonObject:
        """Fit a model to the training rows and score it: {"scores", "what", "converged"}."""
        from ...evaluation import baselines
        from ...evaluation.library_baselines import library_probe

        task = str(self.data.task)
        test, validation = baselines.held_out(inputs)
        run, what = library_probe(
            name,
            inputs["train"],
            test,
            task,
            seed,
            validation=validation,
            device=PartialState().device,
            settings=settings,
        )
        scores = score_outputs(_outputs(run, task, int(self.data.num_labels or 0)), test.labels, task)
        return {"scores": scores, "what": what, "converged": run.converged}

    def _score_simple_models(self, seed: int | None) -> JsonObject:
        """{name: {"scores", "what", "converged"}} of the models that are no networks."""
        task = str(self.data.task)
        if task in DENSE_TASKS:
            data = self.data if seed is None else dataclasses.replace(self.data, train=self.training_rows(seed))
            return dense_baseline_scores(data, task, self.ignore_index, seed or 0)
        return plain_baseline_scores(
            self._raw_inputs(seed), task, self.metric, int(self.data.num_labels or 0), seed or 0
        )

    def _raw_inputs(self, seed: int | None) -> dict[str, "RawInputs"]:
        """The raw inputs of each split, the training rows those of a seed, or all; each is read once for all baselines."""
        from ...evaluation import baselines

        data = self.data if seed is None else dataclasses.replace(self.data, train=self.training_rows(seed))
        for name, rows in baselines.probed_splits(data).items():
            if name == "train" and seed not in self.train:
                self.train[seed] = baselines.read_raw_inputs(rows, data, str(data.task))
            elif name != "train" and name not in self.held_out:
                self.held_out[name] = baselines.read_raw_inputs(rows, data, str(data.task))
        return {"train": self.train[seed], **self.held_out}


def plain_baseline_scores(
    inputs: Mapping[str, "RawInputs"], task: str, metric: str, num_labels: int, seed: int
) -> JsonObject:
    """The constant answer and the linear model of `evaluation.baselines`, scored as fine-tuned models are.

    Args:
        inputs: Name of a split -> its raw inputs and labels: the test split is scored, or validation where there is none.
        task: Name of a task that is not dense.
        metric: Name of the headline metric; it chooses the linear model's penalty where probes know it, else their own does.
        num_labels: Number of outputs of a head.
        seed: Seed of the draw of rows where there are too many.

    Returns:
        {"constant": {"scores": {metric: score}, "what": in words, "converged"}, "raw": the same}.
    """
    # Imported here, because nothing else of fine-tuning needs probes and their models.
    from ...evaluation import baselines

    test, validation = baselines.held_out(inputs)
    metrics: Any = METRICS_OF_TASK[task]
    args = ProbeArguments(metric=metric if metric in metrics else None)  # type: ignore[arg-type]
    constant = baselines.majority(inputs["train"].labels, test.labels, task)
    raw, what = baselines.raw_inputs_probe(inputs["train"], test, task, args, seed, validation=validation)
    runs = {"constant": (constant, baselines.majority_title(task)), "raw": (raw, what)}
    return {
        name: {
            "scores": score_outputs(_outputs(run, task, num_labels), test.labels, task),
            "what": title,
            "converged": run.converged,
        }
        for name, (run, title) in runs.items()
    }


def _outputs(run: "ProbeRun", task: str, num_labels: int) -> np.ndarray:
    """Outputs in the form of a head's: (n, L) logits of a classification, else (n,) predictions."""
    if task != "classification":
        return run.predictions
    if run.outputs is not None and run.outputs.shape[1] == num_labels:
        return run.outputs
    # Classes alone suffice: a constant has a ROC-AUC of 0.5, and metrics of more than two classes read nothing else.
    return np.eye(num_labels)[run.predictions]


def _is_main_process() -> bool:
    return PartialState().is_main_process


def _interval(found: tuple[float, float | None]) -> dict[str, float | None]:
    return dict(zip(("mean", "half_width"), found, strict=True))


def _runs_of(results: JsonView, split: str) -> list[JsonObject]:
    """The runs that are reported, with their scores on a split."""
    return [
        {"seed": record["seed"], "scores": record[split], "history": record.get("history", [])}
        for record in results["runs"]
        if record["learning_rate"] == results["learning_rate"]
    ]
