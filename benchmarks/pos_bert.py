"""PoS-BERT on the Brown corpus: what balancing parts of speech does to each of them, and to what is fine-tuned afterwards.

    python benchmarks/pos_bert.py [--arms mlm none minimax ...] [--seeds 0 1 2] [--transfers cola rte sst2] [--plan]

A small BERT is pre-trained for every arm and seed from examples/recipes/pos_bert_brown.yaml, equal steps for all, and kept in
`--work_dir`. Arm "mlm" masks any word; it too is scored on the nine parts of speech, on the same masked words of held-out
documents. Then every encoder, and one without pre-training, is fine-tuned alike, one run for each seed; the epoch is chosen on
rows cut from the training split, and GLUE's development set is scored. Each result is written to
benchmarks/results/pos_bert/WHAT-ARM-SEED.json as it ends, and what has one is passed over: the tables can be made in pieces, by
several processes of different arms or seeds. All runs in a folder have the same settings. The data is found through
HF_MASKSSL_SHARED, the tagger's through NLTK_DATA or, failing that, beside the former.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import torch
from common import RECIPES, RESULTS, ROOT, device_name, interval, pretrain_once, read_runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import AutoModelForPreTraining

from hf_maskssl.data import build_config, prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.processors import load_processor
from hf_maskssl.data.tables.splits import read_splits
from hf_maskssl.data.text.tokenizers import train_wordpiece_on
from hf_maskssl.evaluation.masked_losses import masked_losses
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.models.configuration_pos_minimax_bert import NEXT_SENTENCE, PARTS_OF_SPEECH
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import PretrainingRecipe, load_pretraining_recipe
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import finetune


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all runs have in common; each is an option of the command line. Numbers of rows: 0 takes all."""

    steps: int = 600
    batch_size: int = 16
    length: int = 128  # at 64 nearly every second sequence is a single sentence, whose next one is always random
    learning_rate: float = 1e-3
    dropout: float = 0.0  # the paper's 0.1 is for forty passes over far more text
    vocab_size: int = 8000
    tags: str = "nltk"  # or "upos", the corpus's own, which know no interjections
    mask_sampling: str = "proportional"  # or "balanced" over the parts of speech, in training
    held_out_sampling: str = "proportional"  # the same when losses are measured
    held_out_maskings: int = 2  # of each sequence: words of the rare tasks are few
    dwa_interval: int = 100
    pretraining_rows: int = 0
    finetuning_learning_rate: float = 2e-4
    finetuning_epochs: float = 3.0
    finetuning_rows: int = 2000
    test_rows: int = 0


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A set of GLUE."""

    column: str | list[str]
    metric: str


RUNS = RESULTS / "pos_bert"
RECIPE = RECIPES / "pos_bert_brown.yaml"
SHARED = "${HF_MASKSSL_SHARED}/data"
# Arm -> title, changes to the recipe's model.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "scratch": ("no pre-training", {}),
    "mlm": ("MLM (any word)", {"tasks": ["mlm"], "task_balancing": "none"}),
    "none": ("none", {"task_balancing": "none"}),
    "minimax": ("minimax", {"task_balancing": "minimax"}),
    "uncertainty": ("uncertainty", {"task_balancing": "uncertainty"}),
    "gradnorm": ("GradNorm", {"task_balancing": "gradnorm"}),
    "dwa": ("DWA", {"task_balancing": "dwa"}),
    # Of its own accord alone: its weights follow running averages, as batches have no or few words of the rare tasks.
    "minimax_running": (
        "minimax, running losses",
        {"task_balancing": "minimax", "task_balancing_options": {"momentum": 0.9}},
    ),
}
DEFAULT_ARMS = [arm for arm in ARMS if arm != "minimax_running"]
BASELINES = ("none", "mlm")
TRANSFERS = {
    "cola": Transfer("sentence", "matthews"),
    "rte": Transfer(["sentence1", "sentence2"], "accuracy"),
    "sst2": Transfer("sentence", "accuracy"),
}
METRIC_TITLES = {"matthews": "Matthews", "accuracy": "accuracy"}
WARM_UP = 0.1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The paper's Table 5 but for the learning rate, which is for a large encoder there, and the epochs, of which it is silent.
FINETUNING: dict[str, Any] = {
    "batch_size": 32,
    "weight_decay": 0.1,
    "warmup_ratio": 0.06,
    "lr_scheduler_type": "linear",
    "adam_epsilon": 1e-6,
    "save_model": False,
}
VALIDATION_ROWS = 1000
COMMON_SHARE = 0.01  # a rarer task's loss is that of a few words
CHOICES = {"tags": ["nltk", "upos"]} | dict.fromkeys(
    ["mask_sampling", "held_out_sampling"], ["proportional", "balanced"]
)
CUTS = [
    "pre-trained on 394 documents of the Brown corpus instead of Wikipedia and BooksCorpus, 4 layers of width 256",
    "GLUE: development set as test set; validation: 10 % of the training rows, at most 1,000",
]
SECONDS_A_STEP, TRANSFER_MINUTES = 0.5, 2.0  # on one core


# Runs.


def pending(arms: list[str], transfers: list[str], seeds: list[int], folder: Path) -> Iterator[tuple[str, str, int]]:
    """(what, arm, seed) of results that are missing, a seed after the other; what is "pretraining" or a transfer."""
    for seed in seeds:
        for arm in arms:
            wanted = [*([] if arm == "scratch" else ["pretraining"]), *transfers]
            yield from ((what, arm, seed) for what in wanted if not (folder / f"{what}-{arm}-{seed}.json").exists())


def pretraining_recipe(arm: str, seed: int, folder: Path, settings: Settings) -> PretrainingRecipe:
    fields: dict[str, Any] = {
        "model.vocab_size": settings.vocab_size,
        "model.hidden_dropout_prob": settings.dropout,
        "model.attention_probs_dropout_prob": settings.dropout,
        "model.max_position_embeddings": settings.length,
        "data.wordpiece_size": settings.vocab_size,
        "data.sequence_length": settings.length,
        "data.mask_sampling": settings.mask_sampling,
        "training.seed": seed,
        "training.output_dir": str(folder),
        "training.max_steps": settings.steps,
        "training.warmup_steps": round(WARM_UP * settings.steps),
        "training.batch_size": settings.batch_size,
        "training.learning_rate": settings.learning_rate,
        "training.eval_steps": 0,
        "training.save_steps": 0,
    }
    if settings.tags == "nltk":
        fields |= {"data.tag_column": None, "data.tagger": "nltk"}
    if settings.pretraining_rows:
        names = ("train", "validation", "test")
        fields |= {f"data.max_{name}_samples": settings.pretraining_rows for name in names}
    words = [word for name, value in fields.items() for word in (f"--{name}", "null" if value is None else str(value))]
    recipe = load_pretraining_recipe(RECIPE, words)
    changes = dict(ARMS[arm][1])
    if arm == "dwa":
        changes["task_balancing_options"] = {"interval": settings.dwa_interval}
    return dataclasses.replace(recipe, model=recipe.model | changes)


def pretrained(arm: str, seed: int, work: Path, settings: Settings) -> tuple[Path, dict[str, Any]]:
    """The folder of an encoder, pre-trained now unless it is there, and what became of its training."""
    recipe = pretraining_recipe(arm, seed, work / f"{arm}-{seed}", settings)
    return pretrain_once(recipe, {"recipe": RECIPE.stem, "changes": ARMS[arm][1]})


def held_out_scores(folder: Path, settings: Settings) -> dict[str, dict[str, Any]]:
    """Losses of the nine tasks in both held-out splits, on the same masked words whatever the model was pre-trained on."""
    recipe = pretraining_recipe("none", 0, folder, settings)
    sampling: Any = settings.held_out_sampling
    given: Any = recipe.data
    data = dataclasses.replace(given, mask_sampling=sampling, num_maskings=settings.held_out_maskings)
    model = AutoModelForPreTraining.from_pretrained(folder).to(DEVICE)
    prepared: Any = prepare_data(data, build_config(recipe.model), load_processor(folder))
    scores = {}
    for split in ("validation", "test"):
        rows, passes = getattr(prepared, split), []
        for masking in range(settings.held_out_maskings):
            rows.set_epoch(masking)
            passes.append(masked_losses(model, rows, prepared.collator, PARTS_OF_SPEECH, device=DEVICE))
        scores[split] = {task: pooled([found[task] for found in passes if task in found]) for task in passes[0]}
    return scores


def pooled(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means over the pieces of several passes."""
    known = [score for score in scores if score["count"]]
    count = sum(score["count"] for score in known)
    means = {name: sum(score[name] * score["count"] for score in known) for name in ("loss", "accuracy")}
    return {name: value / count if count else None for name, value in means.items()} | {"count": count}


