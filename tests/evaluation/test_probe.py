"""Probes on features whose answer is known, and against slow obvious references."""

import math
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from hf_maskssl.evaluation import probe
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.features import Features
from hf_maskssl.evaluation.probe import knn_probe, linear_probe, run_linear_probe, select_few

FAST_ADAM: dict[str, Any] = {"solver": "adam", "num_epochs": 30, "learning_rate": 1e-2, "batch_size": 32}
SOLVERS: list[dict[str, Any]] = [FAST_ADAM, {"solver": "exact"}]


def clusters(num_rows: int, seed: int, spread: float = 0.3, num_classes: int = 3) -> Features:
    """Classes 0, 10, 20, ... around corners that lie the same way whatever the seed."""
    generator = np.random.default_rng(seed)
    corners = np.random.default_rng(0).normal(size=(num_classes, 8))
    labels = generator.integers(0, num_classes, num_rows)
    values = corners[labels] + spread * generator.normal(size=(num_rows, 8))
    return Features(values.astype(np.float32), 10 * labels)


def noise(num_rows: int, seed: int) -> Features:
    generator = np.random.default_rng(seed)
    return Features(generator.normal(size=(num_rows, 8)).astype(np.float32), generator.integers(0, 4, num_rows))


def line(num_rows: int, seed: int) -> Features:
    """A target that is linear in the features, far from zero mean and unit scale."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(num_rows, 4)).astype(np.float32)
    return Features(values, (1000 + 200 * values @ np.array([1.0, -2.0, 0.5, 0.0])).astype(np.float32))


def catch_predictions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """A list that fills with the (predictions, references) of each probe that follows."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def spy(predictions: np.ndarray, references: np.ndarray, task: str) -> dict[str, float]:
        seen.append((predictions, references))
        return {}

    monkeypatch.setattr(probe, "score_predictions", spy)
    return seen


