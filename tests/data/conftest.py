"""What the data tests share: a private cache and a way to write tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The datasets cache of this test alone."""
    folder = tmp_path / "hf_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., str]:
    """`write_parquet("train", label=[...])` writes columns and returns the path."""

    def write(file_name: str, /, **columns: Any) -> str:
        path = tmp_path / f"{file_name}.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write
