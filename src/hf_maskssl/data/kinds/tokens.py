"""Kind "tokens": texts, sequences of letters, or lists of ids."""

import logging
from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...files import JsonObject
from ...methods import optional_fields
from ...methods.optional_fields import wants_special_tokens
from ..arguments import DataArguments, checkpoint_name
from ..collators import BatchCollator
from ..looking import TEXT_NAMES, columns_of, is_feature, is_list_of_numbers, is_text
from ..processors import Processor, split_processor
from ..tables.empty_rows import Inputs
from ..tables.first_rows import first_rows
from ..tables.preparing import PreparedSplit, RawSplit, prepare_split, raw_columns
from ..tables.rows import PreparedRows
from ..tables.sources import AnyDataset
from ..text.arguments import TextArguments
from ..text.packing import pack_split
from ..text.texts import TextPreparer, appended_separator
from ..text.tokenizers import BYTE_TOKENIZER, check_tokenizer, load_tokenizer
from .base import Fitted, Kind, Summary
from .examples import Example
from .guesses import TEXTS, Guess, only_column, sma_of_bytes
from .preparers import RowPreparer


@dataclass
class TokenArguments(TextArguments):
    """Arguments of texts. `input_column` is one column, or a list of two, a sentence pair. A text may be a list of words,
    which blanks then join.

    Attributes:
        pack: Whether to lay texts end to end for pre-training, each followed by the tokenizer's separator, and to cut
            sequences of exactly the model's `max_position_embeddings`. Every 1,000 texts the rest that fills no sequence is
            dropped. `max_*_samples` count texts, and `index` is the text in which a sequence begins.
        label_mask_column: Name of the column that holds, for token labels, a list as long as the labels, whose zeros
            mark labels to ignore (-100).
    """

    kind: str = "tokens"
    pack: bool = False
    label_mask_column: str | None = None

    TASKS: ClassVar[tuple[str, ...]] = (*DataArguments.TASKS, "token_classification")
    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str, list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.input_column, list):
            if len(self.input_column) != 2:
                raise ValueError(
                    "data.input_column: kind 'tokens' takes one column, or two for sentence pairs, got "
                    f"{self.input_column}"
                )
            if self.task == "token_classification":
                raise ValueError(f"data.input_column {self.input_column}: sentence pairs have no labels per token")
        if self.label_mask_column is not None and self.task != "token_classification":
            raise ValueError(
                f"data.label_mask_column is {self.label_mask_column!r}, which only task 'token_classification' uses; "
                f"task is {self.task!r}"
            )
        self._check_pack()

    def label_columns(self) -> dict[str, str | None]:
        return {**super().label_columns(), "label_mask_column": self.label_mask_column}

    def _check_pack(self) -> None:
        if not self.pack:
            return
        unfit = {
            "input_column": isinstance(self.input_column, list),
            "label_column": self.label_column is not None,
            "cache": not self.cache and not self.streaming,
        }
        for name, is_unfit in unfit.items():
            if is_unfit:
                raise ValueError(
                    f"data.pack: data.{name} is {vars(self)[name]!r}, but packing needs one text column, no labels, and "
                    "rows that are cached or streamed"
                )


TEXTS_LOOKED_AT = 2000  # for their lengths
# Two texts, the first the longer one, of columns that are named for what they hold: aspirin and ethanol.
EXAMPLE_TEXTS = {"smiles": ("CC(=O)Oc1ccccc1C(=O)O", "CCO")}

logger = logging.getLogger(__name__)


