"""NumPy files as rows: every array a column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, IterableDataset

from ..arguments import DataFiles
from .files import READING_ERRORS, file_words, reading_error

ARRAY_FEATURES = {3: datasets.Array2D, 4: datasets.Array3D, 5: datasets.Array4D, 6: datasets.Array5D}

ENDINGS = (".npy", ".npz")


def read_numpy(data_files: DataFiles, split: str, streaming: bool) -> Dataset | IterableDataset:
    """The rows of a split's `.npz` or `.npy` files.

    Numbers in the other byte order become the machine's; half and extended precision, which Arrow's lists lack, become single
    and double precision.

    Raises:
        ValueError: No such split, or files that cannot be read or hold what is no number and no text, named.
    """
    by_split = data_files if isinstance(data_files, dict) else {"train": data_files or []}
    if split not in by_split:
        raise ValueError(f"data.data_files: no files for split {split!r}; there are {sorted(by_split)}")
    named = by_split[split]
    files = [named] if isinstance(named, str) else named
    if far := [name for name in files if "://" in name]:
        raise ValueError(
            f"data.data_files: {far[0]} is an address, and NumPy files are mapped from a disk: download it first"
        )
    groups = _groups(files)
    features = _features(groups[0])
    # Size and time of the files belong to the fingerprint: a file written anew is read anew.
    stamps = tuple((name, Path(name).stat().st_size, Path(name).stat().st_mtime_ns) for name in files)
    kind = IterableDataset if streaming else Dataset
    try:
        return kind.from_generator(_rows, features=features, gen_kwargs={"groups": tuple(groups), "stamps": stamps})
    except READING_ERRORS as error:
        raise reading_error(f"data.data_files: {file_words(files)}", error) from error


def _groups(files: list[str]) -> list[tuple[str, ...]]:
    """Files that together hold all columns: every `.npz` by itself, all `.npy` files as one."""
    endings = {Path(name).suffix for name in files}
    if endings == {".npz"}:
        return [(name,) for name in files]
    if endings == {".npy"}:
        stems = [Path(name).stem for name in files]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(f"data.data_files: {twice} name two .npy files each, but a file name is a column's name")
        return [tuple(files)]
    raise ValueError(f"data.data_files: expected .npz files or .npy files, not both and nothing else, got {files}")


def _columns(group: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        if group[0].endswith(".npz"):
            loaded = np.load(group[0], allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, no archive: name it .npy")
            with loaded as archive:
                columns = {name: archive[name] for name in archive.files}
        else:
            columns = {Path(name).stem: np.load(name, mmap_mode="r", allow_pickle=False) for name in group}
            archives = [name for name, array in columns.items() if not isinstance(array, np.ndarray)]
            if archives:
                raise ValueError(f"{archives} are archives of several arrays: name them .npz")
    except READING_ERRORS as error:
        advice = ""
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            advice = " (arrays of Python objects would run code when they are opened; store numbers or strings)"
        raise ValueError(
            f"data.data_files: {file_words(group)} cannot be read as NumPy files: "
            f"{str(error) or type(error).__name__:.300}{advice}"
        ) from error
    lengths = {name: len(array) if array.ndim else None for name, array in columns.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(
            f"data.data_files: {file_words(group)}: every array needs the same number of rows, got {lengths} (None: a single "
            "value): keep other arrays, and those of each split, in files of their own"
        )
    return columns


def _stored_type(name: str, array: np.ndarray, group: tuple[str, ...]) -> np.dtype:
    """The type in which an array's values become a column.

    Raises:
        ValueError: They are neither numbers nor strings.
    """
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if array.dtype.itemsize == 2 else np.float64)
    if array.dtype.kind == "S":  # bytes of text; Python would write b'...' around them
        return np.dtype(f"U{array.dtype.itemsize}")
    if array.dtype.kind in "biufU":
        return array.dtype.newbyteorder("=")
    advice = {
        "c": "store real and imaginary part as two channels",
        "V": "store each field as an array of its own",
        "M": "store times as numbers",
        "m": "store times as numbers",
    }.get(array.dtype.kind, "store numbers or strings")
    raise ValueError(
        f"data.data_files: {file_words(group)}: array {name!r} holds {array.dtype}, expected numbers or strings: {advice}"
    )


def _features(group: tuple[str, ...]) -> datasets.Features:
    features: dict[str, Any] = {}
    for name, array in _columns(group).items():
        stored = _stored_type(name, array, group)
        if 0 in array.shape[1:]:
            raise ValueError(
                f"data.data_files: {file_words(group)}: the rows of array {name!r} hold no value, its shape is {array.shape}: "
                "leave it out"
            )
        # NumPy strings such as "<U5" are plain strings to Arrow.
        value = datasets.Value("string" if stored.kind in "US" else str(stored))
        if array.ndim == 1:
            features[name] = value
        elif array.ndim == 2:
            features[name] = datasets.List(value, length=array.shape[1])
        elif array.ndim in ARRAY_FEATURES:
            features[name] = ARRAY_FEATURES[array.ndim](array.shape[1:], value.dtype)
        else:
            raise ValueError(f"data.data_files: array {name!r} has {array.ndim} dimensions; at most 6 can be read")
    return datasets.Features(features)


def _rows(groups: tuple[tuple[str, ...], ...], stamps: tuple[tuple[str, int, int], ...]) -> Iterator[dict[str, Any]]:
    first: dict[str, tuple[int, ...]] | None = None
    for group in groups:
        columns = _columns(group)
        stored = {name: _stored_type(name, array, group) for name, array in columns.items()}
        shapes = {name: array.shape[1:] for name, array in columns.items()}
        first = first or shapes
        if shapes != first:
            raise ValueError(
                f"{file_words(group)}: its arrays have shapes {shapes}, those of {groups[0][0]} {first} (without the rows)"
            )
        for row in range(len(next(iter(columns.values())))):
            yield {name: array[row].astype(stored[name]) for name, array in columns.items()}
