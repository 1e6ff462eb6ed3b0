"""Series of unequal length, windows of long ones, loggers' tables and JSON cells: against slow, obvious references."""

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from data_configs import channels_last, image_config, series_config
from datasets import ClassLabel, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel
from window_cases import IMPOSSIBLE_WINDOWS

import tiny_models
from hf_maskssl.data import PreparedData, build_config, data_arguments, prepare_data
from hf_maskssl.data.kinds import preparers
from hf_maskssl.data.tables.loggers import LoggerTable, cut_in_time, label_rule, read_logger
from hf_maskssl.data.tables.preparing import plain_rows
from hf_maskssl.data.tables.windows import WindowedRows, means_of_rows, window_starts
from hf_maskssl.models.feature_extraction_series import SeriesFeatureExtractor
from hf_maskssl.models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from hf_maskssl.training import load_pretraining_recipe

NAN = float("nan")
LENGTHS = [5, 12, 1, 30, 9]
modes = pytest.mark.parametrize("mode", [{}, {"cache": False}, {"streaming": True}], ids=["kept", "read", "stream"])


def ragged(lengths: list[int] = LENGTHS, channels: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(3.0, 2.0, (channels, length)).round(3) for length in lengths]


def windowed(data: PreparedData) -> WindowedRows:
    assert isinstance(data.train, WindowedRows)
    return data.train


# Padding


