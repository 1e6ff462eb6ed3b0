"""Processes that end with the one that started them, which a SIGKILL of that one would otherwise leave running."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

import psutil

# What torch's launcher and `accelerate launch` (of one process) set for what they start, and hardly anybody else.
SET_BY_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_BACKEND")
PR_SET_PDEATHSIG = 1
# Programs that adopt processes whose parent is gone, beside process 1.
ADOPTING = ("systemd", "init")


def end_with_launcher() -> None:
    """Where a launcher started this process: end, before anything more is written, when the launcher is gone.

    Raises:
        SystemExit: It is gone already.
    """
    if not any(name in os.environ for name in SET_BY_LAUNCHERS):
        return  # started from a shell, say, whose end a run may outlive
    end_with_parent()
    if _was_adopted():
        raise SystemExit("error: the launcher that started this process has ended: start the run anew.")


def end_with_parent() -> None:
    """Let the kernel end this process by SIGKILL when its parent ends; on Linux, other systems have no such thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_run() -> None:
    """Let this worker process end when the run that it works for is gone, also where another process has started it.

    Python 3.14 starts workers from a server, which waits for them: without this call both would outlive a run that was killed.
    """
    run = multiprocessing.parent_process()
    if run is not None and run.pid != os.getppid():
        threading.Thread(target=_end_after, args=(run,), daemon=True).start()


def _end_after(run: BaseProcess) -> None:
    run.join()
    os._exit(1)


def _was_adopted() -> bool:
    """Whether the parent adopts orphans and is no launcher itself, as it may be in a container."""
    try:
        parent = psutil.Process(os.getppid())
        words = " ".join(parent.cmdline())
        is_adopting = parent.pid == 1 or parent.name() in ADOPTING
    except psutil.Error:  # gone between the two looks, or not to be seen
        return os.getppid() == 1
    return is_adopting and not any(word in words for word in ("python", "torch", "accelerate"))
