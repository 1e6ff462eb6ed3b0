"""`Dataset.map` whose results are found again by every process and every run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.fingerprint import Hasher

from ...terminal import PATIENCE, MovingLine
from .rows import Column, Rows

BATCH_ROWS = 256
# Rows of text prepared at once hold about so many bytes: whole books come one by one, sentences by thousands.
BATCH_BYTES = 2**20
MOST_BATCH_ROWS = 4096
LOOKED_AT = 64  # evenly spread rows, by which the mean size of all is estimated


def cached_map(
    dataset: Dataset,
    function: Callable[..., Mapping[str, Column] | pa.Table],
    description: str,
    num_proc: int | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Dataset:
    """`Dataset.map` in batches with row numbers, its result kept in the datasets cache under a key equal everywhere.

    Data sets that live in memory stay there: nothing is written for them.

    Args:
        dataset: Raw rows.
        function: Callable that makes columns, or an Arrow table, from a batch of columns and its row numbers.
        description: Text that decides the result together with the data set.
        num_proc: Number of processes; None means this one alone.
        batch_rows: Number of rows that the function gets at once.
    """
    fingerprint = Hasher.hash([type(function).__name__, description, dataset._fingerprint])
    options: dict[str, Any] = {"keep_in_memory": True}
    if dataset.cache_files:
        folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_maskssl"
        folder.mkdir(parents=True, exist_ok=True)
        options = {"cache_file_name": str(folder / f"{fingerprint}.arrow"), "num_proc": num_proc}
    with MovingLine("preparing row", len(dataset), delay=PATIENCE) as line:

        def counted(batch: Rows, rows: Sequence[int]) -> Mapping[str, Column] | pa.Table:
            line.update(len(rows))
            return function(batch, rows)

        return dataset.map(
            function if options.get("num_proc") else counted,  # other processes cannot count on this line
            with_indices=True,
            batched=True,
            batch_size=batch_rows,
            remove_columns=dataset.column_names,
            new_fingerprint=fingerprint,
            **options,
        )


def batch_rows_of(dataset: Dataset, column: str) -> int:
    """How many rows to prepare at once, so that long ones do not fill the memory."""
    return max(1, min(MOST_BATCH_ROWS, int(BATCH_BYTES / mean_bytes(dataset, column))))


def mean_bytes(dataset: Dataset, column: str) -> float:
    """Bytes of a row's text, by some rows; at least 1."""
    places = np.unique(np.linspace(0, len(dataset), LOOKED_AT, endpoint=False).astype(np.int64))
    looked_at = dataset.select_columns([column]).with_format("arrow").select(places)[:]
    return max(1.0, looked_at.nbytes / max(1, len(looked_at)))
