"""Files that are written whole: a reader sees all of a file or nothing, however the writing run ends."""

import difflib
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# JSON's object, as json.loads gives it and yaml gives a recipe's section: its values may be anything.
JsonObject = dict[str, Any]
JsonView = Mapping[str, Any]  # one that is only read

INCOMPLETE = ".incomplete"  # ending of a folder's name while it is being written


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known name that is most like `name`, or nothing."""
    known = list(known)
    lowered = {other.lower(): other for other in known}
    matches = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" (did you mean {lowered.get(matches[0], matches[0])!r}?)" if matches else ""


def nearest_path(path: Path) -> str:
    """The end of an error message: the path that exists and is most like one that does not, or nothing.

    Args:
        path: A path whose last parts do not exist. The first of them is compared with its neighbours.
    """
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        names = [other.name for other in missing.parent.iterdir()]
    except OSError:  # a file in the place of a folder, or a folder that may not be read
        return ""
    found = difflib.get_close_matches(missing.name, names, n=1)
    return f" (did you mean '{missing.with_name(found[0]) / path.relative_to(missing)}'?)" if found else ""


def writable_folder(folder: Path, field: str) -> Path:
    """Make `folder` if need be, and check that it can be written before hours of work.

    Args:
        folder: Folder for results.
        field: Name of the field that asks for it, for the error: "training.output_dir".

    Raises:
        ValueError: The folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{field} {folder} cannot be written: {error}. Name a folder you may write to.") from error
    return folder


def write_whole(path: Path, write: Callable[[Path], Any], synced: bool = False) -> None:
    """Write a file under another name and rename it, so that the path holds the old file or the new one, never a part.

    Args:
        path: Path of the file; missing folders are made.
        write: Function that writes the file at the given other name, under which nothing exists yet.
        synced: Whether the content must have reached the disk before the file gets its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)  # a killed process may have left it
    try:
        write(aside)
        if synced:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        # This remains after an error, or where both names are hard links of one file, which renaming leaves as they are.
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


def link_file(source: Path, path: Path) -> None:
    """Give a file a further name without copying it: a hard link, or a symbolic one on another file system.

    Args:
        source: File, or a link to one.
        path: Path of the new name, which nothing has.

    Raises:
        FileNotFoundError: The source is a link to what is not there.
        OSError: The file system knows neither kind of link.
    """
    whole = source.resolve()
    if not whole.exists():
        raise FileNotFoundError(f"{source} is a link to {whole}, which is not there: fetch it, or remove the link")
    try:
        os.link(whole, path)
    except OSError:  # another file system, or one without hard links
        path.symlink_to(whole)


def incomplete_folder(final: Path) -> Path:
    """An empty folder beside `final` with a name of its own, to be renamed to it once complete.

    What a killed run leaves behind is removed by `remove_incomplete`.
    """
    folder = _aside(final)
    folder.mkdir(parents=True)
    return folder


def _aside(final: Path) -> Path:
    """A name beside `final` that nothing has."""
    return final.with_name(f"{final.name}.{secrets.token_hex(4)}{INCOMPLETE}")


def refuse_full_folder(folder: Path, field: str) -> None:
    """Refuse to write a new folder where something is.

    Args:
        folder: Folder for results, which may be absent or empty.
        field: Name of the field or option that asks for it, for the error: "--output".

    Raises:
        ValueError: The folder holds something, or is none.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{field} {folder} is not an empty folder: name a new one.")


@contextmanager
def whole_folder(final: Path, field: str) -> Iterator[Path]:
    """An empty folder that is called `final` once the block has ended; after an error it is removed.

    Args:
        final: Folder for results, which may be absent or empty.
        field: Name of the field or option that asks for it, for the error: "--output".

    Raises:
        ValueError: The folder holds something, is none, or cannot be made.
    """
    refuse_full_folder(final, field)
    try:
        folder = incomplete_folder(final.absolute())
    except OSError as error:
        raise ValueError(f"{field} {final} cannot be written: {error}. Name a folder you may write to.") from error
    try:
        yield folder
        os.replace(folder, final)
    except BaseException:
        shutil.rmtree(folder)
        raise


def replace_folder(new: Path, final: Path) -> None:
    """Give a complete folder its final name. Whoever is killed meanwhile leaves no part of the folder that had it."""
    if not final.exists():
        os.replace(new, final)
        return
    former = _aside(final)
    os.replace(final, former)
    os.replace(new, final)
    shutil.rmtree(former)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there. Whoever is killed meanwhile leaves no part of it under its name."""
    if folder.exists():
        shutil.rmtree(folder.rename(_aside(folder)))


def remove_incomplete(parent: Path) -> None:
    """Remove folders that killed runs were writing or removing in `parent`; for the holder of its lock (`locks.FolderLock`)."""
    for folder in parent.glob(f"*{INCOMPLETE}"):
        shutil.rmtree(folder)


def _to_plain(value: Any, place: str) -> Any:
    """`value` in JSON's own types; `place` is its place in the data, for messages: "runs[2].accuracy"."""
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
