"""Transformers' common tests on this package's models: collected with the slow tests alone, and counted class by class."""

import sys
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))


# Marks of the mixins' tests.
MARKERS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: a mark of transformers' common tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The mixins need seconds to be imported, which a run without slow tests saves."""
    is_test = collection_path.parent == FOLDER and collection_path.name.startswith("test_")
    return True if is_test and config.getoption("markexpr") == "not slow" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests of each class passed, failed, were left out by design, or do not apply to it (so the mixins say)."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            path, *names = report.nodeid.split("::")
            if Path(path).parent.name == FOLDER.name and len(names) == 2:
                is_ours = outcome == "skipped" and "by design: " in str(report.longrepr)
                counts.setdefault(names[0], Counter())["by design" if is_ours else outcome] += 1
    if not counts:
        return
    terminalreporter.section("transformers' common tests")
    for name, own in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        terminalreporter.write_line(
            f"{name}: {own['passed']} passed, {own['failed'] + own['error']} failed, {own['by design']} skipped by design, "
            f"{own['skipped']} not applicable"
        )
