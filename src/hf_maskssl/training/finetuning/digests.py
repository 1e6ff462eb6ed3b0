"""Hashes that tell weights and rows of one name apart: stored runs are not taken for runs of others."""

import hashlib
from pathlib import Path
from typing import Any

from ...data.tables.rows import PreparedRows, TransformedRows

TABLE_ROWS = 1024  # rows that are hashed at a time


def weights_digest(checkpoint: Path) -> str:
    """A hash of the weights' files."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def rows_digest(rows: PreparedRows | TransformedRows) -> str:
    """A hash of the prepared rows: of their values, or, where preparing all of them now would take as long as a pass over
    them (`data.cache` is false), of how they are prepared and of what the datasets library knows of their files, which
    changes whenever a file is written.
    """
    digest = hashlib.sha256()
    if isinstance(rows, TransformedRows):
        prepare: Any = rows.prepare
        digest.update(f"{rows.dataset._fingerprint} {prepare.description()}".encode())
        return digest.hexdigest()
    for part in rows.table.with_format("arrow").iter(batch_size=TABLE_ROWS):
        # Written out, values are the same bytes wherever their chunk of the table begins and ends.
        for batch in part.combine_chunks().replace_schema_metadata().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()
