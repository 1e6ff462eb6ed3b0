"""Classes by the values of their labels."""

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from data_configs import series_config, token_config

from hf_maskssl.data import PreparedData, data_arguments, prepare_data


def labelled(path: str, **fields: Any) -> PreparedData:
    """Texts with labels."""
    named = {"input_column": "text", "tokenizer": "utf-8", "label_column": "label", **fields}
    return prepare_data(data_arguments("parquet", data_files=path, kind="tokens", **named), token_config(262, 8))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "names", "classes"),
    [
        ([1, 2, 3], ["1", "2", "3"], [0, 1, 2]),
        ([7, 0, 7], ["0", "7"], [1, 0, 1]),
        ([-1, 1, -1], ["-1", "1"], [0, 1, 0]),
        ([0, 255, 0], ["0", "255"], [0, 1, 0]),
        ([3_000_000_000, 2**62, 1], ["1", "3000000000", str(2**62)], [1, 2, 0]),
        ([2.0, 5.0, 2.0], ["2", "5"], [0, 1, 0]),
        ([True, False, True], ["0", "1"], [1, 0, 1]),
        (["10", "9", "10"], ["10", "9"], [0, 1, 0]),
        ([decimal.Decimal("4.0"), decimal.Decimal("9.0"), decimal.Decimal("4.0")], ["4", "9"], [0, 1, 0]),
    ],
)
def test_classes_are_the_values_that_occur(
    write_parquet: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    values: list[Any],
    names: list[str],
    classes: list[int],
    streaming: bool,
) -> None:
    data = labelled(write_parquet("train", text=["a", "b", "c"], label=values), streaming=streaming)
    assert data.label_names == names and data.num_labels == len(names)
    assert [row["labels"] for row in data.train] == classes
    is_dense = names == list(map(str, range(len(names)))) or isinstance(values[0], str)
    assert is_dense != ("the class ids are" in caplog.text)
    if not streaming:
        assert data.report.splits["train"].classes == {name: classes.count(at) for at, name in enumerate(names)}


@pytest.mark.parametrize("cache", [False, True])
def test_ids_that_float64_rounds_stay_apart(write_parquet: Callable[..., str], cache: bool) -> None:
    ids = pa.array([2**63 + 1, 2**63, 2**53 + 1], pa.uint64())
    path = write_parquet("train", a=[0.5, 1.5, 2.5], b=[1.0, 2.0, 3.0], label=ids)
    section = {"data_files": path, "kind": "tabular", "label_column": "label", "cache": cache}
    data = prepare_data(data_arguments("parquet", **section), series_config(1, 2))
    assert [int(row["labels"]) for row in data.train] == [2, 1, 0]


def test_classes_that_differ_in_blanks_alone_are_told(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    assert labelled(write_parquet("train", text=["a", "b", "c"], label=["x", "x ", "y"])).num_labels == 3
    assert "classes differ in blanks alone, [['x', 'x ']]: " in caplog.text


def test_lists_are_no_labels_of_rows(write_parquet: Callable[..., str]) -> None:
    with pytest.raises(
        ValueError, match="row 0, column 'label': expected one number as label .* store one label a row"
    ):
        labelled(write_parquet("train", text=["a", "b"], label=[[1], [0]]))


def test_labels_of_tokens_are_classes_by_their_values(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=["abc", "de"], label=[[3, -100, 40], [40, 3]])
    data = labelled(path, task="token_classification")
    assert data.label_names == ["3", "40"]
    assert [row["labels"].tolist() for row in data.train] == [[0, -100, 1, -100], [1, 0, -100]]
    assert data.report.splits["train"].classes == {"3": 2, "40": 2}


def test_a_value_that_training_lacks_is_refused_by_name(write_parquet: Callable[..., str]) -> None:
    files = {"train": write_parquet("train", text=["a", "b"], label=[1, 5])}
    files["test"] = write_parquet("test", text=["a"], label=[7])
    with pytest.raises(
        ValueError, match=r"test split, row 0, column 'label': label 7 is not .* class ids are \[1, 5\]"
    ):
        labelled(files, test_split="test")  # type: ignore[arg-type]


def test_a_class_that_a_cut_left_out_of_training_stays_one(write_parquet: Callable[..., str]) -> None:
    files = {"train": write_parquet("train", text=["a", "b"], label=[0, 2])}
    files["test"] = write_parquet("test", text=["a"], label=[1])
    data = labelled(files, test_split="test")  # type: ignore[arg-type]
    assert data.label_names == ["0", "1", "2"] and data.report.splits["train"].classes == {"0": 1, "1": 0, "2": 1}
    files["test"] = write_parquet("unlabelled", text=["a"], label=[-1])
    with pytest.raises(ValueError, match="test split, row 0, column 'label': label -1"):
        labelled(files, test_split="test")  # type: ignore[arg-type]


def test_classes_without_a_row_are_told(write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y", "z"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 2]}, features=features)
    path = write_parquet("train", text=["a"])
    rows.to_parquet(path)
    data = labelled(path)
    assert data.label_names == ["x", "y", "z"] and data.report.splits["train"].classes == {"x": 1, "y": 0, "z": 1}
    assert "no row of 1 of 3 classes: ['y']" in caplog.text


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        pa.array([datetime.datetime(2020, 1, day) for day in (1, 2)]),
        pa.array([datetime.date(2020, 1, day) for day in (1, 2)]),
        pa.array([datetime.timedelta(seconds=day) for day in (1, 2)]),
        pa.array([datetime.time(day) for day in (1, 2)]),
        pa.array([b"a", b"b"]),
        pa.array([{"x": 1}, {"x": 2}]),
    ],
    ids=["timestamp", "date", "duration", "time", "bytes", "struct"],
)
def test_what_is_no_label_is_refused_by_name(
    write_parquet: Callable[..., str], values: pa.Array, streaming: bool, task: str
) -> None:
    path = write_parquet("train", text=["a", "b"], label=values)
    with pytest.raises(ValueError, match="label_column 'label': it holds"):
        labelled(path, streaming=streaming, task=task)


def test_real_numbers_are_no_classes_and_too_large_ones_no_labels(write_parquet: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="expected whole numbers or strings.*set data.task to regression"):
        labelled(write_parquet("real", text=["a", "b"], label=[0.5, 1.0]))
    with pytest.raises(ValueError, match="row 1, column 'label': label 1e.300 is too large"):
        labelled(write_parquet("large", text=["a", "b"], label=np.array([0.5, 1e300])), task="regression")
