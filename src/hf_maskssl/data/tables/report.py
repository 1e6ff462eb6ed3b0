"""What is left of a data set: rows, classes, features, and what was left out and why."""

import logging
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...terminal import counted

REPORT_FILE = "data_report.json"  # beside the run
NAMED_CLASSES = 20
NAMED_COLUMNS = 60

logger = logging.getLogger(__name__)


@dataclass
class SplitReport:
    """One split.

    Attributes:
        rows: Rows that are used; None of a stream, which is not counted.
        left_out: Reason -> rows that were left out for it.
        classes: Class -> rows (or tokens) that have it; None without classes.
        tasks: Task of several columns of labels -> its rows that are positive, negative and missing; None without.
        missing: Column -> rows without a value; columns that lack none are left out.
        missing_share: Share of the values of the input that are missing; None where none is, or they cannot be counted.
        unseen: Column -> rows with a category that training did not have, which counts as missing.
        lengths: Steps of the shortest, the median and the longest series, or frames of the sounds; None where all are equally
            long, or of other kinds.
        length_unit: What `lengths` counts, "steps" or "frames".
        windows: Windows by which long rows are read; None where they are read whole.
        windows_left_out: Reason -> windows that were left out for it.
        shorter: Series or sounds that are shorter than a window, which is padded then.
        cut: Sounds of which the model reads the beginning alone, as they are longer than that.
        filled: Texts with as many tokens as the model reads, or more, of which the rest is cut.
    """

    rows: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] | None = None
    tasks: dict[str, dict[str, int]] | None = None
    missing: dict[str, int] = field(default_factory=dict)
    missing_share: float | None = None
    unseen: dict[str, int] = field(default_factory=dict)
    lengths: list[int] | None = None
    length_unit: str = "steps"
    windows: int | None = None
    windows_left_out: dict[str, int] = field(default_factory=dict)
    shorter: int = 0
    cut: int = 0
    filled: int = 0

    def task_lines(self) -> list[str]:
        """The labels of each of several tasks in words; empty with a single one."""
        tasks = self.tasks or {}
        found = [
            f"  {name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}"
            for name, counts in list(tasks.items())[:NAMED_CLASSES]
        ]
        return found + ([f"  ... ({len(tasks)} tasks in all)"] if len(tasks) > NAMED_CLASSES else [])

    def series_lines(self) -> list[str]:
        """Lengths and windows of series or sounds, and what is cut, in words; empty for other kinds."""
        found = []
        if self.lengths is not None:
            shortest, median, longest = self.lengths
            found.append(f"  {self.length_unit}: {shortest:,} to {longest:,}, median {median:,}")
        if self.windows is not None:
            rows = "series" if self.length_unit == "steps" else "sounds"
            padded = f"; {self.shorter:,} shorter {rows} are padded" if self.shorter else ""
            found.append(f"  windows: {self.windows:,}{padded}")
            found += [
                f"  left out: {counted(count, 'window')}, {reason}" for reason, count in self.windows_left_out.items()
            ]
        if self.cut:
            found.append(f"  cut: the ends of {counted(self.cut, 'sound')}")
        if self.filled:
            found.append(f"  {counted(self.filled, 'text')} as long as the model reads, or longer and cut there")
        return found


@dataclass
class DataReport:
    """What is left of a data set, for the log and for `data_report.json` beside a run.

    Attributes:
        source: `data.source`.
        kind: `data.kind`.
        splits: "train", "validation", "test" -> what is left of it.
        columns: Columns that are read, inputs and labels; of a table's features `features` tells.
        columns_left_out: Columns of the training split that are not read; those of a table are in `features_left_out`.
        features: Columns that are the features of a table; None for other kinds.
        features_left_out: Column -> why it is no feature.
        categories: Feature that holds categories -> their number in the training split.
        files_left_out: Ending -> files of a folder that its reader does not take.
    """

    source: str = ""
    kind: str = ""
    splits: dict[str, SplitReport] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    columns_left_out: list[str] = field(default_factory=list)
    features: list[str] | None = None
    features_left_out: dict[str, str] = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)
    files_left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def joined(cls, source: str, kind: str, reports: "Mapping[str, DataReport]") -> "DataReport":
        """What is left of several data sets, whose splits are called `NAME/SPLIT`; and "train", with the rows of the longest."""
        whole = cls(source, kind)
        for part, report in reports.items():
            whole.splits |= {f"{part}/{name}": split for name, split in report.splits.items()}
        whole.splits["train"] = SplitReport(max(report.splits["train"].rows or 0 for report in reports.values()))
        return whole

    def leave_out(self, split: str, rows: int, reason: str) -> None:
        """Count rows that are left out of a split."""
        if rows:
            counts = self.splits.setdefault(split, SplitReport()).left_out
            counts[reason] = counts.get(reason, 0) + rows

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON writes it."""
        return asdict(self)

    def lines(self, width: int = 80) -> list[str]:
        """All of it in words, no line longer than `width`."""
        found = [f"data: {self.source}, kind {self.kind}"]
        for name, split in self.splits.items():
            found.append(f"{name}: {'rows of a stream' if split.rows is None else counted(split.rows, 'row')}")
            found += [f"  left out: {counted(count, 'row')}, {reason}" for reason, count in split.left_out.items()]
            if split.classes is not None:
                found.append(f"  {len(split.classes)} classes: {count_words(split.classes)}")
            found += split.task_lines()
            found += split.series_lines()
            if split.missing_share is not None:
                found.append(f"  values missing: {share_words(split.missing_share)}")
            if split.missing:
                found.append(f"  rows without a value: {count_words(split.missing, split.rows)}")
            if split.unseen:
                found.append(f"  categories that training lacks: {count_words(split.unseen, split.rows)}")
        if self.features is None and self.columns:
            unread = f"; not read: {first_names(self.columns_left_out)}" if self.columns_left_out else ""
            found.append(f"columns: {first_names(self.columns)}{unread}")
        if self.features is not None:
            found.append(f"features ({len(self.features)}): {first_names(self.features)}")
        if self.categories:
            found.append(f"  categories: {count_words(self.categories)}")
        left_out = list(self.features_left_out.items())
        found += [f"  no feature: {name!r}, {reason}" for name, reason in left_out[:NAMED_CLASSES]]
        if len(left_out) > NAMED_CLASSES:
            found.append(f"  no feature: {len(left_out) - NAMED_CLASSES} more, which {REPORT_FILE} of a run names")
        if self.files_left_out:
            found.append(f"files not read, by ending: {count_words(self.files_left_out)}")
        return [line for words in found for line in _wrapped(words, width)]


def first_names(columns: Iterable[str]) -> str:
    """The first of some columns, and how many there are where that is not all."""
    names = list(columns)
    more = f", ... ({len(names):,} in all)" if len(names) > NAMED_COLUMNS else ""
    return ", ".join(names[:NAMED_COLUMNS]) + more


def share_words(share: float) -> str:
    """A share above 0 in percent: at least 0.1."""
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def count_words(counts: Mapping[str, int], rows: int | None = None) -> str:
    """The first counts, in words; with `rows` each is followed by its share of them."""
    words = [
        f"{name} {count:,}{'' if not rows else ' (100 %)' if count == rows else f' ({100 * count / rows:.2g} %)'}"
        for name, count in list(counts.items())[:NAMED_CLASSES]
    ]
    return ", ".join(words) + (f", ... ({len(counts)} in all)" if len(counts) > NAMED_CLASSES else "")


def _wrapped(words: str, width: int) -> list[str]:
    indent = "  " if words.startswith("  ") else ""
    return textwrap.wrap(words, width, subsequent_indent=indent + "  ")
