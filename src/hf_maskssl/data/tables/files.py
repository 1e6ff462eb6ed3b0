"""Files of a recipe as `datasets` is to see them: paths as they are written, linked folders, and what cannot be read."""

import contextlib
import glob
import itertools
import logging
import lzma
import os
import re
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
from datasets.data_files import SPLIT_KEYWORDS
from datasets.packaged_modules.audiofolder.audiofolder import AudioFolder
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

# Words of the errors that datasets and pandas raise for files without rows.
EMPTY_FILES = (
    "corresponds to no data",
    "Please pass `features` or at least one example",
    "No columns to parse from file",
)
# All that readers of archives, tables and NumPy files raise for content they cannot make sense of, as fuzzing found it.
# `ValueError` covers pandas' and JSON's parsers and Unicode; MemoryError a header that promises more than there is.
READING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    StopIteration,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    pa.ArrowException,
    datasets.exceptions.DatasetsError,
)
# Sources whose reader takes the files of some endings alone -> those endings, and names of files that describe others.
FOLDER_ENDINGS = {"imagefolder": ImageFolder.EXTENSIONS, "audiofolder": AudioFolder.EXTENSIONS}
# The same of sources of tables and texts, whose reader takes every file of a folder for one of its own.
TABLE_ENDINGS = {"csv": (".csv", ".tsv"), "json": (".json", ".jsonl"), "parquet": (".parquet",), "text": (".txt",)}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
# Words by which files of a folder become splits; beside such files those without one are not read.
SPLIT_WORDS = tuple(word for words in SPLIT_KEYWORDS.values() for word in words)
SPLIT_ADVICE = (
    "in a folder, files become splits where a part of their names, or of their folders' names, is one of "
    f"{', '.join(SPLIT_WORDS)}: where none is meant, rename them"
)
NAMED_FILES = 3
NAMED_ENDINGS = 8
# Links that a warning has named: a folder is looked through several times.
_TOLD: set[str] = set()

logger = logging.getLogger(__name__)


def as_pattern(path: str, folder: str = "") -> str:
    """A path or pattern as `datasets` reads it, where square brackets, * and ? of names that exist are themselves.

    The beginning of the path that is there is taken as it is written; what follows may be a pattern.

    Args:
        path: Path or pattern of a recipe.
        folder: Folder, which exists, that relative paths start at; the current one where it is empty.
    """
    if "://" in path or not glob.has_magic(path):
        return path
    there, parts = Path(path), []
    while not (Path(folder) / there).exists():  # "/" and "." always are
        parts.append(there.name)
        there = there.parent
    return str(Path(glob.escape(str(there)), *reversed(parts)))


def is_literal(pattern: str) -> bool:
    """Whether a pattern names one folder or file."""
    return glob.escape(_unescaped(pattern)) == pattern


def ending_of(name: str) -> str:
    """The ending of a file, in small letters; of a compressed one that of what is in it."""
    stem, ending = os.path.splitext(name.lower())
    return os.path.splitext(stem)[1] if ending in COMPRESSED else ending


def files_by_split(folder: str) -> dict[str, list[str]]:
    """The files of a folder, of any ending, by the splits that `datasets` makes of their names; "train" where it makes none."""
    with followed_links():
        found = datasets.load_dataset_builder("text", data_dir=as_pattern(folder)).config.data_files
    return {str(split): [str(path) for path in paths] for split, paths in (found or {}).items()}


def is_hidden(path: str) -> bool:
    """Whether datasets passes over a path, which starts below the folder: hidden files, and what lies in hidden folders."""
    return "/." in path or "/__" in path


