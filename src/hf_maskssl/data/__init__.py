"""Where batches come from: recipes, sources, preparation and collation."""

from .arguments import DataArguments
from .collators import BatchCollator
from .draws import RowDraws
from .labels import LabelSpace
from .masked_text import MaskedTextCollator, MaskedTextRows
from .multimodal import MultimodalCollator, MultimodalPreparer
from .preparation import PreparedData, prepare_data
from .processors import ImageTextProcessor, build_processor, load_processor
from .recipe import build_config, load_recipe
from .rows import PreparedRows, TransformedRows
from .splits import load_splits
from .tokenizers import build_bert_tokenizer, build_byte_tokenizer, build_character_tokenizer, train_wordpiece

__all__ = [
    "BatchCollator",
    "DataArguments",
    "ImageTextProcessor",
    "LabelSpace",
    "MaskedTextCollator",
    "MaskedTextRows",
    "MultimodalCollator",
    "MultimodalPreparer",
    "PreparedData",
    "PreparedRows",
    "RowDraws",
    "TransformedRows",
    "build_bert_tokenizer",
    "build_byte_tokenizer",
    "build_character_tokenizer",
    "build_config",
    "build_processor",
    "load_processor",
    "load_recipe",
    "load_splits",
    "prepare_data",
    "train_wordpiece",
]
