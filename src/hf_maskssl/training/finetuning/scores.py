"""Labels in and out of the unit in which fine-tuning learns them, and every metric."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from datasets import IterableDataset
from numpy.typing import ArrayLike
from torch.nn import functional as F
from transformers import EvalPrediction

from ...data.arguments import DENSE_TASKS
from ...data.collators import BatchCollator
from ...data.masked_text.rows import MaskedTextRows
from ...data.tables.labels import IGNORED_LABEL
from ...data.tables.preparing import PreparedSplit
from ...data.tables.rows import Row
from ...evaluation.metrics import ClassMapScores, map_scores, score_outputs
from ...files import JsonView
from .results import Run
from .windows import pooled_outputs

# The outputs that Trainer keeps of a forward pass: the logits, or a tuple that begins with them.
Outputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]


class FinetuningRows(Protocol):
    """Prepared rows that can be chosen from and read again: rows of every kind that are not streamed."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Row: ...

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]: ...

    def select(self, rows: Sequence[int]) -> "FinetuningRows": ...


UNSOUND = -1  # predicted class of a pixel whose logits are not finite


def rows_of(split: PreparedSplit | MaskedTextRows | None) -> FinetuningRows:
    """A split as `FinetuningRows`; `FinetuningSetup` refuses streams and missing splits."""
    assert split is not None and not isinstance(split, IterableDataset)
    return split


@dataclasses.dataclass(frozen=True)
class LabelUnit:
    """The unit of labels that a regression learns: (label - mean) / std; of several columns a tuple of each, in their order."""

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def to_learnt(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels - labels.new_tensor(self.mean)) / labels.new_tensor(self.std)

    def to_original(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64) * np.asarray(self.std) + np.asarray(self.mean)


@dataclasses.dataclass(frozen=True)
class FinetuningCollator:
    """The data's collator without the row numbers, which no forward pass takes, and with labels in the learnt unit.

    Trainer's `remove_unused_columns` would take the numbers out of the rows before they are collated, and errors
    could no longer name the row.
    """

    collator: BatchCollator
    unit: LabelUnit

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = self.collator(rows)
        batch.pop("index", None)
        if torch.is_floating_point(batch["labels"]):
            batch["labels"] = self.unit.to_learnt(batch["labels"])
        return batch


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Trainer's `compute_metrics`: every metric of the task, in the labels' own unit.

    Attributes:
        owners: (windows,) int64, the row of each window of the split that is scored, where a row's windows are pooled: rows are
            scored then; None elsewhere.
    """

    task: str
    headline: str
    unit: LabelUnit
    run: Run
    owners: np.ndarray | None = None

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        outputs, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        if not np.isfinite(outputs).all():
            raise ValueError(unsound_outputs(self.run))
        outputs, labels = pooled_outputs(outputs, labels, self.owners)
        if self.task == "token_classification":
            outputs = outputs.astype(np.int64)
        if self.task == "regression":
            outputs = self.unit.to_original(outputs.reshape(labels.shape))
            labels = self.unit.to_original(labels)
        return score_outputs(outputs, labels, self.task, self.headline)


class MapScorer:
    """`compute_metrics` for maps, which come batch by batch (`batch_eval_metrics`): a whole split might not fit into memory.

    Attributes:
        kept_rows: Positions in the split of rows whose maps are kept, ascending; set before a pass over it.
        confusion: (L, L) int64 pixels, [true, predicted], of the last whole pass over a split; only for segmentation.
    """

    def __init__(self, task: str, run: Run, ignore_index: int) -> None:
        self.task, self.run, self.ignore_index = task, run, ignore_index
        self.scores = map_scores(task, ignore_index)
        self.kept_rows: list[int] = []
        self.confusion: np.ndarray | None = None
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._seen = 0  # number of rows in this pass

    def __call__(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        said, true = (_on_cpu(values) for values in (prediction.predictions, prediction.label_ids))
        if not np.isfinite(said).all() or (said.dtype.kind == "i" and (said == UNSOUND).any()):
            raise ValueError(unsound_outputs(self.run))
        self.scores.add(said, true)
        for row in self.kept_rows:
            if self._seen <= row < self._seen + len(said):
                self._kept[row] = said[row - self._seen].copy(), true[row - self._seen].copy()
        self._seen += len(said)
        if not compute_result:
            return {}
        self._seen = 0
        scores, self.scores = self.scores, map_scores(self.task, self.ignore_index)  # the next pass begins anew
        self.confusion = scores.confusion if isinstance(scores, ClassMapScores) else None
        return scores.compute()

    def kept_maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true maps (rows, H, W), or (rows, C, H, W) of values, of `kept_rows` in the last pass."""
        said, true = zip(*(self._kept[row] for row in self.kept_rows), strict=True)
        return np.stack(said), np.stack(true)


def make_scorer(
    task: str, headline: str, unit: LabelUnit, run: Run, ignore_index: int, owners: np.ndarray | None = None
) -> Callable[..., dict[str, float]]:
    """The function that Trainer takes as `compute_metrics`; `owners` are those of `Scorer`."""
    return MapScorer(task, run, ignore_index) if task in DENSE_TASKS else Scorer(task, headline, unit, run, owners)


def unsound_outputs(run: Run) -> str:
    """The error text of a run that has diverged."""
    return (
        f"{run.title}: the model gives NaN or infinite outputs; lower finetuning.learning_rate, set "
        "finetuning.max_grad_norm or train without mixed precision."
    )


def head_outputs(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """(B, L) float32 logits from the outputs that Trainer keeps: some models give more than logits."""
    return (outputs[0] if isinstance(outputs, tuple) else outputs).float()


def predicted_classes(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """(B, N) float32 classes, NaN where a labelled token's logits are not finite.

    The logits of all tokens of a split might not fit into memory.
    """
    logits = head_outputs(outputs, labels)
    is_sound = logits.isfinite().all(dim=-1) | (labels == IGNORED_LABEL)
    return torch.where(is_sound, logits.argmax(dim=-1).float(), torch.nan)


def predicted_class_maps(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """(B, H, W) int64 classes of logits (B, L, h, w) resized to the labels, `UNSOUND` where they are not finite.

    Samples are resized one at a time, because a batch's logits at the labels' size take much memory.
    """
    maps = [_resized(logits[None], labels)[0] for logits in head_outputs(outputs, labels)]
    return torch.stack([torch.where(logits.isfinite().all(dim=0), logits.argmax(dim=0), UNSOUND) for logits in maps])


def predicted_depth_maps(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """(B, H, W) float32 depth at the labels' size."""
    return _resized(head_outputs(outputs, labels)[:, None], labels)[:, 0]


def predicted_value_maps(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) float32 values at the labels' size."""
    return _resized(head_outputs(outputs, labels), labels)


# Functions by which Trainer reduces outputs before it gathers them; other tasks keep logits or values.
PREDICTIONS: dict[str, Callable[[Outputs, torch.Tensor], torch.Tensor]] = {
    "token_classification": predicted_classes,
    "semantic_segmentation": predicted_class_maps,
    "depth_estimation": predicted_depth_maps,
    "dense_regression": predicted_value_maps,
}


def metric_scores(metrics: JsonView, prefix: str) -> dict[str, float]:
    """Trainer's metrics without their prefix and without times and losses, which depend on the machine and the unit."""
    names = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    dropped = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    return {name: float(value) for name, value in names.items() if name not in dropped}


def _resized(maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    size = tuple(labels.shape[-2:])
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _on_cpu(values: torch.Tensor | ArrayLike) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
