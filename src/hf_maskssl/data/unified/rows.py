"""Rows and batches of several kinds of data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..collators import BatchCollator, labels_and_index
from ..tables.draws import DrawnByEpoch
from ..tables.rows import ChosenRows
from .arguments import errors_of_part


class UnifiedRows(ChosenRows):
    """Rows of several parts side by side: as many as the longest part has, the others begin again at their end.

    Args:
        parts: Name of a part -> its prepared rows.
    """

    def __init__(self, parts: Mapping[str, ChosenRows]) -> None:
        super().__init__(max(len(rows) for rows in parts.values()))
        self.parts = dict(parts)

    def read(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        found = {name: rows.__getitems__((numbers % len(rows)).tolist()) for name, rows in self.parts.items()}
        return [
            {"index": number, **{name: rows[place] for name, rows in found.items()}}
            for place, number in enumerate(numbers.tolist())
        ]

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Let the parts whose rows are drawn anew draw for this epoch of a run with this seed."""
        for rows in self.parts.values():
            if isinstance(rows, DrawnByEpoch):
                rows.set_epoch(epoch, seed)


class UnifiedCollator(BatchCollator):
    """Makes a batch of rows of several parts.

    Args:
        collators: Name of a part -> the collator of its rows.
        not_inputs: Name of a part -> keys of its batch that are no inputs of its model in pre-training.
    """

    def __init__(self, collators: Mapping[str, BatchCollator], not_inputs: Mapping[str, Sequence[str]]) -> None:
        super().__init__({})
        self.collators = dict(collators)
        self.not_inputs = {name: tuple(keys) for name, keys in not_inputs.items()}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: Rows of `UnifiedRows`.

        Returns:
            `inputs` {part: batch of its collator, without what is no input} and `index` (B,) int64.

        Raises:
            ValueError: A collator refuses the rows of its part; the error names the part.
        """
        inputs: dict[str, dict[str, torch.Tensor]] = {}
        for name, collator in self.collators.items():
            with errors_of_part(name):
                batch = collator([row[name] for row in rows])
            inputs[name] = {key: value for key, value in batch.items() if key not in self.not_inputs[name]}
        return {"inputs": inputs, **labels_and_index([{"index": row["index"]} for row in rows])}
