"""Series in data that no recipe describes: lists of unequal lengths, and tables of loggers with one row a time step."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ...files import JsonObject
from ...terminal import counted
from ..looking import columns_of, is_feature
from ..tables.columns import INDEX_COLUMN
from ..tables.loggers import LoggerTable, clock_of, read_logger
from ..tables.step_readers import SeriesReader
from ..tables.windows import window_starts
from .guesses import ROW_NAMES

# Names that a column of times, of the series that a row belongs to, and of row numbers usually has.
TIME_NAMES = ("time", "timestamp", "datetime", "date", "t", "ts", "seconds", "elapsed", "time_s", "time_ms")
GROUP_NAMES = (
    *(
        "group",
        "series",
        "device",
        "sensor",
        "machine",
        "unit",
        "subject",
        "patient",
        "person",
        "session",
        "recording",
    ),
    *("trial", "run", "station", "site", "vehicle", "user", "episode", "id"),
)
FEWEST_ROWS = 20  # a table with fewer rows is not taken for a series
FEWEST_STEPS = 3  # numbered columns of a wide table
REGULAR = 0.2  # steps so near to the median are regular ones; half of all must be

WANTED_TOKENS = 32  # tokens of a sample that a guessed model has
LONGEST = 1024  # steps of a series that is read whole
FEWEST_SERIES = 20  # fewer are cut into windows, for there to be something to learn from
WANTED_WINDOWS = 50
SHORTEST_WINDOW, LONGEST_WINDOW = 16, 256


@dataclass(frozen=True)
class Logger:
    """What the columns of a logger's table seem to be.

    Attributes:
        time: Column of times.
        group: Column that tells the series apart; None where all rows are one.
        channels: Columns of numbers, one a channel.
        joined: Series, one a row.
        period: Time between steps that all series are brought to, where some have other rates; None where they are alike.
    """

    time: str
    group: str | None
    channels: tuple[str, ...]
    joined: Dataset
    period: float | None = None

    @property
    def fields(self) -> JsonObject:
        """The fields of the data section that name the columns."""
        group = {} if self.group is None else {"group_column": self.group}
        rates = {} if self.period is None else {"resample": "mean", "sampling_period": self.period}
        return {"input_column": list(self.channels), **group, "time_column": self.time, **rates}

    @property
    def lengths(self) -> np.ndarray:
        """(series,) int64, the steps of each."""
        return SeriesReader(self.joined, self.channels[:1]).lengths()

    @property
    def reason(self) -> str:
        """What has been found, in words."""
        group = "one series" if self.group is None else f"{len(self.joined):,} series by {self.group!r}"
        return f"one row a time step: times in {self.time!r}, {group}"


def find_logger(rows: object, label: str | None, channels: Sequence[str] | None = None) -> Logger | None:
    """The columns of a logger's table, by their names and types, where its times rise in mostly equal steps.

    Args:
        rows: Rows as they come.
        label: Column of labels, which is no channel; or None.
        channels: Names of the channels, where a model knows them; None takes all columns of numbers.
    """
    if not isinstance(rows, Dataset) or len(rows) < FEWEST_ROWS:
        return None
    names = [name for name in rows.column_names if name != label]
    for time in sorted((name for name in names if _could_be_time(rows, name)), key=_rank_of_time):
        others = [name for name in names if name != time]
        groups = [name for name in others if name.lower() in GROUP_NAMES or name.lower().endswith("_id")]
        for group in (*groups, None):
            numbers = channels or [
                name
                for name in columns_of(rows, is_feature)
                if name in others and name not in groups and not _counts_rows(name)
            ]
            if not numbers or not set(numbers) <= set(others):
                continue
            table = LoggerTable(tuple(numbers), group, time)
            steps = _regular_steps(rows, table)
            if not len(steps):
                continue
            # The slowest rate, so that a faster series is averaged, and none gets steps that it has no row for.
            period = float(steps.max()) if steps.max() > (1.0 + REGULAR) * steps.min() else None
            if period is not None:
                table = dataclasses.replace(table, period=period, resampling="mean")
            try:
                joined = read_logger(rows, table, "train", tells=False)
            except ValueError:  # for example steps of very different lengths: this is no logger's table
                continue
            return Logger(time, group, table.channels, joined, period)
    return None


def why_no_logger(rows: object, label: str | None) -> list[str]:
    """A remark on a table with a column of times that is taken for no logger's; none where there is no such column.

    Args:
        rows: Rows as they come, of which `find_logger` makes nothing.
        label: Column of labels, or None.
    """
    if not isinstance(rows, Dataset) or len(rows) < FEWEST_ROWS:
        return []
    names = [name for name in rows.column_names if name != label]
    found = sorted((name for name in names if name.lower() in TIME_NAMES), key=_rank_of_time)
    if not found:
        return []
    values = rows.data.column(found[0])
    missing = pc.sum(pc.is_null(values, nan_is_null=True)).as_py()
    if clock_of(values) is None:
        if not any(map(str.isdigit, str(values[0].as_py()))):  # a word
            return []
        reason = f"{found[0]} holds no numbers, dates or texts such as 2024-05-01T12:00:00"
    elif missing:
        reason = f"{found[0]} is missing in {counted(missing, 'row')}"
    else:
        reason = f"{found[0]} does not rise in mostly equal steps, with one row a time"
    return [f"time: {reason}, so each row is a sample by itself and no step of a series"]


def _could_be_time(rows: Dataset, name: str) -> bool:
    kind = rows.data.schema.field(name).type
    is_date = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return bool(is_date or (name.lower() in TIME_NAMES and clock_of(rows.data.column(name)) is not None))


def _rank_of_time(name: str) -> int:
    return TIME_NAMES.index(name.lower()) if name.lower() in TIME_NAMES else len(TIME_NAMES)


def _counts_rows(name: str) -> bool:
    return name.lower() in ROW_NAMES or INDEX_COLUMN.fullmatch(name) is not None


def _regular_steps(rows: Dataset, table: LoggerTable) -> np.ndarray:
    """The median step (groups,) of each group, dates in seconds, where times rise within groups and at least half of all steps
    are about that of their group; empty where they do not."""
    none = np.zeros(0)
    clock = clock_of(rows.data.column(table.time))
    if clock is None or pc.is_null(rows.data.column(table.time), nan_is_null=True).to_numpy().any():
        return none
    times = (clock - clock.min()) / np.timedelta64(1, "s") if clock.dtype.kind == "M" else clock.astype(np.float64)
    codes = np.zeros(len(times), dtype=np.int64)
    if table.group is not None:
        groups = rows.data.column(table.group).combine_chunks()
        if groups.null_count or pa.types.is_nested(groups.type):
            return none
        codes = pc.dictionary_encode(groups).indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    is_within = np.diff(codes[order]) == 0
    steps, owners = np.diff(times[order])[is_within], codes[order][1:][is_within]
    if len(steps) < FEWEST_ROWS // 2 or steps.min() <= 0:
        return none
    parts = np.split(steps, np.flatnonzero(np.diff(owners)) + 1)
    medians = np.array([np.median(part) for part in parts])
    wanted = np.repeat(medians, [len(part) for part in parts])
    return medians if (np.abs(steps - wanted) <= REGULAR * wanted).mean() >= 0.5 else none


def sizes_by_lengths(lengths: np.ndarray) -> tuple[JsonObject, JsonObject, np.ndarray]:
    """Sizes of a model for series of unequal length.

    Args:
        lengths: Steps (series,) of each series.

    Returns:
        Fields of the model and of the data section, and how many training rows (series,) int64 each series is: one, or its
        windows.
    """
    longest, total = int(lengths.max()), int(lengths.sum())
    if longest > LONGEST or (len(lengths) < FEWEST_SERIES and longest >= 2 * SHORTEST_WINDOW):
        wanted = min(LONGEST_WINDOW, max(SHORTEST_WINDOW, total // WANTED_WINDOWS), longest)
        window = 2 ** int(np.log2(wanted))
        counts = np.array([len(window_starts(int(length), window, window)) for length in lengths])
        return {"series_length": window, "patch_size": max(1, window // WANTED_TOKENS)}, {"window": window}, counts
    patch = max(1, round(longest / WANTED_TOKENS))
    return {"series_length": patch * -(-longest // patch), "patch_size": patch}, {}, np.ones_like(lengths)


def remarks_by_lengths(lengths: np.ndarray, model: JsonObject, data: JsonObject, counts: np.ndarray) -> list[str]:
    """What was decided by the lengths, in words."""
    steps = f"series: {counted(model['num_channels'], 'channel')}, {lengths.min():,} to {lengths.max():,} time steps"
    patches = f"{model['series_length'] // model['patch_size']} patches"
    if "window" in data:
        return [f"{steps}, read by {counts.sum():,} windows of {data['window']}, {patches}; --data.window"]
    return [f"{steps}, padded to {model['series_length']}, {patches}"]


def step_columns(names: Sequence[str]) -> list[str]:
    """The columns that are named alike but for a number that rises by one, as t0, t1, t2 are; none of fewer than three."""
    numbered = [(match[1], int(match[2]), name) for name in names if (match := re.fullmatch(r"(.*?)(\d+)", name))]
    for prefix in dict.fromkeys(one for one, _, _ in numbered):
        found = [(number, name) for one, number, name in numbered if one == prefix]
        first = found[0][0]
        if len(found) >= FEWEST_STEPS and [number for number, _ in found] == list(range(first, first + len(found))):
            return [name for _, name in found]
    return []
