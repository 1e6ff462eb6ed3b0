"""Fine-tuning after guided, random and (text) word masking, and without pre-training, on small real data sets.

    python benchmarks/sma_transfer.py [--tasks higgs bbbp ...] [--arms none guided ...] [--seeds 0 1 2] [--plan]

Each run's result is written to benchmarks/results/sma_transfer/TASK-ARM-SEED.json as it ends, and runs that have one are
passed over: the table can be made in pieces, by several processes (of different domains, which share a pre-trained encoder).
An encoder is pre-trained for every domain, arm and seed from a recipe in examples/recipes, kept in `--work_dir`. Every arm is
fine-tuned alike. The epoch is chosen on the validation split; test labels choose nothing. The data is found through
HF_MASKSSL_SHARED.
"""

import argparse
import dataclasses
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from common import RECIPES, RESULTS, ROOT, device_name, interval, pretrain_once, read_runs
from matplotlib.figure import Figure

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.evaluation.metrics import LOWER_IS_BETTER
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import PretrainingRecipe, load_pretraining_recipe
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune

RUNS = RESULTS / "sma_transfer"
SHARED = "${HF_MASKSSL_SHARED}/data"
TITLES = {"none": "no pre-training", "random": "random", "word": "word", "guided": "guided (SMA)"}


@dataclass(frozen=True)
class Domain:
    """What the tasks of a domain have in common.

    Attributes:
        recipe: of pre-training, in examples/recipes; its masking is guided.
        arms: the other maskings, as changes to the recipe.
        finetuning: fields of `FinetuningArguments`, the same for every arm. HIGGS's learning rate was chosen on the
            validation scores of seed 0, of all arms; the other domains' is not tuned.
        minutes: of one pre-training run on one core.
        cuts: in what the runs are smaller than the paper's.
    """

    recipe: str
    arms: dict[str, list[str]]
    finetuning: dict[str, Any]
    minutes: float
    cuts: list[str]


@dataclass(frozen=True)
class Task:
    """A labelled data set.

    Attributes:
        domain: name in `DOMAINS`.
        metric: chooses the epoch and is shown.
        data: fields of `DataArguments`.
        finetuning: where it differs from the domain's.
        minutes: of one fine-tuning run on one core.
        cuts: as of the domain.
    """

    domain: str
    metric: str
    data: dict[str, Any]
    finetuning: dict[str, Any] = dataclasses.field(default_factory=dict)
    minutes: float = 1.0
    cuts: list[str] = dataclasses.field(default_factory=list)


def molecules(name: str, metric: str, epochs: int, minutes: float) -> Task:
    """A set of MoleculeNet with deepchem's scaffold split."""
    return Task(
        domain="molecules",
        metric=metric,
        data={
            "source": "parquet",
            "data_files": {"train": f"{SHARED}/moleculenet/{name}.parquet"},
            "split": "scaffold",
            "kind": "tokens",
            "input_column": "smiles",
            "label_column": "label",
            "task": "regression" if metric == "rmse" else "classification",
            "tokenizer": "utf-8",
        },
        finetuning={"num_train_epochs": epochs},
        minutes=minutes,
    )


def sentences(name: str, column: str | list[str], metric: str, epochs: int, minutes: float, cuts: list[str]) -> Task:
    """A set of GLUE: its development set is the test set, and validation rows come out of the training set."""
    return Task(
        domain="text",
        metric=metric,
        data={
            "source": "parquet",
            "data_dir": f"{SHARED}/text/{name}",
            "data_files": {"train": "train.parquet", "dev": "dev.parquet"},
            "test_split": "dev",
            "validation_fraction": 0.1,
            "max_train_samples": 4000,
            "max_validation_samples": 1000,
            "kind": "tokens",
            "input_column": column,
            "label_column": "label",
            "tokenizer": "utf-8",
        },
        finetuning={"num_train_epochs": epochs},
        minutes=minutes,
        cuts=[
            "development set as test set (as the paper); validation: 10 % of the training rows, at most 1,000",
            *cuts,
        ],
    )


