"""What DATA names, a file, a folder or a data set, as the data section of a recipe."""

from collections.abc import Callable, Sequence
from typing import Any

from ..data.arguments import DataArguments
from ..data.builtin import SOURCES
from ..data.looking import (
    TEXT_NAMES,
    columns_of,
    first_look,
    is_array,
    is_file,
    is_list_of_numbers,
    is_string,
    is_text,
    usual_label,
)
from ..data.processors import Processor, split_processor
from ..data.tables.sources import AnyDataset, column_names
from ..files import JsonObject, JsonView
from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..recipes import build_section
from .encoders import Encoder


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
    rows = first_look(values)
    if "input_column" not in completed and not (values["source"] in SOURCES and encoder.kind != "multimodal"):
        completed["input_column"] = input_column(rows, encoder)
    if wanted is not None:
        completed[wanted] = _text_column(rows, wanted)
    return completed


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
        pictures = columns_of(rows, is_file)
        if "rgb" in names and len(pictures) == 1:
            return {"rgb": pictures[0]}
        raise _no_column(rows, "input_column", f"named like the modalities {names}")
    tests, named = FILE_TESTS.get(kind, ((is_array,), ()))
    found = next((columns for columns in (columns_of(rows, test) for test in tests) if columns), [])
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
    return _only(columns_of(rows, is_array), rows, "input_column", "tabular", ())


def _text_column(rows: AnyDataset, field: str, may_be_ids: bool = False) -> str:
    found = columns_of(rows, is_list_of_numbers if may_be_ids else is_text)
    return _only(found, rows, field, "tokens", TEXT_NAMES)


def _only(found: Sequence[str], rows: AnyDataset, field: str, kind: str, names: Sequence[str]) -> str:
    usual = [name for name in names if name in found] or [one for one in found if one.lower() in names]
    if len(found) == 1 or usual:
        return usual[0] if usual else found[0]
    raise _no_column(rows, field, f"that kind {kind!r} reads", found)


def _no_column(rows: AnyDataset, field: str, what: str, found: Sequence[str] = ()) -> ValueError:
    several = f"{list(found)} could be it" if found else f"expected a column {what}"
    return ValueError(f"data.{field}: {several}; the columns are {column_names(rows)}: name it by --{field}")


# Kind -> what its column may hold, the surest first, and usual names.
FILE_TESTS: dict[str, tuple[tuple[Callable[[Any], bool], ...], tuple[str, ...]]] = {
    **dict.fromkeys(("image", "vision_language"), ((is_file, is_array, is_string), ("image", "path", "file"))),
    "spectrogram": ((is_file, is_array, is_string), ("audio", "path", "file")),
}


def section_of(values: JsonView) -> DataArguments:
    """The data section of these values.

    Raises:
        ValueError: A field that the kind does not have, or a value that it does not take.
    """
    section: DataArguments = build_section("data", DataArguments, values)
    return section


def label_column(args: DataArguments, rows: AnyDataset) -> str | None:
    """The column whose values come along as labels: the recipe's, or one that is named as labels are and is no input."""
    if args.label_column is not None:
        return args.label_column
    label = usual_label(rows)
    return None if label in args.columns_read() else label
