"""Hashes of weights and rows, so that stored runs are not taken for runs of others that have the same name."""

import hashlib
from pathlib import Path

import numpy as np

from ...data.tables.preparing import Preparer
from ...data.tables.rows import PreparedRows, TransformedRows
from .scores import FinetuningRows

TABLE_ROWS = 1024  # rows that are hashed at a time


def weights_digest(checkpoint: Path) -> str:
    """A hash of the weights' files."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def rows_digest(rows: FinetuningRows) -> str:
    """A hash of the prepared rows' values. Where preparing all of them now would take as long as a pass over them
    (`data.cache` is false), a hash of how they are prepared and of the datasets library's fingerprint of their files,
    which changes whenever a file is written.
    """
    digest = hashlib.sha256()
    if isinstance(rows, TransformedRows):
        assert isinstance(rows.prepare, Preparer)
        digest.update(f"{rows.dataset._fingerprint} {rows.prepare.description()}".encode())
        return digest.hexdigest()
    if not isinstance(rows, PreparedRows):  # rows of another package's kind
        for number in range(len(rows)):
            for name, value in sorted(rows[number].items()):
                digest.update(name.encode() + np.asarray(value).tobytes())
        return digest.hexdigest()
    for part in rows.table.with_format("arrow").iter(batch_size=TABLE_ROWS):
        # Lists have the same bytes wherever the values' chunk of the table begins and ends.
        for batch in part.combine_chunks().replace_schema_metadata().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()
