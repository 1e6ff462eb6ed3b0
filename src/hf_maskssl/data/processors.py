"""Processors for a recipe: built and measured on the training split, or loaded from a checkpoint folder."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import IterableDataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..models.image_processing_array import ArrayImageProcessor
from ..models.image_processing_multimae import MultiMAEImageProcessor
from .arguments import DataArguments
from .multimodal import (
    ModalityMoments,
    MultimodalPreparer,
    build_multimodal_processor,
    modality_columns,
)
from .preparer import RowPreparer, merge_moments, raw_columns
from .tables.caching import BATCH_ROWS, cached_map
from .tables.columns import numeric_columns, require_columns
from .tables.rows import Rows
from .tables.sources import AnyDataset, choose_rows
from .text.tokenizers import build_bert_tokenizer, check_tokenizer, load_tokenizer, train_wordpiece_on

STATISTICS_ROWS = 10_000
MODALITIES = {"tokens": "tokens", "series": "series", "tabular": "series", "image": "image", "spectrogram": "image"}
MODALITIES |= {"vision_language": "vision_language", "multimodal": "multimodal", "masked_text": "tokens"}
PROCESSOR_CLASSES: dict[str, Any] = {
    "SeriesFeatureExtractor": SeriesFeatureExtractor,
    "SpectrogramFeatureExtractor": SpectrogramFeatureExtractor,
    "ArrayImageProcessor": ArrayImageProcessor,
    "MultiMAEImageProcessor": MultiMAEImageProcessor,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageTextProcessor:
    """An image processor and a tokenizer that belong together.

    Both are saved into one folder, where `AutoImageProcessor` and `AutoTokenizer` find them.
    """

    image_processor: ArrayImageProcessor
    tokenizer: PreTrainedTokenizerBase | None

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> list[str]:
        """Save both; the tokenizer is absent where the texts are ids already."""
        files = list(self.image_processor.save_pretrained(save_directory, **kwargs))
        if self.tokenizer is not None:
            files += list(self.tokenizer.save_pretrained(save_directory, **kwargs))
        return files


Processor = (
    SeriesFeatureExtractor
    | SpectrogramFeatureExtractor
    | ArrayImageProcessor
    | MultiMAEImageProcessor
    | ImageTextProcessor
    | PreTrainedTokenizerBase
    | None
)


def build_processor(args: DataArguments, config: Any, train_split: AnyDataset) -> Processor:
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
    check_modality(args, config)
    if args.kind == "multimodal":
        return measured_modalities(build_multimodal_processor(args, config), args, config, train_split)
    require_columns(train_split, {"text_column": args.text_column}, "train")
    require_columns(train_split, dict.fromkeys(["input_column"], _single(args.input_column)), "train")
    if args.kind in ("tokens", "masked_text"):
        return _checked_tokenizer(args, config, train_split)
    numeric = _numeric_processor(args, config, train_split)
    if args.standardize == "dataset":
        numeric = _measured(numeric, args, train_split)
    if args.kind == "vision_language":
        return ImageTextProcessor(numeric, _checked_tokenizer(args, config, train_split))
    return numeric


def load_processor(folder: str | os.PathLike[str]) -> Processor:
    """The processor saved in a checkpoint folder; None when there is none (columns of ids).

    Raises:
        ValueError: The folder holds a processor of another package.
        FileNotFoundError: No such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint folder {path} does not exist")
    has_tokenizer = (path / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(path) if has_tokenizer else None
    settings_file = path / "preprocessor_config.json"
    if not settings_file.is_file():
        return tokenizer
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if name not in PROCESSOR_CLASSES:
        raise ValueError(f"{settings_file}: expected one of {sorted(PROCESSOR_CLASSES)}, got {name!r}")
    processor = PROCESSOR_CLASSES[name].from_pretrained(path)
    return processor if tokenizer is None else ImageTextProcessor(processor, tokenizer)


def check_modality(args: DataArguments, config: Any, for_pretraining: bool = False) -> None:
    """Refuse data of one kind for a model of another.

    Args:
        args: The recipe's data section.
        config: Model configuration.
        for_pretraining: Whether a model that has tasks for words needs them.

    Raises:
        ValueError: Naming `data.kind` and `model.modality`, or that the model has no tasks for words.
    """
    if MODALITIES[args.kind] != config.modality:
        raise ValueError(
            f"data.kind {args.kind!r} goes with model.modality {MODALITIES[args.kind]!r}, "
            f"but model.modality is {config.modality!r}"
        )
    if args.kind == "masked_text" and not hasattr(config, "tasks"):
        raise ValueError(
            "data.kind 'masked_text' is for models that have tasks for words, such as pos_minimax_bert; "
            f"model_type is {getattr(config, 'model_type', None)!r}: set data.kind to 'tokens'"
        )
    if for_pretraining and hasattr(config, "tasks") and args.kind != "masked_text":
        raise ValueError(
            f"data.kind is {args.kind!r}, but {config.model_type} is pre-trained on words masked by their tasks: set it to "
            "'masked_text'"
        )
    if args.kind in ("tabular", "spectrogram") and config.num_channels != 1:
        raise ValueError(
            f"data.kind {args.kind!r} has one channel: set model.num_channels to 1, not {config.num_channels}"
        )


def input_columns(args: DataArguments, processor: Any, train_split: AnyDataset) -> tuple[str, ...]:
    """The raw columns of the input, in the order the processor was made for.

    Raises:
        ValueError: A label is among them.
    """
    if args.input_column is not None:
        return tuple(args.input_columns())
    labels = [args.label_column, args.label_mask_column]
    saved = getattr(processor, "feature_names", None)
    columns = tuple(saved or numeric_columns(train_split, [*labels, args.split_column]))
    for name in labels:
        if name in columns:
            raise ValueError(
                f"data.label_column: the checkpoint was pre-trained with the label column {name!r} among its features "
                f"{list(columns)}, so it would read the answer: pre-train with data.label_column set to {name!r}"
            )
    return columns


def split_processor(processor: Any) -> tuple[Any, PreTrainedTokenizerBase | None]:
    """The numeric part and the tokenizer of a processor."""
    if isinstance(processor, ImageTextProcessor):
        return processor.image_processor, processor.tokenizer
    if isinstance(processor, PreTrainedTokenizerBase):
        return None, processor
    return processor, None


def image_size(config: Any) -> list[int]:
    """[H, W] of a configuration that may give one number for both."""
    size = config.image_size
    return [size, size] if isinstance(size, int) else list(size)


def takes_channels_last(config: Any) -> bool:
    """Whether a model takes series as (B, T, C), each step a token, rather than (B, C, T)."""
    return bool(getattr(config, "channels_last", False))


def _single(column: str | list[str] | dict[str, str] | None) -> str | None:
    return column if isinstance(column, str) else None


def _checked_tokenizer(args: DataArguments, config: Any, train_split: AnyDataset) -> PreTrainedTokenizerBase | None:
    if args.wordpiece_size is None:
        tokenizer = load_tokenizer(args, config)
    else:
        try:
            vocabulary = train_wordpiece_on(train_split, str(args.input_column), args.wordpiece_size)
        except ValueError as error:
            raise ValueError(f"data.wordpiece_size: {error}") from error
        tokenizer = build_bert_tokenizer(vocabulary, config.max_position_embeddings)
    if tokenizer is not None:
        check_tokenizer(tokenizer, config)
    return tokenizer


def _numeric_processor(args: DataArguments, config: Any, train_split: AnyDataset) -> Any:
    common: dict[str, Any] = {"scale": args.scale, "standardize": args.standardize}
    if args.kind == "spectrogram":
        height, width = image_size(config)
        return SpectrogramFeatureExtractor(
            sampling_rate=args.sampling_rate or 0,
            num_mel_bins=height,
            num_frames=width,
            frame_length=args.frame_length,
            hop_length=args.hop_length,
            fft_length=args.fft_length,
            min_frequency=args.min_frequency,
            max_frequency=args.max_frequency,
            **common,
        )
    if args.kind in ("image", "vision_language"):
        return ArrayImageProcessor(num_channels=config.num_channels, image_size=image_size(config), **common)
    common["channels_last"] = takes_channels_last(config)
    if args.kind == "series":
        return SeriesFeatureExtractor(config.num_channels, config.series_length, **common)
    columns = input_columns(args, None, train_split)
    is_one_list = isinstance(args.input_column, str)
    if not is_one_list and len(columns) != config.series_length:
        raise ValueError(
            f"model.series_length is {config.series_length}, but there are {len(columns)} feature columns: "
            f"{list(columns)}; set model.series_length to {len(columns)} or list other columns in data.input_column"
        )
    names = None if is_one_list else columns
    return SeriesFeatureExtractor(1, config.series_length, statistics_axis="feature", feature_names=names, **common)


@dataclass(frozen=True)
class MomentsOfBatch:
    """Maps a batch of raw rows to one row: how many values there are, their mean and their spread."""

    prepare: RowPreparer
    axis: int

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[Any]]:
        values = self.prepare.numbers(batch, indices, self.prepare.processor.scaled_values)
        values = np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)
        mean = values.mean(axis=1)
        squares = ((values - mean[:, None]) ** 2).sum(axis=1)
        return {"count": [values.shape[1]], "mean": [mean.tolist()], "squares": [squares.tolist()]}

    def description(self) -> str:
        """All that decides the result."""
        return f"{self.prepare.description()} {self.axis}"


