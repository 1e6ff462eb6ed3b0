"""What is said on a terminal and in a file: who speaks, how long a line is, what moves."""

import json
import logging
import sys
import warnings

import datasets
import pytest
from transformers.utils import logging as transformers_logging

from hf_maskssl import terminal
from hf_maskssl.terminal import (
    VOICE,
    MovingLine,
    OneProcess,
    TerminalHandler,
    counted,
    duration,
    errors_alone,
    looking_ahead,
    no_load_report,
    one_voice,
    say_json,
    shell_line,
    wrapped,
)
from screens import logged
from screens import terminal as screen_of

logger = logging.getLogger("hf_maskssl.tests")


def record(level: int) -> logging.LogRecord:
    return logging.LogRecord("hf_maskssl", level, __file__, 1, "said", None, None)


def test_one_process_speaks_and_the_others_warn_of_their_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = (logging.INFO, logging.WARNING, logging.ERROR)
    monkeypatch.setenv("RANK", "0")
    assert [OneProcess().filter(record(level)) for level in levels] == [True, True, True]
    monkeypatch.setenv("RANK", "1")
    assert [OneProcess().filter(record(level)) for level in levels] == [False, False, True]
    monkeypatch.setattr(VOICE, "shares_rows", True)
    assert [OneProcess().filter(record(level)) for level in levels] == [False, True, True]
    with logged(), pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr(sys, "stderr", type("Stream", (), {"write": written.append, "flush": id, "isatty": bool})())
        logger.warning("a row is empty")
    assert "".join(written).startswith("process 1: a row is empty")


def test_bars_of_libraries_are_silent_and_come_back() -> None:
    before = datasets.are_progress_bars_disabled()
    transformers_logging.enable_progress_bar()
    with one_voice():
        assert datasets.are_progress_bars_disabled() and not transformers_logging.is_progress_bar_enabled()
    assert transformers_logging.is_progress_bar_enabled() and datasets.are_progress_bars_disabled() == before


