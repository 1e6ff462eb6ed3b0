"""Runs the walks of these pages in a terminal of 80 columns, and keeps what it showed: docs/transcripts/NAME.txt.

    python docs/capture.py [WALK ...] [--minutes 2] [--output FOLDER]

A walk begins in an empty folder with data that this script makes. A few commands lead from these to an encoder, its features and
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
    """A few commands from data to something to look at.

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


def write_customers() -> None:
    """customers.csv: 800 rows of numbers, words and yes or no, of which one cell in seven is empty; `left` is the label."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    age, income, visits = random.normal(45, 12, 800), random.lognormal(10, 0.5, 800), random.poisson(6, 800)
    table = pd.DataFrame(
        {
            "age": age.round(),
            "income": income.round(2),
            "visits": visits,
            "plan": np.where(income > 30_000, "gold", np.where(visits > 6, "silver", "basic")),
            "city": random.choice(["Bern", "Lyon", "Turin", "Graz"], 800),
            "newsletter": random.random(800) < 0.2 + 0.05 * visits,
        }
    )
    left = np.where(age + 4 * (6 - visits) + random.normal(0, 8, 800) > 45, "yes", "no")
    table.mask(random.random(table.shape) < 1 / 7).assign(left=left).to_csv("customers.csv", index=False)


def write_gestures() -> None:
    """gestures.csv: 300 recordings of 24 to 60 steps, two channels as lists in a cell, some values null; label `gesture`."""
    import json

    import numpy as np

    random = np.random.default_rng(0)
    with open("gestures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["series", "gesture"])
        for row in range(300):
            steps, kind = random.integers(24, 61), row % 3
            turn = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal((0.2, 0.3, 0.4)[kind], 0.05, steps))
            waves = np.stack([np.sin(turn), np.cos(2 * turn)]) + random.normal(0, 0.5, (2, steps))
            is_lost = random.random((2, steps)) < 0.1
            cells = [
                [None if lost else round(value, 3) for value, lost in zip(*channel, strict=True)]
                for channel in zip(waves, is_lost, strict=True)
            ]
            writer.writerow([json.dumps(cells), ("slow", "middle", "fast")[kind]])


def write_machines() -> None:
    """machines.csv: what four loggers wrote, a row each ten seconds, without some rows and values; `state` is the label."""
    import numpy as np
    import pandas as pd

    random, parts = np.random.default_rng(0), []
    for machine in range(4):
        steps = np.arange(1500)
        kind = (steps // 125 + machine) % 3
        heat = 20 + 30 * np.convolve(kind > 0, np.ones(100) / 100, mode="same")
        turns = np.select([kind == 1, kind == 2], [1 + np.sin(steps / 3), 1 + np.sin(steps / 2)], 0)
        parts.append(
            pd.DataFrame(
                {
                    "machine": f"press {machine}",
                    "time": pd.Timestamp("2024-03-01") + pd.to_timedelta(10 * steps, unit="s"),
                    "current": (turns + random.normal(0, 0.5, 1500)).round(3),
                    "heat": np.where(random.random(1500) < 0.1, np.nan, heat + random.normal(0, 1, 1500)).round(2),
                    "state": np.take(["idle", "cutting", "polishing"], kind),
                }
            )[random.random(1500) > 0.05]
        )
    pd.concat(parts).to_csv("machines.csv", index=False)


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
    *(
        Walk(
            name,
            make_data,
            (
                f"hf-maskssl pretrain {file}.csv --label_column {label} --minutes {{minutes}}",
                f"hf-maskssl probe outputs/{file} {file}.yaml",
                f"hf-maskssl impute outputs/{file} {file}.csv --output filled.csv",
                f"hf-maskssl embed outputs/{file} {data} --output features.parquet",
            ),
            (f"{file}.yaml", "filled.csv", "features.parquet"),
        )
        for name, make_data, file, label, data in (
            ("holes", write_customers, "customers", "left", "customers.csv"),
            ("ragged", write_gestures, "gestures", "gesture", "gestures.csv"),
            (
                "logger",
                write_machines,
                "machines",
                "state",
                "machines.yaml",
            ),  # whose rows are windows with their labels
        )
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
