"""Sentences, words and their Penn Treebank tags by NLTK, always as places in the raw text."""

import os
import re
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from ...extras import missing_extra
from .parts_of_speech import PART_OF_TAG

# NLTK takes a second to import, and most data do not need it: functions import it when they are called.
if TYPE_CHECKING:
    from nltk.data import PathPointer
    from nltk.tag.perceptron import PerceptronTagger
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

TAGGER_DATA = "averaged_perceptron_tagger_eng"
FETCH_COMMAND = f"python -m nltk.downloader {TAGGER_DATA}"

# Abbreviations without their last period. NLTK's trained list would have to be fetched; single letters ("J. Smith") Punkt knows.
ABBREVIATIONS = frozenset(
    """
    mr mrs ms messrs mme dr prof rev fr hon gov gen col maj capt cmdr lt sgt cpl pvt adm sen rep pres supt st mt ft jr sr esq
    ph.d m.d b.a m.a d.c u.s u.s.a u.k u.n e.g i.e cf vs viz etc al ca approx no nos vol vols ch sec fig figs eq eqs ed eds
    p pp dept univ assn bros inc ltd corp co est a.m p.m a.d b.c jan feb mar apr jun jul aug sep sept oct nov dec
    mon tue tues wed thu thur thurs fri ave blvd rd
    """.split()
)
# Capitalised after an abbreviation, they begin a sentence: "at 5 p.m. The".
SENTENCE_STARTERS = frozenset(
    "the he she it they we you this that these those but and in on at if when there his her its".split()
)

BYTE_ORDER_MARK = "\ufeff"
BLANK_LINE = re.compile(r"\n\s*\n")
# Older NLTK's Punkt knows plain quotes alone.
PLAIN_QUOTES = str.maketrans("“”„«»‘’", '"""""\'\'')
APOSTROPHE = re.compile(r"(?<=\w)’(?=\w)")
# The spelling in the tagger's training text of signs that it would otherwise take for nouns.
AS_PENN = {"“": "``", "„": "``", "«": "``", "”": "''", "»": "''", "‘": "`", "’": "'", "—": "--", "–": "--", "―": "--"}
AS_PENN |= {"‒": "--", "…": "...", "-LRB-": "(", "-RRB-": ")", "-LSB-": "(", "-RSB-": ")", "-LCB-": "(", "-RCB-": ")"}
AS_PENN |= {"[": "(", "]": ")"}


def require_nltk() -> None:
    """Check that NLTK is there, before it is imported: only tagging and untagged text need it, and it is an extra.

    Raises:
        ImportError: NLTK is missing; the error names the extra.
    """
    try:
        import nltk  # noqa: F401
    except ImportError as error:
        raise missing_extra("Finding sentences and words (data.tagger)", "text", error) from error


class TaggerDataError(LookupError):
    """The data of NLTK's tagger is not there, or cannot be read."""


class TaggedSentence(NamedTuple):
    """A sentence, with start, end and tag of each of its words.

    Attributes:
        text: Sentence as it stands in the source; a list of words joined by blanks.
        starts: First character of each word in `text`.
        ends: Character after the last one of each word.
        tags: Penn Treebank tags of the words.
    """

    text: str
    starts: list[int]
    ends: list[int]
    tags: list[str]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """The places of a text's sentences, by NLTK's Punkt with the abbreviations above; nothing has to be fetched.

    A blank line ends any sentence. A byte order mark in front of the text belongs to none.

    Args:
        text: Any text.

    Returns:
        (start, end) of each sentence, in order, without the blanks around it; together they hold every character that is not
        blank. Empty for a blank text.
    """
    spans = []
    edges = [edge for match in BLANK_LINE.finditer(text) for edge in match.span()]
    begin_of_text = len(text) - len(text.lstrip(BYTE_ORDER_MARK))
    for start, end in zip([begin_of_text, *edges[1::2]], [*edges[::2], len(text)], strict=True):
        paragraph = text[start:end].translate(PLAIN_QUOTES)
        starts = [first for first, _ in _sentence_tokenizer().span_tokenize(paragraph)]
        for first, last in zip([0, *starts[1:]], [*starts[1:], len(paragraph)], strict=True):
            sentence = paragraph[first:last]
            if sentence.strip():
                begin = start + first + len(sentence) - len(sentence.lstrip())
                spans.append((begin, begin + len(sentence.strip())))
    return spans


