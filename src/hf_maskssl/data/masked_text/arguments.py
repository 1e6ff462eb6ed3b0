"""What a recipe says of texts whose words are masked."""

from dataclasses import dataclass
from typing import Literal

from ..arguments import DataArguments


@dataclass
class MaskedTextArguments(DataArguments):
    """Arguments of masked language modelling: texts whose words are masked by their part of speech, for pre-training alone.

    `input_column` is one column of texts, or of lists of words. `max_*_samples` keep the beginnings of documents, for which
    blank lines of text files do not count.

    Attributes:
        tokenizer: Hub name or folder of a tokenizer, for text; a BERT `vocab.txt`, one piece a line; or `"utf-8"`, the
            built-in tokenizer of bytes: [PAD] 0, [BOS] 1, [EOS] 2, [MASK] 3, [CLS] 4, [SEP] 5, byte b at b + 6, so
            `vocab_size` is 262. Its texts end with [SEP].
        tag_column: The column of the words' parts of speech, Penn Treebank or universal tags (strings, or
            numbers of a ClassLabel), one for each word of a list; of a string, whose row is one sentence, the columns
            `word_starts` and `word_ends` say where its words are (what `examples/run_tag_pos.py` writes).
        tagger: `"nltk"` tags the words here, once, with NLTK's averaged perceptron. It is for English;
            other languages come with a `tag_column` of universal tags.
        document_column: Column of which neighbouring rows with an equal value are one document. None: every row is
            one; of `"text"` files (a paragraph a line, not wrapped), the lines between two blank ones.
        mlm_probability: Share of the pieces that is masked.
        mask_sampling: Whether masked words come from the tasks as they occur, or from all of a sequence's tasks equally.
        num_maskings: Number of different maskings, which epochs take in turn; 0: one anew in every epoch.
        sequence_length: Pieces in a sequence, [CLS] and [SEP] included. None: as many as the model takes.
        short_sequence_probability: Share of the sequences that get a random shorter length.
        wordpiece_size: Number of pieces of an uncased WordPiece tokenizer that is trained on the training split and saved
            with the checkpoint, instead of `tokenizer`. It lower-cases and drops accents; `examples/train_tokenizer.py
            --cased` keeps them.
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

    def __post_init__(self) -> None:
        """As `DataArguments`."""
        super().__post_init__()
        for name, value, needed, reason in (
            ("streaming", self.streaming, False, "sentences are counted and cached beforehand: set it to false"),
            ("cache", self.cache, True, "sentences are cached: leave it out"),
            ("label_column", self.label_column, None, "it is for pre-training; fine-tune with kind 'tokens'"),
        ):
            if value != needed:
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
        for name, number, lowest in (
            ("num_maskings", self.num_maskings, 0),
            ("wordpiece_size", self.wordpiece_size, 1),
            ("sequence_length", self.sequence_length, 5),
        ):
            if number is not None and number < lowest:
                raise ValueError(f"data.{name}: expected at least {lowest}, got {number}")
        if not 0.0 < self.mlm_probability < 1.0:
            raise ValueError(f"data.mlm_probability: expected a number in (0, 1), got {self.mlm_probability}")
        if not 0.0 <= self.short_sequence_probability <= 1.0:
            raise ValueError(
                f"data.short_sequence_probability: expected a number in [0, 1], got {self.short_sequence_probability}"
            )

    def _check_whole_documents(self) -> None:
        """Documents of several rows are not torn apart by cuts."""
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
