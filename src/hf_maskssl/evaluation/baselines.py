"""Baselines that frozen features have to beat: the most frequent class or the mean, a linear model on the raw inputs,
and the untrained encoder of the same configuration."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from ..data.collators import BatchCollator
from ..data.multimodal.collator import MultimodalCollator
from ..data.preparation import PreparedData
from ..data.tables.labels import IGNORED_LABEL
from ..data.tables.preparing import PreparedSplit, plain_rows
from ..data.tables.windows import pooled_owners
from ..extras import missing_extra
from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.table_values import Category
from .arguments import ProbeArguments
from .features import MEMORY_LIMIT, Features, RowStore, draw_indices, level_of_task, pooled_windows
from .probe import (
    ProbeRun,
    Table,
    column_statistics,
    exact_linear_model,
    refuse_few,
    score_predictions,
    select_few,
    standardise,
)
from .probe_targets import means_of_columns

try:
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer
except ImportError as error:
    raise missing_extra("A baseline", "train", error) from error


# Limit of the numbers of a sample that the linear model reads; larger inputs become means of pixel or time blocks (ours).
MAX_COLUMNS = 16_384
MAX_MODALITY_COLUMNS = 4_096  # most columns of each of several modalities
# Numbers of all training rows together, so that a fit takes seconds to a minute; a larger training set is thinned out.
MAX_DENSE_NUMBERS = 50_000_000
MAX_SPARSE_NUMBERS = 5_000_000
# A vocabulary up to this size is one of characters, residues or bytes, whose meaning lies in longer runs.
CHARACTER_VOCABULARY = 512
MAX_NGRAMS = 50_000
Split = TypeVar("Split")
READ_ROWS = 256  # samples of a batch; nothing depends on it but memory


@dataclass
class RawInputs:
    """A split's inputs as the processor gives them, without any encoder.

    Attributes:
        labels: (n,) int64 classes or float32 values, or (n, columns) float32 with gaps; at token level one for each labelled
            token.
        values: (n, D) float32 numbers, or None where the input is tokens alone.
        tokens: Ids of the n samples, one array each, without padding; or None (at token level None: see `windows`).
        windows: (n, 2 K + 1) int64 ids around each labelled token, -1 beyond the ends and at padding; or None.
        vocab_size: Number above all ids; 0 without tokens.
        note: Words on how the numbers were changed, for descriptions; may be empty.
    """

    labels: np.ndarray
    values: np.ndarray | None = None
    tokens: list[np.ndarray] | None = None
    windows: np.ndarray | None = None
    vocab_size: int = 0
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> "RawInputs":
        """The rows with these indices, in this order."""
        return RawInputs(
            self.labels[rows],
            None if self.values is None else np.asarray(self.values[rows]),
            None if self.tokens is None else [self.tokens[row] for row in rows],
            None if self.windows is None else self.windows[rows],
            self.vocab_size,
            self.note,
        )


def baseline_scores(prepared: PreparedData, task: str, args: ProbeArguments, seed: int) -> dict[str, dict[str, Any]]:
    """The scores that need no encoder, on the split that `evaluate_checkpoint` scores encoders on.

    Args:
        prepared: The data, with labels and a validation or test split.
        task: "classification", "regression" or "token_classification".
        args: `labels_per_class` and the headline metric are read.
        seed: Seed of the draw of few labels, the same as that of `linear_probe`, and of rows where there are too many.

    Returns:
        {"majority": ..., "raw_inputs": ...}, each with a score for every metric of the task, `converged`, and `what`, a
        description in words.

    Raises:
        ValueError: There are no labels or no held-out split, or the raw inputs are of no kind that is known here.
    """
    splits = probed_splits(prepared)
    inputs = {name: read_raw_inputs(split, prepared, task) for name, split in splits.items()}
    test, validation = held_out(inputs)
    common = majority(inputs["train"].labels, test.labels, task)
    raw, what = raw_inputs_probe(inputs["train"], test, task, args, seed, validation=validation)
    return {
        "majority": {**common.scores, "converged": True, "what": majority_title(task)},
        "raw_inputs": {**raw.scores, "converged": raw.converged, "what": what},
    }


def probed_splits(prepared: PreparedData) -> dict[str, PreparedSplit]:
    """The splits that probes read, by name, with nothing drawn at random: train, and validation and test where they are.

    Raises:
        ValueError: There is nothing but the training split.
    """
    splits = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    if splits["validation"] is None and splits["test"] is None:
        raise ValueError(
            "data.test_split: a probe needs rows it was not fitted to; "
            "set data.test_split, data.validation_split or data.validation_fraction"
        )
    return {name: plain_rows(split) for name, split in splits.items() if split is not None}


def held_out(splits: Mapping[str, Split]) -> tuple[Split, Split | None]:
    """The split that is scored (test, or validation without a test split), and the one that chooses beside a test split."""
    if "test" in splits:
        return splits["test"], splits.get("validation")
    return splits["validation"], None


def untrained_encoder(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """The encoder that a configuration describes, its weights drawn with the seed; other random numbers go on as if
    nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(copy.deepcopy(config), dtype=torch.float32)


