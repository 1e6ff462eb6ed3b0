"""Evaluation results on model cards: in the text, in the header's `model-index`, and as `.eval_results` files."""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from ..data import find_kind
from ..data.arguments import DataArguments, checkpoint_name, data_arguments, is_hub_name
from ..evaluation.metrics import LOWER_IS_BETTER
from ..evaluation.reports import markdown_table
from ..evaluation.statistics import mean_interval
from ..files import JsonView
from ..training.pretraining.arguments import PretrainingRecipe
from ..training.pretraining.state import RunState
from .card_headers import header_of

# Placeholder for the repository until `publish` knows its name.
PLACEHOLDER = "ORGANISATION/NAME"
# Tasks that have a name on the Hub for any data.
TASK_PIPELINES = {
    "token_classification": "token-classification",
    "semantic_segmentation": "image-segmentation",
    "depth_estimation": "depth-estimation",
    "dense_regression": "image-to-image",
}
# Names of metrics on the Hub, where they differ from those here.
HUB_METRICS = {
    "weighted_f1": "f1",
    "matthews": "matthews_correlation",
    "spearman": "spearmanr",
    "token_accuracy": "accuracy",
}
EVALUATION = "Evaluation"  # section with the results of a probe
ONLY_ONLINE = "Its frozen features were measured only by the online probe above; fine-tuning was not measured."
UNMEASURED = "Its features were not measured: no probe ran during pre-training."
DIGITS = 4  # digits of a score between 0 and 1
PROBES = {"linear": "a linear probe", "knn": "kNN"}


def pipeline_of(kind: str, task: str) -> str | None:
    """The Hub's name of a task on a kind of data; None where it has none."""
    if task in TASK_PIPELINES:
        return TASK_PIPELINES[task]
    classification, regression = find_kind(kind).pipelines
    return regression if task == "regression" else classification


def source_name(data: DataArguments) -> str:
    """The data set's name in titles; of several, those of all."""
    if parts := data.sections():
        *names, last = (source_name(part) for part in parts.values())
        return f"{', '.join(names)} and {last}"
    if data.builtin is not None:
        return data.builtin.title
    if is_hub_name(data.source):
        return data.source
    return f"local {data.kind.removeprefix('masked_').replace('_', ' ')} data"


def split_title(data: DataArguments, split: str) -> str:
    """The data set's own name of "validation" or "test", or how it was cut."""
    if data.split != "given":
        share = data.split_fractions[1 if split == "validation" else 2]
        return f"{share:.0%} of {data.train_split} ({split})"
    if split == "validation" and data.validation_fraction:
        return f"{data.validation_fraction:.0%} of {data.train_split} ({split})"
    return (data.validation_split if split == "validation" else data.test_split) or split


def finetuned_results(data: DataArguments, results: JsonView) -> list[EvalResult]:
    """The scores of results.json on the test split, or on validation where there is none: means over the seeds."""
    split = "test" if "test" in results["scores"] else "validation"
    count = len([run for run in results["runs"] if run["learning_rate"] == results["learning_rate"]])
    task = results["task"]
    return [
        _result(
            data, task, split, metric, score["mean"], f"{metric}, {_over_seeds(score['half_width'], metric, count)}"
        )
        for metric, score in results["scores"][split].items()
    ]


def online_results(recipe: PretrainingRecipe, state: RunState) -> list[EvalResult]:
    """The last scores of the online probe, those of the model that the card is of."""
    found = [entry for entry in state.history if any(name.startswith("probe/") for name in entry)]
    if not found or found[-1]["step"] != state.step:
        return []
    data = recipe.data
    has_validation = data.validation_split is not None or data.validation_fraction > 0
    if data.split != "given":
        has_validation = data.split_fractions[1] > 0
    split = "validation" if has_validation else "test"
    results = []
    for name, score in found[-1].items():
        probe, _, metric = name.removeprefix("probe/").partition("_")
        if name.startswith("probe/") and probe in PROBES:
            how = f"{metric} of {PROBES[probe]} on frozen features, at most {recipe.probe.max_samples:,} rows, 1 run"
            results.append(_result(data, str(data.task), split, metric, score, how))
    return results


def probe_results(report: JsonView, position: int = 0) -> list[EvalResult]:
    """The scores of a model in a result.json of `hf-maskssl probe`, which may have a `title` for the data set."""
    data, measured = data_arguments(**report["data"]), report["results"][position]
    results, metric = [], measured["metric"]
    for probe, name in PROBES.items():
        scores = [run[metric] for run in measured[probe]]
        if scores:
            mean, half_width = mean_interval(scores)
            how = f"{metric} of {name} on frozen features{few_labels(report)}, {_over_seeds(half_width, metric, len(scores))}"
            results.append(
                _result(data, measured["task"], measured["test_split"], metric, mean, how, report.get("title"))
            )
    return results


