"""The cost of a run: its device, and its energy where codecarbon is installed (`pip install "hf_maskssl[energy]"`)."""

import logging
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from codecarbon import OfflineEmissionsTracker

PACKAGE = "codecarbon"
LOGGER = logging.getLogger(PACKAGE)

logger = logging.getLogger(__name__)


def device_name(device: torch.device) -> str:
    """The device in words: a GPU's name, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


class EnergyMeter:
    """A context that measures the energy of this machine: processors, memory and GPUs, whoever uses them.

    It needs no network: energy alone is measured, not emissions, which depend on the country.

    Args:
        measures: Whether to measure, if codecarbon is installed: one process of a machine should.
    """

    def __init__(self, measures: bool = True) -> None:
        self._measures = measures and find_spec(PACKAGE) is not None
        self._tracker: OfflineEmissionsTracker | None = None
        self._measured = 0.0

    def __enter__(self) -> "EnergyMeter":
        if self._measures:
            try:
                self._tracker = _started_tracker()
            # A run must not fail because this machine's power cannot be read, in whatever way codecarbon notices that.
            except Exception as error:
                logger.warning("The energy of the run is not measured: %s", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._tracker is not None:
            self._tracker.stop()
            self._tracker = None

    def kilowatt_hours(self) -> float | None:
        """The energy since the context was entered, in kWh; None where it is not measured."""
        if self._tracker is None:
            return None
        measured = self._tracker.stop_task()
        self._tracker.start_task()
        if measured is None:
            return None
        self._measured += measured.energy_consumed
        return self._measured


def _started_tracker() -> "OfflineEmissionsTracker":
    LOGGER.setLevel(logging.CRITICAL)  # it tells how it was configured before it reads its own setting
    from codecarbon import OfflineEmissionsTracker

    LOGGER.setLevel(logging.CRITICAL)
    # The country is a must, and decides only over emissions.
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, allow_multiple_runs=True, log_level="critical"
    )
    tracker.start_task()
    return tracker
