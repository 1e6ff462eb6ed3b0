"""What DATA names, a file, a folder or a data set, as the data section of a recipe."""

from ..data.arguments import DataArguments
from ..data.builtin import SOURCES
from ..data.kept_statistics import categories_of
from ..data.kinds import find_kind
from ..data.looking import first_look, usual_label
from ..data.tables.csv_words import MISSING_WORDS
from ..data.tables.sources import AnyDataset, column_names
from ..files import JsonObject, JsonView
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
    kind = find_kind(encoder.kind)
    known = {"kind": encoder.kind, **kind.fields_of_processor(encoder.processor), **values}
    categories = categories_of(encoder.processor)
    if values["source"] == "csv" and categories:
        # Words such as NA are categories where training had them, and missing where it had not.
        there = {category for column in categories.values() for category in column}
        known["missing_words"] = [
            *(values.get("missing_words") or []),
            *(word for word in MISSING_WORDS if word not in there),
        ]
    if "input_column" in values or (values["source"] in SOURCES and kind.reads_builtin):
        return known
    return {**kind.find_input(first_look(values), encoder.config, encoder.processor), **known}


def section_of(values: JsonView) -> DataArguments:
    """The data section of these values.

    Raises:
        ValueError: A field that the kind does not have, or a value that it does not take.
    """
    section: DataArguments = build_section("data", DataArguments, values)
    return section


def carried_labels(args: DataArguments, rows: AnyDataset, encoder: Encoder) -> list[str]:
    """The columns whose values come along as labels.

    The recipe's; else the one that the encoder's probes were told of, where the data have it; else one that is named as labels
    are. None of them is an input.
    """
    if args.label_column is not None:
        return args.target_columns()
    names = [encoder.label_column, usual_label(rows)]
    there = [name for name in names if name in column_names(rows) and name not in args.columns_read()]
    return [name for name in there[:1] if name is not None]
