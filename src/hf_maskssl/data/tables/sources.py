"""Raw data sets by name: those that come with the package, local files, saved folders and the Hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset

from ...files import nearest_path
from ...recipes import nearest
from ..arguments import LOCAL_SOURCES, DataArguments, DataFiles, expand_variables
from ..builtin import SOURCES
from .multimodal_folder import read_multimodal_folder
from .sound_folder import SoundFolder

PARQUET_BATCH_ROWS = 1000
# Words of the errors that datasets and pandas raise for files without rows.
EMPTY_FILES = (
    "corresponds to no data",
    "Please pass `features` or at least one example",
    "No columns to parse from file",
)
PICKLES = ("pandas",)  # readers of `datasets` that some of its versions run a file's code with
ARRAY_FEATURES = {3: datasets.Array2D, 4: datasets.Array3D, 5: datasets.Array4D, 6: datasets.Array5D}

AnyDataset: TypeAlias = Dataset | IterableDataset


def read_split(args: DataArguments, split: str) -> AnyDataset:
    """One whole split of the source, by its name there.

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
    if source == "numpy":
        return _read_numpy(data_files, split, args.streaming)
    if (Path(source) / "dataset_dict.json").is_file() or (Path(source) / "state.json").is_file():
        return _read_saved(source, split, args.streaming)
    data_dir = None if args.data_dir is None else expand_variables(args.data_dir, "data.data_dir")
    if source in (*LOCAL_SOURCES, "multimodal_folder") and data_dir is not None and not Path(data_dir).is_dir():
        raise FileNotFoundError(f"data.data_dir {data_dir}: no such folder{nearest_path(Path(data_dir))}")
    if source == "multimodal_folder":
        dataset = read_multimodal_folder(Path(str(data_dir)), split, args)
        return dataset.to_iterable_dataset() if args.streaming else dataset
    options: dict[str, Any] = {"data_dir": data_dir, "data_files": data_files}
    try:
        if source == "audiofolder":
            return _read_sounds(options, split, args.streaming)
        if source == "parquet":
            # Without a batch size, Parquet files without rows raise an error about that size.
            options["batch_size"] = PARQUET_BATCH_ROWS
        return datasets.load_dataset(
            source, name=args.config_name, revision=args.revision, split=split, streaming=args.streaming, **options
        )
    except (ConnectionError, FileNotFoundError) as error:
        if source in LOCAL_SOURCES or Path(source).exists():
            raise
        raise _unknown_source(source, error) from error
    except (
        datasets.exceptions.DatasetGenerationError,
        pa.ArrowException,
        ValueError,
        KeyError,
        StopIteration,
    ) as error:
        raise reading_error(f"data.source {source!r}: split {split!r}", error) from error


def _unknown_source(source: str, error: Exception) -> FileNotFoundError:
    """An error for a name that belongs to no kind of file, no folder, and no data set on the Hub."""
    known = [*LOCAL_SOURCES, "multimodal_folder", *SOURCES]
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    hint = nearest(source, known) or nearest_path(Path(source))
    return FileNotFoundError(
        f"data.source {source!r}{hint}: expected one of {known}, a folder, or a data set on the Hub, "
        f"from which it cannot be read: {reason}."
    )


def reading_error(place: str, error: Exception) -> ValueError:
    """An error with advice for files that datasets cannot read, or that have no rows."""
    cause = error.__cause__ or error
    # An empty JSON file stops the iterator over its rows.
    if isinstance(cause, StopIteration) or any(words in str(cause) for words in EMPTY_FILES):
        return ValueError(f"{place} has no rows: its files are empty; check data.data_files")
    advice = ". The file is not UTF-8: save it as UTF-8" if isinstance(cause, UnicodeDecodeError) else ""
    return ValueError(f"{place} cannot be read: {cause}{advice}")


def choose_rows(dataset: Dataset, count: int, seed: int) -> Dataset:
    """`count` rows drawn without repetition, in their original order."""
    return dataset.select(chosen_numbers(len(dataset), count, seed))


