"""Tokenizers for text: one by name, one of bytes, or one built from an alphabet."""

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .arguments import DataArguments, expand_variables

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[MASK]")
BYTE_TOKENIZER = "utf-8"
BYTE_SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")


def build_character_tokenizer(alphabet: str, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character.

    It saves and loads like any other, through `AutoTokenizer` and without code of this package.

    Args:
        alphabet: The characters in the order of their ids, which begin at 3.
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


def load_tokenizer(args: DataArguments, config: Any) -> PreTrainedTokenizerBase | None:
    """The tokenizer a recipe names, None when its column already holds ids.

    Args:
        args: `tokenizer` or `alphabet` is read.
        config: Model configuration with `max_position_embeddings`.

    Raises:
        ValueError: The named tokenizer cannot be loaded.
    """
    if args.alphabet is not None:
        return build_character_tokenizer(args.alphabet, config.max_position_embeddings)
    if args.tokenizer is None:
        return None
    if args.tokenizer == BYTE_TOKENIZER:
        return build_byte_tokenizer(config.max_position_embeddings)
    name = expand_variables(args.tokenizer, "data.tokenizer")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.tokenizer {name!r} cannot be loaded as a Hub name or a folder: {error}; "
            "for one token per byte set it to 'utf-8', for one per character set data.alphabet instead"
        ) from error


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Refuse a tokenizer whose ids the model cannot take.

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