@modes
def test_shorter_series_are_padded(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    series = ragged([5, 12, 1, 7])
    path = write_parquet("train", s=[one.tolist() for one in series])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s", **mode)
    data = prepare_data(args, series_config(2, 12))
    batch = data.collator(list(data.train))
    wanted = [np.arange(12) < one.shape[1] for one in series]
    np.testing.assert_array_equal(batch["observed_mask"].numpy(), np.stack([[flags, flags] for flags in wanted]))
    whole = np.concatenate(series, axis=1)
    np.testing.assert_allclose(data.processor.mean, whole.mean(axis=1))
    np.testing.assert_allclose(data.processor.std, whole.std(axis=1))
    first = (series[0] - whole.mean(axis=1, keepdims=True)) / whole.std(axis=1, keepdims=True)
    np.testing.assert_allclose(batch["input_values"][0, :, :5], first, rtol=1e-5, atol=1e-6)
    assert (batch["input_values"][0, :, 5:] == 0).all()
    if not mode.get("streaming"):
        split = data.report.splits["train"]
        assert (split.lengths, split.missing_share) == ([1, 6, 12], None)


def test_padding_is_not_missing(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", s=[[1.0, 2.0], [1.0, 2.0, 3.0]])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s", missing="error")
    assert len(prepare_data(args, series_config(1, 3)).train) == 2
    path = write_parquet("holed", s=[[1.0, 2.0], [1.0, None, 3.0]])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s", missing="error")
    with pytest.raises(ValueError, match="row 1, column 's': channel 0, step 1 is missing"):
        prepare_data(args, series_config(1, 3))


def test_longer_series_are_refused_by_row(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", s=[one.tolist() for one in ragged()])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s")
    with pytest.raises(ValueError, match=r"row 3, column 's': the series has 30 steps, more .*data.window"):
        prepare_data(args, series_config(2, 12))


@pytest.mark.parametrize("model_type", ["metamae", "sma"])
def test_a_padded_series_gives_what_the_short_one_gives(model_type: str) -> None:
    """Of a model with the same weights that reads no more steps than the short series has."""
    config = tiny_models.config(model_type, **tiny_models.MODALITIES[model_type]["series"])
    torch.manual_seed(0)
    long = AutoModel.from_config(config).eval()
    steps, is_last = 6, model_type == "sma"
    config = tiny_models.config(model_type, **{**tiny_models.MODALITIES[model_type]["series"], "series_length": steps})
    short = AutoModel.from_config(config).eval()
    weights = long.state_dict()
    own = short.state_dict()
    for name, value in own.items():
        axes = tuple(slice(0, size) for size in value.shape)
        own[name] = weights[name][axes]
    short.load_state_dict(own)
    sample = np.random.default_rng(0).normal(size=(3, steps))

    def extractor(length: int) -> SeriesFeatureExtractor:
        return SeriesFeatureExtractor(3, length, standardize="sample", channels_last=is_last)

    alone = extractor(steps)([sample], return_tensors="pt")
    padded = extractor(long.config.series_length)([sample], return_tensors="pt")
    expected = short(**alone).pooler_output
    torch.testing.assert_close(long(**padded).pooler_output, expected, rtol=1e-4, atol=1e-5)
    junk = padded["input_values"].masked_fill(~padded["observed_mask"].bool(), torch.nan).requires_grad_()
    found = long(input_values=junk, observed_mask=padded["observed_mask"]).pooler_output
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    slopes = torch.autograd.grad(found.sum(), junk)[0]
    assert slopes[~padded["observed_mask"].bool()].abs().sum() == 0 and slopes.isfinite().all()


# Windows


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_read_every_step(length: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    expected, start = [], 0
    while start + window < length:
        expected.append(start)
        start += stride
    expected.append(max(0, length - window))
    found = window_starts(length, window, stride).tolist()
    assert found == expected
    covered = {step for first in found for step in range(first, first + window)}
    assert covered >= set(range(length))


@pytest.mark.parametrize("form", ["lists", "channels", "array"])
@pytest.mark.parametrize("stride", [None, 3])
def test_windows_are_slices(form: str, stride: int | None, write_parquet: Callable[..., str], tmp_path: Path) -> None:
    series = ragged() if form != "array" else ragged([30] * 3)
    source, files, columns = "parquet", "", ["s"]
    if form == "array":
        np.save(tmp_path / "s.npy", np.stack(series))
        source, files = "numpy", str(tmp_path / "s.npy")
    elif form == "lists":
        files = write_parquet("train", s=[one.tolist() for one in series], label=list("abcab"))
    else:
        columns = ["x", "y"]
        files = write_parquet("train", x=[one[0].tolist() for one in series], y=[one[1].tolist() for one in series])
    args = data_arguments(
        source,
        data_files=files,
        kind="series",
        input_column=columns if len(columns) > 1 else "s",
        label_column="label" if form == "lists" else None,
        window=8,
        stride=stride,
        standardize="none",
    )
    rows = windowed(prepare_data(args, series_config(2, 9))).fixed()
    wanted = [
        (row, int(start)) for row, one in enumerate(series) for start in window_starts(one.shape[1], 8, stride or 8)
    ]
    assert list(zip(rows.owners.tolist(), rows.starts.tolist(), strict=True)) == wanted and len(rows) == len(wanted)
    for number, (row, start) in enumerate(wanted):
        part = series[row][:, start : start + 8]
        part = np.pad(part, ((0, 0), (0, 9 - part.shape[1])), constant_values=NAN)
        np.testing.assert_allclose(rows[number]["input_values"], part, rtol=1e-6)
        assert rows[number]["index"] == number
        if form == "lists":
            assert rows[number]["labels"] == "abc".index("abcab"[row])


def test_windows_are_drawn_by_row_epoch_and_seed(write_parquet: Callable[..., str]) -> None:
    series = [np.arange(length, dtype=float) for length in (100, 4, 40)]
    path = write_parquet("train", s=[one.tolist() for one in series])

    def read() -> WindowedRows:
        args = data_arguments(
            "parquet", data_files=path, kind="series", input_column="s", window=8, standardize="none"
        )
        return windowed(prepare_data(args, series_config(1, 8)))

    def starts(rows: WindowedRows, epoch: int, seed: int) -> list[float]:
        rows.set_epoch(epoch, seed)
        return [rows[number]["input_values"][0, 0] for number in range(len(rows))]

    rows = read()
    first = starts(rows, 1, 5)
    assert first == starts(read(), 1, 5) == starts(pickle.loads(pickle.dumps(rows)), 1, 5)
    assert first != starts(rows, 2, 5) and first != starts(rows, 1, 6)
    drawn = np.array([starts(rows, epoch, 0) for epoch in range(60)])
    assert len(rows) == 13 + 1 + 5 and (drawn[:, 13] == 0).all()
    assert drawn[:, :13].min() == 0 and drawn[:, :13].max() == 92 and drawn[:, 14:].max() == 32
    plain = plain_rows(rows)
    assert isinstance(plain, WindowedRows)
    assert [plain[number]["input_values"][0, 0] for number in range(len(plain))] == plain.starts.tolist()


@pytest.mark.parametrize("layout", [lambda config: config, channels_last], ids=["first", "last"])
def test_statistics_of_long_series_count_every_value_once(
    layout: Callable[..., Any], write_parquet: Callable[..., str]
) -> None:
    series = ragged([50, 7, 33])
    holed = [np.where(np.random.default_rng(1).random(one.shape) < 0.2, NAN, one) for one in series]
    path = write_parquet("train", s=[[[None if x != x else x for x in c] for c in one.tolist()] for one in holed])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s", window=10, stride=3)
    data = prepare_data(args, layout(series_config(2, 10)))
    whole = np.concatenate(holed, axis=1)
    np.testing.assert_allclose(data.processor.mean, np.nanmean(whole, axis=1))
    np.testing.assert_allclose(data.processor.std, np.nanstd(whole, axis=1))
    split = data.report.splits["train"]
    assert (split.rows, split.lengths, split.windows, split.shorter) == (3, [7, 33, 50], 15 + 1 + 9, 1)


@pytest.mark.parametrize("missing", [None, -999.0])
def test_windows_of_a_gap_are_left_out(
    missing: float | None, write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    whole = [float(step) for step in range(1, 41)]
    holed = [*whole[:10], *[missing] * 20, *whole[30:]]
    path = write_parquet("train", x=[whole, holed], y=[whole, holed])
    args = data_arguments(
        "parquet",
        data_files=path,
        kind="series",
        input_column=["x", "y"],
        window=8,
        standardize="none",
        invalid_value=missing,
    )
    with caplog.at_level("WARNING"):
        rows = windowed(prepare_data(args, series_config(2, 8)))
    assert rows.owners.tolist() == [0] * 5 + [1] * 4 and rows.starts[5:].tolist() == [0, 8, 24, 32]
    assert "train split: 1 window, no step of which was observed, left out" in caplog.text
    split = prepare_data(args, series_config(2, 8)).report.splits["train"]
    assert (split.windows, split.windows_left_out) == (9, {"no step of which was observed": 1})
    for epoch in range(30):
        rows.set_epoch(epoch, 0)
        assert all(np.isfinite(rows[number]["input_values"]).any() for number in range(9))
    fixed = rows.fixed()
    assert [np.nanmin(fixed[number]["input_values"]) for number in range(5, 9)] == [1, 9, 31, 33]


@pytest.mark.parametrize("steps", [{"x": [[1.0, 2.0], [1.0]]}, {"x": [1.0, 2.0], "y": [1.0]}])
def test_channels_that_are_not_equally_long_are_named(
    steps: dict[str, Any], write_parquet: Callable[..., str]
) -> None:
    first = {name: [[0.0] * 9] * 2 if isinstance(cell[0], list) else [0.0] * 9 for name, cell in steps.items()}
    path = write_parquet("train", **{name: [first[name], cell] for name, cell in steps.items()})
    args = data_arguments("parquet", data_files=path, kind="series", input_column=list(steps), window=4)
    with pytest.raises(ValueError, match=r"train split, row 1.*must be equally long, got the steps .*2.*1"):
        prepare_data(args, series_config(2, 4))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 2**31))
def test_features_of_windows_become_those_of_rows(counts: list[int], seed: int) -> None:
    owners = np.repeat(np.arange(len(counts)), counts)
    values = np.random.default_rng(seed).normal(size=(len(owners), 3)).astype(np.float32)
    expected = [values[owners == row].mean(axis=0) for row in range(len(counts))]
    np.testing.assert_allclose(means_of_rows(values, owners), expected, rtol=1e-5, atol=1e-6)


# Loggers


def logger_rows(steps: dict[str, list[float]], period: float = 0.5) -> pd.DataFrame:
    """Rows of each group at these steps of the period."""
    random = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"who": who, "when": 7.0 + period * np.asarray(at), "x": random.normal(size=len(at))})
        for who, at in steps.items()
    ]
    return pd.concat(parts, ignore_index=True)


