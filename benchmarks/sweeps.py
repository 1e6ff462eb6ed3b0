"""The papers' ablations at reduced size: the package's sweeps with all their seeds, one table each.

    python benchmarks/sweeps.py [SWEEP ...] [--workers 1] [--tables_only]

Each is `hf-maskssl sweep SWEEP`, whose runs stay in outputs/sweeps and are left out the next time; its results come to
benchmarks/results/sweeps, and the tables of all of them to benchmarks/results/sweeps.json.
"""

import argparse
import json
import subprocess
import sys

from common import RESULTS, ROOT, begin

from hf_maskssl.files import write_json
from hf_maskssl.training.sweeps.sweep_file import sweep_names

SWEEPS = RESULTS / "sweeps"
OUTPUTS = ROOT / "outputs" / "sweeps"


def run(name: str, workers: int) -> None:
    """Run what is left of a sweep, and keep its results."""
    output = OUTPUTS / name
    command = [
        sys.executable,
        "-m",
        "hf_maskssl",
        "sweep",
        name,
        "--output_dir",
        str(output),
        "--workers",
        str(workers),
    ]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(f"{name}: the sweep ended with {code}; the runs that ended stay in {output}.")
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    write_json(SWEEPS / f"{name}.json", results)


def write_tables() -> None:
    """benchmarks/results/sweeps.json, a table for each sweep that has run."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SWEEPS.glob("*.json"))}
    write_json(
        RESULTS / "sweeps.json",
        {
            "what": "sweeps at their reduced size: means and 95 % intervals over seeds, differences paired by seed",
            "hardware": "CPU",
            "tables": {name: results["table"] for name, results in found.items()},
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="names of the package's sweeps; default: all")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tables_only", action="store_true", help="make the tables of the sweeps that have run")
    options = parser.parse_args()
    begin(SWEEPS)
    if not options.tables_only:
        for name in options.sweeps or sweep_names():
            run(name, options.workers)
    write_tables()


if __name__ == "__main__":
    main()
