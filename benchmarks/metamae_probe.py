"""Linear probes of untrained, MAE and MetaMAE encoders on small real data sets, equal steps.

    python benchmarks/metamae_probe.py [--datasets digits ...] [--variants metamae ...] [--seeds 0 1 2] [--tables_only]

Each run's result is written to benchmarks/results/metamae_probe/DATASET-VARIANT-SEED.json as it ends, and runs that have one
are passed over: the table can be made in pieces, by several processes. The small real sets are found through HF_MASKSSL_SHARED.
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RECIPES, RESULTS, begin, interval, read_runs, seeded_parser
from matplotlib.figure import Figure
from transformers import AutoModelForPreTraining

from hf_maskssl.data import PreparedData, build_config, prepare_data
from hf_maskssl.evaluation.features import Features, extract_features, level_of_task
from hf_maskssl.evaluation.online import draw_rows
from hf_maskssl.evaluation.probe import knn_probe, linear_probe
from hf_maskssl.evaluation.statistics import rankme
from hf_maskssl.files import write_json
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import Pretrainer, PretrainingRecipe, load_pretraining_recipe

RUNS = RESULTS / "metamae_probe"
PLAIN_MAE = ["--num_adaptation_steps", "0", "--contrastive_weight", "0.0"]
VARIANTS: dict[str, list[str]] = {
    "untrained": [],
    "mae_linear": [*PLAIN_MAE, "--decoder_num_hidden_layers", "0"],
    "mae_deep": PLAIN_MAE,
    "metamae": [],
}
TITLES = {
    "untrained": "untrained",
    "mae_linear": "MAE, linear decoder",
    "mae_deep": "MAE, deep decoder",
    "metamae": "MetaMAE",
}
# Optimiser steps of every variant: what two CPU cores finish in about an hour and a half all told.
STEPS = {
    "digits": 1000,
    "japanese_vowels": 800,
    "higgs_small": 800,
    "spoken_digits": 600,
    "clothing64": 600,
    "secondary_structure": 400,
}
LABELS_PER_CLASS = (5, 20)
FEW_LABEL_DRAWS = 5
SHOWN = ("dataset", "variant", "seed", "seconds", "linear", "knn", "rankme")
# Labels per residue run into millions: this many proteins are probed, drawn with the run's seed.
MAX_TOKEN_LEVEL_SAMPLES = 1000


def run(dataset: str, variant: str, seed: int) -> dict[str, Any]:
    """Pre-train one encoder and probe it; the result of one file."""
    steps = STEPS[dataset]
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            *VARIANTS[variant],
            *("--training.seed", str(seed), "--training.output_dir", folder, "--training.save_steps", "0"),
            *(
                "--training.max_steps",
                str(steps),
                "--training.warmup_steps",
                str(steps // 10),
                "--probe.every_steps",
                "0",
            ),
        ]
        recipe = load_pretraining_recipe(RECIPES / f"{dataset}.yaml", overrides)
        started = time.perf_counter()
        if variant == "untrained":
            torch.manual_seed(seed)
            config = build_config(recipe.model)
            model, prepared, losses = (
                AutoModelForPreTraining.from_config(config),
                prepare_data(recipe.data, config),
                {},
            )
        else:
            trainer = Pretrainer(recipe)
            state = trainer.run()
            model, prepared = trainer.model, trainer.prepared
            losses = {name: value for name, value in state.history[-1].items() if name.startswith("train/")}
        seconds = time.perf_counter() - started
    return {
        "dataset": dataset,
        "variant": variant,
        "seed": seed,
        "steps": 0 if variant == "untrained" else steps,
        "seconds": round(seconds, 1),
        "losses": losses,
        "recipe": dataclasses.asdict(recipe)["model"],
        "learning_rate": recipe.training.learning_rate,
        "batch_size": recipe.training.batch_size,
        **probe(model.base_model, prepared, recipe, seed),
    }


def probe(encoder: torch.nn.Module, prepared: PreparedData, recipe: PretrainingRecipe, seed: int) -> dict[str, Any]:
    """Scores of the frozen encoder on the test split, with all labels and with few."""
    task = recipe.data.task
    level = level_of_task(task)
    splits: dict[str, Features] = {}
    for name in ("train", "test"):
        rows = getattr(prepared, name)
        if level == "token":
            rows = draw_rows(rows, MAX_TOKEN_LEVEL_SAMPLES, seed)
        splits[name] = extract_features(encoder, rows, prepared.collator, level=level, device="cpu")
    args = dataclasses.replace(recipe.probe, solver="exact", knn_max_samples=20_000)
    metric = args.headline_metric(task)
    scores: dict[str, Any] = {
        "metric": metric,
        "linear": linear_probe(splits["train"], splits["test"], task, args, seed)[metric],
        "knn": knn_probe(splits["train"], splits["test"], task, args, seed)[metric],
        "rankme": rankme(splits["train"].values),
    }
    for count in LABELS_PER_CLASS:
        few = dataclasses.replace(args, labels_per_class=count)
        draws = [
            linear_probe(splits["train"], splits["test"], task, few, draw)[metric] for draw in range(FEW_LABEL_DRAWS)
        ]
        scores[f"linear_{count}_labels"] = float(np.mean(draws))
    return scores


def write_tables() -> None:
    """benchmarks/results/metamae_probe.json and .png from whatever runs have ended."""
    runs = read_runs(RUNS)
    measures = {
        "linear": "linear probe",
        "knn": "kNN",
        "linear_5_labels": "linear probe, 5 labels a class",
        "linear_20_labels": "linear probe, 20 labels a class",
    }
    present = [dataset for dataset in STEPS if any(result["dataset"] == dataset for result in runs)]
    tables: dict[str, dict[str, list[Any]]] = {}
    for measure in measures:
        rows = []
        for dataset in present:
            row: list[Any] = [dataset, STEPS[dataset]]
            for variant in VARIANTS:
                chosen = [r for r in runs if r["dataset"] == dataset and r["variant"] == variant]
                row.append(interval([result[measure] for result in chosen]))
            rows.append(row)
        tables[measure] = {"columns": ["data set", "steps", *TITLES.values()], "rows": rows}
    write_json(
        RESULTS / "metamae_probe.json",
        {
            "what": "test accuracy in per cent of frozen features, mean and 95 % interval over seeds",
            "measures": measures,
            "table": tables["linear"],
            "tables": tables,
            "seeds": sorted({result["seed"] for result in runs}),
            "hardware": "2 CPU cores, float32",
            "versions": {"torch": torch.__version__},
            "runs": [{key: result[key] for key in SHOWN} for result in runs],
        },
    )
    draw(tables["linear"]["rows"], RESULTS / "metamae_probe.png")


def draw(rows: list[list[Any]], path: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row[0]}\n{row[1]} steps" for row in rows]
    grouped_bars(axes, labels, {title: [row[2 + n] for row in rows] for n, title in enumerate(TITLES.values())})
    axes.set_ylabel("test accuracy of a linear probe (%)")
    axes.set_title("Frozen encoders, mean over seeds with 95 % intervals")
    axes.legend(ncols=len(VARIANTS), loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
    figure.savefig(path, dpi=120)


def pending(names: list[str], variants: list[str], seeds: list[int]) -> Iterator[tuple[str, str, int, Path]]:
    """Runs without a result, a whole seed of all data sets before the next seed."""
    for seed in seeds:
        for dataset in names:
            for variant in variants:
                path = RUNS / f"{dataset}-{variant}-{seed}.json"
                if not path.exists():
                    yield dataset, variant, seed, path


def main() -> None:
    parser = seeded_parser(__doc__)
    parser.add_argument("--datasets", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of one run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    begin(RUNS)
    if not options.tables_only:
        for dataset, variant, seed, path in pending(options.datasets, options.variants, options.seeds):
            result = run(dataset, variant, seed)
            write_json(path, result)
            print(
                f"{path.stem}: linear {result['linear']:.3f}, kNN {result['knn']:.3f}, {result['seconds']} s",
                flush=True,
            )
    write_tables()


if __name__ == "__main__":
    main()