@lru_cache(maxsize=1)
def _sentence_tokenizer() -> "PunktSentenceTokenizer":
    require_nltk()
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    parameters.sent_starters = set(SENTENCE_STARTERS)
    return PunktSentenceTokenizer(parameters)


def word_spans(sentence: str) -> list[tuple[int, int]]:
    """The places of a sentence's words, by NLTK's rules (`NLTKWordTokenizer`, as the Penn Treebank: "do" "n't", "cat" "'s").

    Its own `span_tokenize` loses its way where a sentence mixes kinds of quotes; here its words are found again one by one.
    Typographic apostrophes inside words count as plain ones, and an ellipsis of one character is a word of its own.

    Args:
        sentence: One sentence, or any text.

    Returns:
        (start, end) of each word, in order, without overlap; together they hold every character that is not blank. Where
        the rules fail, words are separated by blanks.
    """
    plain = _as_plain(sentence)
    try:
        spans = _find_words(_word_tokenizer().tokenize(plain), plain)
    except TimeoutError:  # NLTK stops its regular expressions after seconds
        spans = None
    return [match.span() for match in re.finditer(r"\S+", sentence)] if spans is None else spans


def _as_plain(sentence: str) -> str:
    """The sentence in characters that NLTK's rules know, of the same length."""
    return APOSTROPHE.sub("'", sentence).replace("…", ";")


