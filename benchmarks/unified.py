"""One MetaMAE for a table, a series and pictures (`model_type: unified`) against one for each, at equal steps and rows of each.

    python benchmarks/unified.py [--seeds 0 1 2] [--tables_only]

Every arm takes the same number of steps with the same number of rows of each data set; the joint arms share the layers, and add
the three losses up or balance them by minimax. Frozen features are probed data set by data set. Runs with a result in
benchmarks/results/unified are passed over.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import RECIPES, RESULTS, begin, draw_bars, interval, read_runs, seeded_parser

from hf_maskssl.data.arguments import DataArguments
from hf_maskssl.data.preparation import PreparedData
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.features import extract_features
from hf_maskssl.evaluation.probe import linear_probe
from hf_maskssl.files import write_json
from hf_maskssl.models.pretraining import pretraining_hooks
from hf_maskssl.recipes import build_recipe, read_yaml
from hf_maskssl.training import Pretrainer, PretrainingArguments, PretrainingRecipe

RUNS = RESULTS / "unified"
SETS = {"higgs_small": "a table", "japanese_vowels": "series", "digits": "pictures"}
ARMS = {
    "untrained": "untrained",
    "alone": "one model each",
    "none": "one for all, sum",
    "minimax": "one for all, minimax",
}
STEPS, BATCH_SIZE, LEARNING_RATE = 600, 128, 1e-3
# Fields of a part's own; all others must be the same for the three, and are.
OWN = ("modality", "image_size", "series_length", "num_channels", "patch_size", "mask_ratio", "adaptation_step_size")
FEW_LABELS, FEW_LABEL_DRAWS = 5, 3
MEASURES = {"linear": "linear probe", "linear_5_labels": "linear probe, 5 labels a class"}


def recipe_of(arm: str, names: list[str], folder: Path, seed: int) -> PretrainingRecipe:
    """A run on one data set, or on all of them at once."""
    files = {name: read_yaml(RECIPES / f"{name}.yaml") for name in names}
    training = PretrainingArguments(
        output_dir=str(folder),
        seed=seed,
        max_steps=STEPS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        weight_decay=1e-4,
        lr_scheduler_type="cosine",
        warmup_steps=STEPS // 10,
        save_steps=0,
        picture_steps=0,
        logging_steps=50,
        quiet=True,
    )
    content: dict[str, Any] = {"model": files[names[0]]["model"], "data": files[names[0]]["data"]}
    if len(names) > 1:
        models = {name: dict(files[name]["model"]) for name in names}
        shared = [{field: value for field, value in model.items() if field not in OWN} for model in models.values()]
        assert all(fields == shared[0] for fields in shared), "the recipes differ in what they share"
        model_type = shared[0].pop("model_type")
        parts = {name: {field: model[field] for field in OWN if field in model} for name, model in models.items()}
        content["model"] = {"model_type": "unified", "part_type": model_type, "shared": shared[0], "parts": parts}
        content["model"]["task_balancing"] = arm
        content["data"] = {"kind": "unified", "parts": {name: files[name]["data"] for name in names}}
    built = build_recipe(content, arm, (), {"model": dict, "data": DataArguments})
    return PretrainingRecipe(built["model"], built["data"], ProbeArguments(), training)


def probe(encoder: Any, prepared: PreparedData, args: ProbeArguments, seed: int) -> dict[str, float]:
    """Test accuracy of frozen features, with all labels and with few."""
    splits: list[Any] = [prepared.train, prepared.test]  # all sets have one
    train, test = (extract_features(encoder, rows, prepared.collator) for rows in splits)
    assert prepared.task is not None
    args = dataclasses.replace(args, solver="exact")
    few = dataclasses.replace(args, labels_per_class=FEW_LABELS)
    draws = [linear_probe(train, test, prepared.task, few, draw)["accuracy"] for draw in range(FEW_LABEL_DRAWS)]
    return {
        "linear": linear_probe(train, test, prepared.task, args, seed)["accuracy"],
        "linear_5_labels": sum(draws) / len(draws),
    }


def measure(arm: str, names: list[str], seed: int) -> None:
    """One run and its probes; a result file for each data set."""
    paths = {name: RUNS / f"{name}-{arm}-{seed}.json" for name in names}
    if all(path.exists() for path in paths.values()):
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Pretrainer(recipe_of(arm, names, Path(folder), seed))
        if arm == "untrained":
            trainer._set_up()
        elif trainer.run().interrupted:
            raise SystemExit(f"{arm}: interrupted at step {trainer.state.step}; nothing is written down.")
        seconds = round(time.perf_counter() - started, 1)
        model, data = trainer.bare_model, trainer.prepared
        models = pretraining_hooks(model).parts or {names[0]: model}
        parts = {name: (models[name], data.parts.get(name, data)) for name in names}
        for name, (part, prepared) in parts.items():
            loss = trainer.state.latest(f"train/{name}" if len(names) > 1 else "train/loss")
            scores = probe(part.base_model, prepared, trainer.recipe.probe, seed)
            result = {
                "dataset": name,
                "arm": arm,
                "seed": seed,
                "steps": STEPS,
                "seconds": seconds,
                "loss": loss,
                **scores,
            }
            write_json(paths[name], result)
            print(f"{paths[name].stem}: linear {scores['linear']:.3f}, {seconds} s", flush=True)


def table_of(runs: list[dict[str, Any]], measure_name: str) -> dict[str, Any]:
    """Means by arm, and the paired differences of the joint arms from one model each."""
    rows = []
    for name, kind in SETS.items():
        scores = {
            arm: {run["seed"]: run[measure_name] for run in runs if (run["dataset"], run["arm"]) == (name, arm)}
            for arm in ARMS
        }
        seeds = sorted(set.intersection(*(set(found) for found in scores.values())))
        if not seeds:
            continue
        means = [interval([scores[arm][seed] for seed in seeds], 100) for arm in ARMS]
        paired = [
            interval([scores[arm][seed] - scores["alone"][seed] for seed in seeds], 100) for arm in ("none", "minimax")
        ]
        rows.append([f"{name} ({kind})", len(seeds), *means, *paired])
    columns = ["data set", "seeds", *ARMS.values(), "sum − one each", "minimax − one each"]
    return {"columns": columns, "rows": rows}


def write_tables() -> None:
    """benchmarks/results/unified.json and .png from whatever runs have ended."""
    runs = read_runs(RUNS)
    tables = {name: table_of(runs, name) for name in MEASURES}
    write_json(
        RESULTS / "unified.json",
        {
            "what": "test accuracy in per cent of frozen features; means and 95 % intervals over seeds",
            "measures": MEASURES,
            "steps": STEPS,
            "rows of each data set in a step": BATCH_SIZE,
            "table": tables["linear"],
            "tables": tables,
            "hardware": "CPU, one thread, float32",
            "versions": {"torch": torch.__version__},
            "runs": runs,
        },
    )
    panels = {}
    for name, title in MEASURES.items():
        rows = tables[name]["rows"]
        labels = [f"{row[0].replace(' (', chr(10) + '(')}\n{row[1]} seeds" for row in rows]
        bars = {arm: [row[2 + number] for row in rows] for number, arm in enumerate(ARMS.values())}
        panels[f"{title}, test accuracy (%)"] = (labels, bars)
    draw_bars(RESULTS / "unified.png", panels)


def main() -> None:
    options = seeded_parser(__doc__).parse_args()
    begin(RUNS)
    for seed in [] if options.tables_only else options.seeds:
        for name in SETS:
            measure("untrained", [name], seed)
            measure("alone", [name], seed)
        for arm in ("none", "minimax"):
            measure(arm, list(SETS), seed)
    write_tables()


if __name__ == "__main__":
    main()
