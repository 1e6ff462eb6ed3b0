"""The one call from a recipe's data section to rows and batches."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..models.image_processing_multimae import MultiMAEImageProcessor
from .arguments import DENSE_TASKS, DataArguments, Task
from .collators import BatchCollator
from .masked_text.rows import MaskedTextCollator, MaskedTextRows
from .masked_text.sentences import check_tagger, limit_documents, masked_text_rows
from .multimodal import (
    MultimodalCollator,
    MultimodalPreparer,
    check_complete,
    fitted_processor,
    measure_label_maps,
    modality_columns,
    readable_rows,
)
from .preparer import INPUT_NAMES, AnyPreparer, PreparedSplit, RowPreparer, prepare_split
from .processors import (
    Processor,
    build_processor,
    check_modality,
    image_size,
    input_columns,
    measured_modalities,
    split_processor,
    takes_channels_last,
)
from .tables.columns import require_columns
from .tables.draws import RowDraws
from .tables.labels import LabelSpace, measure_labels, refuse_missing_labels
from .tables.sources import AnyDataset
from .tables.splits import limit_splits, read_splits
from .text.tokenizers import check_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedData:
    """Everything a training or evaluation run needs to know about its data.

    Attributes:
        train: Rows with the model's inputs, `labels` where asked for, and `index`, the row's number in its split (of a
            stream read by several workers: in the worker's share; of masked text: of the row in which a sequence begins).
        validation: The same, or None.
        test: The same, or None.
        processor: What was applied; saved with the checkpoint. None for columns of ids.
        collator: Rows -> batch.
        task: What the labels are; None without labels.
        num_labels: Outputs a head needs: classes, or 1 for real numbers; None without labels.
        label_names: Names of the classes in the order of their ids; None without classes.
        not_inputs: What of a batch is no input of the model in pre-training.
    """

    train: PreparedSplit | MaskedTextRows
    validation: PreparedSplit | MaskedTextRows | None
    test: PreparedSplit | MaskedTextRows | None
    processor: Processor
    collator: BatchCollator
    task: Task | None
    num_labels: int | None
    label_names: list[str] | None
    not_inputs: tuple[str, ...] = ("index", "labels")


def prepare_data(
    args: DataArguments,
    config: Any,
    processor: Processor = None,
    require_labels: bool = False,
    complete: bool = False,
) -> PreparedData:
    """Read, measure and prepare the splits of a recipe.

    Args:
        args: The recipe's data section.
        config: Model configuration: `modality` and the sizes that go with it are read.
        processor: Of a checkpoint, with the statistics it was trained with; the recipe's own `standardize`, `scale`,
            `tokenizer`, `alphabet` and mel settings are then not used, its `modality_options` replace what the processor
            has. None builds one on the training split.
        require_labels: Whether the caller cannot do without labels.
        complete: Whether every modality of the model is to have a column, as pre-training needs it: what it has no data
            of is never trained. Under `allow_missing` a warning says so instead. A model with tasks for words needs kind
            `"masked_text"`.

    Returns:
        Splits of map-style rows (`len`, `[i]`, `select`, `arrays`), or `IterableDataset` when streaming.

    Raises:
        ValueError: Data that cannot be read or do not fit the recipe or the model.
        FileNotFoundError: A file or data set that does not exist.
        TaggerDataError: The tagger's data is not there.
    """
    check_modality(args, config, complete)
    if require_labels and args.label_column is None:
        raise ValueError("data.label_column: labels are needed here; name the column that holds them")
    if args.kind == "multimodal":
        # Named, so that other folders beside those of the modalities are none of our concern.
        args = dataclasses.replace(args, input_column=modality_columns(args, config))
        if complete:
            check_complete(args, config)
    if args.kind == "masked_text":
        check_tagger(args, config)
    full = read_splits(args)
    for name, split in full.items():
        _require_all_columns(args, config, split, name)
    labels = measure_labels(args, full["train"])
    splits = limit_documents(full, args) if args.kind == "masked_text" else limit_splits(full, args)
    for name, split in splits.items():
        refuse_missing_labels(split, args, name)
    numbers: dict[str, np.ndarray | None] = {}
    if args.kind == "multimodal":
        columns = modality_columns(args, config)
        for name, split in splits.items():
            splits[name], numbers[name] = readable_rows(split, columns, args, name)
        if args.task in DENSE_TASKS and args.label_column is not None:
            labels = measure_label_maps(args, config.semantic_loss_ignore_index, splits["train"])
    if processor is None:
        processor = build_processor(args, config, splits["train"])
    else:
        check_processor(processor, args, config)
        if isinstance(processor, MultiMAEImageProcessor):
            processor = measured_modalities(fitted_processor(processor, args, config), args, config, splits["train"])
    prepared: dict[str, PreparedSplit | MaskedTextRows] = {}
    for name, split in splits.items():
        if args.kind == "masked_text":
            prepared[name] = masked_text_rows(split, args, config, _text_processor(processor), name)
            continue
        preparer = _row_preparer(args, config, processor, labels, splits["train"], name)
        if isinstance(preparer, MultimodalPreparer):
            preparer = dataclasses.replace(preparer, row_numbers=numbers[name])
        prepared[name] = prepare_split(split, preparer, args)
    return PreparedData(
        train=prepared["train"],
        validation=prepared.get("validation"),
        test=prepared.get("test"),
        processor=processor,
        collator=_collator(args, config, processor),
        task=None if labels is None else labels.task,
        num_labels=None if labels is None else labels.num_labels,
        label_names=list(labels.names) or None if labels is not None else None,
        not_inputs=("index",) if args.kind == "masked_text" else ("index", "labels"),
    )


def check_processor(processor: Any, args: DataArguments, config: Any) -> None:
    """Refuse a checkpoint's processor that does not fit the recipe or the model.

    Raises:
        ValueError: Naming what the processor makes and what is needed.
    """
    numeric, tokenizer = split_processor(processor)
    if tokenizer is not None:
        check_tokenizer(tokenizer, config)
    needs_numbers = args.kind not in ("tokens", "masked_text")
    name = type(processor).__name__
    if (args.kind == "multimodal") != isinstance(numeric, MultiMAEImageProcessor):
        raise ValueError(f"data.kind {args.kind!r} cannot be prepared by the checkpoint's processor, a {name}")
    if args.kind == "multimodal":
        return
    if needs_numbers == (numeric is None) or (needs_numbers and numeric.model_input_names != [INPUT_NAMES[args.kind]]):
        raise ValueError(f"data.kind {args.kind!r} cannot be prepared by the checkpoint's processor, a {name}")
    if (args.kind == "spectrogram") != hasattr(numeric, "num_mel_bins"):
        raise ValueError(f"data.kind {args.kind!r} cannot be prepared by the checkpoint's processor, a {name}")
    for wanted, given in _sizes(numeric, config):
        if wanted != given:
            raise ValueError(f"the checkpoint's processor makes inputs of size {given}, the model takes {wanted}")
    if hasattr(numeric, "series_length") and numeric.channels_last != takes_channels_last(config):
        layouts = {True: "time x channels", False: "channels x time"}
        raise ValueError(
            f"the checkpoint's processor gives {layouts[numeric.channels_last]} (channels_last), the model "
            f"takes {layouts[takes_channels_last(config)]}: use a processor made for this model"
        )


def _sizes(numeric: Any, config: Any) -> list[tuple[Any, Any]]:
    if numeric is None:
        return []
    if hasattr(numeric, "series_length"):
        return [([config.num_channels, config.series_length], [numeric.num_channels, numeric.series_length])]
    if hasattr(numeric, "num_mel_bins"):
        return [(image_size(config), [numeric.num_mel_bins, numeric.num_frames])]
    return [([config.num_channels, *image_size(config)], [numeric.num_channels, *numeric.image_size])]


def _require_all_columns(args: DataArguments, config: Any, split: AnyDataset, name: str) -> None:
    fields = ("text_column", "label_column", "label_mask_column", "tag_column", "document_column")
    require_columns(split, {field: getattr(args, field) for field in fields}, name)
    columns = modality_columns(args, config).values() if args.kind == "multimodal" else args.input_columns()
    for column in columns:
        require_columns(split, {"input_column": column}, name)
    require_columns(split, {"split_column": args.split_column}, name)


def _row_preparer(
    args: DataArguments,
    config: Any,
    processor: Any,
    labels: LabelSpace | None,
    train_split: AnyDataset,
    split: str,
) -> AnyPreparer:
    if args.kind == "multimodal":
        is_drawn = args.augment and split == "train"
        return MultimodalPreparer(
            columns=modality_columns(args, config),
            processor=processor,
            label_column=args.label_column,
            labels=labels,
            label_scale=1.0 if args.label_scale is None else args.label_scale,
            label_invalid_value=args.label_invalid_value,
            allow_missing=args.allow_missing,
            augmentation=RowDraws(args.split_seed, args.streaming) if is_drawn else None,
            split=split,
        )
    numeric, tokenizer = split_processor(processor)
    has_tokens = args.kind in ("tokens", "vision_language")
    return RowPreparer(
        kind=args.kind,
        columns=input_columns(args, numeric, train_split),
        processor=numeric,
        tokenizer=tokenizer,
        text_column=args.text_column,
        label_column=args.label_column,
        label_mask_column=args.label_mask_column,
        labels=labels,
        max_length=config.max_position_embeddings if has_tokens else None,
        sampling_rate=args.sampling_rate,
        split=split,
        framed=args.kind == "tokens" and getattr(config, "wants_special_tokens", False),
    )


def _text_processor(processor: Processor) -> PreTrainedTokenizerBase:
    tokenizer = split_processor(processor)[1]
    if tokenizer is None:
        raise ValueError(f"data.kind 'masked_text' needs a tokenizer, the processor is {type(processor).__name__}")
    return tokenizer


def _collator(args: DataArguments, config: Any, processor: Any) -> BatchCollator:
    if args.kind == "multimodal":
        classes = {name: one.num_classes for name, one in processor.pictures().items() if one.channels is None}
        return MultimodalCollator(modality_columns(args, config), classes, processor.ignore_index)
    if args.kind == "masked_text":
        return MaskedTextCollator(_text_processor(processor), config.vocab_size, str(args.input_column))
    _, tokenizer = split_processor(processor)
    has_tokens = args.kind in ("tokens", "vision_language")
    column = args.input_column
    if not isinstance(column, str):
        # A list of feature columns has no one name; the row index then says where to look.
        column = " and ".join(args.input_columns()) if args.kind == "tokens" else "the feature columns"
    columns = {INPUT_NAMES.get(args.kind, "input_ids"): column}
    if args.text_column is not None:
        columns["input_ids"] = args.text_column
    pad_token_id = getattr(config, "pad_token_id", None)
    if pad_token_id is None and tokenizer is not None:
        pad_token_id = tokenizer.pad_token_id
    return BatchCollator(
        columns,
        vocab_size=config.vocab_size if has_tokens else None,
        pad_token_id=pad_token_id if has_tokens else None,
        always_mask=args.kind == "vision_language",
    )
