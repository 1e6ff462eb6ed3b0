"""Files with missing values, and the same files filled in: of a CSV file every cell that was there keeps its text, of a JSON file
every value."""

import codecs
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..data.arguments import data_arguments
from ..data.looking import source_values
from ..data.tables.csv_shape import CsvShape, shape_of_csv
from ..data.tables.splits import read_splits
from ..files import nearest_path

PARQUET, ARRAY, PACKED = ".parquet", ".npy", ".gz"
CSV, JSON = (".csv", ".tsv"), (".json", ".jsonl")
ENDINGS = (*CSV, *JSON, *(ending + PACKED for ending in (*CSV, *JSON)), PARQUET, ARRAY)


def ending_of(path: Path) -> str:
    """The one of `ENDINGS` that a path has; empty where it has none."""
    return max((ending for ending in ENDINGS if path.name.endswith(ending)), key=len, default="")


@dataclass(frozen=True)
class HoledFile:
    """A file with missing values.

    Attributes:
        path: Path of the file, with one of `ENDINGS`.
        data: Content: a DataFrame of pandas, or an array (n, C, T) or (n, T) float64.
    """

    path: Path
    data: Any

    @property
    def is_table(self) -> bool:
        """Whether the content is a DataFrame."""
        return self.form != ARRAY

    @property
    def form(self) -> str:
        """The ending that says how the content is written, whether or not that is packed."""
        return ending_of(self.path).removesuffix(PACKED)

    @classmethod
    def read(cls, path: Path) -> "HoledFile":
        """Read a file.

        Raises:
            ValueError: No such file, another ending, or one that cannot be read.
        """
        if not ending_of(path):
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
        if self.form == ARRAY:
            with open(path, "wb") as file:
                np.save(file, filled)
        elif self.form in CSV:
            self._write_cells(filled, path, shape_of_csv(str(self.path)))
        elif self.form in JSON:
            self._write_records(filled, path)
        else:
            filled.to_parquet(path, index=False)

    @property
    def compression(self) -> str | None:
        """The compression of the file, in pandas' words."""
        return "gzip" if self.path.name.endswith(PACKED) else None

    def _open(self) -> BinaryIO:
        """The file's content, unpacked."""
        return cast(BinaryIO, gzip.open(self.path, "rb") if self.compression else open(self.path, "rb"))

    def _write_records(self, filled: Any, path: Path) -> None:
        """The records of the file with the values that were filled in; a list stays a list, lines stay lines."""
        text, old = self._text(), self.data
        is_list = text.lstrip().startswith("[")
        records = json.loads(text) if is_list else [json.loads(line) for line in text.split("\n") if line.strip()]
        if len(records) != len(filled) or not all(isinstance(record, dict) for record in records):
            raise ValueError(
                f"DATA {self.path}: expected a list of records or a record a line, {len(filled)} of them: write it so, or as CSV"
            )
        for name in filled.columns:
            for record, before, value in zip(records, old[name], filled[name], strict=True):
                if before is not value and not _is_kept(before, value):
                    record[name] = _plain(value)
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        written = "[\n" + ",\n".join(lines) + "\n]\n" if is_list else "".join(f"{line}\n" for line in lines)
        content = written.encode("utf-8")
        path.write_bytes(gzip.compress(content, mtime=0) if self.compression else content)

    def _text(self) -> str:
        with self._open() as file:
            return file.read().decode("utf-8-sig")

    def _write_cells(self, filled: Any, path: Path, shape: CsvShape) -> None:
        import pandas

        texts = pandas.read_csv(self.path, sep=shape.delimiter, dtype=str, keep_default_na=False)
        if list(texts.columns) != list(filled.columns) or len(texts) != len(filled):
            written = {"sep": shape.delimiter, "decimal": shape.decimal, "compression": self.compression}
            filled.to_csv(path, index=False, **written)
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
        with self._open() as file:  # spreadsheets tell UTF-8 by its mark
            has_mark = file.read(3) == codecs.BOM_UTF8
        encoding = "utf-8-sig" if has_mark else "utf-8"
        texts.to_csv(path, index=False, sep=shape.delimiter, encoding=encoding, compression=self.compression)


def _is_kept(before: object, value: object) -> bool:
    """Whether a cell of numbers or words is what it was, missing or not."""
    if isinstance(before, list | np.ndarray) or isinstance(value, list | np.ndarray):
        return False  # lists that had no holes are the same objects
    return before == value or (_is_missing(before) and _is_missing(value))


def _is_missing(value: object) -> bool:
    return value is None or value != value


def _plain(value: object) -> object:
    """A filled value in JSON's types."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
