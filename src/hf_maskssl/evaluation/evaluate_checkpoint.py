"""Measure saved encoders by probes on their frozen features, beside baselines: JSON, tables and a plot."""

import argparse
import dataclasses
import json
import logging
import textwrap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import PreTrainedConfig

from ..checkpoint_folders import checkpoint_folder
from ..checks import shown
from ..data.arguments import DataArguments
from ..data.preparation import PreparedData, prepare_data
from ..data.processors import load_processor, split_processor
from ..data.tables.windows import pooled_owners
from ..data.text.texts import describe_tokenizer
from ..files import JsonObject, write_json, write_whole
from ..locks import FolderLock
from ..recipes import load_recipe
from ..scripts import OneLineErrors
from ..terminal import one_voice
from .arguments import ProbeArguments
from .baselines import (
    held_out,
    majority,
    majority_title,
    probed_splits,
    raw_inputs_probe,
    read_raw_inputs,
    tokens_of_samples,
    untrained_encoder,
)
from .features import Features, extract_features, level_of_task, load_encoder, pooled_windows, save_features
from .former_results import described, folder_of_results, refuse_other_results
from .metrics import formula_of, score_columns, tasks_left_out
from .probe import ProbeRun, run_knn_probe, run_linear_probe
from .reports import markdown_table, text_table
from .statistics import bootstrap_interval, interval_of, paired_accuracy_interval, paired_interval, rankme

OUTPUT = Path("outputs/linear_probe")
PROBES = {"linear": "linear probe", "knn": "kNN"}
PROBE_COLORS = {"linear": "#0072B2", "knn": "#D55E00"}  # Okabe and Ito's palette
UNTRAINED, RAW_INPUTS = "untrained encoder", "raw inputs"
OVER_SEEDS, OVER_ROWS, OVER_SAMPLES = (
    "over seeds (Student's t of the paired differences)",
    "over test rows (adjusted Wald, Bonett and Price 2012)",
    "over test samples (paired bootstrap, percentiles)",
)
# Fields of a configuration that say where it came from, not what it is.
PROVENANCE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "auto_map")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """An encoder, or a baseline, that is measured on the test rows.

    Attributes:
        name: Name in tables.
        linear: Linear probes, one a seed; for baselines without an encoder, the baseline itself.
        knn: Nearest-neighbour probes, one a seed; empty where there is none.
        seeds: Seeds of the probes.
        rankme: RankMe of the test features; None without features.
    """

    name: str
    linear: list[ProbeRun]
    knn: list[ProbeRun]
    seeds: dict[str, list[int]]
    rankme: float | None = None

    def runs(self, probe: str) -> list[ProbeRun]:
        """The probes called `probe`, "linear" or "knn"."""
        return {"linear": self.linear, "knn": self.knn}[probe]

    def scores(self, probe: str) -> list[dict[str, Any]]:
        """{"seed", metric: score, ..., "converged"} of each run of "linear" or "knn", for JSON."""
        runs = zip(self.seeds[probe], self.runs(probe), strict=True)
        return [{"seed": seed, **run.scores, "converged": run.converged} for seed, run in runs]


@dataclass(frozen=True)
class Measurement:
    """A checkpoint and its baselines, measured on the test rows.

    Attributes:
        result: Result of `evaluate_checkpoint`.
        arm: Probes of the checkpoint.
        baselines: Baselines that it is compared with; empty where they are switched off.
        labels: True classes or values (m,) of the test rows, or (m, columns) with gaps.
        tokens_of_samples: (samples,) labelled tokens of each test sample; None where each row is a sample.
    """

    result: dict[str, Any]
    arm: Arm
    baselines: list[Arm]
    labels: np.ndarray
    tokens_of_samples: np.ndarray | None


