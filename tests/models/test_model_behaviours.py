"""The shared tests can fail."""

import pytest
import torch
from model_behaviours import Looks, look_at_nothing


def test_looks_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_nothing(monkeypatch)
    values = torch.arange(4.0)
    with Looks() as looks:
        values[values > 1].sum().item()
        torch.nonzero(values)
    assert looks.found == {"index": 1, "_local_scalar_dense": 1, "nonzero": 1}
