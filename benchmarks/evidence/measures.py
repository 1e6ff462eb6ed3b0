"""How an encoder is measured: by probes on frozen features, by fine-tuning, or by its losses on held-out rows.

Every measure gives {"test": {score: value}, "validation": {score: value}}; shares lie between 0 and 1. Settings are chosen by the
validation scores, verdicts are reached by the test scores.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForPreTraining

from hf_maskssl.data import PreparedData, build_config, prepare_data
from hf_maskssl.data.processors import load_processor
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.baselines import baseline_scores, probed_splits, read_raw_inputs
from hf_maskssl.evaluation.features import Features, extract_features, level_of_task
from hf_maskssl.evaluation.masked_losses import masked_losses
from hf_maskssl.evaluation.online import draw_rows
from hf_maskssl.evaluation.probe import knn_probe, linear_probe
from hf_maskssl.evaluation.statistics import rankme
from hf_maskssl.models.configuration_pos_minimax_bert import NEXT_SENTENCE, PARTS_OF_SPEECH
from hf_maskssl.training.finetuning.sweep import finetune

from .claim import Claim
from .runs import Plan, Run, finetuning_recipe

Scores = dict[str, dict[str, float]]
LABELS_PER_CLASS = (5, 20)
FEW_LABEL_DRAWS = 5
KNN_ROWS = 20_000
# Labels per residue run into millions: this many proteins are probed.
TOKEN_LEVEL_SAMPLES = 1000
HELD_OUT_BATCHES = 16
HELD_OUT_MASKINGS = 2
COMMON_SHARE = 0.01  # a rarer task's loss is that of a few words


@dataclass(frozen=True)
class Measured:
    """What a measure looks at.

    Attributes:
        claim, run, plan: of the run.
        checkpoint: folder of the encoder; None where there is none.
        device: "cpu" or "cuda".
        work: folder for what is thrown away afterwards.
    """

    claim: Claim
    run: Run
    plan: Plan
    checkpoint: Path | None
    device: str
    work: Path


def measure(measured: Measured) -> Scores:
    """Scores of the claim's measure."""
    return _MEASURES[measured.claim.measure](measured)


def _probe(measured: Measured) -> Scores:
    """Linear and nearest-neighbour probes with all labels, and linear ones with few, on frozen features."""
    recipe, start = measured.plan.pretraining, measured.claim.arms[measured.run.arm].start
    config = build_config(recipe.model)
    processor = None if measured.checkpoint is None else load_processor(measured.checkpoint)
    data = measured.plan.probed
    prepared = prepare_data(data, config, processor, require_labels=True)
    task = data.task
    args = ProbeArguments(solver="exact", metric=recipe.probe.metric, knn_max_samples=KNN_ROWS)
    if start in ("raw_inputs", "majority"):
        return _baseline(prepared, task, args, measured)
    if measured.checkpoint is None:
        torch.manual_seed(measured.run.seed)
        encoder = AutoModelForPreTraining.from_config(config).base_model
    else:
        encoder = AutoModel.from_pretrained(measured.checkpoint)
    encoder = encoder.to(measured.device)
    level = level_of_task(task)
    features: dict[str, Features] = {}
    for name in ("train", "validation", "test"):
        rows = getattr(prepared, name)
        if rows is not None:
            chosen = draw_rows(rows, TOKEN_LEVEL_SAMPLES, 0) if level == "token" else rows
            features[name] = extract_features(encoder, chosen, prepared.collator, level=level, device=measured.device)
    return {
        split: _probe_scores(features["train"], features[split], features.get("validation"), task, args)
        for split in ("validation", "test")
        if split in features
    } | {"features": {"rankme": rankme(features["train"].values)}}


def _probe_scores(
    train: Features, held_out: Features, validation: Features | None, task: str, args: ProbeArguments
) -> dict[str, float]:
    metric = args.headline_metric(task)
    if validation is held_out:
        validation = None  # scored with the default penalty: it must not choose for itself
    scores = {
        "linear": linear_probe(train, held_out, task, args, 0, validation=validation)[metric],
        "knn": knn_probe(train, held_out, task, args, 0)[metric],
    }
    if task == "regression":
        return scores
    for count in _affordable(train.required_labels()):
        few = dataclasses.replace(args, labels_per_class=count)
        draws = [linear_probe(train, held_out, task, few, draw)[metric] for draw in range(FEW_LABEL_DRAWS)]
        scores[f"linear_{count}_labels"] = float(np.mean(draws))
    return scores


