"""The papers' scores: one script of `evaluate` for each, beside this file, and running sums for dense maps.

A script is loaded like any other local metric, `evaluate.load(".../evaluation/metrics/accuracy.py")`, without the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import evaluate
import numpy as np

from ...data.arguments import TASKS_OF_COLUMNS
from ...data.tables.label_columns import has_both_classes

SCRIPTS = {script.stem: script for script in sorted(Path(__file__).parent.glob("[!_]*.py"))}
# Metrics of a fine-tuned model; the task's headline comes first.
METRICS_OF_OUTPUTS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "weighted_f1", "matthews", "f1", "roc_auc"),
    "multi_label_classification": ("mean_roc_auc",),
    "regression": ("spearman", "rmse"),
    "token_classification": ("token_accuracy",),
    "semantic_segmentation": ("mean_iou",),
    "depth_estimation": ("delta_1", "rmse"),
    "dense_regression": ("l1", "rmse"),
}
METRICS = tuple(dict.fromkeys(name for names in METRICS_OF_OUTPUTS.values() for name in names))
TWO_CLASS_METRICS = frozenset({"f1", "roc_auc"})
LOWER_IS_BETTER = frozenset({"rmse", "l1"})
DELTA = 1.25


def load_metric(name: str) -> evaluate.EvaluationModule:
    """The script called `name`, by `evaluate.load`; rows added to it stay in memory.

    Raises:
        ValueError: No script has this name.
    """
    if name not in SCRIPTS:
        raise ValueError(f"Unknown metric {name!r}; choose from {list(SCRIPTS)}.")
    return evaluate.load(str(SCRIPTS[name]), keep_in_memory=True)


@cache
def formula_of(name: str) -> Callable[..., dict[str, float]]:
    """The formula of a script on whole arrays: `compute` writes its inputs to Arrow first, which takes many times as long."""
    formula: Callable[..., dict[str, float]] = load_metric(name)._compute
    return formula


def metrics_of_outputs(task: str, num_labels: int) -> tuple[str, ...]:
    """Every metric that `score_outputs` or `map_scores` gives for a task, the default one first.

    Raises:
        ValueError: The task is unknown.
    """
    if task not in METRICS_OF_OUTPUTS:
        raise ValueError(f"task: expected {', '.join(METRICS_OF_OUTPUTS)}, got {task!r}")
    return tuple(name for name in METRICS_OF_OUTPUTS[task] if num_labels == 2 or name not in TWO_CLASS_METRICS)


def score_outputs(
    outputs: np.ndarray, references: np.ndarray, task: str, headline: str | None = None
) -> dict[str, float]:
    """Every metric of a task that is not dense (`map_scores`), from the outputs of a model's head.

    Args:
        outputs: Logits (n, classes) for classification, (n, tasks) for multi-label classification, values (n,) or (n, columns)
            for regression, classes (n, N) for token classification.
        references: Classes or values (n,), or classes (n, N) with -100 where there is nothing to score; of several columns 0 and
            1 with -100 in gaps, or values with NaN in gaps, (n, columns).
        task: Name of the task.
        headline: Name of a metric that cannot be left out.

    Returns:
        Metric name -> score; without the ROC-AUC where all references are one class.

    Raises:
        ValueError: The headline cannot be computed.
    """
    if task in TASKS_OF_COLUMNS and references.ndim == 2:
        return score_columns(outputs, references, metrics_of_outputs(task, outputs.shape[-1]))
    said = outputs.argmax(axis=-1) if task == "classification" else outputs.reshape(-1)
    references = references.reshape(-1)
    scores: dict[str, float] = {}
    for name in metrics_of_outputs(task, outputs.shape[-1]):
        if name == "roc_auc" != headline and np.ptp(references) == 0:
            continue
        # Softmax grows with the difference of two logits, and the curve depends on the order alone.
        predictions = outputs[:, 1] - outputs[:, 0] if name == "roc_auc" else said
        scores |= load_metric(name).compute(predictions=predictions, references=references)
    return scores


def score_columns(outputs: np.ndarray, references: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Metrics of several columns of labels: of real values the mean over the columns, each by the rows that have its label.

    Args:
        outputs: (n, T) scores or values.
        references: (n, T) labels with gaps.
        names: Names of metrics of one task.

    Raises:
        ValueError: No task of classes has both, or a column of values has fewer than two rows.
    """
    scores: dict[str, float] = {}
    for name in names:
        formula = formula_of(name)
        if name == "mean_roc_auc":
            scores |= formula(outputs, references)
            continue
        is_there = np.isfinite(references)
        if (fewest := int(is_there.sum(axis=0).min())) < 2:
            raise ValueError(
                f"{name} needs two labelled rows of every column, got {fewest}: take more rows, or leave the column out."
            )
        columns = zip(outputs.T, references.T, is_there.T, strict=True)
        scores[name] = float(np.mean([formula(said[rows], true[rows])[name] for said, true, rows in columns]))
    return scores


def tasks_left_out(references: np.ndarray, names: Sequence[str]) -> list[str]:
    """The tasks that a mean ROC-AUC leaves out: those without rows of both classes among (n, T) references."""
    return [name for name, is_scored in zip(names, has_both_classes(references), strict=True) if not is_scored]


