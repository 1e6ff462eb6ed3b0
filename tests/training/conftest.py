"""Every run of these tests finds Accelerate as a fresh process would."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture
def resumed_at(caplog: pytest.LogCaptureFixture) -> Callable[[], list[int]]:
    """The steps at which runs went on so far: a run that starts over has the right weights in the end, too."""
    caplog.set_level(logging.INFO, "hf_maskssl.training.pretraining")

    def steps() -> list[int]:
        return [record.args[1] for record in caplog.records if record.msg.startswith("Resumed from")]  # type: ignore

    return steps


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order differ in the last bit: here as in the processes that tests start, one thread adds up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Without this, the precision of the first run would be that of all."""
    torch.manual_seed(0)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
