"""Predictions of a run for the rows it was scored on, kept beside its scores: pictures and outliers are made from them."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from ...data.arguments import DENSE_TASKS
from ...data.tables.label_columns import MULTI_LABEL, is_gap
from ...data.tables.labels import IGNORED_LABEL
from ...files import JsonObject, write_whole
from .results import Run
from .scores import LabelUnit, MapScorer

MAPS_KEPT = 6  # rows of a dense task, whose maps are many megabytes


@dataclass(frozen=True)
class Predictions:
    """Predicted and true labels of a split.

    Attributes:
        split: "test", or "validation" where there is no test split.
        rows: (n,) positions in the split, of windows that are pooled among its rows; for tokens one for each labelled token.
        said: (n,) predicted classes or values in the labels' own unit; of several columns (n, T) probabilities of class 1 or
            values; for a dense task maps (n, H, W) of some rows, or
            (n, C, H, W) of values.
        true: True labels in the same form; of several columns NaN where a row has none.
        confusion: (L, L) int64 pixels of all rows, [true, predicted], only for segmentation.
    """

    split: str
    rows: np.ndarray
    said: np.ndarray
    true: np.ndarray
    confusion: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Write a compressed .npz; an interrupted write leaves the former file."""
        arrays: JsonObject = {"split": self.split, "rows": self.rows, "said": self.said, "true": self.true}
        if self.confusion is not None:
            arrays["confusion"] = self.confusion

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_whole(path, write)


def load_predictions(path: Path) -> Predictions | None:
    """The predictions that `Predictions.save` wrote; None where a run has none.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Predictions(
            str(arrays["split"]), arrays["rows"], arrays["said"], arrays["true"], arrays.get("confusion")
        )
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} holds no predictions that can be read ({error}): delete it, and pictures are drawn without it."
        ) from error


def predictions_path(folder: Path, run: Run) -> Path:
    """File of a run's predictions in the `output_dir`."""
    return folder / "runs" / f"{run.name}.npz"


def map_rows(count: int) -> list[int]:
    """The rows of a dense task's split whose maps are kept: the first, the last, and some evenly between."""
    return np.unique(np.linspace(0, count - 1, min(MAPS_KEPT, count)).round().astype(int)).tolist()


def gather_predictions(task: str, split: str, outputs: np.ndarray, labels: np.ndarray, unit: LabelUnit) -> Predictions:
    """The predictions of a task that is not dense, from what Trainer's evaluation gathered.

    Args:
        task: Name of the task.
        split: Name of the split.
        outputs: (n, L) logits, (n, columns) values as they are learnt, or (n, N) classes of tokens.
        labels: (n,) classes or values as they are learnt, (n, columns) of several, or (n, N) classes, -100 where there is none.
        unit: Unit in which labels are learnt.
    """
    said, true = outputs, labels
    rows = np.arange(len(said))
    if task == "regression":
        return Predictions(split, rows, unit.to_original(said.reshape(true.shape)), unit.to_original(true))
    if task == MULTI_LABEL:
        return Predictions(split, rows, expit(said), np.where(is_gap(true, task), np.nan, true))
    if task == "token_classification":
        is_labelled = true != IGNORED_LABEL
        rows = np.broadcast_to(rows[:, None], true.shape)[is_labelled]
        return Predictions(split, rows, _as_classes(said[is_labelled]), _as_classes(true[is_labelled]))
    return Predictions(split, rows, _as_classes(said.argmax(axis=-1)), _as_classes(true))


def gather_maps(split: str, scorer: MapScorer) -> Predictions:
    """The predictions of a dense task, of the rows that the scorer was told to keep."""
    said, true = scorer.kept_maps()
    if true.dtype.kind == "i":
        said, true = _as_classes(said), _as_classes(true)
    return Predictions(split, np.array(scorer.kept_rows), said, true, scorer.confusion)


def confusion_of(task: str, predictions: Sequence[Predictions], num_labels: int) -> np.ndarray:
    """(L, L) int64 [true, predicted] of all runs together."""
    total = np.zeros((num_labels, num_labels), dtype=np.int64)
    for entry in predictions:
        if task in DENSE_TASKS:
            counts = np.zeros_like(total) if entry.confusion is None else entry.confusion
            total[: len(counts), : len(counts)] += counts
        else:
            np.add.at(total, (entry.true.astype(np.int64), entry.said.astype(np.int64)), 1)
    return total


def _as_classes(values: np.ndarray) -> np.ndarray:
    """Small integers: a file of tokens is many times smaller so."""
    return values.astype(np.int16 if values.size == 0 or np.abs(values).max() < 2**15 else np.int32)
