"""Baselines of a model of dense maps: one answer for every pixel, and a linear model of the pixel's surroundings."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..data.collators import BatchCollator
from ..data.multimodal.collator import MultimodalCollator
from ..data.preparation import PreparedData
from ..data.tables.preparing import plain_rows
from ..extras import missing_extra
from .metrics import known_depth, map_scores

try:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise missing_extra("A baseline", "train", error) from error


MAX_ROWS = 200  # training rows that pixels are drawn from
MAX_PIXELS = 20_000  # labelled training pixels that a model is fitted to
WINDOW = 3  # pixels around a pixel that the linear model sees, in each direction of every continuous modality
MAX_ITERATIONS = 500
# Tasks whose labels are values, and their constant answer.
VALUES = {"depth_estimation": "mean depth", "dense_regression": "mean of each channel"}

logger = logging.getLogger(__name__)


def dense_baseline_scores(
    prepared: PreparedData, task: str, ignore_index: int = 255, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Scores of the simplest models of a dense task on the test split, or on the validation split where there is none.

    Both are fitted to at most 20,000 labelled pixels of at most 200 training rows, drawn by the seed and seen whole (never
    cropped or mirrored). "constant" answers with their most frequent class or their mean depth everywhere. "raw" is a
    linear model with scikit-learn's default penalty (logistic regression, or ridge regression on depth) of standardised
    inputs: the 3 x 3 values around the pixel of every continuous modality, the pixel's class in every class map, and its
    place in the picture up to squares.

    Args:
        prepared: Data with labels and a held-out split.
        task: "semantic_segmentation", "depth_estimation" or "dense_regression".
        ignore_index: Class of unlabelled pixels.
        seed: Seed of the draw.

    Returns:
        {"constant": {"scores": {metric: score}, "what": in words, "converged"}, "raw": the same}, every metric of the task.

    Raises:
        ValueError: Another task, no held-out split, or no labelled pixel among the drawn ones.
    """
    held_out = prepared.validation if prepared.test is None else prepared.test
    if held_out is None:
        raise ValueError("data.test_split: baselines need rows to be scored on; set it or data.validation_split")
    scores = {name: map_scores(task, ignore_index) for name in ("constant", "raw")}
    features, labels = _training_pixels(prepared, task, ignore_index, seed)
    if task in VALUES:
        constant = labels.mean(axis=0, dtype=np.float64)
    else:
        values, counts = np.unique(labels, return_counts=True)
        constant = values[counts.argmax()]
    model, converged = _fit(features, labels, task)
    for number in range(len(held_out)):
        batch = prepared.collator([held_out[number]])
        true = batch["labels"].numpy()
        said = _as_maps(np.broadcast_to(constant, (true.shape[-2] * true.shape[-1], *constant.shape)), true.shape)
        scores["constant"].add(said, true)
        if model is not None:
            said = _as_maps(model.predict(pixel_features(batch, prepared.collator)[0]), true.shape)
        scores["raw"].add(said, true)
    kind = "ridge regression" if task in VALUES else "logistic regression"
    what = {
        "constant": VALUES.get(task, "most frequent class"),
        "raw": f"{kind} on {features.shape[1]} numbers of the pixel's surroundings, of {len(labels):,} training pixels",
    }
    is_sound = {"constant": True, "raw": converged}
    return {
        name: {"scores": entry.compute(), "what": what[name], "converged": is_sound[name]}
        for name, entry in scores.items()
    }


def pixel_features(batch: Mapping[str, Any], collator: BatchCollator) -> np.ndarray:
    """Numbers that the linear model sees of every pixel.

    Args:
        batch: `inputs` as `MultimodalCollator` gives them, perhaps `presence`, and `labels` (B, H, W) or
            (B, C, H, W). Inputs of another
            size are resized to the labels', to the nearest pixel.
        collator: `num_classes` of a `MultimodalCollator` says which inputs are class maps.

    Returns:
        (B, H W, D) float32; zeros stand for a modality that the row lacks.
    """
    num_classes = collator.num_classes if isinstance(collator, MultimodalCollator) else {}
    count = len(batch["labels"])
    height, width = batch["labels"].shape[-2:]
    parts = []
    for name, values in batch["inputs"].items():
        if name in num_classes:
            classes = num_classes[name]
            is_known = (values >= 0) & (values < classes)
            one_hot = F.one_hot(torch.where(is_known, values, 0), classes) * is_known[..., None]
            part = F.interpolate(one_hot.permute(0, 3, 1, 2).float(), size=(height, width)).flatten(2)
        else:
            resized = F.interpolate(values.float(), size=(height, width))
            padded = F.pad(resized, [WINDOW // 2] * 4, mode="replicate")
            part = F.unfold(padded, WINDOW)
        present = batch.get("presence", {}).get(name)
        parts.append(part if present is None else part * present[:, None, None])
    down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    place = torch.stack([down, across, down**2, across**2, down * across]).flatten(1)
    return torch.cat([*parts, place.expand(count, -1, -1)], dim=1).transpose(1, 2).numpy()


def _as_maps(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of one picture's pixels, (H W,) or (H W, C) -> `shape`, (1, H, W) or (1, C, H, W)."""
    return (values if values.ndim == 1 else values.T).reshape(shape)


def _training_pixels(prepared: PreparedData, task: str, ignore_index: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, D) and labels (n,), or (n, C) of values, of drawn pixels."""
    rows = plain_rows(prepared.train)
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(rows))[:MAX_ROWS])
    quota = MAX_PIXELS // len(chosen)
    features, labels = [], []
    for number in chosen.tolist():
        batch = prepared.collator([rows[number]])
        true = batch["labels"].numpy()[0]
        if task == "dense_regression":
            true = true.reshape(len(true), -1).T
            is_labelled = np.isfinite(true).all(axis=1)
        else:
            true = true.reshape(-1)
            is_labelled = known_depth(true) if task == "depth_estimation" else true != ignore_index
        places = np.flatnonzero(is_labelled)
        places = generator.permutation(places)[:quota]
        features.append(pixel_features(batch, prepared.collator)[0][places])
        labels.append(true[places])
    if not any(map(len, labels)):
        raise ValueError(
            f"data.label_column: no pixel of {len(chosen)} training rows has a label to fit a baseline to."
        )
    return np.concatenate(features), np.concatenate(labels)


def _fit(features: np.ndarray, labels: np.ndarray, task: str) -> tuple[Pipeline | None, bool]:
    """A fitted model, None where there is one class only and nothing to fit; and whether its solver has converged."""
    if task in VALUES:
        return make_pipeline(StandardScaler(), Ridge()).fit(features, labels), True
    if len(np.unique(labels)) < 2:
        return None, True
    solver = LogisticRegression(max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # logged below, and in the results
        model = make_pipeline(StandardScaler(), solver).fit(features, labels)
    converged = bool(solver.n_iter_.max() < MAX_ITERATIONS)
    if not converged:
        logger.warning(
            "The baseline on raw pixels has not converged in %d iterations: its score may be too low.", MAX_ITERATIONS
        )
    return model, converged
