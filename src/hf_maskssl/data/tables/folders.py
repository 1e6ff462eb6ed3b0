"""Walking through folders whose links may lead round in circles."""

import logging
import os
from collections.abc import Iterator

NAMED_LINKS = 5

logger = logging.getLogger(__name__)


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Paths of all files below a folder, links followed; each real folder is read once, so that no row comes twice.

    Folders are taken before links to folders, both in order of their names, so that a folder is known by its own name. A
    warning counts the links that were left out.

    Args:
        folder: The folder.

    Yields:
        `folder` with the path below it.
    """
    root = os.fspath(folder)
    visited = {os.path.realpath(root)}
    repeated: list[str] = []
    waiting: list[str] = [root]
    links: list[str] = []
    while waiting or links:
        directory = waiting.pop(0) if waiting else links.pop(0)
        if directory != root and not _is_new(directory, visited, repeated):
            continue
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if not entry.is_dir():
                yield entry.path
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                waiting.append(entry.path)
    if repeated:
        more = ", ..." if len(repeated) > NAMED_LINKS else ""
        logger.warning(
            "%s: %d links lead to folders that are read already and are left out: %s%s",
            *(root, len(repeated), ", ".join(repeated[:NAMED_LINKS]), more),
        )


def _is_new(directory: str, visited: set[str], repeated: list[str]) -> bool:
    real = os.path.realpath(directory)
    if real in visited:
        repeated.append(directory)
        return False
    visited.add(real)
    return True
