"""Area under the ROC curve of each of several tasks, averaged over the tasks: {"mean_roc_auc": 0 to 1}.

Predictions are a score for each task, higher meaning class 1; references 0, 1, and anything else (-100, NaN) where a row has
no label. Tasks that lack one of the two classes among the references are left out of the mean. (MoleculeNet, Wu et al. 2018,
section 3.3: Tox21 and the like; SMA paper, Table 2.)
"""

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from hf_maskssl.data.tables.label_columns import has_both_classes


class MeanRocAuc(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        inputs = datasets.Features({"predictions": row, "references": row})
        return evaluate.MetricInfo(description=__doc__, citation="", features=inputs)  # rows of lists

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        if not np.isfinite(predictions).all():
            raise ValueError(
                f"mean_roc_auc: expected finite predictions, got {int((~np.isfinite(predictions)).sum())} others"
            )
        scores = task_roc_aucs(predictions, references)
        if np.isnan(scores).all():
            raise ValueError(
                f"mean_roc_auc compares rows of class 1 with rows of class 0, but none of {references.shape[1]} tasks has both "
                f"among {len(references)} rows: take more rows or another split."
            )
        return {"mean_roc_auc": float(np.nanmean(scores))}


def task_roc_aucs(predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The area of each task, (T,) float64 between 0 and 1, NaN of tasks that lack one of the classes.

    It is the share of pairs, one of class 1 and one of class 0, that the scores order rightly (Mann-Whitney U); equal scores
    count a half.

    Args:
        predictions: (n, T) scores.
        references: (n, T) 0 and 1, anything else where there is no label.
    """
    found = np.full(references.shape[1], np.nan)
    for task in np.flatnonzero(has_both_classes(references)):
        labels = references[:, task]
        is_there = (labels == 0) | (labels == 1)
        is_positive = labels[is_there] == 1
        ranks = rankdata(predictions[is_there, task])
        num_positive = int(is_positive.sum())
        pairs = num_positive * (len(is_positive) - num_positive)
        found[task] = (ranks[is_positive].sum() - num_positive * (num_positive + 1) / 2) / pairs
    return found
