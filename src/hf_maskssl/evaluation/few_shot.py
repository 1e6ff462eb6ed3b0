"""Few-shot curves: the scores of probes by the number of labelled rows of each class, over several draws of these."""

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from transformers import AutoModel, PreTrainedConfig

from ..checkpoint_folders import checkpoint_folder
from ..data.arguments import DataArguments
from ..data.preparation import PreparedData, prepare_data
from ..data.processors import load_processor
from ..files import write_json, write_whole
from .arguments import ProbeArguments
from .baselines import RawInputs, held_out, probed_splits, raw_inputs_probe, read_raw_inputs, untrained_encoder
from .evaluate_checkpoint import PROBES, RAW_INPUTS, UNTRAINED, Arm, features_of_splits, probe_features
from .features import Features
from .former_results import described
from .probe import refuse_few
from .reports import markdown_table, text_table
from .statistics import mean_interval

DRAWS = [0, 1, 2, 3, 4]  # seeds, where the recipe names one: an interval needs several
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8AD1C")
GREYS = ("#000000", "#8A8A8A")


@dataclass(frozen=True)
class Curve:
    """The probes of one encoder, or of a baseline.

    Attributes:
        name: Name in tables and pictures.
        arms: Number of labelled rows of each class -> probes; None stands for all rows.
    """

    name: str
    arms: dict[int | None, Arm]

    def scores(self, probe: str, metric: str) -> dict[int | None, list[float]]:
        """Number of labelled rows -> scores of "linear" or "knn", in percent; empty where there is no such probe."""
        found = {count: [100 * run.scores[metric] for run in arm.runs(probe)] for count, arm in self.arms.items()}
        return {count: scores for count, scores in found.items() if scores}


def few_shot_curves(
    models: Sequence[str],
    data_args: DataArguments,
    args: ProbeArguments,
    counts: Sequence[int | None],
    *,
    device: str | torch.device = "cpu",
) -> list[Curve]:
    """Probes of encoders, and of their baselines, on few labels; every encoder reads the data once.

    Args:
        models: Checkpoint folders or Hub names.
        data_args: The data to probe on; classes are their labels.
        args: The probe's settings; its seeds draw the rows.
        counts: Numbers of labelled rows of each class; None means all.
        device: Device of encoders and probes.

    Returns:
        A curve for each model; and where `args.baselines` asks for them those of the untrained encoder and of the raw inputs
        of the first one.

    Raises:
        ValueError: Labels that are no classes, a class with fewer rows than asked for, or what `measure_checkpoint` refuses.
    """
    refuse_few(data_args.task, "--labels_per_class")
    curves: list[Curve] = []
    baselines: list[Curve] = []
    for model in models:
        folder = checkpoint_folder(model)
        encoder = AutoModel.from_pretrained(folder, trust_remote_code=False).to(device)
        prepared = prepare_data(data_args, encoder.config, load_processor(folder), require_labels=True)
        features = features_of_splits(encoder, prepared, data_args.task, args, device, None)
        curves.append(_curve(model, features, data_args.task, args, counts, device))
        config = encoder.config
        del encoder
        if args.baselines and not baselines:
            baselines = _baselines(config, prepared, data_args.task, args, counts, device)
    return [*curves, *baselines]


def _curve(
    name: str,
    features: dict[str, Features],
    task: str,
    args: ProbeArguments,
    counts: Sequence[int | None],
    device: str | torch.device,
) -> Curve:
    return Curve(
        name,
        {
            count: probe_features(name, features, task, dataclasses.replace(args, labels_per_class=count), device)
            for count in counts
        },
    )


def _baselines(
    config: PreTrainedConfig,
    prepared: PreparedData,
    task: str,
    args: ProbeArguments,
    counts: Sequence[int | None],
    device: str | torch.device,
) -> list[Curve]:
    """The untrained encoder, and a linear model on the raw inputs."""
    encoder: torch.nn.Module = untrained_encoder(config, args.seeds[0])
    encoder.to(device)
    features = features_of_splits(encoder, prepared, task, args, device, None)
    untrained = _curve(UNTRAINED, features, task, args, counts, device)
    inputs = {name: read_raw_inputs(split, prepared, task) for name, split in probed_splits(prepared).items()}
    raw = {count: _raw(inputs, task, dataclasses.replace(args, labels_per_class=count)) for count in counts}
    return [untrained, Curve(RAW_INPUTS, raw)]


def _raw(inputs: dict[str, RawInputs], task: str, args: ProbeArguments) -> Arm:
    test, validation = held_out(inputs)
    seeds = args.seeds if args.labels_per_class is not None else args.seeds[:1]
    runs = [raw_inputs_probe(inputs["train"], test, task, args, seed, validation=validation)[0] for seed in seeds]
    return Arm(RAW_INPUTS, runs, [], {"linear": seeds, "knn": []})