def evaluate_checkpoint(
    model: str,
    data_args: DataArguments,
    probe_args: ProbeArguments,
    *,
    device: str | torch.device = "cpu",
    features_dir: Path | None = None,
) -> dict[str, Any]:
    """The result of `measure_checkpoint`, whose arguments it takes.

    Returns:
        {"model", "task", "metric", "test_split", "rows": {split: feature rows}, "rankme": of the test features,
        "linear": [{"seed", metric: score, ..., "converged"}, ...], "knn": the same, "baselines": {"untrained": {"what",
        "linear", "knn", "rankme"}, "raw_inputs": {"what", "linear"}, "majority": {"what", "linear"}}, which is empty where
        `probe_args.baselines` is false, "data": what is left of the data and what was left out (`DataReport`)}, and of several
        tasks "tasks_left_out", those without test rows of both classes, which no ROC-AUC scores. A probe that
        no seed would change, such as the exact solver with all labels, is run with the first seed alone: an interval over
        copies would be a lie.
    """
    return measure_checkpoint(model, data_args, probe_args, device=device, features_dir=features_dir).result


def measure_checkpoint(
    model: str,
    data_args: DataArguments,
    probe_args: ProbeArguments,
    *,
    device: str | torch.device = "cpu",
    features_dir: Path | None = None,
    known_baselines: MutableMapping[str, list[Arm]] | None = None,
) -> Measurement:
    """Probe one saved encoder and its baselines: every split goes through the encoder once, then linear and kNN probes
    run over the seeds.

    The probes are fitted to the training split and scored on the test split, or on the validation split where there is
    no test split. A validation split beside a test split chooses the exact solver's penalty.

    Args:
        model: Checkpoint folder or Hub name that `AutoModel.from_pretrained` opens.
        data_args: The data to probe on. Its processor is the checkpoint's.
        probe_args: The probe's settings.
        device: Device of encoder and probes.
        features_dir: Folder for the encoder's features, `<split>.npy` and `<split>.labels.npy`.
        known_baselines: Baselines of other checkpoints on the same data with the same settings: those of the same
            configuration and processor are reused, and new ones are added.

    Raises:
        ValueError: No label column, no held-out split, or data that does not fit the model.
    """
    probe_args.headline_metric(data_args.task)  # a metric of another task is refused before anything is loaded
    folder = checkpoint_folder(model)
    encoder = load_encoder(folder, device)
    prepared = prepare_data(data_args, encoder.config, load_processor(folder), require_labels=True)
    task = data_args.task
    features = features_of_splits(encoder, prepared, task, probe_args, device, features_dir)
    arm = probe_features(model, features, task, probe_args, device)
    metric = probe_args.headline_metric(task)
    said = [float(np.mean([run.scores[metric] for run in arm.runs(probe)])) for probe in PROBES]
    logger.info("%s: %s %.4f by the linear probe, %.4f by kNN", model, metric, *said)
    config = encoder.config
    del encoder
    test, _ = held_out(features)
    baselines: list[Arm] = []
    if probe_args.baselines:
        known = {} if known_baselines is None else known_baselines
        key = _baseline_key(config, prepared)
        if key not in known:
            known[key] = _measure_baselines(config, prepared, task, probe_args, device)
        baselines = known[key]
    result = _result(model, task, metric, arm, features, baselines) | {"data": prepared.report.to_json()}
    if task == "multi_label_classification":
        result["tasks_left_out"] = tasks_left_out(test.required_labels(), prepared.label_names or [])
    counts = None
    if level_of_task(task) == "token":
        counts = tokens_of_samples(held_out(probed_splits(prepared))[0], prepared)
    return Measurement(result, arm, baselines, test.required_labels(), counts)


def _result(
    model: str, task: str, metric: str, arm: Arm, features: Mapping[str, Features], baselines: Sequence[Arm]
) -> JsonObject:
    """The report of one encoder: its scores and those of its baselines."""
    return {
        "model": model,
        "task": task,
        "metric": metric,
        "test_split": "test" if "test" in features else "validation",
        "rows": {name: len(split) for name, split in features.items()},
        "rankme": arm.rankme,
        "linear": arm.scores("linear"),
        "knn": arm.scores("knn"),
        "baselines": {
            name: {
                "what": baseline.name,
                "linear": baseline.scores("linear"),
                **({"knn": baseline.scores("knn"), "rankme": baseline.rankme} if baseline.rankme is not None else {}),
            }
            for name, baseline in zip(("untrained", "raw_inputs", "majority"), baselines, strict=False)
        },
    }


