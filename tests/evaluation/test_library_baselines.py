"""scikit-learn's models of the raw inputs: they learn, know the unit of their labels, and refuse what they cannot read."""

from typing import get_args

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hf_maskssl.evaluation.arguments import LibraryModel
from hf_maskssl.evaluation.baselines import RawInputs
from hf_maskssl.evaluation.library_baselines import library_probe


def digits(train: int = 300, test: int = 200) -> tuple[RawInputs, RawInputs]:
    images, labels = load_digits(return_X_y=True)
    values = images.astype(np.float32)
    return RawInputs(labels[:train], values[:train]), RawInputs(labels[-test:], values[-test:])


@pytest.mark.parametrize("name", get_args(LibraryModel))
def test_a_model_learns_classes(name: LibraryModel) -> None:
    train, test = digits()
    run, what = library_probe(name, train, test, "classification", 0)
    assert run.scores["accuracy"] == np.mean(run.predictions == test.labels) > 0.75
    assert run.outputs is not None and run.outputs.shape == (200, 10)
    np.testing.assert_allclose(np.exp(run.outputs).sum(1), 1, atol=1e-5)
    assert what.endswith("Classifier on 64 input values")


@pytest.mark.parametrize("name", get_args(LibraryModel))
def test_a_regression_is_in_the_unit_of_the_labels(name: LibraryModel) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 3)).astype(np.float32)
    labels = (5000 + 1000 * values[:, 0]).astype(np.float32)
    splits = [RawInputs(labels[rows], values[rows]) for rows in (slice(300), slice(300, 400))]
    run, _ = library_probe(name, splits[0], splits[1], "regression", 0)
    assert np.abs(run.predictions - splits[1].labels).mean() < 200 and run.outputs is None


def test_few_rows_keep_none_apart() -> None:
    train, test = digits(train=30)
    for name in ("mlp", "hist_gradient_boosting"):
        library_probe(name, train, test, "classification", 0)  # type: ignore[arg-type]


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
