"""Files that are written whole: whoever sees one sees all of it, however the run that writes it ends."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What json.loads makes of an object, and what yaml makes of a recipe's section: its values may be anything.
JsonObject = dict[str, Any]
JsonView = Mapping[str, Any]  # one that is only read

INCOMPLETE = ".incomplete"  # end of a folder's name for as long as it is being written


def writable_folder(folder: Path, field: str) -> Path:
    """`folder`, made if need be, before hours are spent on what is to be written there.

    Args:
        folder: Where results are to go.
        field: Who asked for it, for the error: "training.output_dir".

    Raises:
        ValueError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{field} {folder} cannot be written: {error}. Name a folder you may write to.") from error
    return folder


def write_whole(path: Path, write: Callable[[Path], Any], synced: bool = False) -> None:
    """Write a file under another name and rename it: it is the old one or the new one, never a part of one.

    Args:
        path: The file; missing folders are made.
        write: Given the other name, under which nothing exists yet, writes the file there.
        synced: Whether the content must have reached the disk before the file gets its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)  # of a process that was killed
    try:
        write(aside)
        if synced:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        # After an error; or where both names are hard links of one file, which renaming leaves as they are.
        aside.unlink(missing_ok=True)


def write_json(path: str | Path, data: Any, synced: bool = False) -> None:
    """Write `data` as JSON, whole (`write_whole`).

    NumPy numbers and arrays are written as numbers and lists, paths as strings.

    Raises:
        ValueError: `data` holds NaN or an infinite number (JSON has none); the message says where.
        TypeError: `data` holds something that JSON cannot.
    """
    plain = _to_plain(data, "")

    def write(aside: Path) -> None:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(plain, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")

    write_whole(Path(path), write, synced)


def incomplete_folder(final: Path) -> Path:
    """An empty folder beside `final`, to be renamed to it once complete; leftovers of a killed run are removed."""
    folder = final.with_name(final.name + INCOMPLETE)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _to_plain(value: Any, place: str) -> Any:
    """`value` in JSON's own types; `place` is where it stands, for messages: "runs[2].accuracy"."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item, f"{place}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _to_plain(value.tolist(), place)
    if isinstance(value, list | tuple):
        return [_to_plain(item, f"{place}[{position}]") for position, item in enumerate(value)]
    if isinstance(value, np.generic):
        return _to_plain(value.item(), place)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{place or 'the value'} is {value}; a result must be finite. Use None where there is nothing to say."
        )
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{place or 'the value'} is a {type(value).__name__}, which JSON cannot hold.")
