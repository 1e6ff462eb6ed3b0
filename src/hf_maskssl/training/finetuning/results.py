"""Fine-tuning runs on disk: one record for each seed and learning rate, and the summary over seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...evaluation.metrics import LOWER_IS_BETTER
from ...evaluation.reports import markdown_table, significant
from ...evaluation.statistics import mean_interval
from ...files import JsonObject, JsonView, write_json, write_whole

SPLITS = ("validation", "test")
LONGEST_INPUT = 100  # characters of an outlier's text in results.md; results.json has all of it


@dataclass(frozen=True, order=True)
class Run:
    """One seed with one learning rate."""

    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"learning_rate_{self.learning_rate!r}-seed_{self.seed}"

    @property
    def title(self) -> str:
        """Words for people."""
        return f"learning rate {self.learning_rate:g}, seed {self.seed}"

    def record_path(self, folder: Path) -> Path:
        """File of the run's scores, which exists once the run has ended."""
        return folder / "runs" / f"{self.name}.json"

    def model_folder(self, folder: Path) -> Path:
        """Folder of the run's model, kept until the best run is known."""
        return folder / "runs" / self.name


def read_runs(folder: Path) -> dict[Run, JsonObject]:
    """Records of the runs that have ended."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "runs").glob("learning_rate_*.json")]
    return {Run(record["learning_rate"], record["seed"]): record for record in records}


def summarise(records: Mapping[Run, JsonObject], chosen: float, metric: str) -> JsonObject:
    """Means over the seeds with their 95 % intervals (Student's t).

    Args:
        records: Record of every run: "validation" and "test" are {metric: score} or None.
        chosen: The learning rate to report.
        metric: Name of the headline metric.

    Returns:
        {"metric", "learning_rate", "selection": how it was chosen, in words, "scores": {split: {metric: interval}},
        "learning_rates": the validation interval of each, "runs", "table": a table for reports}.
    """
    ordered = [records[run] for run in sorted(records)]
    reported = [record for record in ordered if record["learning_rate"] == chosen]
    splits = [split for split in SPLITS if reported[0][split] is not None]
    scores = {
        split: {name: _interval([record[split][name] for record in reported]) for name in reported[0][split]}
        for split in splits
    }
    # A small split may lack a score: the ROC-AUC of a single class.
    names = sorted({name: None for split in splits for name in scores[split]}, key=lambda name: name != metric)
    rates = sorted({run.learning_rate for run in records})
    return {
        "metric": metric,
        "learning_rate": chosen,
        "selection": _selection(splits, len(rates) > 1),
        "scores": scores,
        "learning_rates": _validation_of_rates(ordered, rates, metric) if "validation" in splits else [],
        "runs": ordered,
        "table": {
            "columns": ["score", *splits, "runs"],
            "rows": [
                [_title(name), *(_shown(scores[split].get(name), name) for split in splits), len(reported)]
                for name in names
            ],
        },
    }


def baselines_table(
    scores: JsonView, models: Sequence[JsonView], metric: str, split: str, num_runs: int
) -> JsonObject:
    """A table of the baselines for reports: a row for the fine-tuned models and one for each baseline.

    Args:
        scores: {metric: interval} of the fine-tuned models.
        models: {"title", "runs", "scores": {metric: interval}, "differences": {metric: interval}} of each baseline.
        metric: Name of the headline metric, whose difference is shown; positive where the fine-tuned models score higher.
        split: Name of the split that is scored.
        num_runs: Number of fine-tuned runs.
    """
    names = sorted(scores, key=lambda name: name != metric)
    difference = f"fine-tuned minus it, {metric}" + ("" if metric in LOWER_IS_BETTER else " (points)")
    rows = [["fine-tuned", *(_shown(scores[name], name) for name in names), None, num_runs]]
    for model in models:
        shown = [_shown(model["scores"].get(name), name) for name in names]
        rows.append([model["title"], *shown, _shown(model["differences"].get(metric), metric), len(model["runs"])])
    columns = [split, *(_title(name) for name in names), difference, "runs"]
    return {"columns": columns, "rows": rows}


def write_results(folder: Path, results: JsonView) -> None:
    """Write results.json and results.md; an interrupted write leaves the former file."""
    text = _markdown(folder.name, results)
    write_whole(folder / "results.md", lambda aside: aside.write_text(text, encoding="utf-8"))
    write_json(folder / "results.json", results)


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    mean, half_width = mean_interval(values)
    return {"mean": mean, "half_width": half_width}


def _validation_of_rates(records: Sequence[JsonObject], rates: Sequence[float], metric: str) -> list[JsonObject]:
    return [
        {"learning_rate": rate}
        | _interval([record["validation"][metric] for record in records if record["learning_rate"] == rate])
        for rate in rates
    ]


def _selection(splits: Sequence[str], several_rates: bool) -> str:
    what = "The epoch and the learning rate were" if several_rates else "The epoch was"
    if "validation" not in splits:
        return "There is no validation split: nothing was chosen, and the last epoch is scored on the test split."
    if "test" not in splits:
        return f"{what} chosen on the validation split, and there is no test split: the scores are optimistic."
    return f"{what} chosen on the validation split; the test split was scored with that choice alone."


def _title(metric: str) -> str:
    return metric if metric in LOWER_IS_BETTER else f"{metric} (%)"


def _shown(interval: Mapping[str, float | None] | None, metric: str) -> dict[str, float | None] | str | None:
    """An interval in the form of tables: in percent, but errors in the labels' unit."""
    if interval is None:
        return None
    if metric in LOWER_IS_BETTER:
        return " ± ".join(significant(value) for value in interval.values() if value is not None)
    return {name: None if value is None else 100 * value for name, value in interval.items()}


def _markdown(title: str, results: JsonView) -> str:
    metric, chosen = results["metric"], results["learning_rate"]
    settings = results["settings"]["finetuning"]
    start = "random weights" if settings["checkpoint"] is None else f"`{settings['checkpoint']}`"
    if settings["from_scratch"]:
        start = f"random weights, configured as {start}"
    rows = ", ".join(f"{count:,} {split}" for split, count in results["rows"].items())
    if settings["labelled_samples"] is not None:
        rows += f" ({settings['labelled_samples']:,} of the training rows are used)"
    inputs = results.get("inputs")
    given = "" if inputs is None else f" with {' + '.join(inputs)} as input"
    lines = [
        f"# {title}",
        "",
        f"Fine-tuned from {start}{', the encoder frozen' if settings['freeze_encoder'] else ''}{given}; learning rate "
        f"{chosen:g}. Rows: {rows}. Means over runs with 95 % t intervals.",
        *adapter_lines(results),
        *search_lines(results),
        results["selection"],
        "",
        markdown_table(results["table"]["rows"], results["table"]["columns"]),
        "",
        *_baselines_lines(results),
        *_outliers_lines(results.get("outliers")),
        *_test_lines(results.get("test_predictions")),
        "Each run:",
        "",
        _runs_table(results["runs"], metric),
    ]
    for what, path in results.get("pictures", {}).items():
        lines += ["", f"![{what}]({path})"]
    return "\n".join(lines) + "\n"


def adapter_lines(results: JsonView) -> list[str]:
    """The adapter and its share of the parameters, in a line; nothing without one."""
    if results.get("adapter") is None:
        return []
    counts = results["runs"][0]["parameters"]
    share = counts["trained"] / counts["all"]
    return [
        f"Adapter: {results['adapter']}; {counts['trained']:,} of {counts['all']:,} parameters ({share:.1%}) are trained."
    ]


def search_lines(results: JsonView) -> list[str]:
    """What a search has chosen, in a line; nothing without one."""
    found = results.get("search")
    if found is None:
        return []
    values = settings_words(found["best"])
    return [f"Chosen by {found['trials']} trials on the validation split (search/trials.md): {values}."]


def settings_words(values: JsonView) -> str:
    """Hyper-parameters by name in a line."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def baseline_search_lines(results: JsonView) -> list[str]:
    """What tuning has chosen of each baseline that was tuned, a line each."""
    lines = []
    for model in results.get("baselines", {}).get("models", []):
        found = model.get("search")
        if found is None:
            continue
        metric = found["metric"]
        scale, unit = (1, "") if metric in LOWER_IS_BETTER else (100, " %")
        score, untuned = (f"{significant(scale * found[name])}{unit}" for name in ("score", "untuned_score"))
        trials = f"of {found['trials']} trials on {found['rows']} ({metric})"
        failed = f"; {found['failed']} of them failed" if found["failed"] else ""
        if found["settings"]:
            what = f"the best {trials} has {score}, untuned {untuned}{failed}: {settings_words(found['settings'])}"
        else:
            what = f"none {trials} is better than untuned, {untuned}{failed}"
        lines.append(f"{model['title']}: {what}.")
    return lines


def _baselines_lines(results: JsonView) -> list[str]:
    baselines = results.get("baselines")
    if baselines is None:
        return []
    table = results["tables"]["baselines"]
    lines = ["Beside what it has to beat; differences are paired by seed:", ""]
    lines += [markdown_table(table["rows"], table["columns"]), ""]
    lines += [
        f"The {model['title']}: {model['runs'][0]['what']}."
        for model in baselines["models"]
        if model["name"] == "raw" and "what" in model["runs"][0]
    ]
    tuned = [f"- {line}" for line in baseline_search_lines(results)]
    lines += ["", *tuned, ""] if tuned else []
    lines += [f"Not compared {reason}." for reason in baselines["missing"]]
    return [*lines, ""]


def _test_lines(files: Sequence[str] | None) -> list[str]:
    return [] if not files else [f"For GLUE's server: {', '.join(files)}.", ""]


def _outliers_lines(outliers: JsonView | None) -> list[str]:
    if outliers is None:
        return []
    lines = [outliers_sentence(outliers), ""]
    if not outliers["shown"]:
        return lines
    with_input = any(row["input"] is not None for row in outliers["shown"])
    columns = ["row", *(["input"] if with_input else []), "true", "predicted", "residual"]
    rows = []
    for row in outliers["shown"]:
        text = [_shortened(row["input"] or "")] if with_input else []
        rows.append([row["row"], *text, *(significant(row[name]) for name in ("true", "predicted", "residual"))])
    return [*lines, markdown_table(rows, columns), ""]


def outliers_sentence(outliers: JsonView) -> str:
    """The number of outliers and their definition."""
    count, shown = outliers["count"], len(outliers["shown"])
    mean = f" (of the mean of {outliers['runs']} runs)" if outliers["runs"] > 1 else ""
    rule = (
        f"{outliers['rule']}: {significant(outliers['median_residual'])}, with {significant(outliers['robust_std'])}"
    )
    rule = f"{rule} as one robust standard deviation"
    number = f"{count} of {outliers['rows']:,} {outliers['split']} rows"
    return f"Outliers: {number}{'' if shown == count else f', of which the farthest {shown} follow'}{mean}: {rule}."


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_INPUT else f"{text[: LONGEST_INPUT - 1]}…"


def _runs_table(records: Sequence[JsonObject], metric: str) -> str:
    is_error = metric in LOWER_IS_BETTER
    splits = [split for split in SPLITS if any(record[split] is not None for record in records)]
    counted = any("parameters" in record for record in records)  # records of earlier versions have no counts
    rows = []
    for record in records:
        found = [None if record[split] is None else record[split][metric] for split in splits]
        scores = [score if score is None else significant(score) if is_error else 100 * score for score in found]
        counts = [f"{record['parameters']['trained']:,}" if "parameters" in record else None] if counted else []
        rows.append(
            [f"{record['learning_rate']:g}", record["seed"], record["epoch"], *scores, *counts, record["seconds"]]
        )
    columns = ["learning rate", "seed", "epoch", *(f"{split}, {_title(metric)}" for split in splits)]
    columns += ["trained parameters"] * counted + ["seconds"]
    return markdown_table(rows, columns)