def joined(frame: pd.DataFrame, split: str = "train", **fields: Any) -> Dataset:
    table = LoggerTable(**{"channels": ("x",), "group": "who", "time": "when", **fields})
    return read_logger(Dataset.from_pandas(frame, preserve_index=False), table, split)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=12), min_size=1, max_size=4),
    st.floats(0.01, 50.0),
    st.integers(0, 2**31),
)
def test_gaps_become_missing_steps(between: list[list[int]], period: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = []
    for number, steps in enumerate(between):
        times = np.cumsum([0, *steps]) * period + random.uniform(-0.1, 0.1, len(steps) + 1) * period
        frames.append(pd.DataFrame({"who": number, "when": times, "x": random.normal(size=len(times))}))
    order = random.permutation(np.repeat(np.arange(len(frames)), [len(one) for one in frames]))
    taken = [0] * len(frames)  # rows of groups lie between each other
    rows = []
    for group in order:
        rows.append(frames[group].iloc[taken[group]])
        taken[group] += 1
    found = joined(pd.DataFrame(rows).reset_index(drop=True), period=period)
    for who, series in zip(found["who"], found["x"], strict=True):
        expected = [frames[int(who)]["x"][0]]
        for step, value in zip(between[int(who)], frames[int(who)]["x"][1:], strict=True):
            expected += [None] * (step - 1) + [value]
        assert series == expected


@pytest.mark.parametrize("form", ["numbers", "dates", "texts"])
def test_the_period_is_the_median_step(form: str) -> None:
    frame = logger_rows({"a": [0, 1, 2, 5, 6], "b": [0, 1, 4]})
    times = pd.Timestamp("2024-05-01 12:00") + pd.to_timedelta(frame["when"], unit="s")
    if form == "dates":
        frame["when"] = times
    elif form == "texts":
        frame["when"] = times.dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    found = joined(frame)
    assert [[value is None for value in one] for one in found["x"]] == [
        [False, False, False, True, True, False, False],
        [False, False, True, True, False],
    ]


def test_a_clock_that_drifts_makes_no_gap() -> None:
    frame = logger_rows({"a": list(1.01 * np.arange(200))})
    assert len(joined(frame, period=0.5)["x"][0]) == 200


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40))
def test_resampling_is_what_it_says(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.choice([0.1, 0.1, 0.1, 0.7], count))
    values = np.where(random.random(count) < 0.2, NAN, random.normal(size=count))
    frame = pd.DataFrame({"who": 0, "when": times, "x": values})
    times = times - times[0]
    steps = int(np.floor(times[-1] / 0.25 + 1e-9)) + 1
    mean = joined(frame, period=0.25, resampling="mean")["x"][0]
    linear = joined(frame, period=0.25, resampling="linear")["x"][0]
    assert len(mean) == len(linear) == steps
    there = [(time, value) for time, value in zip(times, values, strict=True) if value == value]
    own = [after[0] - before[0] for before, after in zip(there, there[1:], strict=False)]
    for step in range(steps):
        inside = [value for time, value in there if step == int(np.floor(time / 0.25 + 1e-9))]
        assert mean[step] == (pytest.approx(np.mean(inside)) if inside else None)
        wanted, at = None, step * 0.25
        for (left, first), (right, second) in zip(there, there[1:], strict=False):
            if left - 1e-9 <= at <= right + 1e-9 and right - left <= 1.5 * np.median(own):
                wanted = first + (second - first) * (at - left) / (right - left)
        exact = [value for time, value in there if abs(time - at) < 1e-9]
        wanted = exact[0] if exact else wanted
        if wanted is None:
            assert linear[step] is None
        else:
            assert linear[step] == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_other_columns_that_do_not_change_go_along() -> None:
    frame = logger_rows({"a": [0, 1, 2], "b": [0, 1]}).assign(
        site=list("ppppp"), note=list("uvwxy"), label=[1, 1, 1, 0, 0]
    )
    found = joined(frame, label="label")
    assert found.column_names == ["who", "when", "x", "site", "label"]
    assert (found["when"], found["site"], found["label"]) == ([7.0, 7.0], ["p", "p"], [1, 0])
    assert joined(frame)._fingerprint == joined(frame)._fingerprint != joined(frame, period=0.25)._fingerprint