def vocabulary(settings: Settings) -> dict[str, int]:
    """That of every arm; the data cache has it where an encoder was pre-trained."""
    data = pretraining_recipe("none", 0, Path(), settings).data
    return train_wordpiece_on(read_splits(data)["train"], str(data.input_column), settings.vocab_size)


def finetuning_recipe(
    what: str, seed: int, checkpoint: Path | None, folder: Path, settings: Settings
) -> FinetuningRecipe:
    """The same for every arm but for the weights it starts from."""
    transfer = TRANSFERS[what]
    data: dict[str, Any] = {
        "source": "parquet",
        "data_dir": f"{SHARED}/text/{what}",
        "data_files": {"train": "train.parquet", "dev": "dev.parquet"},
        "test_split": "dev",
        "validation_fraction": 0.1,
        "max_train_samples": settings.finetuning_rows or None,
        "max_validation_samples": VALIDATION_ROWS,
        "max_test_samples": settings.test_rows or None,
        "kind": "tokens",
        "input_column": transfer.column,
        "label_column": "label",
    }
    model: dict[str, Any] = {}
    if checkpoint is None:
        pieces = folder / "vocab.txt"
        pieces.write_text("\n".join(vocabulary(settings)) + "\n", encoding="utf-8")
        data["tokenizer"] = str(pieces)
        model = pretraining_recipe("none", seed, folder, settings).model
    arguments = FinetuningArguments(
        **FINETUNING,
        checkpoint=None if checkpoint is None else str(checkpoint),
        output_dir=str(folder / "runs"),
        seeds=[seed],
        learning_rate=settings.finetuning_learning_rate,
        num_train_epochs=settings.finetuning_epochs,
        metric=transfer.metric,
    )
    return FinetuningRecipe(model=model, data=data_arguments(**data), finetuning=arguments)


