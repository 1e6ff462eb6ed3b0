"""MultiMAE on procedural scenes: what pre-training brings to segmentation and depth, and what balancing the tasks does.

    python benchmarks/multimae_scenes.py [--arms scratch mae multimae ...] [--seeds 0 1 2] [--transfers ...] [--plan]

An encoder is pre-trained for every arm and seed from examples/recipes/multimae_scenes.yaml, equal steps for MAE and
MultiMAE and fewer, but equal, ones for the balancers, and kept in
`--work_dir`; its losses are measured on held-out scenes with the same masks for all. It is then fine-tuned on a few labelled
scenes, which pre-training has not seen, alike for every arm. Each result is written to
benchmarks/results/multimae_scenes/WHAT-ARM-SEED.json as it ends, and what has one is passed over: the table can be made in
pieces, by several processes of different arms. The epoch is chosen on validation scenes; test labels choose nothing.
"""

import argparse
import dataclasses
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from common import RECIPES, RESULTS, device_name, interval, pretrain_once, read_runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import AutoModelForPreTraining

from hf_maskssl.data import prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import PretrainingRecipe, load_pretraining_recipe
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune

RUNS = RESULTS / "multimae_scenes"
RECIPE = RECIPES / "multimae_scenes.yaml"
# MAE: the same encoder on rgb alone, a quarter of its tokens visible, patches standardised (He et al. 2022).
MAE = {
    "modalities": {"rgb": {"kind": "continuous", "num_channels": 3, "loss": "standardized_mse"}},
    "num_visible_tokens": 16,
}
# Balancers are compared after fewer steps: there are five of them.
BALANCING_STEPS = 400
# Arm -> title, changes to the recipe's model.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "scratch": ("no pre-training", {}),
    "mae": ("MAE (rgb)", MAE),
    "multimae": ("MultiMAE", {}),
    "none": ("none", {}),
    "uncertainty": ("uncertainty", {"task_balancing": "uncertainty"}),
    "gradnorm": ("GradNorm", {"task_balancing": "gradnorm"}),
    # An epoch of 4,000 scenes is 125 steps.
    "dwa": ("DWA", {"task_balancing": "dwa", "task_balancing_options": {"interval": 125}}),
    "minimax": ("minimax (MM-MAE)", {"task_balancing": "minimax"}),
    # With losses of 0.4 to 0.7, alpha 1 leaves the weights between 0.22 and 0.28.
    "minimax10": ("minimax, alpha 10", {"task_balancing": "minimax", "task_balancing_options": {"alpha": 10.0}}),
}
BALANCERS = ("none", "uncertainty", "gradnorm", "dwa", "minimax", "minimax10")
MODALITIES_SHOWN = ("scratch", "mae", "multimae")
# Transfer -> task, modalities that are read, score.
TRANSFERS: dict[str, tuple[str, list[str], str]] = {
    "segmentation-rgb": ("semantic_segmentation", ["rgb"], "mean_iou"),
    "segmentation-depth": ("semantic_segmentation", ["depth"], "mean_iou"),
    "segmentation-rgbd": ("semantic_segmentation", ["rgb", "depth"], "mean_iou"),
    "depth-rgb": ("depth_estimation", ["rgb"], "delta_1"),
}
LABELLED = 100
FIRST_LABELLED_SEED = 1000  # of scenes that pre-training has not seen
HEADS = {
    "segmentation_hidden_size": 512,
    "segmentation_num_layers": 2,
    "depth_hidden_size": 32,
    "depth_reassemble_sizes": [16, 32, 64, 64],
}
# Chosen in trials with other encoders of MAE, MultiMAE and none, from rates of 1e-3 to 3e-3 and 20 to 40 epochs.
FINETUNING: dict[str, Any] = {
    "learning_rate": 2e-3,
    "batch_size": 16,
    "num_train_epochs": 25,
    "weight_decay": 0.05,
    "layer_decay": 0.75,
    "warmup_ratio": 0.1,
    "lr_scheduler_type": "cosine",
    "save_model": False,
}
HELD_OUT_BATCHES = 16
MINUTES = {"mae": 2.2, "multimae": 4.5, "balancer": 1.9, "transfer": 0.5}


def transfers_of(arm: str) -> list[str]:
    """Balancers are compared on rgb, as in the minimax paper's Table 2; MAE and MultiMAE on every input."""
    return list(TRANSFERS) if arm in MODALITIES_SHOWN else ["segmentation-rgb", "depth-rgb"]


