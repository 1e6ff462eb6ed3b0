"""The one call from a recipe's data section to rows and batches."""

import logging
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from .arguments import DataArguments, Task
from .collators import BatchCollator
from .kept_statistics import KeptStatistics
from .kinds import find_kind
from .kinds.base import Fitted
from .masked_text.rows import MaskedTextRows
from .processors import Processor
from .tables.columns import require_columns
from .tables.empty_rows import check_text
from .tables.labels import LabelSpace, complete_classes, describe_split, refuse_missing_labels
from .tables.preparing import PreparedSplit, RawSplit
from .tables.report import DataReport
from .tables.rows import ChosenRows
from .tables.sources import AnyDataset
from .tables.splits import cut_names, read_splits
from .unified.arguments import errors_of_part
from .unified.rows import UnifiedCollator, UnifiedRows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedData:
    """The data of a training or evaluation run.

    Attributes:
        train: Rows with the model's inputs, `labels` where asked for, and `index`, the row's number in its split (in a
            stream read by several workers, in the worker's share; in masked text, that of the row where a sequence begins).
        validation: Rows of the validation split, or None.
        test: Rows of the test split, or None.
        processor: Processor that made the inputs, saved with the checkpoint; None for columns of ids.
        collator: Callable that makes a batch of rows.
        task: Name of the task that the labels set; None without labels.
        num_labels: Number of outputs that a head needs: classes, or 1 for real numbers; None without labels.
        label_names: Names of the classes in the order of their ids; None without classes.
        not_inputs: Keys of a batch that are no inputs of the model in pre-training.
        report: Counts of the rows and columns that are used and left out.
        statistics: Names of what kept the statistics of a former checkpoint, and of what was measured; None without one.
        parts: Name of a part -> its data, of several kinds at once, each row of which has a row of every part; else nothing.
    """

    train: PreparedSplit | MaskedTextRows | UnifiedRows
    validation: PreparedSplit | MaskedTextRows | UnifiedRows | None
    test: PreparedSplit | MaskedTextRows | UnifiedRows | None
    processor: Processor
    collator: BatchCollator
    task: Task | None
    num_labels: int | None
    label_names: list[str] | None
    not_inputs: tuple[str, ...] = ("index", "labels")
    report: DataReport = field(default_factory=DataReport)
    statistics: KeptStatistics | None = None
    parts: dict[str, "PreparedData"] = field(default_factory=dict)


@dataclass(frozen=True)
class RawData:
    """Raw rows that can be used, and what is known of them before they are prepared.

    Attributes:
        args: The recipe's data section, completed.
        splits: Name of a split -> its rows; none of data that have parts.
        labels: Kind of the labels; None without.
        report: Counts of the rows and columns that are used and left out.
    """

    args: DataArguments
    splits: dict[str, RawSplit]
    labels: LabelSpace | None
    report: DataReport


def read_data(
    args: DataArguments,
    config: PreTrainedConfig,
    processor: Processor = None,
    require_labels: bool = False,
    complete: bool = False,
) -> RawData:
    """Read, cut and label the splits of a recipe, and log the rows and columns that are left.

    Args:
        args, config, processor, require_labels, complete: Arguments of `prepare_data`.

    Raises:
        ValueError: Data that cannot be read or do not fit the recipe or the model.
        FileNotFoundError: A file or data set that does not exist.
        TaggerDataError: The tagger's data is not there.
    """
    kind = find_kind(args.kind)
    kind.check_model(args, config, complete)
    if parts := kind.part_data(args, config):
        reports = {}
        for name, (section, part) in parts.items():
            with errors_of_part(name):
                reports[name] = read_data(section, part, complete=complete).report
        return RawData(args, {}, None, DataReport.joined(args.source, args.kind, reports))
    if require_labels and args.label_column is None:
        raise ValueError("data.label_column: labels are needed here; name the column that holds them")
    args = kind.completed(args, config, complete)
    report = DataReport(args.source, args.kind)
    whole = read_splits(args, report)
    for name, rows in whole.items():
        require_columns(rows, kind.columns(args, config), name, args.source)
        if isinstance(rows, Dataset):
            named = [*args.columns_read(), *args.label_columns().values(), args.split_column]
            for column in dict.fromkeys(column for column in named if column is not None):
                check_text(rows, column, name)
    taken = kind.limited(whole, args)
    splits = {name: kind.usable(rows, args, config, name) for name, rows in taken.items()}
    for name, split in splits.items():
        refuse_missing_labels(split.rows, args, name, split.numbers)
    labels = kind.labels(args, config, whole["train"], splits["train"].rows)
    others = {name: rows for name, rows in whole.items() if name != "train"}
    cut_off = [rows for name, rows in others.items() if name in cut_names(args)]
    labels = complete_classes(labels, args, list(others.values()), cut_off)
    for name, split in splits.items():
        if isinstance(split.rows, Dataset):
            report.leave_out(name, len(whole[name]) - len(taken[name]), f"data.max_{name}_samples")
            report.leave_out(name, len(taken[name]) - len(split.rows), split.reason)
        describe_split(report, name, split.rows, args, labels)
    _describe_columns(report, args, whole["train"])
    kind.describe_rows(splits, args, processor, report)
    kind.describe_columns(splits["train"].rows, args, processor, report)
    for line in report.lines():
        logger.info("%s", line)
    return RawData(args, splits, labels, report)


