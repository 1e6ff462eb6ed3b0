"""Tokenizers for text: one by name, or one built from an alphabet."""

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .arguments import DataArguments, expand_variables

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[MASK]")


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
    )


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
    name = expand_variables(args.tokenizer, "data.tokenizer")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.tokenizer {name!r} cannot be loaded as a Hub name or a folder: {error}; "
            "for one token per character set data.alphabet instead"
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