def pending(arms: list[str], transfers: list[str], seeds: list[int], folder: Path) -> Iterator[tuple[str, str, int]]:
    """(what, arm, seed) of results that are missing, a seed after the other; what is "pretraining" or a transfer."""
    for seed in seeds:
        for arm in arms:
            wanted = [] if arm == "scratch" else ["pretraining"]
            wanted += [name for name in transfers_of(arm) if name in transfers]
            yield from ((what, arm, seed) for what in wanted if not (folder / f"{what}-{arm}-{seed}.json").exists())


def pretraining_recipe(arm: str, seed: int, folder: Path, steps: int | None) -> PretrainingRecipe:
    changes = ["--training.seed", str(seed), "--training.output_dir", str(folder), "--training.save_steps", "0"]
    changes += ["--training.eval_steps", "0", "--training.picture_steps", "0"]
    if steps is None and arm in BALANCERS:
        steps = BALANCING_STEPS
    if steps is not None:
        changes += ["--training.max_steps", str(steps), "--training.warmup_steps", str(steps // 10)]
    recipe = load_pretraining_recipe(RECIPE, changes)
    names = recipe.model["modalities"] if arm != "mae" else MAE["modalities"]
    columns = {name: column for name, column in recipe.data.input_column.items() if name in names}  # type: ignore
    data = dataclasses.replace(recipe.data, input_column=columns)
    return dataclasses.replace(recipe, model=recipe.model | ARMS[arm][1], data=data)


def pretrained(arm: str, seed: int, work: Path, steps: int | None) -> tuple[Path, dict[str, Any]]:
    recipe = pretraining_recipe(arm, seed, work / f"{arm}-{seed}", steps)
    return pretrain_once(recipe, {"recipe": RECIPE.stem, "changes": ARMS[arm][1]})


@torch.no_grad()
def held_out_losses(folder: Path, recipe: PretrainingRecipe) -> dict[str, float]:
    """Every task's loss on validation scenes, with the same masks for every model of the same tokens."""
    model = AutoModelForPreTraining.from_pretrained(folder).eval()
    rows: Any = prepare_data(recipe.data, model.config)
    size = recipe.training.batch_size
    totals: dict[str, float] = {}
    for number in range(min(HELD_OUT_BATCHES, len(rows.validation) // size)):
        batch = rows.collator([rows.validation[row] for row in range(number * size, (number + 1) * size)])
        torch.manual_seed(number)
        parts = model(inputs=batch["inputs"]).loss_parts
        for name in model.outputs:
            totals[name] = totals.get(name, 0.0) + float(parts[name])
    return {name: value / (number + 1) for name, value in totals.items()}


def finetuning_recipe(
    transfer: str, seed: int, checkpoint: Path | None, output: Path, epochs: int | None
) -> FinetuningRecipe:
    """The same for every arm but for the weights it starts from."""
    task, inputs, metric = TRANSFERS[transfer]
    pretraining = load_pretraining_recipe(RECIPE)
    known = pretraining.model["modalities"]
    modalities = {name: known[name] for name in inputs}
    model: dict[str, Any] = {"modalities": modalities, "drop_path_rate": 0.1, **HEADS}
    if checkpoint is None:
        model = pretraining.model | model | {"num_visible_tokens": 16}
    data = data_arguments(
        source="scenes",
        kind="multimodal",
        scenes_seed=FIRST_LABELLED_SEED + seed,
        num_scenes={"train": LABELLED, "validation": 50, "test": 500},
        validation_split="validation",
        test_split="test",
        input_column={name: name for name in inputs},
        label_column="semseg" if task == "semantic_segmentation" else "depth",
        task=task,
        augment=True,
        crop_scale=[0.5, 1.0],
    )
    fields = FINETUNING | {"metric": metric, "seeds": [seed], "inputs": inputs, "output_dir": str(output)}
    fields |= {"checkpoint": None if checkpoint is None else str(checkpoint)}
    if epochs is not None:
        fields["num_train_epochs"] = epochs
    return FinetuningRecipe(model=model, data=data, finetuning=FinetuningArguments(**fields))


def run(what: str, arm: str, seed: int, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The result of one file."""
    checkpoint, pretraining = None, None
    if arm != "scratch":
        checkpoint, pretraining = pretrained(arm, seed, work, options.steps)
    result = {"what": what, "arm": arm, "seed": seed, "pretraining": pretraining}
    result |= {"hardware": device_name("cpu", options.threads), "torch": torch.__version__}
    started = time.perf_counter()
    if what == "pretraining":
        assert checkpoint is not None
        losses = held_out_losses(checkpoint, pretraining_recipe(arm, seed, checkpoint, options.steps))
        return result | {"losses": losses, "worst": max(losses, key=lambda name: losses[name])}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        recipe = finetuning_recipe(what, seed, checkpoint, Path(folder), options.epochs)
        found = finetune(recipe)
    record = found["runs"][0]
    return result | {
        "test": record["test"],
        "validation": record["validation"],
        "rows": found["rows"],
        "epoch": record["epoch"],
        "seconds": round(time.perf_counter() - started, 1),
        "finetuning": FINETUNING,
    }


# The tables and the plot.


def scores(runs: list[dict[str, Any]], transfer: str, arm: str) -> dict[str, float | None] | None:
    """Test score of a transfer over seeds, in per cent."""
    metric = TRANSFERS[transfer][2]
    return interval([r["test"][metric] for r in runs if (r["what"], r["arm"]) == (transfer, arm)])


def losses(runs: list[dict[str, Any]], arm: str, task: str) -> dict[str, float | None] | None:
    """Held-out loss of a pre-training task over seeds; "worst": the largest of all tasks', seed by seed."""
    found = [r["losses"] for r in runs if (r["what"], r["arm"]) == ("pretraining", arm)]
    return interval([max(entry.values()) if task == "worst" else entry[task] for entry in found], factor=1)


def worst_gain(runs: list[dict[str, Any]], arm: str) -> dict[str, float | None] | None:
    """By how many thousandths the worst task's loss is above that without balancing, seed by seed."""
    by_seed = [
        {r["seed"]: max(r["losses"].values()) for r in runs if (r["what"], r["arm"]) == ("pretraining", name)}
        for name in (arm, "none")
    ]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    return interval([by_seed[0][seed] - by_seed[1][seed] for seed in seeds], factor=1000)


def gain(runs: list[dict[str, Any]], transfer: str, arm: str, baseline: str) -> dict[str, float | None] | None:
    """How many points `arm` is above `baseline`, seed by seed."""
    metric = TRANSFERS[transfer][2]
    by_seed = [
        {r["seed"]: r["test"][metric] for r in runs if (r["what"], r["arm"]) == (transfer, name)}
        for name in (arm, baseline)
    ]
    return interval([by_seed[0][seed] - by_seed[1][seed] for seed in sorted(by_seed[0].keys() & by_seed[1].keys())])


def write_tables(folder: Path) -> None:
    """multimae_scenes.json and .png beside `folder`, from whatever has ended."""
    runs = read_runs(folder)
    if not runs:
        raise SystemExit(f"There is no result in {folder}: run without --tables_only first.")
    tasks = next((list(r["losses"]) for r in runs if r["what"] == "pretraining" and r["arm"] in BALANCERS), [])
    columns = [
        "encoder",
        *(f"segmentation, {i}: mIoU" for i in ("rgb", "depth", "rgb+depth")),
        "depth from rgb: delta_1",
    ]
    modality_rows = [[ARMS[arm][0], *(scores(runs, name, arm) for name in TRANSFERS)] for arm in MODALITIES_SHOWN]
    modality_rows.append(["MultiMAE - MAE", *(gain(runs, name, "multimae", "mae") for name in TRANSFERS)])
    balance_columns = ["balancing", *(f"{task}, loss" for task in tasks), "worst task's loss"]
    balance_columns += ["worst - none's, 1/1000", "segmentation from rgb: mIoU", "depth from rgb: delta_1"]
    balance_rows = [
        [
            ARMS[arm][0],
            *(losses(runs, arm, task) for task in [*tasks, "worst"]),
            None if arm == "none" else worst_gain(runs, arm),
            scores(runs, "segmentation-rgb", arm),
            scores(runs, "depth-rgb", arm),
        ]
        for arm in BALANCERS
    ]
    tables: dict[str, dict[str, list[Any]]] = {
        "modalities": {"columns": columns, "rows": modality_rows},
        "balancing": {"columns": balance_columns, "rows": balance_rows},
    }
    write_json(
        folder.with_suffix(".json"),
        {
            "what": "test scores in per cent and held-out losses, mean and 95 % interval over seeds",
            "labelled_scenes": LABELLED,
            "table": tables["modalities"],
            "tables": tables,
            "seeds": sorted({r["seed"] for r in runs}),
            "steps": {r["arm"]: r["pretraining"]["steps"] for r in runs if r["pretraining"]},
            "finetuning": FINETUNING,
            "hardware": sorted({r["hardware"] for r in runs}),
            "runs": [
                {key: r[key] for key in ("what", "arm", "seed")}
                | ({"test": r["test"]} if "test" in r else r["losses"])
                for r in runs
            ],
        },
    )
    draw(runs, tasks, folder.with_suffix(".png"))
    for table in tables.values():
        print(markdown_table(table["rows"], table["columns"]), end="\n\n")


def draw(runs: list[dict[str, Any]], tasks: list[str], path: Path) -> None:
    """Scores by modality, held-out losses by balancing, scores by balancing."""
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 3))
    bars = {ARMS[arm][0]: [scores(runs, name, arm) for name in TRANSFERS] for arm in MODALITIES_SHOWN}
    labels = ["segmentation\nrgb", "segmentation\ndepth", "segmentation\nrgb+depth", "depth\nrgb"]
    grouped_bars(panels[0], labels, bars)
    panels[0].set_ylabel("mIoU or delta_1 on test scenes (%)")
    titles = {arm: ARMS[arm][0] for arm in BALANCERS}
    grouped_bars(
        panels[1],
        [*tasks, "worst"],
        {title: [losses(runs, arm, task) for task in [*tasks, "worst"]] for arm, title in titles.items()},
    )
    panels[1].set_ylabel("loss on held-out scenes")
    downstream = ["segmentation-rgb", "depth-rgb"]
    grouped_bars(
        panels[2],
        ["segmentation\nrgb", "depth\nrgb"],
        {title: [scores(runs, name, arm) for name in downstream] for arm, title in titles.items()},
    )
    panels[2].set_ylabel("mIoU or delta_1 on test scenes (%)")
    for axes, title in zip(panels, ("pre-training", "balancing: upstream", "balancing: downstream"), strict=True):
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle(f"Scenes, {LABELLED} labelled; mean over seeds with 95 % intervals", fontsize=11)
    figure.savefig(path, dpi=120)


def print_plan(missing: list[tuple[str, str, int]]) -> None:
    """Minutes that the missing runs take on one core, as timed once."""
    encoders = {(arm, seed) for _, arm, seed in missing if arm != "scratch"}
    transfers = sum(what != "pretraining" for what, _, _ in missing)
    minutes = sum(MINUTES.get(arm, MINUTES["balancer"]) for arm, _ in encoders) + transfers * MINUTES["transfer"]
    print(f"{len(encoders)} encoders, {transfers} transfers: about {minutes:.0f} minutes on one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--transfers", nargs="*", choices=list(TRANSFERS), default=list(TRANSFERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of pre-training, instead of the recipe's: for a trial")
    parser.add_argument("--epochs", type=int, help="of fine-tuning, for a trial")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of one run")
    parser.add_argument("--work_dir", type=Path, help="folder of pre-trained encoders; default: a temporary one")
    parser.add_argument("--output", type=Path, default=RUNS, help="folder of the runs; trials need one of their own")
    parser.add_argument("--plan", action="store_true", help="say what is missing and how long it takes")
    parser.add_argument("--tables_only", action="store_true", help="make the tables and the plot of what has ended")
    options = parser.parse_args()
    if (options.steps or options.epochs) and options.output.resolve() == RUNS:
        parser.error("--steps and --epochs are for trials: name another folder with --output")
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s")
    missing = list(pending(options.arms, options.transfers, options.seeds, options.output))
    if options.plan:
        print_plan(missing)
        return
    if not options.tables_only:
        with tempfile.TemporaryDirectory() as temporary:
            work = options.work_dir or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            for what, arm, seed in missing:
                result = run(what, arm, seed, work, options)
                write_json(options.output / f"{what}-{arm}-{seed}.json", result)
                print(f"{what}-{arm}-{seed}: {result.get('test') or result['losses']}", flush=True)
    write_tables(options.output)


if __name__ == "__main__":
    main()
