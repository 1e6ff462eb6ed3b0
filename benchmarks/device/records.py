"""JSON lines that survive whatever ends their writer, and what a run of the kit notes about its machine.

    python benchmarks/device/records.py machine FILE      a line about the machine, its libraries and the code's commit
    python benchmarks/device/records.py tests FILE XML    a line for each test of a JUnit report
    python benchmarks/device/records.py gather FILE FOLDER [--known FOLDER] [--every SECONDS]

`gather` appends {"path": ..., "result": ...} for every JSON file under FOLDER that is new or has changed since it was last
appended, but not for those that --known holds alike; with --every it goes on until it is ended.
"""

import argparse
import datetime
import json
import os
import platform
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "transformers", "tokenizers", "accelerate", "datasets", "huggingface-hub", "numpy")
LONGEST_TEXT = 4000  # characters of a failed test's report


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line; it is written by one call, so that writers side by side do not mix theirs.

    Raises:
        ValueError: The record holds NaN or an infinite number, which JSON has not.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode("utf-8"))
    finally:
        os.close(handle)


def describe_machine() -> dict[str, Any]:
    """What the numbers of this machine depend on."""
    import torch

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    described: dict[str, Any] = {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": os.environ.get("HF_MASKSSL_COMMIT", "unknown"),
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "versions": versions,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        described |= {
            "cuda": torch.version.cuda,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_mib": properties.total_memory // 2**20,
            "multiprocessors": properties.multi_processor_count,
        }
    return described


def read_tests(report: Path) -> list[dict[str, Any]]:
    """A record for each test: `passed` is None for one that was skipped, `note` says why it was, or why it failed."""
    if not report.is_file():
        return [{"stage": "tests", "check": "pytest", "passed": None, "note": "cut off before its report was written"}]
    found = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        record: dict[str, Any] = {
            "stage": "tests",
            "check": f"{case.get('classname')}.{case.get('name')}",
            "passed": True,
            "seconds": float(case.get("time") or 0),
        }
        for outcome in case:
            if outcome.tag in ("failure", "error"):
                record |= {"passed": False, "note": (outcome.text or outcome.get("message") or "")[-LONGEST_TEXT:]}
            elif outcome.tag == "skipped":
                record |= {"passed": None, "note": outcome.get("message") or "skipped"}
        found.append(record)
    return found


def gather(target: Path, folder: Path, known: Path | None, seen: dict[str, Any]) -> int:
    """Append what is new under `folder`; `seen` (path -> result) remembers it. Returns the number of lines."""
    count = 0
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        result = read_json(path)
        if result is None or seen.get(name) == result or (known is not None and read_json(known / name) == result):
            continue
        append(target, {"path": name, "result": result})
        seen[name] = result
        count += 1
    return count


def read_json(path: Path) -> Any:
    """None for a file that is not there, or still being written: the next round has it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def already_gathered(target: Path) -> dict[str, Any]:
    """What earlier calls appended: path -> result."""
    if not target.is_file():
        return {}
    records = map(json.loads, target.read_text(encoding="utf-8").splitlines())
    return {record["path"]: record["result"] for record in records}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("machine", "tests", "gather"):
        action = actions.add_parser(name)
        action.add_argument("file", type=Path)
        if name == "tests":
            action.add_argument("report", type=Path)
        if name == "gather":
            action.add_argument("folder", type=Path)
            action.add_argument("--known", type=Path)
            action.add_argument("--every", type=float)
    options = parser.parse_args()
    if options.action == "machine":
        record = describe_machine()
        append(options.file, record)
        print(json.dumps(record, indent=1))
    elif options.action == "tests":
        records = read_tests(options.report)
        for record in records:
            append(options.file, record)
        outcomes = [record["passed"] for record in records]
        print(
            f"tests: {outcomes.count(True)} passed, {outcomes.count(False)} failed, {outcomes.count(None)} skipped",
            *(f"{record['check']}: {record['note']}" for record in records if record["passed"] is False),
            sep="\n",
        )
    else:
        seen = already_gathered(options.file)
        while True:
            count = gather(options.file, options.folder, options.known, seen)
            if options.every is None:
                print(f"{count} results gathered")
                return
            time.sleep(options.every)


if __name__ == "__main__":
    main()
