"""One checkpoint and its rows of every kind, made when a test asks for them."""

from collections.abc import Callable, Iterator

import pytest
from accelerate.state import AcceleratorState, PartialState
from kinds import Made, make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """`made("image")`: that kind's checkpoint and rows."""
    known: dict[str, Made] = {}

    def get(kind: str) -> Made:
        if kind not in known:
            known[kind] = make(kind, tmp_path_factory.mktemp(kind))
        return known[kind]

    return get


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Every run finds Accelerate as a fresh process would."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
