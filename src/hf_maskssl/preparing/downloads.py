"""Archives of a release, fetched and unpacked in the cache of `datasets`."""

from pathlib import Path

import datasets

from .record import PaperData


def download(record: PaperData, cache: Path | None = None) -> tuple[Path, ...]:
    """Fetch what a record's addresses name; what is in the cache already is not fetched again.

    Args:
        record: Data set.
        cache: Folder of the cache; None means that of `datasets`.

    Returns:
        Folders in which the unpacked files lie. A file that is no archive lies in a folder of its own, under its name.

    Raises:
        ValueError: The release has no open address.
        ConnectionError: An address cannot be reached.
    """
    if not record.downloads:
        hub = f" On the Hub: {record.hub}." if record.hub else ""
        raise ValueError(
            f"--download: {record.name} has no open address. Get it from {record.source} and name its folder: --raw.{hub}"
        )
    manager = datasets.DownloadManager(
        download_config=datasets.DownloadConfig(cache_dir=None if cache is None else str(cache))
    )
    folders = []
    for address in record.downloads:
        fetched = Path(manager.download(address))
        unpacked = Path(manager.extract(str(fetched)))
        folders.append(unpacked if unpacked.is_dir() else _named(unpacked, address.rpartition("/")[2]))
    return tuple(dict.fromkeys(folders))


def _named(file: Path, name: str) -> Path:
    """A folder that holds a file of the cache under its own name."""
    folder = file.with_name(f"{file.name}.named")
    folder.mkdir(exist_ok=True)
    # What was unpacked has lost the ending that says how it was packed.
    is_unpacked = file.parent.name == "extracted"
    link = folder / (name.removesuffix(".gz") if is_unpacked else name)
    if not link.exists():
        link.symlink_to(file)
    return folder
