"""Take what a run of run.sh wrote into benchmarks/results.

    python benchmarks/device/collect.py FOLDER [--results benchmarks/results]

FOLDER holds machine.jsonl, and of correctness.jsonl, speed.jsonl, stages.jsonl and claims.jsonl what there is. The first four
become results/device/CARD-DATE/{machine,correctness,speed,stages}.json (a second run of a day CARD-DATE-2), each line of the
last the file results/claims/PATH that it names. What is there already and alike is passed over; what is there and differs,
and lines that are cut off or broken, are named, nothing is overwritten, and the exit status is 1.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from hf_maskssl.files import write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = ("correctness", "speed", "stages")
CLAIMS = "claims"
UNKNOWN = "unknown"  # commit of a result made where there is no repository


class CollectError(Exception):
    """The folder cannot be collected; the message says why."""


class Collector:
    """Merges one folder; `problems` is what somebody has to look at."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder, results
        self.problems: list[str] = []

    def run(self) -> None:
        """Merge everything.

        Raises:
            CollectError: The folder does not say which machine it comes from.
        """
        if not self.folder.is_dir():
            raise CollectError(f"{self.folder} is no folder: name the one that run.sh wrote to")
        machines = [record for _, record in self._read("machine.jsonl")]
        if not machines or not {"card", "started"} <= machines[-1].keys():
            raise CollectError(
                f"{self.folder / 'machine.jsonl'} has no line with card and started: not run.sh's folder"
            )
        machine = machines[-1]
        self._measurements(machine, machines)
        self._claims(machine)

    def _measurements(self, machine: dict[str, Any], machines: list[dict[str, Any]]) -> None:
        target = self._target(machine)
        files = {"machine": machines} | {
            name: [record for _, record in self._read(f"{name}.jsonl")] for name in MEASURED
        }
        for name, records in files.items():
            path = target / f"{name}.json"
            if not records:
                print(f"{name}: nothing")
            elif not path.is_file():
                write_json(path, records)
                print(f"{path}: {len(records)} records")
            elif json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(records)):
                print(f"{path}: there already")
            else:
                self._problem(f"{path} is there already with other records: remove it, or collect what is new by hand")

    def _target(self, machine: dict[str, Any]) -> Path:
        """The folder of this run: found again when it was collected before."""
        card = re.sub(r"[^a-z0-9]+", "-", str(machine["card"]).lower()).strip("-")
        name = f"{card}-{str(machine['started'])[:10]}"
        number = 1
        while True:
            target = self.results / "device" / (name if number == 1 else f"{name}-{number}")
            path = target / "machine.json"
            if not path.is_file() or json.loads(path.read_text(encoding="utf-8"))[-1]["started"] == machine["started"]:
                return target
            number += 1

    def _claims(self, machine: dict[str, Any]) -> None:
        newest: dict[str, tuple[str, Any]] = {}
        for place, record in self._read("claims.jsonl"):
            if not isinstance(record.get("path"), str) or not isinstance(record.get("result"), dict):
                self._problem(f"{place}: expected path and result, got {', '.join(record) or 'nothing'}")
                continue
            newest[record["path"]] = (place, record["result"])  # a later line is the same run, further on
        counts = {"new": 0, "there already": 0}
        for name, (place, result) in newest.items():
            if problem := find_path_problem(name):
                self._problem(f"{place}: {name!r} {problem}")
                continue
            if result.get("commit") == UNKNOWN:
                result = {**result, "commit": machine.get("commit", UNKNOWN)}
            path = self.results / CLAIMS / name
            if not path.is_file():
                write_json(path, result)
                counts["new"] += 1
            elif json.loads(path.read_text(encoding="utf-8")) == result:
                counts["there already"] += 1
            else:
                self._problem(f"{place}: {path} is there already with another result, which stays")
        print("claims: " + ", ".join(f"{count} {what}" for what, count in counts.items()))

    def _read(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Place and record of each sound line."""
        path = self.folder / name
        if not path.is_file():
            return
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                yield f"{path}:{number}", record
            else:
                self._problem(f"{path}:{number} is cut off or broken and left out: {line[:60]}")

    def _problem(self, sentence: str) -> None:
        self.problems.append(sentence)


def find_path_problem(name: str) -> str | None:
    """Why a result cannot be written to this path below results/claims; None when it can."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the claims' results"
    if path.suffix != ".json" or len(path.parts) < 2:
        return "is not CLAIM/RUN.json"
    claims = ROOT / "benchmarks" / "claims"
    if not any(claims.glob(f"{path.parts[0]}.*")):
        return f"is of no claim in {claims.relative_to(ROOT)}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    collector = Collector(options.folder, options.results)
    try:
        collector.run()
    except CollectError as error:
        raise SystemExit(f"collect: {error}.") from error
    for sentence in collector.problems:
        print(f"collect: {sentence}", file=sys.stderr)
    if collector.problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
