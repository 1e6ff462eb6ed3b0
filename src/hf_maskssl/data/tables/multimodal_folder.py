"""Folders of aligned pictures: `modality/class/name.png`, the layout of MultiMAE's authors."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from datasets import Dataset

from ..arguments import DENSE_TASKS, DataArguments
from .files import LinkedFiles, is_hidden
from .presence import tell_presence

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")
NAMED_FILES = 5


def read_multimodal_folder(root: Path, split: str, args: DataArguments) -> Dataset:
    """One split of a folder: a column per modality and `label`, the class folder.

    Files of the same class and name belong together, whatever their endings. Pictures stay files: their bytes are
    read when their row is.

    Args:
        root: Folder that holds one folder per modality, or one per split which holds those.
        split: Name of the folder of the split. Where there is none, all rows are the split `train_split`.
        args: `input_column`, `label_column` and `task` say which modalities are needed (no `input_column`: all folders that
            hold pictures; `prepare_data` always names those of the model); `may_lack_columns` lets rows lack some.

    Raises:
        ValueError: No such split or modality, no files, two files of one name, files outside class folders beside others
            inside, or rows without some modality.
    """
    base = root.resolve()
    if (base / split).is_dir():
        base = base / split
    elif split != args.train_split:
        raise ValueError(f"data.data_dir {root}: no folder of the split {split!r}; there are {_folders(base)}")
    modalities = _modalities(base, args)
    files = {modality: _files(base / modality) for modality in modalities}
    _check_complete(base, files, args.may_lack_columns)
    names = sorted(set().union(*files.values()))
    if args.may_lack_columns:
        tell_presence({one: np.asarray([name in found for name in names]) for one, found in files.items()}, str(base))
    classes = _classes(base, names)
    features: dict[str, Any] = {name: _feature(found) for name, found in files.items()}
    if classes:
        features["label"] = datasets.ClassLabel(names=classes)
    # The files' sizes and times belong to the fingerprint, so that files written anew are read anew.
    fingerprint = _fingerprint(base, files)
    return Dataset.from_generator(
        _rows,
        features=datasets.Features(features),
        # A tuple, because `datasets` shares lists out among processes.
        gen_kwargs={"base": str(base), "modalities": tuple(modalities), "fingerprint": fingerprint},
        fingerprint=fingerprint,
    )


def _rows(base: str, modalities: tuple[str, ...], fingerprint: str) -> Iterator[dict[str, str | None]]:
    """One row per name; None for a file that is not there.

    It looks at the folders again, because `datasets` would hash a list entry by entry.
    """
    files = {modality: _files(Path(base) / modality) for modality in modalities}
    for name in sorted(set().union(*files.values())):
        row: dict[str, str | None] = {}
        for modality, found in files.items():
            row[modality] = str(Path(base) / modality / found[name].path) if name in found else None
        parts = name.split("/")
        yield {**row, "label": parts[0]} if len(parts) > 1 else row


class Found(NamedTuple):
    """A file: its path below the modality's folder, its size and when it was written."""

    path: str
    size: int
    time: int


def _modalities(base: Path, args: DataArguments) -> list[str]:
    present = _folders(base)
    if args.input_column is None:
        wanted = [name for name in present if _files(base / name)]
    else:
        wanted = args.input_columns()
        if args.task in DENSE_TASKS:
            wanted = [*wanted, *args.target_columns()]
    absent = [name for name in wanted if name not in present]
    if absent:
        raise ValueError(f"data.data_dir {base}: no folder of the modalities {absent}; there are {present}")
    if not wanted:
        raise ValueError(f"data.data_dir {base}: no files {list(EXTENSIONS)} in the folders {present}")
    return list(dict.fromkeys(wanted))


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> dict[str, Found]:
    """Name of the row (path without ending) -> its file.

    Raises:
        ValueError: Two files that differ in their endings alone, or a link to a file that is not there.
    """
    found: dict[str, Found] = {}
    for full in LinkedFiles().find(os.path.abspath(folder)):
        file_name = os.path.basename(full)
        ending = os.path.splitext(file_name)[1]
        if ending.lower() not in EXTENSIONS:
            continue
        path = Path(os.path.relpath(full, os.path.abspath(folder))).as_posix()
        if is_hidden(f"/{path}"):
            continue
        name = path[: -len(ending)]
        if name in found:
            raise ValueError(f"data.data_dir: {folder} holds both {found[name].path} and {path}: keep one of them")
        try:
            status = os.stat(full)
        except OSError as error:
            raise ValueError(f"data.data_dir: {full} is a link to a file that cannot be found: {error}") from error
        found[name] = Found(path, status.st_size, status.st_mtime_ns)
    return found


def _check_complete(base: Path, files: dict[str, dict[str, Found]], allow_missing: bool) -> None:
    names = set().union(*files.values())
    if not names:
        raise ValueError(f"data.data_dir {base}: no files {list(EXTENSIONS)} in the folders {list(files)}")
    missing = [(name, modality) for modality, found in files.items() for name in sorted(names - found.keys())]
    empty = [modality for modality, found in files.items() if not found]
    if empty or (missing and not allow_missing):
        listed = ", ".join(f"{modality}/{name}" for name, modality in missing[:NAMED_FILES])
        raise ValueError(
            f"data.data_dir {base}: {len(missing)} files are not there that other modalities have: {listed}"
            f"{', ...' if len(missing) > NAMED_FILES else ''}; add them, or set data.allow_missing to true"
            + (f" (but {empty} hold none at all)" if empty else "")
        )


def _classes(base: Path, names: Sequence[str]) -> list[str]:
    """Names of the class folders; none where all files lie directly in the modalities' folders."""
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    outside = [name for name in names if "/" not in name]
    if classes and outside:
        raise ValueError(
            f"data.data_dir {base}: {outside[:NAMED_FILES]} lie outside of the class folders {classes[:NAMED_FILES]}"
        )
    return classes


def _feature(found: dict[str, Found]) -> datasets.Value | datasets.Image:
    """An `Image` column for pictures, a column of strings for paths of NumPy files, which datasets cannot read."""
    has_arrays = any(file.path.lower().endswith(".npy") for file in found.values())
    return datasets.Value("string") if has_arrays else datasets.Image()


def _fingerprint(base: Path, files: dict[str, dict[str, Found]]) -> str:
    digest = hashlib.sha256(str(base).encode())
    for modality, found in files.items():
        for name in sorted(found):
            digest.update(f"{modality}/{name} {found[name]}\n".encode())
    return digest.hexdigest()[:32]