@pytest.mark.parametrize(("rule", "label"), [("majority", "b"), ("last", "a"), ("row", "a")])
def test_one_label_of_many(rule: Any, label: str) -> None:
    assert label_rule(rule)(["a", "b", "b", None, "b", "a"]) == label


def test_labels_of_steps_become_that_of_a_window_or_a_series(tmp_path: Path) -> None:
    frame = logger_rows({"a": list(range(20)), "b": [0, 1, 2, 5]})
    frame["label"] = ["cold"] * 12 + ["warm"] * 8 + ["warm", None, "cold", "cold"]
    frame.to_csv(tmp_path / "log.csv", index=False)

    def labels(**fields: Any) -> list[str]:
        args = data_arguments(
            "csv",
            data_files=str(tmp_path / "log.csv"),
            kind="series",
            input_column=["x"],
            group_column="who",
            time_column="when",
            label_column="label",
            **fields,
        )
        data = prepare_data(args, series_config(1, 20))
        assert data.label_names is not None
        rows = plain_rows(data.train)
        return [data.label_names[int(rows[number]["labels"])] for number in range(len(rows))]

    assert labels(window_label="majority") == ["cold", "cold"]
    assert labels(window_label="last", window=8) == ["warm", "warm", "warm", "cold"]
    assert labels(window_label="last", window=8, pool_windows=False) == ["cold", "warm", "warm", "cold"]
    assert labels(window_label="majority", window=8, pool_windows=False) == ["cold", "cold", "warm", "cold"]
    with pytest.raises(
        ValueError, match="the label changes within group 'a', from 'cold' to 'warm': set data.window_label"
    ):
        labels()


