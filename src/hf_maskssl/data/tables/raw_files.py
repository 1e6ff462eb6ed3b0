"""Files that cells stand for: opening them, and one error for all that decoders raise."""

import io
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, TypeAlias

import datasets
from datasets.utils.file_utils import xopen

from ...models.image_processing_array import PILLOW_ERRORS

# What decoders of pictures, sounds and NumPy files raise for bytes that are none. SciPy's WAV reader uses variables that a
# file without some chunk has not set (NameError), NumPy parses headers as Python (TokenError); all that Pillow raises can
# come from the others as well.
UNREADABLE = (*PILLOW_ERRORS, NameError, BufferError, tokenize.TokenError)
SHOWN_PATH = 200
WAY_OUT = "replace the file, or take it out of the data"
# A cell: encoded bytes, a path, or both; anything else is no file.
Cell: TypeAlias = object


class Encoded(NamedTuple):
    """A file as a cell gives it; one of the two is there, or the cell is refused."""

    content: bytes | None
    path: str | None

    def open(self) -> BinaryIO:
        """The file for reading; paths may be addresses that datasets knows.

        Raises:
            OSError: No such file.
        """
        if self.content is not None:
            return io.BytesIO(self.content)
        return xopen(str(self.path), "rb")

    def starts_with(self, beginning: bytes) -> bool:
        """Whether the bytes at hand begin so; a file that only its path names is not opened for it."""
        return self.content is not None and self.content.startswith(beginning)


def encoded(value: Cell, what: str) -> Encoded | None:
    """The file that a cell stands for; None for a cell of numbers or of something decoded.

    Args:
        value: Bytes, a path, or `{"bytes", "path"}`, of which one may be absent.
        what: Content that the file should hold, for the error.

    Raises:
        ValueError: Neither bytes nor a path, or an empty file.
    """
    if isinstance(value, bytes):
        file = Encoded(value, None)
    elif isinstance(value, str):
        file = Encoded(None, value)
    elif isinstance(value, dict) and {"bytes", "path"} & set(value):
        file = Encoded(value.get("bytes"), value.get("path"))
    else:
        return None
    if file.content is None and not file.path:
        raise ValueError(f"the {what} is missing: the cell has neither bytes nor a path")
    if file.content is not None and len(file.content) == 0:
        raise unreadable(what, file.path, "the file is empty (0 bytes)")
    return file


def unreadable(what: str, path: str | None, reason: str) -> ValueError:
    """The error of a file that cannot be read: which one, why, and what to do.

    Args:
        what: Content that the file should hold.
        path: Path of the file, where it has one.
        reason: What is wrong with it.
    """
    return ValueError(f"unreadable {what} {(path or '')[:SHOWN_PATH]}: {reason.rstrip('.')}; {WAY_OUT}")


@contextmanager
def reading(what: str, path: str | None) -> Iterator[None]:
    """Turn whatever a decoder raises into one error that names the file.

    Raises:
        ValueError: Saying what cannot be read, where, and why.
    """
    try:
        yield
    except UNREADABLE as error:
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise unreadable(what, path, f"{kind}{error}") from error


def path_of(value: Cell) -> str:
    """The file that a raw value of a column of files comes from; empty where it has none."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else ""


def with_files(error: ValueError, values: Sequence[Cell]) -> str:
    """An error's words and, where they do not name them, the files that the values come from."""
    paths = [path for path in map(path_of, values) if path and path not in str(error)]
    return f"{error} ({', '.join(dict.fromkeys(paths))})" if paths else str(error)


def holds_files(feature: object) -> bool:
    """Whether a column of this feature holds pictures or sounds, or bytes or paths of files."""
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    # Parquet files without the mark of datasets keep a file as its two fields.
    is_struct = isinstance(feature, dict) and bool({"bytes", "path"} & set(feature))
    return is_struct or isinstance(feature, datasets.Image | datasets.Audio)
