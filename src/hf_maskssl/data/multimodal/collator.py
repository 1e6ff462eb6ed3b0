"""Batches of several pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..collators import BatchCollator, labels_and_index
from .rows import INPUT, PRESENCE


class MultimodalCollator(BatchCollator):
    """Stacks rows of several modalities and checks values while they are on the CPU.

    Args:
        columns: Modality -> the raw column, for errors.
        num_classes: Modality -> number of classes, of the modalities that are class maps.
        ignore_index: Class id of pixels without a class.
    """

    def __init__(self, columns: Mapping[str, str], num_classes: Mapping[str, int], ignore_index: int) -> None:
        super().__init__(columns)
        self.num_classes = dict(num_classes)
        self.ignore_index = ignore_index

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: Prepared rows of `MultimodalPreparer` with equal keys.

        Returns:
            `inputs`, {modality: (B, C, h, w) float32, or (B, h, w) int64}; `presence`, {modality: (B,) bool}, where some
            row lacks one; `observed_mask`, {modality: (B, C, h, w) bool}, True = observed, of those with missing pixels (NaN),
            which become 0; `labels` and `index` where rows have them.

        Raises:
            ValueError: No rows, infinite values, classes out of range, shapes that differ, or a row without any
                modality; named by row index and column.
        """
        if not rows:
            raise ValueError("cannot make a batch of no rows")
        batch: dict[str, Any] = {"inputs": {}}
        for key in rows[0]:
            if key.startswith(INPUT):
                name = key[len(INPUT) :]
                is_map = name in self.num_classes
                if is_map:
                    batch["inputs"][name] = self._classes(rows, key, name)
                    continue
                batch["inputs"][name], is_observed = self.stack_observed(rows, key, name)
                if is_observed is not None:
                    batch.setdefault("observed_mask", {})[name] = is_observed
        presence = self._presence(rows)
        if presence is not None:
            batch["presence"] = presence
        return batch | labels_and_index(rows)

    def _classes(self, rows: Sequence[Mapping[str, Any]], key: str, name: str) -> torch.Tensor:
        ids = np.stack([np.asarray(row[key]) for row in rows]).astype(np.int64)
        is_outside = (ids != self.ignore_index) & ((ids < 0) | (ids >= self.num_classes[name]))
        if is_outside.any():
            place = int(is_outside.any(axis=(1, 2)).argmax())
            raise ValueError(
                f"{self.where(rows[place], name)} holds the class {ids[place][is_outside[place]][0]}, expected "
                f"0..{self.num_classes[name] - 1} or {self.ignore_index} for none"
            )
        return torch.from_numpy(ids)

    def _presence(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | None:
        names = [key[len(PRESENCE) :] for key in rows[0] if key.startswith(PRESENCE)]
        presence = {name: torch.tensor([bool(row[PRESENCE + name]) for row in rows]) for name in names}
        if not presence:
            return None
        there = torch.stack(list(presence.values()))
        if not there.any(dim=0).all():
            row = rows[int((~there.any(dim=0)).nonzero()[0])]
            raise ValueError(f"row {row.get('index', '?')} has none of the modalities {names}: drop it")
        return None if there.all() else presence
