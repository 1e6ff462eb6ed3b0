"""Where batches come from: recipes, sources, preparation and collation."""

from ..recipes import build_config, load_recipe
from .arguments import DataArguments
from .collators import BatchCollator
from .masked_text.rows import MaskedTextCollator, MaskedTextRows
from .multimodal import MultimodalCollator, MultimodalPreparer
from .preparation import PreparedData, prepare_data
from .processors import ImageTextProcessor, build_processor, load_processor
from .tables.draws import RowDraws
from .tables.labels import LabelSpace
from .tables.rows import PreparedRows, TransformedRows
from .tables.splits import load_splits
from .text.tokenizers import build_bert_tokenizer, build_byte_tokenizer, build_character_tokenizer, train_wordpiece

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