def probe_features(
    name: str, features: dict[str, Features], task: str, args: ProbeArguments, device: str | torch.device
) -> Arm:
    """Linear and kNN probes of an encoder's features."""
    test, validation = held_out(features)
    train = features["train"]
    few_labels = args.labels_per_class is not None
    seeds = {
        "linear": args.seeds if few_labels or args.linear_solver == "adam" else args.seeds[:1],
        "knn": args.seeds if few_labels or len(train) > args.knn_max_samples else args.seeds[:1],
    }
    linear = [
        run_linear_probe(train, test, task, args, seed, validation=validation, device=device)
        for seed in seeds["linear"]
    ]
    knn = [run_knn_probe(train, test, task, args, seed) for seed in seeds["knn"]]
    return Arm(name, linear, knn, seeds, rankme(test.values))


def _measure_baselines(
    config: PreTrainedConfig, prepared: PreparedData, task: str, args: ProbeArguments, device: str | torch.device
) -> list[Arm]:
    """The untrained encoder, a linear model on the raw inputs, and the most frequent class or the mean."""
    seed = args.seeds[0]
    encoder: torch.nn.Module = untrained_encoder(config, seed)
    encoder.to(device)
    untrained = probe_features(
        f"{UNTRAINED} (seed {seed})",
        features_of_splits(encoder, prepared, task, args, device, None),
        task,
        args,
        device,
    )
    del encoder
    inputs = {name: read_raw_inputs(split, prepared, task) for name, split in probed_splits(prepared).items()}
    test, validation = held_out(inputs)
    seeds = args.seeds if args.labels_per_class is not None else args.seeds[:1]
    runs = [raw_inputs_probe(inputs["train"], test, task, args, each, validation=validation) for each in seeds]
    raw = Arm(f"{RAW_INPUTS}: {runs[0][1]}", [run for run, _ in runs], [], {"linear": seeds, "knn": []})
    constant = majority(inputs["train"].labels, test.labels, task)
    return [untrained, raw, Arm(majority_title(task), [constant], [], {"linear": args.seeds[:1], "knn": []})]


def _baseline_key(config: PreTrainedConfig, prepared: PreparedData) -> str:
    """A text that is equal for two checkpoints on the same data when their baselines are."""
    fields = {name: value for name, value in config.to_dict().items() if name not in PROVENANCE}
    numeric, tokenizer = split_processor(prepared.processor)
    processor = [None if numeric is None else numeric.to_json_string(), describe_tokenizer(tokenizer)]
    return json.dumps([fields, processor], sort_keys=True, default=str)


def features_of_splits(
    encoder: torch.nn.Module,
    prepared: PreparedData,
    task: str,
    args: ProbeArguments,
    device: str | torch.device,
    features_dir: Path | None,
) -> dict[str, Features]:
    """Split -> an encoder's features of it; kept in `features_dir` where there is one."""
    found = {}
    for name, split in probed_splits(prepared).items():
        output = None if features_dir is None else features_dir / f"{name}.npy"
        is_pooled = pooled_owners(split) is not None
        features = extract_features(
            encoder,
            split,
            prepared.collator,
            batch_size=args.batch_size,
            level=level_of_task(task),
            device=device,
            output=None if is_pooled else output,
        )
        found[name] = pooled_windows(features, split)
        if is_pooled and output is not None:
            save_features(found[name], output)
    return found