def majority(train_labels: np.ndarray, test_labels: np.ndarray, task: str) -> ProbeRun:
    """Scores of a model that ignores the input: it always answers the most frequent class of the training split (the
    first of equally frequent ones), or the mean of its values.

    Args:
        train_labels: (n,) classes or values of the whole training split, also where a probe gets few labels; of several columns
            (n, columns), where the answer is the share of class 1, or the mean, of each.
        test_labels: (m,) classes or values, or (m, columns).
        task: Name of the task.

    Returns:
        The scores; Spearman's correlation of a constant is 0.
    """
    if train_labels.ndim == 2:
        answer = means_of_columns(train_labels, task)
    elif task == "regression":
        answer = np.asarray(train_labels.mean(dtype=np.float64))
    else:
        classes, counts = np.unique(train_labels, return_counts=True)
        answer = classes[counts.argmax()]
    said = np.full((len(test_labels), *np.shape(answer)), answer)
    return ProbeRun(score_predictions(said, test_labels, task), said)


def majority_title(task: str) -> str:
    """Name of `majority` in tables."""
    if task == "multi_label_classification":
        return "each task's share of class 1"
    return "mean of the training split" if task == "regression" else "most frequent class"


def read_raw_inputs(split: PreparedSplit, prepared: PreparedData, task: str) -> RawInputs:
    """All rows of a split as a linear model can read them.

    Numbers of each sample are flattened; where there are more than `MAX_COLUMNS`, blocks of pixels or time steps are
    averaged first. Class maps become shares of the classes in each block. A modality that a row lacks is 0,
    with a column that says so.

    Args:
        split: A split of `prepared`, nothing drawn at random.
        prepared: Data whose collator and processor are used.
        task: "token_classification" gives windows around tokens.

    Raises:
        ValueError: There are no labels, or a batch holds neither `input_values`, `pixel_values`, `inputs` nor `input_ids`.
    """
    is_token_level = level_of_task(task) == "token"
    collator = prepared.collator
    labels: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    windows: list[np.ndarray] = []
    note = ""
    loader = DataLoader(split, READ_ROWS, collate_fn=collator, generator=torch.Generator())
    with RowStore(None, MEMORY_LIMIT) as store:
        for batch in loader:
            if "labels" not in batch:
                raise ValueError("a probe needs labels and this data has none; name data.label_column in the recipe")
            batch_labels = batch["labels"].numpy()
            if is_token_level:
                is_labelled = batch_labels != IGNORED_LABEL
                windows.append(_windows(batch, _reach(collator))[is_labelled])
                labels.append(batch_labels[is_labelled])
                continue
            labels.append(batch_labels)
            numbers, note = _numbers(batch, prepared)
            if numbers is not None:
                store.append(numbers)
            if "input_ids" in batch:
                tokens += _real_tokens(batch)
        if not labels:
            raise ValueError("there are no raw inputs to read: the split is empty")
        if pooled_owners(split) is not None and len(store):
            pooled = pooled_windows(Features(store.finish(), np.concatenate(labels)), split)
            return RawInputs(pooled.required_labels(), pooled.values, note=note)
        return RawInputs(
            np.concatenate(labels),
            store.finish() if len(store) else None,
            tokens or None,
            np.concatenate(windows) if windows else None,
            _vocab_size(collator, tokens, windows),
            note,
        )


def raw_inputs_probe(
    train: RawInputs,
    test: RawInputs,
    task: str,
    args: ProbeArguments,
    seed: int,
    *,
    validation: RawInputs | None = None,
) -> tuple[ProbeRun, str]:
    """Logistic or ridge regression on raw inputs, by the solver and with the penalties of the "exact" linear probe.

    Numbers are standardised by column. Of tokens it reads log(1 + count) of each n-gram, n up to 3 of characters,
    residues and bytes, up to 2 of larger vocabularies, at most the 50,000 most frequent in training; for labels of
    tokens, which token stands at which of the 15 (larger vocabularies: 5) places around. Images with text are
    read as both together.

    Args:
        train: Rows to fit; `args.labels_per_class` thins them out as it does those of `linear_probe`.
        test: Rows to score.
        task: "classification", "regression" or "token_classification".
        args: `labels_per_class` and the headline metric are read.
        seed: Seed of the draws of rows.
        validation: Rows that choose the penalty, unless labels are few.

    Returns:
        The run, and in words what the model was.

    Raises:
        ValueError: Labels of another kind than the task's, one class only, or too few rows for `labels_per_class`.
    """
    num_rows = len(train)
    if args.labels_per_class is not None:
        refuse_few(task, "probe.labels_per_class")
        train = train.select(select_few(train.labels, args.labels_per_class, seed))
        validation = None
        num_rows = len(train)
    allowed = max(1, row_limit(train))
    if len(train) > allowed:
        train = train.select(draw_indices(len(train), allowed, seed))
    splits = [train, test, *([] if validation is None else [validation])]
    tables, what = raw_tables(splits)
    run = exact_linear_model(tables[0], tables[1], task, args, validation=None if validation is None else tables[2])
    model = "ridge regression" if task == "regression" else "logistic regression"
    thinned = f", {len(train):,} of {num_rows:,} training rows" if len(train) < num_rows else ""
    return run, f"{model} on {what}{thinned}"


