"""The papers' scores as `evaluate.Metric` classes. They come with the package: nothing is downloaded to use them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from ..data.tables.labels import IGNORED_LABEL
from ..extras import missing_extra

try:
    from scipy.stats import spearmanr
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score
except ImportError as error:
    raise missing_extra("Scoring", "train", error) from error


_CLASS_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
_VALUE_FEATURES = datasets.Features(
    {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
)
_CLASS_MAP_FEATURES, _VALUE_MAP_FEATURES = (
    datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Sequence(datasets.Sequence(value))))
    for value in (datasets.Value("int64"), datasets.Value("float64"))
)
DELTA = 1.25
_INPUTS = """
Args:
    predictions: what the model said, one entry a sample.
    references: what is true, one entry a sample.
"""


class _Metric(evaluate.Metric):
    """A metric that gathers its inputs in memory, not in files, unless several processes must share them.

    Attributes:
        summary: what it measures, in a sentence.
        input_types: of predictions and references; a list where there is a choice.
        inputs: what predictions and references are.
    """

    summary: str
    input_types: datasets.Features | list[datasets.Features]
    inputs: str = _INPUTS

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        options.setdefault("keep_in_memory", options.get("num_process", 1) == 1)
        super().__init__(config_name, **options)

    def _info(self) -> evaluate.MetricInfo:
        # Sequences, which may have different lengths, are no array.
        types = self.input_types.values() if isinstance(self.input_types, datasets.Features) else [None]
        is_flat = all(isinstance(kind, datasets.Value) for kind in types)
        return evaluate.MetricInfo(
            description=self.summary,
            citation="",
            inputs_description=self.inputs,
            features=self.input_types,
            format="numpy" if is_flat else None,
        )


class Accuracy(_Metric):
    """Share of samples whose class is right: {"accuracy": 0 to 1}."""

    summary = "Share of samples whose predicted class is right."
    input_types = _CLASS_FEATURES

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class WeightedF1(_Metric):
    """F1 of each class, averaged with the number of its true samples as weight (scikit-learn): {"weighted_f1": 0 to
    1}.

    The MetaMAE paper reports an F1 score for WaferMap, whose classes are far from balanced (Table 1).
    """

    summary = "F1 of each class, averaged with the number of its true samples as weight."
    input_types = _CLASS_FEATURES

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        score = f1_score(references, predictions, average="weighted", zero_division=0.0)
        return {"weighted_f1": float(score)}


class Spearman(_Metric):
    """Rank correlation of predicted and true values (scipy): {"spearman": -1 to 1}.

    Where all predictions, or all references, are equal there is no order to compare; the score is then 0.
    """

    summary = "Spearman's rank correlation of predicted and true values."
    input_types = _VALUE_FEATURES

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if len(predictions) < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"spearman": 0.0}
        return {"spearman": float(spearmanr(predictions, references).statistic)}


class TokenAccuracy(_Metric):
    """Share of labelled tokens whose class is right, over all tokens of all samples: {"token_accuracy": 0 to 1}.

    Takes one sequence a sample, as a token classifier with padding gives them, or one entry a token, as a probe on
    flattened tokens does. Tokens whose reference is -100 (padding, unresolved residues) are left out whatever was
    predicted there.
    """

    summary = "Share of labelled tokens whose class is right; tokens with the reference -100 do not count."
    input_types = [
        _CLASS_FEATURES,
        datasets.Features(
            {
                "predictions": datasets.Sequence(datasets.Value("int64")),
                "references": datasets.Sequence(datasets.Value("int64")),
            }
        ),
    ]

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        said = np.concatenate([np.atleast_1d(entry) for entry in predictions])
        true = np.concatenate([np.atleast_1d(entry) for entry in references])
        if len(said) != len(true):
            raise ValueError(
                f"predictions hold {len(said)} tokens and references {len(true)}; "
                "give both the same length sample by sample, with -100 as reference where there is no label."
            )
        counts = true != IGNORED_LABEL
        if not counts.any():
            raise ValueError("references hold no labelled token: every entry is -100, so there is nothing to score.")
        return {"token_accuracy": float(np.mean(said[counts] == true[counts]))}


class F1(_Metric):
    """F1 of class 1 against class 0 (scikit-learn): {"f1": 0 to 1}; 0 where class 1 is neither said nor true.

    GLUE's score for QQP and MRPC (SMA paper, Table 4).
    """

    summary = "F1 of class 1 in a task of two classes."
    input_types = _CLASS_FEATURES

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        _require_two_classes("f1", references)
        return {"f1": float(f1_score(references, predictions, zero_division=0.0))}


class Matthews(_Metric):
    """Matthews correlation of predicted and true classes (scikit-learn): {"matthews": -1 to 1}; 0 without any relation,
    and where all predictions or all references are one class.

    GLUE's score for CoLA (SMA paper, Table 4).
    """

    summary = "Matthews correlation of predicted and true classes."
    input_types = _CLASS_FEATURES

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"matthews": 0.0}
        return {"matthews": float(matthews_corrcoef(references, predictions))}


class RocAuc(_Metric):
    """Area under the ROC curve of class 1 against class 0 (scikit-learn): {"roc_auc": 0 to 1}.

    It judges an order: `predictions` are real-valued scores, higher meaning class 1, such as a probability, a logit or
    the difference of two logits; `references` are the classes 0 and 1. (MoleculeNet; SMA paper, Table 2.)
    """

    summary = "Area under the ROC curve; predictions are scores, higher meaning class 1."
    input_types = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        _require_two_classes("roc_auc", references)
        if len(np.unique(references)) < 2:
            raise ValueError(
                f"roc_auc compares samples of class 1 with samples of class 0, but all {len(references)} references are "
                f"{references[0]}: take more rows or another split."
            )
        return {"roc_auc": float(roc_auc_score(references, predictions))}


class _RunningMetric(_Metric, ABC):
    """A metric of which a few sums are kept instead of its inputs, which may be maps of any size.

    `add_batch` takes predictions and references of one shape, lists or arrays; `compute` starts afresh afterwards. Processes
    must be given the gathered inputs.

    Attributes:
        key: what the score is called.
    """

    key: str

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        super().__init__(config_name, **options)
        self._clear()

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Count a batch.

        Raises:
            ValueError: Inputs that are not called so, or of two shapes.
        """
        if kwargs:
            raise ValueError(f"{self.key} takes predictions and references, got {sorted(kwargs)} as well.")
        said, true = np.asarray(predictions), np.asarray(references)
        if said.shape != true.shape:
            raise ValueError(f"predictions have the shape {said.shape} and references {true.shape}: give equal ones.")
        self._add(said, true)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Count a sample; errors as `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float]:
        """The score of everything that was added, and of these, if given.

        Raises:
            ValueError: As `add_batch`, or there is nothing to score.
        """
        try:
            if predictions is not None or references is not None or kwargs:
                self.add_batch(predictions=predictions, references=references, **kwargs)
            return {self.key: self._score()}
        finally:
            self._clear()

    @abstractmethod
    def _clear(self) -> None:
        """Forget what was added."""

    @abstractmethod
    def _add(self, said: np.ndarray, true: np.ndarray) -> None:
        """Count predictions and references of one shape."""

    @abstractmethod
    def _score(self) -> float:
        """The score of what was added."""


class Rmse(_RunningMetric):
    """Root of the mean squared error, in the labels' unit: {"rmse": 0 or more}, lower is better."""

    summary = "Root of the mean squared error; lower is better."
    input_types = _VALUE_FEATURES
    key = "rmse"

    def _clear(self) -> None:
        self.squares, self.count = 0.0, 0

    def _add(self, said: np.ndarray, true: np.ndarray) -> None:
        self.squares += float(np.square(said.astype(np.float64) - true).sum())
        self.count += true.size

    def _score(self) -> float:
        _require_some(self.count, "value")
        return float(np.sqrt(self.squares / self.count))


class Delta1(_RunningMetric):
    """Share of pixels whose depth is right within a factor of 1.25: {"delta_1": 0 to 1}.

    max(predicted / true, true / predicted) < 1.25, counted over the pixels of all maps together whose true depth is known;
    0, negative or NaN means that it is not. A depth of 0 or less is wrong wherever it is predicted. (MultiMAE, Tables 1
    and 2.)
    """

    summary = "Share of the pixels with a known depth whose predicted depth is right within a factor of 1.25."
    input_types = _VALUE_MAP_FEATURES
    key = "delta_1"

    def _clear(self) -> None:
        self.hits, self.count = 0, 0

    def _add(self, said: np.ndarray, true: np.ndarray) -> None:
        is_known = known_depth(true)
        said, true = said[is_known].astype(np.float64), true[is_known].astype(np.float64)
        # Without a division: nothing to guard.
        self.hits += int(((said < DELTA * true) & (true < DELTA * said)).sum())
        self.count += true.size

    def _score(self) -> float:
        _require_some(self.count, "pixel with a known depth")
        return self.hits / self.count


class MeanIou(_RunningMetric):
    """Mean over classes of intersection over union, of the pixels of all maps together: {"mean_iou": 0 to 1}.

    Classes that neither any reference nor any prediction has are left out. (MultiMAE, Tables 1 to 3.)

    Args:
        ignore_index: Reference of pixels without a class, which do not count whatever was predicted there.
    """

    summary = "Intersection over union of predicted and true pixels, averaged over the classes that occur."
    input_types = _CLASS_MAP_FEATURES
    key = "mean_iou"

    def __init__(self, config_name: str | None = None, ignore_index: int = 255, **options: Any) -> None:
        self.ignore_index = ignore_index
        super().__init__(config_name, **options)

    def _clear(self) -> None:
        self.confusion = np.zeros((0, 0), dtype=np.int64)  # [true, predicted], as large as the largest class so far

    def _add(self, said: np.ndarray, true: np.ndarray) -> None:
        counts = true != self.ignore_index
        said, true = said[counts].astype(np.int64), true[counts].astype(np.int64)
        if not true.size:
            return
        if min(said.min(), true.min()) < 0:
            raise ValueError(
                f"classes are numbers from 0, got {min(said.min(), true.min())}; pixels without a class have the "
                f"reference {self.ignore_index} (ignore_index)."
            )
        size = max(len(self.confusion), int(said.max()) + 1, int(true.max()) + 1)
        grown = np.bincount(true * size + said, minlength=size * size).reshape(size, size)
        grown[: len(self.confusion), : len(self.confusion)] += self.confusion
        self.confusion = grown

    def _score(self) -> float:
        _require_some(int(self.confusion.sum()), "pixel with a class")
        intersection = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - intersection
        return float(np.mean(intersection[union > 0] / union[union > 0]))


METRICS: dict[str, type[evaluate.Metric]] = {
    "accuracy": Accuracy,
    "weighted_f1": WeightedF1,
    "f1": F1,
    "matthews": Matthews,
    "roc_auc": RocAuc,
    "spearman": Spearman,
    "rmse": Rmse,
    "token_accuracy": TokenAccuracy,
    "mean_iou": MeanIou,
    "delta_1": Delta1,
}
LOWER_IS_BETTER = frozenset({"rmse"})
# What a fine-tuned model is scored by, its task's headline first. The last two need exactly two classes.
CLASS_METRICS = ("accuracy", "weighted_f1", "matthews", "f1", "roc_auc")
TWO_CLASS_METRICS = frozenset({"f1", "roc_auc"})
VALUE_METRICS = ("spearman", "rmse")
DEPTH_METRICS = ("delta_1", "rmse")


def metrics_of_outputs(task: str, num_labels: int) -> tuple[str, ...]:
    """Every metric that `score_outputs` gives for a task, the default one first.

    Raises:
        ValueError: the task is unknown.
    """
    if task == "classification":
        return tuple(name for name in CLASS_METRICS if num_labels == 2 or name not in TWO_CLASS_METRICS)
    if task == "regression":
        return VALUE_METRICS
    others: dict[str, tuple[str, ...]] = {
        "token_classification": ("token_accuracy",),
        "semantic_segmentation": ("mean_iou",),
    }
    others["depth_estimation"] = DEPTH_METRICS
    if task not in others:
        raise ValueError(f"task: expected classification, regression, {', '.join(others)}, got {task!r}")
    return others[task]


def known_depth(depth: np.ndarray) -> np.ndarray:
    """Where a depth map is known: bool of its shape, False where it is 0, negative or not finite."""
    return np.isfinite(depth) & (depth > 0)


class MapScores:
    """Every metric of a dense task, of maps that come batch by batch.

    Args:
        task: "semantic_segmentation" or "depth_estimation".
        ignore_index: Class of pixels without one.
    """

    def __init__(self, task: str, ignore_index: int = 255) -> None:
        self.task = task
        options = {"mean_iou": {"ignore_index": ignore_index}}
        self.metrics = {name: load_metric(name, **options.get(name, {})) for name in metrics_of_outputs(task, 0)}

    def add(self, said: np.ndarray, true: np.ndarray) -> None:
        """Count maps (B, H, W): classes, or depths, of which only known pixels are scored."""
        if self.task == "depth_estimation":
            is_known = known_depth(true)
            said, true = said[is_known], true[is_known]
        for metric in self.metrics.values():
            metric.add_batch(predictions=said, references=true)

    def compute(self) -> dict[str, float]:
        """Metric name -> score; the next map begins anew.

        Raises:
            ValueError: No pixel had a label.
        """
        return {name: metric.compute()[name] for name, metric in self.metrics.items()}


def score_outputs(
    outputs: np.ndarray, references: np.ndarray, task: str, headline: str | None = None
) -> dict[str, float]:
    """Every metric of a task that is not dense (`MapScores`), from what a model's head gives.

    Args:
        outputs: classification: (n, classes) logits; regression: (n,) values; token classification: (n, N) classes.
        references: (n,) classes or values; (n, N) classes, -100 where there is nothing to score.
        task: "classification", "regression" or "token_classification".
        headline: A metric that cannot be left out.

    Returns:
        Metric name -> score; without the ROC-AUC where all references are one class.

    Raises:
        ValueError: The headline cannot be computed.
    """
    said = outputs.argmax(axis=-1) if task == "classification" else outputs
    if task == "token_classification":
        said, references = said.reshape(-1), references.reshape(-1)
    scores = {}
    for name in metrics_of_outputs(task, outputs.shape[-1]):
        if name == "roc_auc" != headline and np.ptp(references) == 0:
            continue
        # Softmax grows with the difference of two logits, and the curve depends on the order alone.
        predictions = outputs[:, 1] - outputs[:, 0] if name == "roc_auc" else said
        scores[name] = load_metric(name).compute(predictions=predictions, references=references)[name]
    return scores


def _require_two_classes(name: str, references: np.ndarray) -> None:
    others = sorted(set(np.unique(references).tolist()) - {0, 1})
    if others:
        raise ValueError(f"{name} is for the classes 0 and 1; references also hold {others[:5]}.")


def _require_some(count: int, what: str) -> None:
    if count == 0:
        raise ValueError(f"references hold no {what}, so there is nothing to score.")


def load_metric(name: str, **options: Any) -> evaluate.Metric:
    """The metric called `name` in a recipe; like `evaluate.load`, without the download.

    Args:
        name: In `METRICS`.
        options: Of its class.

    Raises:
        ValueError: no metric has this name.
    """
    if name not in METRICS:
        raise ValueError(f"Unknown metric {name!r}; choose from {list(METRICS)}.")
    return METRICS[name](**options)
