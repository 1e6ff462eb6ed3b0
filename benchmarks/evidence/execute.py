"""One run from its settings to its file: pre-train the encoder unless it is there, measure, write."""

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from common import device_name
from transformers import AutoModelForPreTraining

from hf_maskssl.data import build_config, prepare_data
from hf_maskssl.files import write_json
from hf_maskssl.training.sweeps.encoders import pretrain_encoder

from .claim import Claim, Settings
from .measures import Measured, measure
from .runs import Plan, Run, commit, plan_run, with_settings

CURVE_POINTS = 8  # of the validation accuracy over steps, beside that of the untrained encoder


class InterruptedRun(Exception):
    """The run was asked to stop; it goes on from its checkpoint."""


def execute(
    claim: Claim, run: Run, chosen: Settings, results: Path, work: Path, device: str, speed: Settings
) -> dict[str, Any]:
    """The result, written to its file.

    Args:
        claim, run: what is done.
        chosen: the settings that trials chose, or that are tried.
        results: folder of result files.
        work: folder of encoders and unfinished runs.
        device: "cpu" or "cuda".
        speed: fields of the training section that make the same run faster.

    Raises:
        InterruptedRun: SIGTERM came; nothing is written, and the same call goes on where it was.
    """
    plan = plan_run(claim, run, chosen)
    started = time.perf_counter()
    checkpoint: Path | None = None
    course: dict[str, Any] = {}
    needs_encoder = claim.arms[run.arm].start in ("pretrained", "untrained")
    if plan.is_pretrained:
        checkpoint, course = pretrain(
            plan, claim, work / "encoders" / f"{device}-{plan.encoder_digest}", device, speed
        )
    elif claim.measure == "finetune" and needs_encoder:
        checkpoint = untrained(plan, work / "encoders" / f"untrained-{plan.encoder_digest}")
    scores = measure(Measured(claim, run, plan, checkpoint, device, work))
    result = {
        "claim": run.claim,
        "data_set": run.data_set,
        "arm": run.arm,
        "seed": run.seed,
        "trial": run.trial,
        "digest": plan.digest,
        "revision": claim.revision,
        "settings": chosen,
        "scores": scores,
        "pretraining": course,
        "seconds": round(time.perf_counter() - started + course.get("seconds_before", 0.0), 1),
        "device": device,
        "device_name": device_name(device, torch.get_num_threads()),
        "speed": speed,
        "commit": commit(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    write_json(run.path(results, device), result)
    return result


def pretrain(plan: Plan, claim: Claim, folder: Path, device: str, speed: Settings) -> tuple[Path, dict[str, Any]]:
    """The folder of an encoder, pre-trained now unless it is there, and what became of its training."""
    has_labels = claim.measure == "probe" and plan.pretraining.data.label_column is not None
    steps = plan.pretraining.training.max_steps
    fields = {
        "training.output_dir": str(folder),
        "training.save_steps": max(1, steps // 5),
        "training.logging_steps": max(1, steps // 100),
        "training.eval_steps": 0,
    }
    recipe = with_settings(plan.pretraining, fields | {f"training.{name}": value for name, value in speed.items()})
    names = ("batch_size", "learning_rate", "weight_decay", "warmup_steps", "lr_scheduler_type")
    notes = {
        "encoder_digest": plan.encoder_digest,
        "device_name": device_name(device, torch.get_num_threads()),
        "training": {name: getattr(recipe.training, name) for name in names},
    }
    record = pretrain_encoder(recipe, CURVE_POINTS if has_labels else 0, notes)
    if record is None:
        raise InterruptedRun(f"{folder}: stopped before step {steps}")
    return folder, record


def untrained(plan: Plan, folder: Path) -> Path:
    """A folder with configuration and processor, as of a pre-trained encoder; each seed of a task draws its own weights."""
    if not (folder / "config.json").is_file():
        torch.manual_seed(plan.pretraining.training.seed)
        config = build_config(plan.pretraining.model)
        model = AutoModelForPreTraining.from_config(config)
        prepared = prepare_data(plan.pretraining.data, config)
        if prepared.processor is not None:
            prepared.processor.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder
