"""What a kind makes of data that no recipe describes: the fields by which a model could read them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...files import JsonObject
from ..tables.sources import AnyDataset, column_names

LOOKED_AT = 200  # rows that sizes are taken from
ROW_NAMES = ("index", "row", "row_id", "unnamed: 0")  # names of columns that count rows
# How sure a kind is of data by the types of their columns: files are nothing else, numbers may be much,
# and time steps only where somebody says so.
FILES, ARRAYS, TEXTS, NUMBERS, STEPS = 3, 2, 1, 0, -1


@dataclass
class Guess:
    """What a kind would read of data, and a small model for it.

    Attributes:
        certainty: Rank among the kinds that could read the data; the highest is taken.
        reason: Words for what the kind has found, such as "texts in 'smiles'".
        data: Fields of the data section.
        model: Fields of the model section, without those of its size.
        batch_size: Number of rows of a step.
        weight_decay: Weight decay of the package's small recipes of such data.
        rows_of_each: How many training rows (rows,) int64 each row of the data is, such as windows of a series; None where it
            is one.
        with_label: Fields of the data section that go with a column of labels, where one is read.
        remarks: Sentences for the user, each with the field that changes what it says.
    """

    certainty: int
    reason: str
    data: JsonObject
    model: JsonObject
    batch_size: int = 128
    weight_decay: float = 1e-4
    rows_of_each: np.ndarray | None = None
    with_label: JsonObject = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def metamae(mask_ratio: float, adaptation_step_size: float = 0.5) -> JsonObject:
    """MetaMAE's objective with the settings of the package's small recipes."""
    fields: JsonObject = {"model_type": "metamae", "mask_ratio": mask_ratio}
    return fields | {"adaptation_step_size": adaptation_step_size, "contrastive_weight": 1.0}


def sma_of_bytes() -> JsonObject:
    """SMA's objective on bytes with the settings of the package's small recipes."""
    fields: JsonObject = {"model_type": "sma", "vocab_size": 262, "pad_token_id": 0, "encoder_type": "self_attention"}
    fields |= {"decoder_query_residual": True, "masking": "guided", "mask_ratio": 0.3, "head_aggregation": "random"}
    return fields | {"mask_schedule": "widen", "mask_schedule_fraction": 1.0}


def only_column(
    found: Sequence[str], rows: AnyDataset, kind: str, usual: Sequence[str] = (), name: str = "input_column"
) -> str:
    """The one column that can be the input, or the one with a usual name.

    Args:
        found: Columns whose types fit.
        rows: Rows of all columns.
        kind: Name of the kind, for the error.
        usual: Names that such a column usually has, the usual ones first.
        name: Name of the field of the data section.

    Raises:
        ValueError: There is none, or several; the error lists the columns.
    """
    named = [one for one in usual if one in found] or [one for one in found if one.lower() in usual]
    if len(found) == 1 or named:
        return named[0] if named else found[0]
    several = f"{list(found)} could be it" if found else f"expected a column that kind {kind!r} reads"
    raise ValueError(f"data.{name}: {several}; the columns are {column_names(rows)}: name it by --{name}")
