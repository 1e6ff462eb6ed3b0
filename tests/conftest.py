"""Fixtures every test may use. Nothing here needs the network."""

import gc
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

# Caches of data sets, metrics and travelling code last as long as the test run, here and in the processes tests start.
# The Hugging Face libraries read this when they are imported, which is after this file.
_CACHES = tempfile.TemporaryDirectory(prefix="hf_maskssl-tests-")
os.environ["HF_HOME"] = _CACHES.name
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# What tests write need not outlast a power failure, and waiting for the disk is a fifth of their time. Processes that tests
# start do wait.
os.fsync = lambda descriptor: None  # type: ignore[assignment]

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """`Trainer` and Accelerate collect garbage at the end of every training, half a second for all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not turned into pixels: a third of a short training, where no test looks at them."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **_: Path(path).write_bytes(b"picture"))


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared data sets are kept in `tmp_path`: no other test's are found."""
    import datasets  # behind HF_HOME

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("higgs_small")` is that folder of the small real data sets; the test is skipped where it is absent."""

    def locate(name: str) -> Path:
        root = Path(os.environ.get("HF_MASKSSL_SHARED", REPOSITORY.parent / "shared"))
        folder = root / "data" / name
        if not folder.exists():
            pytest.skip(f"{name} of the shared data sets is not here")
        return folder

    return locate


@pytest.fixture(scope="session")
def shared_golden() -> Callable[[str], dict[str, Any]]:
    """`shared_golden("metamae_image")`: that case of the authors' reference vectors, its description under "case"."""

    def load(name: str) -> dict[str, Any]:
        root = Path(os.environ.get("HF_MASKSSL_SHARED", REPOSITORY.parent / "shared")) / "golden"
        if not (root / f"{name}.safetensors").exists():
            pytest.skip(f"{name} of the reference vectors is not here")
        case = json.loads((root / f"{name}.json").read_text(encoding="utf-8"))
        return {**load_file(root / f"{name}.safetensors"), "case": case}

    return load