def _measured(processor: Any, args: DataArguments, train_split: AnyDataset) -> Any:
    """A copy of the processor with the mean and standard deviation of the training split."""
    columns = input_columns(args, processor, train_split)
    preparer = RowPreparer(args.kind, columns, processor, sampling_rate=args.sampling_rate)
    by_feature = args.kind == "tabular"
    measure = MomentsOfBatch(preparer, axis=2 if by_feature else 1)
    mean, std = merge_moments(_moments(measure, args, train_split))
    constant = std == 0.0
    if constant.any():
        names = columns if by_feature and len(columns) > 1 else range(len(std))
        listed = [name for name, flag in zip(names, constant, strict=True) if flag]
        logger.warning("constant in the training split, so only centred, not divided: %s", listed)
        std = np.where(constant, 1.0, std)
    settings = {**processor.to_dict(), "mean": mean.tolist(), "std": std.tolist()}
    settings = {name: value for name, value in settings.items() if not name.endswith("_type")}
    return type(processor)(**settings)


def measured_modalities(
    processor: MultiMAEImageProcessor, args: DataArguments, config: Any, train_split: AnyDataset
) -> MultiMAEImageProcessor:
    """The processor with mean and standard deviation of the modalities that are to have them and lack them.

    Raises:
        ValueError: A modality without a valid pixel, or a picture that cannot be prepared.
    """
    columns = modality_columns(args, config)
    for name, picture in processor.pictures().items():
        if picture.standardize != "dataset" or picture.mean is not None or name not in columns:
            continue
        measure = ModalityMoments(MultimodalPreparer({name: columns[name]}, processor, allow_missing=True), name)
        moments = [batch for batch in _moments(measure, args, train_split) if batch["count"]]
        if not moments:
            raise ValueError(f"data.input_column {columns[name]!r}: the training split has no valid pixel of {name!r}")
        mean, std = merge_moments(moments)
        if (std == 0.0).any():
            logger.warning("channels of %r are constant in the training split, so only centred, not divided", name)
        fields = {"mean": mean.tolist(), "std": np.where(std == 0.0, 1.0, std).tolist()}
        processor.modalities[name] = {**processor.modalities[name], **fields}
    return processor


def _moments(
    measure: MomentsOfBatch | ModalityMoments, args: DataArguments, train_split: AnyDataset
) -> list[dict[str, Any]]:
    rows = raw_columns(train_split, measure.prepare)
    if isinstance(rows, IterableDataset):
        logger.info("mean and standard deviation are measured on the first %d rows of the stream", STATISTICS_ROWS)
        moments = []
        for start, batch in enumerate(rows.take(STATISTICS_ROWS).iter(batch_size=BATCH_ROWS)):
            first = start * BATCH_ROWS
            count = len(batch[measure.prepare.used_columns[0]])
            result = measure(batch, range(first, first + count))
            moments.append({name: values[0] for name, values in result.items()})
        return moments
    if len(rows) > STATISTICS_ROWS:
        logger.info("mean and standard deviation are measured on %d of %d rows", STATISTICS_ROWS, len(rows))
        rows = choose_rows(rows, STATISTICS_ROWS, args.split_seed)
    return cached_map(rows, measure, measure.description()).with_format(None).to_list()
