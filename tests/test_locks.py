"""One run in a folder at a time, and processes that end with the one that started them."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from hf_maskssl import locks, orphans
from hf_maskssl.locks import LOCK_FILE, FolderLock

IN_USE = r"training.output_dir .*run is in use by another run \(process \d+ on .*, since 20.*Wait until it has ended"


def lock(tmp_path: Path, **options: Any) -> FolderLock:
    return FolderLock(tmp_path / "run", "training.output_dir", **options)


def owner(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "run" / LOCK_FILE).read_text())


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with lock(tmp_path):
        assert owner(tmp_path)["pid"] == os.getpid()
        with pytest.raises(ValueError, match=IN_USE):
            lock(tmp_path).acquire()
        assert owner(tmp_path)["pid"] == os.getpid()  # who holds it is still known
    assert not list((tmp_path / "run").iterdir())
    with lock(tmp_path):
        pass


def test_an_error_releases_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    lock(tmp_path).acquire()  # and an object that nobody holds any more does, too
    assert not (tmp_path / "run" / LOCK_FILE).exists()


@pytest.mark.parametrize("is_killed", [True, False])
def test_it_ends_with_its_process(is_killed: bool, tmp_path: Path) -> None:
    """By SIGKILL too, although a child lives on that inherited the file."""
    context = multiprocessing.get_context("fork")
    ready, children = context.Event(), context.Queue()

    def hold() -> None:
        held = lock(tmp_path)
        held.acquire()
        child = os.fork()
        if child == 0:
            time.sleep(60)
        children.put(child)
        ready.set()
        time.sleep(60 if is_killed else 0.05)
        os._exit(1)

    process = context.Process(target=hold)
    process.start()
    assert ready.wait(20)
    child = psutil.Process(children.get())
    if is_killed:
        with pytest.raises(ValueError, match=IN_USE):
            lock(tmp_path).acquire()
        os.kill(int(process.pid or 0), signal.SIGKILL)
    process.join(20)
    wait_until_gone(child)
    assert owner(tmp_path)["pid"] == process.pid
    with lock(tmp_path):
        assert owner(tmp_path)["pid"] == os.getpid()


def wait_until_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_processes_of_a_run_hold_it_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "broadcast_object_list", lambda told: None)
    waited: list[int] = []
    processes = {"num_processes": 2, "wait_for_everyone": lambda: waited.append(1)}
    main, other = (SimpleNamespace(is_main_process=first, **processes) for first in (True, False))
    first, second = lock(tmp_path, state=main), lock(tmp_path, state=other)
    first.acquire()
    second.acquire()
    assert len(waited) == 2  # one that still releases what it held before is no other run
    first.release()  # as where the main process was killed
    with pytest.raises(ValueError, match=IN_USE):
        lock(tmp_path).acquire()
    second.release()
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("change", "is_free"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),  # above the largest number of a process
        ({"began": 5.0}, True),  # another process has the number now
        ({"host": "elsewhere"}, False),
    ],
)
def test_without_locks_of_the_file_system_its_owner_decides(
    change: dict[str, Any], is_free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_flock", lambda descriptor, kind: None)
    monkeypatch.setattr(locks, "SECONDS_TO_LOSE", 0.0)
    first = lock(tmp_path)
    first.acquire()
    (tmp_path / "run" / LOCK_FILE).write_text(json.dumps(owner(tmp_path) | change))
    if is_free:
        with lock(tmp_path):
            assert owner(tmp_path)["pid"] == os.getpid()
    else:
        with pytest.raises(ValueError, match=rf"{IN_USE}.*remove .*{LOCK_FILE}"):
            lock(tmp_path).acquire()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"pid": 3}'])
def test_a_lock_file_that_says_nothing_is_no_hindrance(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).write_bytes(content)
    with lock(tmp_path):
        assert owner(tmp_path)["pid"] == os.getpid()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=r"training.output_dir .*run cannot be written"):
        lock(tmp_path).acquire()


LAUNCHED = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from hf_maskssl.orphans import end_with_launcher
if os.fork() == 0:
    end_with_launcher()
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""


@pytest.mark.parametrize("name", [*orphans.SET_BY_LAUNCHERS, None])
def test_what_a_launcher_started_ends_with_it(name: str | None) -> None:
    variables = {key: value for key, value in os.environ.items() if key not in orphans.SET_BY_LAUNCHERS}
    package = str(Path(orphans.__file__).parents[1])
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHED, package],
        env=variables if name is None else variables | {name: "no"},
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    started = psutil.Process(int(launcher.stdout.readline()))
    launcher.kill()
    launcher.wait()
    if name is not None:
        wait_until_gone(started)
    else:  # started from a shell: it may outlive it
        time.sleep(0.2)
        assert started.is_running() and started.status() != psutil.STATUS_ZOMBIE
        started.kill()
    launcher.stdout.close()


def test_a_process_whose_launcher_ended_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(orphans, "end_with_parent", lambda: None)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["/sbin/init"])
    with pytest.raises(SystemExit, match="error: the launcher that started this process has ended"):
        orphans.end_with_launcher()
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["python", "/bin/accelerate", "launch"])  # a container
    orphans.end_with_launcher()
