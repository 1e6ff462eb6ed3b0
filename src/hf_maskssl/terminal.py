"""What a run says on a terminal: one process speaks, one line moves, and no line is longer than the terminal is wide."""

import json
import logging
import math
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from tqdm.auto import tqdm as notebook_or_terminal_tqdm
from tqdm.std import tqdm

from .files import JsonView

PACKAGE = "hf_maskssl"
WIDTH = 80
# Seconds for which work that soon ends shows no line that moves.
PATIENCE = 1.0
LINE = "{desc} {n_fmt}/{total_fmt}, {remaining} left{postfix}"  # in tqdm's words, as the next one is in logging's
PLAIN_LINE = "%s %d/%d, %s left, %s"

logger = logging.getLogger(__name__)


@dataclass
class Voice:
    """What the run of this process may say at present.

    Attributes:
        is_quiet: Whether it says nothing but warnings.
        shares_rows: Whether each process works on a share of the rows, so that another one's warnings are news.
        looks_ahead: Whether it does beforehand what will be done again, so that its warnings will come again.
        told: Warnings of such work, each of which is left out the next time.
    """

    is_quiet: bool = False
    shares_rows: bool = False
    looks_ahead: bool = False
    told: set[str] = field(default_factory=set)


VOICE = Voice()


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def wrapped(text: str, width: int = WIDTH) -> str:
    """Text whose lines are broken between words at `width` columns; what follows is indented, a path stays whole."""
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip())) + "  "
        wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)
        lines += wrap.wrap(line) or [""]
    return "\n".join(lines)


def is_first_process() -> bool:
    """Whether this is the process of a launch that speaks; known before anything of the launch is set up."""
    return int(os.environ.get("RANK", 0)) == 0


class OneProcess(logging.Filter):
    """Lets the lines of one process through, and of the others their errors.

    Before they train the others do the same work, so say the same; then their warnings pass, too, with their number.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if is_first_process() or record.levelno >= logging.ERROR:
            return True
        return VOICE.shares_rows and record.levelno >= logging.WARNING


class TerminalHandler(logging.Handler):
    """Lines on stderr: above the line that moves, and broken where the terminal ends; in a file as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(OneProcess())

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not is_first_process():
            text = f"process {os.environ['RANK']}: {text}"
        return wrapped(text, terminal_width()) if sys.stderr.isatty() else text

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and _was_told(record.getMessage()):
            return
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:  # as every handler of logging: what cannot be said stops nothing
            self.handleError(record)


def _was_told(message: str) -> bool:
    """Whether a warning has been said by a look ahead; it counts as repeated once."""
    if message in VOICE.told:
        if not VOICE.looks_ahead:
            VOICE.told.discard(message)
        return True
    if VOICE.looks_ahead:
        VOICE.told.add(message)
    return False


@contextmanager
def looking_ahead() -> Iterator[None]:
    """Say each warning of some work once, and not again when the same is done in earnest."""
    VOICE.looks_ahead = True
    try:
        yield
    finally:
        VOICE.looks_ahead = False


def log_to_terminal() -> None:
    """Let this package's log, and the warnings of others, go to stderr by `TerminalHandler`; for scripts."""
    warnings.formatwarning = _one_line_warning
    logging.captureWarnings(True)
    logging.basicConfig(format="%(message)s", handlers=[TerminalHandler()])
    logging.getLogger(PACKAGE).setLevel(logging.INFO)


