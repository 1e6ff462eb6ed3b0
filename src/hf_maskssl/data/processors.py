"""Processors, which turn raw values into a model's inputs and are saved in its checkpoint folder."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..models.image_processing_array import ArrayImageProcessor
from ..models.image_processing_multimae import MultiMAEImageProcessor

PROCESSOR_CLASSES: dict[str, Any] = {
    "SeriesFeatureExtractor": SeriesFeatureExtractor,
    "SpectrogramFeatureExtractor": SpectrogramFeatureExtractor,
    "ArrayImageProcessor": ArrayImageProcessor,
    "MultiMAEImageProcessor": MultiMAEImageProcessor,
}


@dataclass(frozen=True)
class ImageTextProcessor:
    """An image processor with its tokenizer.

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


NumericProcessor = SeriesFeatureExtractor | SpectrogramFeatureExtractor | ArrayImageProcessor | MultiMAEImageProcessor
Processor = NumericProcessor | ImageTextProcessor | PreTrainedTokenizerBase | None


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
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False) if has_tokenizer else None
    settings_file = path / "preprocessor_config.json"
    if not settings_file.is_file():
        return tokenizer
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if name not in PROCESSOR_CLASSES:
        raise ValueError(f"{settings_file}: expected one of {sorted(PROCESSOR_CLASSES)}, got {name!r}")
    processor = PROCESSOR_CLASSES[name].from_pretrained(path)
    return processor if tokenizer is None else ImageTextProcessor(processor, tokenizer)


def split_processor(processor: Processor) -> tuple[NumericProcessor | None, PreTrainedTokenizerBase | None]:
    """The numeric part and the tokenizer of a processor."""
    if isinstance(processor, ImageTextProcessor):
        return processor.image_processor, processor.tokenizer
    if isinstance(processor, PreTrainedTokenizerBase):
        return None, processor
    return processor, None
