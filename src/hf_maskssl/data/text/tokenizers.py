"""Tokenizers for text: one by name, one of bytes, one built from an alphabet, BERT's from a vocabulary file or trained."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import tokenizers
from datasets import Dataset
from datasets.fingerprint import Hasher
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ...files import nearest_path
from ..arguments import expand_variables
from ..builtin import SOURCES
from ..tables.sources import AnyDataset
from .texts import join_words, row_place

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[MASK]")
BYTE_TOKENIZER = "utf-8"
BYTE_SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
# Limits of a trained WordPiece: rarer characters become [UNK] (the vocabulary of BERT has 997), and a piece must
# occur more than once.
LARGEST_ALPHABET = 1000
LOWEST_FREQUENCY = 2
# Part of the key of a kept vocabulary: raise it when `train_wordpiece` gives another one.
WORDPIECE_VERSION = 2
# BERT's tokenizer makes [UNK] of longer words, so no piece of them would ever be used; and the time that training takes grows
# with the square of a word's length.
LONGEST_WORD = 100
# Text without a run of so many characters has no word that is too long: decomposed, a character becomes four at the most.
LONG_RUN = re.compile(rf"\S{{{LONGEST_WORD // 4 + 1},}}")
TEXT_ROWS = 1000  # rows read together
# A model's vocabulary that is larger than the tokenizer's by more than this causes a warning.
MOST_UNUSED = 1.05

logger = logging.getLogger(__name__)


def build_character_tokenizer(alphabet: str, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character.

    It saves and loads like any other, through `AutoTokenizer` and without code of this package.

    Args:
        alphabet: Characters in the order of their ids, which begin at 3.
        max_length: Longest sequence in tokens; longer ones are cut when truncation is asked for.

    Returns:
        Tokenizer with [PAD] 0, [UNK] 1, [MASK] 2, then the alphabet.

    Raises:
        ValueError: An empty alphabet or a character that occurs twice.
    """
    if not alphabet or len(set(alphabet)) != len(alphabet):
        raise ValueError(f"alphabet: expected different characters, at least one, got {alphabet!r}")
    vocabulary = {token: position for position, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
        # A text that spells out "[MASK]" holds six characters.
        split_special_tokens=True,
    )


def build_byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per UTF-8 byte, in Perceiver's numbering (Jaegle et al. 2022; SMA's text and SMILES).

    It saves and loads like any other, through `AutoTokenizer` and without code of this package.

    Args:
        max_length: Longest sequence in tokens, the final [SEP] included; longer ones are cut when truncation is asked
            for, and keep that [SEP].

    Returns:
        Tokenizer with [PAD] 0, [BOS] 1, [EOS] 2, [MASK] 3, [CLS] 4, [SEP] 5 and byte b at b + 6: 262 tokens. A text
        becomes its bytes and [SEP], a pair A [SEP] B [SEP].

    Raises:
        ValueError: `max_length` has no room for a byte and the separator.
    """
    if max_length < 2:
        raise ValueError(f"max_length: expected at least 2, a byte and the separator, got {max_length}")
    vocabulary = {token: position for position, token in enumerate([*BYTE_SPECIAL_TOKENS, *_byte_characters()])}
    # Pairs of bytes are never merged.
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", vocabulary["[SEP]"])]
    )
    names = {f"{token.strip('[]').lower()}_token": token for token in BYTE_SPECIAL_TOKENS}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        # A text that spells out "[SEP]" holds five bytes.
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        **names,
    )


def _byte_characters() -> list[str]:
    """The character by which the tokenizers library writes each byte, 0 to 255."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Printable bytes are written as themselves, the others, in order, as characters above 255.
    printable = {ord(character) for character in alphabet if ord(character) < 256}
    stand_ins = iter([character for character in alphabet if ord(character) >= 256])
    return [chr(byte) if byte in printable else next(stand_ins) for byte in range(256)]


def build_bert_tokenizer(
    vocabulary: dict[str, int], max_length: int | None = None, lowercase: bool = True
) -> BertTokenizer:
    """BERT's tokenizer of these pieces; `AutoTokenizer` opens it from the folder it is saved to.

    Args:
        vocabulary: Piece -> id, "##" before those that go on with a word.
        max_length: Longest sequence in tokens; None sets no limit.
        lowercase: Whether text is lowercased and loses its accents first.

    Raises:
        ValueError: A special token is missing.
    """
    missing = [token for token in BERT_SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        # transformers would give them new ids at the end, which no embedding was trained for.
        raise ValueError(
            f"the vocabulary of {len(vocabulary)} pieces has no {' and no '.join(missing)}: expected "
            f"{', '.join(BERT_SPECIAL_TOKENS)} among them"
        )
    options: dict[str, Any] = {} if max_length is None else {"model_max_length": max_length}
    return BertTokenizer(vocab=dict(vocabulary), do_lower_case=lowercase, **options)


def read_vocabulary(path: Path) -> dict[str, int]:
    """The pieces of a BERT `vocab.txt`, numbered by their lines from 0.

    Raises:
        ValueError: Not UTF-8, an empty line before the end, or a piece that occurs twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a vocabulary in UTF-8, one piece a line: {error}") from error
    vocabulary = {piece: number for number, piece in enumerate(lines)}
    if len(vocabulary) != len(lines) or "" in vocabulary:
        piece = "" if "" in vocabulary else Counter(lines).most_common(1)[0][0]
        raise ValueError(
            f"{path}: expected a different piece on each line, got {piece!r} on {lines.count(piece)} of {len(lines)}"
        )
    return vocabulary


def train_wordpiece(texts: Iterable[str], vocab_size: int, lowercase: bool = True) -> dict[str, int]:
    """Train a WordPiece vocabulary: characters, then pieces by their counts (byte-pair merges, as the tokenizers library).

    The same texts give the same vocabulary, in every process. Words of more than 100 characters are left out, as BERT's tokenizer
    makes [UNK] of them; a warning counts them.

    Args:
        texts: Texts, read twice and so no iterator.
        vocab_size: Number of pieces, special tokens included.
        lowercase: Whether text is lowercased and loses its accents first.

    Returns:
        Piece -> id: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then the others; fewer than `vocab_size` where the texts
        have no more that occur twice.

    Raises:
        ValueError: An iterator, texts without a character, or no room for their characters.
    """
    if iter(texts) is texts:
        raise ValueError("texts: they are read twice, so expected a list or the like, got an iterator")
    backend = _untrained_wordpiece(lowercase)
    # A tokenizer of its own: one that is being trained waits for its texts, and would wait for itself.
    texts = ShortWords(texts, _untrained_wordpiece(lowercase))
    alphabet = _alphabet(texts, backend)
    if texts.left_out:
        logger.warning(
            "%d words of more than %d characters are left out of the WordPiece vocabulary: BERT's tokenizer makes [UNK] of them",
            texts.left_out,
            LONGEST_WORD,
        )
    # These pieces continue a word; punctuation never does. The trainer numbers them in the order of a hash table, and
    # breaks ties by number, so that every run would end with other pieces: given as special tokens, they have their order.
    inner = [CONTINUES + letter for letter in alphabet if len(_split_words(backend, "a" + letter)) == 1]
    needed = len(BERT_SPECIAL_TOKENS) + len(alphabet) + len(inner)
    if not alphabet or needed > vocab_size:
        raise ValueError(
            f"a WordPiece vocabulary of {vocab_size} pieces has no room for the {len(alphabet)} characters of the texts, "
            f"which need {needed}: " + ("raise it" if alphabet else "the texts are empty")
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=LOWEST_FREQUENCY,
        special_tokens=[*BERT_SPECIAL_TOKENS, *inner],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=False)
    _warn_of_few_pieces(vocabulary, vocab_size)
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def _untrained_wordpiece(lowercase: bool) -> Tokenizer:
    """A tokenizer without a vocabulary that splits texts into BERT's words."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


@dataclass
class ShortWords:
    """Texts without words that are longer than BERT's tokenizer takes.

    Attributes:
        texts: Texts, read as often as this object is.
        backend: Tokenizer whose normalizer and pre-tokenizer decide what a word is.
        left_out: Number of words that the last reading has left out.
    """

    texts: Iterable[str]
    backend: Tokenizer
    left_out: int = 0

    def __iter__(self) -> Iterator[str]:
        self.left_out = 0
        for text in self.texts:
            if LONG_RUN.search(text) is None:
                yield text
                continue
            words = [word for word, _ in _split_words(self.backend, text)]
            kept = [word for word in words if len(word) <= LONGEST_WORD]
            self.left_out += len(words) - len(kept)
            yield text if len(kept) == len(words) else " ".join(kept)


@dataclass(frozen=True)
class ColumnTexts:
    """The texts of a column, one after the other and as often as asked for; lists of words are joined, nulls left out.

    Attributes:
        split: Rows of any split.
        column: Name of its column of strings or lists of words.
    """

    split: AnyDataset
    column: str

    def __iter__(self) -> Iterator[str]:
        first = 0
        for batch in self.split.select_columns([self.column]).with_format(None).iter(batch_size=TEXT_ROWS):
            for index, value in enumerate(batch[self.column], start=first):
                text = join_words(value)
                if isinstance(text, str):
                    yield text
                elif value is not None and value != []:
                    raise ValueError(
                        f"{row_place('train', index, self.column)}: expected a text or a list of words, got {value!r:.60}"
                    )
            first += len(batch[self.column])


def train_wordpiece_on(split: AnyDataset, column: str, vocab_size: int, lowercase: bool = True) -> dict[str, int]:
    """`train_wordpiece` on the texts of a column, kept in the datasets cache for the other processes and later runs.

    Args:
        split: Rows of the split; rows in memory, or of a stream, are trained on each time.
        column: Name of its column of strings or lists of words.
        vocab_size: Number of pieces, special tokens included.
        lowercase: Whether text is lowercased and loses its accents first.

    Raises:
        ValueError: Texts that `train_wordpiece` refuses, or a value that is no text.
    """
    texts = ColumnTexts(split, column)
    if not (isinstance(split, Dataset) and split.cache_files):
        return train_wordpiece(texts, vocab_size, lowercase)
    settings = [WORDPIECE_VERSION, tokenizers.__version__, column, vocab_size, lowercase]
    key = Hasher.hash([split._fingerprint, *settings])
    kept = Path(datasets.config.HF_DATASETS_CACHE) / "hf_maskssl" / f"{key}.vocab.txt"
    is_kept = kept.is_file()
    if not is_kept:
        logger.info("training a WordPiece tokenizer of %d pieces on %d texts", vocab_size, len(split))
        vocabulary = train_wordpiece(texts, vocab_size, lowercase)
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f"{key}.{os.getpid()}")
        unfinished.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        unfinished.replace(kept)
    vocabulary = read_vocabulary(kept)
    if is_kept:
        _warn_of_few_pieces(vocabulary, vocab_size)
    return vocabulary


