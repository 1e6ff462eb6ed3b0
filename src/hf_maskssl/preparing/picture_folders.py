"""Aligned pictures as files, `SPLIT/MODALITY/CLASS/NAME.EXT`: links to the release, and what had to be made anew."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from ..files import link_file
from .raw import ClassMap, Media
from .record import Cell
from .writing import WrongCell

PNG = b"\x89PNG"


class SplitFolder:
    """The folder of a split, as `data.source: multimodal_folder` reads it.

    Args:
        folder: Folder to write.
        modalities: Names of the modalities.
        labels: Names of columns whose values are counted: those of cells, or the classes of a modality's maps.
    """

    def __init__(self, folder: Path, modalities: Sequence[str], labels: Sequence[str]) -> None:
        self.folder, self.modalities = folder, modalities
        self.rows = 0
        self.values: dict[str, Counter[Cell]] = {name: Counter() for name in labels}
        self._made: set[Path] = set()

    def add(self, row: Mapping[str, Cell]) -> None:
        """Write a row; a modality that it lacks has no file.

        Raises:
            WrongCell: A name that is no "CLASS/NAME", a cell that is no picture, or a name that another row has.
        """
        name = str(row["name"])
        parts = PurePosixPath(name).parts
        if len(parts) != 2 or ".." in parts or "\\" in name or name.startswith("/"):
            raise WrongCell(f"{self.folder.name} split: expected a name of a folder and a file, got {name!r}")
        for modality in self.modalities:
            if (cell := row.get(modality)) is not None:
                self._put(modality, name, cell)
        for column, counter in self.values.items():
            cell = row.get(column)
            if isinstance(cell, ClassMap):
                counter.update(cell.classes)
            elif cell is not None:
                counter[cell] += 1
        self.rows += 1

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch."""
        for row in batch.to_pylist():
            self.add(row)

    def flush(self) -> None:
        """Nothing: each row is written at once."""

    def close(self) -> None:
        """Nothing: each row is written at once."""

    def _put(self, modality: str, name: str, cell: Cell) -> None:
        content = cell.content if isinstance(cell, ClassMap) else cell
        if isinstance(content, Media):
            ending = content.path.suffix
        elif isinstance(content, bytes):
            ending = ".png" if content.startswith(PNG) else ".jpg"
        else:
            raise WrongCell(f"{self.folder.name} split, {modality}: expected a picture, got {type(content).__name__}")
        path = self.folder / modality / f"{name}{ending}"
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        if path.exists():
            raise WrongCell(f"{self.folder.name} split, {modality}: two rows are called {name!r}")
        if isinstance(content, Media):
            link_file(content.path, path)
        else:
            path.write_bytes(content)
