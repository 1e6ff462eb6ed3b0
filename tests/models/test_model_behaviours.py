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


def test_copies_from_the_host_are_noticed() -> None:
    """An index that is a list becomes a tensor of the host's; a slice, a number and a buffer do not."""
    model = torch.nn.BatchNorm1d(4)
    values = torch.randn(3, 4)
    with Looks(model, {"values": values}) as looks:
        (model(values) + 1.0)[:, :2].index_select(1, model.num_batches_tracked.reshape(1).clamp(max=1))
        assert not looks.found
        values[:, [0, 2]]
    assert looks.found == {"from the host": 1}
