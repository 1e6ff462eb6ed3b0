"""F1 of class 1 against class 0: {"f1": 0 to 1}; 0 where class 1 is neither predicted nor true.

GLUE's score for QQP and MRPC (SMA paper, Table 4).
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score


class F1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, zero_division=0.0))}