def test_names_of_classes_stay() -> None:
    names = ["rest", "walk", "fall"]
    frame = logger_rows({"a": list(range(20))}).assign(label=[0] * 8 + [2] * 12)
    rows = Dataset.from_pandas(frame, preserve_index=False).cast_column("label", ClassLabel(names=names))
    table = LoggerTable(("x",), "who", "when", label="label", label_rule="majority")
    assert read_logger(rows, table, "train").features["label"].names == names
    kept = read_logger(rows, dataclasses.replace(table, keeps_labels=True), "train")
    assert kept.features["label"].feature.names == names
    assert [part.features for part in cut_in_time(kept, ["x", "label"], 0.2)] == [kept.features] * 2


def test_the_mean_of_whole_numbers_may_be_a_fraction() -> None:
    frame = logger_rows({"a": [0, 1], "b": [0, 1]}).assign(label=[0, 1, 1, 1])
    assert joined(frame, label="label", label_rule="mean")["label"] == [0.5, 1.0]


def test_windows_without_a_label_are_left_out_or_refused(tmp_path: Path) -> None:
    frame = logger_rows({"a": list(range(20)), "b": list(range(8))})
    frame["label"] = [None] * 8 + ["cold"] * 12 + ["warm"] * 8
    frame.to_csv(tmp_path / "log.csv", index=False)
    common = {"group_column": "who", "time_column": "when", "label_column": "label", "window_label": "majority"}
    common |= {"data_files": str(tmp_path / "log.csv"), "kind": "series", "input_column": ["x"]}
    args = data_arguments("csv", **common, window=8, pool_windows=False)
    message = "row 0, column 'label': none of the steps 0 to 7, a window, has a label: .*data.drop_missing_labels"
    with pytest.raises(ValueError, match=message):
        prepare_data(args, series_config(1, 8))
    args = data_arguments("csv", **common, window=8, pool_windows=False, drop_missing_labels=True)
    data = prepare_data(args, series_config(1, 8))
    rows = windowed(data)
    assert rows.owners.tolist() == [0, 0, 1] and rows.starts.tolist() == [8, 12, 0]
    assert data.report.splits["train"].windows_left_out == {"no step of which has a label": 1}
    for epoch in range(20):
        rows.set_epoch(epoch, 0)
        assert [int(rows[number]["labels"]) for number in range(3)] == [0, 0, 1]


