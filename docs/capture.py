"""Runs the walks of these pages in a terminal of 80 columns, and keeps what it showed: docs/transcripts/NAME.txt.

    python docs/capture.py [WALK ...] [--minutes 2] [--output FOLDER]

A walk begins in an empty folder with data that this script makes. Three commands lead from these to an encoder, its features and
something to look at.
"""

import argparse
import csv
import fcntl
import os
import pty
import pydoc
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 80, 24
TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"
PROMPT = "$ "
PROGRAM = "hf-maskssl"
# Sequences by which a terminal is told of colours and of lines to erase.
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ERASE = "\x1b[K"


@dataclass(frozen=True)
class Walk:
    """Three commands from data to something to look at.

    Attributes:
        name: Name of the transcript.
        make_data: Function that writes the data into the current folder.
        commands: Command lines, in which {minutes} is the time for pre-training.
        files: Names of what must be there at the end.
    """

    name: str
    make_data: Callable[[], None]
    commands: tuple[str, ...]
    files: tuple[str, ...]

    def lines(self, minutes: float) -> list[list[str]]:
        """The words of each command, without the program in front."""
        return [shlex.split(line.format(minutes=f"{minutes:g}"))[1:] for line in self.commands]


def write_wine() -> None:
    """wine.csv: 178 wines, 13 measurements and the cultivar as `target` (scikit-learn's)."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    with open("wine.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*wine.feature_names, "target"])
        writer.writerows([*values, f"cultivar {kind}"] for values, kind in zip(wine.data, wine.target, strict=True))


def write_handwriting() -> None:
    """handwriting/CLASS/NAME.png: 600 handwritten digits of 8 x 8 pixels (scikit-learn's)."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for row in range(600):
        folder = Path("handwriting", str(digits.target[row]))
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.round(digits.images[row] * (255 / 16)).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{row:04}.png")


def write_topics() -> None:
    """topics.txt: the help topics that Python brings along, a paragraph a line."""
    from pydoc_data.topics import topics

    with open("topics.txt", "w", encoding="utf-8") as file:
        for name in sorted(topics):
            paragraphs = re.split(r"\n\s*\n", pydoc.plain(topics[name]))
            lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
            file.writelines(f"{line}\n" for line in lines if len(line) >= 40)


WALKS = (
    Walk(
        "tabular",
        write_wine,
        (
            "hf-maskssl pretrain wine.csv --minutes {minutes}",
            "hf-maskssl embed outputs/wine wine.csv --output features.parquet",
            "hf-maskssl map features.parquet --color target --output map.png map.html",
        ),
        ("wine.yaml", "features.parquet", "map.png", "map.html"),
    ),
    Walk(
        "image",
        write_handwriting,
        (
            "hf-maskssl pretrain handwriting --minutes {minutes}",
            "hf-maskssl embed outputs/handwriting handwriting --output features.parquet",
            "hf-maskssl neighbors features.parquet --query 0 100 200 --output hits.png",
        ),
        ("handwriting.yaml", "features.parquet", "hits.png"),
    ),
    Walk(
        "text",
        write_topics,
        (
            "hf-maskssl pretrain topics.txt --minutes {minutes}",
            "hf-maskssl embed outputs/topics topics.txt --output features.parquet",
            "hf-maskssl export outputs/topics --output topics-onnx",
        ),
        ("topics.yaml", "features.parquet", "topics-onnx"),
    ),
)


def run_walk(walk: Walk, folder: Path, minutes: float, program: Sequence[str]) -> str:
    """Run the commands of a walk in a folder.

    Args:
        walk: Walk to take.
        folder: Empty folder, where it begins.
        minutes: Time for pre-training, in minutes.
        program: Words that call the command line, such as ["hf-maskssl"].

    Returns:
        What the terminal shows at the end.

    Raises:
        RuntimeError: A command has failed, or a file is missing at the end.
    """
    here = Path.cwd()
    os.chdir(folder)
    try:
        walk.make_data()
        shown = []
        for line, words in zip(walk.commands, walk.lines(minutes), strict=True):
            shown.append(PROMPT + line.format(minutes=f"{minutes:g}"))
            code, text = in_terminal([*program, *words])
            shown.append(text)
            if code:
                raise RuntimeError(f"walk {walk.name}: exit code {code} of {line}\n{text}")
        missing = [name for name in walk.files if not Path(name).exists()]
        if missing:
            raise RuntimeError(f"walk {walk.name}: {missing} are missing at the end")
    finally:
        os.chdir(here)
    return "\n".join(shown) + "\n"


def in_terminal(words: Sequence[str]) -> tuple[int, str]:
    """Exit code of a command, and what a terminal shows of it at the end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": str(HEIGHT), "TERM": "xterm"}
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    parts = []
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    return process.wait(), shown(b"".join(parts).decode(errors="replace"))


def shown(text: str) -> str:
    """The lines that are left when all has been overwritten that a carriage return takes back."""
    lines = []
    for written in text.replace("\r\n", "\n").split("\n"):
        line = ""
        for piece in written.split("\r"):
            plain = CODES.sub("", piece)
            line = plain if ERASE in piece else plain + line[len(plain) :]
        lines.append(line.rstrip())
    return "\n".join(lines).strip("\n")


def unfit(text: str, folder: Path) -> list[str]:
    """Lines of a transcript that name a place on this machine, or are wider than the terminal."""
    places = [str(folder), str(folder.resolve()), str(Path.home()) + os.sep]
    return [
        line
        for line in text.splitlines()
        if any(place in line for place in places) or (len(line) > WIDTH and not line.startswith(PROMPT))
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("walks", nargs="*", metavar="WALK", help=f"some of {[walk.name for walk in WALKS]}")
    parser.add_argument("--minutes", type=float, default=2.0, help="time for pre-training; default: %(default)s")
    parser.add_argument("--output", type=Path, default=TRANSCRIPTS, help="folder of the transcripts")
    options = parser.parse_args()
    unknown = set(options.walks) - {walk.name for walk in WALKS}
    if unknown:
        parser.error(f"no walk {sorted(unknown)}; there are {[walk.name for walk in WALKS]}")
    options.output.mkdir(parents=True, exist_ok=True)
    for walk in WALKS:
        if options.walks and walk.name not in options.walks:
            continue
        with tempfile.TemporaryDirectory() as name:
            os.environ["HF_HOME"] = str(Path(name, "cache"))  # nothing that an earlier run has left
            folder = Path(name, "walk")
            folder.mkdir()
            text = run_walk(walk, folder, options.minutes, [sys.executable, "-m", "hf_maskssl"])
            wrong = unfit(text, Path(name))
        if wrong:
            raise RuntimeError(f"walk {walk.name}: lines that do not fit a transcript: {wrong}")
        (options.output / f"{walk.name}.txt").write_text(text, encoding="utf-8")
        print(f"{options.output / walk.name}.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