def _one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the place in the code of a library, which tells a user nothing."""
    return f"{category.__name__}: {' '.join(str(message).split())}"


@contextmanager
def one_voice(quiet: bool = False) -> Iterator[None]:
    """Silence, while a run works, what is not the run's: bars of `datasets`, transformers and the Hub.

    Args:
        quiet: Whether to silence the run, too, but for its warnings.
    """
    # Imported here, because a verb that only lists something needs neither.
    import datasets
    from transformers.utils import logging as transformers_logging

    had_bars = transformers_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    package, before = logging.getLogger(PACKAGE), (VOICE.is_quiet, VOICE.shares_rows)
    level = package.level
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # Its warnings would break the line that moves: they go to the root's handler, where that is a script's.
    # Both are put back as they were: where CI is set, transformers leaves its handler on and propagates, too.
    transformers_logger = logging.getLogger("transformers")
    handlers, propagates = list(transformers_logger.handlers), transformers_logger.propagate
    if _has_terminal_handler():
        transformers_logging.disable_default_handler()
        transformers_logging.enable_propagation()
    VOICE.is_quiet = quiet or VOICE.is_quiet
    if quiet:
        package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        if had_bars[0]:
            transformers_logging.enable_progress_bar()
        if had_bars[1]:
            datasets.enable_progress_bars()
        transformers_logger.handlers, transformers_logger.propagate = handlers, propagates
        if quiet:
            package.setLevel(level)
        VOICE.is_quiet, VOICE.shares_rows = before


def _has_terminal_handler() -> bool:
    return any(isinstance(handler, TerminalHandler) for handler in logging.getLogger().handlers)


@contextmanager
def errors_alone(name: str) -> Iterator[None]:
    """Silence the warnings of one logger of a library, which are none for a user."""
    with silenced(name, logging.ERROR):
        yield


@contextmanager
def silenced(name: str, below: int = logging.CRITICAL) -> Iterator[None]:
    """Silence one logger of a library, also its errors, where the caller deals with them.

    Args:
        name: Name of the logger.
        below: Level from which records still pass.
    """
    logger_of_library = logging.getLogger(name)
    level = logger_of_library.level
    logger_of_library.setLevel(below)
    try:
        yield
    finally:
        logger_of_library.setLevel(level)


@contextmanager
def no_load_report() -> Iterator[None]:
    """Silence transformers' report of weights that are new, where the caller looks at these itself."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


class MovingLine:
    """The one line that moves: how far the work is, the time that is left, and named values.

    It stands on stderr while that is a terminal, and leaves nothing behind. In a file the values are a plain line of the log,
    each time that they are told.

    Args:
        what: Name of what is done, in front of the numbers: "step".
        total: Number of units of all work.
        done: Number of units that were done before.
        delay: Seconds for which nothing is shown.
    """

    def __init__(self, what: str, total: int, done: int = 0, delay: float = 0.0) -> None:
        self.what, self.total, self.done = what, total, done
        self._started, self._done_before = time.perf_counter(), done
        speaks = not VOICE.is_quiet and is_first_process()
        self._is_plain = speaks and not sys.stderr.isatty()
        self._bar = notebook_or_terminal_tqdm(
            total=total,
            initial=done,
            desc=what,
            bar_format=LINE,
            delay=delay,
            leave=False,
            dynamic_ncols=True,
            disable=not speaks or self._is_plain,
        )

    def update(self, units: int = 1) -> None:
        """Count units that were done."""
        self.done += units
        self._bar.update(units)

    def tell(self, values: Sequence[tuple[str, str]]) -> None:
        """Show values, the weightiest first; on a terminal as many as fit."""
        words = [f"{name} {value}" for name, value in values]
        if self._is_plain:
            logger.info(PLAIN_LINE, self.what, self.done, self.total, self._left(), ", ".join(words))
            return
        longest = PLAIN_LINE % (self.what, self.total, self.total, self._left(), "")
        while words and len(longest + ", ".join(words)) > terminal_width():
            words.pop()
        self._bar.set_postfix_str(", ".join(words), refresh=False)

    def _left(self) -> str:
        """Time for what is left, as tqdm writes it."""
        done = self.done - self._done_before
        if not done:
            return "?"
        return tqdm.format_interval((self.total - self.done) * (time.perf_counter() - self._started) / done)

    def close(self) -> None:
        """Take the line away, also one that a line of the log has shown before its time, of which tqdm does not know."""
        self._bar.clear()
        self._bar.close()

    def __enter__(self) -> "MovingLine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def say_json(event: str, values: JsonView) -> None:
    """Print an event of a run as a line of JSON on stdout, once for all processes; what is no finite number is null."""
    if not is_first_process():
        return
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    tqdm.write(json.dumps({"event": event, **plain}, ensure_ascii=False), file=sys.stdout)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """A time in words: "2 min 31 s"."""
    whole = round(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    found = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(found[:2]) or f"{seconds:.1f} s"


def counted(count: int, unit: str) -> str:
    """A number of things: "1 process", "2 processes"."""
    plural = unit if count == 1 else f"{unit}es" if unit.endswith("s") else f"{unit}s"
    return f"{count:,} {plural}"


def shell_line(words: Sequence[str], width: int = WIDTH) -> str:
    """A command to type, indented, on as many lines as it takes: each but the last ends in a backslash.

    Args:
        words: Words of the command, quoted for a shell; those of one entry stay together.
        width: Columns of the terminal.
    """
    lines = [f"  {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + len("  \\") > width:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)
