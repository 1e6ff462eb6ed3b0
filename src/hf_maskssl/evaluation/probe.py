"""Linear and nearest-neighbour probes on frozen features."""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import nn
from torch.nn import functional as F

from .arguments import METRICS_OF_TASK, ProbeArguments
from .features import Features, draw_indices
from .metrics import load_metric

# Strengths of the exact solver's L2 penalty: the sum of squared weights times `penalty / 2` beside the summed loss.
# The validation split chooses; where there is none, or with few labels, which would not have one so large, the default
# holds (1.0 is scikit-learn's default for both models).
PENALTIES = (0.1, 1.0, 10.0, 100.0)
DEFAULT_PENALTY = 1.0
EXACT_MAX_ITERATIONS = 1000
KNN_TEMPERATURE = 0.07  # Wu et al. 2018, also DINO
CHUNK_ROWS = 4096  # rows of features that are read at a time


def linear_probe(
    train: Features,
    test: Features,
    task: str,
    args: ProbeArguments,
    seed: int,
    *,
    validation: Features | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """Scores on `test` of a linear model fitted to `train`.

    "adam" is the protocol of the MetaMAE paper (appendix A): cross entropy or squared error on the features as they
    are, torch.optim.Adam, in seeded random order; features on disk stay there. "exact" standardises the features in
    memory and finds the optimum. Regression targets are standardised with the training set's mean and standard
    deviation and predictions mapped back.

    Args:
        train: Features to fit; `args.labels_per_class` thins them out.
        test: Features to score.
        task: "classification", "regression" or "token_classification" (one row a token).
        args: The probe's settings.
        seed: Of the initial weights, the order of the batches and the draw of few labels. "exact" with all labels does
            not depend on it.
        validation: "exact" chooses the strength of its penalty on it, by the headline metric; it is never fitted.
        device: Where "adam" runs.

    Returns:
        Metric name -> score, for every metric of the task.

    Raises:
        ValueError: Labels are missing or of another kind than the task's, or there is one class only.
    """
    headline = args.headline_metric(task)
    train = _training_rows(train, task, args, seed)
    targets = _Targets(train.required_labels(), task)
    if args.solver == "adam":
        predictions = _fit_adam(train, test, targets, args, seed, device)
        return _scores(targets.decode(predictions), test.required_labels(), task)
    mean, std = _column_statistics(train.values)
    standardised = _standardise(train.values, mean, std)
    penalty = DEFAULT_PENALTY
    if validation is not None and args.labels_per_class is None:
        held_out = _standardise(validation.values, mean, std)

        def validation_score(candidate: float) -> float:
            said = targets.decode(_fit_exact(standardised, held_out, targets, candidate))
            return _scores(said, validation.required_labels(), task)[headline]

        penalty = max(PENALTIES, key=validation_score)
    predictions = _fit_exact(standardised, _standardise(test.values, mean, std), targets, penalty)
    return _scores(targets.decode(predictions), test.required_labels(), task)


def knn_probe(train: Features, test: Features, task: str, args: ProbeArguments, seed: int) -> dict[str, float]:
    """Scores on `test` of its nearest training rows by cosine similarity.

    In classification each of the `args.k` nearest votes with weight exp(similarity / 0.07) (Wu et al. 2018); in
    regression the nearest are averaged. With few labels at most `args.labels_per_class` are asked, since no class has
    more to offer. It runs on the CPU, in blocks: no matrix of all against all is held.

    Args:
        train: Rows to look up; thinned out to `args.labels_per_class` a class and to `args.knn_max_samples`.
        test: Rows to score.
        task: "classification", "regression" or "token_classification" (one row a token).
        args: The probe's settings.
        seed: Of the draws that thin out.

    Returns:
        Metric name -> score, for every metric of the task.

    Raises:
        ValueError: Labels are missing or of another kind than the task's, or there is one class only.
    """
    args.headline_metric(task)
    train = _training_rows(train, task, args, seed)
    if len(train) > args.knn_max_samples:
        train = train.select(draw_indices(len(train), args.knn_max_samples, seed))
    targets = _Targets(train.required_labels(), task)
    num_neighbours = min(args.k, args.labels_per_class or args.k, len(train))
    index = NearestNeighbors(n_neighbors=num_neighbours, algorithm="brute").fit(normalize(train.values))
    said = []
    for start in range(0, len(test), CHUNK_ROWS):
        similarities, neighbours = _nearest(test.values[start : start + CHUNK_ROWS], index)
        answers = targets.encoded[neighbours]
        if targets.classes is None:
            said.append(answers.mean(axis=1))
        else:
            votes = np.zeros((len(answers), len(targets.classes)), dtype=np.float32)
            # The nearest neighbour's weight is 1; without this shift exp(1 / 0.07) would swamp float32's digits.
            weights = np.exp((similarities - similarities[:, :1]) / KNN_TEMPERATURE)
            np.add.at(votes, (np.arange(len(answers))[:, None], answers), weights)
            said.append(votes)
    return _scores(targets.decode(np.concatenate(said)), test.required_labels(), task)


def select_few(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices, in ascending order, of `per_class` rows of each class, drawn without replacement.

    Args:
        labels: (n,) integer classes.
        per_class: Rows of each class.
        seed: Of the draw.

    Raises:
        ValueError: The labels are no classes, or a class has fewer rows.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"probe.labels_per_class: expected integer classes to draw from, got {labels.dtype} labels")
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < per_class:
            raise ValueError(
                f"probe.labels_per_class: expected at most the rows of each class, got {per_class}; "
                f"class {label} has {len(rows)}"
            )
        chosen.append(generator.choice(rows, per_class, replace=False))
    return np.sort(np.concatenate(chosen))


class _Targets:
    """Training labels as a solver wants them, and the way back.

    Attributes:
        classes: (classes,) the classes that occur, ascending; None for regression.
        encoded: (n,) int64 positions in `classes`, or float32 standardised values.
    """

    def __init__(self, labels: np.ndarray, task: str) -> None:
        self.classes: np.ndarray | None = None
        if task == "regression":
            if not np.isfinite(labels).all():
                raise ValueError("labels: expected finite numbers, got NaN or infinite ones")
            self.mean, self.std = float(labels.mean()), float(labels.std()) or 1.0
            self.encoded = ((labels - self.mean) / self.std).astype(np.float32)
            return
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: a {task} task needs integer classes, got {labels.dtype}; check data.task")
        self.classes, encoded = np.unique(labels, return_inverse=True)
        self.encoded = encoded.astype(np.int64)
        if len(self.classes) < 2:
            raise ValueError(f"labels: a probe needs at least two classes to tell apart, all are {self.classes[0]}")

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """(n, classes) scores -> (n,) classes, the first of equals; (n,) standardised values -> values."""
        if self.classes is None:
            return outputs * self.std + self.mean
        return self.classes[outputs.argmax(axis=1)]


def _training_rows(train: Features, task: str, args: ProbeArguments, seed: int) -> Features:
    if args.labels_per_class is None:
        return train
    if task == "regression":
        raise ValueError("probe.labels_per_class: a regression task has no classes to draw from; leave it out")
    return train.select(select_few(train.required_labels(), args.labels_per_class, seed))


def _scores(predictions: np.ndarray, references: np.ndarray, task: str) -> dict[str, float]:
    return {
        name: load_metric(name).compute(predictions=predictions, references=references)[name]
        for name in METRICS_OF_TASK[task]
    }


def _fit_adam(
    train: Features,
    test: Features,
    targets: _Targets,
    args: ProbeArguments,
    seed: int,
    device: str | torch.device,
) -> np.ndarray:
    """Outputs on `test`: (m, classes) scores or (m,) standardised values."""
    num_outputs = 1 if targets.classes is None else len(targets.classes)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing had happened
        torch.manual_seed(seed)
        head = nn.Linear(train.values.shape[1], num_outputs).to(device)
    optimizer = torch.optim.Adam(head.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    encoded = torch.from_numpy(targets.encoded).to(device)
    generator = np.random.default_rng(seed)
    for _ in range(args.num_epochs):
        order = generator.permutation(len(train))
        for start in range(0, len(train), args.batch_size):
            rows = order[start : start + args.batch_size]
            outputs = head(torch.from_numpy(train.values[rows]).to(device))
            batch_targets = encoded[torch.from_numpy(rows).to(device)]
            if targets.classes is None:
                loss = F.mse_loss(outputs.squeeze(1), batch_targets)
            else:
                loss = F.cross_entropy(outputs, batch_targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        outputs = torch.cat([head(block) for block in _blocks(test.values, device)])
    return (outputs.squeeze(1) if targets.classes is None else outputs).cpu().numpy()


def _fit_exact(train: np.ndarray, test: np.ndarray, targets: _Targets, penalty: float) -> np.ndarray:
    """Outputs on `test` as of `_fit_adam`; both sets standardised."""
    if targets.classes is None:
        return Ridge(alpha=penalty).fit(train, targets.encoded).predict(test)
    model = LogisticRegression(C=1 / penalty, max_iter=EXACT_MAX_ITERATIONS).fit(train, targets.encoded)
    outputs = model.decision_function(test)
    # scikit-learn gives two classes one column, positive for the second.
    return np.stack([-outputs, outputs], axis=1) if outputs.ndim == 1 else outputs


def _column_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, float32; 1 where a column is constant."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), CHUNK_ROWS):
        total += values[start : start + CHUNK_ROWS].sum(axis=0, dtype=np.float64)
    mean = total / len(values)
    squares = np.zeros(values.shape[1])
    for start in range(0, len(values), CHUNK_ROWS):
        squares += ((values[start : start + CHUNK_ROWS] - mean) ** 2).sum(axis=0)
    std = np.sqrt(squares / len(values))
    # Rounding leaves a constant column a deviation of a few units in the last place, which must not be blown up to 1.
    is_constant = std <= 1e-6 * np.abs(mean)
    return mean.astype(np.float32), np.where(is_constant, 1.0, std).astype(np.float32)


def _standardise(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    standardised = np.empty(values.shape, dtype=np.float32)
    for start in range(0, len(values), CHUNK_ROWS):
        standardised[start : start + CHUNK_ROWS] = (values[start : start + CHUNK_ROWS] - mean) / std
    return standardised


def _nearest(queries: np.ndarray, index: NearestNeighbors) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities (m, k) float32, highest first, of each query's nearest rows, and their indices (m, k)."""
    # Between vectors of length 1 the Euclidean distance orders as the cosine does, d^2 = 2 - 2 cos, and scikit-learn
    # has a fused kernel for it that keeps the k best of each row as it goes and never holds all against all.
    distances, indices = index.kneighbors(normalize(queries))
    return (1 - distances**2 / 2).astype(np.float32), indices


def _blocks(values: np.ndarray, device: str | torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(values), CHUNK_ROWS):
        # A copy: a memory map is read-only, which torch warns about.
        yield torch.from_numpy(np.array(values[start : start + CHUNK_ROWS])).to(device)
