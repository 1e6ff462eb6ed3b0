"""The online probe, which the training loop runs on its encoder every few steps."""

import dataclasses
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import IterableDataset
from torch import nn

from ..data.arguments import Task
from ..data.preparation import PreparedData
from ..data.tables.preparing import PreparedSplit, plain_rows
from .arguments import ProbeArguments
from .features import extract_features, level_of_task
from .probe import knn_probe, linear_probe
from .statistics import rankme

TOKENS_PER_SAMPLE = 10  # the limit at token level, in tokens for each of `max_samples`


def online_probe(
    encoder: nn.Module, prepared: PreparedData, args: ProbeArguments, device: str | torch.device
) -> dict[str, float]:
    """Scores of the current features, for a progress report during pre-training.

    Looks at `args.max_samples` training rows and as many of the validation split, or of the test split where there is
    no validation; always the same ones, unmasked. The linear probe uses the exact solver, whatever the protocol.

    Args:
        encoder: The base model, already on `device`; left in the mode it was in.
        prepared: The data; its labels are needed.
        args: The probe's settings.
        device: Device of the probe.

    Returns:
        "probe/linear_<metric>" and "probe/knn_<metric>" for the headline metric and "probe/rankme" of the training
        features.

    Raises:
        ValueError: There is no held-out split, or no labels.
    """
    task, held_out = labelled_held_out(prepared)
    level = level_of_task(task)
    max_rows = args.max_samples * (TOKENS_PER_SAMPLE if level == "token" else 1)
    seed = args.seeds[0]
    train, test = (
        extract_features(
            encoder,
            draw_rows(split, args.max_samples, seed),
            prepared.collator,
            batch_size=min(args.batch_size, args.max_samples),
            level=level,
            device=device,
            max_rows=max_rows,
        )
        for split in (plain_rows(prepared.train), held_out)
    )
    fast = dataclasses.replace(args, protocol="standard", solver="exact", labels_per_class=None)
    metric = args.headline_metric(task)
    return {
        f"probe/linear_{metric}": linear_probe(train, test, task, fast, seed)[metric],
        f"probe/knn_{metric}": knn_probe(train, test, task, fast, seed)[metric],
        "probe/rankme": rankme(train.values),
    }


def labelled_held_out(prepared: PreparedData) -> tuple[Task, PreparedSplit]:
    """The data's task, and the held-out split that the online probe scores: validation, or test where there is none.

    Raises:
        ValueError: There is no held-out split, or no labels.
    """
    if prepared.task is None:
        raise ValueError(
            "data.label_column: the online probe needs labels; name their column or set probe.every_steps to 0"
        )
    held_out = prepared.validation if prepared.validation is not None else prepared.test
    if held_out is None:
        raise ValueError(
            "probe.every_steps: the online probe needs held-out rows; "
            "set data.validation_split, data.validation_fraction or data.test_split, or probe.every_steps to 0"
        )
    return prepared.task, held_out


def draw_rows(split: PreparedSplit, max_samples: int, seed: int) -> PreparedSplit | list[dict[str, Any]]:
    """At most `max_samples` rows of a split in random order, or the first ones of a stream.

    Args:
        split: A split of `PreparedData`.
        max_samples: Rows to keep.
        seed: Seed of the draw.
    """
    if isinstance(split, IterableDataset):
        return list(islice(split, max_samples))
    return split.select(np.random.default_rng(seed).permutation(len(split))[:max_samples].tolist())
