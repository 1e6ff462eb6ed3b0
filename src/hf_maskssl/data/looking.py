"""A look at data that no recipe describes yet: where its rows are, and which of the columns could be what."""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import datasets
from fsspec.core import split_protocol

from ..checks import shown
from ..files import JsonObject, JsonView, nearest_path
from .arguments import LOCAL_SOURCES, DataArguments, data_arguments, is_hub_name
from .builtin import SOURCES
from .tables.columns import undecoded
from .tables.csv_numbers import CsvNumbers, numbers_of_csv
from .tables.csv_shape import shape_of_csv
from .tables.files import (
    FOLDER_ENDINGS,
    READING_ERRORS,
    SPLIT_ADVICE,
    LinkedFiles,
    ending_of,
    files_by_split,
    followed_links,
    reading_error,
)
from .tables.json_cells import with_lists_read
from .tables.multimodal_folder import EXTENSIONS as PICTURE_ENDINGS
from .tables.raw_files import path_of
from .tables.sources import AnyDataset, column_names, read_split
from .tables.unread_files import TABLES, tell_unread, unread_endings

logger = logging.getLogger(__name__)

# Ending of a file -> the source that reads it.
READERS = {ending: source for source, endings in (*TABLES.items(), *FOLDER_ENDINGS.items()) for ending in endings}
# The same for errors: all endings of pictures and sounds are about a hundred.
FILES_READ = (
    "a table (.csv, .tsv, .parquet, .json, .jsonl, .npy, .npz), texts (.txt), sequences (.fasta, .fa, .faa, .fna), "
    "pictures (.png, .jpg, .tif and others) or sounds (.wav, .flac, .mp3 and others)"
)
# Endings of files that hold data all the same -> what to do.
UNREAD = {
    **dict.fromkeys(
        (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar"), "unpack it, and give what was in it"
    ),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save each sheet as CSV"),
}
SAVED_SPLITS = "dataset_dict.json"
TRAIN, VALIDATION_NAMES, TEST_NAMES = "train", ("validation", "valid", "val", "dev"), ("test",)
# Folders of aligned pictures, by which a folder of them is told from one of classes.
MODALITY_NAMES = ("rgb", "depth", "semseg", "normals", "thermal", "infrared")
# Names that a column of labels usually has.
LABEL_NAMES = ("label", "labels", "target", "class", "species", "diagnosis", "quality", "y")
# Names that a column of texts usually has, the usual ones first.
TEXT_NAMES = ("text", "sequence", "sentence", "smiles", "content", "document", "caption")
NAMED_FILES = 2000  # files of a folder that are looked at
# The type of a column, as datasets has it; they share no class.
Feature: TypeAlias = object


def source_values(data: str, kind: str | None = None) -> JsonObject:
    """The fields of a data section that say where the rows are.

    Args:
        data: File, folder, address, name on the Hub, or a data set of the package.
        kind: Kind of data that the rows are; None where that is not known.

    Raises:
        FileNotFoundError: There is no such file, and it is no name.
        ValueError: Files that no source reads.
    """
    if data in SOURCES:
        return {"source": data}
    protocol, _ = split_protocol(data)
    path = Path(data).expanduser()
    if protocol not in (None, "file"):
        return _file_values(data, data)
    if path.is_dir():
        return _folder_values(path, kind)
    if path.is_file():
        return _file_values(str(path), data)
    if is_hub_name(data) and data not in LOCAL_SOURCES and not path.suffix:
        return {"source": data}
    raise FileNotFoundError(
        f"DATA {data!r}: no such file or folder{nearest_path(path)}; expected one, a name on the Hub, or one of "
        f"{list(SOURCES)}"
    )


def _file_values(path: str, data: str) -> JsonObject:
    source = _reader([path], data)
    return {"source": source, "data_files": path, **(_csv_values(path) if source == "csv" else {})}


def _csv_values(path: str) -> JsonObject:
    """What a recipe has to say of how a CSV file is written.

    Raises:
        ValueError: The file is not UTF-8, or has no line of names.
    """
    try:
        shape = shape_of_csv(path)
    except UnicodeDecodeError as error:
        raise reading_error(f"DATA {path!r}", error) from error
    if shape.lacks_names:
        cells = ", ".join(shape.header[:4])
        raise ValueError(
            f"DATA {path!r}: the first line, {shown(cells)}, holds numbers and no names of columns: put a line of names in front"
        )
    try:
        numbers = numbers_of_csv(path, shape)
    except READING_ERRORS:  # reading the rows says what is wrong
        numbers = CsvNumbers(None, ())
    written: JsonObject = {"delimiter": shape.delimiter, "decimal": shape.decimal, "thousands": numbers.thousands}
    written |= {"missing_words": list(numbers.missing_words) or None}
    return {
        name: value for name, value in written.items() if value != DataArguments.__dataclass_fields__[name].default
    }


def _folder_values(folder: Path, kind: str | None) -> JsonObject:
    if (folder / SAVED_SPLITS).is_file():
        names = json.loads((folder / SAVED_SPLITS).read_text(encoding="utf-8"))["splits"]
        return {"source": str(folder), **split_values(names, str(folder))}
    if (folder / "state.json").is_file():
        return {"source": str(folder)}
    has_splits = (folder / TRAIN).is_dir()
    below = [one for one in (folder / TRAIN if has_splits else folder).iterdir() if one.is_dir()]
    named = [one for one in below if one.name in MODALITY_NAMES and _holds_pictures(one)]
    if (kind is None and len(named) > 1) or (kind == "multimodal" and any(map(_holds_pictures, below))):
        splits = sorted(one.name for one in folder.iterdir() if one.is_dir()) if has_splits else []
        values = {"source": "multimodal_folder", "data_dir": str(folder)}
        return values | (split_values(splits, str(folder)) if has_splits else {})
    with followed_links():
        names = [os.path.basename(name) for name in LinkedFiles().find(str(folder.resolve()))[:NAMED_FILES]]
    names = [name for name in names if not name.startswith(".") and ending_of(name) in READERS]
    source = _reader(names, str(folder)) if names else None
    if source is None:
        raise ValueError(f"DATA {str(folder)!r}: the folder holds none of {FILES_READ}")
    root = os.path.abspath(folder)
    by_split = {
        split: [str(folder / os.path.relpath(path, root)) for path in paths if READERS.get(ending_of(path)) == source]
        for split, paths in files_by_split(str(folder)).items()
    }
    by_split = {split: sorted(paths) for split, paths in by_split.items() if paths}
    if source in ("numpy", "fasta"):
        return _named_files(by_split, source, folder)
    found = {"source": source, "data_dir": str(folder), **split_values(list(by_split), str(folder))}
    tables = next(iter(by_split.values()), [])
    return found | (_csv_values(tables[0]) if source == "csv" and tables else {})


def _named_files(by_split: Mapping[str, Sequence[str]], source: str, folder: Path) -> JsonObject:
    """The fields that name the files of a folder, for readers that take no folder; what is left out is said."""
    arrays = sorted(map(str, folder.rglob("*.npy")))
    columns = [{Path(path).stem for path in paths} for paths in by_split.values()]
    if arrays and (len(columns) == 1 or columns[1:] != columns[:-1]):  # x_train.npy names a column and no split
        return {"source": source, "data_files": arrays}
    tell_unread(source, str(folder), unread_endings(source, str(folder)))
    if list(by_split) == [TRAIN]:
        return {"source": source, "data_files": by_split[TRAIN]}
    return {"source": source, "data_files": by_split, **split_values(list(by_split), str(folder))}


def split_values(names: Sequence[str], data: str) -> JsonObject:
    """The fields of a data section that name the splits of data; what no field can name is said to be left out.

    Args:
        names: Names of the splits that there are.
        data: Name of the data, for the remark.

    Raises:
        ValueError: There are several splits, none of which is for training.
    """
    if len(names) == 1:
        if names[0] in (*VALIDATION_NAMES, *TEST_NAMES):
            logger.warning("%s: there is one split, %r, which is read for training", data, names[0])
        return {} if names[0] == TRAIN else {"train_split": names[0]}
    if names and TRAIN not in names:
        is_found = Path(data).is_dir() and not (Path(data) / SAVED_SPLITS).is_file()
        raise ValueError(
            f"DATA {data!r} has the splits {list(names)}, none of which is {TRAIN!r}: write a recipe that names them"
            + (f"; {SPLIT_ADVICE}" if is_found else "")
        )
    found: JsonObject = {}
    for field, usual in (("validation_split", VALIDATION_NAMES), ("test_split", TEST_NAMES)):
        split = next((name for name in names if name in usual), None)
        if split is not None:
            found[field] = split
    left = [name for name in names if name not in (TRAIN, *found.values())]
    if left:
        logger.warning("%s: the splits %s are not read; a recipe can name them", data, left)
    return found


def _holds_pictures(folder: Path) -> bool:
    with followed_links():
        found = LinkedFiles().find(str(folder.resolve()))
    return any(os.path.splitext(name)[1].lower() in PICTURE_ENDINGS for name in found[:NAMED_FILES])


def _reader(names: Sequence[str], data: str) -> str:
    """The source of the most frequent ending; files that describe others (metadata.csv) are few."""
    counts = Counter(READERS[ending_of(name)] for name in names if ending_of(name) in READERS)
    if not counts:
        packed = next((ending for name in names for ending in UNREAD if name.lower().endswith(ending)), None)
        advice = "" if packed is None else f"; {packed} is not read: {UNREAD[packed]}"
        raise ValueError(f"DATA {data!r}: expected {FILES_READ}{advice}")
    return counts.most_common(1)[0][0]


def first_look(values: JsonView) -> AnyDataset:
    """The training split as it is, whatever kind of data it holds.

    Args:
        values: Fields of a data section; those of all kinds are read.
    """
    common = {name: value for name, value in values.items() if name in DataArguments.__dataclass_fields__}
    common = {name: value for name, value in common.items() if name not in ("kind", "label_column", "task", "cache")}
    look: DataArguments = data_arguments(
        **{"source": "digits", **common, "kind": "multimodal", "drop_missing_labels": False}
    )
    rows = read_split(look, look.train_split)
    return with_lists_read(rows) if look.source == "csv" else rows


def columns_of(rows: AnyDataset, test: Callable[[Feature], bool]) -> list[str]:
    """Names of the columns whose type passes a test."""
    features: Mapping[str, Feature] = rows.features or {}
    return [name for name in column_names(rows) if name in features and test(features[name])]


def is_text(feature: Feature) -> bool:
    """Whether a cell is a text, or a list of words."""
    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    return isinstance(inner, datasets.Value) and inner.dtype in ("string", "large_string")


def is_list_of_numbers(feature: Feature) -> bool:
    """Whether a cell is a list of numbers, or of lists of them."""
    if not isinstance(feature, datasets.List | datasets.LargeList):
        return False
    while isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    return isinstance(feature, datasets.Value) and feature.dtype not in ("string", "large_string")


def is_array(feature: Feature) -> bool:
    """Whether a cell is an array, or a list that could be one."""
    arrays = (datasets.Array2D, datasets.Array3D, datasets.Array4D, datasets.Array5D)
    return isinstance(feature, arrays) or is_list_of_numbers(feature)


def is_file(feature: Feature) -> bool:
    """Whether a cell is a picture or a sound, as datasets stores them."""
    is_struct = isinstance(feature, dict) and bool({"bytes", "path"} & set(feature))
    return isinstance(feature, datasets.Image | datasets.Audio) or is_struct


def is_string(feature: Feature) -> bool:
    """Whether a cell is a string, which may be a path."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def usual_label(rows: AnyDataset) -> str | None:
    """The one column that is named as labels usually are, beside other columns; None where there is none, or several."""
    names = column_names(rows)
    found = [one for one in names if one.strip().lower() in LABEL_NAMES]  # " label" behind ", "
    return found[0] if len(found) == 1 and len(names) > 1 else None


def is_feature(feature: Feature) -> bool:
    """Whether a cell is one number."""
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint", "float", "bool"))


def file_column(rows: AnyDataset, source: str) -> str | None:
    """The first column of pictures or sounds: files as datasets stores them, or paths with their endings.

    Args:
        rows: Rows as they come.
        source: "imagefolder" or "audiofolder".
    """
    wanted = datasets.Image if source == "imagefolder" else datasets.Audio
    typed = columns_of(rows, lambda feature: isinstance(feature, wanted))
    others = columns_of(rows, lambda feature: is_string(feature) or is_file(feature))
    first = next(iter(undecoded(rows, column_names(rows))), None)
    endings = {name: Path(path_of(None if first is None else first[name])).suffix.lower() for name in others}
    # `SoundFolder` has sounds as pictures, which their endings tell from them.
    strange = {ending for one, known in FOLDER_ENDINGS.items() if one != source for ending in known}
    found = [name for name in typed if endings[name] not in strange]
    return next((name for name in (*found, *others) if name in found or endings[name] in FOLDER_ENDINGS[source]), None)


def file_like_columns(rows: AnyDataset) -> list[str]:
    """Columns that could hold pictures or sounds: files where there are any, else arrays, else strings, which may be paths."""
    found = (columns_of(rows, test) for test in (is_file, is_array, is_string))
    return next((columns for columns in found if columns), [])


def is_picture_array(feature: Feature) -> bool:
    """Whether a cell is an array of bytes, (H, W), (H, W, C) or (C, H, W)."""
    return isinstance(feature, datasets.Array2D | datasets.Array3D) and str(feature.dtype).startswith("uint8")