def summarise(measured: Sequence[Measurement]) -> dict[str, Any]:
    """The table of several checkpoints and their baselines, in percent: the mean over seeds with its 95 % interval.

    Args:
        measured: All with the same metric.

    Returns:
        {"columns", "rows"} as `reports` draws tables.
    """
    metric = measured[0].result["metric"]
    columns = ["model", *(f"{title}, {metric} (%)" for title in PROBES.values()), "RankMe", "runs"]
    rows = []
    for arm in [*(one.arm for one in measured), *_baseline_arms(measured)]:
        scores = [interval_of([run.scores[metric] for run in arm.runs(probe)], 100) for probe in PROBES]
        rows.append([arm.name, *scores, arm.rankme, len(arm.linear)])
    return {"columns": columns, "rows": rows}


def _baseline_arms(measured: Sequence[Measurement]) -> list[Arm]:
    """Each baseline once; one that not all checkpoints share is named after its checkpoint."""
    chosen: list[Arm] = []
    for position in range(max(len(one.baselines) for one in measured)):
        owners: list[tuple[Measurement, Arm]] = []
        for one in measured:
            if not any(_same_scores(one.baselines[position], other) for _, other in owners):
                owners.append((one, one.baselines[position]))
        for one, arm in owners:
            name = arm.name if len(owners) == 1 else f"{arm.name}, as {one.arm.name}"
            chosen.append(dataclasses.replace(arm, name=name))
    return chosen


def _same_scores(first: Arm, second: Arm) -> bool:
    return all(first.scores(probe) == second.scores(probe) for probe in PROBES)