class TokensKind(Kind[TokenArguments]):
    """Texts."""

    name = "tokens"
    modality = "tokens"
    arguments = TokenArguments
    pipelines = ("text-classification", "text-classification")
    read_by = (PreTrainedTokenizerBase, type(None))  # None: the data are lists of ids

    def find_input(self, rows: AnyDataset, config: PreTrainedConfig, processor: Processor) -> JsonObject:
        found = columns_of(rows, is_list_of_numbers if processor is None else is_text)
        return {"input_column": only_column(found, rows, self.name, TEXT_NAMES)}

    def guess(self, rows: AnyDataset, label: str | None) -> Guess | None:
        """A column of texts with a usual name, or the only one where hardly another column holds numbers: bytes."""
        found = [name for name in columns_of(rows, is_text) if name != label]
        plain = {name.strip().lower(): name for name in found}
        usual = [plain[name] for name in TEXT_NAMES if name in plain]
        if not usual and (len(found) != 1 or len(columns_of(rows, is_feature)) > 1):
            return None
        column = usual[0] if usual else found[0]
        texts = [row[column] for row in first_rows(rows, TEXTS_LOOKED_AT) if row[column]]
        texts = [" ".join(text) if isinstance(text, list) else text for text in texts]
        if not texts:
            return None
        lengths = sorted(len(text.encode("utf-8")) for text in texts)
        longest = lengths[int(0.95 * (len(lengths) - 1))] + 1  # and the separator
        tokens = int(min(256, max(16, 16 * -(-longest // 16))))
        return Guess(
            TEXTS,
            f"texts in {column!r}",
            {"input_column": column, "tokenizer": "utf-8"},
            {"modality": self.modality, **sma_of_bytes(), "max_position_embeddings": tokens},
            batch_size=64,
            weight_decay=0.01,
            remarks=[f"texts: bytes, the first {tokens} of each text; --max_position_embeddings"],
        )

    def inputs(self, args: TokenArguments) -> Inputs:
        """The columns of the texts, of which a pair may lack one."""
        return [args.input_columns()]

    def build_processor(self, args: TokenArguments, config: PreTrainedConfig, train_split: AnyDataset) -> Processor:
        """A tokenizer, or None for columns of ids."""
        return loaded_tokenizer(args, config)

    def fitted_processor(
        self, processor: Processor, args: TokenArguments, config: PreTrainedConfig, train_split: AnyDataset
    ) -> Processor:
        return require_tokenizer(processor, self.name, config)

    def rows(self, split: RawSplit, args: TokenArguments, config: PreTrainedConfig, fitted: Fitted) -> PreparedSplit:
        texts = TextPreparer(
            tuple(args.input_columns()),
            split_processor(fitted.processor)[1],
            config.max_position_embeddings,
            split.name,
            framed=wants_special_tokens(config),
        )
        preparer = RowPreparer(
            None, texts, args.label_column, args.label_mask_column, fitted.labels, split.name, split.numbers
        )
        if args.pack:
            rows = raw_columns(split.rows, preparer)
            return pack_split(rows, texts, preparer.description(), args.num_proc, split.numbers)
        rows = prepare_split(split.rows, preparer, args)
        if fitted.report is not None and isinstance(rows, PreparedRows):
            filled = int((rows.lengths("input_ids") >= config.max_position_embeddings).sum())
            fitted.report.splits[split.name].filled = filled
            if filled:
                logger.info(
                    "%s split: %d of %d texts are as long as the %d tokens that the model reads, or longer and cut there",
                    *(split.name, filled, len(rows), config.max_position_embeddings),
                )
        return rows

    def collator(self, args: TokenArguments, config: PreTrainedConfig, processor: Processor) -> BatchCollator:
        tokenizer = split_processor(processor)[1]
        return BatchCollator(
            {"input_ids": " and ".join(args.input_columns())}, config.vocab_size, padding_id(config, tokenizer)
        )

    def summary(self, args: TokenArguments, config: PreTrainedConfig | None) -> Summary:
        return [
            ("tokenizer", tokenizer_words(args.tokenizer, args.alphabet)),
            ("texts", "end to end, cut into full sequences" if args.pack else None),
        ]

    def example(
        self, processor: Processor, config: PreTrainedConfig, args: TokenArguments | None, task: str | None
    ) -> Example | None:
        if isinstance(processor, PreTrainedTokenizerBase):
            return text_example(processor, config, args)
        return super().example(processor, config, args, task)


def loaded_tokenizer(args: TextArguments, config: PreTrainedConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer that a recipe names, checked against the model; None for columns of ids.

    Raises:
        ValueError: The tokenizer cannot be loaded, or does not fit.
    """
    tokenizer = load_tokenizer(args.tokenizer, args.alphabet, config)
    if tokenizer is not None:
        check_tokenizer(tokenizer, config)
    return tokenizer


def require_tokenizer(processor: Processor, kind: str, config: PreTrainedConfig) -> Processor:
    """A checkpoint's processor that is a tokenizer for this model, or None.

    Raises:
        ValueError: The processor is another one.
    """
    numeric, tokenizer = split_processor(processor)
    if numeric is not None:
        raise ValueError(
            f"data.kind {kind!r} cannot be prepared by the checkpoint's processor, a {type(processor).__name__}"
        )
    if tokenizer is not None:
        check_tokenizer(tokenizer, config)
    return processor


def padding_id(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """The id that fills texts up: the model's own, else the tokenizer's."""
    own = optional_fields.padding_id(config)
    return own if own is not None or tokenizer is None else tokenizer.pad_token_id


def tokenizer_words(tokenizer: str | None, alphabet: str | None = None) -> str | None:
    """A tokenizer's name in model cards, without its folder on this machine."""
    if tokenizer == BYTE_TOKENIZER:
        return "one token per byte (UTF-8)"
    if tokenizer is not None:
        return checkpoint_name(tokenizer)
    return alphabet and "one token per character"


def example_texts(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, data: DataArguments | None
) -> list[str]:
    """Two texts of unequal length; of equal length where the tokenizer has nothing to fill the shorter one up with."""
    alphabet = data.alphabet if isinstance(data, TextArguments) else None
    if alphabet is None:
        column = data.input_columns()[0].lower() if data is not None and data.input_columns() else ""
        text, short = EXAMPLE_TEXTS.get(column, ("two samples of text", "one sample"))
    else:
        text = alphabet[: min(config.max_position_embeddings, 16)]
        short = text[: max(1, len(text) // 2)]
    return [text, text if tokenizer.pad_token is None else short]


def text_example(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, data: DataArguments | None) -> Example:
    """Texts, or pairs of them where the data has pairs, tokenised as in training."""
    is_framed = wants_special_tokens(config)
    is_pair = data is not None and len(data.input_columns()) > 1
    texts = example_texts(tokenizer, config, data)
    # Other models have a class token of their own or none, and know neither segments nor special tokens, save what stands
    # between the texts of a pair and a separator that the tokenizer only appends.
    is_plain = not is_framed and not is_pair and appended_separator(tokenizer) is None
    options = [
        *([] if tokenizer.pad_token is None else ["padding=True"]),
        *(["add_special_tokens=False"] if is_plain else []),
        f"truncation=True, max_length={config.max_position_embeddings}",
        *(
            ["return_token_type_ids=False"]
            if not is_framed and "token_type_ids" in tokenizer.model_input_names
            else []
        ),
    ]
    names = ["texts", "seconds"] if is_pair else ["texts"]
    lines = (
        *(f"{name} = {texts!r}" for name in names),
        f'tokens = tokenizer({", ".join([*names, *options])}, return_tensors="pt")',
    )
    return Example((), {"tokenizer": "AutoTokenizer"}, lines, "**tokens")
