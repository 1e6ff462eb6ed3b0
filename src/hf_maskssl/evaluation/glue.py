"""The average over the eight tasks of GLUE that PoS-BERT is measured on, read from the results of fine-tuning runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .statistics import mean_interval

# Task -> its score in Table 1 of Wang et al. (https://arxiv.org/abs/2306.12070), in the table's order. MNLI is the matched set.
GLUE_METRICS = {
    "mnli": "accuracy",
    "qqp": "f1",
    "qnli": "accuracy",
    "sst2": "accuracy",
    "cola": "matthews",
    "stsb": "spearman",
    "mrpc": "f1",
    "rte": "accuracy",
}
MISMATCHED = "mismatched"


@dataclass(frozen=True)
class TaskScores:
    """The scores of the runs that were fine-tuned to one task.

    Attributes:
        task: A key of `GLUE_METRICS`.
        folder: Folder of the results.
        encoder: Checkpoint that was fine-tuned, and whether its weights were thrown away.
        scores: Table of seed -> the task's own score, in percent.
    """

    task: str
    folder: Path
    encoder: str
    scores: dict[int, float]


def average_tasks(folders: Sequence[str], tasks: Sequence[str] = tuple(GLUE_METRICS)) -> dict[str, Any]:
    """Each task's score with its interval over seeds, and the mean over the tasks.

    Args:
        folders: Output folders of `examples/run_finetune.py`, `FOLDER` or `TASK=FOLDER`. Without a name, the task is what the
            run's `data.config_name` says, or of local files the last part of `data.data_dir`.
        tasks: Names of all tasks that the mean needs; no other may be there.

    Returns:
        {"tasks": {task: {"metric", "scores" by seed, "mean", "half_width", "folder"}}, "mean": {"mean", "half_width"} over the
        tasks, "encoder", "table"}: percent; 95 % t intervals, that of the mean over the seeds' own means, None where tasks
        have different seeds or a single one.

    Raises:
        FileNotFoundError: A folder without results.json.
        ValueError: A task is unknown, missing, there twice or not asked for; runs of different encoders; results without the
            task's score on a test split.
    """
    unknown = [task for task in tasks if task not in GLUE_METRICS]
    if unknown or not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(
            f"tasks: expected different ones out of {list(GLUE_METRICS)}, at least one, got {list(tasks)}."
        )
    found = [read_task(folder) for folder in folders]
    _check_tasks(found, tasks)
    _check_encoders(found)
    by_task = {scores.task: scores for scores in found}
    ordered = [by_task[task] for task in GLUE_METRICS if task in by_task]
    described = {
        scores.task: {
            "metric": GLUE_METRICS[scores.task],
            "scores": scores.scores,
            **_interval(list(scores.scores.values())),
            "folder": str(scores.folder),
        }
        for scores in ordered
    }
    mean = _mean_over_tasks(ordered)
    return {"tasks": described, "mean": mean, "encoder": ordered[0].encoder, "table": _table(ordered, mean)}


def read_task(folder: str) -> TaskScores:
    """The scores in a folder that fine-tuning wrote; arguments and errors as `average_tasks`."""
    name, separator, place = folder.partition("=")
    path = Path(place if separator else folder)
    if not (path / "results.json").is_file():
        raise FileNotFoundError(
            f"{path} holds no results.json: name folders that examples/run_finetune.py has completed."
        )
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    task = name if separator else task_name(results["settings"]["data"])
    if task not in GLUE_METRICS:
        raise ValueError(
            f"{path}: expected one of the tasks {list(GLUE_METRICS)}, got {task!r}: write TASK={path}, such as "
            f"cola={path}, or leave the folder out."
        )
    _check_split(results["settings"]["data"], task, path)
    metric, rate = GLUE_METRICS[task], results["learning_rate"]
    runs = [run for run in results["runs"] if run["learning_rate"] == rate]
    if any(run["test"] is None for run in runs):
        raise ValueError(
            f"{path}: {task} is scored on its test split, of which the runs say nothing: set data.test_split to the "
            "development set."
        )
    if any(metric not in run["test"] for run in runs):
        raise ValueError(
            f"{path}: {task} is scored by {metric}, but the runs have {sorted(runs[0]['test'])}: set data.task to "
            f"{'regression' if task == 'stsb' else 'classification'}."
        )
    settings = results["settings"]["finetuning"]
    encoder = "random weights" if settings["checkpoint"] is None else str(settings["checkpoint"])
    if settings["from_scratch"]:
        encoder = f"random weights, configured as {encoder}"
    return TaskScores(task, path, encoder, {run["seed"]: 100 * run["test"][metric] for run in runs})


def task_name(data: Mapping[str, Any]) -> str:
    """The task that the data section names."""
    return str(data["config_name"] or Path(data["data_dir"] or "").name)


def _check_split(data: Mapping[str, Any], task: str, path: Path) -> None:
    if task == "mnli" and MISMATCHED in str(data["test_split"]):
        raise ValueError(
            f"{path}: mnli is scored on its matched set, got data.test_split {data['test_split']!r}: fine-tune with "
            "--test_split validation_matched."
        )


def _check_tasks(found: Sequence[TaskScores], tasks: Sequence[str]) -> None:
    folders: dict[str, list[str]] = {}
    for scores in found:
        folders.setdefault(scores.task, []).append(str(scores.folder))
    for task, places in folders.items():
        if len(places) > 1:
            raise ValueError(f"{task} is there {len(places)} times, in {', '.join(places)}: keep one of them.")
        if task not in tasks:
            raise ValueError(
                f"{task} in {places[0]} is none of the tasks {list(tasks)}: leave it out, or add it to --tasks."
            )
    missing = [task for task in tasks if task not in folders]
    if missing:
        raise ValueError(
            f"no folder is of {', '.join(missing)}: the mean is over {len(tasks)} tasks; fine-tune to these as well, or name "
            "the tasks to average with --tasks."
        )


def _check_encoders(found: Sequence[TaskScores]) -> None:
    encoders = {scores.encoder: scores for scores in found}
    if len(encoders) > 1:
        named = "; ".join(f"{scores.task} in {scores.folder} is of {encoder}" for encoder, scores in encoders.items())
        raise ValueError(f"a mean is of one encoder, but {named}: average each by itself.")


def _mean_over_tasks(found: Sequence[TaskScores]) -> dict[str, float | None]:
    seeds = [set(scores.scores) for scores in found]
    if any(own != seeds[0] for own in seeds):
        means = [mean_interval(list(scores.scores.values()))[0] for scores in found]
        return {"mean": sum(means) / len(means), "half_width": None}
    return _interval([sum(scores.scores[seed] for scores in found) / len(found) for seed in sorted(seeds[0])])


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    mean, half_width = mean_interval(values)
    return {"mean": mean, "half_width": half_width}


def _table(found: Sequence[TaskScores], mean: Mapping[str, float | None]) -> dict[str, Any]:
    rows: list[list[object]] = [
        [scores.task, GLUE_METRICS[scores.task], _interval(list(scores.scores.values())), len(scores.scores)]
        for scores in found
    ]
    return {
        "columns": ["task", "metric", "score (%)", "seeds"],
        "rows": [*rows, [f"mean of {len(found)}", "", dict(mean), min(len(scores.scores) for scores in found)]],
    }
