"""How scripts end: which errors are a user's, and what is printed of them, on one process and on several."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._utils import ExceptionWrapper
from transformers import AutoConfig

from forked import run_script as run_process
from hf_maskssl import scripts
from hf_maskssl.recipes import load_recipe
from hf_maskssl.scripts import OneLineErrors, UserError, is_mistake, one_line, recipe_words, run_script

SCRIPT = """
import sys
from hf_maskssl.scripts import run_script

def main():
    if sys.argv[1:] == ["fault"]:
        int("three")
    raise ValueError("data.x: expected a number,\\n got 'three'; write 3")

run_script(main)
"""


def in_a_worker(run: Callable[[], object]) -> None:
    """Raises an error as torch does that of a `DataLoader`'s worker."""
    try:
        run()
    except Exception:
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()


def raise_value_error() -> None:
    load_recipe(Path(__file__))  # no YAML: a check of ours refuses it


def caught(run: Callable[[], object]) -> Exception:
    try:
        run()
    except Exception as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize(
    "run",
    [
        raise_value_error,
        lambda: load_recipe("/no/such/recipe.yaml"),
        lambda: open("/no/such/file"),
        lambda: AutoConfig.from_pretrained("/no/such/folder"),
        lambda: AutoConfig.for_model("no_such_type"),
        lambda: in_a_worker(raise_value_error),
    ],
    ids=["check", "missing recipe", "missing file", "missing checkpoint", "transformers' check", "check in a worker"],
)
def test_errors_of_checks_and_files_are_mistakes(run: Callable[[], object]) -> None:
    assert is_mistake(caught(run))


@pytest.mark.parametrize(
    "run",
    [
        lambda: int("x"),
        lambda: {}["x"],
        lambda: torch.zeros(2) + torch.zeros(3),
        lambda: None + 1,  # type: ignore[operator]
        lambda: torch.optim.SGD([]),  # a check, but of what our code gives
        lambda: in_a_worker(lambda: int("x")),
    ],
    ids=["int", "key", "shapes", "type", "torch's check", "worker"],
)
def test_errors_that_no_check_has_raised_are_faults(run: Callable[[], object]) -> None:
    assert not is_mistake(caught(run))


def test_a_message_of_a_worker_is_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="^recipe .* is not readable YAML"):
        run_script(lambda: in_a_worker(raise_value_error))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise load_error(f"data.x: expected\n  a word, got {'y' * 1000}")

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    line = capsys.readouterr().err
    assert ended.value.code == 2 and isinstance(ended.value, ValueError)
    assert line == f"error: {ended.value}\n" and line.startswith("error: data.x: expected a word, got yyy")
    assert len(line) < 250


def test_a_mistake_is_broken_where_the_terminal_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"/tmp/{'long-' * 30}name.yaml"

    def main() -> None:
        raise load_error(
            f"data.data_files: expected a file of a table, got {path}, of which there is no such file here"
        )

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        run_script(main)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: data.data_files: expected") and all(line.startswith("  ") for line in lines[1:])
    assert [len(line) <= 60 for line in lines] == [True, False, True], "the path stays whole"
    assert path in lines[1]


def load_error(message: str) -> Exception:
    """An error that a library of Hugging Face raises with this message."""
    from accelerate.utils import other

    namespace: dict[str, object] = {}
    exec(compile("def check(message):\n    raise ValueError(message)\n", other.__file__, "exec"), namespace)
    return caught(lambda: namespace["check"](message))  # type: ignore[operator]


@pytest.mark.parametrize("way", ["option", "variable"])
def test_debugging_shows_the_traceback(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        sys, "argv", ["script.py", "a", "--debug", "b"] if way == "option" else ["script.py", "a", "b"]
    )
    if way == "variable":
        monkeypatch.setenv("HF_MASKSSL_DEBUG", "1")

    def main() -> None:
        seen.append(sys.argv[1:])
        raise_value_error()

    with pytest.raises(ValueError) as ended:
        run_script(main)
    assert not isinstance(ended.value, SystemExit) and seen == [["a", "b"]]


def test_options_that_do_not_exist_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = OneLineErrors(prog="script.py")
    parser.add_argument("--steps", type=int)
    for words, message in ((["--stps", "1"], "unrecognized arguments"), (["--steps", "x"], "--steps: invalid int")):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(words)
        line = capsys.readouterr().err
        assert ended.value.code == 2 and line.startswith("error: ") and message in line and line.count("\n") == 1
    assert isinstance(parser, argparse.ArgumentParser)


