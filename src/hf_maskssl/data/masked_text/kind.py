"""Kind "masked_text"."""

from collections.abc import Mapping

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...methods.optional_fields import pretraining_data_kind
from ...models.configuration_pos_minimax_bert import ANY_WORD
from ..kinds.base import Fitted, Kind, Summary
from ..kinds.examples import Example
from ..kinds.tokens import require_tokenizer, text_example, tokenizer_words
from ..processors import Processor
from ..tables.empty_rows import Inputs, empty_reason, empty_rows
from ..tables.preparing import RawSplit
from ..tables.report import DataReport
from ..tables.sources import AnyDataset
from ..text.tokenizers import build_bert_tokenizer, check_tokenizer, load_tokenizer, train_wordpiece_on
from .arguments import MaskedTextArguments
from .documents import limit_documents
from .rows import MaskedTextCollator, MaskedTextRows
from .sentences import check_tagger, masked_text_rows


class MaskedTextKind(Kind[MaskedTextArguments]):
    """Texts whose words are masked by their part of speech."""

    name = "masked_text"
    modality = "tokens"
    arguments = MaskedTextArguments
    not_inputs = ("index",)
    own_data_recipe = "pos_bert_own_data"

    def check_model(self, args: MaskedTextArguments, config: PreTrainedConfig, for_pretraining: bool = False) -> None:
        """Refuse a model without tasks for words, and check that the tagger's data is there."""
        super().check_model(args, config, for_pretraining)
        if pretraining_data_kind(config) != self.name:
            raise ValueError(
                "data.kind 'masked_text' is for models that have tasks for words, such as pos_minimax_bert; "
                f"model_type is {config.model_type!r}: set data.kind to 'tokens'"
            )
        check_tagger(args, config)

    def columns(self, args: MaskedTextArguments, config: PreTrainedConfig) -> list[tuple[str, str | None]]:
        own = [("tag_column", args.tag_column), ("document_column", args.document_column)]
        return [*own, *super().columns(args, config)]

    def limited(self, splits: dict[str, AnyDataset], args: MaskedTextArguments) -> dict[str, AnyDataset]:
        """At most `max_<split>_samples` rows of each split, the beginnings of documents."""
        return limit_documents(splits, args)

    def inputs(self, args: MaskedTextArguments) -> Inputs:
        """All rows: those without text may say where documents end; `masked_text_rows` counts them."""
        return []

    def describe_rows(
        self, splits: Mapping[str, RawSplit], args: MaskedTextArguments, processor: Processor, report: DataReport
    ) -> None:
        """Add the number of rows without text."""
        inputs = [args.input_columns()]
        for name, split in splits.items():
            if isinstance(split.rows, Dataset):
                where = "; a blank line ends a document" if args.reads_lines else ""
                count = int(empty_rows(split.rows, inputs).sum())
                report.leave_out(name, count, empty_reason(inputs) + where)
                report.splits[name].rows = len(split.rows) - count

    def build_processor(
        self, args: MaskedTextArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> PreTrainedTokenizerBase:
        if args.wordpiece_size is None:
            tokenizer = load_tokenizer(args.tokenizer, None, config)
            assert tokenizer is not None  # the arguments name one
        else:
            try:
                vocabulary = train_wordpiece_on(train_split, str(args.input_column), args.wordpiece_size)
            except ValueError as error:
                raise ValueError(f"data.wordpiece_size: {error}") from error
            tokenizer = build_bert_tokenizer(vocabulary, config.max_position_embeddings)
        check_tokenizer(tokenizer, config)
        return tokenizer

    def fitted_processor(
        self, processor: Processor, args: MaskedTextArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        return require_tokenizer(processor, self.name, config)

    def rows(
        self, split: RawSplit, args: MaskedTextArguments, config: PreTrainedConfig, fitted: Fitted
    ) -> MaskedTextRows:
        return masked_text_rows(split.rows, args, config, _tokenizer(fitted.processor), split.name)

    def collator(
        self, args: MaskedTextArguments, config: PreTrainedConfig, processor: Processor
    ) -> MaskedTextCollator:
        return MaskedTextCollator(_tokenizer(processor), config.vocab_size, str(args.input_column))

    def summary(self, args: MaskedTextArguments, config: PreTrainedConfig | None) -> Summary:
        """The source of the words' parts of speech, and the choice of masked words."""
        tokenizer = tokenizer_words(args.tokenizer)
        if args.wordpiece_size is not None:
            tokenizer = f"WordPiece of {args.wordpiece_size:,} pieces, trained on the training split"
        tagged = args.tag_column and f"column `{args.tag_column}`"
        if args.tagger is not None:
            tagged = "tagged by NLTK's averaged perceptron, which is for English"
        drawn = {"proportional": ", as the tasks occur", "balanced": ", from all tasks of a sequence equally"}
        how = drawn[args.mask_sampling]
        if config is not None and list(config.tasks) == [ANY_WORD]:
            tagged, how = None, ""
        maskings = args.num_maskings
        times = f"{maskings} maskings, which epochs take in turn" if maskings else "anew in every epoch"
        return [
            ("tokenizer", tokenizer),
            ("parts of speech", tagged),
            ("document column", args.document_column),
            ("masked", f"{args.mlm_probability:.0%} of the pieces, whole words{how}; {times}"),
            ("pieces in a sequence", args.sequence_length),
        ]

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: MaskedTextArguments | None, task: str | None
    ) -> Example | None:
        if isinstance(processor, PreTrainedTokenizerBase):
            return text_example(processor, config, args)
        return super().example(processor, config, args, task)


def _tokenizer(processor: Processor) -> PreTrainedTokenizerBase:
    if not isinstance(processor, PreTrainedTokenizerBase):
        raise ValueError(f"data.kind 'masked_text' needs a tokenizer, the processor is {type(processor).__name__}")
    return processor