@pytest.mark.parametrize("propagates", [False, True], ids=["as_installed", "where_ci_is_set"])
def test_warnings_of_transformers_stand_above_the_line(propagates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    library = logging.getLogger("transformers")
    monkeypatch.setattr(library, "propagate", propagates)
    handlers = list(library.handlers)
    root, handler = logging.getLogger(), TerminalHandler()
    with screen_of(monkeypatch) as screen:
        root.addHandler(handler)
        try:
            with one_voice(), one_voice(), MovingLine("step", 2):
                transformers_logging.get_logger("transformers.trainer").warning("what transformers warns of")
        finally:
            root.removeHandler(handler)
    assert screen.lines() == ["what transformers warns of"]
    assert library.propagate == propagates and library.handlers == handlers and handlers


def test_one_logger_is_silenced_but_for_errors(caplog: pytest.LogCaptureFixture) -> None:
    other = logging.getLogger("a.library")
    with errors_alone("a.library"):
        other.warning("no sign")
        other.error("an error")
    other.warning("a sign")
    assert caplog.messages == ["an error", "a sign"]


def test_quiet_leaves_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    with screen_of(monkeypatch) as screen:
        with one_voice(quiet=True), MovingLine("step", 2) as line:
            logger.info("this is not said")
            line.update()
            with one_voice():  # of a part of the work
                logger.info("nor this")
            logger.warning("a warning")
        logger.info("and this is")
    assert screen.lines() == ["a warning", "and this is"]


def test_warnings_of_a_look_ahead_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    handler = TerminalHandler()

    def warn(number: int) -> None:
        handler.emit(logging.LogRecord("hf_maskssl", logging.WARNING, "file", 1, "rows left out: %d", (number,), None))

    with looking_ahead():
        for number in (1, 1, 2):
            warn(number)
    assert capsys.readouterr().err.splitlines() == ["rows left out: 1", "rows left out: 2"]
    for number in (1, 2, 3):
        warn(number)
    assert capsys.readouterr().err.splitlines() == ["rows left out: 3"]
    warn(1)  # news
    assert capsys.readouterr().err.splitlines() == ["rows left out: 1"]


def test_a_report_of_weights_is_silenced_and_nothing_else() -> None:
    level = transformers_logging.get_verbosity()
    with no_load_report():
        assert transformers_logging.get_verbosity() == logging.ERROR
    assert transformers_logging.get_verbosity() == level


def test_a_line_moves_below_what_is_said_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [("loss", "1.23"), *((f"a_part_with_a_long_name_{number}", "0.5") for number in range(3))]
    with screen_of(monkeypatch) as screen:
        with MovingLine("step", 100_000, done=3) as line:
            line.update()
            line.tell(values)
            line.update()
            logger.info("said %s", "in words " * 20)
    assert [len(piece) for piece in screen.pieces() if len(piece) > screen.width] == [] and "\x1b" not in screen.text
    assert len(screen.lines()) == 3 and screen.lines()[0].startswith("said in words")
    assert any("step 5/100000, " in piece and "loss 1.23, a_part_with" in piece for piece in screen.pieces())


def test_a_line_that_is_shown_before_its_time_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with screen_of(monkeypatch) as screen:
        with MovingLine("preparing row", 48, delay=60.0) as line:
            line.update()
            logger.warning("a sound is cut")  # which draws the line anew below it
            line.update(47)
        print("accuracy 1.0", file=sys.stderr)
    assert screen.lines() == ["a sound is cut", "accuracy 1.0"]


def test_a_file_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(), MovingLine("step", 8, done=2) as line:
        line.tell([("loss", "2")])
        line.update(3)
        line.tell([("loss", "1"), ("part", "0.5")])
        logger.info("a line that is longer than a terminal is not broken in a file: %s", "word " * 20)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "step 2/8, ? left, loss 2" and len(third) > 100
    assert second == "step 5/8, 00:00 left, loss 1, part 0.5"


def test_json_lines_hold_what_json_can(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    say_json("log", {"step": 3, "train/loss": 0.5, "probe/rankme": float("nan")})
    assert json.loads(capsys.readouterr().out) == {
        "event": "log",
        "step": 3,
        "train/loss": 0.5,
        "probe/rankme": None,
    }
    monkeypatch.setenv("RANK", "1")
    say_json("log", {})
    assert capsys.readouterr().out == ""


def test_a_warning_of_python_is_one_line() -> None:
    with warnings.catch_warnings():
        text = terminal._one_line_warning("some\n  text", FutureWarning, "/library/file.py", 12)
    assert text == "FutureWarning: some text"


def test_long_lines_are_broken_between_words_and_paths_stay_whole() -> None:
    path = f"/{'a-folder/' * 12}"
    lines = wrapped(f"  output: {path} and more\nshort", 40).split("\n")
    assert lines == ["  output:", f"    {path}", "    and more", "short"]


def test_a_command_goes_on_behind_a_backslash() -> None:
    assert shell_line(["hf-maskssl", "probe", "a"]) == "  hf-maskssl probe a"
    words = ["hf-maskssl", "embed", "m" * 40, "r" * 40, "--output f.parquet"]
    lines = shell_line(words).split("\n")
    assert max(map(len, lines)) <= 80 and [line[-1] for line in lines[:-1]] == ["\\"] * (len(lines) - 1)
    assert " ".join(line.rstrip("\\").strip() for line in lines) == " ".join(words)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.31, "0.3 s"), (5.2, "5 s"), (151.2, "2 min 31 s"), (3600, "1 h"), (90_061, "1 d 1 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_counts_in_words() -> None:
    assert [counted(1, "process"), counted(2, "process"), counted(1500, "row")] == [
        "1 process",
        "2 processes",
        "1,500 rows",
    ]
