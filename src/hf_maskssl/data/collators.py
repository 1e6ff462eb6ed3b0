"""Collators, which turn prepared rows into the tensors that a model takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .tables.labels import IGNORED_LABEL


class BatchCollator:
    """Stacks rows, pads tokens and checks values while they are on the CPU.

    Args:
        columns: Batch name (`input_ids`, `input_values`, `pixel_values`) -> the raw column, for errors.
        vocab_size: Size of the vocabulary, which all ids must be below; None where there are no tokens.
        pad_token_id: Id to pad with; None means 0, but then no id in a row counts as padding.
        always_mask: Whether to give `attention_mask` even when every text is equally long.
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        vocab_size: int | None = None,
        pad_token_id: int | None = None,
        always_mask: bool = False,
    ) -> None:
        self.columns = dict(columns)
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.always_mask = always_mask

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows: Prepared rows with equal keys: `input_values` (C, T), or (T, C) for
                models with `channels_last`, `pixel_values` (C, H, W), `input_ids` (N,), `token_type_ids` (N,),
                `labels` (a number, or (N,)), `index` (row number).

        Returns:
            The tensors of those names: float32 values, int64 ids, segments, labels and index (regression: float32 labels), and
            int64 `attention_mask` (B, N), 1 = real, when lengths differ, a row holds padding, or `always_mask`.

        Raises:
            ValueError: No rows, values that are not finite, ids outside the vocabulary, or a row without a real token;
                named by row index and column.
        """
        if not rows:
            raise ValueError("cannot make a batch of no rows")
        batch = {}
        for name in ("pixel_values", "input_values"):
            if name in rows[0]:
                batch[name] = self.stack(rows, name, name)
        if "input_ids" in rows[0]:
            batch |= self._pad(rows)
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = _padded([row["token_type_ids"] for row in rows], 0)
        return batch | labels_and_index(rows)

    def stack(self, rows: Sequence[Mapping[str, Any]], key: str, name: str) -> torch.Tensor:
        """The values under `key`, (B, ...) float32, all of one shape and finite; errors call them `name`."""
        samples = [np.asarray(row[key], dtype=np.float32) for row in rows]
        for row, sample in zip(rows, samples, strict=True):
            if sample.shape != samples[0].shape:
                raise ValueError(
                    f"{self.where(row, name)} has shape {sample.shape}, other rows of the batch {samples[0].shape}"
                )
        values = torch.from_numpy(np.stack(samples))
        # One finite sum shows that all are finite (an overflow of the sum only leads to the exact check below).
        if not torch.isfinite(values.sum()):
            is_finite = torch.isfinite(values.flatten(1)).all(dim=1)
            if not is_finite.all():
                row = rows[int((~is_finite).nonzero()[0])]
                raise ValueError(f"{self.where(row, name)} has values that are not finite: fill or drop them")
        return values

    def _pad(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = np.array([len(row["input_ids"]) for row in rows])
        is_real = np.arange(max(1, lengths.max())) < lengths[:, None]
        ids = np.full(is_real.shape, self.pad_token_id or 0, dtype=np.int64)
        ids[is_real] = np.concatenate([np.asarray(row["input_ids"]) for row in rows])
        if self.pad_token_id is not None:
            is_real &= ids != self.pad_token_id
        self._check_ids(rows, ids, is_real)
        padded = {"input_ids": torch.from_numpy(ids)}
        if self.always_mask or not is_real.all():
            padded["attention_mask"] = torch.from_numpy(is_real.astype(np.int64))
        return padded

    def _check_ids(self, rows: Sequence[Mapping[str, Any]], ids: np.ndarray, is_real: np.ndarray) -> None:
        is_outside = (ids < 0) | (ids >= self.vocab_size) if self.vocab_size is not None else ids < 0
        if is_outside.any():
            place = int(is_outside.any(axis=1).argmax())
            raise ValueError(
                f"{self.where(rows[place], 'input_ids')} holds the id {ids[place][is_outside[place]][0]}, outside "
                f"the vocabulary 0..{(self.vocab_size or 0) - 1} (model.vocab_size)"
            )
        if not is_real.any(axis=1).all():
            place = int(is_real.any(axis=1).argmin())
            raise ValueError(f"{self.where(rows[place], 'input_ids')} is empty or all padding: drop such rows")

    def where(self, row: Mapping[str, Any], name: str) -> str:
        """Row and column for an error."""
        return f"row {row.get('index', '?')}, column {self.columns.get(name, name)!r}"


def labels_and_index(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """`labels` (B,) or (B, H, W), or for tokens padded to (B, N), and `index` (B,) int64, where rows have them."""
    batch = {}
    if "labels" in rows[0]:
        labels = [np.asarray(row["labels"]) for row in rows]
        is_per_token = labels[0].ndim == 1
        batch["labels"] = _padded(labels, IGNORED_LABEL) if is_per_token else torch.from_numpy(np.stack(labels))
    if "index" in rows[0]:
        batch["index"] = torch.tensor([int(row["index"]) for row in rows])
    return batch


def _padded(rows: Sequence[Sequence[int] | np.ndarray], filling: int) -> torch.Tensor:
    """Rows of integers as (B, N) int64, filled up to the longest."""
    padded = np.full((len(rows), max(len(row) for row in rows)), filling, dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded)
