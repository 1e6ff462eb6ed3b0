"""Scripts in processes of their own, at the cost of a fork.

A fresh interpreter spends some ten seconds on importing torch, transformers and what they import. Here one server process of
a test run imports them once and is forked for every script: it has computed nothing, so the script finds what it would find
in a fresh interpreter. Tests of the importing itself (what is missing, what comes first) start an interpreter.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMPORTED_ONCE = [
    "datasets",
    "matplotlib.pyplot",
    "torch.distributed.run",
    "accelerate.commands.launch",
    "transformers.trainer",
    "hf_maskssl.annotation",
    "hf_maskssl.training",
    "hf_maskssl.training.finetuning.sweep",
    "hf_maskssl.hub",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(IMPORTED_ONCE)


@dataclass
class Finished:
    """A process that has ended; `returncode` is -N where signal N ended it."""

    returncode: int
    stdout: str
    stderr: str


class Script:
    """A running script, leader of its own process group.

    Args:
        words: The command line behind `python`: a file or `-m MODULE`, and its arguments.
        environment: Variables beside those of this process.
        folder: The working directory; None: that of this process.
    """

    def __init__(
        self, words: list[str], environment: dict[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._files = tempfile.TemporaryDirectory()
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        arguments = (words, variables, str(folder or Path.cwd()), self._files.name)
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number, also that of its group and its session."""
        return int(self._process.pid or 0)

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def signal(self, number: int) -> None:
        """To the script and all that it started."""
        os.killpg(self.pid, number)

    def wait(self, timeout: float = 150) -> Finished:
        """Until it has ended; after `timeout` seconds it is killed, with all that it started."""
        self._process.join(timeout)
        if not self.has_ended:
            self.signal(signal.SIGKILL)
            raise TimeoutError(f"not over after {timeout} s: {self._read('stderr')[-5000:]}")
        finished = Finished(int(self._process.exitcode or 0), self._read("stdout"), self._read("stderr"))
        self._files.cleanup()
        return finished

    def _read(self, name: str) -> str:
        return (Path(self._files.name) / name).read_text(encoding="utf-8")


def run_script(words: list[str], **options: Any) -> Finished:
    """Run a script to its end; arguments as of `Script`."""
    return Script(words, **options).wait()


def launch(config: Path, words: list[str], **options: Any) -> Finished:
    """`accelerate launch --config_file config`, whose processes are forked as well; it must succeed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(config)]
    command += ["--main_process_port", str(port), *words]
    options["environment"] = {"ACCELERATE_USE_CPU": "true", **options.get("environment", {})}
    finished = run_script(command, **options)
    assert finished.returncode == 0, finished.stderr[-20000:]
    return finished


def _run(words: list[str], environment: dict[str, str], folder: str, outputs: str) -> None:
    os.setsid()
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(outputs, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _fork_what_is_launched()
    _run_as_main(*words)


def _run_as_main(*words: str) -> None:
    """What `python words` does."""
    # A launcher's handler of the signal is not for its processes.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    sys.stdout.flush()


def _fork_what_is_launched() -> None:
    """Torch's launcher, which `accelerate launch` calls, takes a function in place of a command, too."""
    from torch.distributed import run

    original = run.elastic_launch

    def elastic_launch(config: Any, entrypoint: str) -> Callable[..., Any]:
        assert entrypoint == sys.executable
        config.start_method = "fork"
        return lambda unbuffered, *words: original(config, _run_as_main)(*words)

    run.elastic_launch = elastic_launch