def raw_tables(splits: Sequence[RawInputs]) -> tuple[list[Table], str]:
    """Matrices of the splits, the training split first, with scaled columns; and a description of the columns."""
    train = splits[0]
    parts: list[list[np.ndarray | sparse.csr_matrix]] = []
    words = []
    if train.values is not None:
        mean, std = column_statistics(train.values)
        parts.append([standardise(np.asarray(split.values), mean, std) for split in splits])
        words.append(f"{train.values.shape[1]:,} input values{train.note}")
    if train.tokens is not None:
        longest = 3 if train.vocab_size <= CHARACTER_VOCABULARY else 2
        counter = CountVectorizer(
            analyzer="word",
            token_pattern=r"\S+",
            lowercase=False,
            ngram_range=(1, longest),
            max_features=MAX_NGRAMS,
            dtype=np.float32,
        )
        counts = [
            counter.fit_transform(_as_text(train)),
            *(counter.transform(_as_text(split)) for split in splits[1:]),
        ]
        parts.append([matrix.log1p() for matrix in counts])
        words.append(f"{counts[0].shape[1]:,} n-grams of up to {longest} tokens")
    if train.windows is not None:
        vocab_size = max(split.vocab_size for split in splits)
        parts.append([_one_hot(np.asarray(split.windows), vocab_size) for split in splits])
        words.append(f"the ids at {train.windows.shape[1]} places around a token")
    if not parts:
        raise ValueError(
            "the raw inputs hold neither numbers nor tokens, so no plain model can read them; "
            "set probe.baselines to false"
        )
    together = [list(column) for column in zip(*parts, strict=True)]
    matrices = [
        one[0] if len(one) == 1 else sparse.hstack([sparse.csr_matrix(part) for part in one], format="csr")
        for one in together
    ]
    return [Table(matrix, split.labels) for matrix, split in zip(matrices, splits, strict=True)], " and ".join(words)


def _as_text(split: RawInputs) -> list[str]:
    return [" ".join(map(str, ids.tolist())) for ids in split.tokens or []]


def _one_hot(windows: np.ndarray, vocab_size: int) -> sparse.csr_matrix:
    """(n, places) ids, -1 for none -> (n, places x vocabulary) ones."""
    columns = windows + vocab_size * np.arange(windows.shape[1])
    is_there = windows >= 0
    starts = np.concatenate([[0], is_there.sum(axis=1).cumsum()])
    ones = np.ones(int(starts[-1]), dtype=np.float32)
    return sparse.csr_matrix((ones, columns[is_there], starts), shape=(len(windows), windows.shape[1] * vocab_size))


def row_limit(train: RawInputs) -> int:
    """The largest number of training rows whose fit takes seconds to a minute."""
    if train.tokens is not None:
        longest = 3 if train.vocab_size <= CHARACTER_VOCABULARY else 2
        per_row = longest * sum(map(len, train.tokens)) / len(train.tokens)
        per_row += 0 if train.values is None else train.values.shape[1]
        return int(MAX_SPARSE_NUMBERS / max(per_row, 1))
    if train.windows is not None:
        return MAX_SPARSE_NUMBERS // train.windows.shape[1]
    return len(train) if train.values is None else MAX_DENSE_NUMBERS // max(1, train.values.shape[1])


def _vocab_size(collator: BatchCollator, tokens: Sequence[np.ndarray], windows: Sequence[np.ndarray]) -> int:
    if not tokens and not windows:
        return 0
    return collator.vocab_size or 1 + max(int(ids.max()) for ids in [*tokens, *windows])


def _reach(collator: BatchCollator) -> int:
    """Tokens to either side: 7 residues, as is usual for secondary structure (Qian and Sejnowski 1988: 6), or 2 words."""
    return 7 if (collator.vocab_size or 0) <= CHARACTER_VOCABULARY else 2


