"""What a terminal of 80 columns shows: a pseudo-terminal in the place of stderr, and the lines that stand there at last."""

import fcntl
import logging
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from hf_maskssl.terminal import PACKAGE, TerminalHandler

WIDTH = 80


@dataclass
class Screen:
    """A terminal; `text` holds all that was written there, once it has been closed."""

    width: int = WIDTH
    parts: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        return b"".join(self.parts).decode().replace("\r\n", "\n")

    def lines(self) -> list[str]:
        """The lines that are left when all has been overwritten that a carriage return takes back."""
        shown = []
        for written in self.text.split("\n"):
            line = ""
            for piece in written.split("\r"):
                line = piece + line[len(piece) :]
            shown.append(line.rstrip())
        return [line for line in shown if line]

    def pieces(self) -> list[str]:
        """All that stood on a line at any time."""
        return re.split(r"[\r\n]", self.text)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """Let stderr, and the package's log, go to a terminal."""
    screen = Screen()
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, screen.width, 0, 0))

    def read() -> None:
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                return
            if not part:
                return
            screen.parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with monkeypatch.context() as patch, os.fdopen(slave, "w", encoding="utf-8") as stream:
            patch.setattr(sys, "stderr", stream)
            patch.setenv("COLUMNS", str(screen.width))
            with logged():
                yield screen
    finally:
        reader.join()
        os.close(master)


@contextmanager
def logged() -> Iterator[None]:
    """As `log_to_terminal` sets a script up, and no longer than the test."""
    handler, package = TerminalHandler(), logging.getLogger(PACKAGE)
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


def unexpected(lines: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """Lines that match none of the patterns."""
    return [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in allowed)]
