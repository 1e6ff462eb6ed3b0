"""Tags of words, of the Penn Treebank or universal, as the parts of speech that are PoS-BERT's tasks."""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...models.configuration_pos_minimax_bert import ANY_WORD

NO_TASK = -1
NAMED_TAGS = 10

logger = logging.getLogger(__name__)

# Universal tags: the 12 of Petrov, Das and McDonald (2012, https://arxiv.org/abs/1104.2086) and the 17 of Universal
# Dependencies 2. None marks numbers, particles, symbols, punctuation and X ("other"), which are never recovered.
UNIVERSAL_TAGS = {
    "verb": ["VERB", "AUX"],
    "noun": ["NOUN", "PROPN"],
    "adjective": ["ADJ"],
    "determiner": ["DET"],
    "adverb": ["ADV"],
    "pronoun": ["PRON"],
    "preposition": ["ADP"],
    "conjunction": ["CONJ", "CCONJ", "SCONJ"],
    "interjection": ["INTJ"],
    None: ["NUM", "PRT", "PART", ".", "PUNCT", "SYM", "X"],
}
# Penn Treebank tags by the mapping en-ptb.map of Petrov et al., with one departure: their 12 tags have no interjections and
# put UH under X; here it is the ninth task. As there, modal verbs (MD) are verbs, "there" (EX) and "which" (WDT) are
# determiners, and "to" (TO) is a particle, be it before a verb or a noun.
PENN_TAGS = {
    "verb": ["VB", "VBD", "VBD|VBN", "VBG", "VBG|NN", "VBN", "VBP", "VBP|TO", "VBZ", "VP", "MD"],
    "noun": ["NN", "NNS", "NNP", "NNPS", "NN|NNS", "NN|SYM", "NN|VBG", "NP"],
    "adjective": ["JJ", "JJR", "JJRJR", "JJS", "JJ|RB", "JJ|VBG"],
    "determiner": ["DT", "EX", "PDT", "WDT"],
    "adverb": ["RB", "RBR", "RBS", "RB|RP", "RB|VBG", "WRB"],
    "pronoun": ["PRP", "PRP$", "PRP|VBP", "WP", "WP$"],
    "preposition": ["IN", "IN|RP"],
    "conjunction": ["CC"],
    "interjection": ["UH"],
    # The last line has brackets, and tags that OntoNotes and the web treebanks added (hyphens, affixes, addresses, word parts).
    None: [
        "CD",
        "CD|RB",
        "LS",
        "FW",
        "POS",
        "RP",
        "TO",
        "RN",
        "WH",
        "SYM",
        "!",
        "#",
        "$",
        "''",
        "``",
        "(",
        ")",
        ",",
        ":",
        "?",
    ]
    + [
        "-LRB-",
        "-RRB-",
        "-LSB-",
        "-RSB-",
        "-LCB-",
        "-RCB-",
        "HYPH",
        "AFX",
        "ADD",
        "NFP",
        "GW",
        "XX",
        '"',
        "'",
        "-",
        "--",
    ],
}
PART_OF_TAG: dict[str, str | None] = {
    tag: part for tags_of in (UNIVERSAL_TAGS, PENN_TAGS) for part, tags in tags_of.items() for tag in tags
}


def task_ids(tags: Sequence[str], tasks: Sequence[str]) -> np.ndarray:
    """The task to which each word belongs.

    Args:
        tags: Tag of each word, Penn Treebank or universal.
        tasks: The configuration's `tasks`: parts of speech in the order of their ids, or ["mlm"], under which any word
            belongs to the one task.

    Returns:
        (words,) int8 ids, -1 for words of no task and for tags that neither scheme knows.
    """
    if list(tasks) == [ANY_WORD]:
        return np.zeros(len(tags), dtype=np.int8)
    table = _ids_of_tags(tuple(tasks))
    return np.fromiter((table.get(tag, NO_TASK) for tag in tags), dtype=np.int8, count=len(tags))


@lru_cache(maxsize=16)
def _ids_of_tags(tasks: tuple[str, ...]) -> dict[str, int]:
    numbers = {task: number for number, task in enumerate(tasks)}
    return {tag: NO_TASK if part is None else numbers.get(part, NO_TASK) for tag, part in PART_OF_TAG.items()}


def warn_of_unknown_tags(counts: Counter[str], split: str, column: str) -> None:
    """Count and name the tags that no scheme knows, once for a split; silent where there are none.

    Args:
        counts: Number of words with each tag in the split.
        split: Name of the split, for the warning.
        column: Name of the column of the tags.
    """
    unknown = Counter({tag: count for tag, count in counts.items() if tag not in PART_OF_TAG})
    if not unknown:
        return
    common = unknown.most_common(NAMED_TAGS)
    named = ", ".join(f"{tag!r} ({count})" for tag, count in common) + (", ..." if len(unknown) > NAMED_TAGS else "")
    logger.warning(
        "%s split, column %r: %d of %d words have one of %d tags that are neither of the Penn Treebank nor universal (%s); "
        "these words are never masked: give the column tags of one of the two, or tag the text again with "
        "examples/run_tag_pos.py",
        split,
        column,
        unknown.total(),
        counts.total(),
        len(unknown),
        named,
    )
