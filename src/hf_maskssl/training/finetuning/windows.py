"""Rows that are learnt by windows: a model sees windows, and what it says of the windows of a row becomes one prediction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...data.tables.windows import WindowedRows, firsts_of_rows, means_of_rows, pooled_owners

if TYPE_CHECKING:
    from .scores import FinetuningRows


def one_window_a_row(rows: "FinetuningRows") -> "FinetuningRows":
    """The first window of each row where windows are pooled, for what rows have but once: labels, and their number; other rows
    as they are."""
    owners = pooled_owners(rows)
    return rows if owners is None else rows.select(firsts_of_rows(owners).tolist())


def windows_of(rows: "FinetuningRows", chosen: Sequence[int]) -> "FinetuningRows":
    """All windows of the rows with these places among `one_window_a_row`, ascending; other rows are chosen as they are."""
    owners = pooled_owners(rows)
    if owners is None:
        return rows.select(chosen)
    wanted = owners[firsts_of_rows(owners)][list(chosen)]
    return rows.select(np.flatnonzero(np.isin(owners, wanted)).tolist())


def row_numbers(rows: "FinetuningRows", places: Sequence[int]) -> np.ndarray:
    """(n,) int64, the numbers of rows in their split, of places in predictions; of windows the rows that they are of."""
    if not isinstance(rows, WindowedRows):
        return np.array([int(rows[int(place)]["index"]) for place in places], dtype=np.int64)
    owners = rows.chosen_owners
    owners = owners if pooled_owners(rows) is None else owners[firsts_of_rows(owners)]
    return np.asarray(owners[np.asarray(places, dtype=np.int64)])


def pooled_outputs(
    outputs: np.ndarray, labels: np.ndarray, owners: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and labels of windows as those of their rows: the mean of the outputs, and the label of the first window.

    Args:
        outputs: (windows, ...) logits, or values of a regression.
        labels: (windows, ...) labels.
        owners: (windows,) the row of each, rising; None where nothing is pooled, by which both stay as they are.
    """
    if owners is None:
        return outputs, labels
    assert len(outputs) == len(owners), f"{len(outputs)} outputs of {len(owners)} windows"
    means = means_of_rows(outputs.reshape(len(outputs), -1), owners)
    return means.reshape(-1, *outputs.shape[1:]), labels[firsts_of_rows(owners)]
