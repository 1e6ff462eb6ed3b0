"""The fields of a recipe's `data` section for texts whose words are masked."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...checks import AT_LEAST_0, AT_LEAST_1, SHARE, Range
from ..arguments import DataArguments


@dataclass
class MaskedTextArguments(DataArguments):
    """Arguments of masked language modelling: texts whose words are masked by their part of speech, for pre-training alone.

    `input_column` is one column of texts, or of lists of words. `max_*_samples` keep the beginnings of documents, for which
    blank lines of text files do not count.

    Attributes:
        tokenizer: Hub name or folder of a tokenizer; a BERT `vocab.txt`, one piece a line; or `"utf-8"`, the built-in tokenizer
            of bytes: [PAD] 0, [BOS] 1, [EOS] 2, [MASK] 3, [CLS] 4, [SEP] 5, byte b at b + 6, so `vocab_size` is 262. Its texts
            end with [SEP].
        tag_column: Name of the column that holds the words' parts of speech, Penn Treebank or universal tags (strings, or
            numbers of a ClassLabel), one for each word of a list. Where the input is a string, a row is one sentence, and the
            columns `word_starts` and `word_ends` say where its words are (what `examples/run_tag_pos.py` writes).
        tagger: Name of a tagger that tags the words here, once: `"nltk"`, NLTK's averaged perceptron. It is for English; other
            languages come with a `tag_column` of universal tags.
        document_column: Name of the column that holds documents: neighbouring rows with an equal value are one. None means that
            every row is a document, or in `"text"` files (a paragraph a line, not wrapped) the lines between two blank ones.
        mlm_probability: Share of the pieces that is masked.
        mask_sampling: Choice of masked words: `"proportional"` takes the tasks as often as they occur, `"balanced"` takes
            all tasks of a sequence equally often.
        num_maskings: Number of different maskings, which epochs take in turn; 0 means a new masking in every epoch.
        sequence_length: Number of pieces in a sequence, [CLS] and [SEP] included. None means as many as the model takes.
        short_sequence_probability: Share of the sequences that get a random shorter length.
        wordpiece_size: Number of pieces of an uncased WordPiece tokenizer that is trained on the training split and saved with
            the checkpoint, instead of `tokenizer`. It lower-cases and drops accents; `examples/train_tokenizer.py --cased` keeps
            them.
    """

    kind: str = "masked_text"
    tokenizer: str | None = None
    tag_column: str | None = None
    tagger: Literal["nltk"] | None = None
    document_column: str | None = None
    mlm_probability: float = 0.15
    mask_sampling: Literal["proportional", "balanced"] = "proportional"
    num_maskings: int = 10
    sequence_length: int | None = None
    short_sequence_probability: float = 0.1
    wordpiece_size: int | None = None

    RANGES: ClassVar[dict[str, Range]] = {
        **DataArguments.RANGES,
        "num_maskings": AT_LEAST_0,
        "wordpiece_size": AT_LEAST_1,
        "sequence_length": Range(5),  # [CLS], two sentences of a piece, and a [SEP] after each
        "mlm_probability": Range(0, 1, excludes_low=True, excludes_high=True),
        "short_sequence_probability": SHARE,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, wanted, reason in (
            ("streaming", self.streaming, False, "sentences are counted and cached beforehand: set it to false"),
            ("cache", self.cache, True, "sentences are cached: leave it out"),
            ("label_column", self.label_column, None, "it is for pre-training; fine-tune with kind 'tokens'"),
        ):
            if value != wanted:
                raise ValueError(f"data.{name} is {value!r} with kind 'masked_text': {reason}")
        if (self.tokenizer is None) == (self.wordpiece_size is None):
            raise ValueError(
                f"data.tokenizer is {self.tokenizer!r} and data.wordpiece_size {self.wordpiece_size}: kind 'masked_text' "
                "needs one of them, a tokenizer by name, folder or vocab.txt, or the size of one to train"
            )
        if self.tag_column is not None and self.tagger is not None:
            raise ValueError(
                f"data.tag_column {self.tag_column!r} and data.tagger {self.tagger!r} are both set: keep the one to believe"
            )
        self._check_whole_documents()

    def _check_whole_documents(self) -> None:
        """Refuse cuts through documents of several rows."""
        if self.validation_fraction == 0.0 and self.split == "given":
            return
        if self.document_column is None and not self.reads_lines:
            return
        if self.split == "random" and self.split_column is not None:
            return
        raise ValueError(
            f"data.validation_fraction {self.validation_fraction} and data.split {self.split!r} would tear documents apart: "
            "name a data.validation_split"
            + (
                f", or set data.split to 'random' and data.split_column to {self.document_column!r}"
                if self.document_column is not None
                else ""
            )
        )