def few_shot_table(curves: Sequence[Curve], probe: str, metric: str) -> dict[str, Any]:
    """{"columns", "rows"} of a probe: a row for each curve, a column for each number of labels."""
    counts = list(curves[0].arms)
    rows = []
    for curve in curves:
        scores = curve.scores(probe, metric)
        if scores:
            rows.append([curve.name, *(_mean(scores[count]) for count in counts)])
    names = ["all" if count is None else str(count) for count in counts]
    return {"columns": [PROBES[probe], *names], "rows": rows}


def _mean(scores: Sequence[float]) -> dict[str, float | None]:
    mean, half_width = mean_interval(list(scores))
    return {"mean": mean, "half_width": half_width}


def draw_few_shot(curves: Sequence[Curve], metric: str, split: str, path: Path) -> Path:
    """Draw the curves, a panel for each probe: means over draws, and bands of their 95 % intervals."""
    figure = Figure(figsize=(9.6, 4.2), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    counts = list(curves[0].arms)
    # Numbers of labels lie evenly: each is several times the one before, and "all" has no number.
    places = {count: place for place, count in enumerate(counts)}
    names = _short_names(curves)
    colors = _colors(curves)
    panels = figure.subplots(1, len(PROBES), sharey=True)
    for axes, (probe, title) in zip(panels, PROBES.items(), strict=True):
        for curve, name, color in zip(curves, names, colors, strict=True):
            means = {count: _mean(scores) for count, scores in curve.scores(probe, metric).items()}
            if not means:
                continue
            x = [places[count] for count in means]
            y = [mean["mean"] or 0.0 for mean in means.values()]
            width = [mean["half_width"] or 0.0 for mean in means.values()]
            style = "--" if curve.name in (UNTRAINED, RAW_INPUTS) else "-"
            axes.plot(x, y, style, marker="o", ms=4, color=color, label=name)
            low = [value - half for value, half in zip(y, width, strict=True)]
            high = [value + half for value, half in zip(y, width, strict=True)]
            axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(counts)), ["all" if count is None else f"{count:,}" for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("labelled rows of each class")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"{metric.replace('_', ' ')} on the {split} split (%)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8
    )
    write_whole(path, lambda aside: figure.savefig(aside, format=path.suffix[1:], metadata={"Software": None}))
    return path


def _short_names(curves: Sequence[Curve]) -> list[str]:
    """Models by the last part of their paths where that tells them apart."""
    short = [curve.name if curve.name in (UNTRAINED, RAW_INPUTS) else Path(curve.name).name for curve in curves]
    names = short if len(set(short)) == len(short) else [curve.name for curve in curves]
    return [name[-34:] for name in names]


def _colors(curves: Sequence[Curve]) -> list[str]:
    models, others = iter(COLORS * len(curves)), iter(GREYS)
    return [next(others) if curve.name in (UNTRAINED, RAW_INPUTS) else next(models) for curve in curves]


def with_draws(args: ProbeArguments) -> ProbeArguments:
    """Settings with several seeds, those that are named or five: an interval over one draw is none."""
    if len(args.seeds) > 1:
        return args
    return dataclasses.replace(args, seeds=[args.seeds[0] + draw for draw in DRAWS])


def draw_and_report(
    models: Sequence[str],
    data_args: DataArguments,
    args: ProbeArguments,
    options: argparse.Namespace,
    recipe_path: str,
) -> None:
    """Measure few-shot curves, and write and print them: few_shot.json, few_shot.md, few_shot.png.

    Args:
        models: Checkpoint folders or Hub names.
        data_args, args: Sections of the recipe. One seed alone becomes five draws.
        options: `labels_per_class`, `output` and `device`.
        recipe_path: Recipe, for the result.
    """
    args = with_draws(args)
    counts: list[int | None] = options.labels_per_class
    metric = args.headline_metric(data_args.task)
    curves = few_shot_curves(models, data_args, args, counts, device=options.device)
    split = "test" if data_args.test_split or data_args.split != "given" else "validation"
    tables = {probe: few_shot_table(curves, probe, metric) for probe in PROBES}
    note = (
        f"{metric} (%) on the {split} split by the number of labelled rows of each class: means over {len(args.seeds)} "
        "draws with 95 % intervals of Student's t. All rows are drawn once."
    )
    blocks = [markdown_table(table["rows"], table["columns"]) for table in tables.values()]
    output: Path = options.output
    text = "\n\n".join([note, *blocks]) + "\n"
    write_whole(output / "few_shot.md", lambda path: path.write_text(text, encoding="utf-8"))
    draw_few_shot(curves, metric, split, output / "few_shot.png")
    write_json(
        output / "few_shot.json",
        {
            "recipe": recipe_path,
            **described(models, data_args, probe=args, counts=counts),
            "metric": metric,
            "split": split,
            "curves": [
                {
                    "name": curve.name,
                    **{probe: list(curve.scores(probe, metric).values()) for probe in PROBES},
                }
                for curve in curves
            ],
            "tables": tables,
        },
    )
    print(textwrap.fill(note, 80))
    for table in tables.values():
        print("\n" + text_table(table["rows"], table["columns"], 80))
    print(f"\nWritten to {output}: few_shot.json, few_shot.md, few_shot.png")