def test_a_recipe_stands_in_front(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "a.yaml", "--x", "1"])
    assert recipe_words("help") == ("a.yaml", ["--x", "1"])
    for words in ([], ["--x", "1"]):
        monkeypatch.setattr(sys, "argv", ["script.py", *words])
        with pytest.raises(ValueError, match="RECIPE: expected the path or name of a recipe in front"):
            recipe_words("help")
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        recipe_words("what it does")
    assert ended.value.code == 0 and capsys.readouterr().out == "what it does\n"


def test_long_messages_keep_their_paths() -> None:
    path = "/" + "/".join(["folder"] * 60)
    assert path in one_line(ValueError(f"{path}: no such file"))
    assert len(one_line(ValueError("word " * 1000))) < 1300


def test_processes_report_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first process of a machine leaves the line to torch's launcher; the others wait until that ends them."""
    waited: list[float] = []
    monkeypatch.setattr(scripts.time, "sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        file = tmp_path / rank / "error.json"
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        with pytest.raises(UserError):
            run_script(raise_value_error)
        assert json.loads(file.read_text())["message"].startswith("\nerror: recipe ")
    assert waited == [scripts.PATIENCE] and capsys.readouterr().err == ""


def test_a_process_ends_with_one_line_or_a_traceback(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = run_process([str(script)])
    assert (ended.returncode, ended.stderr) == (2, "error: data.x: expected a number, got 'three'; write 3\n")
    ended = run_process([str(script), "fault"])
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "error: " not in ended.stderr.lower()[:50]


def test_a_launch_of_two_processes_prints_the_line_once(tmp_path: Path) -> None:
    """What torch's launcher prints at its end holds the line, with nothing but a rule behind it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "0",
        "--standalone",
        str(script),
    ]
    ended = run_process(
        command, environment={"TORCHELASTIC_ERROR_FILE": "", "PYTHONWARNINGS": "ignore"} | dict(os.environ)
    )
    lines = [line for line in ended.stderr.splitlines() if line.strip("= ")]
    assert ended.returncode == 1
    assert [line for line in lines if line.startswith("error: ")] == [lines[-1]]
    assert lines[-1] == "error: data.x: expected a number, got 'three'; write 3"


STOPPED_SCRIPT = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from hf_maskssl.files import write_whole
from hf_maskssl.scripts import run_script

def work(begun):
    begun.set()
    time.sleep(60)

def write(path):
    path.write_text("half")
    if sys.argv[2] == "worker":
        context = multiprocessing.get_context("fork")
        begun = context.Event()
        worker = context.Process(target=work, args=(begun,))
        worker.start()
        begun.wait()
        os.kill(worker.pid, signal.{name})
        worker.join()
    exec("os.kill(os.getpid(), signal.{name})")
    time.sleep(60)

def main():
    try:
        write_whole(Path(sys.argv[1]), write)
    except KeyboardInterrupt:
        if sys.argv[2] == "torn":
            raise OSError("a pipe that the signal broke")
        raise

run_script(main, "go on by --again")
"""


@pytest.mark.parametrize("way", ["alone", "worker", "torn"])
@pytest.mark.parametrize("name, called, code", [("SIGINT", "Ctrl-C", 130), ("SIGTERM", "SIGTERM", 143)])
def test_a_signal_is_one_line_and_leaves_nothing_half_done(
    name: str, called: str, code: int, way: str, tmp_path: Path
) -> None:
    script = STOPPED_SCRIPT.replace("{name}", name)
    words = [sys.executable, "-c", script, str(tmp_path / "file"), way]
    environment = os.environ | {"PYTHONPATH": str(Path(scripts.__file__).parents[1])}
    # A shell that began the tests in the background has SIGINT ignored, which children inherit.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    finally:
        signal.signal(signal.SIGINT, former)
    assert (ended.returncode, ended.stderr) == (code, f"stopped by {called}: go on by --again\n")
    assert list(tmp_path.iterdir()) == []


def test_debugging_shows_where_a_signal_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MASKSSL_DEBUG", "1")
    with pytest.raises(KeyboardInterrupt):
        run_script(lambda: signal.raise_signal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_somebody_handles_is_left_to_him(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        run_script(lambda: signal.raise_signal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, former)
    assert seen == [signal.SIGTERM]
