"""What is left of a data set, and what was left out: in the log, beside a run, and without one."""

import decimal
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from data_configs import series_config, token_config

import tiny_models
from hf_maskssl.data import data_arguments, prepare_data, read_data
from hf_maskssl.data.tables.report import DataReport, SplitReport

REPOSITORY = Path(__file__).resolve().parents[2]
VALUES = np.random.default_rng(0).normal(size=24)


def table(**columns: object) -> pd.DataFrame:
    """Features `a` and `b` and more columns."""
    return pd.DataFrame({"a": VALUES, "b": -VALUES, **columns})


@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_the_index_that_pandas_writes_is_no_feature(
    tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows, path = table().sample(frac=1.0, random_state=0), tmp_path / "a"
    rows.to_csv(path) if source == "csv" else rows.to_parquet(path)
    args = data_arguments(source, data_files=str(path), kind="tabular")
    data = prepare_data(args, series_config(1, 2))
    name = "Unnamed: 0" if source == "csv" else "__index_level_0__"
    assert list(data.processor.feature_names) == ["a", "b"] == data.report.features
    assert "index that pandas wrote" in data.report.features_left_out[name] and name in caplog.text
    with pytest.raises(ValueError, match=f"set model.series_length to 2 .*{name}"):
        prepare_data(args, series_config(1, 3))


def test_columns_that_are_no_features_are_named_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table(
        price=[decimal.Decimal("1.25")] * 24,
        word=["x"] * 24,
        when=pd.date_range("2020-01-01", periods=24),
        series=[[1.0, 2.0]] * 24,
        label=[0, 1] * 12,
    )
    rows.to_parquet(tmp_path / "a.parquet")
    args = data_arguments("parquet", data_files=str(tmp_path / "a.parquet"), kind="tabular", label_column="label")
    report = prepare_data(args, series_config(1, 2)).report
    assert list(report.features_left_out) == ["price", "word", "when", "series", "label"]
    for name, reason in (("price", "decimal128.* store it as float64"), ("when", "timestamp"), ("word", "string")):
        assert any(f"'{name}'" in text for text in caplog.messages)
        with pytest.raises(ValueError, match=f"'{name}' .it holds {reason}"):
            prepare_data(args, series_config(1, 3))
    named = data_arguments("parquet", data_files=str(tmp_path / "a.parquet"), kind="tabular", input_column=["b"])
    assert (
        prepare_data(named, series_config(1, 1)).report.features_left_out["a"] == "data.input_column does not name it"
    )


def test_a_feature_that_numbers_the_rows_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table(number=range(5, 29), other=[0, 23] * 12).to_parquet(tmp_path / "a.parquet")
    read_data(data_arguments("parquet", data_files=str(tmp_path / "a.parquet"), kind="tabular"), series_config(1, 4))
    assert "feature 'number' numbers the rows from 5 to 28" in caplog.text and "'other'" not in caplog.text


def test_a_report_counts_rows_classes_and_missing_values(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hf_maskssl")
    texts = ["a", None, "", "b", "c", "d"]
    path = write_parquet("train", text=texts, label=["x", "x", "x", "y", None, "x"])
    args = data_arguments(
        "parquet",
        data_files=path,
        kind="tokens",
        input_column="text",
        tokenizer="utf-8",
        label_column="label",
        drop_missing_labels=True,
        max_train_samples=4,
    )
    report = prepare_data(args, token_config(262, 4)).report
    split = report.splits["train"]
    assert sum(split.left_out.values()) + (split.rows or 0) == 6 and split.classes is not None
    assert list(split.left_out)[:2] == ["no label in column 'label'", "data.max_train_samples"]
    assert sum(split.classes.values()) == split.rows
    assert all(line in caplog.messages for line in report.lines())
    json.dumps(report.to_json())


def test_a_report_of_a_table_counts_missing_values(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", a=[1.0, None, np.nan], b=[1.0, 2.0, 3.0])
    args = data_arguments("parquet", data_files=path, kind="tabular")
    report = read_data(args, series_config(1, 2)).report
    assert report.splits["train"].missing == {"a": 2}
    assert "  rows without a value: a 2 (67 %)" in report.lines()


def test_a_report_names_the_columns_that_are_read_and_those_that_are_not(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", text=["a", "b"], label=["x", "y"], url=["u", "v"])
    args = data_arguments(
        "parquet", data_files=path, kind="tokens", input_column="text", tokenizer="utf-8", label_column="label"
    )
    report = read_data(args, token_config(262, 4)).report
    assert (report.columns, report.columns_left_out) == (["text", "label"], ["url"])
    assert "columns: text, label; not read: url" in report.lines()


def test_lines_are_narrow() -> None:
    split = SplitReport(1234, {"nothing in column 'text'": 7}, {f"class {number}": number for number in range(60)})
    report = DataReport("csv", "tabular", {"train": split}, [f"feature_{n}" for n in range(40)], {"x": "why " * 40})
    lines = report.lines(80)
    assert max(map(len, lines)) <= 80 and lines[1] == "train: 1,234 rows" and "(60 in all)" in "".join(lines)


def test_a_recipe_is_described_without_training(
    write_parquet: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_parquet("train", text=["a", "", "b"], label=["x", "y", "y"])
    data = {"source": "parquet", "data_files": path, "kind": "tokens", "input_column": "text", "tokenizer": "utf-8"}
    model = tiny_models.section("sma", modality="tokens", vocab_size=262, max_position_embeddings=16)
    for section, labels in (("training", {}), ("finetuning", {"label_column": "label"})):
        recipe = {"model": model, "data": data | labels, section: {"output_dir": str(tmp_path / "out")}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        words = ["describe_data.py", str(tmp_path / "recipe.yaml"), "--steps", "0"]
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(str(REPOSITORY / "examples" / "describe_data.py"), run_name="__main__")
        printed = capsys.readouterr().out
        assert "train: 2 rows" in printed and "left out: 1 row, nothing in column 'text'" in printed
        assert ("2 classes: x 1, y 1" in printed) == bool(labels)
    assert not (tmp_path / "out").exists()
