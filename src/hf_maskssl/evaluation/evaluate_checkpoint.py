"""Measure saved encoders by probes on their frozen features: JSON, a Markdown table and a plot."""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import AutoModel

from ..data.arguments import DataArguments
from ..data.preparation import PreparedData, prepare_data
from ..data.preparer import plain_rows
from ..data.processors import load_processor
from ..data.recipe import load_recipe
from .arguments import ProbeArguments
from .features import Features, extract_features, level_of_task
from .probe import knn_probe, linear_probe
from .reports import markdown_table, writable_folder, write_json
from .statistics import mean_interval, rankme

PROBES = {"linear": "linear probe", "knn": "kNN"}
PROBE_COLORS = {"linear": "#0072B2", "knn": "#D55E00"}  # Okabe and Ito's palette

logger = logging.getLogger(__name__)


def evaluate_checkpoint(
    model: str,
    data_args: DataArguments,
    probe_args: ProbeArguments,
    *,
    device: str | torch.device = "cpu",
    features_dir: Path | None = None,
) -> dict[str, Any]:
    """Probe one saved encoder: every split once through the encoder, then linear and kNN probes over the seeds.

    The probes are fitted to the training split and scored on the test split, or on the validation split where there is
    no test split. A validation split beside a test split chooses the exact solver's penalty.

    Args:
        model: Checkpoint folder or Hub name that `AutoModel.from_pretrained` opens.
        data_args: The data to probe on. Its processor is the checkpoint's.
        probe_args: The probe's settings.
        device: Where encoder and probes run.
        features_dir: Keep features here, as `<split>.npy` and `<split>.labels.npy`.

    Returns:
        {"model", "task", "metric", "test_split", "rows": {split: feature rows}, "rankme": of the test features,
        "linear": [{"seed", metric: score, ...}, ...], "knn": the same}. A probe that no seed would change, such as the
        exact solver with all labels, is run with the first seed alone: an interval over copies would be a lie.

    Raises:
        ValueError: No label column, no held-out split, or data that does not fit the model.
    """
    probe_args.headline_metric(data_args.task)  # a metric of another task is refused before anything is loaded
    folder = checkpoint_folder(model)
    encoder = AutoModel.from_pretrained(folder).to(device)
    prepared = prepare_data(data_args, encoder.config, load_processor(folder), require_labels=True)
    task = data_args.task
    features = _features_of_splits(encoder, prepared, task, probe_args, device, features_dir)
    test_split = "test" if "test" in features else "validation"
    train, test = features["train"], features[test_split]
    validation = features.get("validation") if test_split == "test" else None
    few_labels = probe_args.labels_per_class is not None
    linear = [
        {"seed": seed, **linear_probe(train, test, task, probe_args, seed, validation=validation, device=device)}
        for seed in (probe_args.seeds if few_labels or probe_args.solver == "adam" else probe_args.seeds[:1])
    ]
    is_thinned = few_labels or len(train) > probe_args.knn_max_samples
    knn = [
        {"seed": seed, **knn_probe(train, test, task, probe_args, seed)}
        for seed in (probe_args.seeds if is_thinned else probe_args.seeds[:1])
    ]
    logger.info("%s: linear probe %s, kNN %s", model, linear, knn)
    return {
        "model": model,
        "task": task,
        "metric": probe_args.headline_metric(task),
        "test_split": test_split,
        "rows": {name: len(split) for name, split in features.items()},
        "rankme": rankme(test.values),
        "linear": linear,
        "knn": knn,
    }


def checkpoint_folder(model: str) -> Path:
    """The folder of a checkpoint: `model` itself, or where the Hub's repository of that name was downloaded to.

    Raises:
        FileNotFoundError: There is neither.
    """
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(
            f"MODEL {model!r}: expected a checkpoint folder or the name of a Hub repository; "
            f"there is no such folder, and the Hub says: {error}"
        ) from error


