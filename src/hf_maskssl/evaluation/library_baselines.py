"""Supervised models of the raw inputs: what SMA's Tables 3 and 6 put beside a pre-trained encoder.

MLP, XGBoost, ResNet, FT-Transformer and TabNet are these tables' models; histogram gradient boosting and the random forest are
scikit-learn's own. Their hyper-parameters are the libraries' and those below, unless `settings` say otherwise: the tables' models
are tuned for each data set (Gorishniy et al. 2021), which `training.finetuning.baseline_search` does.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch

from ..extras import missing_extra
from .arguments import LibraryModel, Settings, check_library_models
from .baselines import MAX_DENSE_NUMBERS, RawInputs, raw_tables, row_limit
from .deep_baselines import TITLES, HeldOut, TabularNetwork
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
XGBOOST = {"n_estimators": 2000, "early_stopping_rounds": 50}  # Gorishniy et al. 2021
XGBOOST_ROUNDS = 100  # the library's own, where nothing can stop it
FEWEST_ROWS = 50  # from here on a tenth of the rows can be kept apart
# Stopped by the validation split; the others keep rows apart themselves, or need none.
WATCHED = ("xgboost", "resnet", "ft_transformer", "tabnet")
Matrix: TypeAlias = "np.ndarray | sparse.csr_matrix"


class _Model(Protocol):
    """The part of an estimator that is used here."""

    def predict(self, inputs: Matrix) -> np.ndarray: ...


class _Estimator(_Model, Protocol):
    """An estimator of scikit-learn."""

    def fit(self, inputs: Matrix, labels: np.ndarray) -> object: ...


class _Classifier(_Model, Protocol):
    """An estimator of classes."""

    def predict_proba(self, inputs: Matrix) -> np.ndarray: ...


@dataclass(frozen=True)
class _Rows:
    """What a model is fitted to.

    Attributes:
        inputs: (n, D) columns.
        labels: (n,) classes, or values in units of their deviation.
        held_out: Rows that say when to stop; None where there are none, or the model keeps some apart itself.
    """

    inputs: Matrix
    labels: np.ndarray
    held_out: "tuple[Matrix, np.ndarray] | None"


def library_probe(
    name: LibraryModel,
    train: RawInputs,
    test: RawInputs,
    task: str,
    seed: int,
    *,
    validation: RawInputs | None = None,
    device: str | torch.device = "cpu",
    settings: Settings | None = None,
) -> tuple[ProbeRun, str]:
    """Fit one of the models to the raw inputs, as columns that are standardised and counted like those of
    `raw_inputs_probe`, and score it.

    Args:
        name: Name of the model.
        train: Rows to fit; of more than a fit of a minute takes, the seed draws a part.
        test: Rows to score.
        task: "classification" or "regression".
        seed: Seed of initial weights, held-out rows, trees and drawn rows.
        validation: Rows by which "xgboost", "resnet", "ft_transformer" and "tabnet" stop; None keeps a tenth of the training rows
            apart. Nothing is fitted to them.
        device: Device of "resnet", "ft_transformer" and "tabnet".
        settings: Hyper-parameters that take the place of the defaults: arguments of the library's model, of "mlp" with `n_layers`
            layers of `layer_size` units, and of the networks those of `TabularNetwork`.

    Returns:
        The run (of a classification `outputs` are the logarithms of the classes' probabilities), and the model in words.

    Raises:
        ValueError: Another task, several labels a row, or numbers are asked of more columns of n-grams than can be held.
        ImportError: The model's package is not installed.
    """
    _check_task(name, task, train.labels)
    num_rows, allowed = len(train), max(1, row_limit(train))
    if num_rows > allowed:
        train = train.select(draw_indices(num_rows, allowed, seed))
    thinned = f", {len(train):,} of {num_rows:,} training rows" if len(train) < num_rows else ""
    if name not in WATCHED:
        validation = None
    elif validation is None:
        train, validation = kept_apart(train, seed)
    tables, what = raw_tables([train, test, *([] if validation is None else [validation])])
    inputs: list[Matrix] = [table.values for table in tables]
    if name == "hist_gradient_boosting" or name in TITLES:
        inputs = [_dense(name, values) for values in inputs]
    # Errors of a network are in units of the labels' deviation.
    mean, std = (train.labels.mean(), train.labels.std() or 1.0) if task == "regression" else (0.0, 1.0)
    labels = [(table.labels - mean) / std if task == "regression" else table.labels for table in tables]
    held_out = (inputs[2], labels[2]) if len(inputs) > 2 else None
    model, title, converged = _fit(name, _Rows(inputs[0], labels[0], held_out), task, seed, device, settings or {})
    said, outputs = model.predict(inputs[1]), None
    if task == "regression":
        said = said * std + mean
    else:
        probabilities = cast(_Classifier, model).predict_proba(inputs[1])
        outputs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    run = ProbeRun(score_predictions(said, test.labels, task), said, converged, outputs)
    return run, f"{title} on {what}{thinned}"


def _check_task(name: LibraryModel, task: str, labels: np.ndarray) -> None:
    if task not in ("classification", "regression"):
        raise ValueError(f"{name} is for classification and regression, not for {task}: leave it out")
    if labels.ndim != 1:
        raise ValueError(f"{name} reads one label a row, and there are {labels.shape[1]}: leave it out")


def kept_apart(train: RawInputs, seed: int) -> tuple[RawInputs, RawInputs | None]:
    """The training rows without a tenth of them, which the seed draws, and that tenth; all and None where they are few."""
    if len(train) < FEWEST_ROWS:
        return train, None
    is_kept = np.zeros(len(train), dtype=bool)
    is_kept[draw_indices(len(train), len(train) // 10, seed)] = True
    return train.select(np.flatnonzero(~is_kept)), train.select(np.flatnonzero(is_kept))


def _fit(
    name: LibraryModel, rows: _Rows, task: str, seed: int, device: str | torch.device, settings: Settings
) -> tuple[_Model, str, bool]:
    """A fitted model, its name in words, and whether its training converged."""
    if name in WATCHED and task == "classification" and len(np.unique(rows.labels)) < 2:
        raise ValueError(f"{name} tells classes apart, and all training rows are of one: leave it out")
    if name == "resnet" or name == "ft_transformer" or name == "tabnet":
        network = TabularNetwork(name, task, seed, device, settings)
        inputs = cast(np.ndarray, rows.inputs)
        converged = fit_converges(lambda: network.fit(inputs, rows.labels, cast("HeldOut | None", rows.held_out)))
        return network, TITLES[name], converged
    if name == "xgboost":
        return _fit_xgboost(rows, task, seed, settings)
    # A class of one row cannot be in both parts of a hold-out.
    rarest = len(rows.labels) if task == "regression" else int(np.unique(rows.labels, return_counts=True)[1].min())
    model = _estimator(name, task, len(rows.labels) >= FEWEST_ROWS and rarest > 1, seed, settings)
    converged = fit_converges(lambda: model.fit(rows.inputs, rows.labels))
    return model, type(model).__name__, converged


def _estimator(name: LibraryModel, task: str, holds_rows_out: bool, seed: int, settings: Settings) -> _Estimator:
    is_regression = task == "regression"
    chosen = dict(settings)
    if name == "random_forest":
        forest = RandomForestRegressor if is_regression else RandomForestClassifier
        model: _Estimator = forest(random_state=seed, **FOREST | chosen)
        return model
    holds_out = {"early_stopping": holds_rows_out}
    if name == "mlp":
        layers = {}
        if "n_layers" in chosen:
            layers = {"hidden_layer_sizes": (int(chosen.pop("layer_size")),) * int(chosen.pop("n_layers"))}
        perceptron = MLPRegressor if is_regression else MLPClassifier
        model = perceptron(random_state=seed, **MLP | holds_out | layers | chosen)
    else:
        boosting = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
        rounds = {} if holds_rows_out else {"max_iter": 100}  # scikit-learn's own, where nothing can stop it
        model = boosting(random_state=seed, **BOOSTING | holds_out | rounds | chosen)
    return model


@dataclass(frozen=True)
class _Renumbered:
    """A classifier that was fitted to the places of classes among those of the training rows, which XGBoost asks for."""

    model: _Classifier
    classes: np.ndarray

    def predict(self, inputs: Matrix) -> np.ndarray:
        return np.asarray(self.classes[self.model.predict(inputs)])

    def predict_proba(self, inputs: Matrix) -> np.ndarray:
        return self.model.predict_proba(inputs)


def _fit_xgboost(rows: _Rows, task: str, seed: int, chosen: Settings) -> tuple[_Model, str, bool]:
    check_library_models(["xgboost"])
    xgboost: Any = importlib.import_module("xgboost")
    inputs, labels, held_out = rows.inputs, rows.labels, rows.held_out
    classes = np.unique(labels)
    if task == "classification":
        labels = np.searchsorted(classes, labels)
        if held_out is not None:
            is_known = np.flatnonzero(np.isin(held_out[1], classes))
            held_out = (held_out[0][is_known], np.searchsorted(classes, held_out[1][is_known]))
    watches = held_out is not None and len(held_out[1]) > 0
    settings = XGBOOST if watches else {"n_estimators": XGBOOST_ROUNDS}
    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    model = kind(random_state=seed, **settings, **chosen).fit(
        inputs, labels, eval_set=[held_out] if watches else None, verbose=False
    )
    return model if task == "regression" else _Renumbered(model, classes), kind.__name__, True


def _dense(name: str, values: Matrix) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if values.shape[0] * values.shape[1] > MAX_DENSE_NUMBERS:
        raise ValueError(
            f"{name} reads numbers, and {values.shape[0]:,} rows of {values.shape[1]:,} n-grams are too many: take mlp or "
            "random_forest, or fewer rows"
        )
    return np.asarray(values.toarray())
