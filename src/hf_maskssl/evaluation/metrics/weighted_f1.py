"""F1 of each class, averaged with the number of its true samples as weight: {"weighted_f1": 0 to 1}.

The MetaMAE paper reports an F1 score for WaferMap, whose classes are far from balanced (Table 1).
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score


class WeightedF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        score = f1_score(references, predictions, average="weighted", zero_division=0.0)
        return {"weighted_f1": float(score)}
