"""Streams that break off: whatever a reader raises, however late, becomes an error that names the file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from datasets import IterableDataset
from datasets.iterable_dataset import ArrowExamplesIterable, ExamplesIterable

from .files import READING_ERRORS, reading_error

# Arguments by which the readers of `datasets` are given the files of a part of a stream.
FILE_ARGUMENTS = ("base_files", "files")


@dataclass(frozen=True)
class NamedReading:
    """A reader of `datasets` whose errors name the file.

    Attributes:
        read: Generator function that reads a part of a stream.
        source: Words for the source, such as "data.source 'json'".
        files: Words for all its files, for a part that does not say which it reads; may be empty.
        split: Name of the split.
    """

    read: Callable[..., Iterator[tuple[object, object]]]
    source: str
    files: str
    split: str

    def __call__(self, **part: object) -> Iterator[tuple[object, object]]:
        try:
            for key, rows in self.read(**part):
                if isinstance(rows, pa.Table):
                    rows.validate(full=True)  # text that is not UTF-8 would be noticed later, far from its file
                yield key, rows
        except READING_ERRORS as error:
            files = _file_of(part) or self.files
            place = self.source + (f" ({files})" if files else "")
            raise reading_error(f"{place}: split {self.split!r}", error) from error.__cause__ or error


def named_errors(dataset: IterableDataset, source: str, files: str, split: str) -> IterableDataset:
    """A stream whose errors of reading name the file; the arguments are those of `NamedReading`."""
    rows = dataset._ex_iterable
    if isinstance(rows, ArrowExamplesIterable):
        rows.generate_tables_fn = NamedReading(rows.generate_tables_fn, source, files, split)
    elif isinstance(rows, ExamplesIterable):
        rows.generate_examples_fn = NamedReading(rows.generate_examples_fn, source, files, split)
    return dataset


def _file_of(part: Mapping[str, object]) -> str:
    """The file of a part that has one alone; else nothing."""
    for name in FILE_ARGUMENTS:
        files = part.get(name)
        if isinstance(files, list) and len(files) == 1 and isinstance(files[0], str):
            return str(files[0])
    return ""
