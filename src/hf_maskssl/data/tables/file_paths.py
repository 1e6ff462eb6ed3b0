"""Tables whose cells are paths of pictures or sounds: relative ones start at the folder of the table."""

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import IterableDataset

from ..arguments import DataArguments, expand_variables
from .raw_files import Cell
from .rows import Rows
from .sources import AnyDataset


@dataclass(frozen=True)
class PathSearch:
    """Finds the file of a path that a cell holds.

    Attributes:
        folders: Folders of the split's tables, where a relative path is looked for; then in the current directory.
    """

    folders: tuple[str, ...]

    def __call__(self, batch: Rows) -> dict[str, list[Cell]]:
        """Every column of a batch of rows with whole paths."""
        return {name: [self._whole(cell) for cell in cells] for name, cells in batch.items()}

    def _whole(self, cell: Cell) -> Cell:
        if isinstance(cell, dict):  # {"bytes", "path"}: beside bytes, the path is only a name
            is_file = cell.get("bytes") is None and bool(cell.get("path"))
            return cell | {"path": self.find(cell["path"])} if is_file else cell
        return self.find(cell) if isinstance(cell, str) else cell

    def find(self, path: str) -> str:
        """The whole path; below the first folder where no such file is found, so that the error of reading it says where.

        Raises:
            ValueError: Several tables' folders have such a file.
        """
        if not path or os.path.isabs(path) or "://" in path:
            return path
        found = {os.path.realpath(whole): whole for whole in self._candidates(path) if os.path.exists(whole)}
        if len(found) > 1:
            raise ValueError(
                f"data.data_files: the path {path!r} of a row stands for several files, {sorted(found.values())}: write whole "
                "paths into the tables"
            )
        if found:
            return next(iter(found.values()))
        return path if os.path.exists(path) or not self.folders else os.path.join(self.folders[0], path)

    def _candidates(self, path: str) -> list[str]:
        return [os.path.join(folder, path) for folder in self.folders]


def with_whole_paths(dataset: AnyDataset, args: DataArguments, split: str) -> AnyDataset:
    """A split whose paths of pictures and sounds are whole; all other columns stay as they are.

    Args:
        dataset: Raw rows, as `read_split` gives them.
        args: `file_columns`, `source`, `data_files` and `data_dir` are read.
        split: Name of the split in the source.

    Raises:
        ValueError: A relative path that several tables' folders have a file for.
    """
    if args.builtin is not None or args.source == "multimodal_folder":
        return dataset
    features = dataset.features
    names = [name for name in args.file_columns if features is None or _holds_paths(features.get(name))]
    if not names:
        return dataset
    search = PathSearch(tuple(_table_folders(args, split)))
    if isinstance(dataset, IterableDataset):
        return dataset.map(_OfStream(search, tuple(names)), batched=True, features=features)
    columns = list(dataset.column_names)
    for name in names:
        feature = dataset.features[name]
        column = dataset.select_columns([name]).with_format("arrow")[:].column(name)
        is_struct = pa.types.is_struct(column.type)
        paths = search({name: (_paths_without_bytes(column) if is_struct else column).to_pylist()})[name]
        if is_struct and not any(paths):
            continue  # every file is in the table
        fingerprint = _fingerprint(dataset._fingerprint, paths)
        cells = _with_paths(column, paths) if is_struct else paths
        # Added under another name first: without any column a data set forgets how many rows it has.
        added = dataset.add_column(
            f"whole {name}",
            cells,
            new_fingerprint=fingerprint,
            feature=feature if is_struct else datasets.Value("string"),
        )
        dataset = added.remove_columns(name).rename_column(f"whole {name}", name)
    return dataset.select_columns(columns)


@dataclass(frozen=True)
class _OfStream:
    """The same for batches of a stream, which may not know its columns."""

    search: PathSearch
    names: tuple[str, ...]

    def __call__(self, batch: Rows) -> dict[str, list[Cell]]:
        present = {name: batch[name] for name in self.names if name in batch}
        return self.search({name: cells for name, cells in present.items() if _are_paths(cells)})


def _holds_paths(feature: object) -> bool:
    """Whether a column holds texts, or files by their path and their bytes."""
    return feature in (datasets.Value("string"), datasets.Value("large_string")) or (
        isinstance(feature, dict) and "path" in feature
    )


def _are_paths(cells: Sequence[Cell]) -> bool:
    return all(cell is None or isinstance(cell, str) or (isinstance(cell, dict) and "path" in cell) for cell in cells)


def _paths_without_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The paths of a column of `{"bytes", "path"}`, null where there are bytes, which no path is looked for beside."""
    paths = pc.struct_field(column, "path")
    if column.type.get_field_index("bytes") < 0:
        return paths
    return pc.if_else(pc.is_null(pc.struct_field(column, "bytes")), paths, pa.scalar(None, paths.type))


def _with_paths(column: pa.ChunkedArray, paths: Sequence[Cell]) -> pa.Array:
    """The same column with these paths, and its own where they are None."""
    parts = {field.name: pc.struct_field(column, field.name).combine_chunks() for field in column.type}
    parts["path"] = pc.coalesce(pa.array(paths, parts["path"].type), parts["path"])
    is_null = pc.is_null(column).combine_chunks()
    return pa.StructArray.from_arrays(list(parts.values()), fields=list(column.type), mask=is_null)


def _table_folders(args: DataArguments, split: str) -> list[str]:
    """Folders that the tables of a split lie in, in the order of the recipe."""
    source = expand_variables(args.source, "data.source")
    base = "" if args.data_dir is None else expand_variables(args.data_dir, "data.data_dir")
    if args.data_files is None:
        candidates = [base, os.path.join(base, split)] if base else [source]
        return [os.path.abspath(folder) for folder in candidates if os.path.isdir(folder)]
    named = args.data_files.get(split, []) if isinstance(args.data_files, dict) else args.data_files
    files: list[str] = []
    for name in [named] if isinstance(named, str) else named:
        path = expand_variables(name, "data.data_files")
        whole = os.path.join(base, path)
        if "://" not in path:
            files += [whole] if os.path.exists(whole) else sorted(glob.glob(whole, recursive=True))
    return list(dict.fromkeys(str(Path(file).absolute().parent) for file in files))


def _fingerprint(before: str, paths: Sequence[Cell]) -> str:
    """Sizes and times of the files belong to it, so that files written anew are read anew."""
    digest = hashlib.sha256(before.encode())
    for path in paths:
        stamp: tuple[int, int] | None = None
        if isinstance(path, str) and os.path.isfile(path):
            status = os.stat(path)
            stamp = (status.st_size, status.st_mtime_ns)
        digest.update(f"{path} {stamp}\n".encode())
    return digest.hexdigest()[:32]
