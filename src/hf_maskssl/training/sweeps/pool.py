"""The processes of a sweep: each run has its own, some at a time, and what one of them does to itself touches no other."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ..pretraining.signals import StopSignals
from .execute import STOPPED, run_in_process
from .plan import SweepRun

# What every run imports: a server does once, and is forked for each.
IMPORTED_ONCE = ["hf_maskssl.training.sweeps.execute"]
SECONDS_BETWEEN_LOOKS = 0.5
GRACE_SECONDS = 60  # between asking runs to save and stop, and ending them

# Called when a run has ended, with its exit code: 0, `STOPPED`, another one, or -N where signal N ended it.
OnEnd = Callable[[SweepRun, int], None]


class Pool:
    """Runs the runs of a sweep.

    Args:
        output: Folder of the sweep.
        curve_points: Number of online probes in pre-training.
        workers: Number of runs at a time; they share torch's threads.
        on_end: Function called in this process when a run has ended.
    """

    def __init__(self, output: Path, curve_points: int, workers: int, on_end: OnEnd) -> None:
        self.output, self.curve_points, self.workers, self.on_end = output, curve_points, workers, on_end
        self.threads = max(1, torch.get_num_threads() // workers)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(IMPORTED_ONCE)
        self._active: dict[SweepRun, BaseProcess] = {}

    def run(self, runs: Sequence[SweepRun]) -> bool:
        """Do all runs; whether all have been begun and ended by themselves, and no signal has stopped them."""
        waiting = list(runs)
        with StopSignals() as signals, self._ending():
            while (waiting or self._active) and signals.received is None:
                while len(self._active) < self.workers and (run := self._next(waiting)) is not None:
                    waiting.remove(run)
                    self._start(run)
                self._collect()
            if signals.received is not None:
                self._stop()
        return not waiting and signals.received is None

    def _next(self, waiting: Sequence[SweepRun]) -> SweepRun | None:
        """The first run whose encoder nobody is training."""
        busy = {run.encoder_digest for run in self._active} - {None}
        return next((run for run in waiting if run.encoder_digest not in busy), None)

    def _start(self, run: SweepRun) -> None:
        arguments = (run, str(self.output), self.curve_points, self.threads, dict(os.environ))
        process = self.context.Process(target=run_in_process, args=arguments)
        process.start()
        self._active[run] = process

    def _collect(self) -> None:
        """Wait a moment for the end of some run, and tell of those that have ended."""
        wait([process.sentinel for process in self._active.values()], SECONDS_BETWEEN_LOOKS)
        for run, process in list(self._active.items()):
            if not process.is_alive():
                del self._active[run]
                process.join()
                self.on_end(run, STOPPED if process.exitcode is None else process.exitcode)

    def _stop(self) -> None:
        """Ask what runs to save and stop, and wait for it."""
        for process in self._active.values():
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while self._active and time.monotonic() < until:
            self._collect()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Whatever happens here, no run is left behind."""
        try:
            yield
        finally:
            for process in self._active.values():
                process.kill()
                process.join()
