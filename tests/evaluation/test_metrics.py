"""Each metric against its formula, and that none needs more than this package and memory."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskssl.evaluation.metrics import METRICS, Accuracy, load_metric

CLASS_PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


def compute(name: str, predictions: object, references: object) -> float:
    return load_metric(name).compute(predictions=predictions, references=references)[name]


def ranks(values: list[float]) -> list[float]:
    """Average ranks from 1, written out: equal values share the mean of their places."""
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def pearson(left: list[float], right: list[float]) -> float:
    left_mean, right_mean = sum(left) / len(left), sum(right) / len(right)
    covariance = sum((a - left_mean) * (b - right_mean) for a, b in zip(left, right, strict=True))
    spread = sum((a - left_mean) ** 2 for a in left) * sum((b - right_mean) ** 2 for b in right)
    return covariance / math.sqrt(spread)


@settings(max_examples=25, deadline=None)
@given(CLASS_PAIRS)
def test_accuracy_is_the_share_of_right_answers(pairs: list[tuple[int, int]]) -> None:
    said, true = (list(column) for column in zip(*pairs, strict=True))
    assert compute("accuracy", said, true) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


@settings(max_examples=25, deadline=None)
@given(CLASS_PAIRS)
def test_weighted_f1_is_each_class_f1_weighted_by_its_true_count(pairs: list[tuple[int, int]]) -> None:
    said, true = (list(column) for column in zip(*pairs, strict=True))
    expected = 0.0
    for label in set(true):
        hits = sum(a == b == label for a, b in pairs)
        expected += true.count(label) / len(true) * 2 * hits / (said.count(label) + true.count(label))
    assert compute("weighted_f1", said, true) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20))
def test_spearman_is_the_correlation_of_average_ranks(pairs: list[tuple[int, int]]) -> None:
    said, true = ([float(value) for value in column] for column in zip(*pairs, strict=True))
    is_constant = len(set(said)) == 1 or len(set(true)) == 1
    expected = 0.0 if is_constant else pearson(ranks(said), ranks(true))
    assert compute("spearman", said, true) == pytest.approx(expected, abs=1e-9)


def test_spearman_sees_order_only() -> None:
    values = np.linspace(-2, 2, 9)
    assert compute("spearman", np.exp(values), values) == pytest.approx(1.0)
    assert compute("spearman", -(values**3), values) == pytest.approx(-1.0)


def test_token_accuracy_leaves_out_ignored_tokens_of_sequences_and_flat_lists() -> None:
    predictions = [[0, 1, 2, 2], [1, 1, 0, 0]]
    references = [[0, 1, 0, -100], [1, 0, -100, -100]]
    assert compute("token_accuracy", predictions, references) == pytest.approx(3 / 5)
    assert compute("token_accuracy", np.array(predictions), np.array(references)) == pytest.approx(3 / 5)
    assert compute("token_accuracy", sum(predictions, []), sum(references, [])) == pytest.approx(3 / 5)


def test_token_accuracy_takes_sequences_of_different_lengths() -> None:
    assert compute("token_accuracy", [[0, 1], [1]], [[0, 0], [1]]) == pytest.approx(2 / 3)


def test_token_accuracy_counts_tokens_not_sequences() -> None:
    # 1 of 1 and 1 of 3: a mean of sequence scores would give 2 / 3.
    assert compute("token_accuracy", [[1, 9, 9], [0, 1, 1]], [[1, -100, -100], [0, 0, 0]]) == pytest.approx(2 / 4)


def test_token_accuracy_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ValueError, match="no labelled token"):
        compute("token_accuracy", [[0, 1]], [[-100, -100]])
    with pytest.raises(ValueError, match="2 tokens and references 3"):
        compute("token_accuracy", [[0, 1]], [[0, 1, 1]])


@pytest.mark.parametrize("name", list(METRICS))
def test_metrics_score_batches_and_write_no_data_file(name: str, tmp_path: Path) -> None:
    metric = METRICS[name](cache_dir=str(tmp_path))
    metric.add_batch(predictions=[0, 1], references=[0, 1])
    metric.add_batch(predictions=[2, 3], references=[2, 3])
    assert metric.compute()[name] == pytest.approx(1.0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_metric_is_described() -> None:
    assert "class is right" in Accuracy().description


def test_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'f1'.*weighted_f1"):
        load_metric("f1")
