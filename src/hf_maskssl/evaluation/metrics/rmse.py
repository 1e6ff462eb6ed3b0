"""Root of the mean squared error, in the labels' unit: {"rmse": 0 or more}, lower is better."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import root_mean_squared_error


class Rmse(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"rmse": float(root_mean_squared_error(references, predictions))}
