"""The folder of an original release: files are found wherever its archive was unpacked, and missing ones are named."""

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..checks import shown
from ..files import INCOMPLETE

# Folders below the one given in which a release's files are looked for, as archives bring folders of their own.
DEPTHS = ("", "*/", "*/*/", "*/*/*/")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z")
MOST_NAMED = 8  # files that an error lists
NO_CLASS = 255  # in a map: pixels without a class, as the models' `semantic_loss_ignore_index`


@dataclass(frozen=True)
class Media:
    """A picture or sound that is a file of the release."""

    path: Path


@dataclass(frozen=True)
class ClassMap:
    """A map of classes that was made from a file of the release.

    Attributes:
        content: PNG of 8 bit: class numbers from 0, and `NO_CLASS`.
        classes: Class numbers that occur, without `NO_CLASS`.
    """

    content: bytes
    classes: frozenset[int]


@dataclass
class RawFolder:
    """The files of a release.

    Attributes:
        roots: Folders to look in; several after a download of several archives.
        name: Name of the data set, for errors.
        source: Address of the release, for errors.
        partial: Whether files that a list of the release names may be missing.
        max_rows: Largest number of rows of a split, for readers that draw rows.
        left_out: Number of rows whose file is missing.
        remarks: What else differs from the whole release, a sentence each.
        class_names: Column of maps of classes -> the names of its classes by number, where the release's files tell them.
        current: File that is being read, for errors.
    """

    roots: tuple[Path, ...]
    name: str = "the data set"
    source: str = ""
    partial: bool = False
    max_rows: int | None = None
    left_out: int = 0
    remarks: list[str] = field(default_factory=list)
    class_names: dict[str, list[str]] = field(default_factory=dict)
    current: Path | None = field(default=None, repr=False)

    def find(self, *names: str) -> Path:
        """The file or folder of the first of some names that is there.

        Args:
            *names: Paths as the release has them; the first is the one that errors name.

        Raises:
            FileNotFoundError: None is there; the error names what was found, the nearest name and the source.
        """
        found = self.look(*names)
        if found is None:
            raise FileNotFoundError(self._missing(names))
        return found

    def look(self, *names: str) -> Path | None:
        """As `find`, None where none is there."""
        for name in names:
            found = next(self.places(name), None)
            if found is not None:
                self.current = found
                return found
        return None

    def find_all(self, name: str) -> list[Path]:
        """All files or folders of a name, as several archives bring each its own.

        Raises:
            FileNotFoundError: There is none.
        """
        self.find(name)
        return list(dict.fromkeys(self.places(name)))

    def places(self, name: str) -> Iterator[Path]:
        """All files or folders of a name, those that lie least deep first, each looked for when it is asked for."""
        for root in self.roots:
            for depth in DEPTHS:
                found = [root / name] if not depth else sorted(root.glob(depth + name))
                yield from (path for path in found if path.exists() and not _is_unfinished(path))

    def base(self, name: str) -> Path:
        """The folder below which a path of the release lies: of "data/test.csv" the one that holds `data`."""
        found = self.find(name)
        return found.parents[len(Path(name).parts) - 1]

    def every(self, pattern: str) -> list[Path]:
        """The files of a pattern such as "train/*.tfrecord", sorted: of each root those that lie least deep.

        Raises:
            FileNotFoundError: There is none.
        """
        files: list[Path] = []
        for root in self.roots:
            for depth in DEPTHS:
                found = [path for path in sorted(root.glob(depth + pattern)) if not _is_unfinished(path)]
                if found:
                    files += found
                    break
        if not files:
            raise FileNotFoundError(self._missing([pattern]))
        self.current = files[0]
        return list(dict.fromkeys(files))

    def listed(self, path: Path, why: Path) -> Media | None:
        """A file that a list of the release names.

        Args:
            path: Path of the file.
            why: Path of the list, for the error.

        Returns:
            The file, or None where it is missing and `partial` is set.

        Raises:
            FileNotFoundError: It is missing.
            ValueError: It lies outside the release: a list must not bring in other files of this machine.
        """
        # By the path as it is written: what is linked into the release belongs to it.
        if not any(Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)) for root in self.roots):
            raise ValueError(
                f"{why.name} lists {shown(str(path))}, which lies outside the release: expected files below "
                f"{self.roots[0]}; fetch the release anew"
            )
        if path.is_file():
            return Media(path)
        if not self.partial:
            near = difflib.get_close_matches(path.name, _names(path.parent), n=1) if path.parent.is_dir() else []
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise FileNotFoundError(
                f"--raw: {path}, which {why.name} lists, is not there{hint}. Unpack the whole release ({self.source}), or "
                "leave out rows whose files are missing: --partial"
            )
        self.left_out += 1
        return None

    def all_listed(self, paths: Iterable[Path], why: Path) -> list[Media] | None:
        """The files of one row, as `listed`; None where any is missing, which counts one row."""
        before = self.left_out
        found = [self.listed(path, why) for path in paths]
        files = [file for file in found if file is not None]
        if len(files) == len(found):
            return files
        self.left_out = before + 1
        return None

    def _missing(self, names: Iterable[str]) -> str:
        names = list(names)
        roots = " and ".join(str(root) for root in self.roots)
        there = sorted({name for root in self.roots for name in _names(root)})
        wanted = {part for name in names for part in Path(name).parts}
        near = [match for part in sorted(wanted) for match in difflib.get_close_matches(part, there, n=1)]
        archives = [name for name in there if name.lower().endswith(ARCHIVES)]
        found = ", ".join(there[:MOST_NAMED]) + (
            f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
        )
        parts = [f"--raw {roots}: {self.name} needs {' or '.join(names)}, which is not there"]
        parts.append(f"there {'is' if len(there) == 1 else 'are'} {found}" if there else "the folder is empty")
        if near:
            parts.append(f"is {near[0]!r} the one, under another name?")
        elif archives:
            parts.append(f"unpack {archives[0]} first")
        return "; ".join(parts) + f". Get it from {self.source} (`hf-maskssl data show {self.name}` says the layout)"


def _is_unfinished(path: Path) -> bool:
    """Whether a path is part of what a preparation is writing, which may be beside the release."""
    return any(part.endswith(INCOMPLETE) for part in path.parts)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not _is_unfinished(path))
    except OSError:
        return []


def wanted_columns(path: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """Refuse a table that lacks columns.

    Raises:
        ValueError: Naming the file, the column and what is there.
    """
    found = list(found)
    for name in wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{path}: no column {name!r}{hint}; it has {shown(found)}")
