"""Linear and nearest-neighbour probes on frozen features."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from ..data.arguments import TASKS_OF_COLUMNS
from ..extras import missing_extra
from .arguments import METRICS_OF_TASK, ProbeArguments
from .features import Features, draw_indices
from .metrics import load_metric, score_columns
from .probe_targets import AnyTargets, ColumnTargets, Targets, targets_of

try:
    from scipy import sparse
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize
except ImportError as error:
    raise missing_extra("A probe", "train", error) from error


# Strengths of the exact solver's L2 penalty: the sum of squared weights times `penalty / 2` beside the summed loss.
# The validation split chooses; where there is none, or with few labels, which would not have one so large, the default
# holds (1.0 is scikit-learn's default for both models).
PENALTIES = (0.1, 1.0, 10.0, 100.0)
DEFAULT_PENALTY = 1.0
EXACT_MAX_ITERATIONS = 1000
KNN_TEMPERATURE = 0.07  # Wu et al. 2018, also DINO
CHUNK_ROWS = 4096  # rows of features that are read at a time
# "adam" has converged when its last tenth of epochs brought at most this share of the whole fall of the training loss,
# or no more than this share of the loss itself (ours).
ADAM_TOLERANCE = 0.01
ADAM_NEGLIGIBLE_FALL = 1e-4

Matrix: TypeAlias = np.ndarray | sparse.csr_matrix

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeRun:
    """The answers of one probe on the test rows.

    Attributes:
        scores: Metric name -> score, for every metric of the task.
        predictions: (m,) classes or values, one for each test row; of several columns of labels (m, columns) scores or values.
        converged: Whether the solver found the optimum; True where there is nothing to solve.
        outputs: (m, classes) scores of the classes that occur in training, only of a linear model; a ROC curve judges them.
    """

    scores: dict[str, float]
    predictions: np.ndarray
    converged: bool = True
    outputs: np.ndarray | None = None


@dataclass(frozen=True)
class Table:
    """Rows that a linear model reads as they are, and their labels.

    Attributes:
        values: (n, D) float32, dense or sparse.
        labels: (n,) int64 classes or float32 values, or (n, columns) float32 with gaps.
    """

    values: Matrix
    labels: np.ndarray


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
    """The scores of `run_linear_probe`, whose arguments it takes: metric name -> score, for every metric of the task."""
    return run_linear_probe(train, test, task, args, seed, validation=validation, device=device).scores


def run_linear_probe(
    train: Features,
    test: Features,
    task: str,
    args: ProbeArguments,
    seed: int,
    *,
    validation: Features | None = None,
    device: str | torch.device = "cpu",
) -> ProbeRun:
    """A linear model fitted to `train` and scored on `test`.

    "exact" standardises the features in memory and finds the optimum. "adam" is the protocol of the MetaMAE paper
    (appendix A): cross entropy or squared error on the features as they are, torch.optim.Adam, in seeded random order;
    features on disk stay there. Regression targets are standardised with the training set's mean and standard deviation
    and predictions mapped back. A solver that has not converged causes a warning, and the result says so.

    Args:
        train: Features to fit; `args.labels_per_class` thins them out.
        test: Features to score.
        task: "classification", "regression" or "token_classification" (one row a token).
        args: The probe's settings.
        seed: Seed of the initial weights, the order of the batches and the draw of few labels; "exact" with all labels
            does not depend on it.
        validation: Features on which "exact" chooses its penalty by the headline metric; they are never fitted.
        device: Device of "adam".

    Raises:
        ValueError: Labels are missing or of another kind than the task's, or there is one class only.
    """
    args.headline_metric(task)
    train = training_rows(train, task, args, seed)
    if args.linear_solver == "adam":
        targets = targets_of(train.required_labels(), task)
        outputs, epoch_losses = _fit_adam(train, test, targets, args, seed, device)
        predictions = targets.decode(outputs)
        converged = _adam_has_converged(epoch_losses)
        return ProbeRun(score_predictions(predictions, test.required_labels(), task), predictions, converged)
    mean, std = column_statistics(train.values)
    chooses = validation is not None and args.labels_per_class is None
    splits = [train, test, *([validation] if validation is not None and chooses else [])]
    tables = [Table(standardise(split.values, mean, std), split.required_labels()) for split in splits]
    return exact_linear_model(tables[0], tables[1], task, args, validation=tables[2] if chooses else None)


def exact_linear_model(
    train: Table, test: Table, task: str, args: ProbeArguments, *, validation: Table | None = None
) -> ProbeRun:
    """The optimum of logistic or ridge regression on columns that are scaled already.

    Args:
        train: Rows to fit.
        test: Rows to score.
        task: "classification", "regression" or "token_classification".
        args: The headline metric is read.
        validation: Rows that choose the strength of the L2 penalty out of `PENALTIES`; None takes `DEFAULT_PENALTY`.

    Raises:
        ValueError: Labels of another kind than the task's, or one class only.
    """
    targets = targets_of(train.labels, task)
    headline = args.headline_metric(task)
    penalty = DEFAULT_PENALTY
    if validation is not None:

        def validation_score(candidate: float) -> float:
            outputs, _ = _fit_exact(train.values, validation.values, targets, candidate)
            return score_predictions(targets.decode(outputs), validation.labels, task)[headline]

        try:
            penalty = max(PENALTIES, key=validation_score)
        except ValueError as error:  # for example rows of one class
            logger.warning(
                "The validation rows cannot choose the penalty of the linear model, which is %s: %s",
                DEFAULT_PENALTY,
                error,
            )
    outputs, converged = _fit_exact(train.values, test.values, targets, penalty)
    if not converged:
        logger.warning(
            "The linear model has not converged after %d iterations of L-BFGS on %d rows of %d columns: its score may be "
            "too low. Look for columns that copy one another or hold a few huge values, or give it more rows.",
            EXACT_MAX_ITERATIONS,
            *train.values.shape,
        )
    predictions = targets.decode(outputs)
    scores = score_predictions(predictions, test.labels, task)
    has_classes = isinstance(targets, Targets) and targets.classes is not None
    return ProbeRun(scores, predictions, converged, outputs if has_classes else None)


def knn_probe(train: Features, test: Features, task: str, args: ProbeArguments, seed: int) -> dict[str, float]:
    """The scores of `run_knn_probe`, whose arguments it takes: metric name -> score, for every metric of the task."""
    return run_knn_probe(train, test, task, args, seed).scores


def run_knn_probe(train: Features, test: Features, task: str, args: ProbeArguments, seed: int) -> ProbeRun:
    """Predictions for each row of `test` from the nearest training rows by cosine similarity.

    In classification each of the `args.k` nearest votes with weight exp(similarity / 0.07) (Wu et al. 2018), in multi-label
    classification for every task whose label it has; in regression the nearest are averaged. With few labels at most
    `args.labels_per_class` neighbours vote, since no class has more rows. It runs on the CPU, in blocks: no matrix of all against
    all is held.

    Args:
        train: Rows to look up; thinned out to `args.labels_per_class` a class and to `args.knn_max_samples`.
        test: Rows to score.
        task: "classification", "regression" or "token_classification" (one row a token).
        args: The probe's settings.
        seed: Seed of the draws that thin out.

    Raises:
        ValueError: Labels are missing or of another kind than the task's, or there is one class only.
    """
    args.headline_metric(task)
    train = training_rows(train, task, args, seed)
    if len(train) > args.knn_max_samples:
        train = train.select(draw_indices(len(train), args.knn_max_samples, seed))
    targets = targets_of(train.required_labels(), task)
    num_neighbours = min(args.k, args.labels_per_class or args.k, len(train))
    index = NearestNeighbors(n_neighbors=num_neighbours, algorithm="brute").fit(normalize(train.values))
    said = []
    for start in range(0, len(test), CHUNK_ROWS):
        similarities, neighbours = _nearest(test.values[start : start + CHUNK_ROWS], index)
        # The nearest neighbour's weight is 1; without this shift exp(1 / 0.07) would swamp float32's digits.
        weights = np.exp((similarities - similarities[:, :1]) / KNN_TEMPERATURE)
        said.append(targets.votes(neighbours, weights))
    predictions = targets.decode(np.concatenate(said))
    return ProbeRun(score_predictions(predictions, test.required_labels(), task), predictions)


def refuse_few(task: str, option: str) -> None:
    """Refuse few labels of each class where a row has none of several classes.

    Raises:
        ValueError: The task is one of real values or of several labels.
    """
    if task in TASKS_OF_COLUMNS:
        raise ValueError(f"{option}: a {task.replace('_', ' ')} task has no classes to draw from; leave it out")


def select_few(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices, in ascending order, of `per_class` rows of each class, drawn without replacement.

    Args:
        labels: (n,) integer classes.
        per_class: Rows of each class.
        seed: Seed of the draw.

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


def training_rows(train: Features, task: str, args: ProbeArguments, seed: int) -> Features:
    """`train`, or `args.labels_per_class` rows of each class, drawn with the seed.

    Raises:
        ValueError: There are no labels, or no classes, to draw from, or too few rows of one.
    """
    if args.labels_per_class is None:
        return train
    refuse_few(task, "probe.labels_per_class")
    return train.select(select_few(train.required_labels(), args.labels_per_class, seed))


def score_predictions(predictions: np.ndarray, references: np.ndarray, task: str) -> dict[str, float]:
    """Metric name -> score, for every metric of the task.

    Args:
        predictions: (m,) predicted classes or values, (m, columns) scores or values of several columns.
        references: (m,) or (m, columns) true ones.
        task: Name of the task.
    """
    if references.ndim == 2:
        return score_columns(predictions, references, METRICS_OF_TASK[task])
    scores: dict[str, float] = {}
    for name in METRICS_OF_TASK[task]:
        scores |= load_metric(name).compute(predictions=predictions, references=references)
    return scores


def _fit_adam(
    train: Features,
    test: Features,
    targets: AnyTargets,
    args: ProbeArguments,
    seed: int,
    device: str | torch.device,
) -> tuple[np.ndarray, list[float]]:
    """Outputs on `test` in the form of `targets`, and the mean training loss of each epoch."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the same
        torch.manual_seed(seed)
        head = nn.Linear(train.values.shape[1], targets.num_outputs).to(device)
    optimizer = torch.optim.Adam(head.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    encoded = torch.from_numpy(targets.encoded).to(device)
    generator = np.random.default_rng(seed)
    # Losses are summed on their device: reading each would make a GPU wait.
    losses = torch.zeros(args.num_epochs, dtype=torch.float64, device=device)
    for epoch in range(args.num_epochs):
        order = generator.permutation(len(train))
        for start in range(0, len(train), args.batch_size):
            rows = order[start : start + args.batch_size]
            outputs = head(torch.from_numpy(train.values[rows]).to(device))
            loss = targets.loss(outputs, encoded[torch.from_numpy(rows).to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[epoch] += loss.detach() * len(rows) / len(train)
    with torch.no_grad():
        outputs = torch.cat([head(block) for block in _blocks(test.values, device)])
    return targets.shaped(outputs.cpu().numpy()), losses.tolist()


def _adam_has_converged(epoch_losses: Sequence[float]) -> bool:
    """Whether the training loss has stopped falling; otherwise a warning says what to do.

    Args:
        epoch_losses: Mean training loss of each epoch. A single one shows nothing, and counts as not converged.
    """
    num_last = max(1, len(epoch_losses) // 10)
    if len(epoch_losses) < 2:
        logger.warning(
            "The linear probe (solver adam) ran a single epoch, which cannot show that it has converged: set "
            "probe.protocol to 'standard', or raise probe.num_epochs."
        )
        return False
    first, before, last = max(epoch_losses), epoch_losses[-1 - num_last], epoch_losses[-1]
    tolerated = max(ADAM_TOLERANCE * (first - last), ADAM_NEGLIGIBLE_FALL * first)
    if before - last <= tolerated:
        return True
    logger.warning(
        "The linear probe (solver adam) has not converged: its training loss fell from %.4g to %.4g over %d epochs, and "
        "from %.4g in the last %d of them (%.1f %% of the whole fall, more than %g %%). Its score is too low. Set "
        "probe.protocol to 'standard' (and leave probe.solver out), or raise probe.num_epochs or probe.learning_rate.",
        first,
        last,
        len(epoch_losses),
        before,
        num_last,
        100 * (before - last) / (first - last),
        100 * ADAM_TOLERANCE,
    )
    return False


def _fit_exact(train: Matrix, test: Matrix, targets: AnyTargets, penalty: float) -> tuple[np.ndarray, bool]:
    """Outputs on `test` as from `_fit_adam`, and whether the solver converged; the columns are scaled already."""
    if isinstance(targets, ColumnTargets):
        # A model for each column, of the rows that have its label.
        outputs = np.zeros((test.shape[0], targets.num_outputs))
        converged = True
        for place, (rows, own) in enumerate(targets.columns):
            if own is not None:
                found, has_converged = _fit_exact(train[rows], test, own, penalty)
                outputs[:, place] = found if found.ndim == 1 else found[:, 1]
                converged &= has_converged
        return outputs, converged
    if targets.classes is None:
        # A closed form; for a sparse matrix, by conjugate gradients to scikit-learn's tolerance.
        return Ridge(alpha=penalty).fit(train, targets.encoded).predict(test), True
    model = LogisticRegression(C=1 / penalty, max_iter=EXACT_MAX_ITERATIONS)
    converged = fit_converges(lambda: model.fit(train, targets.encoded))
    outputs = model.decision_function(test)
    # scikit-learn gives two classes one column, positive for the second.
    return (np.stack([-outputs, outputs], axis=1) if outputs.ndim == 1 else outputs), converged


def fit_converges(fit: Callable[[], object]) -> bool:
    """Run a fit of scikit-learn; whether its solver converged, in place of its warning. Other warnings pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    for other in caught:
        if not issubclass(other.category, ConvergenceWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return not any(issubclass(one.category, ConvergenceWarning) for one in caught)


def column_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns of (n, D) values, read in blocks.

    Returns:
        Mean and standard deviation of each column, (D,) float32; the latter 1 where a column is constant.
    """
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), CHUNK_ROWS):
        total += values[start : start + CHUNK_ROWS].sum(axis=0, dtype=np.float64)
    mean = total / len(values)
    squares = np.zeros(values.shape[1])
    for start in range(0, len(values), CHUNK_ROWS):
        squares += ((values[start : start + CHUNK_ROWS] - mean) ** 2).sum(axis=0)
    std = np.sqrt(squares / len(values))
    # Rounding leaves a constant column a standard deviation of a few units in the last place, which must not be blown up to 1.
    is_constant = std <= 1e-6 * np.abs(mean)
    return mean.astype(np.float32), np.where(is_constant, 1.0, std).astype(np.float32)


def standardise(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(values - mean) / std as an (n, D) float32 array in memory, read in blocks."""
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
