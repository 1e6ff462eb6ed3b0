"""How a script ends: by a user's mistake with one line and exit code 2, by a fault of the code with its traceback, by Ctrl-C or
SIGTERM with one line and the exit code of a shell."""

import argparse
import dis
import json
import os
import pickle
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from .extras import extra_of, missing_extra

DEBUG_OPTION, DEBUG_VARIABLE = "--debug", "HF_MASKSSL_DEBUG"
EXIT_CODE = 2  # argparse's own
# Errors that checks of input raise. A TypeError or an AttributeError is no user's, wherever it is raised.
MISTAKES = (ValueError, ImportError, LookupError, RuntimeError)
# Packages whose checks are of what a user gives.
CHECKING = (
    "hf_maskssl",
    "transformers",
    "datasets",
    "huggingface_hub",
    "accelerate",
    "evaluate",
    "transformers_modules",
)
RAISE = dis.opmap["RAISE_VARARGS"]
# A frame in the text of a traceback: its file and, where that can be read, its line.
FRAME = re.compile(r'^\s*File "([^"]+)", line \d+, in [^\n]*(?:\n\s+([^\n]*))?', flags=re.MULTILINE)
LONGEST_WORD, LONGEST_LINE = 200, 1200
ONCE_MORE = "give the same command again"
# Signals that end a script -> what they are called, and the handler that a script of ours replaces; any other one stays.
ENDING: dict[int, tuple[str, object]] = {
    signal.SIGINT: ("Ctrl-C", signal.default_int_handler),
    signal.SIGTERM: ("SIGTERM", signal.SIG_DFL),
}
PATIENCE = 5.0  # seconds that other processes leave the first one of a machine to report what stopped them all


class UserError(SystemExit, ValueError):
    """The end of a script by a user's mistake that has been printed; also a ValueError, for who runs the script in Python.

    Args:
        message: Text that was printed behind "error: ".
    """

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self) -> str:
        return self.message


class OneLineErrors(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of `run_script`; base of the parsers of all scripts."""

    def error(self, message: str) -> NoReturn:
        """End the script.

        Raises:
            UserError: Always.
        """
        end(f"{message} (--help lists what {self.prog.rpartition('/')[2]} takes)")


class EndedBySignal(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came.

    A class of its own: where KeyboardInterrupt itself passes an `exec`, as of an import, Python ends by SIGINT, whatever exit
    code the script gives.
    """


class EndSignals:
    """A context in which Ctrl-C and SIGTERM raise `EndedBySignal`, so that what is half done is put away; then the former
    handlers are back.

    A process that is forked meanwhile, to prepare rows, ends of them without a word: the script says it for all. Where somebody
    else handles a signal, or ignores it, and outside the main thread, nothing is changed.

    Attributes:
        received: Number of the first signal that came; None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._process = os.getpid()
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "EndSignals":
        if threading.current_thread() is threading.main_thread():
            for number, (_, usual) in ENDING.items():
                if signal.getsignal(number) == usual:
                    self._former[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            os._exit(0)  # another code would be news of its own to whoever waits for this process
        self.received = self.received or number
        raise EndedBySignal


def run_script(main: Callable[[], object], after_signal: str = ONCE_MORE) -> None:
    """Run what a script does; a user's mistake ends it with one line on stderr, "error: ...", and exit code 2, Ctrl-C or SIGTERM
    with a line that says what to do, and exit code 130 or 143.

    `--debug` anywhere on the command line, or HF_MASKSSL_DEBUG=1, lets the error through with its traceback. So is every error
    let through that no check of input has raised (`is_mistake`).

    Args:
        main: The script; it reads `sys.argv`, from which `--debug` is taken.
        after_signal: Advice to who has stopped it.

    Raises:
        UserError: The end of the script.
        SystemExit: The end by a signal.
    """
    debug = os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    if DEBUG_OPTION in sys.argv[1:]:
        sys.argv[1:] = [word for word in sys.argv[1:] if word != DEBUG_OPTION]
        debug = True
    with EndSignals() as signals:
        try:
            main()
        except (KeyboardInterrupt, Exception) as error:
            if debug or isinstance(error, UserError):  # a UserError is printed already
                raise
            # Also another error than KeyboardInterrupt: what is torn apart by a signal may fail in a way of its own.
            if signals.received is not None or isinstance(error, KeyboardInterrupt):
                _end_by(signals.received or signal.SIGINT, after_signal)
            if isinstance(error, BrokenPipeError) and _reader_has_gone():
                raise SystemExit(1) from None
            if isinstance(error, BrokenPipeError) or not is_mistake(error):
                raise
            end(one_line(error), error)


def recipe_words(document: str) -> tuple[str, list[str]]:
    """The command line `RECIPE.yaml [--any_field value ...]` as recipe and overrides.

    Args:
        document: Text that `--help` prints.

    Raises:
        SystemExit: Help was asked for.
        ValueError: No recipe stands in front.
    """
    words = sys.argv[1:]
    if words and words[0] in ("-h", "--help"):
        print(document.strip())
        raise SystemExit(0)
    if not words or words[0].startswith("-"):
        came = f"got {words[0]}" if words else "got nothing"
        raise ValueError(
            f"RECIPE: expected the path or name of a recipe in front of all options, {came} (--help shows how)"
        )
    return words[0], words[1:]


def end(message: str, cause: Exception | None = None) -> NoReturn:
    """Print a mistake, once for all processes of a launch, and end the script.

    Raises:
        UserError: Always.
    """
    _report(f"error: {message}")
    raise UserError(message) from cause


def _end_by(number: int, advice: str) -> NoReturn:
    """End the script as a shell says of one that a signal has ended; the first process of a machine says so.

    Raises:
        SystemExit: Always.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        _say(f"stopped by {ENDING[number][0]}: {advice}")
    raise SystemExit(128 + number) from None


def is_mistake(error: Exception) -> bool:
    """Whether an error tells a user what to change: one about a file, a folder or the network, or one of a check.

    A check raises one of this package's own errors, or it is a `raise` statement in this package, in the script or in a library
    of Hugging Face; the same class of error out of torch, NumPy or Python itself (`int("x")`, a broadcast) is something that no
    check has foreseen, so a fault of the code.
    """
    if isinstance(error, (OSError, pickle.UnpicklingError)) or type(error).__module__.startswith("hf_maskssl."):
        return True
    if extra_of(error) is not None:  # wherever its package is imported
        return True
    if not isinstance(error, MISTAKES):
        return False
    text = _remote_traceback(error)
    if text is not None:
        frames = FRAME.findall(text)
        return bool(frames) and _is_checking(frames[-1][0]) and frames[-1][1].startswith("raise ")
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and _is_checking(last.tb_frame.f_code.co_filename) and _is_raise(last)


def _reader_has_gone() -> bool:
    """Whether what reads stdout, such as `head`, has ended; what is left goes nowhere then, so that Python can end in peace."""
    try:
        sys.stdout.flush()
        if not _is_broken(sys.stdout.fileno()):
            return False
    except BrokenPipeError:
        pass
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _is_broken(descriptor: int) -> bool:
    """Whether nobody reads a pipe. Of a stream without a buffer (PYTHONUNBUFFERED) there is nothing left whose flushing tells."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def one_line(error: Exception) -> str:
    """An error's message in one line, without what only repeats a long value."""
    message, extra = str(error), extra_of(error)
    if isinstance(error, ImportError) and extra is not None and "pip install" not in message:
        message = str(missing_extra("This command", extra, error))
    if isinstance(error, pickle.UnpicklingError):  # torch's goes on for a page, and advises to run what is in the file
        message = (
            "a file holds more than tensors and was not read, as it could run code: take weights saved as safetensors"
        )
    if _is_of_a_worker(message):
        text = message[[found.end() for found in FRAME.finditer(message)][-1] :]
        message = text.partition(f"{type(error).__name__}: ")[2] or text
    if isinstance(error, KeyError) and len(error.args) == 1:
        message = str(error.args[0])  # the message itself, not its repr
    words = [_shortened(word) for word in re.sub(r"\s*[\r\n]+\s*", " ", message.strip()).split(" ")]
    line = " ".join(words) or type(error).__name__
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}... ({DEBUG_OPTION} shows the rest)"


