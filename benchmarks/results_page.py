"""Writes the part of docs/results.md that follows from the claims' runs, between its markers, and the pictures beside it.

python benchmarks/results_page.py [--check]
"""

import argparse
import sys
from pathlib import Path

from common import RESULTS, ROOT
from evidence.claim import load_claims
from evidence.page import write_page
from evidence.runs import read_results
from evidence.verdict import Ledger

PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- claims -->\n", "<!-- /claims -->\n"


def filled(page: str, claims: str) -> str:
    """The page with what stands between its markers replaced.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} needs the lines {BEGIN.strip()} and {END.strip()}, with the claims between them.")
    return f"{before}{BEGIN}\n{claims}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 when the page is out of date"
    )
    options = parser.parse_args()
    ledger = Ledger(load_claims(Path(__file__).resolve().parent / "claims"), read_results(RESULTS / "claims"))
    page = PAGE.read_text(encoding="utf-8")
    text = filled(page, write_page(ledger, None if options.check else PAGE.parent / "evidence"))
    if options.check:
        return int(text != page)
    PAGE.write_text(text, encoding="utf-8")
    for paths, word in ((ledger.stale, "stale"), (ledger.strange, "of no arm or data set any more")):
        if paths:
            print(f"not shown, {word}: {len(paths)} results, such as {paths[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
