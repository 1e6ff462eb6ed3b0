"""FASTA files as rows: every record an `id`, a `description` and a `sequence`."""

import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Any

import datasets
import fsspec
from datasets import Dataset, IterableDataset

from ..arguments import DataFiles
from .files import READING_ERRORS, file_words, reading_error

ENDINGS = (".fasta", ".fa", ".faa", ".fna")
COLUMNS = ("id", "description", "sequence")
# Letters of residues and bases, gaps of alignments, and the stop of a translation.
RESIDUES = re.compile(r"[A-Za-z*.-]*")
SHOWN = 40
FIELD = "data.data_files:"


def read_fasta(data_files: DataFiles, split: str, streaming: bool) -> Dataset | IterableDataset:
    """The records of a split's FASTA files, those of the first file first.

    The first word behind `>` is the `id`, what follows it the `description`; the lines below, joined, are the `sequence`, in the
    case in which they are written. Blank lines and lines that begin with `;` are left out. A record without a sequence is a row
    whose sequence is empty. Files may be compressed (.gz, .bz2, .xz) and lie at an address.

    Args:
        data_files: File, files, or those of each split.
        split: Name of the split.
        streaming: Whether to read records as they come.

    Raises:
        ValueError: No such split, or a file that is no FASTA; the message names file and line.
    """
    by_split = data_files if isinstance(data_files, dict) else {"train": data_files or []}
    if split not in by_split:
        raise ValueError(f"data.data_files: no files for split {split!r}; there are {sorted(by_split)}")
    named = by_split[split]
    files = [named] if isinstance(named, str) else list(named)
    features = datasets.Features({name: datasets.Value("string") for name in COLUMNS})
    kind = IterableDataset if streaming else Dataset
    try:
        # What a file system tells of the files, as size and time, belongs to the fingerprint: a file written anew is read anew.
        stamps = [system.ukey(path) for system, path in map(fsspec.core.url_to_fs, files)]
        return kind.from_generator(_rows, features=features, gen_kwargs={"files": files, "stamps": stamps})
    except READING_ERRORS as error:
        if str(error.__cause__).startswith(FIELD):  # `_error`, which names file and line
            raise ValueError(str(error.__cause__)) from error
        raise reading_error(f"{FIELD} {file_words(files)}", error) from error


def _rows(files: list[str], stamps: list[str]) -> Iterator[dict[str, Any]]:
    for name in files:
        yield from records_of(name)


def records_of(path: str) -> Iterator[dict[str, str]]:
    """The records of one FASTA file, each {"id", "description", "sequence"}.

    Raises:
        ValueError: A line that FASTA does not have, or a file that cannot be unpacked, by file and line.
    """
    header: tuple[str, str] | None = None
    parts: list[str] = []
    for number, line in _lines(path):
        if line.startswith(">"):
            if header is not None:
                yield _record(header, parts)
            name, description = [*line[1:].split(None, 1), "", ""][:2]
            header, parts = (name, description), []
        elif line and not line.startswith(";"):
            if header is None:
                raise _error(path, number, f"expected a line that begins with '>', got {line[:SHOWN]!r}: is it FASTA?")
            part = "".join(line.split())
            if not RESIDUES.fullmatch(part):
                strange = sorted(set(RESIDUES.sub("", part)))[:5]
                raise _error(path, number, f"expected letters, '-', '.' or '*' in a sequence, got {strange}")
            parts.append(part)
    if header is not None:
        yield _record(header, parts)


def _record(header: tuple[str, str], parts: list[str]) -> dict[str, str]:
    return dict(zip(COLUMNS, (*header, "".join(parts)), strict=True))


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line, without white space around it."""
    number = 0
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    # Without the causes, which a stream's errors would name in place of these.
    except UnicodeDecodeError:
        raise _error(path, number, "the line is not UTF-8: save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _error(path, number + 1, f"it cannot be read further: {error}; fetch or pack it anew") from None


def _error(path: str, number: int, words: str) -> ValueError:
    return ValueError(f"{FIELD} {path}, line {number}: {words}")