DOMAINS = {
    "physics": Domain(
        recipe="sma_higgs_shared",
        arms={"random": ["--masking", "random", "--mask_ratio", "0.5", "--mask_schedule", "none"]},
        finetuning={"learning_rate": 3e-4, "num_train_epochs": 20, "batch_size": 64},
        minutes=2.0,
        cuts=["pre-trained on 6,300 rows instead of 10.5 million"],
    ),
    "molecules": Domain(
        recipe="sma_smiles_corpus",
        arms={"random": ["--masking", "random", "--mask_schedule", "none"]},
        finetuning={"learning_rate": 5e-4, "batch_size": 32},
        minutes=3.3,
        cuts=[
            "pre-trained on 70,527 molecules instead of GuacaMol's 1.3 million",
            "SMILES are cut at 96 characters instead of 256",
            "4 layers of width 96 instead of 12 of 768",
        ],
    ),
    "proteins": Domain(
        recipe="sma_protein_corpus",
        arms={"random": ["--masking", "random", "--mask_ratio", "0.2", "--mask_schedule", "none"]},
        finetuning={"learning_rate": 5e-4, "batch_size": 64},
        minutes=2.0,
        cuts=[
            "pre-trained on 9,712 proteins instead of Pfam's 32 million domains",
            "proteins are cut at 256 residues instead of 1,024",
            "4 layers, 32 latents, width 96 instead of 16 layers, 256 latents, width 1,024",
        ],
    ),
    "text": Domain(
        recipe="sma_brown",
        arms={
            "random": ["--masking", "random", "--mask_ratio", "0.2", "--mask_schedule", "none"],
            "word": ["--masking", "word", "--word_delimiter_id", "38", "--mask_schedule", "none"],
        },
        finetuning={"learning_rate": 5e-4, "batch_size": 64},
        minutes=2.5,
        cuts=[
            "pre-trained on the Brown corpus (4.8 MB) instead of Wikipedia and BooksCorpus",
            "texts are cut at 64 bytes instead of 1,024",
            "self-attention, 4 layers of width 96 instead of cross-attention, 16 layers, 256 latents, width 1,024",
        ],
    ),
}

TASKS = {
    "higgs": Task(
        domain="physics",
        metric="accuracy",
        data={
            "source": "parquet",
            "data_dir": f"{SHARED}/higgs_small",
            "data_files": {"train": "train.parquet", "test": "test.parquet"},
            "test_split": "test",
            "validation_fraction": 0.1,
            "kind": "tabular",
            "label_column": "label",
        },
        finetuning={"labelled_samples": 1000},
        minutes=0.5,
        cuts=["fine-tuned on 1,000 rows drawn by the seed, the epoch chosen on 700 other rows"],
    ),
    "bbbp": molecules("bbbp", "roc_auc", 10, 0.7),
    "bace": molecules("bace", "roc_auc", 10, 0.6),
    "esol": molecules("esol", "rmse", 15, 0.4),
    "freesolv": molecules("freesolv", "rmse", 25, 0.4),
    "lipo": molecules("lipo", "rmse", 10, 1.2),
    "fluorescence": Task(
        domain="proteins",
        metric="spearman",
        data={
            "source": "parquet",
            "data_dir": f"{SHARED}/proteins/fluorescence",
            "data_files": {"train": "train.parquet", "valid": "valid.parquet", "test": "test.parquet"},
            "validation_split": "valid",
            "test_split": "test",
            "max_train_samples": 8000,
            "max_validation_samples": 1000,
            "kind": "tokens",
            "input_column": "primary",
            "label_column": "log_fluorescence",
            "task": "regression",
            "alphabet": "XARNDCQEGHILKMFPSTWYVUOBZJ*",
        },
        finetuning={"num_train_epochs": 6},
        minutes=1.5,
        cuts=[
            "fine-tuned on 8,000 of 21,446 rows, the epoch chosen on 1,000 of 5,362; all 27,217 test rows are scored"
        ],
    ),
    "cola": sentences("cola", "sentence", "matthews", 5, 0.5, ["4,000 training rows"]),
    "rte": sentences(
        "rte", ["sentence1", "sentence2"], "accuracy", 5, 0.4, ["nearly all pairs are longer than 64 bytes and cut"]
    ),
    "sst2": sentences("sst2", "sentence", "accuracy", 5, 0.5, ["4,000 of 67,349 training rows"]),
}
ARMS = list(TITLES)


