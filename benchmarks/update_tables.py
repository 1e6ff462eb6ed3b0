"""Write the tables of README.md and model_cards/ from benchmarks/results/*.json: `make tables`.

    python benchmarks/update_tables.py [--check]

With --check nothing is written; the exit code is 1 when a table differs from its results.
"""

import argparse
import sys
from pathlib import Path

from hf_maskssl.evaluation.reports import update_tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def files_with_tables() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "model_cards").glob("*.md"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, only tell")
    options = parser.parse_args()
    changed = update_tables(files_with_tables(), RESULTS, options.check)
    for path in changed:
        print(f"{path.relative_to(ROOT)} {'is out of date' if options.check else 'was rewritten'}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
