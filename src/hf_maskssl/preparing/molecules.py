"""Molecules: tasks of MoleculeNet, a table each."""

import csv
import gzip
import math
from collections.abc import Iterator, Mapping

from .raw import RawFolder, wanted_columns
from .record import Cell, Reader, Rows

TOX21 = (
    *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma"),
    *("SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
)


def table_of(names: tuple[str, ...], smiles: str, labels: Mapping[str, str], is_class: bool) -> Reader:
    """A reader of a table of molecules.

    Args:
        names: Names of the file.
        smiles: Name of its column of SMILES.
        labels: Column that is written -> column of the file.
        is_class: Whether labels are classes and not measured numbers.
    """

    def read(raw: RawFolder) -> Iterator[Rows]:
        path = raw.find(*names)
        opened = (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="")
        )
        with opened as lines:
            table = csv.DictReader(lines)
            wanted_columns(path, table.fieldnames or (), (smiles, *labels.values()))
            for row in table:
                cells: dict[str, Cell] = {"smiles": row[smiles].strip()}
                for name, column in labels.items():
                    cells[name] = _label(row[column], is_class)
                yield Rows("train", cells)

    return read


def _label(text: str | None, is_class: bool) -> int | float | None:
    """A label; None where the task has none for the molecule."""
    if text is None or not text.strip() or math.isnan(float(text)):
        return None
    number = float(text)
    if is_class and not number.is_integer():
        raise ValueError(f"expected a class, a whole number, got {text!r}")
    return int(number) if is_class else number
