"""Fields of all kinds with text: the tokenizer."""

from dataclasses import dataclass

from ..arguments import DataArguments


@dataclass
class TextArguments(DataArguments):
    """Arguments of a kind whose rows hold text.

    Attributes:
        tokenizer: Hub name or folder of a tokenizer; a BERT `vocab.txt`, one piece a line; or `"utf-8"`, the built-in tokenizer
            of bytes: [PAD] 0, [BOS] 1, [EOS] 2, [MASK] 3, [CLS] 4, [SEP] 5, byte b at b + 6, so `vocab_size` is 262. Its texts
            end with [SEP]; or `"captioned_scenes"`, one token for each word of the built-in captions, `vocab_size` 37.
        alphabet: Characters of a one-token-per-character tokenizer, built here and saved with the checkpoint. Ids: [PAD] 0,
            [UNK] 1, [MASK] 2, then the alphabet in this order, so `vocab_size` is its length + 3.
    """

    tokenizer: str | None = None
    alphabet: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer is not None and self.alphabet is not None:
            raise ValueError("data.tokenizer and data.alphabet are both set: keep the one that reads the text")
        if self.alphabet is not None and len(set(self.alphabet)) != len(self.alphabet):
            repeated = sorted({letter for letter in self.alphabet if self.alphabet.count(letter) > 1})
            raise ValueError(f"data.alphabet: these characters occur twice: {repeated}")
        if self.alphabet == "":
            raise ValueError("data.alphabet: expected at least one character, got an empty string")