def _describe_columns(report: DataReport, args: DataArguments, train: AnyDataset) -> None:
    """Add to a report which columns are read and which are not; a stream may not know its columns."""
    if train.column_names is None:
        return
    named = [*args.columns_read(), *args.label_columns().values(), args.split_column]
    report.columns = [name for name in dict.fromkeys(named) if name is not None and name in train.column_names]
    report.columns_left_out = [name for name in train.column_names if name not in report.columns]


def prepare_data(
    args: DataArguments,
    config: PreTrainedConfig,
    processor: Processor = None,
    require_labels: bool = False,
    complete: bool = False,
    former: Processor = None,
    keeps_statistics: bool = True,
) -> PreparedData:
    """Read, measure and prepare the splits of a recipe: read, cut, label, prepare, collate.

    Args:
        args: The recipe's data section.
        config: Model configuration: `modality` and the sizes that go with it are read.
        processor: Processor of a checkpoint, with the statistics it was trained with; the recipe's own `standardize`, `scale`,
            `tokenizer`, `alphabet` and mel settings are then not used, its `modality_options` are. None builds one.
        require_labels: Whether the caller needs labels.
        complete: Whether the data are for pre-training. Then every modality of the model must have a column, because a
            modality without data is never trained (under `allow_missing` a warning says so instead), and a model with
            tasks for words needs kind `"masked_text"`.
        former: Processor of the checkpoint that a run goes on from, where `processor` is None: a table's columns keep the order
            that it knows, unless the recipe lists them.
        keeps_statistics: Whether mean and standard deviation of `former` are kept for what it knows, or measured again.

    Returns:
        Splits of map-style rows (`len`, `[i]`, `select`, `arrays`), or `IterableDataset` when streaming.

    Raises:
        ValueError: Data that cannot be read or do not fit the recipe or the model.
        FileNotFoundError, TaggerDataError: A file or data set, or the tagger's data, that does not exist.
    """
    kind = find_kind(args.kind)
    kind.check_model(args, config, complete)
    if parts := kind.part_data(args, config):
        return _joined(args, parts, complete)
    raw = read_data(args, config, processor, require_labels, complete)
    args, splits, labels = raw.args, raw.splits, raw.labels
    train = splits["train"].rows
    statistics = None
    if processor is None:
        processor = kind.build_processor(kind.ordered_as(args, former, train), config, train)
        if former is not None and keeps_statistics:
            processor, statistics = kind.with_statistics(processor, args, former)
    else:
        processor = kind.fitted_processor(processor, args, config, train)
    fitted = Fitted(processor, labels, train, raw.report)
    prepared: dict[str, Any] = {name: kind.rows(split, args, config, fitted) for name, split in splits.items()}
    return PreparedData(
        train=prepared["train"],
        validation=prepared.get("validation"),
        test=prepared.get("test"),
        processor=processor,
        collator=kind.collator(args, config, processor),
        task=None if labels is None else labels.task,
        num_labels=None if labels is None else labels.num_labels,
        label_names=list(labels.names) or None if labels is not None else None,
        not_inputs=kind.not_inputs,
        report=raw.report,
        statistics=statistics,
    )


def _joined(
    args: DataArguments, sections: dict[str, tuple[DataArguments, PreTrainedConfig]], complete: bool
) -> PreparedData:
    """The data of several parts as one.

    Raises:
        ValueError: A part cannot be prepared, or some parts have a validation split and others have none.
    """
    parts: dict[str, PreparedData] = {}
    for name, (section, config) in sections.items():
        with errors_of_part(name):
            parts[name] = prepare_data(section, config, complete=complete)
    held_out = [name for name, part in parts.items() if part.validation is not None]
    if held_out and len(held_out) < len(parts):
        raise ValueError(
            f"data.parts: {', '.join(held_out)} have validation rows, {', '.join(sorted(parts.keys() - held_out))} have none: "
            "give every part validation_split or validation_fraction, or none"
        )
    train = {name: part.train for name, part in parts.items() if isinstance(part.train, ChosenRows)}
    validation = {name: part.validation for name, part in parts.items() if isinstance(part.validation, ChosenRows)}
    others = [name for name in parts if name not in train]
    if others:
        raise ValueError(f"data.parts.{others[0]}.kind: expected a kind whose rows have numbers, got {args.kind!r}")
    return PreparedData(
        train=UnifiedRows(train),
        validation=UnifiedRows(validation) if validation else None,
        test=None,
        processor=None,
        collator=UnifiedCollator(
            {name: part.collator for name, part in parts.items()},
            {name: part.not_inputs for name, part in parts.items()},
        ),
        task=None,
        num_labels=None,
        label_names=None,
        report=DataReport.joined(args.source, args.kind, {name: part.report for name, part in parts.items()}),
        parts=parts,
    )


def build_processor(args: DataArguments, config: PreTrainedConfig, train_split: AnyDataset) -> Processor:
    """The processor of a recipe, its statistics measured on the training split.

    Args:
        args: The recipe's data section.
        config: Model configuration: `modality` and the sizes that go with it are read.
        train_split: Raw rows; at most 10,000 of them, chosen by `split_seed`, are measured (of a stream the first).

    Returns:
        A feature extractor, an image processor, a tokenizer, `ImageTextProcessor`, or None for columns of ids.

    Raises:
        ValueError: A recipe that does not fit the model or the data.
    """
    kind = find_kind(args.kind)
    kind.check_model(args, config)
    require_columns(train_split, kind.columns(args, config), "train")
    return kind.build_processor(args, config, train_split)