def _warn_of_few_pieces(vocabulary: dict[str, int], vocab_size: int) -> None:
    if len(vocabulary) < vocab_size:
        logger.warning("the texts give %d WordPieces, not %d: no others occur twice", len(vocabulary), vocab_size)


def _alphabet(texts: Iterable[str], backend: Tokenizer) -> list[str]:
    """The most common characters, in the order of Unicode."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(backend.normalizer.normalize_str(text))
    letters = sorted((letter for letter in counts if not letter.isspace()), key=lambda one: (-counts[one], one))
    return sorted(letters[:LARGEST_ALPHABET])


def _split_words(backend: Tokenizer, text: str) -> list[tuple[str, tuple[int, int]]]:
    return list(backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)))


def load_tokenizer(
    tokenizer: str | None, alphabet: str | None, config: PreTrainedConfig
) -> PreTrainedTokenizerBase | None:
    """The tokenizer a recipe names, None when its column already holds ids.

    Args:
        tokenizer: Value of `data.tokenizer`; a file must be a vocabulary of BERT, cased where it has capitals.
        alphabet: Value of `data.alphabet`, which goes first.
        config: Model configuration with `max_position_embeddings`.

    Raises:
        ValueError: The named tokenizer cannot be loaded.
    """
    if alphabet is not None:
        return build_character_tokenizer(alphabet, config.max_position_embeddings)
    if tokenizer is None:
        return None
    if tokenizer == BYTE_TOKENIZER:
        return build_byte_tokenizer(config.max_position_embeddings)
    if tokenizer in SOURCES and SOURCES[tokenizer].words:
        pieces = [*BERT_SPECIAL_TOKENS, *SOURCES[tokenizer].words]
        return build_bert_tokenizer(
            {piece: number for number, piece in enumerate(pieces)}, config.max_position_embeddings
        )
    name = expand_variables(tokenizer, "data.tokenizer")
    if Path(name).is_file():
        return _load_vocabulary(Path(name), config.max_position_embeddings)
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        # What transformers says of a name that it does not know ends in advice about the internet connection.
        reason = str(error) if Path(name).exists() else f"there is no such file or folder{nearest_path(Path(name))}"
        raise ValueError(
            f"data.tokenizer {name!r} cannot be loaded as a Hub name, a folder or a vocab.txt: {reason}; "
            "for one token per byte set it to 'utf-8', for one per character set data.alphabet instead"
        ) from error


def _load_vocabulary(path: Path, max_length: int) -> BertTokenizer:
    try:
        vocabulary = read_vocabulary(path)
        pieces = [piece for piece in vocabulary if piece not in BERT_SPECIAL_TOKENS]
        # An uncased vocabulary has no capital, so text must lose its own.
        return build_bert_tokenizer(vocabulary, max_length, lowercase=not any(map(_has_capital, pieces)))
    except ValueError as error:
        raise ValueError(f"data.tokenizer {str(path)!r} is no BERT vocabulary: {error}") from error


def _has_capital(piece: str) -> bool:
    is_unused = piece.startswith("[") and piece.endswith("]")  # for example [unused1]
    return piece != piece.lower() and not is_unused


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuse a tokenizer whose ids the model cannot take; warn of a model with far more ids than the tokenizer.

    Raises:
        ValueError: More tokens than `vocab_size`, or another padding id than the model's.
    """
    # The length counts tokens; with holes in the numbering the highest id can lie above it.
    needed = max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    if needed > config.vocab_size:
        raise ValueError(
            f"model.vocab_size is {config.vocab_size}, but the tokenizer has ids up to {needed - 1}: "
            f"set model.vocab_size to {needed}"
        )
    model_pad = getattr(config, "pad_token_id", None)
    if model_pad is not None and tokenizer.pad_token_id is not None and model_pad != tokenizer.pad_token_id:
        raise ValueError(
            f"model.pad_token_id is {model_pad}, but the tokenizer pads with {tokenizer.pad_token_id}: make them equal"
        )
    if config.vocab_size > MOST_UNUSED * needed:
        logger.info(
            "model.vocab_size is %d, the tokenizer has %d pieces: the rest is never used", config.vocab_size, needed
        )
