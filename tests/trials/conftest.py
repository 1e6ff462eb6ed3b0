"""Long trials of what is not to be lost; they share the tiny runs of `tests/training`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Every run finds Accelerate as a fresh process would, and adds up with one thread, as processes of their own do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
