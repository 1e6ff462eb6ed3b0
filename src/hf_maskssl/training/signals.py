"""SIGTERM, which clusters send before they take a machine away: noticed, not died of."""

import signal
import threading
from types import FrameType
from typing import Any


class SigtermWatch:
    """A context in which SIGTERM only sets `received`; afterwards it does again what it did before.

    In another thread than the main one, where Python allows no handlers, it watches nothing.
    """

    def __init__(self) -> None:
        self.received = False
        self._former: Any = None

    def __enter__(self) -> "SigtermWatch":
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def ignore_sigterm(worker: int) -> None:
    """For the data loader's workers: a SIGTERM to the whole process group must leave the run able to save.

    They end when the run does, told by the loader or finding their parent gone.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
