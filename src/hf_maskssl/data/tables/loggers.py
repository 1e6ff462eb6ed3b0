"""Tables of loggers, one row a time step, as tables of series, one row a group: gaps become missing steps."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo, LargeList
from datasets.fingerprint import Hasher

from .columns import require_columns

Resampling: TypeAlias = Literal["none", "mean", "linear"]
LabelRule: TypeAlias = Literal["row", "majority", "last", "mean"]

# Steps of a group after gaps were filled, at the most: so many times its rows, or this number where that is more.
MOST_TIMES, MOST_STEPS = 1000, 1_000_000
# Steps from one time to the next that count as gap in `linear`: more than so many of the channel's own.
LARGEST_STEP = 1.5
NAMED_GROUPS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggerTable:
    """What the columns of a logger's table are.

    Attributes:
        channels: Columns of numbers, one a channel.
        group: Column that tells the series apart; None where all rows are one series.
        time: Column of times, numbers or dates; None where rows follow each other in equal steps.
        period: Time from one step to the next, in the units of `time`, of dates in seconds; None takes the median.
        resampling: Rule by which rows become steps: "none" takes each as one; "mean" takes the mean of those of a period;
            "linear" interpolates each channel between its neighbours.
        label: Column of labels; None without.
        label_rule: Rule by which a group whose label changes gets one: "row" refuses it.
        keeps_labels: Whether the label of each step is kept, as a list, instead.
    """

    channels: tuple[str, ...]
    group: str | None = None
    time: str | None = None
    period: float | None = None
    resampling: Resampling = "none"
    label: str | None = None
    label_rule: LabelRule = "row"
    keeps_labels: bool = False


def read_logger(rows: Dataset, table: LoggerTable, split: str, tells: bool = True) -> Dataset:
    """Join the rows of each group to a series.

    Args:
        rows: Rows of a split, one a time step; those of a group in the order of time, though other rows may lie between.
        table: Meaning of the columns.
        split: Name of the split, for errors.
        tells: Whether the log says what has been joined.

    Returns:
        One row a group, in the order in which they begin: each channel a list of float64, null where nothing was measured or
        a step is missing; the group, the first time, the label, and every other column that does not change within a group.

    Raises:
        ValueError: A column that is not there or holds no numbers, a group or a time that is missing, times that decrease or
            come twice, steps far shorter than the period, a label that changes, or groups of one row each.
    """
    named: list[tuple[str, str | None]] = [("input_column", name) for name in table.channels]
    named += [("group_column", table.group), ("time_column", table.time), ("label_column", table.label)]
    require_columns(rows, named, split)
    source = rows.with_format("arrow")[:]
    groups = _groups(source, table, split)
    if len(rows) > 1 and table.group is not None and all(len(group) == 1 for group in groups):
        raise ValueError(
            f"data.group_column {table.group!r}: the {split} split has {len(groups)} groups of one row each, so no two rows are "
            "steps of one series: name the column that tells the series apart, or leave it out where there is one series"
        )
    times = _times(source, table, groups, split)
    period = _period(table, times, split)
    channels = {name: _channel(source, name, split) for name in table.channels}
    series = [
        _Series(group, None if times is None else times[number], _name(source, table, group))
        for number, group in enumerate(groups)
    ]
    places = [_steps(one, period, table, split) for one in series]
    columns: dict[str, pa.Array] = {}
    for name in rows.column_names:
        if name in channels:
            made = [
                _placed(channels[name], one, steps, period, table) for one, steps in zip(series, places, strict=True)
            ]
            columns[name] = _lists(made)
        elif name == table.label:
            columns[name] = _labels(source[name], series, places, table, split)
        elif name in (table.time, table.group) or _is_constant(source[name], groups):
            columns[name] = source[name].take(pa.array([int(group[0]) for group in groups])).combine_chunks()
    fingerprint = Hasher.hash([rows._fingerprint, table, "logger 1"])
    found = _with_former_types(Dataset(pa.table(columns), fingerprint=fingerprint), rows, table)
    if tells:
        _tell(found, table, period, split)
    return found


def _with_former_types(found: Dataset, rows: Dataset, table: LoggerTable) -> Dataset:
    """The joined rows with the types that columns had, such as the names of classes."""
    made = found.features
    for name, feature in rows.features.items():
        if name not in made or name in table.channels or made[name] == feature:
            continue
        if name == table.label and table.keeps_labels:
            feature = LargeList(feature)
        elif name == table.label and table.label_rule == "mean":
            continue  # of whole numbers it is a fraction
        found = found.cast_column(name, feature)
    return found


@dataclass(frozen=True)
class _Series:
    """One group: its rows (n,) and, where there are any, their times (n,) from the first on; its name, for messages."""

    rows: np.ndarray
    times: np.ndarray | None
    name: str


def _require_all(values: pa.ChunkedArray, column: str, what: str, split: str) -> None:
    """Refuse a column in which rows have no value."""
    missing = np.flatnonzero(pc.is_null(values, nan_is_null=True).to_numpy())
    if len(missing):
        raise ValueError(
            f"{split} split, row {missing[0]}, column {column!r}: the {what} is missing in {len(missing)} rows: fill it, or drop "
            "them"
        )


def _groups(source: pa.Table, table: LoggerTable, split: str) -> list[np.ndarray]:
    """The rows of each group, in the order of the file; groups in the order in which they begin."""
    if table.group is None:
        return [np.arange(len(source))]
    values = source[table.group]
    if pa.types.is_nested(values.type):
        raise ValueError(f"data.group_column {table.group!r}: it holds {values.type}, expected one value a row")
    _require_all(values, table.group, "group", split)
    codes = pc.dictionary_encode(values.combine_chunks()).indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _times(source: pa.Table, table: LoggerTable, groups: Sequence[np.ndarray], split: str) -> list[np.ndarray] | None:
    """The times of each group, from its first one on."""
    if table.time is None:
        return None
    values = source[table.time]
    _require_all(values, table.time, "time", split)
    clock = clock_of(values)
    if clock is None:
        raise ValueError(
            f"data.time_column {table.time!r}: it holds {values.type}, expected numbers, dates, or texts such as "
            "2024-05-01T12:00:00"
        )
    found = []
    for group in groups:
        own = clock[group]
        steps = np.diff(own)
        wrong = np.flatnonzero(steps <= steps.dtype.type(0))
        if len(wrong):
            place = int(wrong[0])
            before, row = int(group[place]), int(group[place + 1])
            came = (
                "the same time twice"
                if steps[place] == steps.dtype.type(0)
                else "a time before that of the row before"
            )
            named = f" of group {_name(source, table, group)}" if table.group is not None else ""
            raise ValueError(
                f"{split} split, row {row}, column {table.time!r}: {came} ({values[before]}, then {values[row]}){named}: sort "
                "the rows of each series by time and keep one a time, or name the column that tells series apart "
                "(data.group_column)"
            )
        relative = own - own[0]
        found.append(relative / np.timedelta64(1, "s") if relative.dtype.kind == "m" else relative.astype(np.float64))
    return found


def clock_of(values: pa.ChunkedArray) -> np.ndarray | None:
    """Times as numbers or as datetime64; None where a column holds no times."""
    kind = values.type
    if pa.types.is_integer(kind):
        return np.asarray(values.cast(pa.int64()).to_numpy())  # differences of unsigned ones would not fall below 0
    if pa.types.is_floating(kind):
        return np.asarray(values.cast(pa.float64()).to_numpy())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(values.cast(pa.timestamp("ns")).to_numpy())
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    try:
        parsed = pd.to_datetime(pd.Series(values.to_pandas()), format="ISO8601", utc=True)
    except (ValueError, TypeError):
        return None
    return np.asarray(parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]"))


def _period(table: LoggerTable, times: Sequence[np.ndarray] | None, split: str) -> float:
    """The time from one step to the next."""
    if times is None:
        return 1.0
    if table.period is not None:
        return table.period
    steps = [np.diff(own) for own in times if len(own) > 1]
    if not steps:
        raise ValueError(
            f"data.sampling_period: the {split} split has no group of two rows to measure it: set it, the time from one step to "
            "the next"
        )
    return float(np.median(np.concatenate(steps)))


def _channel(source: pa.Table, name: str, split: str) -> np.ndarray:
    values = source[name]
    kind = values.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    ):
        raise ValueError(
            f"data.input_column: column {name!r} of the {split} split holds {kind}, expected numbers, one a time step"
        )
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _steps(series: _Series, period: float, table: LoggerTable, split: str) -> np.ndarray:
    """(n,) int64, the step of each row; steps that no row has are missing."""
    if series.times is None:
        return np.arange(len(series.rows))
    if table.resampling != "none":
        steps = np.floor(series.times / period + 1e-9)
    else:
        between = np.diff(series.times) / period
        short = np.flatnonzero(between < 0.5)
        if len(short):
            row = int(series.rows[short[0] + 1])
            raise ValueError(
                f"{split} split, row {row}, column {table.time!r}: {between[short[0]] * period:.4g} after the row before, less "
                f"than half of the sampling period {period:.4g}: set data.sampling_period to the shortest step, or bring all "
                "rates to one by data.resample (mean or linear)"
            )
        # Steps are counted from row to row, so that a clock that drifts makes no gap.
        steps = np.concatenate([[0.0], np.cumsum(np.maximum(np.rint(between), 1.0))])
    if steps[-1] + 1 > max(MOST_STEPS, MOST_TIMES * len(steps)):
        raise ValueError(
            f"data.sampling_period {period:.4g}: group {series.name} of the {split} split would have {steps[-1] + 1:,.0f} steps "
            f"for {len(steps):,} rows: give its parts groups of their own, or set a larger period"
        )
    return steps.astype(np.int64)


def _placed(values: np.ndarray, series: _Series, steps: np.ndarray, period: float, table: LoggerTable) -> np.ndarray:
    """(steps,) float64, one channel of a group on its grid; NaN where it is missing."""
    own = values[series.rows]
    count = int(steps[-1]) + 1
    if table.resampling == "linear" and series.times is not None:
        return _interpolated(own, series.times, np.arange(count) * period)
    if table.resampling == "mean":
        there = ~np.isnan(own)
        total = np.bincount(steps[there], own[there], minlength=count)
        rows = np.bincount(steps[there], minlength=count)
        return np.where(rows > 0, total / np.maximum(rows, 1), np.nan)
    placed = np.full(count, np.nan)
    placed[steps] = own
    return placed


def _interpolated(values: np.ndarray, times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """A channel between its neighbours, which lie at most 1.5 of its own median steps apart; NaN elsewhere."""
    there = ~np.isnan(values)
    values, times = values[there], times[there]
    if not len(values):
        return np.full(len(wanted), np.nan)
    after = np.searchsorted(times, wanted - 1e-9 * max(1.0, abs(float(times[-1]))))
    inside = np.minimum(after, len(times) - 1)
    is_exact = np.isclose(times[inside], wanted, rtol=1e-9, atol=0.0)
    steps = np.diff(times)
    largest = LARGEST_STEP * float(np.median(steps)) if len(steps) else 0.0
    is_between = (after > 0) & (after < len(times))
    is_near = is_between & (times[inside] - times[np.maximum(inside - 1, 0)] <= largest)
    return np.where(is_exact | is_near, np.interp(wanted, times, values), np.nan)


def _labels(
    values: pa.ChunkedArray, series: Sequence[_Series], places: Sequence[np.ndarray], table: LoggerTable, split: str
) -> pa.Array:
    """The label of each group, or those of its steps."""
    plain = values.combine_chunks()
    if table.keeps_labels:
        offsets, taken = [0], []
        for one, steps in zip(series, places, strict=True):
            rows = np.full(int(steps[-1]) + 1, -1)
            rows[steps] = one.rows
            taken.append(rows)
            offsets.append(offsets[-1] + len(rows))
        chosen = np.concatenate(taken)
        entries = plain.take(pa.array(chosen, mask=chosen < 0))
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), entries)
    rule = label_rule(table.label_rule)
    made = []
    for one in series:
        own = plain.take(pa.array(one.rows)).to_pylist()
        if table.label_rule == "row":
            different = list(dict.fromkeys(own))
            if len(different) > 1:
                raise ValueError(
                    f"{split} split, column {table.label!r}: the label changes within group {one.name}, from {different[0]!r} to "
                    f"{different[1]!r}: set data.window_label to majority, last or mean"
                )
        made.append(rule(own))
    return pa.array(made, pa.float64() if table.label_rule == "mean" else plain.type)


def label_rule(rule: LabelRule) -> Callable[[Sequence[Any]], Any]:
    """What makes one label of those of several steps, of which some may be missing; None where all are.

    "majority" takes the most frequent, the first of equals; "last" the last; "mean" the mean of numbers; "row" the first.
    """

    def label(values: Sequence[Any]) -> Any:
        known = [value for value in values if value is not None and value == value]
        if not known:
            return None
        if rule == "majority":
            counts: dict[Any, int] = {}
            for value in known:
                counts[value] = counts.get(value, 0) + 1
            return max(counts, key=lambda value: counts[value])
        if rule == "mean":
            return float(np.mean(known))
        return known[-1] if rule == "last" else known[0]

    return label


def cut_in_time(rows: Dataset, columns: Sequence[str], fraction: float) -> tuple[Dataset, Dataset]:
    """The first steps of every series, and the last ones, a share of them.

    Args:
        rows: Series whose `columns` hold a list for each.
        columns: Columns with an entry for each step.
        fraction: Share of the steps of each series that is held out, at least one step.

    Raises:
        ValueError: A series of one step.
    """
    lengths = pc.list_value_length(rows.data.column(columns[0])).to_numpy()
    if lengths.min() < 2:
        raise ValueError(
            f"data.validation_fraction {fraction}: a series of {lengths.min()} step cannot be cut in time"
        )
    cuts = lengths - np.maximum(1, np.round(fraction * lengths).astype(np.int64))
    parts = []
    for number, (starts, stops) in enumerate(((np.zeros_like(cuts), cuts), (cuts, lengths))):
        table = rows.data.table
        for name in columns:
            cells = table[name].combine_chunks()
            taken = [
                cells[row].values[int(start) : int(stop)]
                for row, (start, stop) in enumerate(zip(starts, stops, strict=True))
            ]
            offsets = pa.array(np.concatenate([[0], np.cumsum(stops - starts)]), pa.int64())
            whole = pa.LargeListArray.from_arrays(offsets, pa.concat_arrays(taken))
            table = table.set_column(table.column_names.index(name), name, whole)
        fingerprint = Hasher.hash([rows._fingerprint, fraction, number])
        info = DatasetInfo(features=rows.features)
        parts.append(Dataset(table.replace_schema_metadata(), info=info, fingerprint=fingerprint))
    logger.info(
        "one series: its last %d of %d steps are the validation split", int((lengths - cuts)[0]), int(lengths[0])
    )
    return parts[0], parts[1]


def _lists(series: Sequence[np.ndarray]) -> pa.Array:
    offsets = np.cumsum([0, *map(len, series)])
    values = np.concatenate(series)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, mask=np.isnan(values)))


def _is_constant(values: pa.ChunkedArray, groups: Sequence[np.ndarray]) -> bool:
    """Whether a column has one value, null too, in each group."""
    if pa.types.is_nested(values.type) or isinstance(values.type, pa.BaseExtensionType):
        return False
    codes = pc.dictionary_encode(values.combine_chunks(), null_encoding="encode").indices.to_numpy()
    return all(bool((codes[group] == codes[group[0]]).all()) for group in groups)


def _name(source: pa.Table, table: LoggerTable, group: np.ndarray) -> str:
    return "of all rows" if table.group is None else repr(source[table.group][int(group[0])].as_py())


def _tell(found: Dataset, table: LoggerTable, period: float, split: str) -> None:
    lengths = pc.list_value_length(found.data.column(table.channels[0])).to_numpy()
    apart = "" if table.time is None else f", {period:.4g} apart ({'set' if table.period else 'the median'})"
    logger.info("%s split: %d series of %d to %d steps%s", split, len(found), lengths.min(), lengths.max(), apart)