def with_evaluation(card: str, *reports: JsonView, position: int = 0) -> str:
    """The card with the results of probes of its model, in place of those that it may have.

    Args:
        card: Text of README.md.
        reports: Contents of result.json of `hf-maskssl probe`, one for each data set; `title` names it.
        position: Number of the model in these reports.

    Raises:
        ValueError: A report is not one of a probe.
    """
    for report in reports:
        if not {"data", "results", "table", "notes", "probe"} <= report.keys():
            raise ValueError(
                f"results: expected the result.json of `hf-maskssl probe`, got a file with {sorted(report)[:8]}"
            )
    texts = [_evaluation_text(report, report["results"][position], len(reports) > 1) for report in reports]
    section = "\n\n".join([f"## {EVALUATION}", *texts])
    header = header_of(card)
    header.model_name = header.model_name or PLACEHOLDER
    header.eval_results = [result for report in reports for result in probe_results(report, position)]
    head, marker, rest = _without_section(card.partition("\n---\n")[2], EVALUATION).partition("\n## Recipe\n")
    text = f"{head.rstrip()}\n\n{section}\n{marker}{rest}"
    for sentence in (ONLY_ONLINE, UNMEASURED):
        text = text.replace(sentence, "Its frozen features were measured as above; fine-tuning was not measured.")
    return f"---\n{header.to_yaml()}\n---\n{text}"


def few_labels(report: JsonView) -> str:
    """ ", 5 labels per class" behind the name of a data set of which a probe has seen so few; else nothing."""
    few = report["probe"].get("labels_per_class")
    return f", {few} labels per class" if few else ""


def eval_files(card: str) -> dict[str, str]:
    """The header's results on data sets of the Hub, as content of `.eval_results/` by path.

    The Hub shows them on the page of the model, and on that of the data set where it is a benchmark.
    """
    data = header_of(card)
    on_hub = [data.datasets] if isinstance(data.datasets, str) else data.datasets or []
    files = {}
    for name in on_hub:
        entries = [
            EvalResultEntry(
                dataset_id=name,
                task_id=result.dataset_config or "default",
                value=result.metric_value,
                dataset_revision=result.dataset_revision,
                notes=f"{result.metric_name}; split {result.dataset_split}",
            )
            for result in data.eval_results or []
            if result.dataset_type == name
        ]
        if entries:
            content = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
            files[f".eval_results/{Path(name).name}.yaml"] = content
    return files


def _result(
    data: DataArguments, task: str, split: str, metric: str, value: float, how: str, title: str | None = None
) -> EvalResult:
    is_error = metric in LOWER_IS_BETTER
    return EvalResult(
        task_type=pipeline_of(data.kind, task) or "feature-extraction",
        # Not a path of this machine.
        dataset_type=checkpoint_name(data.source) if title is None else re.sub(r"[^a-z0-9]+", "-", title.lower()),
        dataset_name=title or source_name(data),
        dataset_config=data.config_name,
        dataset_split=split_title(data, split),
        dataset_revision=data.revision,
        metric_type=HUB_METRICS.get(metric, metric),
        metric_value=value if is_error else round(value, DIGITS),
        metric_name=how,
    )


def _over_seeds(half_width: float | None, metric: str, count: int) -> str:
    if half_width is None:
        return f"{count} run{'s' * (count != 1)}"
    width = f"{half_width:.{DIGITS}f}" if metric not in LOWER_IS_BETTER else f"{half_width:.3g}"
    return f"mean of {count} seeds, ± {width} (95 % t interval)"


def _evaluation_text(report: JsonView, measured: JsonView, is_one_of_several: bool) -> str:
    data = data_arguments(**report["data"])
    rows, split = measured["rows"], measured["test_split"]
    title = report.get("title") or source_name(data)
    how = few_labels(report).removeprefix(", ") or "all labels"
    parts = [f"### {title}{few_labels(report)}"] if is_one_of_several else []
    parts.append(
        f"Probes of the frozen encoder on {title}, with {how}: fitted to {rows['train']:,} rows, scored on {rows[split]:,} "
        f"of {split_title(data, split)}, beside baselines."
    )
    parts.append(_plain_table(report["table"]["rows"], report["table"]["columns"], measured["model"]))
    compared = report.get("tables", {}).get("differences")
    if compared and compared["rows"]:
        parts.append(_plain_table(compared["rows"], compared["columns"], measured["model"]))
    return "\n\n".join([*parts, *report["notes"]])


def _plain_table(rows: Sequence[Sequence[object]], columns: Sequence[str], model: str) -> str:
    """A table in which the model goes by "this model", not by a path of the machine that measured it."""
    short = Path(model).name
    named = []
    for name, *cells in rows:
        words = str(name).replace(model, "this model")
        named.append([f"this model{words[len(short) :]}" if words.startswith(f"{short} ") else words, *cells])
    return markdown_table(named, columns)


def _without_section(text: str, title: str) -> str:
    head, marker, rest = text.partition(f"\n## {title}\n")
    if not marker:
        return text
    following = rest.find("\n## ")
    return head.rstrip() + "\n" if following < 0 else head.rstrip() + "\n" + rest[following:]
