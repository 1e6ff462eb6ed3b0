"""Raw data sets by name: those that come with the package, local files, saved folders and the Hub."""

import functools
import glob
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
from datasets import Dataset, IterableDataset

from ...files import nearest_path
from ...recipes import nearest
from ..arguments import LOCAL_SOURCES, DataArguments, DataFiles, expand_variables
from ..builtin import SOURCES
from .column_types import read_by_all_rows
from .csv_numbers import with_thousands_read
from .csv_shape import look_at_first_line, other_delimiter
from .csv_words import with_words_kept
from .fasta_files import read_fasta
from .files import (
    READING_ERRORS,
    as_pattern,
    file_words,
    followed_links,
    is_literal,
    reading_error,
)
from .first_rows import first_rows
from .json_cells import with_lists_read
from .json_tables import look_for_whole_table, refuse_lists
from .multimodal_folder import read_multimodal_folder
from .numpy_files import read_numpy
from .report import DataReport
from .rows import Row
from .sound_folder import SoundFolder
from .stream_errors import named_errors
from .unread_files import chained_names, files_read, tell_unread, unread_endings

AnyDataset: TypeAlias = Dataset | IterableDataset

COMMON_CSV = {"sep": ",", "decimal": "."}
PARQUET_BATCH_ROWS = 1000
OWN_READERS: dict[str, Callable[[DataFiles, str, bool], AnyDataset]] = {"numpy": read_numpy, "fasta": read_fasta}
FILES_LOOKED_AT = 20  # CSV and JSON files of a split whose beginnings are looked at
PICKLES = ("pandas",)  # readers of `datasets` that some of its versions run a file's code with

logger = logging.getLogger(__name__)


def read_split(args: DataArguments, split: str, report: DataReport | None = None) -> AnyDataset:
    """One whole split of the source, by its name there.

    Args:
        args: The recipe's data section.
        split: Its name.
        report: Report that counts files that are not read; the log does too.

    Raises:
        ValueError: An unset environment variable, a split that is not there, or an unreadable file.
        FileNotFoundError: A file, folder or Hub data set that does not exist.
    """
    source = expand_variables(args.source, "data.source")
    if args.builtin is not None:
        return args.builtin.read(args, split)
    if source in PICKLES:
        raise ValueError(f"data.source {source!r} reads pickles, which can run code: save the table as Parquet or CSV")
    data_files = _expand_files(args, source)
    if source in OWN_READERS:
        return OWN_READERS[source](data_files, split, args.streaming)
    if (Path(source) / "dataset_dict.json").is_file() or (Path(source) / "state.json").is_file():
        return _read_saved(source, split, args.streaming)
    data_dir = None if args.data_dir is None else expand_variables(args.data_dir, "data.data_dir")
    if source in (*LOCAL_SOURCES, "multimodal_folder") and data_dir is not None and not Path(data_dir).is_dir():
        raise FileNotFoundError(f"data.data_dir {data_dir}: no such folder{nearest_path(Path(data_dir))}")
    if source == "multimodal_folder":
        dataset = read_multimodal_folder(Path(str(data_dir)), split, args)
        if report is not None:
            _count_unread(source, data_dir, report)
        return dataset.to_iterable_dataset() if args.streaming else dataset
    folder = data_dir if data_files is None else None
    try:
        dataset = _load(args, source, split, data_dir, data_files)
    except (ConnectionError, FileNotFoundError) as error:
        if chained := chained_names(data_dir):
            raise ValueError(
                f"{_place(args)}: '::' in the name {chained[0]!r} is read as the end of an address: rename it"
            ) from error
        if source in LOCAL_SOURCES or Path(source).exists():
            raise
        raise _unknown_source(source, error) from error
    except READING_ERRORS as error:
        raise reading_error(f"{_place(args)}: split {split!r}", error, unread_endings(source, folder)) from error
    if report is not None:
        _count_unread(source, folder, report)
    return dataset


def _count_unread(source: str, folder: str | None, report: DataReport) -> None:
    """Count the files of a folder that its reader leaves out, and warn of them."""
    report.files_left_out = unread_endings(source, folder)
    tell_unread(source, folder, report.files_left_out)