def chosen_numbers(total: int, count: int, seed: int) -> np.ndarray:
    """Numbers (count,) of rows that `choose_rows` draws out of `total`, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def first_row(dataset: AnyDataset) -> dict[str, Any] | None:
    """The first row, None when there is none. A stream is opened for it."""
    return next(iter(dataset.take(1)), None)


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
    return saved.to_iterable_dataset() if streaming else saved


def _expand_files(args: DataArguments, source: str) -> DataFiles:
    """`data_files` with variables expanded; local plain paths are checked to exist."""
    if args.data_files is None:
        return None
    folder = "" if args.data_dir is None else expand_variables(args.data_dir, "data.data_dir")

    def expand(name: str) -> str:
        path = expand_variables(name, "data.data_files")
        is_plain = source in LOCAL_SOURCES and "://" not in path and not set(path) & set("*?[")
        if is_plain and not (Path(folder) / path).exists():
            hint = nearest_path(Path(folder) / path)
            raise FileNotFoundError(f"data.data_files: {Path(folder) / path} does not exist{hint}")
        return str(Path(folder) / path) if source == "numpy" else path

    def expand_all(files: str | list[str]) -> str | list[str]:
        return expand(files) if isinstance(files, str) else [expand(name) for name in files]

    if isinstance(args.data_files, dict):
        return {split: expand_all(files) for split, files in args.data_files.items()}
    return expand_all(args.data_files)


def _read_numpy(data_files: DataFiles, split: str, streaming: bool) -> AnyDataset:
    by_split = data_files if isinstance(data_files, dict) else {"train": data_files or []}
    if split not in by_split:
        raise ValueError(f"data.data_files: no files for split {split!r}; there are {sorted(by_split)}")
    named = by_split[split]
    files = [named] if isinstance(named, str) else named
    groups = _numpy_groups(files)
    features = _numpy_features(groups[0])
    # Size and time of the files belong to the fingerprint: a file written anew is read anew.
    stamps = tuple((name, Path(name).stat().st_size, Path(name).stat().st_mtime_ns) for name in files)
    kind = IterableDataset if streaming else Dataset
    try:
        return kind.from_generator(
            _numpy_rows, features=features, gen_kwargs={"groups": tuple(groups), "stamps": stamps}
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise ValueError(f"data.data_files: {files} cannot be read: {error.__cause__ or error}") from error


def _numpy_groups(files: list[str]) -> list[tuple[str, ...]]:
    """Files that together hold all columns: every `.npz` by itself, all `.npy` files as one."""
    endings = {Path(name).suffix for name in files}
    if endings == {".npz"}:
        return [(name,) for name in files]
    if endings == {".npy"}:
        return [tuple(files)]
    raise ValueError(f"data.data_files: expected .npz files or .npy files, not both and nothing else, got {files}")


def _numpy_columns(group: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        if group[0].endswith(".npz"):
            with np.load(group[0]) as archive:
                columns = {name: archive[name] for name in archive.files}
        else:
            columns = {Path(name).stem: np.load(name, mmap_mode="r") for name in group}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"data.data_files: {list(group)} cannot be read as NumPy files: {error}") from error
    lengths = {name: len(array) if array.ndim else None for name, array in columns.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(f"data.data_files: {list(group)}: every array needs the same number of rows, got {lengths}")
    return columns


def _numpy_features(group: tuple[str, ...]) -> datasets.Features:
    features: dict[str, Any] = {}
    for name, array in _numpy_columns(group).items():
        # NumPy strings such as "<U5" are plain strings to Arrow.
        value = datasets.Value("string" if array.dtype.kind in "US" else str(array.dtype))
        if array.ndim == 1:
            features[name] = value
        elif array.ndim == 2:
            features[name] = datasets.List(value, length=array.shape[1])
        elif array.ndim in ARRAY_FEATURES:
            features[name] = ARRAY_FEATURES[array.ndim](array.shape[1:], str(array.dtype))
        else:
            raise ValueError(f"data.data_files: array {name!r} has {array.ndim} dimensions; at most 6 can be read")
    return datasets.Features(features)


def _numpy_rows(
    groups: tuple[tuple[str, ...], ...], stamps: tuple[tuple[str, int, int], ...]
) -> Iterator[dict[str, Any]]:
    for group in groups:
        columns = _numpy_columns(group)
        for row in range(len(next(iter(columns.values())))):
            yield {name: array[row] for name, array in columns.items()}