@dataclass(frozen=True)
class Scale:
    """Changes for a short trial: steps instead of the recipe's and of the epochs."""

    pretraining_steps: int | None
    finetuning_steps: int | None


# Runs.


def arms_of(task: str) -> list[str]:
    return [arm for arm in ARMS if arm in ("none", "guided") or arm in DOMAINS[TASKS[task].domain].arms]


def pending(tasks: list[str], arms: list[str], seeds: list[int], folder: Path) -> Iterator[tuple[str, str, int]]:
    """Runs without a result: all tasks with one seed before the next, and all tasks of an encoder one after the other."""
    for seed in seeds:
        for domain in DOMAINS:
            for arm in arms:
                for task in [name for name in tasks if TASKS[name].domain == domain]:
                    if arm in arms_of(task) and not (folder / f"{task}-{arm}-{seed}.json").exists():
                        yield task, arm, seed


def pretraining_recipe(domain: Domain, arm: str, seed: int, folder: Path, scale: Scale) -> PretrainingRecipe:
    changes = [*domain.arms.get(arm, []), "--training.seed", str(seed), "--training.output_dir", str(folder)]
    changes += ["--training.save_steps", "0"]
    if scale.pretraining_steps is not None:
        steps = scale.pretraining_steps
        changes += ["--training.max_steps", str(steps), "--training.warmup_steps", str(steps // 10)]
    return load_pretraining_recipe(RECIPES / f"{domain.recipe}.yaml", changes)


def pretrained(name: str, arm: str, seed: int, work: Path, scale: Scale) -> tuple[Path, dict[str, Any]]:
    """The folder of an encoder, pre-trained now unless it is there, and what became of its training; as `pretrain_once`."""
    recipe = pretraining_recipe(DOMAINS[name], arm, seed, work / f"{name}-{arm}-{seed}", scale)
    return pretrain_once(recipe, {"recipe": DOMAINS[name].recipe, "changes": DOMAINS[name].arms.get(arm, [])})


def finetuning_recipe(
    task: Task, arm: str, seed: int, checkpoint: Path | None, output: Path, scale: Scale
) -> FinetuningRecipe:
    """The same for every arm but for the weights it starts from."""
    domain = DOMAINS[task.domain]
    fields: dict[str, Any] = {
        "weight_decay": 0.01,
        "warmup_ratio": 0.1,
        "lr_scheduler_type": "cosine",
    } | domain.finetuning
    fields |= task.finetuning | {"metric": task.metric, "seeds": [seed], "save_model": False}
    fields |= {"checkpoint": None if checkpoint is None else str(checkpoint), "output_dir": str(output)}
    if scale.finetuning_steps is not None:
        fields |= {"max_steps": scale.finetuning_steps, "eval_steps": max(1, scale.finetuning_steps // 2)}
    model = {} if checkpoint is not None else load_pretraining_recipe(RECIPES / f"{domain.recipe}.yaml").model
    return FinetuningRecipe(model=model, data=data_arguments(**task.data), finetuning=FinetuningArguments(**fields))


def run(name: str, arm: str, seed: int, work: Path, scale: Scale, threads: int) -> dict[str, Any]:
    """Pre-train unless it has been done, fine-tune, score; the result of one file."""
    task = TASKS[name]
    checkpoint, pretraining = None, None
    if arm != "none":
        checkpoint, pretraining = pretrained(task.domain, arm, seed, work, scale)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        recipe = finetuning_recipe(task, arm, seed, checkpoint, Path(folder), scale)
        started = time.perf_counter()
        results = finetune(recipe)
        seconds = time.perf_counter() - started
    record = results["runs"][0]
    settings = dataclasses.asdict(recipe.finetuning)
    shown = ("learning_rate", "batch_size", "num_train_epochs", "weight_decay", "warmup_ratio", "lr_scheduler_type")
    return {
        "task": name,
        "domain": task.domain,
        "arm": arm,
        "seed": seed,
        "metric": task.metric,
        "test": record["test"],
        "validation": record["validation"],
        "epoch": record["epoch"],
        "steps": record["steps"],
        "seconds": round(seconds, 1),
        "rows": results["rows"] | {"labelled": settings["labelled_samples"] or results["rows"]["train"]},
        "pretraining": pretraining,
        "finetuning": {field: settings[field] for field in shown},
        "model": load_pretraining_recipe(RECIPES / f"{DOMAINS[task.domain].recipe}.yaml").model,
        "cuts": [*DOMAINS[task.domain].cuts, *task.cuts],
        "hardware": device_name("cpu", threads),
        "torch": torch.__version__,
    }


def print_plan(runs: list[tuple[str, str, int]]) -> None:
    """Minutes that the missing runs take on one core, as timed once."""
    encoders = {(TASKS[task].domain, arm, seed) for task, arm, seed in runs if arm != "none"}
    rows: list[list[Any]] = []
    for name, domain in DOMAINS.items():
        wanted = [task for task, _, _ in runs if TASKS[task].domain == name]
        count = sum(encoder[0] == name for encoder in encoders)
        spent = (count * domain.minutes, sum(TASKS[task].minutes for task in wanted))
        rows.append([name, count, spent[0], len(wanted), spent[1], sum(spent)])
    rows.append(["all", *(sum(row[place] for row in rows) for place in range(1, 6))])
    print(markdown_table(rows, ["domain", "encoders", "minutes", "fine-tuning runs", "minutes", "minutes together"]))


# The tables and the plot.


def shown_factor(metric: str) -> float:
    """Errors keep the labels' unit, everything else is in per cent."""
    return 1 if metric in LOWER_IS_BETTER else 100


def scores(runs: list[dict[str, Any]], task: str, arm: str) -> dict[int, float]:
    """Test scores of a task and arm, by seed."""
    metric = TASKS[task].metric
    return {run["seed"]: run["test"][metric] for run in runs if (run["task"], run["arm"]) == (task, arm)}


def gain(runs: list[dict[str, Any]], task: str, arm: str, baseline: str) -> dict[str, float | None] | None:
    """How much better `arm` is than `baseline`, seed by seed; a smaller error counts as better."""
    ours, theirs = scores(runs, task, arm), scores(runs, task, baseline)
    factor = -1 if TASKS[task].metric in LOWER_IS_BETTER else 100
    return interval([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())], factor)


def title(task: str) -> str:
    metric = {"roc_auc": "ROC-AUC", "rmse": "RMSE", "matthews": "Matthews", "spearman": "Spearman"}
    return metric.get(TASKS[task].metric, TASKS[task].metric)


def test_noise(runs: list[dict[str, Any]], task: str) -> float | None:
    """95 % half width, in points, of an accuracy measured on that many test rows: 1.96 sqrt(p (1 - p) / n)."""
    found = [run for run in runs if run["task"] == task and "accuracy" in run["test"]]
    if not found:
        return None
    share = sum(run["test"]["accuracy"] for run in found) / len(found)
    return 100 * 1.96 * math.sqrt(share * (1 - share) / found[0]["rows"]["test"])


def write_tables(folder: Path) -> None:
    """sma_transfer.json and .png beside `folder`, from whatever runs have ended."""
    runs = read_runs(folder)
    if not runs:
        raise SystemExit(f"There is no result in {folder}: run without --tables_only first.")
    present = [task for task in TASKS if any(result["task"] == task for result in runs)]
    rows, gains = [], []
    for task in present:
        factor = shown_factor(TASKS[task].metric)
        of_task = [result for result in runs if result["task"] == task]
        counts = of_task[0]["rows"]
        head: list[Any] = [task, title(task) + (" ↓" if factor == 1 else ""), counts["labelled"], counts["test"]]
        rows.append([*head, *(interval(list(scores(runs, task, arm).values()), factor) for arm in ARMS)])
        pairs = [("random", "none"), ("guided", "none"), ("guided", "random"), ("guided", "word")]
        gains.append([*head[:2], *(gain(runs, task, *pair) for pair in pairs), test_noise(runs, task)])
    columns = ["task", "test score", "labelled rows", "test rows", *TITLES.values()]
    gain_columns = ["task", "score", "random - none", "guided - none", "guided - random", "guided - word"]
    gain_columns.append("± of an accuracy on the test rows")
    tables = {"scores": {"columns": columns, "rows": rows}, "gains": {"columns": gain_columns, "rows": gains}}
    write_json(
        folder.with_suffix(".json"),
        {
            "what": "test scores after fine-tuning, mean and 95 % interval over seeds; per cent, RMSE in the labels' unit",
            "gains": "improvement seed by seed (a lower RMSE is an improvement); last column: sampling noise of one score",
            "table": tables["scores"],
            "tables": tables,
            "seeds": sorted({result["seed"] for result in runs}),
            "cuts": {task: [*DOMAINS[TASKS[task].domain].cuts, *TASKS[task].cuts] for task in present},
            "hardware": sorted({result["hardware"] for result in runs}),
            "runs": [
                {key: result[key] for key in ("task", "arm", "seed", "epoch", "seconds")}
                | {split: result[split][result["metric"]] for split in ("validation", "test")}
                for result in runs
            ],
        },
    )
    draw(runs, present, folder.with_suffix(".png"))
    print(markdown_table(rows, columns))
    print(markdown_table(gains, gain_columns))


def draw(runs: list[dict[str, Any]], tasks: list[str], path: Path) -> None:
    """Scores in per cent to the left, errors to the right."""
    groups = [
        [task for task in tasks if (shown_factor(TASKS[task].metric) == 1) == errors] for errors in (False, True)
    ]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=[max(1, len(group)) for group in groups])
    for axes, group, factor in zip(panels, groups, (100, 1), strict=True):
        bars = {
            name: [interval(list(scores(runs, task, arm).values()), factor) for task in group]
            for arm, name in TITLES.items()
        }
        grouped_bars(axes, [f"{task}\n{title(task)}" for task in group], bars)
    panels[0].set_ylabel("test score (%), higher is better")
    panels[1].set_ylabel("test RMSE, lower is better")
    panels[0].legend(ncols=len(TITLES), loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
    figure.suptitle("Fine-tuning after pre-training, mean over seeds with 95 % intervals", fontsize=11)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of pre-training, instead of the recipe's: for a trial")
    parser.add_argument("--finetuning_steps", type=int, help="instead of the epochs: for a trial")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of one run")
    parser.add_argument("--work_dir", type=Path, help="folder of pre-trained encoders; default: a temporary one")
    parser.add_argument("--output", type=Path, default=RUNS, help="folder of the runs; trials need one of their own")
    parser.add_argument("--plan", action="store_true", help="say what is missing and how long it takes")
    parser.add_argument("--tables_only", action="store_true", help="make the tables and the plot of what has ended")
    parser.add_argument("--verbose", action="store_true", help="log every validation")
    options = parser.parse_args()
    scale = Scale(options.steps, options.finetuning_steps)
    if scale != Scale(None, None) and options.output.resolve() == RUNS:
        parser.error("--steps and --finetuning_steps are for trials: name another folder with --output")
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO if options.verbose else logging.WARNING)
    os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    missing = list(pending(options.tasks, options.arms, options.seeds, options.output))
    if options.plan:
        print_plan(missing)
        return
    if not options.tables_only:
        with tempfile.TemporaryDirectory() as temporary:
            work = options.work_dir or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            for task, arm, seed in missing:
                result = run(task, arm, seed, work, scale, options.threads)
                write_json(options.output / f"{task}-{arm}-{seed}.json", result)
                metric = result["metric"]
                print(
                    f"{task}-{arm}-{seed}: {metric} {result['test'][metric]:.4f} (validation "
                    f"{result['validation'][metric]:.4f}, epoch {result['epoch']:.4g}), {result['seconds']:.0f} s",
                    flush=True,
                )
    write_tables(options.output)


if __name__ == "__main__":
    main()
