"""Kind "vision_language": an image and a text."""

from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedConfig

from ...files import JsonObject, JsonView
from ...models.image_processing_array import ArrayImageProcessor
from ..collators import BatchCollator
from ..looking import TEXT_NAMES, columns_of, is_text
from ..processors import ImageTextProcessor, Processor, split_processor
from ..tables.empty_rows import Inputs
from ..tables.preparing import PreparedSplit, RawSplit, prepare_split
from ..tables.sources import AnyDataset
from ..text.arguments import TextArguments
from ..text.texts import TextPreparer
from ..text.tokenizers import check_tokenizer
from .base import Fitted, Summary
from .examples import Example, joined, tensors
from .guesses import only_column
from .image import ImageInputs, picture_example
from .numeric import NumericArguments
from .preparers import RowPreparer, SampleProcessor
from .tokens import loaded_tokenizer, padding_id, text_example, tokenizer_words


@dataclass
class VisionLanguageArguments(NumericArguments, TextArguments):
    """Arguments of images with a text. `input_column` is the column of the image.

    Attributes:
        text_column: Name of the column that holds the text. The built-in captioned scenes need no name.
    """

    source: str = "captioned_scenes"
    kind: str = "vision_language"
    text_column: str | None = None

    def __post_init__(self) -> None:
        if self.builtin is not None and self.text_column is None:
            self.text_column = self.builtin.text_column
        super().__post_init__()
        if self.text_column is None:
            raise ValueError("data.text_column: kind 'vision_language' needs the column of the text")

    def columns_read(self) -> list[str]:
        return [*self.input_columns(), *([self.text_column] if self.text_column is not None else [])]

    @property
    def file_columns(self) -> list[str]:
        return self.input_columns()


class VisionLanguageKind(ImageInputs[VisionLanguageArguments]):
    """Images with a text."""

    name = "vision_language"
    modality = "vision_language"
    arguments = VisionLanguageArguments
    read_by = (ImageTextProcessor, ArrayImageProcessor)
    own_data_recipe = "metamae_mscoco"

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        text = only_column(columns_of(rows, is_text), rows, self.name, TEXT_NAMES, "text_column")
        return {**super().find_input(rows, config, processor), "text_column": text}

    def name_input(
        self, columns: list[str], config: PreTrainedConfig, known: JsonView, is_unnamed: bool
    ) -> JsonObject:
        """The column called text or caption, or else the second one, is the text."""
        if len(columns) < 2:
            raise ValueError("data: expected dicts such as {'image': picture, 'text': words}, both of them")
        texts = [name for name in columns if name in ("text", "caption")] or columns[1:]
        pictures = [name for name in columns if name not in texts]
        return {"input_column": pictures[0], "text_column": texts[0]}

    def columns(self, args: VisionLanguageArguments, config: PreTrainedConfig) -> list[tuple[str, str | None]]:
        return [("text_column", args.text_column), *super().columns(args, config)]

    def inputs(self, args: VisionLanguageArguments) -> Inputs:
        """The columns of picture and text, neither of which may be empty."""
        return [*super().inputs(args), [str(args.text_column)]]

    def build_processor(
        self, args: VisionLanguageArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        images = cast(ArrayImageProcessor, self.built_numeric(args, config, train_split))
        return ImageTextProcessor(images, loaded_tokenizer(args, config))

    def fitted_processor(
        self, processor: Processor, args: VisionLanguageArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        tokenizer = split_processor(processor)[1]
        if tokenizer is not None:
            check_tokenizer(tokenizer, config)
        return super().fitted_processor(processor, args, config, train_split)

    def rows(
        self, split: RawSplit, args: VisionLanguageArguments, config: PreTrainedConfig, fitted: Fitted
    ) -> PreparedSplit:
        images, tokenizer = split_processor(fitted.processor)
        texts = TextPreparer((str(args.text_column),), tokenizer, config.max_position_embeddings, split.name)
        numeric = self.numeric_input(args, cast(SampleProcessor, images), fitted.train_split)
        return prepare_split(
            split.rows,
            RowPreparer(numeric, texts, args.label_column, None, fitted.labels, split.name, split.numbers),
            args,
        )

    def collator(self, args: VisionLanguageArguments, config: PreTrainedConfig, processor: Processor) -> BatchCollator:
        columns = {self.input_name: str(args.input_column), "input_ids": str(args.text_column)}
        padding = padding_id(config, split_processor(processor)[1])
        return BatchCollator(columns, config.vocab_size, padding, always_mask=True)

    def summary(self, args: VisionLanguageArguments, config: PreTrainedConfig | None) -> Summary:
        tokenizer = tokenizer_words(args.tokenizer, args.alphabet)
        return [("text column", args.text_column), *super().summary(args, config), ("tokenizer", tokenizer)]

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: VisionLanguageArguments | None, task: str | None
    ) -> Example | None:
        images, tokenizer = split_processor(processor)
        if not isinstance(images, ArrayImageProcessor):
            return super().example(processor, config, args, task)
        if tokenizer is None:  # texts that were ids already
            return joined(picture_example(images), tensors(config, only_tokens=True))
        return joined(picture_example(images), text_example(tokenizer, config, args))
