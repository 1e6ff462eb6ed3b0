"""Files of a folder of pictures or sounds that its reader leaves out without a word."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pandas as pd
from datasets.data_files import FILES_TO_IGNORE
from PIL import Image

from .files import FOLDER_ENDINGS, READING_ERRORS, SPLIT_WORDS, as_pattern, followed_links, is_hidden
from .multimodal_folder import EXTENSIONS

METADATA_FILES = {f"metadata.{ending}" for ending in ("csv", "jsonl", "parquet")}
# Columns of such a file that name others, as datasets has them.
FILE_COLUMN = re.compile(r"(.*_)?file_names?")
BROKEN_LINK, UNLISTED, EMPTY_FOLDER = "(broken link)", "(not in metadata)", "(empty folder)"
IN_NO_SPLIT = "(in no split)"
MULTIMODAL = "multimodal_folder"


def unread_endings(source: str, folder: str | None) -> dict[str, int]:
    """What the reader of this source does not take of a folder -> how many there are.

    Args:
        source: Name of the source; only those of folders leave files out.
        folder: Folder, or None.

    Returns:
        Endings of files, `BROKEN_LINK` of links that lead nowhere, `UNLISTED` of files that a metadata file beside or above them
        does not name, `EMPTY_FOLDER` of folders, as of a class, without a file, `IN_NO_SPLIT` of files beside those of splits.
    """
    endings = EXTENSIONS if source == MULTIMODAL else FOLDER_ENDINGS.get(source)
    if endings is None or folder is None:
        return {}
    with followed_links():
        found = fsspec.filesystem("file").find(folder, withdirs=True, detail=True)
    root = os.path.abspath(folder)
    found = {path: info for path, info in found.items() if path != root and not is_hidden(path[len(root) :])}
    files = {path: info for path, info in found.items() if info["type"] != "directory"}
    kinds = [EMPTY_FOLDER] * len(found.keys() - files.keys() - _folders_of(files))
    if source == MULTIMODAL:
        beside = {os.path.dirname(path) for path in files if _ending(path) in endings}
        pictures = Image.registered_extensions()  # also of formats that are not read
        # Other folders, as of a cache or a report, are no modalities.
        files = {path: files[path] for path in files if os.path.dirname(path) in beside or _ending(path) in pictures}
    ignored, unlisted = {*FILES_TO_IGNORE, *METADATA_FILES}, _unlisted(files)
    in_splits = _in_splits(source, root, files)
    for path, info in files.items():
        ending = _ending(path)
        if info["islink"] and not os.path.exists(path):
            kinds.append(BROKEN_LINK)
        elif os.path.basename(path) in ignored:
            continue
        elif ending not in endings:
            kinds.append(ending or "(none)")
        elif path in unlisted:
            kinds.append(UNLISTED)
        elif path not in in_splits:
            kinds.append(IN_NO_SPLIT)
    return dict(Counter(kinds).most_common())


def chained_names(folder: str | None) -> list[str]:
    """Files and folders below a folder whose names hold "::", which fsspec takes for the end of an address."""
    if folder is None:
        return []
    return [os.path.join(where, name) for where, *names in os.walk(folder) for name in sum(names, []) if "::" in name]


def _ending(path: str) -> str:
    return Path(path).suffix.lower()


def _folders_of(files: Iterable[str]) -> set[str]:
    """All folders that some files lie in, at any depth."""
    folders: set[str] = set()
    for path in files:
        while (path := os.path.dirname(path)) not in folders:
            folders.add(path)
    return folders


def _in_splits(source: str, root: str, files: Collection[str]) -> Collection[str]:
    """The files that belong to a split; all of them where no name says that there are several."""
    if source == MULTIMODAL or not any(word in path[len(root) :].lower() for path in files for word in SPLIT_WORDS):
        return files
    with followed_links():
        splits = datasets.load_dataset_builder(source, data_dir=as_pattern(root)).config.data_files
    return {str(path) for found in (splits or {}).values() for path in found}


def _unlisted(files: Mapping[str, Any]) -> set[str]:
    """The files that lie beside or below a metadata file and are not named by any."""
    metadata = [path for path in files if os.path.basename(path) in METADATA_FILES]
    try:
        listed = {os.path.normpath(name) for path in metadata for name in _named_files(path)}
    except READING_ERRORS:  # reading the rows says what is wrong
        return set()
    folders = tuple(os.path.dirname(path) + os.sep for path in metadata)
    return {path for path in files if folders and path.startswith(folders) and path not in listed}


def _named_files(metadata: str) -> Iterable[str]:
    """Paths that a metadata file names."""
    if metadata.endswith(".csv"):
        table = pd.read_csv(metadata)
    else:
        table = pd.read_json(metadata, lines=True) if metadata.endswith(".jsonl") else pd.read_parquet(metadata)
    for column in filter(FILE_COLUMN.fullmatch, table.columns):
        for names in table[column].dropna():
            for name in [names] if isinstance(names, str) else names:
                yield os.path.join(os.path.dirname(metadata), name)
