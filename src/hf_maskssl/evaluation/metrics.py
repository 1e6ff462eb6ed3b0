"""The papers' scores as `evaluate.Metric` classes. They come with the package: nothing is downloaded to use them."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score, root_mean_squared_error

from ..data.labels import IGNORED_LABEL

_CLASS_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
_VALUE_FEATURES = datasets.Features(
    {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
)
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
        return evaluate.MetricInfo(
            description=self.summary,
            citation="",
            inputs_description=self.inputs,
            features=self.input_types,
            # Sequences of different lengths are no array.
            format="numpy" if isinstance(self.input_types, datasets.Features) else None,
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


class Rmse(_Metric):
    """Root of the mean squared error (scikit-learn), in the labels' unit: {"rmse": 0 or more}, lower is better."""

    summary = "Root of the mean squared error; lower is better."
    input_types = _VALUE_FEATURES

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"rmse": float(root_mean_squared_error(references, predictions))}


METRICS: dict[str, type[evaluate.Metric]] = {
    "accuracy": Accuracy,
    "weighted_f1": WeightedF1,
    "f1": F1,
    "matthews": Matthews,
    "roc_auc": RocAuc,
    "spearman": Spearman,
    "rmse": Rmse,
    "token_accuracy": TokenAccuracy,
}
LOWER_IS_BETTER = frozenset({"rmse"})
# What a fine-tuned model is scored by, its task's headline first. The last two need exactly two classes.
CLASS_METRICS = ("accuracy", "weighted_f1", "matthews", "f1", "roc_auc")
TWO_CLASS_METRICS = frozenset({"f1", "roc_auc"})
VALUE_METRICS = ("spearman", "rmse")


def metrics_of_outputs(task: str, num_labels: int) -> tuple[str, ...]:
    """Every metric that `score_outputs` gives for a task, the default one first.

    Raises:
        ValueError: the task is unknown.
    """
    if task == "classification":
        return tuple(name for name in CLASS_METRICS if num_labels == 2 or name not in TWO_CLASS_METRICS)
    if task == "regression":
        return VALUE_METRICS
    if task == "token_classification":
        return ("token_accuracy",)
    raise ValueError(f"task: expected classification, regression or token_classification, got {task!r}")


def score_outputs(
    outputs: np.ndarray, references: np.ndarray, task: str, headline: str | None = None
) -> dict[str, float]:
    """Every metric of a task, from what a model's head gives; without the ROC-AUC where all references are one class.

    Args:
        outputs: classification: (n, classes) logits; regression: (n,) values; token classification: (n, N) classes.
        references: (n,) classes or values; (n, N) classes, -100 where there is nothing to score.
        task: "classification", "regression" or "token_classification".
        headline: A metric that cannot be left out.

    Returns:
        Metric name -> score.

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


def load_metric(name: str) -> evaluate.Metric:
    """The metric called `name` in a recipe; like `evaluate.load`, without the download.

    Raises:
        ValueError: no metric has this name.
    """
    if name not in METRICS:
        raise ValueError(f"Unknown metric {name!r}; choose from {list(METRICS)}.")
    return METRICS[name]()
