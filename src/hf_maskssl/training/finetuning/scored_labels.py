"""Whether the labels of held-out rows can be scored at all: told before the training, not after it."""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...checks import shown
from ...data.arguments import TASKS_OF_COLUMNS
from ...data.tables.labels import IGNORED_LABEL
from ...evaluation.metrics import known_depth, tasks_left_out
from .scores import FinetuningRows

LABEL_ROWS = 64  # rows that are read at a time: the first ones mostly tell

logger = logging.getLogger(__name__)


def check_scored_labels(
    splits: Mapping[str, FinetuningRows], task: str, metric: str, ignore_index: int, names: Sequence[str] = ()
) -> None:
    """Refuse held-out splits on which the headline metric would fail when all is trained.

    Args:
        splits: Name -> rows, with `labels`.
        task: Task that is learnt.
        metric: The headline.
        ignore_index: Class of pixels without one.
        names: Names of several columns of labels.

    Raises:
        ValueError: The ROC-AUC with one class alone in a split, or in every task; tokens or pixels of which none has a label, or
            a column of values with fewer than two.
    """
    for name, rows in splits.items():
        if name == "train":
            continue
        if task in TASKS_OF_COLUMNS and names:
            _check_columns(name, np.stack(list(_labels(rows))), task, names)
            continue
        if metric == "roc_auc" and len(first := _values(rows, task, ignore_index, 2)) < 2:
            raise ValueError(
                f"finetuning.metric 'roc_auc' compares two classes, but all {len(rows)} rows of the {name} split have the class "
                f"{first.pop() if first else None}: take more rows (data.max_{name}_samples), another split, or another metric."
            )
        if task not in ("classification", "regression") and not _values(rows, task, ignore_index, 1):
            raise ValueError(
                f"data.label_column: none of the {len(rows)} rows of the {name} split has a label that could be scored (task "
                f"{task!r}): take other rows, or leave the split out."
            )


def _check_columns(split: str, labels: np.ndarray, task: str, names: Sequence[str]) -> None:
    """Refuse (n, T) labels that cannot be scored; a warning counts tasks that the mean ROC-AUC leaves out."""
    if task == "regression":
        counts = dict(zip(names, np.isfinite(labels).sum(axis=0).tolist(), strict=True))
        if few := {name: count for name, count in counts.items() if count < 2}:
            raise ValueError(
                f"data.label_column: scores need two labels of every column, but the {split} split has {few}: take more rows, or "
                "leave these columns out."
            )
        return
    left_out = tasks_left_out(labels, names)
    if len(left_out) == len(names):
        raise ValueError(
            f"finetuning.metric 'mean_roc_auc' compares two classes, but none of {len(names)} tasks has rows of both in the "
            f"{split} split of {len(labels)} rows: take more rows (data.max_{split}_samples), or another split."
        )
    if left_out:
        logger.warning(
            "%s split: the mean ROC-AUC is over %d of %d tasks; %d have no rows of both classes: %s",
            split,
            len(names) - len(left_out),
            len(names),
            len(left_out),
            shown(left_out),
        )


def _values(rows: FinetuningRows, task: str, ignore_index: int, enough: int) -> set[float]:
    """Different labels of a split, reading no further than where there are enough."""
    found: set[float] = set()
    for labels in _labels(rows):
        if task == "depth_estimation":
            labels = labels[known_depth(labels)]
        elif task == "dense_regression":
            labels = labels[np.isfinite(labels)]
        elif task == "semantic_segmentation":
            labels = labels[labels != ignore_index]
        elif task == "token_classification":
            labels = labels[labels != IGNORED_LABEL]
        found |= set(np.unique(labels)[:enough].tolist())
        if len(found) >= enough:
            break
    return found


def _labels(rows: FinetuningRows) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), LABEL_ROWS):
        for row in rows.__getitems__(range(start, min(start + LABEL_ROWS, len(rows)))):
            yield np.asarray(row["labels"])
