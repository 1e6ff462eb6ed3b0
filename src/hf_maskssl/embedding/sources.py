"""What DATA names, a file, a folder or a data set, as the data section of a recipe."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from fsspec.core import split_protocol

from ..data.arguments import LOCAL_SOURCES, DataArguments, data_arguments, is_hub_name
from ..data.builtin import SOURCES
from ..data.processors import Processor, split_processor
from ..data.tables.files import FOLDER_ENDINGS, LinkedFiles, followed_links
from ..data.tables.multimodal_folder import EXTENSIONS as PICTURE_ENDINGS
from ..data.tables.sources import AnyDataset, column_names, read_split
from ..files import JsonObject, JsonView, nearest_path
from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..recipes import build_section
from .encoders import Encoder

# Ending of a file -> the source that reads it.
READERS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".txt": "text",
    ".npy": "numpy",
    ".npz": "numpy",
    **dict.fromkeys(FOLDER_ENDINGS["imagefolder"], "imagefolder"),
    **dict.fromkeys(FOLDER_ENDINGS["audiofolder"], "audiofolder"),
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
# Names that a column of texts, or of pictures, usually has, the usual ones first.
TEXT_NAMES = ("text", "sequence", "sentence", "smiles", "content", "document", "caption")
LABEL = "label"  # comes along where a data set has it
NAMED_FILES = 2000  # files of a folder that are looked at


def source_values(data: str, kind: str) -> JsonObject:
    """The fields of a data section that say where the rows are.

    Args:
        data: File, folder, address, name on the Hub, or a data set of the package.
        kind: Kind of data that the model reads.

    Raises:
        FileNotFoundError: There is no such file, and it is no name.
        ValueError: Files that no source reads.
    """
    if data in SOURCES:
        return {"source": data}
    protocol, _ = split_protocol(data)
    path = Path(data).expanduser()
    if protocol not in (None, "file"):
        return {"source": _reader([data], data), "data_files": data}
    if path.is_dir():
        return _folder_values(path, kind)
    if path.is_file():
        return {"source": _reader([path.name], data), "data_files": str(path)}
    if is_hub_name(data) and data not in LOCAL_SOURCES and not path.suffix:
        return {"source": data}
    raise FileNotFoundError(
        f"DATA {data!r}: no such file or folder{nearest_path(path)}; expected one, a name on the Hub, or one of "
        f"{list(SOURCES)}"
    )


def _folder_values(folder: Path, kind: str) -> JsonObject:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return {"source": str(folder)}
    if kind == "multimodal" and any(_holds_pictures(one) for one in folder.iterdir() if one.is_dir()):
        return {"source": "multimodal_folder", "data_dir": str(folder)}
    with followed_links():
        names = [os.path.basename(name) for name in LinkedFiles().find(str(folder.resolve()))[:NAMED_FILES]]
    names = [name for name in names if not name.startswith(".") and _ending(name) in READERS]
    source = _reader(names, str(folder)) if names else None
    if source is None:
        raise ValueError(f"DATA {str(folder)!r}: the folder holds no file of {sorted(set(READERS))}")
    if source == "numpy":
        return {"source": source, "data_files": sorted(str(folder / name) for name in names)}
    return {"source": source, "data_dir": str(folder)}


def _holds_pictures(folder: Path) -> bool:
    found = LinkedFiles().find(str(folder.resolve()))
    return any(os.path.splitext(name)[1].lower() in PICTURE_ENDINGS for name in found[:NAMED_FILES])


def _ending(name: str) -> str:
    stem, ending = os.path.splitext(name.lower())
    return os.path.splitext(stem)[1] if ending in COMPRESSED else ending


def _reader(names: Sequence[str], data: str) -> str:
    """The source of the most frequent ending; files that describe others (metadata.csv) are few."""
    counts = Counter(READERS[_ending(name)] for name in names if _ending(name) in READERS)
    if not counts:
        raise ValueError(f"DATA {data!r}: expected a file that ends with one of {sorted(set(READERS))}")
    return counts.most_common(1)[0][0]


def completed_values(values: JsonView, encoder: Encoder) -> JsonObject:
    """A data section with the fields that the model and the columns of the data decide.

    Args:
        values: Fields that are known; the source at least.
        encoder: The encoder that reads the rows.

    Raises:
        ValueError: The columns do not say which of them are the input; the error lists them.
    """
    completed = {"kind": encoder.kind, **values}
    if encoder.kind == "spectrogram":
        processor = split_processor(encoder.processor)[0]
        assert isinstance(processor, SpectrogramFeatureExtractor)  # `kind_of` has looked
        completed.setdefault("sampling_rate", processor.sampling_rate)
    wanted = "text_column" if encoder.kind == "vision_language" and "text_column" not in values else None
    is_known = "input_column" in values or (values["source"] in SOURCES and encoder.kind != "multimodal")
    if is_known and wanted is None:
        return completed
    rows = _first_look(values)
    if "input_column" not in completed and not (values["source"] in SOURCES and encoder.kind != "multimodal"):
        completed["input_column"] = input_column(rows, encoder)
    if wanted is not None:
        completed[wanted] = _text_column(rows, wanted)
    return completed


def _first_look(values: JsonView) -> AnyDataset:
    """The training split as it is, whatever kind of data it holds."""
    common = {name: value for name, value in values.items() if name in DataArguments.__dataclass_fields__}
    common = {name: value for name, value in common.items() if name not in ("kind", "label_column", "task", "cache")}
    look: DataArguments = data_arguments(
        **{"source": "digits", **common, "kind": "multimodal", "drop_missing_labels": False}
    )
    return read_split(look, look.train_split)


def input_column(rows: AnyDataset, encoder: Encoder) -> str | list[str] | dict[str, str] | None:
    """The input of rows, `data.input_column`, by the names and types of their columns.

    Raises:
        ValueError: Several columns could be it, or none.
    """
    kind, config = encoder.kind, encoder.config
    if kind == "tabular":
        return _table_columns(rows, encoder.processor)
    if kind == "tokens":
        return _text_column(rows, "input_column", may_be_ids=encoder.processor is None)
    if kind == "multimodal":
        names = [modality.name for modality in config.inputs()]
        present = {name: name for name in names if name in column_names(rows)}
        if present:
            return present
        pictures = _columns_of(rows, _is_file)
        if "rgb" in names and len(pictures) == 1:
            return {"rgb": pictures[0]}
        raise _no_column(rows, "input_column", f"named like the modalities {names}")
    tests, named = FILE_TESTS.get(kind, ((_is_array,), ()))
    found = next((columns for columns in (_columns_of(rows, test) for test in tests) if columns), [])
    return _only(found, rows, "input_column", kind, named)


def _table_columns(rows: AnyDataset, processor: Processor) -> str | None:
    """None where the columns are those the model was trained on, or the one column that holds lists."""
    names = processor.feature_names if isinstance(processor, SeriesFeatureExtractor) else None
    present = column_names(rows)
    if names is not None:
        missing = [name for name in names if name not in present]
        if missing:
            raise ValueError(
                f"DATA: the model was trained on the columns {names}, of which {missing} are not there; the columns are "
                f"{present}"
            )
        return None
    return _only(_columns_of(rows, _is_array), rows, "input_column", "tabular", ())


def _text_column(rows: AnyDataset, field: str, may_be_ids: bool = False) -> str:
    found = _columns_of(rows, _is_list_of_numbers if may_be_ids else _is_text)
    return _only(found, rows, field, "tokens", TEXT_NAMES)


def _only(found: Sequence[str], rows: AnyDataset, field: str, kind: str, names: Sequence[str]) -> str:
    usual = [name for name in names if name in found] or [one for one in found if one.lower() in names]
    if len(found) == 1 or usual:
        return usual[0] if usual else found[0]
    raise _no_column(rows, field, f"that kind {kind!r} reads", found)


def _no_column(rows: AnyDataset, field: str, what: str, found: Sequence[str] = ()) -> ValueError:
    several = f"{list(found)} could be it" if found else f"expected a column {what}"
    return ValueError(f"data.{field}: {several}; the columns are {column_names(rows)}: name it by --{field}")


def _columns_of(rows: AnyDataset, test: Callable[[Any], bool]) -> list[str]:
    features: Mapping[str, Any] = rows.features or {}
    return [name for name in column_names(rows) if name in features and test(features[name])]


def _is_text(feature: Any) -> bool:
    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    return isinstance(inner, datasets.Value) and inner.dtype in ("string", "large_string")


def _is_list_of_numbers(feature: Any) -> bool:
    return isinstance(feature, datasets.List | datasets.LargeList) and not _is_text(feature)


def _is_array(feature: Any) -> bool:
    arrays = (datasets.Array2D, datasets.Array3D, datasets.Array4D, datasets.Array5D)
    return isinstance(feature, arrays) or _is_list_of_numbers(feature)


def _is_file(feature: Any) -> bool:
    is_struct = isinstance(feature, dict) and bool({"bytes", "path"} & set(feature))
    return isinstance(feature, datasets.Image | datasets.Audio) or is_struct


def _is_path(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


# Kind -> what its column may hold, the surest first, and usual names.
FILE_TESTS: dict[str, tuple[tuple[Callable[[Any], bool], ...], tuple[str, ...]]] = {
    **dict.fromkeys(("image", "vision_language"), ((_is_file, _is_array, _is_path), ("image", "path", "file"))),
    "spectrogram": ((_is_file, _is_array, _is_path), ("audio", "path", "file")),
}


def section_of(values: JsonView) -> DataArguments:
    """The data section of these values.

    Raises:
        ValueError: A field that the kind does not have, or a value that it does not take.
    """
    section: DataArguments = build_section("data", DataArguments, values)
    return section


def label_column(args: DataArguments, rows: AnyDataset) -> str | None:
    """The column whose values come along as labels: the recipe's, or one that is called so and is no input."""
    if args.label_column is not None:
        return args.label_column
    return LABEL if LABEL in column_names(rows) and LABEL not in args.columns_read() else None
