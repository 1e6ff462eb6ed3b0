"""Area under the ROC curve of class 1 against class 0: {"roc_auc": 0 to 1}.

Predictions are scores, higher meaning class 1: a probability, a logit or the difference of two logits. (MoleculeNet; SMA
paper, Table 2.)
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score


class RocAuc(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if np.ptp(references) == 0:
            raise ValueError(
                f"roc_auc compares samples of class 1 with samples of class 0, but all {len(references)} references are "
                f"{references[0]}: take more rows or another split."
            )
        return {"roc_auc": float(roc_auc_score(references, predictions))}
