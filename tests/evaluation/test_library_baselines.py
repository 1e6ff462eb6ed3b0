"""Supervised models of the raw inputs: they learn, know the unit of their labels, and refuse what they cannot read."""

import sys
from importlib.util import find_spec
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hf_maskssl.evaluation import deep_baselines
from hf_maskssl.evaluation.arguments import PACKAGES, LibraryModel
from hf_maskssl.evaluation.baselines import RawInputs
from hf_maskssl.evaluation.library_baselines import library_probe


def absent(name: Any) -> Any:
    is_absent = name in PACKAGES and find_spec(PACKAGES[name]) is None
    return pytest.mark.skipif(is_absent, reason="the extra baselines is not installed")


MODELS = [pytest.param(name, marks=absent(name)) for name in get_args(LibraryModel)]
# What a model learns here at the least; TabNet's batch norm follows the rows too slowly for so short a training.
DIGITS_RIGHT = {"xgboost": 0.65, "tabnet": 0.3}
LARGEST_ERROR = {"tabnet": 600}  # of labels whose absolute deviation is 800
OF_THE_EXTRA = [pytest.param(name, marks=absent(name)) for name in PACKAGES]


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks learn faster, and FT-Transformer is smaller, than is good for real data."""
    monkeypatch.setattr(deep_baselines, "BLOCKS", 1)
    monkeypatch.setattr(deep_baselines, "LEARNING_RATES", {"resnet": 3e-3, "ft_transformer": 2e-3, "tabnet": 5e-2})
    monkeypatch.setattr(deep_baselines, "BATCH_SIZES", ((100, 16), (1_000, 64)))
    monkeypatch.setattr(deep_baselines, "PATIENCE", 3)
    monkeypatch.setattr(deep_baselines, "MAX_EPOCHS", 20)
    monkeypatch.setattr(deep_baselines, "EPOCHS_WITHOUT_SCORES", 2)


def digits(train: int = 300, test: int = 200) -> tuple[RawInputs, RawInputs]:
    images, labels = load_digits(return_X_y=True)
    values = images.astype(np.float32)
    return RawInputs(labels[:train], values[:train]), RawInputs(labels[-test:], values[-test:])


@pytest.mark.parametrize("name", [name for name in MODELS if name.values[0] != "ft_transformer"])
def test_a_model_learns_classes(name: LibraryModel) -> None:
    train, test = digits()
    run, what = library_probe(name, train, test, "classification", 0)
    assert run.scores["accuracy"] == np.mean(run.predictions == test.labels) > DIGITS_RIGHT.get(name, 0.75)
    assert run.outputs is not None and run.outputs.shape == (200, 10)
    np.testing.assert_allclose(np.exp(run.outputs).sum(1), 1, atol=1e-5)
    assert what.endswith(("Classifier on 64 input values", "ResNet on 64 input values", "TabNet on 64 input values"))


@pytest.mark.parametrize("name", MODELS)
def test_a_regression_is_in_the_unit_of_the_labels(name: LibraryModel) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 3)).astype(np.float32)
    labels = (5000 + 1000 * values[:, 0]).astype(np.float32)
    splits = [RawInputs(labels[rows], values[rows]) for rows in (slice(300), slice(300, 400))]
    run, _ = library_probe(name, splits[0], splits[1], "regression", 0)
    assert np.abs(run.predictions - splits[1].labels).mean() < LARGEST_ERROR.get(name, 200)
    assert run.outputs is None


def test_few_rows_keep_none_apart() -> None:
    train, test = digits(train=30)
    for name in ("mlp", "hist_gradient_boosting"):
        library_probe(name, train, test, "classification", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OF_THE_EXTRA)
def test_validation_rows_say_when_to_stop_and_are_not_learnt(name: LibraryModel) -> None:
    """Two classes by the sign of a column; class 2 of 0, 2 and 5 has no validation row, class 7 no training row."""
    random = np.random.default_rng(1)
    values = random.normal(size=(130, 2)).astype(np.float32)
    labels = np.select([values[:, 0] < -0.5, values[:, 0] < 0.5], [0, 2], 5)
    parts = [RawInputs(labels[rows], values[rows]) for rows in (slice(60), slice(60, 90), slice(90, 130))]
    parts[1].labels[:3] = 7
    run, _ = library_probe(name, parts[0], parts[2], "classification", 0, validation=parts[1])
    assert set(run.predictions) <= {0, 2, 5} and run.scores["accuracy"] > (0.55 if name == "tabnet" else 0.6)
    assert run.outputs is not None and run.outputs.shape == (40, 3)
    again, _ = library_probe(name, parts[0], parts[2], "classification", 0, validation=parts[1])
    assert np.array_equal(run.outputs, again.outputs), "a seed decides all"
    alone = RawInputs(np.zeros(60, dtype=np.int64), parts[0].values)
    with pytest.raises(ValueError, match="all training rows are of one: leave it out"):
        library_probe(name, alone, parts[2], "classification", 0)
    few = [part.select(np.arange(20)) for part in parts]
    library_probe(name, few[0], few[2], "classification", 0)  # too few rows to keep any apart


@absent("resnet")
def test_the_weights_of_the_best_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits(train=60, test=40)
    network = deep_baselines.TabularNetwork("resnet", "classification", 0, "cpu")
    scores = iter([0.5, 0.9, 0.1, 0.2, 0.3])
    kept: list[Any] = []

    def scored(inputs: np.ndarray, labels: np.ndarray) -> float:
        kept.append(network._outputs(inputs))
        return next(scores)

    monkeypatch.setattr(network, "_score", scored)
    assert train.values is not None and test.values is not None
    network.fit(train.values, train.labels, (test.values, test.labels))
    assert len(kept) == 5, "three epochs in a row were no better than the second"
    assert np.array_equal(network._outputs(test.values), kept[1])


@pytest.mark.parametrize("name", [pytest.param(name, marks=absent(name)) for name in deep_baselines.MOST_COLUMNS])
def test_more_columns_than_a_square_of_them_can_be_held_of_are_refused(
    name: LibraryModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(deep_baselines.MOST_COLUMNS, name, 63)
    train, test = digits()
    with pytest.raises(ValueError, match=rf"{name} .* 64 are too many \(at most 63\): take resnet"):
        library_probe(name, train, test, "classification", 0)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_model_of_the_extra_that_is_absent_names_it(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    train, test = digits()
    expected = rf'The baseline {name} needs {PACKAGES[name]}, .* pip install "hf_maskssl\[baselines\]"'
    with pytest.raises(ImportError, match=expected):
        library_probe(name, train, test, "classification", 0)


def test_what_no_model_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits()
    with pytest.raises(ValueError, match="not for token_classification: leave it out"):
        library_probe("mlp", train, test, "token_classification", 0)
    with pytest.raises(ValueError, match="one label a row, and there are 2"):
        several = RawInputs(np.stack([train.labels] * 2, axis=1), train.values)
        library_probe("mlp", several, test, "classification", 0)
    words = RawInputs(np.array([0, 1, 0, 1]), tokens=[np.array([1, 2, row]) for row in range(4)], vocab_size=9)
    monkeypatch.setattr("hf_maskssl.evaluation.library_baselines.MAX_DENSE_NUMBERS", 10)
    with pytest.raises(ValueError, match="n-grams are too many: take mlp or random_forest"):
        library_probe("hist_gradient_boosting", words, words, "classification", 0)
    assert library_probe("random_forest", words, words, "classification", 0)[0].scores["accuracy"] == 1.0