def _features_of_splits(
    encoder: torch.nn.Module,
    prepared: PreparedData,
    task: str,
    args: ProbeArguments,
    device: str | torch.device,
    features_dir: Path | None,
) -> dict[str, Features]:
    # Nothing drawn at random: the probe is scored on rows that are seen whole.
    splits = {"train": plain_rows(prepared.train), "validation": prepared.validation, "test": prepared.test}
    if splits["validation"] is None and splits["test"] is None:
        raise ValueError(
            "data.test_split: a probe needs rows it was not fitted to; "
            "set data.test_split, data.validation_split or data.validation_fraction"
        )
    return {
        name: extract_features(
            encoder,
            split,
            prepared.collator,
            batch_size=args.batch_size,
            level=level_of_task(task),
            device=device,
            output=None if features_dir is None else features_dir / f"{name}.npy",
        )
        for name, split in splits.items()
        if split is not None
    }


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The table of several checkpoints' results, in percent: the mean over seeds with its 95 % interval.

    With several checkpoints a last row gives the mean over them, each with the mean of its seeds as one value.

    Args:
        results: What `evaluate_checkpoint` returned; all with the same metric.

    Returns:
        {"columns", "rows"} as `reports` draws tables.
    """
    metric = results[0]["metric"]
    columns = ["model", *(f"{title}, {metric} (%)" for title in PROBES.values()), "RankMe", "runs"]
    rows = []
    for result in results:
        scores = [_percent(_scores_of(result, probe)) for probe in PROBES]
        rows.append([result["model"], *scores, result["rankme"], len(result["linear"])])
    if len(results) > 1:
        over_models = [_percent([float(np.mean(_scores_of(result, probe))) for result in results]) for probe in PROBES]
        rank = float(np.mean([result["rankme"] for result in results]))
        rows.append([f"mean of {len(results)} models", *over_models, rank, len(results)])
    return {"columns": columns, "rows": rows}


def _scores_of(result: dict[str, Any], probe: str) -> list[float]:
    return [run[result["metric"]] for run in result[probe]]


def _percent(scores: Sequence[float]) -> dict[str, float | None]:
    mean, half_width = mean_interval([100 * score for score in scores])
    return {"mean": mean, "half_width": half_width}


def draw_scores(table: dict[str, Any], path: str | Path) -> None:
    """Plot a table of `summarise`: a dot for each model and probe, a bar for its 95 % interval."""
    rows = table["rows"]
    figure = Figure(figsize=(7, 1.6 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for column, (probe, title) in enumerate(PROBES.items(), start=1):
        # The probes of one model are drawn a little apart, so that their bars do not cover each other.
        heights = [position + 0.3 * (column - 1.5) for position in range(len(rows))]
        means = [row[column]["mean"] for row in rows]
        half_widths = [row[column]["half_width"] or 0.0 for row in rows]
        axes.errorbar(means, heights, xerr=half_widths, fmt="o", capsize=3, color=PROBE_COLORS[probe], label=title)
    axes.set_yticks(range(len(rows)), [row[0][-40:] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the table's first row on top
    axes.set_xlabel(table["columns"][1].partition(", ")[2])
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(PROBES), frameon=False)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: `MODEL [MODEL ...] RECIPE.yaml [--any_field value] [--output FOLDER]`."""
    options, models, recipe_path, overrides = parse_arguments(arguments)
    sections = {"data": DataArguments, "probe": ProbeArguments}
    recipe = load_recipe(recipe_path, overrides, sections, primary="probe")
    data_args, probe_args = recipe["data"], recipe["probe"]
    output = writable_folder(options.output, "--output")
    results = []
    for position, model in enumerate(models):
        features_dir = output / "features" / str(position) if options.keep_features else None
        results.append(
            evaluate_checkpoint(model, data_args, probe_args, device=options.device, features_dir=features_dir)
        )
    table = summarise(results)
    markdown = markdown_table(table["rows"], table["columns"])
    settings = {"data": dataclasses.asdict(data_args), "probe": dataclasses.asdict(probe_args)}
    (output / "table.md").write_text(markdown + "\n", encoding="utf-8")
    draw_scores(table, output / "scores.png")
    write_json(output / "result.json", {"recipe": recipe_path, **settings, "results": results, "table": table})
    print(markdown)
    print(f"Written to {output}: result.json, table.md, scores.png")


def parse_arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str], str, list[str]]:
    """The command line as (options, models, recipe, words that override recipe fields)."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s MODEL [MODEL ...] RECIPE.yaml [--any_field value ...] [--output FOLDER]",
        description="Linear and kNN probes on the frozen features of saved encoders. The recipe's sections `data` and "
        "`probe` are used; any of their fields can be overridden, such as --solver exact --seeds '[0, 1, 2]'.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/linear_probe"), help="default: %(default)s")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default here: %(default)s"
    )
    parser.add_argument("--keep_features", action="store_true", help="stream the features to OUTPUT/features")
    options, words = parser.parse_known_args(arguments)
    names = list(takewhile(lambda word: not word.startswith("--"), words))
    if len(names) < 2 or Path(names[-1]).suffix not in (".yaml", ".yml"):
        parser.error(f"expected at least one MODEL and then a RECIPE.yaml before any --field, got {names}")
    return options, names[:-1], names[-1], words[len(names) :]
