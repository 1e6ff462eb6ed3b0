"""The page of the claims is that of the committed runs; it says what has been decided and what has not."""

from pathlib import Path

import pytest
from evidence.claim import load_claims
from evidence.page import write_page
from evidence.runs import read_results
from evidence.verdict import Ledger
from results_page import PAGE, filled
from test_claims import BENCHMARKS, Run, ledger_of, result, toy


def test_page_is_that_of_the_committed_runs() -> None:
    ledger = Ledger(load_claims(BENCHMARKS / "claims"), read_results(BENCHMARKS / "results" / "claims"))
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, write_page(ledger, None)) == page, "run `make tables`"
    assert ledger.strange == []


def test_pictures_that_the_page_shows_exist() -> None:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("!["):
            assert (PAGE.parent / line.partition("](")[2].rstrip(")")).is_file(), line


def test_a_claim_is_told_with_its_verdict_and_pictures(tmp_path: Path) -> None:
    claim = toy(tmp_path, {"seeds": 5, "paper_numbers": {"MetaMAE": {"PAMAP2": 89.3}}, "notes": "Why it is so."})
    runs = [result(claim, Run("toy", "digits", "metamae", seed), 0.9 + 0.001 * seed) for seed in range(5)]
    runs += [result(claim, Run("toy", "digits", "untrained", seed), 0.8) for seed in range(5)]
    for one in runs:
        one |= {"device_name": "A processor, 1 thread"}
        if one["arm"] == "metamae":
            curve = [{"step": step, "seconds": 0.1 * step, "score": 0.8 + 0.01 * step} for step in (0, 3, 6)]
            one["pretraining"] = {"steps": 6, "curve": curve}
    page = write_page(ledger_of(claim, runs), tmp_path / "evidence")
    for words in (
        "**shown**: digits",
        "10.20 ± 0.20",
        "5 of 5",
        "89.30",
        "Why it is so.",
        "10 runs, 0 of them trials",
    ):
        assert words in page
    assert (tmp_path / "evidence" / "toy-differences.png").stat().st_size > 5000
    assert (tmp_path / "evidence" / "toy-curves.png").stat().st_size > 5000
    empty = write_page(ledger_of(claim, []), None)
    assert "not begun" in empty and "### " not in empty


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        filled("# Results\n", "x")