def _load(args: DataArguments, source: str, split: str, data_dir: str | None, data_files: DataFiles) -> AnyDataset:
    """One split, read by `datasets`."""
    if data_dir is not None and data_files is None and (kept := files_read(source, data_dir)):
        data_dir, data_files = None, {**kept}
    options: dict[str, Any] = {"data_dir": data_dir, "data_files": data_files}
    if source in LOCAL_SOURCES:
        options = {
            "data_dir": data_dir and as_pattern(data_dir),
            "data_files": map_files(lambda path: as_pattern(path, data_dir or ""), data_files),
        }
    elif Path(source).is_dir() and glob.has_magic(str(Path(source).resolve())):
        raise ValueError(
            "the folder's path holds one of *, ? and [, which are read as a pattern: rename it, or set data.source to the kind "
            "of its files and data.data_dir to the folder"
        )
    if source == "parquet":
        # Without a batch size, Parquet files without rows raise an error about that size.
        options["batch_size"] = PARQUET_BATCH_ROWS

    written = {"sep": args.delimiter, "decimal": args.decimal}
    if source == "csv" and written != COMMON_CSV:
        options |= written
    if source == "text":
        options["encoding"] = "utf-8-sig"  # a byte-order mark is no part of the first text
    if args.missing_words:
        options["na_values"] = list(args.missing_words)

    named = {"name": args.config_name, "revision": args.revision, "split": split, "streaming": args.streaming}

    def load(**more: Any) -> AnyDataset:
        own = options | more
        with followed_links():
            if source == "audiofolder":
                loaded = _read_sounds(options, split, args.streaming)
            else:
                read = functools.partial(datasets.load_dataset, source, **named, **own)
                loaded = read_by_all_rows(source, read, own, lambda: _files_of(source, options, split))
        if args.thousands is not None:
            assert isinstance(loaded, Dataset)  # streams are refused
            return with_thousands_read(loaded, args.thousands, args.decimal)
        if isinstance(loaded, IterableDataset):
            return named_errors(loaded, f"data.source {source!r}", _file_names(args), split)
        return loaded

    if source == "json":
        for file in _files_of(source, options, split)[:FILES_LOOKED_AT]:
            if (fault := look_for_whole_table(file)) is not None:
                raise ValueError(f"{file}: {fault}")
    rows = load()
    if source == "json" and args.ROWS_OF_CELLS:
        refuse_lists(rows, "")
    if source != "csv":
        return rows
    _check_csv(rows, args, _files_of(source, options, split))
    rows = with_words_kept(rows, args, load)
    return with_lists_read(rows, args.input_columns(), split) if args.reads_lists else rows


def _check_csv(rows: AnyDataset, args: DataArguments, files: Sequence[str]) -> None:
    """Refuse, or warn of, CSV files whose first line does not fit their rows.

    Args:
        rows: Split as it was read.
        args: The recipe's data section.
        files: Files of the split.

    Raises:
        ValueError: Another delimiter, more cells than names, or a column of the recipe whose name stands there twice.
    """
    names = column_names(rows)
    named = {*args.input_columns(), *args.label_columns().values()}
    other = other_delimiter(names, args.delimiter)
    if other is not None and not named & set(names):
        raise ValueError(other)
    for file in files[:FILES_LOOKED_AT]:
        look = look_at_first_line(file, args.delimiter)
        if look.fault is not None:
            raise ValueError(f"{file}: {look.fault}")
        if twice := [name for name in look.repeated if name in named]:
            raise ValueError(f"{file}: several columns are named {twice[0]!r}: give each a name of its own")
        if look.repeated:
            words = ", ".join(f"{name!r} (then {f'{name}.1'!r})" for name in look.repeated)
            logger.warning("%s: several columns have the same name and are told apart by numbers: %s", file, words)
        if look.has_row_names:
            logger.warning(
                "%s: the rows have one cell more than there are names: the first is taken for the row's own name, no feature",
                file,
            )


