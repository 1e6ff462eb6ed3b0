"""Columns of files whose type changes below the rows, or in other files, than those by which `datasets` tells the types."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from datasets import Dataset

from .files import READING_ERRORS

CHUNK_ROWS = 100_000
READER_OPTIONS = ("sep", "decimal", "na_values", "keep_default_na")
# Words of the errors that the cells of later rows raise.
LATER_TYPES = ("Failed to parse", "was truncated", "cast")
NULL, BOOLEAN, WHOLE, REAL, TEXT = "null", "bool", "int64", "float64", "string"
# What pandas can hold of columns in which cells are missing.
WITH_GAPS = {NULL: NULL, BOOLEAN: TEXT, WHOLE: REAL, REAL: REAL, TEXT: TEXT}

logger = logging.getLogger(__name__)


def read_by_all_rows(
    source: str, read: Callable[..., Dataset], options: Mapping[str, Any], files: Callable[[], Sequence[str]]
) -> Dataset:
    """The rows of tables; where the types of the first rows do not fit later ones, each column has the type of all its rows.

    The first rows are 10,000 of CSV, 10 MB of JSON, one file of Parquet.

    Args:
        source: Name of the source, `"csv"`, `"json"` or `"parquet"`; others are read as they are.
        read: Callable that reads the rows with further options of `load_dataset`.
        options: Options of the reader, which those of `pandas.read_csv` are among.
        files: Callable that gives the files, which are then read once more.

    Raises:
        Exception: The files cannot be read, whatever the types.
    """
    try:
        return read()
    except READING_ERRORS as error:
        if source not in FINDERS or not any(words in str(error.__cause__ or error) for words in LATER_TYPES):
            raise
        try:
            features = FINDERS[source](files(), options)
            found = None if features is None else read(features=features)
        except READING_ERRORS:  # the first one says more
            found = None
        if found is None:
            raise
        logger.info("the columns of the files are read by the types of all their rows: %s", found.features)
        return found


def types_of_csv(files: Sequence[str], options: Mapping[str, Any]) -> datasets.Features | None:
    """The type of each column in all rows of some CSV files; None where their columns differ.

    Args:
        files: Files or addresses, compressed or not.
        options: Options of `pandas.read_csv`; others are left out.
    """
    types: dict[str, str] = {}
    known = {name: options[name] for name in READER_OPTIONS if name in options}
    for path in files:
        with fsspec.open(path, "rt", encoding="utf-8-sig", newline="", compression="infer") as file:
            for chunk in pd.read_csv(file, chunksize=CHUNK_ROWS, low_memory=False, **known):
                if types and list(types) != list(chunk.columns):
                    return None
                types = {name: _joined(types.get(name), _type_of(chunk[name])) for name in chunk.columns}
    return datasets.Features({name: datasets.Value(REAL if kind == NULL else kind) for name, kind in types.items()})


def _type_of(values: pd.Series) -> str:
    """The type of some cells of a column, as pandas has read them."""
    if values.isna().all():
        return NULL
    is_type = pd.api.types
    if is_type.is_bool_dtype(values.dtype):
        return BOOLEAN
    if is_type.is_integer_dtype(values.dtype):
        return WHOLE
    return REAL if is_type.is_float_dtype(values.dtype) else TEXT


def _joined(before: str | None, own: str) -> str:
    """The type of a column with further cells."""
    if before in (None, own):
        return own
    kinds = {str(before), own}
    if NULL in kinds:
        return WITH_GAPS[(kinds - {NULL}).pop()]
    return REAL if kinds == {WHOLE, REAL} else TEXT


def types_of_json(files: Sequence[str], options: Mapping[str, Any]) -> datasets.Features | None:
    """The types of all rows of files of JSON lines, which are read whole; columns that some rows lack are among them."""
    schemas = []
    for path in files:
        with fsspec.open(path, "rb", compression="infer") as file:
            schemas.append(pyarrow.json.read_json(file).schema)
    return _features(schemas)


def types_of_parquet(files: Sequence[str], options: Mapping[str, Any]) -> datasets.Features | None:
    """The types that the columns of some Parquet files have in common; None where the files have other columns."""
    schemas = []
    for path in files:
        with fsspec.open(path, "rb") as file:
            schemas.append(pq.read_schema(file).remove_metadata())
    return _features(schemas) if len({frozenset(one.names) for one in schemas}) == 1 else None


def _features(schemas: Sequence[pa.Schema]) -> datasets.Features:
    whole = pa.unify_schemas(schemas, promote_options="permissive")
    return datasets.Features.from_arrow_schema(whole)


FINDERS = {"csv": types_of_csv, "json": types_of_json, "parquet": types_of_parquet}
