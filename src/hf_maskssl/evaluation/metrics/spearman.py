"""Rank correlation of predicted and true values: {"spearman": -1 to 1}.

It is 0 where all predictions, or all references, are equal: there is no order to compare.
"""

import datasets
import evaluate
import numpy as np
from scipy.stats import spearmanr


class Spearman(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"spearman": 0.0}
        return {"spearman": float(spearmanr(predictions, references).statistic)}
