"""Training labels in the form that a probe's solver reads, and the way back to predictions."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch.nn import functional as F

from ..data.tables.label_columns import MULTI_LABEL, is_gap
from ..models.head_losses import several_labels_loss


class Targets:
    """Labels of one column, none of which is missing.

    Attributes:
        classes: (classes,) the classes that occur, ascending; None for regression.
        encoded: (n,) int64 positions in `classes`, or float32 standardised values.

    Raises:
        ValueError: Labels of another kind than the task's, or one class only.
    """

    def __init__(self, labels: np.ndarray, task: str) -> None:
        self.classes: np.ndarray | None = None
        if task == "regression":
            if not np.isfinite(labels).all():
                raise ValueError("labels: expected finite numbers, got NaN or infinite ones")
            self.mean, self.std = float(labels.mean()), float(labels.std()) or 1.0
            self.encoded = ((labels - self.mean) / self.std).astype(np.float32)
            return
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: a {task} task needs integer classes, got {labels.dtype}; check data.task")
        self.classes, encoded = np.unique(labels, return_inverse=True)
        self.encoded = encoded.astype(np.int64)
        if len(self.classes) < 2:
            raise ValueError(f"labels: a probe needs at least two classes to tell apart, all are {self.classes[0]}")

    @property
    def num_outputs(self) -> int:
        """Number of outputs of a linear model."""
        return 1 if self.classes is None else len(self.classes)

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Cross entropy, or squared error, of (B, outputs) and the encoded labels of these rows."""
        return F.mse_loss(outputs.squeeze(1), encoded) if self.classes is None else F.cross_entropy(outputs, encoded)

    def shaped(self, outputs: np.ndarray) -> np.ndarray:
        """(n, outputs) of a linear model -> what `decode` takes."""
        return outputs[:, 0] if self.classes is None else outputs

    def votes(self, neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """What `decode` takes, from the (m, k) training rows that are nearest to each of m rows, and their weights."""
        answers = self.encoded[neighbours]
        if self.classes is None:
            return np.asarray(answers.mean(axis=1))
        votes = np.zeros((len(answers), len(self.classes)), dtype=np.float32)
        np.add.at(votes, (np.arange(len(answers))[:, None], answers), weights)
        return votes

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """(n, classes) scores -> (n,) classes, the first of equals; (n,) standardised values -> values."""
        if self.classes is None:
            return outputs * self.std + self.mean
        return self.classes[outputs.argmax(axis=1)]


class ColumnTargets:
    """Labels of several columns with gaps, which no model reads.

    Attributes:
        are_classes: Whether labels are 0 and 1; otherwise they are real values.
        encoded: (n, T) float32: 0 and 1, or values standardised by column; NaN in gaps.
        columns: Of each column the (rows,) bool that have its label, and the `Targets` of these; None of a task without rows of
            both classes, of which nothing can be learnt.

    Raises:
        ValueError: No column that anything can be learnt of, or one of real values without two rows.
    """

    def __init__(self, labels: np.ndarray, task: str) -> None:
        self.are_classes = task == MULTI_LABEL
        there = ~is_gap(labels, task)
        self.columns: list[tuple[np.ndarray, Targets | None]] = []
        for values, rows in zip(labels.T, there.T, strict=True):
            known = values[rows]
            if not self.are_classes and len(known) < 2:
                raise ValueError(f"labels: a probe needs two labelled rows of every column, one has {len(known)}")
            is_learnt = not self.are_classes or len(np.unique(known)) == 2
            single = (known.astype(np.int64), "classification") if self.are_classes else (known, task)
            self.columns.append((rows, Targets(*single) if is_learnt else None))
        if not any(own is not None for _, own in self.columns):
            raise ValueError(f"labels: none of {labels.shape[1]} tasks has training rows of class 0 and of class 1")
        self.means = means_of_columns(labels, task)
        self.encoded = np.full(labels.shape, np.nan, dtype=np.float32)
        for place, (rows, own) in enumerate(self.columns):
            self.encoded[rows, place] = labels[rows, place] if own is None else own.encoded

    @property
    def num_outputs(self) -> int:
        """Number of outputs of a linear model."""
        return len(self.columns)

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """The mean loss over the labels of these rows that are there, of (B, T) outputs."""
        return several_labels_loss(outputs, encoded, self.are_classes)

    def shaped(self, outputs: np.ndarray) -> np.ndarray:
        """(n, T) of a linear model -> what `decode` takes."""
        return outputs

    def votes(self, neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(m, T) means over the (m, k) neighbours that have a task's label, weighted where labels are classes; where none of
        them has it, the mean of all training rows, in the unit of `encoded`."""
        answers = self.encoded[neighbours]
        there = ~np.isnan(answers)
        shares = there * (weights if self.are_classes else np.ones_like(weights))[:, :, None]
        total = shares.sum(axis=1)
        unknown = self.means if self.are_classes else np.zeros_like(self.means)
        sums = (shares * np.where(there, answers, 0.0)).sum(axis=1)
        return np.asarray(np.where(total > 0, sums / np.where(total > 0, total, 1.0), unknown))

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """(n, T) scores as they are, or standardised values -> values."""
        if self.are_classes:
            return outputs
        decoded = [
            own.decode(values) for (_, own), values in zip(self.columns, outputs.T, strict=True) if own is not None
        ]
        return np.stack(decoded, axis=1)


AnyTargets: TypeAlias = Targets | ColumnTargets


def targets_of(labels: np.ndarray, task: str) -> AnyTargets:
    """The targets of (n,) labels of one column, or of (n, T) labels of several."""
    return ColumnTargets(labels, task) if labels.ndim == 2 else Targets(labels, task)


def means_of_columns(labels: np.ndarray, task: str) -> np.ndarray:
    """(T,) float64 mean of each of (n, T) labels over the rows that have it: the share of class 1, or the mean value; 0 where no
    row has it."""
    return _statistics(labels, task)[0]


def moments_of_columns(labels: np.ndarray) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each column of values with NaN in gaps; a deviation of 0 counts as 1."""
    mean, std = _statistics(labels, "regression")
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()


def _statistics(labels: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    there = ~is_gap(labels, task)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, labels, 0.0).sum(axis=0, dtype=np.float64) / count
    squares = np.where(there, (labels - mean) ** 2, 0.0).sum(axis=0, dtype=np.float64) / count
    return mean, np.sqrt(squares)
