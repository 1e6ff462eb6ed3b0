"""Files of a folder that its reader leaves out without a word, or takes for what they are not."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
from datasets.data_files import FILES_TO_IGNORE
from PIL import Image

from .fasta_files import ENDINGS as FASTA_ENDINGS
from .files import (
    FOLDER_ENDINGS,
    READING_ERRORS,
    SPLIT_ADVICE,
    SPLIT_WORDS,
    TABLE_ENDINGS,
    ending_of,
    ending_words,
    files_by_split,
    followed_links,
    is_hidden,
)
from .multimodal_folder import EXTENSIONS
from .numpy_files import ENDINGS as NUMPY_ENDINGS

METADATA_FILES = {f"metadata.{ending}" for ending in ("csv", "jsonl", "parquet")}
# Columns of such a file that name others, as datasets has them.
FILE_COLUMN = re.compile(r"(.*_)?file_names?")
BROKEN_LINK, UNLISTED, EMPTY_FOLDER = "(broken link)", "(not in metadata)", "(empty folder)"
IN_NO_SPLIT = "(in no split)"
MULTIMODAL = "multimodal_folder"
# Sources of files whose rows are no files -> their endings.
TABLES = {**TABLE_ENDINGS, "numpy": NUMPY_ENDINGS, "fasta": FASTA_ENDINGS}

logger = logging.getLogger(__name__)


def unread_endings(source: str, folder: str | None) -> dict[str, int]:
    """What the reader of this source does not take of a folder -> how many there are.

    Args:
        source: Name of the source; a data set on the Hub leaves nothing out.
        folder: Folder, or None.

    Returns:
        Endings of files, `BROKEN_LINK` of links that lead nowhere, `UNLISTED` of files that a metadata file beside or above them
        does not name, `EMPTY_FOLDER` of folders, as of a class, without a file, `IN_NO_SPLIT` of files beside those of splits.
    """
    return dict(Counter(why for _, why in _unread(source, folder)).most_common())


def tell_unread(source: str, folder: str | None, unread: Mapping[str, int]) -> None:
    """Warn of the files of a folder that its reader leaves out, where there are any; `unread` is of `unread_endings`."""
    if unread:
        logger.warning(
            "data.data_dir %s: files that data.source %r does not read are left out: %s%s",
            folder,
            source,
            ending_words(unread),
            f"; {SPLIT_ADVICE}" if IN_NO_SPLIT in unread else "",
        )


def files_read(source: str, folder: str) -> dict[str, list[str]] | None:
    """The files of each split of a folder of tables or texts without those of other kinds, which `datasets` would read, too.

    Args:
        source: Name of the source.
        folder: Folder.

    Returns:
        None where the source is another one, or there is nothing to leave out.
    """
    unread = {path for path, _ in _unread(source, folder)} if source in TABLE_ENDINGS else set()
    if not unread:
        return None
    kept = {split: [path for path in paths if path not in unread] for split, paths in files_by_split(folder).items()}
    return {split: paths for split, paths in kept.items() if paths}


def _unread(source: str, folder: str | None) -> list[tuple[str, str]]:
    """What the reader of this source does not take of a folder, each with the reason."""
    if folder is None or source not in (MULTIMODAL, *FOLDER_ENDINGS, *TABLES):
        return []
    with followed_links():
        found = fsspec.filesystem("file").find(folder, withdirs=True, detail=True)
    root = os.path.abspath(folder)
    found = {path: info for path, info in found.items() if path != root and not is_hidden(path[len(root) :])}
    files = {path: info for path, info in found.items() if info["type"] != "directory"}
    empty = set() if source in TABLES else found.keys() - files.keys() - _folders_of(files)
    unread = [(path, EMPTY_FOLDER) for path in empty]
    is_read = _reader_takes(source, files)
    if source == MULTIMODAL:
        beside = {os.path.dirname(path) for path in files if is_read(path)}
        pictures = Image.registered_extensions()  # also of formats that are not read
        # Other folders, as of a cache or a report, are no modalities.
        files = {path: files[path] for path in files if os.path.dirname(path) in beside or _ending(path) in pictures}
    ignored = {*FILES_TO_IGNORE, *(() if source in TABLES else METADATA_FILES)}
    unlisted = set() if source in TABLES else _unlisted(files)
    in_splits = _in_splits(source, root, files)
    for path, info in files.items():
        if info["islink"] and not os.path.exists(path):
            unread.append((path, BROKEN_LINK))
        elif os.path.basename(path) in ignored:
            continue
        elif not is_read(path):
            unread.append((path, _ending(path) or "(none)"))
        elif path in unlisted:
            unread.append((path, UNLISTED))
        elif path not in in_splits:
            unread.append((path, IN_NO_SPLIT))
    return unread


def _reader_takes(source: str, files: Collection[str]) -> Callable[[str], bool]:
    """Whether the reader of a source takes a file, by its ending.

    Tables of unusual endings are read where a folder has no other; texts are all files that no other reader takes.
    """
    if source not in TABLES:
        endings = EXTENSIONS if source == MULTIMODAL else FOLDER_ENDINGS[source]
        return lambda path: _ending(path) in endings
    others = {
        ending for one, endings in (*TABLES.items(), *FOLDER_ENDINGS.items()) if one != source for ending in endings
    }

    def takes(path: str) -> bool:
        return ending_of(path) not in others if source == "text" else ending_of(path) in TABLES[source]

    return takes if any(map(takes, files)) else lambda path: True


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
    return {path for paths in files_by_split(root).values() for path in paths}


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
