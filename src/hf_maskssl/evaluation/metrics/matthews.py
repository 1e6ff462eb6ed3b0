"""Matthews correlation of predicted and true classes: {"matthews": -1 to 1}; 0 where all of either are one class.

GLUE's score for CoLA (SMA paper, Table 4).
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import matthews_corrcoef


class Matthews(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"matthews": float(matthews_corrcoef(references, predictions))}