def run(what: str, arm: str, seed: int, work: Path, settings: Settings, threads: int) -> dict[str, Any]:
    """The result of one file."""
    checkpoint, pretraining = None, None
    if arm != "scratch":
        checkpoint, pretraining = pretrained(arm, seed, work, settings)
    result = {"what": what, "arm": arm, "seed": seed, "settings": dataclasses.asdict(settings)}
    result |= {"pretraining": pretraining, "hardware": device_name(DEVICE, threads), "torch": torch.__version__}
    started = time.perf_counter()
    if what == "pretraining":
        assert checkpoint is not None
        processor: Any = load_processor(checkpoint)
        pieces = json.dumps(processor.get_vocab(), sort_keys=True)
        result["vocabulary"] = hashlib.sha256(pieces.encode()).hexdigest()
        scores = held_out_scores(checkpoint, settings)
        counts = {split: {task: score["count"] for task, score in found.items()} for split, found in scores.items()}
        return result | scores | {"masked_pieces": counts, "seconds": round(time.perf_counter() - started, 1)}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        found = finetune(finetuning_recipe(what, seed, checkpoint, Path(folder), settings))
    record = found["runs"][0]
    return result | {
        "test": record["test"],
        "validation": record["validation"],
        "rows": found["rows"],
        "epoch": record["epoch"],
        "seconds": round(time.perf_counter() - started, 1),
        "finetuning": FINETUNING,
    }


def check_alike(runs: Sequence[dict[str, Any]], settings: Settings | None) -> None:
    """Refuse to put runs beside each other, or beside those to come, that differ in more than arm and seed."""
    for name in ("settings", "vocabulary", "masked_pieces"):
        found = {f"{r['what']}-{r['arm']}-{r['seed']}": r[name] for r in runs if name in r}
        wanted: Any = next(iter(found.values()), None)
        if settings is not None and name == "settings":
            wanted = dataclasses.asdict(settings)
        for file, value in found.items():
            if value == wanted:
                continue
            if name == "settings":
                keys = [key for key in {**value, **wanted} if value.get(key) != wanted.get(key)]
                value, wanted = ({key: part.get(key) for key in keys} for part in (value, wanted))
            raise SystemExit(
                f"{file}.json has {name} {value}, not {wanted}: name another --output (and --work_dir), or the same options."
            )


