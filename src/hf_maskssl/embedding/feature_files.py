"""Features that `embed` wrote, read again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import nearest_path
from ..recipes import nearest
from .places import Place
from .rows import EMBEDDING, PATH
from .tables import matrix, rows_place

REPORT = "embedding.json"


@dataclass(frozen=True)
class FeatureTable:
    """Features and the columns beside them.

    Attributes:
        values: (n, D) float32.
        columns: The other columns, n rows.
        name: Where they came from.
    """

    values: np.ndarray
    columns: pa.Table
    name: str

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str, field: str) -> list[object]:
        """The values of a column.

        Raises:
            ValueError: No such column; `field` asked for it.
        """
        if name not in self.columns.column_names:
            raise ValueError(
                f"{field}: {self.name} has no column {name!r}{nearest(name, self.columns.column_names)}; its columns are "
                f"{self.columns.column_names}: embed with --keep {name} to carry it along"
            )
        values: list[object] = self.columns[name].to_pylist()
        return values

    def pictures(self) -> list[str] | None:
        """Paths of the pictures that the rows were read from; None where they are none."""
        if PATH not in self.columns.column_names:
            return None
        return [str(path) for path in self.columns[PATH].to_pylist()]

    def select(self, rows: np.ndarray) -> "FeatureTable":
        """The rows with these numbers, in this order."""
        return FeatureTable(self.values[rows], self.columns.take(pa.array(rows)), self.name)


def read_features(name: str, field: str = "FEATURES") -> FeatureTable:
    """The features in a file or folder.

    Args:
        name: `.parquet` or `.npy` file, or a folder of shards; a path or an address.
        field: Who asked for it, for errors.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It holds no features, or they are not complete.
    """
    place = Place(name, field)
    if not place.exists():
        raise FileNotFoundError(
            f"{field} {name}: no such file or folder{nearest_path(Path(name)) if place.local is not None else ''}; "
            "`hf-maskssl embed` writes one"
        )
    if place.is_folder():
        return _of_folder(place, field)
    if place.name.endswith(".npy"):
        return _of_array(place, field)
    return _of_tables([place], name, field)


def _of_folder(place: Place, field: str) -> FeatureTable:
    names = [name for name in place.names() if name.endswith(".parquet")]
    if not names:
        raise ValueError(f"{field} {place}: the folder holds no .parquet file of features")
    report = place.child(REPORT)
    if report.exists():
        with report.open() as file:
            if b'"complete": true' not in file.read():
                raise ValueError(f"{field} {place}: not complete: give the command of embed again")
    return _of_tables([place.child(name) for name in names], str(place), field)


def _of_tables(places: list[Place], name: str, field: str) -> FeatureTable:
    tables = []
    for place in places:
        with place.open() as file:
            try:
                tables.append(pq.read_table(file))
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{field} {place}: it cannot be read as Parquet: {error}") from error
        if EMBEDDING not in tables[-1].column_names:
            raise ValueError(
                f"{field} {place}: expected a column {EMBEDDING!r}, got {tables[-1].column_names}: give what "
                "`hf-maskssl embed` wrote"
            )
    whole = pa.concat_tables(tables, promote_options="permissive")
    return FeatureTable(matrix(whole[EMBEDDING]), whole.drop([EMBEDDING]), name)


def _of_array(place: Place, field: str) -> FeatureTable:
    with place.open() as file:
        try:
            values = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{field} {place}: it cannot be read as a NumPy file: {error}") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f":
        raise ValueError(f"{field} {place}: expected an array (rows, numbers) of floats")
    beside = rows_place(place)
    columns = pa.table({"row": np.arange(len(values))})
    if beside.exists():
        with beside.open() as file:
            columns = pq.read_table(file)
        if len(columns) != len(values):
            raise ValueError(f"{field} {place}: {len(values)} rows, but {beside} has {len(columns)}: embed again")
    return FeatureTable(values.astype(np.float32, copy=False), columns, str(place))
