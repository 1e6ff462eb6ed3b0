"""Columns of raw data: which there are, which hold numbers, and files left as bytes."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import datasets

from ...recipes import nearest
from .empty_rows import missing_values
from .files import FOLDER_ENDINGS, SPLIT_ADVICE
from .raw_files import encoded, holds_files
from .sources import AnyDataset, column_names, first_row

# Names that pandas gives to the index it writes, in Parquet and in CSV.
INDEX_COLUMN = re.compile(r"__index_level_\d+__|Unnamed: \d+(_level_\d+)?(\.\d+)*|")
NAMED_COLUMNS = 10


def require_columns(
    dataset: AnyDataset, wanted: Iterable[tuple[str, str | None]], split: str, source: str | None = None
) -> None:
    """Check that columns exist.

    Args:
        dataset: Any split.
        wanted: (field of the recipe, column name) pairs; a column that is None is not checked.
        split: The split's name, for the error.
        source: Name of the source, for the error: folders have labels under a condition.

    Raises:
        ValueError: Naming the field, the column and the columns there are.
    """
    present = column_names(dataset)
    for field, name in wanted:
        if name is not None and name not in present:
            advice = nearest(name, present)
            if source in FOLDER_ENDINGS and field == "label_column":
                advice = (
                    ": a folder gives labels where each file lies in the folder of its class, FOLDER/cat/1.png or "
                    "FOLDER/train/cat/1.png, there are two classes or more, and no file lies higher or deeper; or where a "
                    f"metadata.csv has them; {SPLIT_ADVICE}"
                )
            raise ValueError(
                f"data.{field}: the {split} split has no column {name!r}; its columns are {present}{advice}"
            )


def numeric_columns(
    dataset: AnyDataset, without: Mapping[str, str | None], also: Collection[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Columns with one number per row, in order, which are the features of a table whose recipe names none.

    Args:
        dataset: Any split.
        without: Field of the recipe -> column that is no feature.
        also: Further columns that are features, whatever they hold.

    Returns:
        The features; and of every other column the reason why it is none.

    Raises:
        ValueError: There is none, or the column types are unknown (some streams).
    """
    if dataset.features is None:
        raise ValueError("data.input_column: this stream does not tell its column types; list the feature columns")
    found: list[str] = []
    left_out: dict[str, str] = {}
    named = no_feature_reasons(without)
    for name, feature in dataset.features.items():
        if name in named:
            left_out[name] = named[name]
        elif name in also:
            found.append(name)
        elif not isinstance(feature, datasets.Value):
            left_out[name] = f"it holds {type(feature).__name__}, not one number per row"
        elif name.startswith("Unnamed: ") and holds_nothing(dataset, name):
            left_out[name] = "it has no name and no value"
        elif not _is_number(feature.dtype):
            dtype = feature.dtype.removeprefix("large_")
            left_out[name] = f"it holds {dtype}, not numbers" + _type_advice(dtype)
        elif INDEX_COLUMN.fullmatch(name):
            left_out[name] = "it is the index that pandas wrote: write tables with index=False"
        else:
            found.append(name)
    if not found:
        raise ValueError(
            f"data.input_column: no column holds one number per row; there are {list(dataset.features)}"
            f"{left_out_words(left_out)}"
        )
    return found, left_out


def no_feature_reasons(without: Mapping[str, str | None]) -> dict[str, str]:
    """Column -> why it is no feature, of columns that fields of the recipe name for something else."""
    return {column: f"it is data.{field}" for field, column in without.items() if column is not None}


def holds_nothing(dataset: AnyDataset, column: str) -> bool:
    """Whether every cell of a column is missing; of a stream that is not known."""
    if not isinstance(dataset, datasets.Dataset):
        return False
    return missing_values(dataset, [column]).get(column, 0) == len(dataset)


def left_out_words(left_out: Mapping[str, str]) -> str:
    """The columns that are no features, as errors end."""
    words = [f"{name!r} ({reason})" for name, reason in list(left_out.items())[:NAMED_COLUMNS]]
    more = f" and {len(left_out) - NAMED_COLUMNS} more" if len(left_out) > NAMED_COLUMNS else ""
    return f"; no features: {', '.join(words)}{more}" if words else ""


def _type_advice(dtype: str) -> str:
    if dtype.startswith("decimal"):
        return " as NumPy has them: store it as float64"
    words = "; a word among its numbers makes a column of strings, and data.category_columns reads words as categories"
    return words if dtype == "string" else ""


def _is_number(dtype: str) -> bool:
    return dtype == "bool" or dtype.startswith(("int", "uint", "float"))


def undecoded(dataset: AnyDataset, columns: Sequence[str]) -> AnyDataset:
    """Leave images and sounds as bytes, so that the preparer, which knows the row number, meets an unreadable one."""
    features = dataset.features or {}  # a copy of all, each time
    for name in columns:
        feature = features.get(name)
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