# The tables and the plot.

Cell = dict[str, float | None] | None
SUMMARIES = {"worst": "worst", "common": "worst that is not rare", "mean": "mean", "pieces": "mean over pieces"}


def held_out(runs: list[dict[str, Any]], arm: str, split: str) -> dict[int, dict[str, Any]]:
    """Seed -> scores of every task."""
    return {r["seed"]: r[split] for r in runs if (r["what"], r["arm"]) == ("pretraining", arm)}


def loss_of(scores: dict[str, Any], task: str) -> float:
    """A task's loss, or one of all: "worst" is the largest, "common" the largest of tasks that are not rare, "mean" the mean
    over tasks and "pieces" that over masked pieces."""
    parts = [scores[name] for name in PARTS_OF_SPEECH if scores[name]["count"]]
    if task == "worst":
        return max(part["loss"] for part in parts)
    if task == "common":
        least = COMMON_SHARE * sum(part["count"] for part in parts)
        return max(part["loss"] for part in parts if part["count"] >= least)
    if task == "mean":
        return fmean(part["loss"] for part in parts)
    if task == "pieces":
        return sum(part["loss"] * part["count"] for part in parts) / sum(part["count"] for part in parts)
    return scores[task]["loss"]


def losses(runs: list[dict[str, Any]], arm: str, split: str, task: str) -> Cell:
    """Over seeds; None where no run has ended or the split has no word of the task."""
    found = [loss_of(scores, task) for scores in held_out(runs, arm, split).values()]
    return None if None in found else interval(found, factor=1)


def loss_difference(runs: list[dict[str, Any]], arm: str, baseline: str, split: str, task: str) -> Cell:
    """By how many thousandths a loss is above the baseline's, seed by seed."""
    ours, theirs = held_out(runs, arm, split), held_out(runs, baseline, split)
    seeds = sorted(ours.keys() & theirs.keys())
    return interval([loss_of(ours[seed], task) - loss_of(theirs[seed], task) for seed in seeds], factor=1000)


def transfer_scores(runs: list[dict[str, Any]], arm: str, what: str) -> dict[int, float]:
    """Seed -> test score; "mean": that of all transfers, of seeds that have all."""
    if what == "mean":
        each = [transfer_scores(runs, arm, name) for name in TRANSFERS]
        return {seed: fmean(scores[seed] for scores in each) for seed in set.intersection(*map(set, each))}
    metric = TRANSFERS[what].metric
    return {r["seed"]: r["test"][metric] for r in runs if (r["what"], r["arm"]) == (what, arm)}


