"""`hf-maskssl impute`, from the file to the file."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForPreTraining

import tiny_models
from hf_maskssl import SeriesFeatureExtractor, impute
from hf_maskssl.commands import main
from hf_maskssl.commands.impute import error_lines
from hf_maskssl.evaluation.imputation import ImputationError
from hf_maskssl.scripts import UserError

FEATURES = ["a", "b", "c", "d"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = tiny_models.config("metamae", modality="series", series_length=4, num_channels=1, patch_size=1)
    AutoModelForPreTraining.from_config(config).save_pretrained(tmp_path / "model")
    moments = {"mean": [10.0] * 4, "std": [2.0] * 4, "standardize": "dataset", "statistics_axis": "feature"}
    SeriesFeatureExtractor(1, 4, feature_names=FEATURES, **moments).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def table() -> pd.DataFrame:
    rows = pd.DataFrame(np.random.default_rng(0).normal(10.0, 2.0, (20, 4)).round(4), columns=FEATURES)
    rows["note"] = [f"n{row}" for row in range(20)]
    rows.iloc[2, 1], rows.iloc[5, 0] = np.nan, np.nan
    return rows


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["hf-maskssl", "impute", *map(str, words)])
    main()


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz", "jsonl.gz"])
def test_a_table_is_filled_beside_its_errors(
    ending: str,
    checkpoint: Path,
    table: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / f"t.{ending}"
    read, written = pd.read_parquet, table.to_parquet
    if ending.startswith("csv"):
        read, written = pd.read_csv, table.to_csv
    elif ending.startswith("jsonl"):
        read, written = partial(pd.read_json, lines=True), partial(table.to_json, orient="records", lines=True)
    written(path, **({} if ending.startswith("jsonl") else {"index": False}))
    call(monkeypatch, checkpoint, path, "--hidden_share", "0.3")
    printed = capsys.readouterr().out
    assert "2 of 80 values were missing" in printed and max(map(len, printed.splitlines()[:6])) <= 80
    output = tmp_path / f"t.imputed.{ending}"
    filled = read(output)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled.where(table.notna()), table)
    report = json.loads((tmp_path / f"t.imputed.{ending}.json").read_text())
    assert (report["values"], report["missing"]) == (80, 2)
    assert [error["name"] for error in report["errors"]] == FEATURES


def test_an_array_is_filled(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, (6, 1, 4))
    values[1, 0, 2] = np.nan
    np.save(tmp_path / "s.npy", values)
    call(monkeypatch, checkpoint, tmp_path / "s.npy", "--output", tmp_path / "new" / "filled.npy")
    filled = np.load(tmp_path / "new" / "filled.npy")
    assert filled.shape == values.shape and np.isfinite(filled).all()


def test_mistakes_are_one_line(
    checkpoint: Path,
    table: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table.to_csv(tmp_path / "table.csv", index=False)
    table.drop(columns="b").to_csv(tmp_path / "other.csv", index=False)
    (tmp_path / "broken.npy").write_bytes(b"no array")
    for words, message in (
        ([tmp_path / "tabel.csv"], "no such file.*table.csv"),
        (
            [tmp_path / "table.txt"],
            "expected a file of a table or of series that ends in .csv, .tsv, .json, .*.parquet, .npy",
        ),
        ([tmp_path / "broken.npy"], "broken.npy cannot be read as NumPy files.*store numbers"),
        ([tmp_path / "other.csv"], r"of which \['b'\] are not there"),
        ([tmp_path / "table.csv", "--output", tmp_path / "table.csv"], "expected another file than DATA"),
        ([tmp_path / "table.csv", "--output", tmp_path / "x.parquet"], "ending in .csv as it does"),
        ([tmp_path / "table.csv", "--batch_size", "0"], "--batch_size: expected at least 1, got 0"),
        ([tmp_path / "table.csv", "--hidden_share", "1"], "hidden_share: expected a share"),
    ):
        with pytest.raises(UserError):
            call(monkeypatch, checkpoint, *words)
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and re.search(message, error), error


def test_long_names_fit_the_page() -> None:
    lines = error_lines([ImputationError("x" * 90, 1.0, 2.0, 3), ImputationError("y", 0.5, 1e-9, 1_000_000)])
    assert max(map(len, lines)) <= 80 and lines[1].startswith("x" * 27 + "...")
    assert error_lines([]) == []


def test_a_loggers_table_is_filled_by_its_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = tiny_models.config("metamae", modality="series", series_length=12, num_channels=2, patch_size=2)
    AutoModelForPreTraining.from_config(config).save_pretrained(tmp_path / "model")
    SeriesFeatureExtractor(2, 12, channel_names=["x", "y"]).save_pretrained(tmp_path / "model")
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"run": ["b", "a"] * 40, "time": np.repeat(0.5 * np.arange(40), 2)})
    rows = rows.assign(x=random.normal(size=80), note="n", y=random.normal(size=80)).drop(index=[10, 33])
    rows.iloc[5, 2], rows.iloc[60, 4] = np.nan, np.nan
    rows.to_csv(tmp_path / "log.csv", index=False)
    call(monkeypatch, tmp_path / "model", tmp_path / "log.csv")
    assert "2 of 156 values were missing" in capsys.readouterr().out
    filled, raw = pd.read_csv(tmp_path / "log.imputed.csv"), pd.read_csv(tmp_path / "log.csv")
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled.where(raw.notna()), raw)
    report = json.loads((tmp_path / "log.imputed.csv.json").read_text())
    assert [error["name"] for error in report["errors"]] == ["x", "y"]
    # By hand: the value is in the first part of series a.
    own = raw[raw["run"] == "a"].reset_index(drop=True)
    steps = (own["time"] / 0.5).round().astype(int)
    part = np.full((2, 40), np.nan)
    part[:, steps] = own[["x", "y"]].to_numpy().T
    alone = impute(tmp_path / "model", [part[:, :12]], hidden_share=0.0).data
    place = np.flatnonzero(np.isnan(raw["x"]))[0]
    assert raw["run"][place] == "a"
    assert filled["x"][place] == pytest.approx(np.asarray(alone)[0, 0, int(raw["time"][place] / 0.5)], rel=1e-4)


def test_columns_of_a_logger_are_refused_for_another_table(
    checkpoint: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match="--group_column: DATA has not all the channels of a logger's table"):
        call(monkeypatch, checkpoint, tmp_path / "t.csv", "--group_column", "note")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lists_of_unequal_length_are_filled_in_their_cells(
    channels: int, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = tiny_models.config("metamae", modality="series", series_length=8, num_channels=channels, patch_size=2)
    AutoModelForPreTraining.from_config(config).save_pretrained(tmp_path / "model")
    SeriesFeatureExtractor(channels, 8).save_pretrained(tmp_path / "model")
    random = np.random.default_rng(0)
    # The last is longer than the model reads, so read in two parts.
    series = [random.normal(size=(channels, length)).round(3) for length in (8, 5, 13)]
    holed = [values.copy() for values in series]
    holed[1][0, 2:4], holed[2][0, 10:12] = np.nan, np.nan
    cells = [values[0].tolist() if channels == 1 else values.tolist() for values in holed]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        texts = [json.dumps(cell).replace("NaN", "null") for cell in cells]
        pd.DataFrame({"s": [*texts, ""], "note": ["a", "b", "", "d"]}).to_csv(path, index=False)
    else:
        pd.DataFrame({"s": [*cells, None], "note": ["a", "b", None, "d"]}).to_parquet(path)
    call(monkeypatch, tmp_path / "model", path, "--output", tmp_path / f"filled.{ending}")
    assert f"4 of {26 * channels} values were missing" in capsys.readouterr().out
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    before, after = read(path), read(tmp_path / f"filled.{ending}")
    assert after["note"].equals(before["note"]) and pd.isna(after["s"][3])
    if ending == "csv":
        assert after["s"][0] == before["s"][0]  # a cell without a hole keeps its text
    for values, cell in zip(holed, after["s"], strict=False):
        found = np.array(json.loads(cell) if ending == "csv" else [np.asarray(one) for one in cell]).reshape(
            values.shape
        )
        assert not np.isnan(found).any()
        np.testing.assert_array_equal(found[~np.isnan(values)], values[~np.isnan(values)])


def test_series_of_other_channels_and_several_columns_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_models.config("metamae", modality="series", series_length=8, num_channels=2, patch_size=2)
    AutoModelForPreTraining.from_config(config).save_pretrained(tmp_path / "model")
    SeriesFeatureExtractor(2, 8).save_pretrained(tmp_path / "model")
    rows = pd.DataFrame({"s": [[[1.0, 2.0]] * 3], "z": [[[1.0, 2.0]] * 2]})
    rows.to_parquet(tmp_path / "t.parquet")
    for words, message in (
        ((), r"\['s', 'z'\] all hold lists: name the column of the series by --input_column"),
        (("--input_column", "s"), r"row 0, column 's': expected 2 channels x time steps, got an array \(3, 2\)"),
        (("--input_column", "y"), "--input_column y: expected a column of lists"),
    ):
        with pytest.raises(UserError):
            call(monkeypatch, tmp_path / "model", tmp_path / "t.parquet", *words)
        assert re.search(message, capsys.readouterr().err)
