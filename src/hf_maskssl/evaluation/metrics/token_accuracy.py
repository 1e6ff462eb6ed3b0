"""Share of labelled tokens whose predicted class is right: {"token_accuracy": 0 to 1}.

One entry is one token. A token whose reference is -100, such as padding or an unresolved residue, does not count.
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score

from hf_maskssl.data.tables.labels import IGNORED_LABEL


class TokenAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        inputs = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs, format="numpy")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        is_labelled = references != IGNORED_LABEL
        if not is_labelled.any():
            raise ValueError("references hold no labelled token: every entry is -100, so there is nothing to score.")
        return {"token_accuracy": float(accuracy_score(references, predictions, sample_weight=is_labelled))}
