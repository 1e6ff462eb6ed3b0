"""Each metric against its formula, and that none needs more than this package and memory."""

import math
import socket
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskssl.evaluation.metrics import (
    LOWER_IS_BETTER,
    METRICS,
    SCRIPTS,
    ClassMapScores,
    DepthMapScores,
    load_metric,
    map_scores,
    metrics_of_outputs,
    score_outputs,
)

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


def test_token_accuracy_leaves_out_ignored_tokens() -> None:
    predictions, references = [0, 1, 2, 2, 1, 1, 0, 0], [0, 1, 0, -100, 1, 0, -100, -100]
    assert compute("token_accuracy", predictions, references) == pytest.approx(3 / 5)
    anything = [said if true >= 0 else 7 for said, true in zip(predictions, references, strict=True)]
    assert compute("token_accuracy", np.array(anything), np.array(references)) == pytest.approx(3 / 5)


def test_token_accuracy_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ValueError, match="no labelled token"):
        compute("token_accuracy", [0, 1], [-100, -100])
    with pytest.raises(ValueError, match=r"predictions \(2\) and references \(3\)"):
        compute("token_accuracy", [0, 1], [0, 1, 1])


# 2 true positives, 1 false positive, 1 false negative, 4 true negatives.
BINARY_SAID = [1, 1, 1, 0, 0, 0, 0, 0]
BINARY_TRUE = [1, 1, 0, 1, 0, 0, 0, 0]


def test_f1_is_that_of_class_1() -> None:
    assert compute("f1", BINARY_SAID, BINARY_TRUE) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    # Of the other class it would be 2 * 4 / (2 * 4 + 1 + 1).
    swapped = [[1 - value for value in values] for values in (BINARY_SAID, BINARY_TRUE)]
    assert compute("f1", *swapped) == pytest.approx(0.8)
    assert compute("f1", [0, 0], [0, 1]) == 0.0


def test_matthews_by_hand() -> None:
    assert compute("matthews", BINARY_SAID, BINARY_TRUE) == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))
    assert compute("matthews", [1, 1, 1], [0, 1, 1]) == 0.0
    assert compute("matthews", [1, 0], [0, 1]) == pytest.approx(-1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=2, max_size=15))
def test_roc_auc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, int]]) -> None:
    ones = [score for score, label in pairs if label]
    zeros = [score for score, label in pairs if not label]
    said, true = (list(column) for column in zip(*pairs, strict=True))
    if not ones or not zeros:
        with pytest.raises(ValueError, match="all .* references are"):
            compute("roc_auc", said, true)
        return
    in_order = sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros)
    assert compute("roc_auc", said, true) == pytest.approx(in_order / (len(ones) * len(zeros)))


@pytest.mark.parametrize(("name", "words"), [("f1", "Target is multiclass"), ("roc_auc", "multi_class must be")])
def test_two_class_scores_refuse_a_third_class(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compute(name, [0, 1, 0], [0, 1, 2])


def test_rmse_is_in_the_labels_unit_and_lower_is_better() -> None:
    assert compute("rmse", [1.0, 2.0, 3.0], [1.0, 4.0, 6.0]) == pytest.approx(math.sqrt((0 + 4 + 9) / 3))
    assert LOWER_IS_BETTER == {"rmse", "l1"}


def test_outputs_of_a_head_are_scored_by_every_metric_of_the_task() -> None:
    # The difference of the logits orders the samples 2 > 0 > 1 > 3: one of the four pairs of a 1 and a 0 is out of order.
    logits = np.array([[0.0, 1.0], [5.0, 5.5], [-2.0, 3.0], [1.0, 0.0]])
    scores = score_outputs(logits, np.array([0, 1, 1, 0]), "classification")
    assert scores == pytest.approx(
        {"accuracy": 0.75, "weighted_f1": (2 / 3 + 0.8) / 2, "matthews": 1 / math.sqrt(3), "f1": 0.8, "roc_auc": 0.75}
    )
    three = score_outputs(np.eye(3), np.array([0, 1, 0]), "classification")
    assert list(three) == ["accuracy", "weighted_f1", "matthews"] and three["accuracy"] == pytest.approx(2 / 3)
    values = score_outputs(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]), "regression")
    assert values == pytest.approx({"spearman": 1.0, "rmse": math.sqrt(1 / 3)})
    tokens = score_outputs(np.array([[1, 0], [1, 1]]), np.array([[1, -100], [0, 1]]), "token_classification")
    assert tokens == pytest.approx({"token_accuracy": 2 / 3})
    with pytest.raises(ValueError, match="task: expected classification"):
        metrics_of_outputs("ranking", 2)


def test_split_of_one_class_has_no_roc_auc_unless_that_is_asked_for() -> None:
    outputs, references = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 1])
    assert "roc_auc" not in score_outputs(outputs, references, "classification", "accuracy")
    with pytest.raises(ValueError, match="all 2 references are 1"):
        score_outputs(outputs, references, "classification", "roc_auc")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_loaded_by_evaluate_and_score_batches_without_a_data_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", None)  # nothing may look for the metric on the Hub
    metric = evaluate.load(str(SCRIPTS[name]), cache_dir=str(tmp_path), keep_in_memory=True)
    assert isinstance(metric, evaluate.Metric) and metric.name == name and f'"{name}"' in metric.description
    for rows in ([0, 1], [1, 0]):
        answers = [[one] for one in rows] if name == "mean_roc_auc" else rows  # of several tasks, here of one
        metric.add_batch(predictions=answers, references=answers)
    assert metric.compute() == {name: pytest.approx(0.0 if name in LOWER_IS_BETTER else 1.0)}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_metrics_combine_as_any_others_do() -> None:
    both = evaluate.combine([load_metric("accuracy"), load_metric("matthews")])
    scores = both.compute(predictions=BINARY_SAID, references=BINARY_TRUE)
    assert scores == pytest.approx({"accuracy": 6 / 8, "matthews": 7 / 15})