class LinkedFiles(LocalFileSystem):
    """Local files, linked folders among them, each real folder once.

    A link that leads back into the folder that is read, or to a folder that was read before, is left out with a warning.
    """

    cachable = False

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        """List a folder in the order of its names: of two links to one folder the first counts."""
        found = super().ls(path, detail=detail, **kwargs)
        return sorted(found, key=lambda one: one["name"] if detail else one)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Facts of a file; a link to a folder is a folder."""
        found: dict[str, Any] = super().info(path, **kwargs)
        if found["islink"] and os.path.isdir(found["name"]):
            found["type"] = "directory"
        return found

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """Find files below the folders that the pattern spells out, those with brackets among them."""
        parts = path.split("/")
        literal = list(itertools.takewhile(is_literal, parts))
        if not glob.has_magic("/".join(literal)):
            return super().glob(path, maxdepth=maxdepth, **kwargs)
        root, rest = "/".join(map(_unescaped, literal)), parts[len(literal) :]
        if not rest:
            found = {root: self.info(root)} if self.exists(root) else {}
        else:
            depth = None if "**" in rest else len(rest)
            matches = re.compile(glob_translate(path)).match
            below = self.find(root, maxdepth=depth, withdirs=True, detail=True)
            found = {name: info for name, info in sorted(below.items()) if matches(name)}
        return found if kwargs.get("detail") else list(found)

    def walk(self, path: str, *args: Any, seen: dict[str, None] | None = None, **kwargs: Any) -> Iterator[Any]:
        """Walk through a folder and each real folder below it once.

        Args:
            path: Folder.
            seen: Real paths of the folders read before, first that of the whole tree.
            args, kwargs: Arguments of `LocalFileSystem.walk`.
        """
        real = os.path.realpath(path)
        seen = {} if seen is None else seen
        if real in seen or (os.path.islink(path) and seen and _is_within(real, next(iter(seen)))):
            if path not in _TOLD:
                logger.warning("the link %s leads to %s, whose files are read already: it is left out", path, real)
                _TOLD.add(path)
            return
        seen[real] = None
        yield from super().walk(path, *args, seen=seen, **kwargs)


def _unescaped(part: str) -> str:
    """A part of a pattern without what `glob.escape` put around its characters."""
    return re.sub(r"\[([*?[])\]", r"\1", part)


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


@contextlib.contextmanager
def followed_links() -> Iterator[None]:
    """Let `datasets` see into linked folders, which fsspec leaves out without a word."""
    names = ("file", "local")
    before = {name: fsspec.get_filesystem_class(name) for name in names}
    try:
        for name in names:
            fsspec.register_implementation(name, LinkedFiles, clobber=True)
        yield
    finally:
        for name, kind in before.items():
            fsspec.register_implementation(name, kind, clobber=True)


def ending_words(counts: Mapping[str, int]) -> str:
    """Endings with their counts, in words."""
    words = [f"{count} of {ending}" for ending, count in list(counts.items())[:NAMED_ENDINGS]]
    return ", ".join(words) + (", ..." if len(counts) > NAMED_ENDINGS else "")


def file_words(files: Iterable[str]) -> str:
    """The first of some files, and how many there are."""
    names = list(files)
    return ", ".join(names[:NAMED_FILES]) + (f", ... ({len(names)} files)" if len(names) > NAMED_FILES else "")


def reading_error(place: str, error: BaseException, unread: dict[str, int] | None = None) -> ValueError:
    """An error that says what a user can do about files that datasets cannot read, or that have no rows.

    Args:
        place: The field, the split and the files, as the message names them.
        error: Error of the reader.
        unread: Endings that the folder's reader does not take, as `unread_endings` gives them.
    """
    cause = error.__cause__ or error
    # An empty JSON file stops the iterator over its rows.
    if isinstance(cause, StopIteration) or any(words in str(cause) for words in EMPTY_FILES):
        endings = {ending: count for ending, count in (unread or {}).items() if ending.startswith((".", "(none)"))}
        if endings:
            return ValueError(
                f"{place} has no file that can be read: the folder holds {ending_words(endings)}: convert them to a format "
                "that data.source reads, such as .png or .wav"
            )
        return ValueError(f"{place} has no rows: its files are empty; check data.data_files")
    is_coding = isinstance(cause, UnicodeDecodeError) or "Invalid UTF8" in str(cause)  # Python's and Arrow's
    advice = ". The file is not UTF-8: save it as UTF-8" if is_coding else ""
    if isinstance(cause, OverflowError):
        advice = (
            ". A whole number has more than 64 bits: write such numbers as texts in quotes, or with a decimal point"
        )
    if "Invalid string class label" in str(cause):
        advice = (
            ". Class folders within an archive are not told apart: unpack it, and give the folder as data.data_dir"
        )
    if "Unknown split" in str(cause):
        advice = f" Name one of these in the recipe; {SPLIT_ADVICE}"
    if "column names don't match" in str(cause) or "must have the same columns" in str(cause):
        advice = ". Give all rows and files the same columns, or name the files that have (data.data_files)"
    if "Error tokenizing data" in str(cause):
        advice = ". A row has more cells than the first one: put quotes around cells that hold the delimiter"
    if "Multiple matches for FieldRef" in str(cause):
        advice = ". Several columns have the same name: give each a name of its own"
    reason = str(cause) or type(cause).__name__
    return ValueError(f"{place} cannot be read: {reason:.500}{advice}")