def transfer_gain(runs: list[dict[str, Any]], arm: str, baseline: str, what: str) -> Cell:
    """How many points `arm` is above `baseline`, seed by seed."""
    ours, theirs = transfer_scores(runs, arm, what), transfer_scores(runs, baseline, what)
    return interval([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def losses_table(runs: list[dict[str, Any]], arms: list[str], split: str) -> dict[str, list[Any]]:
    columns = ["balancing", *PARTS_OF_SPEECH, *SUMMARIES.values(), "next sentence", "next sentence, accuracy %"]
    rows: list[list[Any]] = []
    for arm in arms:
        names = [*PARTS_OF_SPEECH, *SUMMARIES]
        sentences = [scores.get(NEXT_SENTENCE) for scores in held_out(runs, arm, split).values()]
        found = [score for score in sentences if score is not None]
        row: list[Any] = [ARMS[arm][0], *(losses(runs, arm, split, name) for name in names)]
        row += [interval([score["loss"] for score in found], factor=1), interval([s["accuracy"] for s in found])]
        rows.append(row)
    scores = next(r[split] for r in runs if r["what"] == "pretraining")
    counts = [scores[name]["count"] for name in PARTS_OF_SPEECH]
    rows.append(["masked pieces", *counts, *[None] * len(SUMMARIES), scores.get(NEXT_SENTENCE, {}).get("count"), None])
    return {"columns": columns, "rows": rows}


def accuracy_table(runs: list[dict[str, Any]], arms: list[str]) -> dict[str, list[Any]]:
    """Per cent of masked pieces of the test documents whose likeliest piece is the true one."""
    rows = []
    for arm in arms:
        found = held_out(runs, arm, "test").values()
        shares = [[scores[name]["accuracy"] for scores in found] for name in PARTS_OF_SPEECH]
        rows.append([ARMS[arm][0], *(None if None in values else interval(values) for values in shares)])
    return {"columns": ["balancing", *PARTS_OF_SPEECH], "rows": rows}


def differences_table(runs: list[dict[str, Any]], arms: list[str]) -> dict[str, list[Any]]:
    """Test losses beside those of the baselines."""
    columns = ["balancing, 1/1000"]
    columns += [f"{title} - {ARMS[base][0]}'s" for base in BASELINES for title in SUMMARIES.values()]
    rows = [
        [
            ARMS[arm][0],
            *(
                None if arm == base else loss_difference(runs, arm, base, "test", name)
                for base in BASELINES
                for name in SUMMARIES
            ),
        ]
        for arm in arms
    ]
    return {"columns": columns, "rows": rows}


def transfer_table(runs: list[dict[str, Any]], arms: list[str]) -> dict[str, list[Any]]:
    names = [f"{what}, {METRIC_TITLES[transfer.metric]}" for what, transfer in TRANSFERS.items()]
    rows = []
    for arm in arms:
        row = [interval(list(transfer_scores(runs, arm, what).values())) for what in [*TRANSFERS, "mean"]]
        gains = [None if arm == base else transfer_gain(runs, arm, base, "mean") for base in BASELINES]
        rows.append([ARMS[arm][0], *row, *gains])
    return {"columns": ["pre-training", *names, "mean", *(f"mean - {ARMS[b][0]}'s" for b in BASELINES)], "rows": rows}


def transfer_gains_table(runs: list[dict[str, Any]], arms: list[str]) -> dict[str, list[Any]]:
    pairs = [(what, base) for base in BASELINES for what in TRANSFERS]
    rows = [
        [ARMS[arm][0], *(None if arm == base else transfer_gain(runs, arm, base, what) for what, base in pairs)]
        for arm in arms
    ]
    return {"columns": ["pre-training", *(f"{what} - {ARMS[base][0]}'s" for what, base in pairs)], "rows": rows}


def write_tables(folder: Path) -> None:
    """pos_bert.json and .png beside `folder`, from whatever has ended."""
    runs = read_runs(folder)
    if not runs:
        raise SystemExit(f"There is no result in {folder}: run without --tables_only first.")
    check_alike(runs, None)
    arms = [arm for arm in ARMS if any(r["arm"] == arm for r in runs)]
    upstream = [arm for arm in arms if held_out(runs, arm, "test")]
    downstream = [arm for arm in arms if any(transfer_scores(runs, arm, what) for what in TRANSFERS)]
    tables: dict[str, dict[str, list[Any]]] = {}
    if upstream:
        tables["losses"] = losses_table(runs, upstream, "test")
        tables["differences"] = differences_table(runs, upstream)
        tables["validation"] = losses_table(runs, upstream, "validation")
        tables["accuracy"] = accuracy_table(runs, upstream)
    if downstream:
        tables["transfer"] = transfer_table(runs, downstream)
        tables["transfer_gains"] = transfer_gains_table(runs, downstream)
    write_json(
        folder.with_suffix(".json"),
        {
            "what": "held-out losses of masked words (natural logarithm) and test scores in per cent after fine-tuning, mean and "
            "95 % interval over seeds; differences are taken seed by seed",
            "table": next(iter(tables.values())),
            "tables": tables,
            "seeds": sorted({r["seed"] for r in runs}),
            "settings": runs[0]["settings"],
            "finetuning": FINETUNING,
            "cuts": CUTS,
            "hardware": sorted({r["hardware"] for r in runs}),
            "runs": [brief(r) for r in runs],
        },
    )
    draw(runs, arms, folder.with_suffix(".png"))
    for name, table in tables.items():
        print(name, markdown_table(table["rows"], table["columns"]), sep="\n\n", end="\n\n")


def brief(result: dict[str, Any]) -> dict[str, Any]:
    head = {key: result[key] for key in ("what", "arm", "seed", "seconds")}
    if result["what"] != "pretraining":
        return head | {"test": result["test"], "validation": result["validation"], "epoch": result["epoch"]}
    scores = {task: result["test"][task]["loss"] for task in PARTS_OF_SPEECH}
    worst = max((task for task in scores if scores[task] is not None), key=lambda task: scores[task])
    return head | {"test": scores, "worst": worst, "pretraining_seconds": result["pretraining"]["seconds"]}


def draw(runs: list[dict[str, Any]], arms: list[str], path: Path) -> None:
    """Losses by task, differences to no balancing, scores after fine-tuning; an arm has the same colour in all."""
    figure = Figure(figsize=(18, 5.2), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 3, width_ratios=[2, 2, 1]))
    names = [*PARTS_OF_SPEECH, *SUMMARIES]
    # The corpus's own tags know no interjections.
    names = [name for name in names if any(losses(runs, arm, "test", name) for arm in arms)]
    named = [SUMMARIES.get(name, name) for name in names]
    bars = {ARMS[arm][0]: [losses(runs, arm, "test", name) for name in names] for arm in arms}
    differences = {
        ARMS[arm][0]: [None if arm == "none" else loss_difference(runs, arm, "none", "test", name) for name in names]
        for arm in arms
    }
    scores = {
        ARMS[arm][0]: [interval(list(transfer_scores(runs, arm, what).values())) for what in TRANSFERS] for arm in arms
    }
    labels = [f"{what}\n{METRIC_TITLES[transfer.metric]}" for what, transfer in TRANSFERS.items()]
    for axes, groups, cells, title, unit in (
        (panels[0], named, bars, "masked words of test documents", "loss"),
        (panels[1], named, differences, "the same, beside no balancing", "loss - none's, 1/1000"),
        (panels[2], labels, scores, "fine-tuned", "score on GLUE's development sets (%)"),
    ):
        grouped_bars(axes, groups, cells)
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(unit)
    for label in [label for axes in panels[:2] for label in axes.get_xticklabels()]:
        label.set(rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    panels[1].axhline(0, color="black", linewidth=0.8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms), frameon=False)
    figure.suptitle("PoS-BERT on the Brown corpus, mean over seeds with 95 % intervals", fontsize=11)
    figure.savefig(path, dpi=120)


def print_plan(missing: list[tuple[str, str, int]], settings: Settings) -> None:
    """Minutes that the missing runs take on one core, roughly."""
    encoders = {(arm, seed) for _, arm, seed in missing if arm != "scratch"}
    transfers = sum(what != "pretraining" for what, _, _ in missing)
    minutes = len(encoders) * settings.steps * SECONDS_A_STEP / 60 + transfers * TRANSFER_MINUTES
    print(f"{len(encoders)} encoders, {transfers} transfers: about {minutes:.0f} minutes on one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=DEFAULT_ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--transfers", nargs="*", choices=list(TRANSFERS), default=list(TRANSFERS))
    for field in dataclasses.fields(Settings):
        known: dict[str, Any] = {"type": type(field.default), "choices": CHOICES.get(field.name)}
        parser.add_argument(f"--{field.name}", default=field.default, help="%(default)s", **known)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of one run")
    parser.add_argument("--work_dir", type=Path, help="folder of pre-trained encoders; default: a temporary one")
    parser.add_argument("--output", type=Path, default=RUNS, help="folder of the runs; trials need one of their own")
    parser.add_argument("--plan", action="store_true", help="say what is missing and how long it takes")
    parser.add_argument("--tables_only", action="store_true", help="make the tables and the plot of what has ended")
    parser.add_argument("--verbose", action="store_true", help="log every validation")
    options = parser.parse_args()
    settings = Settings(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Settings)})
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO if options.verbose else logging.WARNING)
    shared = os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    os.environ.setdefault("NLTK_DATA", f"{shared}/data/nltk_data")
    missing = list(pending(options.arms, options.transfers, options.seeds, options.output))
    if options.plan:
        print_plan(missing, settings)
        return
    if not options.tables_only:
        check_alike(read_runs(options.output), settings)
        with tempfile.TemporaryDirectory() as temporary:
            work = options.work_dir or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            for what, arm, seed in missing:
                result = run(what, arm, seed, work, settings, options.threads)
                write_json(options.output / f"{what}-{arm}-{seed}.json", result)
                shown = result["test"]
                if what == "pretraining":
                    shown = {name: round(loss_of(shown, name), 3) for name in ("worst", "mean")}
                print(f"{what}-{arm}-{seed}: {shown}, {result['seconds']:.0f} s", flush=True)
    write_tables(options.output)


if __name__ == "__main__":
    main()