@pytest.mark.parametrize("settings_", SOLVERS)
@pytest.mark.parametrize("task", ["classification", "token_classification"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_linear_probe_finds_separable_classes(settings_: dict[str, Any], task: str, num_classes: int) -> None:
    train, test = (clusters(300, seed, num_classes=num_classes) for seed in (1, 2))
    scores = linear_probe(train, test, task, ProbeArguments(**settings_), seed=0)
    names = {"accuracy", "weighted_f1"} if task == "classification" else {"token_accuracy"}
    assert set(scores) == names and min(scores.values()) > 0.97


@pytest.mark.parametrize("settings_", SOLVERS)
def test_linear_probe_is_at_chance_on_noise(settings_: dict[str, Any]) -> None:
    scores = linear_probe(noise(1000, 1), noise(1000, 2), "classification", ProbeArguments(**settings_), seed=0)
    # 4 classes, 1000 rows: chance 0.25, standard deviation 0.014
    assert abs(scores["accuracy"] - 0.25) < 0.055


@pytest.mark.parametrize("settings_", SOLVERS)
def test_linear_probe_finds_a_linear_target_of_any_scale(settings_: dict[str, Any]) -> None:
    assert linear_probe(line(300, 1), line(200, 2), "regression", ProbeArguments(**settings_), 0)["spearman"] > 0.99


@pytest.mark.parametrize("solver", ["adam", "exact"])
def test_regression_predictions_are_mapped_back(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = catch_predictions(monkeypatch)
    linear_probe(line(300, 1), line(50, 2), "regression", ProbeArguments(**{**FAST_ADAM, "solver": solver}), 0)
    knn_probe(line(3000, 1), line(50, 2), "regression", ProbeArguments(k=5), 0)
    for said, true in seen:
        assert said.mean() == pytest.approx(true.mean(), abs=60) and 0.5 < said.std() / true.std() < 1.5
    assert len(seen) == 2


def test_the_default_is_the_exact_solver_and_the_papers_protocol_is_one_field() -> None:
    assert ProbeArguments().linear_solver == "exact"
    args = ProbeArguments(protocol="paper")
    found = (args.linear_solver, args.num_epochs, args.learning_rate, args.weight_decay)
    assert found == ("adam", 100, 1e-4, 1e-4)  # appendix A
    # What recipes of before said, spelled out, is what it was.
    old = ProbeArguments(solver="adam", num_epochs=100, learning_rate=1e-4, weight_decay=1e-4)
    assert old.linear_solver == "adam" and ProbeArguments(solver="exact").linear_solver == "exact"
    train, test = clusters(60, 1, spread=1.0), clusters(60, 2, spread=1.0)
    runs = [run_linear_probe(train, test, "classification", one, 0) for one in (args, old)]
    np.testing.assert_array_equal(runs[0].predictions, runs[1].predictions)


@pytest.mark.parametrize(
    ("field", "value"), [("solver", "exact"), ("num_epochs", 10), ("learning_rate", 1e-3), ("weight_decay", 0.0)]
)
def test_what_departs_from_the_paper_is_not_called_the_papers_protocol(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"probe\.{field}: expected .* under probe.protocol 'paper', got {value!r}"):
        ProbeArguments(**{"protocol": "paper", field: value})


def test_adam_that_has_not_converged_says_so(caplog: pytest.LogCaptureFixture) -> None:
    train, test = clusters(60, 1), clusters(60, 2)
    slow = run_linear_probe(train, test, "classification", ProbeArguments(protocol="paper"), 0)
    assert not slow.converged and "has not converged" in caplog.text and "probe.protocol" in caplog.text
    caplog.clear()
    args = ProbeArguments(solver="adam", num_epochs=100, learning_rate=0.1, weight_decay=0.1)
    assert run_linear_probe(train, test, "classification", args, 0).converged and not caplog.text


@pytest.mark.parametrize(
    ("losses", "has_converged"),
    [
        ([2.0 - 0.01 * epoch for epoch in range(100)], False),  # a straight line down
        ([1.0 + math.exp(-epoch / 10) for epoch in range(100)], True),
        ([1.0 + math.exp(-epoch / 40) for epoch in range(100)], False),
        ([1.0 - 1e-7 * epoch for epoch in range(100)], True),  # it does not move at all
        ([1.0, 1.0], True),
        ([1.0], False),  # a single epoch shows nothing
    ],
)
def test_convergence_of_adam_is_read_off_the_last_tenth_of_epochs(losses: list[float], has_converged: bool) -> None:
    assert probe._adam_has_converged(losses) == has_converged


def test_exact_solver_that_has_not_converged_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train, test = noise(200, 1), noise(50, 2)
    assert run_linear_probe(train, test, "classification", ProbeArguments(), 0).converged and not caplog.text
    monkeypatch.setattr(probe, "EXACT_MAX_ITERATIONS", 1)
    assert not run_linear_probe(train, test, "classification", ProbeArguments(), 0).converged
    assert "not converged after 1 iterations" in caplog.text and "200 rows of 8 columns" in caplog.text
    assert run_linear_probe(line(50, 1), line(20, 2), "regression", ProbeArguments(), 0).converged


def test_adam_is_torch_adam_on_the_features_as_they_are() -> None:
    train, test = clusters(50, 1), clusters(20, 2)
    args = ProbeArguments(solver="adam", num_epochs=3, batch_size=16, learning_rate=1e-2, weight_decay=0.1)
    torch.manual_seed(5)
    head = torch.nn.Linear(8, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2, weight_decay=0.1)
    generator = np.random.default_rng(5)
    for _ in range(3):
        for rows in np.split(generator.permutation(50), [16, 32, 48]):
            optimizer.zero_grad()
            targets = torch.from_numpy(train.required_labels()[rows] // 10)
            torch.nn.functional.cross_entropy(head(torch.from_numpy(train.values[rows])), targets).backward()
            optimizer.step()
    said = 10 * head(torch.from_numpy(test.values)).argmax(1).numpy()
    expected = (said == test.labels).mean()
    assert linear_probe(train, test, "classification", args, seed=5)["accuracy"] == pytest.approx(expected)
    outputs, _ = probe._fit_adam(train, test, probe.Targets(train.required_labels(), "classification"), args, 5, "cpu")
    np.testing.assert_allclose(outputs, head(torch.from_numpy(test.values)).detach().numpy(), atol=1e-6)


def test_probes_depend_on_the_seed_alone_and_leave_the_random_numbers_alone() -> None:
    train, test = clusters(100, 1, spread=2.0), clusters(200, 2, spread=2.0)
    args = ProbeArguments(solver="adam", num_epochs=1, labels_per_class=5)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = linear_probe(train, test, "classification", args, seed=0)
    assert torch.equal(torch.rand(2), expected)
    assert linear_probe(train, test, "classification", args, seed=0) == first
    assert linear_probe(train, test, "classification", args, seed=1) != first
    assert knn_probe(train, test, "classification", args, 0) != knn_probe(train, test, "classification", args, 1)


def test_exact_solver_does_not_care_for_scale_and_offset_of_features() -> None:
    train, test = clusters(200, 1, spread=1.0), clusters(200, 2, spread=1.0)
    scale, offset = np.logspace(-3, 3, 8, dtype=np.float32), np.float32(5)
    moved, moved_test = (Features(split.values * scale + offset * scale, split.labels) for split in (train, test))
    args = ProbeArguments(solver="exact")
    expected = linear_probe(train, test, "classification", args, 0)
    scores = linear_probe(moved, moved_test, "classification", args, 0)
    assert scores["accuracy"] == pytest.approx(expected["accuracy"], abs=0.011)


def test_constant_features_do_no_harm() -> None:
    train, test = (
        Features(np.hstack([split.values, np.full((len(split), 2), 1e4, np.float32)]), split.labels)
        for split in (clusters(200, 1), clusters(200, 2))
    )
    assert linear_probe(train, test, "classification", ProbeArguments(solver="exact"), 0)["accuracy"] > 0.97


def test_validation_chooses_the_penalty_and_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[tuple[int, float]] = []
    original = probe._fit_exact

    def spy(train: np.ndarray, test: np.ndarray, targets: Any, penalty: float) -> tuple[np.ndarray, bool]:
        fitted.append((len(train), penalty))
        # Only penalty 10 gives the truth on the validation split.
        if penalty == 10.0:
            return original(train, test, targets, penalty)
        return np.eye(3)[np.zeros(len(test), int)], True

    monkeypatch.setattr(probe, "_fit_exact", spy)
    train, test, validation = (clusters(rows, rows) for rows in (60, 50, 40))
    args = ProbeArguments(solver="exact")
    linear_probe(train, test, "classification", args, 0, validation=validation)
    assert fitted == [*((60, penalty) for penalty in probe.PENALTIES), (60, 10.0)]
    fitted.clear()
    linear_probe(train, test, "classification", args, 0)
    few = ProbeArguments(solver="exact", labels_per_class=4)
    linear_probe(train, test, "classification", few, 0, validation=validation)
    assert fitted == [(60, 1.0), (12, 1.0)]


def slow_knn(train: Features, test: Features, k: int) -> list[int]:
    said = []
    for row in test.values.astype(np.float64):
        lengths = np.linalg.norm(row) * np.linalg.norm(train.values.astype(np.float64), axis=1)
        similarities = [float(row @ other / length) for other, length in zip(train.values, lengths, strict=True)]
        votes: dict[int, float] = {}
        for neighbour in sorted(range(len(train)), key=lambda index: -similarities[index])[:k]:
            label = int(train.required_labels()[neighbour])
            votes[label] = votes.get(label, 0.0) + math.exp(similarities[neighbour] / 0.07)
        said.append(max(votes, key=lambda label: votes[label]))
    return said


@settings(max_examples=15, deadline=None)
@given(num_train=st.integers(4, 40), num_test=st.integers(1, 20), k=st.integers(1, 50), seed=st.integers(0, 99))
def test_knn_is_the_slow_weighted_vote(num_train: int, num_test: int, k: int, seed: int) -> None:
    train, test = noise(num_train, seed), noise(num_test, seed + 1000)
    if len(np.unique(train.required_labels())) < 2:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "CHUNK_ROWS", 7)  # so that the borders of blocks are crossed
        scores = knn_probe(train, test, "classification", ProbeArguments(k=k), 0)
    expected = np.mean(np.array(slow_knn(train, test, k)) == test.labels)
    assert scores["accuracy"] == pytest.approx(expected)


def test_knn_regression_is_the_mean_of_the_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = catch_predictions(monkeypatch)
    train = Features(np.eye(4, dtype=np.float32), np.array([1.0, 2.0, 30.0, 40.0], np.float32))
    test = Features(np.array([[1.0, 0.9, 0.1, 0.0], [0.0, 0.1, 5.0, 4.0]], np.float32), np.zeros(2, np.float32))
    knn_probe(train, test, "regression", ProbeArguments(k=2), 0)
    np.testing.assert_allclose(seen[0][0], [1.5, 35.0], rtol=1e-5)


def test_knn_never_holds_all_against_all() -> None:
    train, test = noise(3000, 1), noise(3000, 2)
    tracemalloc.start()
    knn_probe(train, test, "classification", ProbeArguments(k=5), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 2  # bytes of half the matrix in float32


def test_few_labels_ask_no_more_neighbours_than_a_class_has() -> None:
    train, test = clusters(300, 1), clusters(300, 2)
    # With 20 neighbours of 3 x 2 rows every class would vote with all it has.
    assert knn_probe(train, test, "classification", ProbeArguments(k=20, labels_per_class=2), 0)["accuracy"] > 0.95


def test_knn_thins_out_a_large_training_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = probe._nearest

    def spy(queries: np.ndarray, index: NearestNeighbors) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(index.n_samples_fit_)
        return original(queries, index)

    monkeypatch.setattr(probe, "_nearest", spy)
    args = ProbeArguments(k=5, knn_max_samples=30)
    assert knn_probe(clusters(300, 1), clusters(50, 2), "classification", args, 0)["accuracy"] > 0.95
    assert sizes == [30]


def test_probes_work_on_memory_maps(tmp_path: Any) -> None:
    train, test = clusters(100, 1), clusters(100, 2)
    np.save(tmp_path / "train.npy", train.values)
    mapped = Features(np.load(tmp_path / "train.npy", mmap_mode="r"), train.labels)
    for args in (
        ProbeArguments(solver="adam", num_epochs=2),
        ProbeArguments(solver="exact"),
        ProbeArguments(labels_per_class=3),
    ):
        for one_probe in (linear_probe, knn_probe):
            expected = one_probe(train, test, "classification", args, 0)
            assert one_probe(mapped, test, "classification", args, 0) == expected


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(3, 9), min_size=1, max_size=5), per_class=st.integers(1, 3), seed=st.integers(0, 9))
def test_select_few_takes_the_same_number_of_each_class(counts: list[int], per_class: int, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = select_few(labels, per_class, seed)
    assert len(set(rows.tolist())) == len(rows) and (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows]).tolist() == [per_class] * len(counts)
    np.testing.assert_array_equal(rows, select_few(labels, per_class, seed))


def test_select_few_draws_other_rows_with_another_seed() -> None:
    labels = np.repeat([0, 1], 100)
    assert not np.array_equal(select_few(labels, 5, 0), select_few(labels, 5, 1))


def test_bad_labels_are_errors_that_say_what_to_do() -> None:
    train, target = clusters(30, 1), line(30, 1)
    with pytest.raises(ValueError, match="labels_per_class.*got 5; class 1 has 2"):
        select_few(np.array([0] * 9 + [1] * 2), 5, 0)
    with pytest.raises(ValueError, match="no classes to draw from"):
        linear_probe(target, target, "regression", ProbeArguments(labels_per_class=2), 0)
    for one_probe in (linear_probe, knn_probe):
        with pytest.raises(ValueError, match="needs integer classes"):
            one_probe(target, target, "classification", ProbeArguments(), 0)
        with pytest.raises(ValueError, match="data.label_column"):
            one_probe(Features(train.values, None), train, "classification", ProbeArguments(), 0)
        with pytest.raises(ValueError, match="at least two classes"):
            one_probe(Features(train.values, np.zeros(30, int)), train, "classification", ProbeArguments(), 0)
        with pytest.raises(ValueError, match="'spearman' does not measure a classification task"):
            one_probe(train, train, "classification", ProbeArguments(metric="spearman"), 0)
        with pytest.raises(ValueError, match="task: expected one of"):
            one_probe(train, train, "clustering", ProbeArguments(), 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", "papers"),
        ("solver", "sgd"),
        ("metric", "f1"),
        ("num_epochs", 0),
        ("batch_size", 0),
        ("k", 0),
        ("knn_max_samples", 0),
        ("max_samples", 0),
        ("labels_per_class", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("every_steps", -1),
        ("seeds", []),
        ("seeds", [1, 1]),
        ("seeds", [-1]),
    ],
)
def test_arguments_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"probe\.{field}: expected .*{re.escape(str(value))}"):
        ProbeArguments(**{field: value})