def test_every_metric_is_a_script_or_a_running_sum() -> None:
    assert set(METRICS) == {*SCRIPTS, "mean_iou", "delta_1", "l1"}


def test_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'f2'.*weighted_f1"):
        load_metric("f2")


# Metrics of maps.


def slow_mean_iou(said: np.ndarray, true: np.ndarray, ignored: int) -> float:
    shares = []
    for number in range(10):
        both = either = 0
        for one, other in zip(said.ravel().tolist(), true.ravel().tolist(), strict=True):
            if other != ignored:
                both += one == other == number
                either += number in (one, other)
        if either:
            shares.append(both / either)
    return sum(shares) / len(shares)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3))
def test_mean_iou_is_that_of_a_slow_loop_whatever_the_batches(seed: int, num_classes: int, parts: int) -> None:
    random = np.random.default_rng(seed)
    said, true = random.integers(0, num_classes, (2, 4, 3, 5))
    true[0, 0, 0] = num_classes + 1  # a class that nobody says
    true[random.random(true.shape) < 0.3] = 255
    true[0, 0, 1] = 0
    scores = ClassMapScores()
    for said_part, true_part in zip(np.array_split(said, parts), np.array_split(true, parts), strict=True):
        scores.add(said_part, true_part)
    expected = slow_mean_iou(said, true, 255)
    assert scores.compute() == pytest.approx({"mean_iou": expected})
    # What is ignored may be predicted as anything, and nothing is left over for the next one.
    other = ClassMapScores()
    other.add(np.where(true == 255, 9, said), true)
    assert other.compute() == scores.compute()
    np.testing.assert_array_equal(other.confusion, scores.confusion)


def test_ignored_class_is_an_option() -> None:
    said, true = np.array([[0, 1, 1]]), np.array([[0, 1, -1]])
    scores = map_scores("semantic_segmentation", ignore_index=-1)
    scores.add(said, true)
    assert scores.compute() == {"mean_iou": 1.0}
    with pytest.raises(ValueError, match=r"from 0, got -1; .*reference 255 \(ignore_index\)"):
        ClassMapScores().add(said, true)
    with pytest.raises(
        ValueError, match="expected semantic_segmentation, depth_estimation or dense_regression, got 'regression'"
    ):
        map_scores("regression")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_depth_scores_are_those_of_a_slow_loop_over_known_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    true = random.uniform(0.5, 4.0, (3, 4, 5)).astype(np.float32)
    said = (true * random.uniform(0.6, 1.6, true.shape)).astype(np.float32)
    said[0, 0, :2] = [-1.0, 0.0]
    true[1, 0, :4] = [0.0, -2.0, np.nan, np.inf]
    hits, squares, count = 0, 0.0, 0
    for one, other in zip(said.ravel().tolist(), true.ravel().tolist(), strict=True):
        if math.isfinite(other) and other > 0:
            count += 1
            hits += one > 0 and max(one / other, other / one) < 1.25
            squares += (one - other) ** 2
    scores = map_scores("depth_estimation")
    for part in (slice(0, 2), slice(2, 3)):
        scores.add(said[part], true[part])
    expected = {"delta_1": hits / count, "rmse": math.sqrt(squares / count)}
    assert scores.compute() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("make", "value"), [(ClassMapScores, 255), (DepthMapScores, 0), (DepthMapScores, math.nan)])
def test_maps_without_labels_have_no_score(make: type[ClassMapScores | DepthMapScores], value: float) -> None:
    scores, said = make(), np.array([[1, 1]])
    with pytest.raises(ValueError, match="hold no pixel with a"):
        scores.compute()
    scores.add(said, np.array([[value, value]]))
    with pytest.raises(ValueError, match="hold no pixel with a"):
        scores.compute()
    with pytest.raises(ValueError, match=r"the shape \(1, 2\) and references \(1, 3\)"):
        scores.add(said, np.array([[1, 1, 1]]))
    scores.add(said, said)
    assert next(iter(scores.compute().values())) == 1.0


def test_dense_tasks_have_their_metrics() -> None:
    assert metrics_of_outputs("semantic_segmentation", 7) == ("mean_iou",)
    assert metrics_of_outputs("depth_estimation", 1) == ("delta_1", "rmse")


def test_scores_of_values_are_means_over_what_is_known() -> None:
    draw = np.random.default_rng(0)
    true, said = draw.normal(size=(2, 3, 2, 4)), draw.normal(size=(2, 3, 2, 4))
    true[0, :, 0, 0], true[1, 2, 1, 1] = np.nan, np.nan
    whole, parts = map_scores("dense_regression"), map_scores("dense_regression")
    whole.add(said, true)
    for row in range(2):
        parts.add(said[row : row + 1], true[row : row + 1])
    errors = np.array([a - b for a, b in zip(said.ravel(), true.ravel(), strict=True) if b == b])
    assert len(errors) == 44 and parts.compute() == pytest.approx(whole.compute())
    assert whole.compute() == pytest.approx({"l1": np.abs(errors).mean(), "rmse": np.sqrt((errors**2).mean())})
    with pytest.raises(ValueError, match="no value that is known"):
        map_scores("dense_regression").compute()
    with pytest.raises(ValueError, match="give equal ones"):
        whole.add(said[:, :2], true)
