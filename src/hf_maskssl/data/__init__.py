"""The way from a recipe to batches: sources, preparation and collation."""

from ..recipes import build_config, load_recipe
from .arguments import DataArguments, data_arguments
from .collators import BatchCollator
from .installed_kinds import register_kinds
from .kinds import Kind, find_kind, register_kind
from .masked_text.rows import MaskedTextCollator, MaskedTextRows
from .multimodal.collator import MultimodalCollator
from .multimodal.rows import MultimodalPreparer
from .preparation import PreparedData, build_processor, prepare_data, read_data
from .processors import ImageTextProcessor, load_processor
from .tables.draws import RowDraws
from .tables.labels import LabelSpace
from .tables.preparing import Preparer
from .tables.report import DataReport
from .tables.rows import PreparedRows, TransformedRows
from .tables.splits import load_splits
from .text.tokenizers import build_bert_tokenizer, build_byte_tokenizer, build_character_tokenizer, train_wordpiece

register_kinds()

__all__ = [
    "BatchCollator",
    "DataArguments",
    "DataReport",
    "ImageTextProcessor",
    "Kind",
    "LabelSpace",
    "MaskedTextCollator",
    "MaskedTextRows",
    "MultimodalCollator",
    "MultimodalPreparer",
    "PreparedData",
    "PreparedRows",
    "Preparer",
    "RowDraws",
    "TransformedRows",
    "build_bert_tokenizer",
    "build_byte_tokenizer",
    "build_character_tokenizer",
    "build_config",
    "build_processor",
    "data_arguments",
    "find_kind",
    "load_processor",
    "load_recipe",
    "load_splits",
    "prepare_data",
    "read_data",
    "register_kind",
    "train_wordpiece",
]