def test_one_series_is_cut_in_time(tmp_path: Path) -> None:
    frame = logger_rows({"a": list(range(50))}).drop(columns="who")
    frame.to_csv(tmp_path / "log.csv", index=False)
    args = data_arguments(
        "csv",
        data_files=str(tmp_path / "log.csv"),
        kind="series",
        input_column=["x"],
        time_column="when",
        validation_fraction=0.2,
        window=8,
        standardize="none",
    )
    data = prepare_data(args, series_config(1, 8))
    assert data.validation is not None and isinstance(data.validation, WindowedRows)
    assert (windowed(data).lengths.tolist(), data.validation.lengths.tolist()) == ([40], [10])
    np.testing.assert_allclose(data.validation[0]["input_values"][0], frame["x"][40:48], rtol=1e-6)
    parts = cut_in_time(joined(logger_rows({"a": [0, 1, 2, 3]})), ["x"], 0.5)
    assert [len(one["x"][0]) for one in parts] == [2, 2]


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({"when": [1, 2, 2, 1, 2]}, {}, r"row 2, column 'when': the same time twice \(2, then 2\) of group 'a'"),
        ({"when": [1, 3, 2, 1, 2]}, {}, r"row 2, .* a time before that of the row before \(3, then 2\) of group 'a'"),
        ({"when": [1, None, 2, 1, 2]}, {}, "row 1, column 'when': the time is missing in 1 rows"),
        ({"when": list("abcde")}, {}, "data.time_column 'when': it holds .*string, expected numbers, dates"),
        ({"who": ["a", "a", None, "b", "b"]}, {}, "row 2, column 'who': the group is missing in 1 rows"),
        ({"who": list("abcde")}, {}, "5 groups of one row each, so no two rows are steps of one series"),
        ({"x": list("abcde")}, {}, "column 'x' of the train split holds .*string, expected numbers, one a time step"),
        ({"when": [0.0, 1.0, 1.2, 5.0, 6.0]}, {"period": 1.0}, "row 2, .* 0.2 after the row before, less than half"),
        (
            {"when": [0.0, 1.0, 1e9, 5.0, 6.0]},
            {"period": 1.0},
            "group 'a' .* would have 1,000,000,001 steps for 3 rows",
        ),
        ({}, {"time": "wenn"}, "data.time_column: the train split has no column 'wenn'.*did you mean 'when'"),
        ({}, {"channels": ("z",)}, "data.input_column: the train split has no column 'z'"),
    ],
)
def test_bad_loggers_are_refused(change: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    frame = logger_rows({"a": [0, 1, 2], "b": [0, 1]}).assign(**change)
    with pytest.raises(ValueError, match=message):
        joined(frame, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *IMPOSSIBLE_WINDOWS,
        ({"group_column": "g", "streaming": True}, "data.streaming: a logger's table"),
        ({"group_column": "g", "resample": "mean"}, "data.resample is 'mean' without data.time_column"),
        ({"sampling_period": 1.0}, "data.sampling_period is 1.0 without data.time_column"),
        ({"window_label": "last"}, "data.window_label is 'last', which needs a label for each time step"),
        (
            {"time_column": "t", "label_column": "l", "window_label": "mean"},
            "data.window_label is 'mean' with data.task 'classification': expected majority or last",
        ),
        ({"group_column": "x"}, "data.group_column: 'x' is also an input column"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_arguments("csv", data_files="a.csv", kind="series", input_column=["x"], **fields)


def test_a_window_longer_than_the_model_reads(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", s=[[1.0, 2.0]])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s", window=9)
    with pytest.raises(ValueError, match="data.window 9 is more than model.series_length 8"):
        prepare_data(args, series_config(1, 8))


# JSON cells and wide tables


@modes
@pytest.mark.parametrize("channels", [1, 2])
def test_json_cells_are_series(mode: dict[str, Any], channels: int, tmp_path: Path) -> None:
    series = [one[0] if channels == 1 else one for one in ragged([5, 12, 1, 7])]
    cells = [json.dumps(one.tolist()) for one in series]
    cells[1] = cells[1].replace(str(series[1].flat[2]), "NaN").replace(str(series[1].flat[3]), "null")
    pd.DataFrame({"s": cells, "n": range(4)}).to_csv(tmp_path / "a.csv", index=False)
    args = data_arguments(
        "csv", data_files=str(tmp_path / "a.csv"), kind="series", input_column="s", standardize="none", **mode
    )
    data = prepare_data(args, series_config(channels, 12))
    batch = data.collator(list(data.train))
    series[1].flat[2:4] = NAN
    for row, one in enumerate(series):
        found = np.where(batch["observed_mask"][row], batch["input_values"][row], NAN)[:, : np.shape(one)[-1]]
        np.testing.assert_allclose(found, np.atleast_2d(one), rtol=1e-6)


def test_a_first_cell_without_entries_does_not_hide_the_others(tmp_path: Path) -> None:
    pd.DataFrame({"s": ["[]", " [ ] ", "[1, 2]", "[3, 4]"]}).to_csv(tmp_path / "a.csv", index=False)
    args = data_arguments("csv", data_files=str(tmp_path / "a.csv"), kind="series", input_column="s")
    data = prepare_data(args, series_config(1, 2))
    assert len(data.train) == 2 and data.report.splits["train"].left_out == {"nothing in column 's'": 2}


def test_a_cell_that_is_no_list_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"s": ["[1, 2]", "[1, 2", "[3, 4]"]}).to_csv(tmp_path / "a.csv", index=False)
    args = data_arguments("csv", data_files=str(tmp_path / "a.csv"), kind="series", input_column="s")
    with pytest.raises(ValueError, match=r"row 1, column 's': expected a JSON list of numbers, .* got '\[1, 2'"):
        prepare_data(args, series_config(1, 2))


def test_a_wide_table_is_a_series_of_one_channel(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=["t0", "t1", "t2", "t3"])
    frame.loc[1, "t3"] = NAN
    frame.to_csv(tmp_path / "a.csv", index=False)
    args = data_arguments(
        "csv", data_files=str(tmp_path / "a.csv"), kind="series", input_column=list(frame), standardize="none"
    )
    data = prepare_data(args, series_config(1, 4))
    batch = data.collator(list(data.train))
    found = np.where(batch["observed_mask"], batch["input_values"], NAN)[:, 0]
    np.testing.assert_array_equal(found, frame.to_numpy())


@pytest.mark.parametrize("shape", ["logger", "cells", "wide"])
def test_the_recipe_of_each_shape_reads_it(shape: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    if shape == "logger":
        frame = logger_rows({f"m{number}": list(range(100 + 90 * number)) for number in range(6)})
        frame = frame.rename(columns={"who": "machine", "when": "time", "x": "current"})
        frame["speed"] = random.normal(size=len(frame))
    elif shape == "cells":
        frame = pd.DataFrame({"series": [json.dumps(one.tolist()) for one in ragged([50, 320, 7] * 4)]})
    else:
        frame = pd.DataFrame(random.normal(size=(12, 8)), columns=[f"t{step}" for step in range(8)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    recipe = load_pretraining_recipe(f"own_data_{shape}", ["--data_files", str(tmp_path / "a.csv")])
    config = build_config(recipe.model)
    data = prepare_data(recipe.data, config, complete=True)
    batch = data.collator([data.train[row] for row in range(4)])
    assert batch["input_values"].shape == (4, config.num_channels, config.series_length)
    assert data.validation is not None and len(data.validation) >= 1


# Sounds


def test_a_padded_sound_is_the_short_sound() -> None:
    sound = np.random.default_rng(0).normal(size=900)
    settings_ = {"sampling_rate": 8000, "num_mel_bins": 8, "frame_length": 200, "hop_length": 100}
    plain = SpectrogramFeatureExtractor(num_frames=16, **settings_)
    masked = SpectrogramFeatureExtractor(num_frames=16, padding="mask", **settings_)
    assert "observed_mask" not in plain(sound)
    found = masked(sound)
    is_there = np.asarray(found["observed_mask"])[0, 0, 0]
    assert is_there.tolist() == [100 * frame < 900 for frame in range(16)]
    picture, whole = np.asarray(found["pixel_values"])[0], np.asarray(plain(sound)["pixel_values"])[0]
    np.testing.assert_array_equal(picture[..., is_there], whole[..., is_there])
    short = SpectrogramFeatureExtractor(num_frames=8, **settings_)(sound)
    np.testing.assert_allclose(picture[..., :8], np.asarray(short["pixel_values"])[0], rtol=1e-5, atol=1e-4)
    assert masked.first_missing(sound) is None
    with pytest.raises(ValueError, match="padding: expected 'silence' or 'mask'"):
        SpectrogramFeatureExtractor(padding="zeros")


def test_longer_sounds_are_told_of_or_refused(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("train", sound=[[0.5] * 500, [0.1, 0.5] * 450], label=[0, 1])
    fields = {"data_files": path, "kind": "spectrogram", "input_column": "sound", "sampling_rate": 1000}
    fields |= {"frame_length": 100, "hop_length": 50, "padding": "mask"}
    preparers._tell_of_cut.cache_clear()  # a process tells of the first ones
    data = prepare_data(data_arguments("parquet", **fields), image_config(1, 4, 12))
    batch = data.collator(list(data.train))
    assert batch["observed_mask"].any((1, 2)).sum(1).tolist() == [10, 12]
    assert "the sound has 900 samples, the picture covers 650" in caplog.text
    with pytest.raises(ValueError, match="row 1, column 'sound': the sound has 900 samples, the picture covers 650"):
        prepare_data(data_arguments("parquet", longer="error", **fields), image_config(1, 4, 12))
