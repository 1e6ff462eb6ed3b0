"""Columns of categories in a table beside columns of numbers: their embeddings, their predictions and their losses.

A table stays the one float tensor that it is without categories: a column of categories holds the number of the class, 0 to
C - 1, as a float, which `observed_mask`, batches, pipelines and exported programs carry like any other value. A second input of
integers would have to be kept in step with the first in each of these places, and would say nothing that `category_counts` does
not say. Floats hold such numbers exactly, in float32 up to 16,777,216; what half precision cannot hold is refused.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .distributed import mean_over_scored
from .input_checks import values_are_readable
from .layers import at_least_float32, squared_error


def check_categories(values: torch.Tensor, counts: Sequence[int], is_observed: torch.Tensor | None) -> None:
    """Refuse values that are no rows of the table.

    Args:
        values: (B, N) of all columns; 0 where they are missing.
        counts: Number of categories of each column, 0 for numbers.
        is_observed: (B, N) bool, or None where everything was observed.

    Raises:
        ValueError: Another number of columns; a precision that cannot hold the class numbers; or (on the CPU) a value that is
            no class number of its column.
    """
    if values.shape[1] != len(counts):
        raise ValueError(
            f"`input_values` must have the {len(counts)} columns of `category_counts`, got {values.shape[1]}."
        )
    exact = round(2 / torch.finfo(values.dtype).eps)
    if max(counts) > exact:
        raise ValueError(
            f"`input_values` of {values.dtype} hold whole numbers exactly up to {exact} only, but a column has {max(counts)} "
            "categories: give float32."
        )
    if not values_are_readable(values):
        return
    limits = values.new_tensor(counts)
    is_bad = (limits > 0) & ((values < 0) | (values >= limits) | (values != values.round()))
    if is_observed is not None:
        is_bad &= is_observed
    if is_bad.any():
        row, column = is_bad.nonzero()[0].tolist()
        raise ValueError(
            f"`input_values` has {values[row, column].item():g} in row {row}, column {column}, which holds categories: expected "
            f"a class number from 0 to {counts[column] - 1}; let the checkpoint's processor make them of the data."
        )


def category_offsets(counts: Sequence[int]) -> torch.Tensor:
    """(N,) int64: the first row of each column in a table of all columns' categories; -1 for columns of numbers."""
    starts, start = [], 0
    for count in counts:
        starts.append(start if count else -1)
        start += count
    return torch.tensor(starts)


class CategoryEmbeddings(nn.Module):
    """A vector for each category of each column, in one table.

    Args:
        counts: Number of categories of each column, 0 for numbers.
        width: Width D of the vectors.
    """

    offsets: torch.Tensor

    def __init__(self, counts: Sequence[int], width: int) -> None:
        super().__init__()
        self.counts = list(counts)
        self.weight = nn.Parameter(torch.zeros(sum(counts), width))
        self.register_buffer("offsets", category_offsets(counts), persistent=False)

    def forward(self, values: torch.Tensor, embedded: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Put the vectors of categories in the place of embedded numbers.

        Args:
            values: (B, K, 1), the values of the columns as they came: not in half precision.
            embedded: (B, K, D), all of them embedded as numbers.
            ids: (B, K) int64, the columns that they are of; None means all.
        """
        offsets = self.offsets if ids is None else self.offsets[ids]
        is_category = offsets >= 0
        rows = torch.where(is_category, offsets + values.squeeze(-1).round().long(), 0)
        return torch.where(is_category.unsqueeze(-1), F.embedding(rows, self.weight).to(embedded.dtype), embedded)


class CategoryHead(nn.Linear):
    """A linear layer for each column of categories, one below the other in one matrix.

    Args:
        width: Width E of the hidden states.
        counts: Number of categories of each column, 0 for numbers.
    """

    number_columns: torch.Tensor
    category_columns: torch.Tensor

    def __init__(self, width: int, counts: Sequence[int]) -> None:
        super().__init__(width, sum(counts))
        self.counts = list(counts)
        self.categories = [column for column, count in enumerate(counts) if count]
        self.sizes = [count for count in counts if count]
        for name, columns in self._columns().items():
            self.register_buffer(name, columns, persistent=False)

    def _columns(self) -> dict[str, torch.Tensor]:
        """Columns of numbers and of categories, int64, as buffers: the copy of a list would make a GPU wait in every step."""
        numbers = [column for column, count in enumerate(self.counts) if not count]
        found = {"number_columns": numbers, "category_columns": self.categories}
        return {name: torch.tensor(columns, dtype=torch.int64) for name, columns in found.items()}

    def reset_state(self) -> None:
        """Fill the buffers anew."""
        for name, columns in self._columns().items():
            init.copy_(self.get_buffer(name), columns)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, N, E) of all columns -> logits (B, sum of counts), column after column."""
        parts = zip(self.categories, self.weight.split(self.sizes), self.bias.split(self.sizes), strict=True)
        return torch.cat([F.linear(states[:, column], weight, bias) for column, weight, bias in parts], dim=1)

    def losses(
        self, predicted: torch.Tensor, logits: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The discrepancy of each column, divided by that of a prediction that knows nothing.

        Squared error of a number: who says the mean of a standardised column loses 1. Of C categories the cross-entropy divided
        by log C: who says them all alike loses 1. So each column counts as much as any other, whatever its kind and however
        many categories it has.

        Args:
            predicted: (B, N, 1) predictions as numbers, whose columns of categories are not read.
            logits: (B, sum of counts).
            values: (B, N, 1), numbers and class numbers.

        Returns:
            (B, numbers) and (B, categories), each in the order of the columns.
        """
        predicted, logits, targets = at_least_float32(predicted, logits, values)
        of_numbers = squared_error(*(part.index_select(1, self.number_columns) for part in (predicted, targets)))
        classes = targets.squeeze(-1).round().long()
        parts = zip(self.categories, logits.split(self.sizes, dim=1), self.sizes, strict=True)
        of_categories = [
            F.cross_entropy(part, classes[:, column], reduction="none") / math.log(size)
            for column, part, size in parts
        ]
        return of_numbers, torch.stack(of_categories, dim=1)

    def mean_losses(
        self, predicted: torch.Tensor, logits: torch.Tensor, values: torch.Tensor, is_scored: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """`reconstruction`, the mean of `losses` over the entries of all processes that `is_scored` (B, N) marks True, and
        beside it those of numbers and of categories alone: `numbers`, `categories`.
        """
        kinds = self.losses(predicted, logits, values)
        scored = [is_scored.index_select(1, columns) for columns in (self.number_columns, self.category_columns)]
        found = {"reconstruction": mean_over_scored(torch.cat(kinds, dim=1), torch.cat(scored, dim=1))}
        for name, losses, flags in zip(("numbers", "categories"), kinds, scored, strict=True):
            if losses.shape[1]:
                found[name] = mean_over_scored(losses, flags)
        return found

    @torch.no_grad()
    def with_classes(self, predicted: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """(B, N, 1) predictions in at least float32, with the most probable class's number for each column of categories."""
        (values,) = at_least_float32(predicted.clone())
        for column, part in zip(self.categories, logits.split(self.sizes, dim=1), strict=True):
            values[:, column, 0] = part.argmax(1).to(values.dtype)
        return values
