"""Columns of raw data: which there are, which hold numbers, and files left as bytes."""

from collections.abc import Iterable, Sequence

import datasets

from ...recipes import nearest
from .raw_files import encoded, holds_files
from .sources import AnyDataset, column_names, first_row


def require_columns(dataset: AnyDataset, wanted: Iterable[tuple[str, str | None]], split: str) -> None:
    """Check that columns exist.

    Args:
        dataset: Any split.
        wanted: (field of the recipe, column name) pairs; a column that is None is not checked.
        split: The split's name, for the error.

    Raises:
        ValueError: Naming the field, the column and the columns there are.
    """
    present = column_names(dataset)
    for field, name in wanted:
        if name is not None and name not in present:
            raise ValueError(
                f"data.{field}: the {split} split has no column {name!r}; its columns are {present}{nearest(name, present)}"
            )


def numeric_columns(dataset: AnyDataset, without: Sequence[str | None]) -> list[str]:
    """Columns with one number per row, in order, but those named in `without`.

    Raises:
        ValueError: There is none, or the column types are unknown (some streams).
    """
    if dataset.features is None:
        raise ValueError("data.input_column: this stream does not tell its column types; list the feature columns")
    found = [
        name
        for name, feature in dataset.features.items()
        if name not in without and isinstance(feature, datasets.Value) and _is_number(feature.dtype)
    ]
    if not found:
        raise ValueError(f"data.input_column: no column holds one number per row; there are {list(dataset.features)}")
    return found


def _is_number(dtype: str) -> bool:
    return dtype == "bool" or dtype.startswith(("int", "uint", "float"))


def undecoded(dataset: AnyDataset, columns: Sequence[str]) -> AnyDataset:
    """Leave images and sounds as bytes, so that the preparer, which knows the row number, meets an unreadable one."""
    for name in columns:
        feature = (dataset.features or {}).get(name)
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(mode=feature.mode, decode=False))
        elif isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(name, datasets.Audio(decode=False))
    return dataset


def is_column_of_files(dataset: AnyDataset, column: str) -> bool:
    """Whether a column holds files; a stream that does not know its types is asked for its first row."""
    if dataset.features is not None:
        return holds_files(dataset.features.get(column))
    return encoded((first_row(dataset) or {}).get(column), "file") is not None