def _windows(batch: Mapping[str, torch.Tensor], reach: int) -> np.ndarray:
    """(B, N, 2 reach + 1) ids around each token, -1 where there is none."""
    ids = batch["input_ids"]
    if "attention_mask" in batch:
        ids = ids.masked_fill(batch["attention_mask"] == 0, -1)
    return F.pad(ids, (reach, reach), value=-1).unfold(1, 2 * reach + 1, 1).numpy()


def _real_tokens(batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    ids = batch["input_ids"].numpy()
    mask = batch["attention_mask"].numpy() if "attention_mask" in batch else np.ones_like(ids)
    return [row[is_real == 1] for row, is_real in zip(ids, mask, strict=True)]


def _numbers(batch: Mapping[str, Any], prepared: PreparedData) -> tuple[np.ndarray | None, str]:
    """The (B, D) float32 numbers of a batch, or None where it has none; and a note on how they were averaged."""
    if "inputs" in batch:
        return _modalities(batch, prepared.collator), ", class maps and large pictures as means of blocks"
    if "pixel_values" in batch:
        # Beside a text, whose matrix is sparse, a picture is read more coarsely.
        limit = MAX_MODALITY_COLUMNS if "input_ids" in batch else MAX_COLUMNS
        pooled, block = _block_means(batch["pixel_values"].float(), limit)
        return pooled.flatten(1).numpy(), "" if block == 1 else f", means of {block} x {block} pixels"
    if "input_values" in batch:
        series = batch["input_values"].float()
        processor = prepared.processor
        if isinstance(processor, SeriesFeatureExtractor) and processor.channels_last and series.ndim == 3:
            series = series.transpose(1, 2)
        if isinstance(processor, SeriesFeatureExtractor) and processor.categories is not None:
            return _table_columns(batch, processor.categories), ", categories as columns of 0 and 1"
        block = -(-series[0].numel() // MAX_COLUMNS)
        if block > 1:
            series = F.avg_pool1d(series, block, ceil_mode=True)
        return series.flatten(1).numpy(), "" if block == 1 else f", means of {block} time steps"
    return None, ""


def _table_columns(batch: Mapping[str, Any], categories: Sequence[Sequence[Category] | None]) -> np.ndarray:
    """(B, D) float32: columns of numbers as they are, of categories a column of 0 and 1 for each; 0 where a value is missing."""
    values = batch["input_values"].float().flatten(1)  # (B, T), one channel
    observed = (
        batch["observed_mask"].flatten(1) if "observed_mask" in batch else torch.ones_like(values, dtype=torch.bool)
    )
    columns = []
    for feature, known in enumerate(categories):
        own = values[:, feature]
        if known is None:
            columns.append(own[:, None])
        else:
            columns.append(F.one_hot(own.long(), len(known)) * observed[:, feature, None])
    return torch.cat([column.float() for column in columns], dim=1).numpy()


def _block_means(pictures: torch.Tensor, limit: int) -> tuple[torch.Tensor, int]:
    """(B, C, H, W) -> the same averaged over the smallest square blocks that leave at most `limit` numbers a picture,
    and the side of these."""
    channels, height, width = pictures.shape[1:]
    block = 1
    while block < max(height, width) and channels * -(-height // block) * -(-width // block) > limit:
        block += 1
    if block == 1:
        return pictures, 1
    return F.avg_pool2d(pictures, block, ceil_mode=True, count_include_pad=False), block


def _modalities(batch: Mapping[str, Any], collator: BatchCollator) -> np.ndarray:
    classes = collator.num_classes if isinstance(collator, MultimodalCollator) else {}
    presence = batch.get("presence", {})
    columns = []
    for name, values in sorted(batch["inputs"].items()):
        if name in classes:
            is_class = (values >= 0) & (values < classes[name])
            maps = F.one_hot(values * is_class, classes[name]) * is_class[..., None]
            values = maps.permute(0, 3, 1, 2)
        flat = _block_means(values.float(), MAX_MODALITY_COLUMNS)[0].flatten(1)
        if name in presence:
            there = presence[name].float()[:, None]
            flat = flat * there
        else:
            there = torch.ones(len(flat), 1)
        # Every batch has the column, so that all are equally wide; a constant column does nothing.
        columns += [flat, there]
    return torch.cat(columns, dim=1).numpy()


def tokens_of_samples(split: PreparedSplit, prepared: PreparedData) -> np.ndarray:
    """(n,) number of labelled tokens of each sample, in the order of the data."""
    loader = DataLoader(split, READ_ROWS, collate_fn=prepared.collator, generator=torch.Generator())
    return np.concatenate([(batch["labels"] != IGNORED_LABEL).sum(1).numpy() for batch in loader])