def _shortened(word: str) -> str:
    """What is no path and longer than a reader can use, cut."""
    return word if len(word) <= LONGEST_WORD or os.sep in word else f"{word[: LONGEST_WORD - 3]}..."


def _is_of_a_worker(message: str) -> bool:
    """Whether an error was raised again for a worker of a `DataLoader`, whose traceback is then part of its message."""
    return message.startswith("Caught ") and "Original Traceback" in message and FRAME.search(message) is not None


def _remote_traceback(error: Exception) -> str | None:
    """The traceback of another process as text, where an error was raised there first."""
    if _is_of_a_worker(str(error)):
        return str(error)
    cause = error.__cause__
    return str(cause) if cause is not None and type(cause).__name__ == "RemoteTraceback" else None


def _is_checking(file: str) -> bool:
    modules = [sys.modules[name] for name in CHECKING if name in sys.modules]
    folders = [str(Path(module.__file__).parent) for module in modules if module.__file__]
    if any(file.startswith(folder + os.sep) for folder in folders):
        return True
    # The script and what lies beside it, but no environment there.
    path = Path(file).absolute()
    return path.is_relative_to(Path(sys.argv[0]).absolute().parent) and "site-packages" not in path.parts


def _is_raise(place: TracebackType) -> bool:
    """Whether the statement that a traceback ends at is `raise`."""
    return place.tb_frame.f_code.co_code[place.tb_lasti] == RAISE


def _report(line: str) -> None:
    """Print a line, once for the processes of a launch: the first one of a machine does, whom the launcher then ends.

    Under torch's launcher, which prints pages of its own at the end, the line becomes part of these, at their end.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and int(os.environ.get("LOCAL_RANK", 0)) > 0:
        # The launcher stops this process as soon as the first one has ended. It does not where the mistake is in this
        # process's share of the data alone.
        time.sleep(PATIENCE)
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps({"message": f"\n{line}", "timestamp": int(time.time())}), encoding="utf-8")
        return
    _say(line)


def _say(line: str) -> None:
    """Print a line on stderr, broken between words where the terminal ends; in a file it stays one."""
    from .terminal import terminal_width, wrapped  # here, as a page of help needs none of it

    sys.stdout.flush()
    print(wrapped(line, terminal_width()) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
