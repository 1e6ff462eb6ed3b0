"""Handlers of Ctrl-C and of SIGTERM and SIGUSR1, which clusters send before they take a machine away."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from types import FrameType

from ...orphans import end_with_run

# SIGUSR1 is what SLURM's `--signal` is usually told to send; Windows has none.
STOPPING = (signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if sys.platform != "win32" else []))


class StopSignals:
    """A context in which SIGTERM, SIGUSR1 and Ctrl-C (SIGINT) only set `received`; afterwards the former handlers are back.

    A second Ctrl-C ends the program at once. Outside the main thread Python allows no handlers, and no signal is
    noticed.

    Attributes:
        received: Name of the first signal that came; None before.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.received = self.received or signal.Signals(number).name


class PatientWorkers:
    """`worker_init_fn` of a data loader whose workers ignore Ctrl-C and SIGUSR1, and SIGTERM until the run is over.

    A signal to the whole process group must leave the run able to save, so its workers live on. After `end` they
    die of it again: torch and multiprocessing end slow workers by SIGTERM and wait for them without limit.
    """

    def __init__(self) -> None:
        # A raw value has no lock: a signal may come at any moment, also to a holder of a lock.
        self._is_over = RawValue(c_bool, False)

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGTERM, self._end_worker)
        for number in STOPPING:
            if number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
        end_with_run()

    def end(self) -> None:
        self._is_over.value = True

    def _end_worker(self, number: int, frame: FrameType | None) -> None:
        if self._is_over.value:
            os._exit(0)  # does not wait for a queue that nobody empties, like torch's handler
