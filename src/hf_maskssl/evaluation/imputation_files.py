"""Files with missing values, and the same files filled in: of a CSV file every cell that was there keeps its text."""

import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.arguments import data_arguments
from ..data.looking import source_values
from ..data.tables.csv_shape import CsvShape, shape_of_csv
from ..data.tables.splits import read_splits
from ..files import nearest_path

CSV, PARQUET, ARRAY = ".csv", ".parquet", ".npy"
ENDINGS = (CSV, PARQUET, ARRAY)


@dataclass(frozen=True)
class HoledFile:
    """A file with missing values.

    Attributes:
        path: Path of the file: .csv, .parquet or .npy.
        data: Content: a DataFrame of pandas, or an array (n, C, T) or (n, T) float64.
    """

    path: Path
    data: Any

    @property
    def is_table(self) -> bool:
        """Whether the content is a DataFrame."""
        return self.path.suffix != ARRAY

    @classmethod
    def read(cls, path: Path) -> "HoledFile":
        """Read a file.

        Raises:
            ValueError: No such file, another ending, or one that cannot be read.
        """
        if path.suffix not in ENDINGS:
            raise ValueError(f"DATA {path}: expected a file of a table or of series that ends in {', '.join(ENDINGS)}")
        if not path.is_file():
            raise ValueError(f"DATA {path}: no such file{nearest_path(path)}")
        if path.suffix == ARRAY:
            args = data_arguments("numpy", data_files=str(path), kind="series", input_column=path.stem)
            rows = read_splits(args)["train"].with_format("numpy", dtype=np.float64)
            return cls(path, np.asarray(rows[:][path.stem]))
        return cls(path, read_splits(data_arguments(**source_values(str(path)), kind="tabular"))["train"].to_pandas())

    def write(self, filled: Any, path: Path) -> None:
        """Write the filled content as the file is written.

        Args:
            filled: Content of the same form.
            path: File to write.
        """
        if self.path.suffix == ARRAY:
            with open(path, "wb") as file:
                np.save(file, filled)
        elif self.path.suffix == CSV:
            self._write_cells(filled, path, shape_of_csv(str(self.path)))
        else:
            filled.to_parquet(path, index=False)

    def _write_cells(self, filled: Any, path: Path, shape: CsvShape) -> None:
        import pandas

        texts = pandas.read_csv(self.path, sep=shape.delimiter, dtype=str, keep_default_na=False)
        if list(texts.columns) != list(filled.columns) or len(texts) != len(filled):
            filled.to_csv(path, index=False, sep=shape.delimiter, decimal=shape.decimal)
            return
        for name in texts.columns:
            old, new = self.data[name].astype(object), filled[name].astype(object)
            if any(isinstance(cell, list | np.ndarray) for cell in old):  # lists that had holes are new ones
                changed = [one is not other for one, other in zip(old, new, strict=True)]
                texts.loc[changed, name] = [json.dumps(cell) for cell in new[changed]]
                continue
            is_filled = ~((old == new) | (old.isna() & new.isna()))
            words = dict(zip(old, texts[name], strict=True))  # as the file writes them: "true", "1"
            cells = [
                repr(value).replace(".", shape.decimal) if isinstance(value, float) else words.get(value, str(value))
                for value in new[is_filled]
            ]
            texts.loc[is_filled, name] = cells
        with open(self.path, "rb") as file:  # spreadsheets tell UTF-8 by its mark
            has_mark = file.read(3) == codecs.BOM_UTF8
        texts.to_csv(path, index=False, sep=shape.delimiter, encoding="utf-8-sig" if has_mark else "utf-8")
