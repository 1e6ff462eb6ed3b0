"""The papers' scores as `evaluate.Metric` classes. They come with the package: nothing is downloaded to use them."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score

from ..data.labels import IGNORED_LABEL

_CLASS_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
_INPUTS = """
Args:
    predictions: what the model said, one entry a sample.
    references: what is true, one entry a sample.
"""


class _Metric(evaluate.Metric):
    """A metric that gathers its inputs in memory, not in files, unless several processes must share them."""

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        options.setdefault("keep_in_memory", options.get("num_process", 1) == 1)
        super().__init__(config_name, **options)


class Accuracy(_Metric):
    """Share of samples whose class is right: {"accuracy": 0 to 1}."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of samples whose predicted class is right.",
            citation="",
            inputs_description=_INPUTS,
            features=_CLASS_FEATURES,
            format="numpy",
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class WeightedF1(_Metric):
    """F1 of each class, averaged with the number of its true samples as weight (scikit-learn): {"weighted_f1": 0 to
    1}.

    The MetaMAE paper reports an F1 score for WaferMap, whose classes are far from balanced (Table 1).
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 of each class, averaged with the number of its true samples as weight.",
            citation="",
            inputs_description=_INPUTS,
            features=_CLASS_FEATURES,
            format="numpy",
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        score = f1_score(references, predictions, average="weighted", zero_division=0.0)
        return {"weighted_f1": float(score)}


class Spearman(_Metric):
    """Rank correlation of predicted and true values (scipy): {"spearman": -1 to 1}.

    Where all predictions, or all references, are equal there is no order to compare; the score is then 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Spearman's rank correlation of predicted and true values.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            format="numpy",
        )

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

    def _info(self) -> evaluate.MetricInfo:
        sequences = datasets.Features(
            {
                "predictions": datasets.Sequence(datasets.Value("int64")),
                "references": datasets.Sequence(datasets.Value("int64")),
            }
        )
        return evaluate.MetricInfo(
            description="Share of labelled tokens whose class is right; tokens with the reference -100 do not count.",
            citation="",
            inputs_description=_INPUTS,
            features=[_CLASS_FEATURES, sequences],
        )

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


METRICS: dict[str, type[evaluate.Metric]] = {
    "accuracy": Accuracy,
    "weighted_f1": WeightedF1,
    "spearman": Spearman,
    "token_accuracy": TokenAccuracy,
}


def load_metric(name: str) -> evaluate.Metric:
    """The metric called `name` in a recipe; like `evaluate.load`, without the download.

    Raises:
        ValueError: no metric has this name.
    """
    if name not in METRICS:
        raise ValueError(f"Unknown metric {name!r}; choose from {list(METRICS)}.")
    return METRICS[name]()
