"""SIGTERM, which clusters send before they take a machine away: noticed, not died of."""

import os
import signal
import threading
from collections.abc import Callable
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from types import FrameType


class SigtermWatch:
    """A context in which SIGTERM only sets `received`; afterwards it does again what it did before.

    In another thread than the main one, where Python allows no handlers, it watches nothing.
    """

    def __init__(self) -> None:
        self.received = False
        self._former: Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> "SigtermWatch":
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


class SigtermPatience:
    """`worker_init_fn` of a data loader whose workers ignore SIGTERM until the run is over.

    A SIGTERM to the whole process group must leave the run able to save, so its workers live on. Once `end` was called they
    die of it again: torch and multiprocessing end slow workers by SIGTERM and wait until they are gone, for ever if need be.
    """

    def __init__(self) -> None:
        # Raw: a signal may come at any moment, also to a holder of the lock that another value would have.
        self._is_over = RawValue(c_bool, False)

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGTERM, self._end_worker)

    def end(self) -> None:
        self._is_over.value = True

    def _end_worker(self, number: int, frame: FrameType | None) -> None:
        if self._is_over.value:
            os._exit(0)  # as torch's own handler: without waiting for a queue that nobody empties any more