@dataclass
class ClassMapScores:
    """Mean IoU of class maps that are added batch by batch.

    It is intersection over union of the pixels of all maps together, averaged over the classes that any reference or any
    prediction has. (MultiMAE, Tables 1 to 3.)

    Attributes:
        ignore_index: Reference of pixels without a class; their predictions do not count.
        confusion: Pixels by [true, predicted], (L, L) int64, as large as the largest class so far.
    """

    ignore_index: int = 255
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))

    def add(self, said: np.ndarray, true: np.ndarray) -> None:
        """Count predicted and true classes of one shape, such as (B, H, W).

        Raises:
            ValueError: The shapes differ, or a class is below 0.
        """
        said, true = _pixels(said, true, true != self.ignore_index, np.int64)
        if not true.size:
            return
        lowest, highest = int(min(said.min(), true.min())), int(max(said.max(), true.max()))
        if lowest < 0:
            raise ValueError(
                f"classes are numbers from 0, got {lowest}; pixels without a class have the reference "
                f"{self.ignore_index} (ignore_index)."
            )
        size = max(len(self.confusion), highest + 1)
        counts = np.bincount(true * size + said, minlength=size * size).reshape(size, size)
        self.confusion = counts + np.pad(self.confusion, (0, size - len(self.confusion)))

    def compute(self) -> dict[str, float]:
        """{"mean_iou": 0 to 1} of all maps that were added.

        Raises:
            ValueError: No pixel had a class.
        """
        both = np.diag(self.confusion)
        either = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - both
        if not either.any():
            raise ValueError("references hold no pixel with a class, so there is nothing to score.")
        return {"mean_iou": float(np.mean(both[either > 0] / either[either > 0]))}


@dataclass
class DepthMapScores:
    """Delta 1 and RMSE of depth maps that are added batch by batch, over the pixels of all maps whose depth is known.

    Delta 1 is the share of pixels with max(predicted / true, true / predicted) < 1.25; a predicted depth of 0 or less is
    wrong. (MultiMAE, Tables 1 and 2.)

    Attributes:
        hits: Pixels that are right within the factor.
        squares: Sum of the squared errors.
        count: Pixels.
    """

    hits: int = 0
    squares: float = 0.0
    count: int = 0

    def add(self, said: np.ndarray, true: np.ndarray) -> None:
        """Count predicted and true depths of one shape, such as (B, H, W).

        Raises:
            ValueError: The shapes differ.
        """
        said, true = _pixels(said, true, known_depth(true), np.float64)
        # The form without a division needs no guard against 0.
        self.hits += int(((said < DELTA * true) & (true < DELTA * said)).sum())
        self.squares += float(np.square(said - true).sum())
        self.count += true.size

    def compute(self) -> dict[str, float]:
        """{"delta_1": 0 to 1, "rmse": 0 or more} of all maps that were added.

        Raises:
            ValueError: No pixel had a known depth.
        """
        if not self.count:
            raise ValueError("references hold no pixel with a known depth, so there is nothing to score.")
        return {"delta_1": self.hits / self.count, "rmse": float(np.sqrt(self.squares / self.count))}


@dataclass
class ValueMapScores:
    """Mean absolute error and RMSE of maps of values that are added batch by batch, over all values that are known.

    (MultiMAE, section 4.1: the L1 losses on Taskonomy.)

    Attributes:
        distances: Sum of the absolute errors.
        squares: Sum of the squared errors.
        count: Number of values.
    """

    distances: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, said: np.ndarray, true: np.ndarray) -> None:
        """Count predicted and true values of one shape, such as (B, C, H, W).

        Raises:
            ValueError: The shapes differ.
        """
        said, true = _pixels(said, true, np.isfinite(true), np.float64)
        self.distances += float(np.abs(said - true).sum())
        self.squares += float(np.square(said - true).sum())
        self.count += true.size

    def compute(self) -> dict[str, float]:
        """{"l1": 0 or more, "rmse": 0 or more} of all maps that were added.

        Raises:
            ValueError: No value was known.
        """
        if not self.count:
            raise ValueError("references hold no value that is known, so there is nothing to score.")
        return {"l1": self.distances / self.count, "rmse": float(np.sqrt(self.squares / self.count))}


def map_scores(task: str, ignore_index: int = 255) -> ClassMapScores | DepthMapScores | ValueMapScores:
    """Running sums for the maps of a dense task; `ignore_index` is the class of pixels without one.

    Raises:
        ValueError: The task is not dense.
    """
    if task == "semantic_segmentation":
        return ClassMapScores(ignore_index)
    if task not in ("depth_estimation", "dense_regression"):
        raise ValueError(f"task: expected semantic_segmentation, depth_estimation or dense_regression, got {task!r}")
    return DepthMapScores() if task == "depth_estimation" else ValueMapScores()


def known_depth(depth: np.ndarray) -> np.ndarray:
    """True (bool, the map's shape) where a depth is known: False where it is 0, negative or not finite."""
    return np.isfinite(depth) & (depth > 0)


def _pixels(said: np.ndarray, true: np.ndarray, kept: np.ndarray, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    if said.shape != true.shape:
        raise ValueError(f"predictions have the shape {said.shape} and references {true.shape}: give equal ones.")
    return said[kept].astype(dtype), true[kept].astype(dtype)
