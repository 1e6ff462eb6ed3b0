"""The cost of runs; codecarbon itself is not needed."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from runs import make_recipe, train

from hf_maskssl.training import cost
from hf_maskssl.training.cost import EnergyMeter


class FakeTracker:
    """Codecarbon's tracker, each of whose tasks takes 2 kWh."""

    open = 0

    def __init__(self, **options: Any) -> None:
        assert not options["save_to_file"]

    def start_task(self) -> None:
        FakeTracker.open += 1

    def stop_task(self) -> SimpleNamespace:
        FakeTracker.open -= 1
        return SimpleNamespace(energy_consumed=2.0)

    def stop(self) -> None:
        FakeTracker.open = 0


@pytest.fixture
def codecarbon(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("codecarbon")
    monkeypatch.setattr(module, "OfflineEmissionsTracker", FakeTracker, raising=False)
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    monkeypatch.setattr(cost, "find_spec", lambda name: object())
    return module


def test_energy_adds_up_while_the_meter_runs(codecarbon: ModuleType) -> None:
    meter = EnergyMeter()
    assert meter.kilowatt_hours() is None
    with meter:
        assert [meter.kilowatt_hours(), meter.kilowatt_hours()] == [2.0, 4.0]
        assert FakeTracker.open == 1
    assert FakeTracker.open == 0 and meter.kilowatt_hours() is None
    with EnergyMeter(measures=False) as other:
        assert other.kilowatt_hours() is None


def test_run_goes_on_where_the_energy_cannot_be_read(
    codecarbon: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: FakeTracker) -> None:
        raise PermissionError("no RAPL")

    monkeypatch.setattr(FakeTracker, "start_task", broken)
    with EnergyMeter() as meter:
        assert meter.kilowatt_hours() is None
    assert "is not measured: no RAPL" in caplog.text


def test_state_of_a_run_holds_rows_and_energy(
    codecarbon: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energy adds up over resumptions; where a part was not measured, nothing is said of the whole."""
    _, first = train(make_recipe(tmp_path, max_steps=2, save_steps=1))
    assert first.energy_kwh == 4.0 and first.row_counts == {"train": 42}
    _, again = train(make_recipe(tmp_path, max_steps=3, save_steps=1, resume=True))
    assert again.energy_kwh == 6.0 and again.row_counts == first.row_counts
    monkeypatch.setattr(cost, "find_spec", lambda name: None)
    _, last = train(make_recipe(tmp_path, max_steps=4, save_steps=1, resume=True))
    assert last.energy_kwh is None