def _files_of(source: str, options: dict[str, Any], split: str) -> list[str]:
    with followed_links():
        files = datasets.load_dataset_builder(source, **options).config.data_files
    return [str(file) for file in (files or {}).get(split, [])]


def _place(args: DataArguments) -> str:
    """The source and its files, as errors name them."""
    names = _file_names(args)
    return f"data.source {args.source!r}" + (f" ({names})" if names else "")


def _file_names(args: DataArguments) -> str:
    """The files or the folder of the recipe, in words."""
    files = args.data_files.values() if isinstance(args.data_files, dict) else [args.data_files or args.data_dir]
    return file_words(name for one in files for name in ([one] if isinstance(one, str) else one or []))


def unreadable_stream(args: DataArguments, split: str, error: BaseException) -> ValueError:
    """The error of a stream that cannot be read."""
    return reading_error(f"{_place(args)}: split {split!r}", error, unread_endings(args.source, args.data_dir))


def _unknown_source(source: str, error: Exception) -> FileNotFoundError:
    """An error for a name that belongs to no kind of file, no folder, and no data set on the Hub."""
    known = [*LOCAL_SOURCES, "multimodal_folder", *SOURCES]
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    hint = nearest(source, known) or nearest_path(Path(source))
    return FileNotFoundError(
        f"data.source {source!r}{hint}: expected one of {known}, a folder, or a data set on the Hub, "
        f"from which it cannot be read: {reason}."
    )


def choose_rows(dataset: Dataset, count: int, seed: int) -> Dataset:
    """`count` rows drawn without repetition, in their original order."""
    return dataset.select(chosen_numbers(len(dataset), count, seed))


def chosen_numbers(total: int, count: int, seed: int) -> np.ndarray:
    """Numbers (count,) of rows that `choose_rows` draws out of `total`, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def first_row(dataset: AnyDataset) -> Row | None:
    """The first row, None when there is none. A stream is opened for it."""
    return next(iter(first_rows(dataset, 1)), None)


def column_names(dataset: AnyDataset) -> list[str]:
    """Names of the columns; a stream without names is asked for its first row."""
    if dataset.column_names is not None:
        return list(dataset.column_names)
    return list(first_row(dataset) or {})


def _read_sounds(options: dict[str, Any], split: str, streaming: bool) -> AnyDataset:
    files = datasets.load_dataset_builder("audiofolder", **options).config.data_files
    builder = SoundFolder(data_files=files)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _read_saved(source: str, split: str, streaming: bool) -> AnyDataset:
    saved = datasets.load_from_disk(source)
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise ValueError(f"data.source {source}: no split {split!r}; there are {sorted(saved)}")
        saved = saved[split]
    elif split != "train":
        raise ValueError(f"data.source {source}: holds one data set, read as 'train'; there is no split {split!r}")
    saved = saved.with_format(None)  # a format, such as torch's, is saved, too
    return saved.to_iterable_dataset() if streaming else saved


def _expand_files(args: DataArguments, source: str) -> DataFiles:
    """`data_files` with variables expanded; local plain paths are checked to exist."""
    if args.data_files is None:
        return None
    folder = "" if args.data_dir is None else expand_variables(args.data_dir, "data.data_dir")

    def expand(name: str) -> str:
        path = expand_variables(name, "data.data_files")
        is_plain = source in LOCAL_SOURCES and "://" not in path and is_literal(as_pattern(path, folder))
        if is_plain and not (Path(folder) / path).exists():
            hint = nearest_path(Path(folder) / path)
            raise FileNotFoundError(f"data.data_files: {Path(folder) / path} does not exist{hint}")
        return str(Path(folder) / path) if source in OWN_READERS and "://" not in path else path

    return map_files(expand, args.data_files)


def map_files(function: Callable[[str], str], files: DataFiles) -> DataFiles:
    """What a function makes of every path of a `data_files`."""
    if isinstance(files, dict):
        by_split: dict[str, Any] = {split: map_files(function, named) for split, named in files.items()}
        return by_split
    if isinstance(files, list):
        return [function(name) for name in files]
    return None if files is None else function(files)