@lru_cache(maxsize=1)
def _word_tokenizer() -> "NLTKWordTokenizer":
    require_nltk()
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def _find_words(words: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Spans of words that follow each other in a text with nothing but blanks between them; None where they do not."""
    spans, point = [], 0
    for word in words:
        while text[point : point + 1].isspace():
            point += 1
        if not text.startswith(word, point):
            # The tokenizer writes quotes as `` and ''.
            quotes = ('"', "''", "``") if word in ("``", "''") else ()
            word = next((quote for quote in quotes if text.startswith(quote, point)), "")
            if not word:
                return None
        spans.append((point, point + len(word)))
        point += len(word)
    return None if text[point:].strip() else spans


def tag_words(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """Penn Treebank tags by NLTK's averaged perceptron.

    The tagger takes signs it was not trained on for nouns. Typographic quotes and dashes are therefore shown to it as the
    Treebank writes them, and words without a letter that it still takes for a part of speech become CD, where they have a
    digit, or SYM.

    Args:
        sentences: Words of each sentence.

    Returns:
        A tag for each word.

    Raises:
        TaggerDataError: The tagger's data is missing or broken.
    """
    tagger = load_tagger()
    return [
        [_without_letters(word, tag) for word, (_, tag) in zip(words, tagger.tag(_as_penn(words)), strict=True)]
        for words in sentences
    ]


def _as_penn(words: Sequence[str]) -> list[str]:
    plain, quotes = [], 0
    for word in words:
        if word == '"':
            word = "''" if quotes % 2 else "``"
            quotes += 1
        plain.append(AS_PENN.get(word) or word.replace("’", "'"))
    return plain


def _without_letters(word: str, tag: str) -> str:
    if PART_OF_TAG.get(tag) is None or any(map(str.isalpha, word)):
        return tag
    return "CD" if any(map(str.isdigit, word)) else "SYM"


@lru_cache(maxsize=1)
def load_tagger() -> "PerceptronTagger":
    """NLTK's averaged perceptron for English, read once a process.

    Its data is looked for in the folders of the environment variable `NLTK_DATA`, also of one set after NLTK was imported,
    and in NLTK's usual places.

    Raises:
        TaggerDataError: The tagger's data is missing or broken.
    """
    require_nltk()
    from nltk.tag.perceptron import PerceptronTagger

    location = _find_tagger()
    try:
        tagger = PerceptronTagger()
    except (LookupError, OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise TaggerDataError(_broken(location, f"{type(error).__name__}: {error}")) from error
    dicts = isinstance(tagger.tagdict, dict) and isinstance(tagger.model.weights, dict)
    if not (dicts and tagger.model.weights and tagger.classes and tagger.classes <= PART_OF_TAG.keys()):
        raise TaggerDataError(_broken(location, "its files hold no weights of words for Penn Treebank tags"))
    return tagger


def tagger_digest() -> str:
    """A few letters that identify the tagger's data: other data tag otherwise. Much quicker than `load_tagger`.

    Raises:
        TaggerDataError: The tagger's data is missing or cannot be read; damage inside readable files is not noticed.
    """
    location, digest = _find_tagger(), sha256()
    try:
        for part in ("weights", "tagdict", "classes"):
            with location.join(f"{TAGGER_DATA}.{part}.json").open() as file:
                digest.update(file.read())
    except (LookupError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise TaggerDataError(_broken(location, f"{type(error).__name__}: {error}")) from error
    return digest.hexdigest()[:16]


def _find_tagger() -> "PathPointer":
    """NLTK's pointer to the folder of the tagger's data."""
    require_nltk()
    import nltk.data

    for folder in filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)):
        if os.path.expanduser(folder) not in nltk.data.path:
            nltk.data.path.insert(0, os.path.expanduser(folder))
    try:
        return nltk.data.find(f"taggers/{TAGGER_DATA}/")
    except LookupError as error:
        setting = os.environ.get("NLTK_DATA")
        raise TaggerDataError(
            f"the data of NLTK's tagger, taggers/{TAGGER_DATA}, is in none of {[str(path) for path in nltk.data.path]} "
            f"(NLTK_DATA is {setting!r}): fetch it once with `{FETCH_COMMAND}`, or let NLTK_DATA name the folder in which "
            "`taggers` lies"
        ) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise TaggerDataError(_broken(f"one of {nltk.data.path}", f"{type(error).__name__}: {error}")) from error


def _broken(location: object, reason: str) -> str:
    return (
        f"the data of NLTK's tagger in {location} cannot be read ({reason}), as after an interrupted download: remove it and "
        f"fetch it again with `{FETCH_COMMAND}`"
    )


def tag_values(values: Sequence[str | Sequence[str]]) -> list[list[TaggedSentence]]:
    """Split texts into sentences and words, and tag them.

    Args:
        values: Texts: strings, which may hold several sentences, or lists of words, each one sentence. Words of blanks alone are
            left out.

    Returns:
        The sentences of each value; a blank string or an empty list has none.

    Raises:
        TaggerDataError: The tagger's data is missing or broken.
    """
    split = [_text_sentences(value) if isinstance(value, str) else _word_sentence(value) for value in values]
    tags = iter(tag_words([[text[start:end] for start, end in spans] for found in split for text, spans in found]))
    return [
        [
            TaggedSentence(text, [start for start, _ in spans], [end for _, end in spans], next(tags))
            for text, spans in found
        ]
        for found in split
    ]


def _text_sentences(text: str) -> list[tuple[str, list[tuple[int, int]]]]:
    return [(text[start:end], word_spans(text[start:end])) for start, end in sentence_spans(text)]


def _word_sentence(words: Sequence[str]) -> list[tuple[str, list[tuple[int, int]]]]:
    kept = [word for word in words if word.strip()]
    ends, end = [], -1
    for word in kept:
        end += 1 + len(word)
        ends.append(end)
    spans = [(end - len(word), end) for word, end in zip(kept, ends, strict=True)]
    return [(" ".join(kept), spans)] if kept else []