def compare(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Paired differences, with 95 % intervals: every further checkpoint against the first one, and each checkpoint
    against its untrained encoder and the raw inputs.

    Args:
        measured: All with the same metric and test data.

    Returns:
        For each pair {"first", "second", "linear": ..., "knn": ...}; a probe is {"difference", "low", "high", "over"},
        second minus first in percentage points, or None where one of the two has no such probe. Several runs each are
        paired by seed (`paired_interval`), single ones by the rows they were scored on (`paired_accuracy_interval`;
        other metrics, and tokens, which depend on their neighbours: `bootstrap_interval` over samples). "low" and "high"
        are None where the test rows are not the same, as when models cut tokens at different lengths.
    """
    pairs = [(measured[0], measured[0].arm, other, other.arm) for other in measured[1:]]
    for one in measured:
        pairs += [(one, baseline, one, one.arm) for baseline in one.baselines[:2]]
    return [
        {
            "first": first.name,
            "second": second.name,
            **{probe: _difference(one, first, other, second, probe) for probe in PROBES},
        }
        for one, first, other, second in pairs
    ]


def _difference(one: Measurement, first: Arm, other: Measurement, second: Arm, probe: str) -> dict[str, Any] | None:
    metric = one.result["metric"]
    runs = first.runs(probe), second.runs(probe)
    if not runs[0] or not runs[1]:
        return None
    scores = [[100 * run.scores[metric] for run in each] for each in runs]
    if len(runs[0]) > 1 and first.seeds[probe] == second.seeds[probe]:
        mean, half_width = paired_interval(scores[0], scores[1])
        width = half_width or 0.0
        return {"difference": mean, "low": mean - width, "high": mean + width, "over": OVER_SEEDS}
    if not np.array_equal(one.labels, other.labels, equal_nan=one.labels.dtype.kind == "f") or max(map(len, runs)) > 1:
        mean = float(np.mean(scores[1]) - np.mean(scores[0]))
        return {"difference": mean, "low": None, "high": None, "over": "no pairs: other test rows or seeds"}
    said = [each[0].predictions for each in runs]
    if metric == "accuracy":
        values = paired_accuracy_interval(said[0] == one.labels, said[1] == one.labels)
        over = OVER_ROWS
    else:
        values, over = _bootstrap_difference(metric, one, said), OVER_SAMPLES
    difference, low, high = (100 * value for value in values)
    return {"difference": difference, "low": low, "high": high, "over": over}


def _bootstrap_difference(metric: str, one: Measurement, said: Sequence[np.ndarray]) -> tuple[float, float, float]:
    if metric == "token_accuracy":
        # The difference of correct tokens in each sample, second model minus first, and the number of tokens.
        counts = np.asarray(one.tokens_of_samples)
        counts = counts[counts > 0]
        ends = np.concatenate([[0], counts.cumsum()])
        gains = (said[1] == one.labels).astype(np.float64) - (said[0] == one.labels)
        gained = np.add.reduceat(gains, ends[:-1])
        return bootstrap_interval(lambda drawn: float(gained[drawn].sum() / counts[drawn].sum()), len(counts))
    if one.labels.ndim == 2:

        def column_difference(drawn: np.ndarray) -> float:
            try:
                first, second = (score_columns(each[drawn], one.labels[drawn], [metric])[metric] for each in said)
            except ValueError:  # a draw without both classes, or two labels, of what all rows have
                return float("nan")
            return second - first

        return bootstrap_interval(column_difference, len(one.labels))
    formula = formula_of(metric)

    def difference(drawn: np.ndarray) -> float:
        first, second = (formula(each[drawn], one.labels[drawn])[metric] for each in said)
        return float(second - first)

    return bootstrap_interval(difference, len(one.labels))


def differences_table(differences: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """The result of `compare` as {"columns", "rows"}: texts such as "+1.50 (+0.20 to +2.80)"."""
    columns = ["difference", *(f"{title}, {metric} (points)" for title in PROBES.values())]
    rows = [[_pair_name(pair, differences), *(_signed(pair[probe]) for probe in PROBES)] for pair in differences]
    return {"columns": columns, "rows": rows}


def _pair_name(pair: dict[str, Any], differences: Sequence[dict[str, Any]], minus: str = " − ") -> str:
    """ "second − first": checkpoints by the last part of their paths, or the last two where that is not enough, baselines
    without the descriptions behind their names."""
    models = {pair["second"] for pair in differences} | {pair["first"] for pair in differences}
    models = {name for name in models if not name.startswith((UNTRAINED, RAW_INPUTS))}
    parts = 1 if len({Path(name).name for name in models}) == len(models) else 2

    def short(name: str) -> str:
        kind = next((kind for kind in (UNTRAINED, RAW_INPUTS) if name.startswith(kind)), None)
        return kind or "/".join(Path(name).parts[-parts:])

    return f"{short(pair['second'])}{minus}{short(pair['first'])}"


def _signed(difference: dict[str, Any] | None) -> str | None:
    if difference is None:
        return None
    if difference["low"] is None:
        return f"{difference['difference']:+.2f}"
    return f"{difference['difference']:+.2f} ({difference['low']:+.2f} to {difference['high']:+.2f})"


def notes(measured: Sequence[Measurement], differences: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences that belong below the tables: what the intervals are, and which probes have not converged."""
    lines = []
    if left_out := measured[0].result.get("tasks_left_out"):
        lines.append(
            f"The mean ROC-AUC leaves out {len(left_out)} tasks, which have no test rows of both classes: {shown(left_out)}."
        )
    ways = dict.fromkeys(pair[probe]["over"] for pair in differences for probe in PROBES if pair[probe] is not None)
    if ways:
        lines.append(f"Differences in points, 95 % intervals {'; '.join(ways)}.")
    if OVER_SEEDS not in ways and ways:
        lines.append("They do not say how other pre-training runs would differ: for that, pre-train several seeds.")
    unfinished = [
        arm.name
        for arm in [*(one.arm for one in measured), *_baseline_arms(measured)]
        if not all(run.converged for run in arm.linear)
    ]
    if unfinished:
        lines.append(
            f"Not converged, so its score is too low: linear probe of {', '.join(unfinished)}. "
            "Use --protocol standard, or more epochs or a higher learning rate."
        )
    return lines


def draw_scores(table: dict[str, Any], path: str | Path, differences: Sequence[dict[str, Any]] = ()) -> None:
    """Plot a table of `summarise`, a dot for each row and probe, a bar for its 95 % interval; beside it the paired
    differences of `compare`."""
    rows = table["rows"]
    height = 1.6 + 0.5 * max(len(rows), len(differences))
    figure = Figure(figsize=(14 if differences else 7, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if differences else 1, squeeze=False)[0]
    # The probes of one model are drawn a little apart, so that their bars do not cover each other.
    offsets = {"linear": -0.15, "knn": 0.15}
    for column, (probe, title) in enumerate(PROBES.items(), start=1):
        dots = [(position, row[column]) for position, row in enumerate(rows) if row[column] is not None]
        axes[0].errorbar(
            [score["mean"] for _, score in dots],
            [position + offsets[probe] for position, _ in dots],
            xerr=[score["half_width"] or 0.0 for _, score in dots],
            fmt="o",
            capsize=3,
            color=PROBE_COLORS[probe],
            label=title,
        )
        bars = [(position, pair[probe]) for position, pair in enumerate(differences) if pair[probe] is not None]
        for position, bar in bars:
            place, color = position + offsets[probe], PROBE_COLORS[probe]
            axes[1].plot(bar["difference"], place, "o", color=color)
            if bar["low"] is not None:
                axes[1].plot([bar["low"], bar["high"]], [place, place], "|-", color=color)
    axes[0].set_yticks(range(len(rows)), [row[0].partition(": ")[0][-40:] for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)  # the table's first row on top
    axes[0].set_xlabel(table["columns"][1].partition(", ")[2])
    if differences:
        names = [_pair_name(pair, differences, "\n− ") for pair in differences]
        axes[1].set_yticks(range(len(names)), names)
        axes[1].set_ylim(len(names) - 0.5, -0.5)
        axes[1].axvline(0.0, color="black", linewidth=1)
        axes[1].set_xlabel("paired difference in points, 95 % interval")
    for each in axes:
        each.grid(axis="x", alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(PROBES), frameon=False)
    path = Path(path)
    write_whole(path, lambda aside: figure.savefig(aside, dpi=130, format=path.suffix[1:]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: `MODEL [MODEL ...] RECIPE [--any_field value] [--output FOLDER]`."""
    options, models, recipe_path, overrides = parse_arguments(arguments)
    sections = {"data": DataArguments, "probe": ProbeArguments}
    recipe = load_recipe(recipe_path, overrides, sections, primary="probe")
    name = "few_shot.json" if options.labels_per_class else "result.json"

    settings: JsonObject = {"probe": recipe["probe"]}
    if options.labels_per_class:
        from .few_shot import draw_and_report, with_draws  # which imports this module

        settings = {"probe": with_draws(recipe["probe"]), "counts": options.labels_per_class}
    now = described(models, recipe["data"], **settings)

    def check(folder: Path) -> None:
        refuse_other_results(folder / name, folder / name, now, "--output", options.overwrite)

    with one_voice():
        options.output = folder_of_results(options.output, OUTPUT, check)
    with one_voice(), FolderLock(options.output, "--output"):
        if options.labels_per_class:
            draw_and_report(models, recipe["data"], recipe["probe"], options, recipe_path)
        else:
            measure_and_report(models, recipe["data"], recipe["probe"], options, recipe_path)


def measure_and_report(
    models: Sequence[str],
    data_args: DataArguments,
    probe_args: ProbeArguments,
    options: argparse.Namespace,
    recipe_path: str,
) -> None:
    """Measure encoders one after the other, and write and print what was found (`parse_arguments` has the options)."""
    output: Path = options.output
    measured: list[Measurement] = []
    known_baselines: dict[str, list[Arm]] = {}
    for position, model in enumerate(models):
        features_dir = output / "features" / str(position) if options.keep_features else None
        measured.append(
            measure_checkpoint(
                model,
                data_args,
                probe_args,
                device=options.device,
                features_dir=features_dir,
                known_baselines=known_baselines,
            )
        )
    first = measured[0].result
    table, differences = summarise(measured), compare(measured)
    compared = differences_table(differences, first["metric"])
    remarks = notes(measured, differences)
    blocks = [markdown_table(table["rows"], table["columns"])]
    blocks += [markdown_table(compared["rows"], compared["columns"])] if differences else []
    text = "\n\n".join([*blocks, *remarks]) + "\n"
    write_whole(output / "table.md", lambda path: path.write_text(text, encoding="utf-8"))
    draw_scores(table, output / "scores.png", differences)
    write_json(
        output / "result.json",
        {
            "recipe": recipe_path,
            **described(models, data_args, probe=probe_args),
            "results": [one.result for one in measured],
            "differences": differences,
            "table": table,
            "tables": {"scores": table, "differences": compared},
            "notes": remarks,
        },
    )
    print(terminal_report(first, table, compared, remarks))
    print(f"Written to {output}: result.json, table.md, scores.png")


def terminal_report(
    result: dict[str, Any], table: dict[str, Any], compared: dict[str, Any], remarks: Sequence[str], width: int = 80
) -> str:
    """The tables as text of at most `width` characters a line."""
    rows, split = result["rows"][result["test_split"]], result["test_split"]
    lines = [f"{result['metric']} (%) on {rows:,} rows of the {split} split", ""]
    names = [[row[0].partition(": ")[0], *row[1:]] for row in table["rows"]]
    lines += [text_table(names, ["", *PROBES.values(), "RankMe", "runs"], width), ""]
    if compared["rows"]:
        lines += [text_table(compared["rows"], ["difference", *PROBES.values()], width), ""]
    raw = next((row[0] for row in table["rows"] if row[0].startswith(RAW_INPUTS)), None)
    sentences = [*([] if raw is None else [f"{raw[0].upper()}{raw[1:]}."]), *remarks]
    return "\n".join([*lines, *(textwrap.fill(sentence, width) for sentence in sentences)])


def parse_arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str], str, list[str]]:
    """The command line as (options, models, recipe, words that override recipe fields)."""
    parser = OneLineErrors(
        usage="%(prog)s MODEL [MODEL ...] RECIPE [--any_field value ...]",
        description="Linear and kNN probes on the frozen features of saved encoders. The recipe's sections `data` and "
        "`probe` are used; any of their fields can be overridden, such as --labels_per_class 5 --seeds '[0, 1, 2]'. "
        "Several numbers of labels give a curve.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, help=f"default: {OUTPUT}, or {OUTPUT}-2 beside others' results")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default here: %(default)s"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write over results of other models, data or settings"
    )
    parser.add_argument("--keep_features", action="store_true", help="stream the features to OUTPUT/features")
    parser.add_argument(
        "--labels_per_class", nargs="+", metavar="N", help='labelled rows of each class, or "all", such as 1 5 20 all'
    )
    options, words = parser.parse_known_args(arguments)
    names = list(takewhile(lambda word: not word.startswith("--"), words))
    overrides = words[len(names) :]
    if len(names) < 2:
        parser.error(f"expected at least one MODEL and then a RECIPE before any --field, got {names}")
    options.labels_per_class = few_shot_counts(options.labels_per_class)
    if options.labels_per_class is not None and len(options.labels_per_class) == 1:
        count = options.labels_per_class.pop()
        overrides += ["--probe.labels_per_class", "null" if count is None else str(count)]
    return options, names[:-1], names[-1], overrides


def few_shot_counts(words: Sequence[str] | None) -> list[int | None] | None:
    """Numbers of labels of each class, rising, None for all; None where nothing was asked for.

    Raises:
        ValueError: A word that is neither a number from 1 nor "all", or one that comes twice.
    """
    if words is None:
        return None
    counts: list[int | None] = []
    for word in words:
        if word not in ("all", "null") and not (word.isdigit() and int(word) > 0):
            raise ValueError(f'--labels_per_class: expected numbers from 1 or "all", got {word!r}')
        counts.append(int(word) if word.isdigit() else None)
    if len(set(counts)) != len(counts):
        raise ValueError(f"--labels_per_class: expected different numbers, got {' '.join(words)}")
    return sorted(counts, key=lambda count: float("inf") if count is None else count)
