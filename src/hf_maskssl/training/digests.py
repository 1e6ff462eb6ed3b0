"""Hashes of weights and rows, so that stored runs are not taken for runs of others that have the same name."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import IterableDataset

from ..data.masked_text.rows import MaskedTextRows
from ..data.preparation import PreparedData
from ..data.tables.preparing import Preparer
from ..data.tables.rows import PreparedRows, TransformedRows
from ..data.tables.windows import WindowedRows

if TYPE_CHECKING:
    from .finetuning.scores import FinetuningRows

TABLE_ROWS = 1024  # rows that are hashed at a time
# Of a larger table pre-training hashes no values: reading all of them would delay each start.
MAX_HASHED_BYTES = 2**30


def weights_digest(checkpoint: Path) -> str:
    """A hash of the weights' files."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def split_digests(data: PreparedData) -> dict[str, str]:
    """`rows_digest` of the splits that pre-training reads; none of a stream, which is known by reading it alone."""
    splits = {"train": data.train, "validation": data.validation}
    known = {
        name: split for name, split in splits.items() if split is not None and not isinstance(split, IterableDataset)
    }
    return {name: rows_digest(split, MAX_HASHED_BYTES) for name, split in known.items()}


def rows_digest(rows: "FinetuningRows", most_bytes: int | None = None) -> str:
    """A hash of the prepared rows' values. Where preparing all of them now would take as long as a pass over them
    (`data.cache` is false), a hash of how they are prepared and of the datasets library's fingerprint of their files,
    which changes whenever a file is written.

    Args:
        rows: The split.
        most_bytes: Size of prepared rows from which on they are known by their files, too; None hashes any.
    """
    digest = hashlib.sha256()
    if isinstance(rows, TransformedRows):
        assert isinstance(rows.prepare, Preparer)
        digest.update(f"{rows.dataset._fingerprint} {rows.prepare.description()}".encode())
        if isinstance(rows, WindowedRows):
            digest.update(repr((rows.windows.size, rows.windows.stride, rows.windows.label_column)).encode())
        return digest.hexdigest()
    if not isinstance(rows, PreparedRows | MaskedTextRows):  # rows of another package's kind
        for number in range(len(rows)):
            for name, value in sorted(rows[number].items()):
                digest.update(name.encode() + np.asarray(value).tobytes())
        return digest.hexdigest()
    if most_bytes is not None and rows.table.data.nbytes > most_bytes:
        return hashlib.sha256(f"{rows.table._fingerprint} {len(rows.table)}".encode()).hexdigest()
    for part in rows.table.with_format("arrow").iter(batch_size=TABLE_ROWS):
        # Lists have the same bytes wherever the values' chunk of the table begins and ends.
        for batch in part.combine_chunks().replace_schema_metadata().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()
