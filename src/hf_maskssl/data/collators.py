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
                `labels` (a number, (N,), or float (columns,)), `index` (row number).

        Returns:
            The tensors of those names: float32 values, int64 ids, segments, labels and index (regression: float32 labels),
            int64 `attention_mask` (B, N), 1 = real, when lengths differ, a row holds padding, or `always_mask`; and where values
            are missing (NaN), bool `observed_mask` of their shape, True = observed, and zeros in their place.

        Raises:
            ValueError: No rows, infinite values, ids outside the vocabulary, a row without a real token or an observed
                value; named by row index and column.
        """
        if not rows:
            raise ValueError("cannot make a batch of no rows")
        batch = {}
        for name in ("pixel_values", "input_values"):
            if name in rows[0]:
                batch[name], is_observed = self.stack_observed(rows, name, name)
                if is_observed is not None:
                    batch["observed_mask"] = is_observed
                    self._check_observed(rows, is_observed, name)
        if "input_ids" in rows[0]:
            batch |= self._pad(rows)
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = _padded([row["token_type_ids"] for row in rows], 0)
        return batch | labels_and_index(rows)

    def stack_observed(
        self, rows: Sequence[Mapping[str, Any]], key: str, name: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The values under `key`, (B, ...) float32, all of one shape, 0 where they are missing (NaN).

        And where any is missing, bool of that shape, True = observed. Errors call the values `name`.
        """
        values = self._stacked(rows, key, name)
        # One finite sum shows that all are finite (an overflow of the sum only leads to the exact checks below).
        if torch.isfinite(values.sum()):
            return values, None
        is_infinite, is_missing = values.isinf().flatten(1).any(1), values.isnan()
        if is_infinite.any():
            row = rows[int(is_infinite.nonzero()[0])]
            raise ValueError(
                f"{self.where(row, name)} has values that are not finite: make them NaN (missing), or drop them"
            )
        return (values.masked_fill(is_missing, 0.0), ~is_missing) if is_missing.any() else (values, None)

    def _check_observed(self, rows: Sequence[Mapping[str, Any]], is_observed: torch.Tensor, name: str) -> None:
        is_empty = ~is_observed.flatten(1).any(1)
        if is_empty.any():
            row = rows[int(is_empty.nonzero()[0])]
            raise ValueError(f"{self.where(row, name)} has no value that was observed: drop such rows")

    def _stacked(self, rows: Sequence[Mapping[str, Any]], key: str, name: str) -> torch.Tensor:
        samples = [np.asarray(row[key], dtype=np.float32) for row in rows]
        for row, sample in zip(rows, samples, strict=True):
            if sample.shape != samples[0].shape:
                raise ValueError(
                    f"{self.where(row, name)} has shape {sample.shape}, other rows of the batch {samples[0].shape}"
                )
        return torch.from_numpy(np.stack(samples))

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
    """`labels` (B,), (B, columns) float32 or (B, H, W), or for tokens padded to (B, N), and `index` (B,) int64, where rows have
    them."""
    batch = {}
    if "labels" in rows[0]:
        labels = [np.asarray(row["labels"]) for row in rows]
        if labels[0].ndim != 1:
            batch["labels"] = torch.from_numpy(np.stack(labels))
        elif labels[0].dtype.kind == "f":  # labels of several columns; labels of tokens are classes
            batch["labels"] = torch.from_numpy(np.stack(labels).astype(np.float32, copy=False))
        else:
            batch["labels"] = _padded(labels, IGNORED_LABEL)
    if "index" in rows[0]:
        batch["index"] = torch.tensor([int(row["index"]) for row in rows])
    return batch


def _padded(rows: Sequence[Sequence[int] | np.ndarray], filling: int) -> torch.Tensor:
    """Rows of integers as (B, N) int64, filled up to the longest."""
    padded = np.full((len(rows), max(len(row) for row in rows)), filling, dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded)
