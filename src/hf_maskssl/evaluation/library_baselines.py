"""Supervised models of scikit-learn on the raw inputs: what SMA's Tables 3b and 6 put beside a pre-trained encoder.

An MLP is one of these tables' models, histogram gradient boosting stands for XGBoost and CatBoost. Their hyper-parameters are
scikit-learn's and those below, not tuned for a data set as the tables' are (Gorishniy et al. 2021).
"""

from typing import Protocol, TypeAlias

import numpy as np

from ..extras import missing_extra
from .arguments import LibraryModel
from .baselines import MAX_DENSE_NUMBERS, RawInputs, raw_tables, row_limit
from .features import draw_indices
from .probe import ProbeRun, fit_converges, score_predictions

try:
    from scipy import sparse
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.neural_network import MLPClassifier, MLPRegressor
except ImportError as error:
    raise missing_extra("A baseline", "train", error) from error

# Two layers, trained until a tenth of the training rows no longer gains; ours.
MLP = {"hidden_layer_sizes": (256, 256), "early_stopping": True, "max_iter": 300}
BOOSTING = {"early_stopping": True, "max_iter": 1000}
FOREST = {"n_estimators": 300}
FEWEST_ROWS = 50  # from here on a tenth of the rows can be kept apart
Matrix: TypeAlias = "np.ndarray | sparse.csr_matrix"


class _Model(Protocol):
    """The part of a scikit-learn estimator that is used here."""

    def fit(self, inputs: Matrix, labels: np.ndarray) -> "_Model": ...

    def predict(self, inputs: Matrix) -> np.ndarray: ...


def library_probe(name: LibraryModel, train: RawInputs, test: RawInputs, task: str, seed: int) -> tuple[ProbeRun, str]:
    """Fit one of scikit-learn's models to the raw inputs, as columns that are standardised and counted like those of
    `raw_inputs_probe`, and score it.

    Args:
        name: Name of the model.
        train: Rows to fit; of more than a fit of a minute takes, the seed draws a part.
        test: Rows to score.
        task: "classification" or "regression".
        seed: Seed of initial weights, held-out rows, trees and drawn rows.

    Returns:
        The run (of a classification `outputs` are the logarithms of the classes' probabilities), and the model in words.

    Raises:
        ValueError: Another task, several labels a row, or trees over more columns of n-grams than can be held as numbers.
    """
    if task not in ("classification", "regression"):
        raise ValueError(f"{name} is for classification and regression, not for {task}: leave it out")
    if train.labels.ndim != 1:
        raise ValueError(f"{name} reads one label a row, and there are {train.labels.shape[1]}: leave it out")
    num_rows, allowed = len(train), max(1, row_limit(train))
    if num_rows > allowed:
        train = train.select(draw_indices(num_rows, allowed, seed))
    tables, what = raw_tables([train, test])
    inputs: list[Matrix] = [table.values for table in tables]
    if name == "hist_gradient_boosting":
        inputs = [_dense(name, values) for values in inputs]
    # Errors of a network are in units of the labels' deviation.
    mean, std = (train.labels.mean(), train.labels.std() or 1.0) if task == "regression" else (0.0, 1.0)
    labels = (train.labels - mean) / std if task == "regression" else train.labels
    # A class of one row cannot be in both parts of a hold-out.
    rarest = len(train) if task == "regression" else int(np.unique(labels, return_counts=True)[1].min())
    model = _model(name, task, len(train) >= FEWEST_ROWS and rarest > 1, seed)
    converged = fit_converges(lambda: model.fit(inputs[0], labels))
    said = model.predict(inputs[1])
    outputs = None
    if task == "regression":
        said = said * std + mean
    else:
        assert isinstance(model, HistGradientBoostingClassifier | MLPClassifier | RandomForestClassifier)
        outputs = np.log(np.maximum(model.predict_proba(inputs[1]), np.finfo(np.float64).tiny))
    thinned = f", {len(train):,} of {num_rows:,} training rows" if len(train) < num_rows else ""
    return ProbeRun(
        score_predictions(said, test.labels, task), said, converged, outputs
    ), f"{type(model).__name__} on {what}{thinned}"


def _model(name: LibraryModel, task: str, holds_rows_out: bool, seed: int) -> _Model:
    is_regression = task == "regression"
    if name == "random_forest":
        forest = RandomForestRegressor if is_regression else RandomForestClassifier
        model: _Model = forest(random_state=seed, **FOREST)
        return model
    holds_out = {"early_stopping": holds_rows_out}
    if name == "mlp":
        model = (MLPRegressor if is_regression else MLPClassifier)(random_state=seed, **MLP | holds_out)
    else:
        boosting = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
        rounds = {} if holds_rows_out else {"max_iter": 100}  # scikit-learn's own, where nothing can stop it
        model = boosting(random_state=seed, **BOOSTING | holds_out | rounds)
    return model


def _dense(name: str, values: Matrix) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if values.shape[0] * values.shape[1] > MAX_DENSE_NUMBERS:
        raise ValueError(
            f"{name} reads numbers, and {values.shape[0]:,} rows of {values.shape[1]:,} n-grams are too many: take mlp or "
            "random_forest, or fewer rows"
        )
    return np.asarray(values.toarray())
