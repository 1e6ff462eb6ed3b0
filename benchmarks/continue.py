"""Continued from another data set's weights (`training.init_from`) against scratch, at equal steps, paired by seed.

    python benchmarks/continue.py [--seeds 0 1 2] [--tables_only]

Each pair of sets is pre-trained first on the one (once), then on the other from those weights and from random ones, with the
same seed, steps and rows. Their inputs differ, so the projections of the input and of the output are new in both; what goes on is
the layers of the encoder and the decoder. Runs with a result in benchmarks/results/continue are passed over.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import RECIPES, RESULTS, begin, draw_bars, interval, read_runs, seeded_parser

from hf_maskssl.evaluation.features import extract_features
from hf_maskssl.evaluation.probe import linear_probe
from hf_maskssl.files import write_json
from hf_maskssl.training import Pretrainer, RunState, load_pretraining_recipe

RUNS = RESULTS / "continue"
PAIRS = (("japanese_vowels", "basic_motions"), ("basic_motions", "japanese_vowels"))
FIRST_STEPS = {"japanese_vowels": 300, "basic_motions": 300}
STEPS = {"japanese_vowels": 60, "basic_motions": 60}
BATCH_SIZE = 40
FEW_LABELS, FEW_LABEL_DRAWS = 5, 3
VARIANTS = {"scratch": "from scratch", "continued": "continued"}
MEASURES = {"linear": "linear probe", "linear_5_labels": "linear probe, 5 labels a class", "loss": "loss at the end"}


def pretrain(
    dataset: str, folder: Path, steps: int, seed: int, init_from: Path | None = None
) -> tuple[Pretrainer, RunState]:
    """A run of a recipe with these steps."""
    settings = {"seed": seed, "output_dir": folder, "save_steps": 0, "picture_steps": 0, "max_steps": steps}
    settings |= {
        "batch_size": BATCH_SIZE,
        "warmup_steps": steps // 10,
        "quiet": "true",
        "logging_steps": 10,
        "init_statistics": "measure",
    }
    settings |= {} if init_from is None else {"init_from": init_from}
    overrides = [word for name, value in settings.items() for word in (f"--training.{name}", str(value))]
    trainer = Pretrainer(
        load_pretraining_recipe(RECIPES / f"{dataset}.yaml", [*overrides, "--probe.every_steps", "0"])
    )
    state = trainer.run()
    if state.interrupted:
        raise SystemExit(f"{dataset}: interrupted at step {state.step}; nothing is written down.")
    return trainer, state


def probe(trainer: Pretrainer, seed: int) -> dict[str, float]:
    """Test accuracy of the frozen encoder, with all labels and with few."""
    encoder, prepared, task = trainer.bare_model.base_model, trainer.prepared, trainer.recipe.data.task
    splits: list[Any] = [prepared.train, prepared.test]  # both sets have one
    train, test = (extract_features(encoder, rows, prepared.collator) for rows in splits)
    args = dataclasses.replace(trainer.recipe.probe, solver="exact")
    few = dataclasses.replace(args, labels_per_class=FEW_LABELS)
    draws = [linear_probe(train, test, task, few, draw)["accuracy"] for draw in range(FEW_LABEL_DRAWS)]
    return {
        "linear": linear_probe(train, test, task, args, seed)["accuracy"],
        "linear_5_labels": sum(draws) / len(draws),
    }


def measure(first: str, then: str, seed: int, source: Path) -> None:
    """Both runs of one pair and seed; the result of two files."""
    for variant in VARIANTS:
        path = RUNS / f"{first}-{then}-{variant}-{seed}.json"
        if path.exists():
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            begun = source if variant == "continued" else None
            trainer, state = pretrain(then, Path(folder), STEPS[then], seed, begun)
            scores = probe(trainer, seed)
        start = state.start or {}
        result = {
            "first": first,
            "dataset": then,
            "variant": variant,
            "seed": seed,
            "steps": STEPS[then],
            "first_steps": FIRST_STEPS[first],
            "seconds": round(time.perf_counter() - started, 1),
            "loss": state.latest("train/loss"),
            "reconstruction": state.latest("train/reconstruction"),
            "weights": {name: len(start[name]) for name in ("taken", "new", "left") if name in start},
            **scores,
        }
        write_json(path, result)
        print(
            f"{path.stem}: linear {result['linear']:.3f}, loss {result['loss']:.3f}, {result['seconds']} s", flush=True
        )


def write_tables() -> None:
    """benchmarks/results/continue.json and .png from whatever runs have ended."""
    runs = read_runs(RUNS)
    tables: dict[str, Any] = {}
    for name in MEASURES:
        factor = 1 if name == "loss" else 100
        rows = []
        for first, then in PAIRS:
            of_pair = [run for run in runs if (run["first"], run["dataset"]) == (first, then)]
            scores = {
                variant: {run["seed"]: run[name] for run in of_pair if run["variant"] == variant}
                for variant in VARIANTS
            }
            both = sorted(set(scores["scratch"]) & set(scores["continued"]))
            if not both:
                continue
            differences = [scores["continued"][seed] - scores["scratch"][seed] for seed in both]
            row = [f"{first} -> {then}", STEPS[then], len(both)]
            rows.append(
                row
                + [interval([scores[variant][seed] for seed in both], factor) for variant in VARIANTS]
                + [interval(differences, factor)]
            )
        tables[name] = {
            "columns": ["data sets", "steps", "seeds", *VARIANTS.values(), "paired difference"],
            "rows": rows,
        }
    shown = ("first", "dataset", "variant", "seed", "seconds", "linear", "linear_5_labels", "loss", "weights")
    write_json(
        RESULTS / "continue.json",
        {
            "what": "test accuracy in per cent of frozen features, and the loss of the last steps; means and 95 % intervals",
            "measures": MEASURES,
            "first_steps": FIRST_STEPS,
            "table": tables["linear"],
            "tables": tables,
            "hardware": "CPU, one thread, float32",
            "versions": {"torch": torch.__version__},
            "runs": [{name: run[name] for name in shown} for run in runs],
        },
    )
    panels = {}
    for name, title in (("linear", "linear probe, test accuracy (%)"), ("loss", MEASURES["loss"])):
        rows = tables[name]["rows"]
        labels = [f"{row[0].replace(' -> ', ' ->' + chr(10))}\n{row[1]} steps, {row[2]} seeds" for row in rows]
        panels[title] = (labels, {one: [row[3 + n] for row in rows] for n, one in enumerate(VARIANTS.values())})
    draw_bars(RESULTS / "continue.png", panels)


def main() -> None:
    options = seeded_parser(__doc__).parse_args()
    begin(RUNS)
    if not options.tables_only:
        with tempfile.TemporaryDirectory() as folder:
            for first, _ in PAIRS:
                pretrain(first, Path(folder) / first, FIRST_STEPS[first], 1000)
            for seed in options.seeds:
                for first, then in PAIRS:
                    measure(first, then, seed, Path(folder) / first)
    write_tables()


if __name__ == "__main__":
    main()
