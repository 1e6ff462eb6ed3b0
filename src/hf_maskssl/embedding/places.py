"""Files and folders by path or by address (`s3://`, `hf://`, `memory://`), through fsspec."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ..files import write_whole


class Place:
    """A file or folder that may be here or far away.

    Args:
        address: Path, or an address that fsspec knows.
        field: Who asked for it, for errors.

    Raises:
        ValueError: fsspec does not know the address, or a package for it is missing; the message says which.
    """

    def __init__(self, address: str, field: str = "--output") -> None:
        try:
            self.files, path = url_to_fs(str(Path(address).expanduser()) if "://" not in address else address)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{field} {address}: {error}") from error
        self.path: str = path.rstrip("/")
        self.address = address.rstrip("/")
        self.field = field

    def __str__(self) -> str:
        return self.address

    @property
    def local(self) -> Path | None:
        """The path, where the place is on this machine."""
        return Path(self.path) if isinstance(self.files, LocalFileSystem) else None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def child(self, name: str) -> "Place":
        """A file or folder inside."""
        return Place(f"{self.address}/{name}", self.field)

    def beside(self, name: str) -> "Place":
        """A file or folder with another last part."""
        parent, slash, _ = self.address.rpartition("/")
        return Place(f"{parent}{slash}{name}", self.field)

    def exists(self) -> bool:
        """Whether there is something, as of now."""
        self.files.invalidate_cache()
        return bool(self.files.exists(self.path))

    def is_folder(self) -> bool:
        """Whether there is a folder."""
        return bool(self.files.isdir(self.path))

    def names(self) -> list[str]:
        """Names of what lies in the folder, sorted; none where there is no folder."""
        self.files.invalidate_cache()
        if not self.files.isdir(self.path):
            return []
        return sorted(str(found).rstrip("/").rpartition("/")[2] for found in self.files.ls(self.path, detail=False))

    def open(self) -> BinaryIO:
        """The file for reading.

        Raises:
            FileNotFoundError: No such file.
        """
        return cast(BinaryIO, self.files.open(self.path, "rb"))

    def write(self, write: Callable[[Path], object]) -> None:
        """Write the file whole: nobody sees a part of it.

        Args:
            write: Function that writes it at a path of this machine, under which nothing exists yet.
        """
        if self.local is not None:
            write_whole(self.local, write, synced=True)
            return
        with tempfile.TemporaryDirectory() as scratch:
            aside = Path(scratch) / self.name
            write(aside)
            self.files.makedirs(self.path.rpartition("/")[0], exist_ok=True)
            self.files.put_file(str(aside), self.path)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if self.files.exists(self.path):
            self.files.rm_file(self.path)

    def remove_folder(self) -> None:
        """Remove the folder, which must be empty where the place is on this machine."""
        if self.local is not None:
            self.local.rmdir()
        elif self.files.exists(self.path):
            self.files.rm(self.path, recursive=True)