def _affordable(labels: np.ndarray) -> list[int]:
    """Numbers of labels a class that every class has."""
    fewest = np.unique(labels, return_counts=True)[1].min()
    return [count for count in LABELS_PER_CLASS if count <= fewest]


def _baseline(prepared: PreparedData, task: str, args: ProbeArguments, measured: Measured) -> Scores:
    """A plain model on the raw inputs, or none at all, with the same labels as the encoders."""
    metric, start = args.headline_metric(task), measured.claim.arms[measured.run.arm].start
    scores = {"linear": baseline_scores(prepared, task, args, 0)[start][metric]}
    if task == "classification":
        labels = read_raw_inputs(probed_splits(prepared)["train"], prepared, task).labels
        for count in _affordable(labels):
            few = dataclasses.replace(args, labels_per_class=count)
            draws = [baseline_scores(prepared, task, few, draw)[start][metric] for draw in range(FEW_LABEL_DRAWS)]
            scores[f"linear_{count}_labels"] = float(np.mean(draws))
    return {"test": scores}


def _finetune(measured: Measured) -> Scores:
    """Test and validation scores of one fine-tuning run; the epoch is chosen on validation rows."""
    assert measured.checkpoint is not None
    with tempfile.TemporaryDirectory(dir=measured.work) as folder:
        results = finetune(finetuning_recipe(measured.plan, measured.checkpoint, Path(folder)))
    record = results["runs"][0]
    return {"test": record["test"], "validation": record["validation"], "course": {"epoch": record["epoch"]}}


@torch.no_grad()
def _modality_losses(measured: Measured) -> Scores:
    """Every modality's loss on held-out scenes, with the same masks for every model of the same tokens."""
    assert measured.checkpoint is not None
    model = AutoModelForPreTraining.from_pretrained(measured.checkpoint).eval().to(measured.device)
    recipe = measured.plan.pretraining
    prepared: Any = prepare_data(recipe.data, model.config)
    found = {}
    for split in ("validation", "test"):
        rows = getattr(prepared, split)
        if rows is None:
            continue
        size, totals = recipe.training.batch_size, dict.fromkeys(model.outputs, 0.0)
        batches = min(HELD_OUT_BATCHES, len(rows) // size)
        for number in range(batches):
            batch = prepared.collator([rows[row] for row in range(number * size, (number + 1) * size)])
            inputs = {name: values.to(measured.device) for name, values in batch["inputs"].items()}
            torch.manual_seed(number)
            parts = model(inputs=inputs).loss_parts
            for name in totals:
                totals[name] += float(parts[name]) / batches
        found[split] = totals | {"worst": max(totals.values()), "mean": fmean(totals.values())}
    return found


def _word_losses(measured: Measured) -> Scores:
    """Losses of masked words by part of speech, on the same words whatever the model was pre-trained on."""
    assert measured.checkpoint is not None
    recipe = measured.plan.pretraining
    given: Any = recipe.data
    data = dataclasses.replace(given, mask_sampling="proportional", num_maskings=HELD_OUT_MASKINGS)
    every_task = build_config(recipe.model | {"tasks": list(PARTS_OF_SPEECH), "task_balancing": "none"})
    model = AutoModelForPreTraining.from_pretrained(measured.checkpoint).to(measured.device)
    prepared: Any = prepare_data(data, every_task, load_processor(measured.checkpoint))
    found = {}
    for split in ("validation", "test"):
        rows, sums = getattr(prepared, split), dict[str, list[float]]()
        for masking in range(HELD_OUT_MASKINGS):
            rows.set_epoch(masking)
            scores = masked_losses(model, rows, prepared.collator, PARTS_OF_SPEECH, device=measured.device)
            for task, score in scores.items():
                if score["count"]:
                    total = sums.setdefault(task, [0.0, 0.0, 0.0])
                    total[0] += score["loss"] * score["count"]
                    total[1] += score["accuracy"] * score["count"]
                    total[2] += score["count"]
        losses = {task: total[0] / total[2] for task, total in sums.items()}
        words = {task: total for task, total in sums.items() if task != NEXT_SENTENCE}
        pieces = sum(total[2] for total in words.values())
        common = [losses[task] for task, total in words.items() if total[2] >= COMMON_SHARE * pieces]
        found[split] = losses | {
            "worst": max(common),
            "mean": fmean(common),
            "pieces": sum(total[0] for total in words.values()) / pieces,
            "accuracy": sum(total[1] for total in words.values()) / pieces,
        }
    return found


_MEASURES: dict[str, Callable[[Measured], Scores]] = {
    "probe": _probe,
    "finetune": _finetune,
    "modality_losses": _modality_losses,
    "word_losses": _word_losses,
}
