"""One run in a folder at a time: a lock that the running processes hold and that their end, whatever its kind, releases.

The lock is `flock` on a file in the folder. The kernel gives it back when the last process that holds it is gone, also by
SIGKILL, and file systems that several machines share (NFS, Lustre with the option flock, GPFS, CephFS) know it across them.
A lock file by its existence alone, as `filelock.SoftFileLock`, would outlive a killed run; `filelock.FileLock` empties the file
before it knows whether it is free, which would take away who holds it, and lets forked data workers keep it. Where a file
system has no `flock`, the owner that the file names decides: its host, its process and when that began.
"""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

import psutil
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list

from .files import JsonObject, writable_folder
from .orphans import end_with_parent

LOCK_FILE = ".hf_maskssl.lock"
# What flock says of a file system that has none.
WITHOUT_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
# Seconds by which two looks at when a process began may differ: the clock is set now and then.
CLOCK_TOLERANCE = 5.0
# Where there is no flock: seconds in which another run that began at the same moment writes its name over this one's.
SECONDS_TO_LOSE = 2.0


class FolderLock:
    """Holds a folder for a run of one or several processes, as a context or from `acquire` to `release`.

    Processes that this one forks meanwhile (data workers) end with it, so that none holds the lock for a run that is gone.

    Args:
        folder: Folder of the run's results; made if need be.
        field: Who asked for it, for errors: "training.output_dir".
        state: Accelerate's of the run, whose main process takes the lock for all; every process must then call `acquire`. None
            means a run of this process alone.
    """

    def __init__(self, folder: Path, field: str, state: PartialState | AcceleratorState | None = None) -> None:
        self.folder, self.field = folder, field
        self.is_main = state is None or state.is_main_process
        self.state = None if state is None or state.num_processes == 1 else state
        self.file = folder / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock; nothing where this object holds it.

        Raises:
            ValueError: The folder cannot be written, or another run holds it; on every process of the run.
        """
        if self._descriptor is not None:
            return
        problem: str | None = None
        if self.state is not None:
            self.state.wait_for_everyone()  # the other processes may still hold the lock of a former run
        if self.is_main:
            try:
                writable_folder(self.folder, self.field)
                problem = self._take()
            except ValueError as error:
                problem = str(error)
        if self.state is not None:
            told = [problem]
            broadcast_object_list(told)
            problem = told[0]
        if problem is not None:
            self._close()
            raise ValueError(problem)
        if not self.is_main:
            self._join()
        _HELD.add(self.file)

    def release(self) -> None:
        """Give the lock back; the last process that does removes the file."""
        descriptor = self._descriptor
        if descriptor is None:
            return
        _HELD.discard(self.file)
        # Before the file is closed: whoever opens it meanwhile sees that it is no longer the folder's, and tries again.
        if _is_same(descriptor, self.file):
            is_last = _flock(descriptor, fcntl.LOCK_EX)
            if is_last or (is_last is None and self._is_own()):
                self.file.unlink(missing_ok=True)
        self._close()

    def _take(self) -> str | None:
        """Take the lock for the run; what to say where it is not free."""
        while True:
            self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            is_free = _flock(self._descriptor, fcntl.LOCK_EX)
            owner = _read(self._descriptor)
            if is_free is False or (is_free is None and owner is not None and not _is_gone(owner)):
                return self._in_use(owner, is_known=is_free is False)
            if _is_same(self._descriptor, self.file):
                break
            self._close()  # its former holder has removed the file since it was opened
        _write(self._descriptor, _describe_process())
        if is_free is None:
            time.sleep(SECONDS_TO_LOSE)
            if not self._is_own():
                return self._in_use(_read(self._descriptor), is_known=False)
        # The other processes of the run hold it too: a main process that dies leaves them behind.
        if self.state is not None and _flock(self._descriptor, fcntl.LOCK_SH) is False:
            return self._in_use(_read(self._descriptor), is_known=True)
        return None

    def _join(self) -> None:
        """Hold what the main process has taken; where the folder is another machine's own, a file of that name there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        _flock(self._descriptor, fcntl.LOCK_SH)

    def _in_use(self, owner: JsonObject | None, is_known: bool) -> str:
        who = "another run"
        if owner is not None:
            who += f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
        advice = "Wait until it has ended, end it, or name another folder"
        if not is_known:
            advice += f"; if it has ended, which this file system cannot tell, remove {self.file}"
        return f"{self.field} {self.folder} is in use by {who}. {advice}."

    def _is_own(self) -> bool:
        """Whether the file names this process; only asked where there is no flock."""
        return self._descriptor is not None and (_read(self._descriptor) or {}).get("pid") == os.getpid()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_HELD: set[Path] = set()  # lock files that this process holds


def _end_as_a_child() -> None:
    """In a forked process of a run: it inherits the lock, and must not outlive the run with it."""
    if _HELD:
        end_with_parent()


os.register_at_fork(after_in_child=_end_as_a_child)


def _flock(descriptor: int, kind: int) -> bool | None:
    """Whether the kernel gave the lock; None where the file system has no such locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in WITHOUT_FLOCK:
            return None
        raise
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _describe_process() -> JsonObject:
    began = psutil.Process().create_time()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": began, "since": since}


def _is_gone(owner: JsonObject) -> bool:
    """Whether the process that a lock file names has ended: of another host that cannot be known."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["began"]) > CLOCK_TOLERANCE
    except psutil.NoSuchProcess:
        return True


def _read(descriptor: int) -> JsonObject | None:
    """The owner that a lock file names; None where it names none, as while it is being written."""
    content = os.pread(descriptor, 4096, 0)
    try:
        owner = json.loads(content)
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and {"host", "pid", "began", "since"} <= set(owner) else None


def _write(descriptor: int, owner: JsonObject) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
