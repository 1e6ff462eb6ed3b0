"""Missing values of every kind of numbers, from the file to `observed_mask`."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from data_configs import series_config
from datasets import Dataset, IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor

import tiny_models
from hf_maskssl.data import PreparedData, data_arguments, prepare_data
from hf_maskssl.data.tables.empty_rows import WithoutEmpty, number_columns, observed_values
from hf_maskssl.data.tables.statistics import MomentsOfBatch, merge_moments
from hf_maskssl.models.feature_extraction_series import SeriesFeatureExtractor
from hf_maskssl.models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from hf_maskssl.models.image_processing_array import ArrayImageProcessor
from hf_maskssl.training.pretraining.resident import CHUNK_ROWS, resident_rows

modes = pytest.mark.parametrize("mode", [{}, {"cache": False}, {"streaming": True}], ids=["kept", "read", "stream"])
NAN = float("nan")


def batch_of(data: PreparedData) -> Mapping[str, torch.Tensor]:
    return data.collator(list(data.train))


@pytest.fixture
def table() -> pd.DataFrame:
    rows = pd.DataFrame(np.random.default_rng(0).normal(3.0, 2.0, (8, 3)).round(3), columns=list("abc"))
    rows["n"] = range(8)
    rows.loc[1, "a"] = NAN
    rows.loc[2, ["a", "b", "c"]] = NAN
    rows.loc[3] = NAN
    rows["label"] = [0, 1] * 4
    return rows.astype({"n": "Int64"})


# Tables


@modes
@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_missing_features_are_absent_in_their_rows(
    table: pd.DataFrame, source: str, mode: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hf_maskssl")
    path = str(tmp_path / "a")
    table.to_csv(path, index=False) if source == "csv" else table.to_parquet(path, index=False)
    columns = ["a", "b", "c", "n"]
    named = {"input_column": columns} if mode.get("streaming") else {}
    args = data_arguments(source, data_files=path, kind="tabular", label_column="label", **named, **mode)
    data = prepare_data(args, series_config(1, 4))
    batch, wanted = batch_of(data), table[columns].drop(index=3).astype(float)
    np.testing.assert_array_equal(batch["observed_mask"][:, 0].numpy(), wanted.notna().to_numpy())
    assert batch["index"].tolist() == [0, 1, 2, 4, 5, 6, 7][: len(wanted)] or not mode.get("streaming")
    np.testing.assert_allclose(data.processor.mean, wanted.mean())
    np.testing.assert_allclose(data.processor.std, wanted.std(ddof=0))
    standardised = ((wanted - wanted.mean()) / wanted.std(ddof=0)).fillna(0.0)
    np.testing.assert_allclose(batch["input_values"][:, 0], standardised, rtol=1e-4, atol=1e-5)
    if mode.get("streaming"):
        assert "so far 1 rows of the stream have nothing in column 'a' or 'b' or 'c' or 'n'" in caplog.text
        return
    split = data.report.splits["train"]
    assert (split.rows, split.left_out) == (7, {"nothing in column 'a' or 'b' or 'c' or 'n'": 1})
    assert split.missing == {"a": 2, "b": 1, "c": 1} and split.missing_share == 4 / 28
    assert "  values missing: 14.3 %" in caplog.messages


def test_a_number_may_stand_for_what_was_not_measured(table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "nan.csv", index=False)
    table.fillna(-9).to_csv(tmp_path / "number.csv", index=False)
    prepared = []
    for name, fields in (("nan", {}), ("number", {"invalid_value": -9.0})):
        args = data_arguments(
            "csv", data_files=str(tmp_path / f"{name}.csv"), kind="tabular", label_column="label", **fields
        )
        prepared.append(prepare_data(args, series_config(1, 4)))
    torch.testing.assert_close(batch_of(prepared[0]), batch_of(prepared[1]), rtol=0, atol=0)
    assert prepared[0].report.to_json() == prepared[1].report.to_json()


@modes
def test_missing_values_may_be_refused(table: pd.DataFrame, mode: dict[str, Any], tmp_path: Path) -> None:
    table.to_csv(tmp_path / "a.csv", index=False)
    fields = {"kind": "tabular", "input_column": ["a", "b", "c", "n"], "missing": "error", **mode}
    with pytest.raises(ValueError, match="train split, row 1.*'?a'? is missing: fill or drop it"):
        batch_of(
            prepare_data(data_arguments("csv", data_files=str(tmp_path / "a.csv"), **fields), series_config(1, 4))
        )


def test_nothing_but_missing_values_is_refused_and_a_column_of_them_is_told(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("nothing", a=[NAN, None], b=[None, NAN])
    args = data_arguments("parquet", data_files=path, kind="tabular", input_column=["a", "b"])
    with pytest.raises(ValueError, match="train split: all 2 rows have nothing in column 'a' or 'b'"):
        prepare_data(args, series_config(1, 2))
    path = write_parquet("column", a=[NAN, NAN, NAN], b=[1.0, 2.0, 4.0])
    args = data_arguments("parquet", data_files=path, kind="tabular", input_column=["a", "b"])
    data = prepare_data(args, series_config(1, 2))
    assert "without any value in the training split, so the model cannot learn it: ['a']" in caplog.text
    assert data.processor.mean[0] == 0.0 and data.processor.std[0] == 1.0
    path = write_parquet("infinite", a=[1.0, np.inf], b=[1.0, 2.0])
    args = data_arguments("parquet", data_files=path, kind="tabular", input_column=["a", "b"])
    with pytest.raises(ValueError, match=r"row 1.*a is inf: make it NaN \(missing\), or drop the sample"):
        prepare_data(args, series_config(1, 2))


# Series


@modes
@pytest.mark.parametrize("last", [False, True])
def test_steps_and_channels_of_series_may_be_missing(
    write_parquet: Callable[..., str], mode: dict[str, Any], last: bool
) -> None:
    whole = [[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 9.0]] for _ in range(4)]
    whole[1][0] = [1.0, None, NAN, 4.0]  # type: ignore[list-item]
    whole[2][1] = [NAN] * 4
    whole[3] = [[NAN] * 4, [None] * 4]  # type: ignore[list-item]
    shape = {"series_length": 4, "num_channels": 2}
    config = series_config(2, 4)
    if last:
        config = tiny_models.config("sma", modality="series", **shape)
    path = write_parquet("train", s=whole)
    for fields in ({"standardize": "dataset"}, {"standardize": "sample"}):
        args = data_arguments("parquet", data_files=path, kind="series", input_column="s", **fields, **mode)
        batch = batch_of(prepare_data(args, config))
        observed = batch["observed_mask"].transpose(1, 2) if last else batch["observed_mask"]
        assert observed.shape == (3, 2, 4) and observed[0].all()
        assert observed[1].int().tolist() == [[1, 0, 0, 1], [1, 1, 1, 1]]
        assert observed[2].int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
        assert batch["input_values"].isfinite().all() and not batch["input_values"][~batch["observed_mask"]].any()
        values = batch["input_values"].transpose(1, 2) if last else batch["input_values"]
        if fields["standardize"] == "sample":
            torch.testing.assert_close(values[1, 0, [0, 3]], torch.tensor([-1.0, 1.0]), rtol=1e-4, atol=1e-4)


def test_a_column_of_a_channel_may_be_null(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", x=[[1.0, 2.0], None, None], y=[[3.0, 5.0], [4.0, 6.0], None])
    args = data_arguments("parquet", data_files=path, kind="series", input_column=["x", "y"])
    data = prepare_data(args, series_config(2, 2))
    assert batch_of(data)["observed_mask"].int().tolist() == [[[1, 1], [1, 1]], [[0, 0], [1, 1]]]
    assert data.report.splits["train"].left_out == {"nothing in column 'x' or 'y'": 1}


# Pictures and sounds


def test_pixels_may_be_missing(write_parquet: Callable[..., str]) -> None:
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.float64).reshape(2, 3, 4, 4)
    pixels[1, :, :2, :2] = NAN
    path = write_parquet("train", p=pixels.tolist())
    config = tiny_models.config("metamae", modality="image", image_size=4, num_channels=3, patch_size=2)
    args = data_arguments("parquet", data_files=path, kind="image", input_column="p")
    data = prepare_data(args, config)
    batch = batch_of(data)
    np.testing.assert_array_equal(batch["observed_mask"].numpy(), np.isfinite(pixels))
    np.testing.assert_allclose(data.processor.mean, np.nanmean(pixels, axis=(0, 2, 3)))
    np.testing.assert_allclose(data.processor.std, np.nanstd(pixels, axis=(0, 2, 3)))
    args = data_arguments("parquet", data_files=path, kind="image", input_column="p", missing="error")
    with pytest.raises(ValueError, match="row 1, column 'p': channel 0, row 0, column 0 is missing: fill or drop it"):
        prepare_data(args, config)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic"])
def test_a_resized_pixel_is_the_mean_of_what_was_observed_of_it(resample: str) -> None:
    processor = ArrayImageProcessor(1, [4, 4], resample=resample, invalid_value=0.0)
    pixels = np.full((8, 8), 7.0)
    pixels[:2, :4], pixels[5, 5] = 0.0, 0.0
    found = processor(pixels, return_tensors="np")
    values, observed = found["pixel_values"][0, 0], found["observed_mask"][0, 0]
    assert not observed[0, :2].any() and observed[1:, :2].all() and observed[0, 3]
    np.testing.assert_allclose(values[observed], 7.0, rtol=1e-5)
    assert not values[~observed].any()
    picture = Image.fromarray(pixels.astype(np.uint8))
    np.testing.assert_allclose(processor(picture, return_tensors="np")["pixel_values"], found["pixel_values"])
    assert "observed_mask" not in ArrayImageProcessor(1, [4, 4], resample=resample)(picture)


def test_frames_with_a_missing_sample_are_missing() -> None:
    processor = SpectrogramFeatureExtractor(
        8000, 8, 10, frame_length=64, hop_length=32, standardize="sample", invalid_value=9.0
    )
    sound = np.random.default_rng(0).normal(size=processor.num_samples)
    whole = processor(sound, return_tensors="np")["pixel_values"]
    sound[100:130] = NAN  # frames 2 (64 to 127), 3 and 4 (128 to 191); frame 1 ends at 95
    found = processor(sound, return_tensors="np")
    assert found["observed_mask"][0, 0, 0].astype(int).tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    assert found["observed_mask"].shape == whole.shape and np.isfinite(found["pixel_values"]).all()
    again = np.where(np.isnan(sound), 9.0, sound)
    np.testing.assert_array_equal(processor(again, return_tensors="np")["pixel_values"], found["pixel_values"])
    assert processor.first_missing(sound) == "frame 2"
    with pytest.raises(ValueError, match="sample 0 of 1 has no value that was observed: drop it"):
        processor(np.full(processor.num_samples, NAN))


# Processors, collators and what holds whole sets


@pytest.mark.parametrize("name", ["series", "image"])
def test_processors_remember_the_number_of_what_was_not_measured(name: str, tmp_path: Path) -> None:
    made: Any = SeriesFeatureExtractor(1, 3, invalid_value=-9.0)
    auto: Any = AutoFeatureExtractor
    if name == "image":
        made, auto = ArrayImageProcessor(1, [1, 3], invalid_value=-9.0), AutoImageProcessor
    made.save_pretrained(tmp_path)
    found = auto.from_pretrained(tmp_path)([[1.0, -9.0, NAN]], return_tensors="pt")
    assert found["observed_mask"].flatten().tolist() == [True, False, False]
    assert list(made([[1.0, 2.0, 3.0]])) == [f"{'input' if name == 'series' else 'pixel'}_values"]


def test_one_sample_of_a_batch_without_anything_is_named() -> None:
    with pytest.raises(ValueError, match="sample 1 of 2 has no value that was observed"):
        SeriesFeatureExtractor(1, 2)([[1.0, NAN], [None, NAN]])


def test_rows_on_a_device_all_have_the_mask(write_parquet: Callable[..., str]) -> None:
    values = np.arange(2.0 * CHUNK_ROWS + 6).reshape(-1, 2)
    values[-1, 0] = NAN  # in the second chunk alone
    path = write_parquet("train", s=values.tolist())
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s")
    rows = resident_rows(prepare_data(args, series_config(1, 2)), torch.device("cpu"), trims=True)
    assert rows.tensors["observed_mask"].sum() == 2 * CHUNK_ROWS + 5
    batch = rows.take([0, 1], torch.tensor([0, 1]))
    assert batch["observed_mask"].all() and batch["observed_mask"].shape == batch["input_values"].shape


# Counting


nested = st.lists(st.one_of(st.none(), st.just(NAN), st.just(-9.0), st.floats(-2, 2)), min_size=0, max_size=4)


@settings(max_examples=12, deadline=None)
@given(rows=st.lists(st.one_of(st.none(), nested), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_observed_values_of_lists_are_counted(rows: list[list[float | None] | None], seed: int) -> None:
    data = Dataset.from_dict({"x": [[1.0], *rows]})
    chosen = np.random.default_rng(seed).permutation(len(data))
    columns = number_columns(["x"], -9.0)
    observed, total = observed_values(data.select(chosen), columns)
    for place, number in enumerate(chosen):
        row = data[int(number)]["x"]
        is_observed = [value is not None and value == value and value != -9.0 for value in row or []]
        assert observed[place] == sum(is_observed) and total[place] == (1 if row is None else len(row))
        told = WithoutEmpty(lambda batch, indices: batch, [columns], "train")
        assert bool(told({"x": [row]}, [0])) == any(is_observed)


def test_files_count_as_one_value(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "png")
    data = Dataset.from_dict({"x": [{"bytes": file.getvalue(), "path": None}, None]})
    observed, total = observed_values(data, number_columns(["x"], 0.0))
    assert observed.tolist() == [1, 0] and total.tolist() == [1, 1]
    assert isinstance(data.to_iterable_dataset(), IterableDataset)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(0, 1), size=st.integers(1, 4))
def test_moments_are_those_of_what_was_observed(seed: int, share: float, size: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(1000.0, 3.0, (12, 2))
    values[generator.random(values.shape) < share] = NAN
    measure = MomentsOfBatch(None, lambda batch, indices: values[batch["x"]].T, "")  # type: ignore[arg-type]
    parts = [measure({"x": rows}, list(rows)) for rows in np.array_split(np.arange(12), size)]
    mean, std = merge_moments([{name: part[name][0] for name in part} for part in parts])
    for channel in range(2):
        own = values[:, channel][~np.isnan(values[:, channel])]
        wanted = (own.mean(), own.std()) if len(own) else (NAN, NAN)
        np.testing.assert_allclose([mean[channel], std[channel]], wanted, rtol=1e-9, atol=1e-9)
