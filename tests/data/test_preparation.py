"""From a recipe's data section to batches, for every kind of row."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from data_configs import channels_last, image_config, series_config, token_config
from datasets import IterableDataset
from PIL import Image
from torch.utils.data import DataLoader

from hf_maskssl.data import (
    DataArguments,
    ImageTextProcessor,
    PreparedData,
    build_processor,
    data_arguments,
    load_processor,
    prepare_data,
)
from hf_maskssl.data.tables.rows import PreparedRows, TransformedRows
from hf_maskssl.data.tables.splits import load_splits

MODES = [{}, {"cache": False}, {"streaming": True}]
MODE_NAMES = ["cached", "on the fly", "streaming"]
modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def whole_batch(data: PreparedData, split: str = "train") -> dict[str, torch.Tensor]:
    """All rows of a split as one batch."""
    return data.collator(list(getattr(data, split)))


def pictures(count: int, channels: int = 3) -> list[dict[str, Any]]:
    """Encoded pictures of a different grey each."""
    encoded = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.new("RGB" if channels == 3 else "L", (8, 6), (40 * number,) * channels).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    return encoded


@modes
def test_tabular_rows_are_standardised_by_feature_of_the_training_split(
    write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, (20, 2)).astype(np.float32)
    train = write_parquet("train", label=[0, 1] * 10, a=values[:, 0], b=values[:, 1], name=["x"] * 20)
    test = write_parquet("test", label=[0, 1], a=[0.0, 1.0], b=[0.0, 1.0], name=["x"] * 2)
    args = data_arguments(
        "parquet",
        data_files={"train": train, "test": test},
        test_split="test",
        kind="tabular",
        label_column="label",
        **mode,
    )
    data = prepare_data(args, series_config(1, 2))
    batch = whole_batch(data)
    expected = (values - values.mean(0)) / values.std(0)
    torch.testing.assert_close(batch["input_values"], torch.from_numpy(expected)[:, None], rtol=1e-4, atol=1e-4)
    assert batch["labels"].tolist() == [0, 1] * 10 and batch["labels"].dtype == torch.int64
    assert batch["index"].tolist() == list(range(20))
    assert (data.num_labels, data.label_names) == (2, ["0", "1"])
    test_values = (np.array([[0.0, 0.0], [1.0, 1.0]]) - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(whole_batch(data, "test")["input_values"][:, 0], test_values, rtol=1e-4)
    assert data.processor.feature_names == ["a", "b"]


def test_labels_are_never_among_the_features(write_parquet: Callable[..., str]) -> None:
    columns: dict[str, Any] = {name: np.arange(8.0) + offset for offset, name in enumerate(["f0", "year", "plant"])}
    path = write_parquet("train", **columns)
    unlabelled = prepare_data(tabular(path), series_config(1, 3)).processor
    with pytest.raises(ValueError, match="pre-trained with the label column 'year' among its features"):
        prepare_data(tabular(path, label_column="year", task="regression"), series_config(1, 3), unlabelled)
    with pytest.raises(ValueError, match="data.label_column: 'year' is also an input column"):
        tabular(path, input_column=["f0", "year"], label_column="year")
    # Nor is the column by which rows are kept together, which tells one part of the data from another.
    cut = {"split": "random", "split_fractions": [0.5, 0.25, 0.25], "split_column": "plant"}
    data: Any = prepare_data(tabular(path, label_column="year", task="regression", **cut), series_config(1, 1))
    assert data.processor.feature_names == ["f0"]


@modes
def test_series_of_nested_lists_and_of_a_column_per_channel(
    write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    series = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    path = write_parquet(
        "train", series=series.tolist(), x=series[:, 0].tolist(), y=series[:, 1].tolist(), index=[9] * 6
    )
    for column in ("series", ["x", "y"]):
        args = data_arguments("parquet", data_files=path, kind="series", input_column=column, **mode)
        batch = whole_batch(prepare_data(args, series_config(2, 4)))
        expected = (series - series.mean((0, 2), keepdims=True)) / series.std((0, 2), keepdims=True)
        torch.testing.assert_close(batch["input_values"], torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
        assert "labels" not in batch
        # The file's own column of that name is not taken for the row number.
        assert batch["index"].tolist() == list(range(6))


@modes
def test_models_with_channels_last_get_a_token_per_step(
    write_parquet: Callable[..., str], mode: dict[str, Any], tmp_path: Path
) -> None:
    series = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    path = write_parquet("train", s=series.tolist(), a=series[:, 0, 0], b=series[:, 0, 1])
    sequences = data_arguments("parquet", data_files=path, kind="series", input_column="s", **mode)
    rows = data_arguments("parquet", data_files=path, kind="tabular", input_column=["a", "b"], **mode)
    for args, config in ((sequences, series_config(2, 4)), (rows, series_config(1, 2))):
        expected = whole_batch(prepare_data(args, config))["input_values"]
        data = prepare_data(args, channels_last(config))
        torch.testing.assert_close(whole_batch(data)["input_values"], expected.transpose(1, 2))
        data.processor.save_pretrained(tmp_path / "checkpoint")
        loaded = load_processor(tmp_path / "checkpoint")
        again = whole_batch(prepare_data(args, channels_last(config), processor=loaded))
        torch.testing.assert_close(again["input_values"], expected.transpose(1, 2))
        with pytest.raises(ValueError, match="gives time x channels .channels_last., the model takes channels x time"):
            prepare_data(args, config, processor=loaded)


@modes
def test_images_of_a_parquet_file(tmp_path: Path, mode: dict[str, Any]) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    dataset = datasets.Dataset.from_dict({"image": pictures(4), "label": [0, 1, 1, 0]}, features=features)
    dataset.to_parquet(tmp_path / "train.parquet")
    args = data_arguments(
        "parquet", data_files=str(tmp_path / "train.parquet"), input_column="image", label_column="label", **mode
    )
    data = prepare_data(args, image_config(3, 4, 4))
    batch = whole_batch(data)
    greys = np.array([0, 40, 80, 120])
    expected = (greys - greys.mean()) / greys.std()
    np.testing.assert_allclose(batch["pixel_values"][:, 1, 2, 3], expected, rtol=1e-5)
    assert batch["pixel_values"].shape == (4, 3, 4, 4)
    assert data.label_names == ["a", "b"]


@modes
def test_arrays_of_thirteen_channels(tmp_path: Path, mode: dict[str, Any]) -> None:
    images = np.random.default_rng(0).integers(0, 4000, (5, 13, 8, 8)).astype(np.uint16)
    np.savez(tmp_path / "train.npz", image=images, label=np.arange(5))
    args = data_arguments(
        "numpy",
        data_files=str(tmp_path / "train.npz"),
        input_column="image",
        label_column="label",
        standardize="none",
        scale=1 / 4000,
        **mode,
    )
    batch = whole_batch(prepare_data(args, image_config(13, 8, 8)))
    np.testing.assert_allclose(batch["pixel_values"], images / 4000, rtol=1e-6)


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """A 16-bit WAV file of one or more channels, (samples,) or (samples, channels)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


@modes
def test_wav_files_equal_the_same_samples_in_a_column(
    tmp_path: Path, write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    sounds = {"no": rng.integers(-9000, 9000, 700), "yes": rng.integers(-9000, 9000, 3000)}
    for label, samples in sounds.items():
        (tmp_path / "sounds" / label).mkdir(parents=True)
        stereo = np.stack([samples, samples], axis=1) if label == "no" else samples
        write_wav(tmp_path / "sounds" / label / "1.wav", stereo, 8000)
    path = write_parquet("train", audio=[samples.astype(np.int16) for samples in sounds.values()])
    common: dict[str, Any] = {"kind": "spectrogram", "input_column": "audio", "sampling_rate": 8000, **mode}
    files = data_arguments("audiofolder", data_dir=str(tmp_path / "sounds"), label_column="label", **common)
    column = data_arguments("parquet", data_files=path, scale=1 / 32768, **common)
    config = image_config(1, 16, 12)
    data = prepare_data(files, config)
    batch = whole_batch(data)
    assert batch["pixel_values"].shape == (2, 1, 16, 12)
    assert data.label_names == ["no", "yes"] and batch["labels"].tolist() == [0, 1]
    torch.testing.assert_close(batch["pixel_values"], whole_batch(prepare_data(column, config))["pixel_values"])


def test_sounds_of_another_rate_are_resampled(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    seconds = np.arange(16000) / 16000
    write_wav(tmp_path / "sounds" / "1.wav", 8000 * np.sin(2 * np.pi * 500 * seconds), 16000)
    args = data_arguments(
        "audiofolder",
        data_dir=str(tmp_path / "sounds"),
        kind="spectrogram",
        input_column="audio",
        sampling_rate=8000,
        standardize="none",
    )
    data = prepare_data(args, image_config(1, 32, 20))
    loudest = data.train[0]["pixel_values"][0].mean(axis=1).argmax()
    # Slaney mel bands are linear below 1 kHz: 34 edges from 0 to mel(4000 Hz); 500 Hz lies in this one.
    filters = data.processor.mel_filters
    assert loudest == filters[round(500 / 4000 * (len(filters) - 1))].argmax()


ALPHABET = "ACDEFGHIKLMNPQRSTVWY"


@modes
def test_strings_become_characters_cut_to_the_longest_sequence(
    write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    path = write_parquet("train", primary=["ACDEFG", "YX"], stability=[0.5, -1.5])
    args = data_arguments(
        "parquet",
        data_files=path,
        kind="tokens",
        input_column="primary",
        alphabet=ALPHABET,
        label_column="stability",
        task="regression",
        **mode,
    )
    data = prepare_data(args, token_config(23, 4))
    batch = whole_batch(data)
    assert batch["input_ids"].tolist() == [[3, 4, 5, 6], [22, 1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [0.5, -1.5] and batch["labels"].dtype == torch.float32
    assert (data.task, data.num_labels, data.label_names) == ("regression", 1, None)


@modes
def test_token_labels_follow_mask_truncation_and_padding(
    write_parquet: Callable[..., str], mode: dict[str, Any]
) -> None:
    path = write_parquet(
        "train", primary=["ACDEF", "YA"], ss3=[[0, 1, 2, 1, 0], [2, 2]], mask=[[1, 0, 1, 1, 1], [0, 1]]
    )
    args = data_arguments(
        "parquet",
        data_files=path,
        kind="tokens",
        input_column="primary",
        alphabet=ALPHABET,
        label_column="ss3",
        label_mask_column="mask",
        task="token_classification",
        **mode,
    )
    data = prepare_data(args, token_config(23, 4))
    assert whole_batch(data)["labels"].tolist() == [[0, -100, 2, 1], [-100, 2, -100, -100]]
    assert data.num_labels == 3


@modes
def test_columns_of_ids_are_taken_as_they_are(write_parquet: Callable[..., str], mode: dict[str, Any]) -> None:
    path = write_parquet("train", ids=[[3, 1, 2], [4, 4, 4]])
    args = data_arguments("parquet", data_files=path, kind="tokens", input_column="ids", **mode)
    data = prepare_data(args, token_config(5, 3))
    batch = whole_batch(data)
    assert batch["input_ids"].tolist() == [[3, 1, 2], [4, 4, 4]] and "attention_mask" not in batch
    assert data.processor is None


@modes
def test_images_with_captions(tmp_path: Path, mode: dict[str, Any]) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict({"image": pictures(2), "caption": ["a cat", "cats"]}, features=features)
    dataset.to_parquet(tmp_path / "train.parquet")
    args = data_arguments(
        "parquet",
        data_files=str(tmp_path / "train.parquet"),
        kind="vision_language",
        input_column="image",
        text_column="caption",
        alphabet="acts ",
        **mode,
    )
    config = SimpleNamespace(
        modality="vision_language", num_channels=3, image_size=4, vocab_size=8, max_position_embeddings=6
    )
    data = prepare_data(args, config)
    batch = whole_batch(data)
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    assert batch["input_ids"].tolist() == [[3, 7, 4, 3, 5], [4, 3, 5, 6, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 1, 0]]
    assert isinstance(data.processor, ImageTextProcessor)
    data.processor.save_pretrained(tmp_path / "checkpoint")
    again = load_processor(tmp_path / "checkpoint")
    assert isinstance(again, ImageTextProcessor) and again.image_processor.mean == data.processor.image_processor.mean
    torch.testing.assert_close(whole_batch(prepare_data(args, config, processor=again)), batch)


def test_string_labels_are_sorted_and_numbered_by_the_whole_training_split(
    write_parquet: Callable[..., str],
) -> None:
    files = {
        "train": write_parquet("train", x=np.arange(9.0), label=["pear", "apple", "fig"] * 3),
        "test": write_parquet("test", x=[1.0], label=["fig"]),
    }
    args = data_arguments(
        "parquet",
        data_files=files,
        test_split="test",
        kind="tabular",
        input_column=["x"],
        label_column="label",
        max_train_samples=1,
    )
    data = prepare_data(args, series_config(1, 1))
    assert data.label_names == ["apple", "fig", "pear"]
    assert whole_batch(data, "test")["labels"].tolist() == [1]


def test_a_class_unknown_to_training_is_named(write_parquet: Callable[..., str]) -> None:
    files = {
        "train": write_parquet("train", x=[1.0, 2.0], label=["a", "b"]),
        "test": write_parquet("test", x=[1.0], label=["c"]),
    }
    args = data_arguments(
        "parquet", data_files=files, test_split="test", kind="tabular", input_column=["x"], label_column="label"
    )
    with pytest.raises(ValueError, match=r"test split, row 0, column 'label': label 'c' is not in the training split"):
        prepare_data(args, series_config(1, 1))


@pytest.mark.parametrize("labels", [["a", "b", "c"], [0, 1, 2], [2, 0, 5]])
@pytest.mark.parametrize(
    "cut", [{"validation_fraction": 0.34}, {"split": "random", "split_fractions": [0.34, 0.33, 0.33]}]
)
def test_a_cut_may_leave_classes_without_a_training_row(
    labels: list[Any], cut: dict[str, Any], write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("all", x=[1.0, 2.0, 3.0], label=labels)
    args = data_arguments("parquet", data_files=path, kind="tabular", input_column=["x"], label_column="label", **cut)
    data = prepare_data(args, series_config(1, 1))
    assert data.label_names == sorted(map(str, labels))
    assert data.validation is not None and data.validation[0]["labels"] in range(3)
    assert "train split, column 'label': no row of" in caplog.text


def tabular(path: str, **fields: Any) -> DataArguments:
    """Arguments of a small tabular set."""
    return data_arguments("parquet", data_files=path, kind="tabular", **fields)


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"x": [1.0]}, {"input_column": ["z"]}, r"data.input_column: the train split has no column 'z'.*\['x'\]"),
        ({"x": [1.0]}, {"label_column": "y"}, r"data.label_column: the train split has no column 'y'.*\['x'\]"),
        ({"x": ["a"]}, {}, "no column holds one number per row"),
        ({"x": [1.0, np.nan]}, {"missing": "error"}, r"train split, row 1, column 'x': (x|column 'x') is missing"),
        ({"x": [1.0, np.inf]}, {}, r"row 1, column 'x': x is inf"),
        ({"x": [1, None]}, {"missing": "error"}, r"row 1, column 'x': (x|column 'x') is missing"),
        ({"x": ["a"]}, {"input_column": ["x"]}, "row 0, column 'x': expected numbers"),
        ({"x": [1.0], "y": [1.0]}, {}, "model.series_length is 1, but there are 2 feature columns"),
        (
            {"x": [1.0, 2.0], "y": [0, None]},
            {"input_column": ["x"], "label_column": "y"},
            "row 1, column 'y': the label",
        ),
        ({"x": [1.0], "y": [0.5]}, {"input_column": ["x"], "label_column": "y"}, "set data.task to regression"),
        ({"x": [1.0], "y": [[1]]}, {"input_column": ["x"], "label_column": "y"}, "expected one number as label"),
        (
            {"x": [1.0], "y": ["a"]},
            {"input_column": ["x"], "label_column": "y", "task": "regression"},
            "row 0, column 'y': expected one number as label",
        ),
    ],
)
@modes
def test_bad_tables_are_refused(
    write_parquet: Callable[..., str],
    columns: dict[str, Any],
    fields: dict[str, Any],
    message: str,
    mode: dict[str, Any],
) -> None:
    args = tabular(write_parquet("train", **columns), **fields, **mode)
    with pytest.raises(ValueError, match=message):
        whole_batch(prepare_data(args, series_config(1, 1)))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([[[1.0, 2.0, 3.0]]], "row 0, column 's': expected 2 channels .num_channels., got 1"),
        ([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]], "looks like time x channels, transpose it"),
        ([[[1.0] * 4] * 2], "row 0, column 's': the series has 4 steps, more than the 3 of series_length"),
        ([[[1.0, 2.0, 3.0], [1.0]]], r"every channel must be equally long, got the steps \[3, 1\]"),
        ([[[1.0, 2.0, 3.0], [1.0, np.inf, 3.0]]], "channel 1, step 1 is inf"),
        ([None], "all 1 rows have nothing in column 's'"),
    ],
)
def test_bad_series_are_refused(write_parquet: Callable[..., str], series: Any, message: str) -> None:
    path = write_parquet("train", s=series, n=[1])
    args = data_arguments("parquet", data_files=path, kind="series", input_column="s")
    with pytest.raises(ValueError, match=message):
        prepare_data(args, series_config(2, 3))


@pytest.mark.parametrize(
    ("column", "fields", "message"),
    [
        (["AC", "xy"], {"alphabet": "AC"}, "row 1, column 't': the tokenizer knows nothing of 'xy'"),
        (["AC"], {}, "holds str 'AC': name its data.tokenizer or data.alphabet"),
        ([[1, 2]], {"alphabet": "AC"}, "remove data.tokenizer and data.alphabet"),
        ([[1.5, 2.0]], {}, "expected a list of integer ids"),
        ([[1, 2], [3, 7]], {}, "row 1, column 't' holds the id 7, outside the vocabulary 0..5"),
        ([[1, 2], [-3, 1]], {}, "holds the id -3, outside the vocabulary"),
        ([[1, 2], [2**40, 1]], {}, "holds the id 1099511627776, outside the vocabulary"),
        (["AC"], {"alphabet": "ACDE"}, "model.vocab_size is 6, but the tokenizer has ids up to 6: set .* to 7"),
        (["AC"], {"tokenizer": "no/such/folder"}, "data.tokenizer 'no/such/folder' cannot be loaded"),
    ],
)
def test_bad_tokens_are_refused(
    write_parquet: Callable[..., str], column: Any, fields: dict[str, Any], message: str
) -> None:
    args = data_arguments(
        "parquet", data_files=write_parquet("train", t=column), kind="tokens", input_column="t", **fields
    )
    with pytest.raises(ValueError, match=message):
        whole_batch(prepare_data(args, token_config(6, 4)))


def test_samples_of_padding_alone_are_refused(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", t=[[1, 2, 0], [0, 0, 0]])
    args = data_arguments("parquet", data_files=path, kind="tokens", input_column="t")
    data = prepare_data(args, token_config(6, 4, pad=0))
    assert data.collator([data.train[0]])["attention_mask"].tolist() == [[1, 1, 0]]
    with pytest.raises(ValueError, match="row 1, column 't' is empty or all padding"):
        whole_batch(data)


@pytest.mark.parametrize(
    ("labels", "mask", "message"),
    [
        ([[0, 1, 2]], [[1, 1]], "expected one of the labels per token, got 3 for 2 tokens"),
        ([[0, 1]], [[1]], "expected one of the label mask entries per token, got 1 for 2 tokens"),
        ([0], [[1, 1]], "expected a list with one label per token"),
    ],
)
def test_bad_token_labels_are_refused(write_parquet: Callable[..., str], labels: Any, mask: Any, message: str) -> None:
    args = data_arguments(
        "parquet",
        data_files=write_parquet("train", t=["AC"], l=labels, m=mask),
        kind="tokens",
        input_column="t",
        alphabet="AC",
        label_column="l",
        label_mask_column="m",
        task="token_classification",
    )
    with pytest.raises(ValueError, match=f"row 0, column 'l': {message}"):
        prepare_data(args, token_config(6, 4))


def test_pictures_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image()})

    def prepare(images: list[Any], channels: int) -> PreparedData:
        rows = datasets.Dataset.from_dict({"image": images}, features=features)
        rows.to_parquet(tmp_path / "train.parquet")
        args = data_arguments("parquet", data_files=str(tmp_path / "train.parquet"), input_column="image")
        return prepare_data(args, image_config(channels, 4, 4))

    broken = {"bytes": b"no picture", "path": None}
    with pytest.raises(ValueError, match="train split, row 1, column 'image': unreadable image"):
        prepare([*pictures(1), broken], 3)
    with pytest.raises(ValueError, match="row 0, column 'image': expected 13 channels"):
        prepare(pictures(1), 13)
    # A missing picture is left out; the broken one behind it keeps its number.
    with pytest.raises(ValueError, match="train split, row 2, column 'image': unreadable image"):
        prepare([*pictures(1), None, broken], 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"RIFF and nothing", "unreadable WAV file"), (b"fLaC", "is not a WAV file.*torchcodec")],
)
def test_sounds_that_cannot_be_used_are_named(
    write_parquet: Callable[..., str], content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_torchcodec(self: Any, value: Any) -> None:
        raise ImportError("torchcodec")

    monkeypatch.setattr(datasets.Audio, "decode_example", without_torchcodec)
    path = write_parquet("train", audio=[{"bytes": content, "path": None}, None])
    args = data_arguments("parquet", data_files=path, kind="spectrogram", input_column="audio", sampling_rate=8000)
    with pytest.raises(ValueError, match=f"row 0, column 'audio': .*{message}"):
        prepare_data(args, image_config(1, 8, 8))


def test_other_sound_formats_go_through_the_audio_feature(
    write_parquet: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = torch.sin(torch.arange(800) / 5)

    class Decoder:
        def get_all_samples(self) -> SimpleNamespace:
            return SimpleNamespace(data=torch.stack([tone, tone]), sample_rate=8000)

    monkeypatch.setattr(datasets.Audio, "decode_example", lambda self, value: Decoder())
    path = write_parquet("train", audio=[{"bytes": b"fLaC", "path": None}])
    args = data_arguments(
        "parquet", data_files=path, kind="spectrogram", input_column="audio", sampling_rate=8000, standardize="none"
    )
    data = prepare_data(args, image_config(1, 8, 8))
    np.testing.assert_allclose(
        data.train[0]["pixel_values"], data.processor(tone.numpy())["pixel_values"][0], atol=1e-4
    )


def test_an_empty_waveform_is_left_out_with_a_count(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", audio=[[1, 2, 3], []])
    args = data_arguments("parquet", data_files=path, kind="spectrogram", input_column="audio", sampling_rate=8000)
    assert list(prepare_data(args, image_config(1, 8, 8)).report.splits["train"].left_out.values()) == [1]


def test_kind_and_modality_must_agree() -> None:
    with pytest.raises(ValueError, match="data.kind 'image' goes with model.modality 'image'.*is 'tokens'"):
        prepare_data(data_arguments(), token_config(3, 3))
    with pytest.raises(ValueError, match="set model.num_channels to 1, not 2"):
        prepare_data(data_arguments(kind="tabular"), series_config(2, 3))


def test_labels_can_be_demanded() -> None:
    with pytest.raises(ValueError, match="data.label_column: labels are needed here"):
        prepare_data(data_arguments(), image_config(1, 8, 8), require_labels=True)


def test_a_processor_of_a_checkpoint_keeps_its_statistics(write_parquet: Callable[..., str], tmp_path: Path) -> None:
    first = tabular(write_parquet("first", a=[0.0, 2.0], b=[1.0, 5.0]))
    other = tabular(write_parquet("other", b=[9.0, 9.5], a=[7.0, 8.0], c=[0.0, 1.0]))
    processor = prepare_data(first, series_config(1, 2)).processor
    processor.save_pretrained(tmp_path / "checkpoint")
    loaded = load_processor(tmp_path / "checkpoint")
    # By name and in the order of training, although the other file has them otherwise and one more.
    batch = whole_batch(prepare_data(other, series_config(1, 2), processor=loaded))
    assert batch["input_values"][:, 0].tolist() == [[6.0, 3.0], [7.0, 3.25]]


def test_a_processor_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    processor = prepare_data(data_arguments(), image_config(1, 8, 8)).processor
    with pytest.raises(ValueError, match=r"makes inputs of size \[1, 8, 8\], the model takes \[1, 4, 4\]"):
        prepare_data(data_arguments(), image_config(1, 4, 4), processor=processor)
    args = data_arguments(kind="tokens", alphabet="A")
    with pytest.raises(ValueError, match="data.kind 'tokens' cannot be prepared by .* ArrayImageProcessor"):
        prepare_data(args, token_config(9, 9), processor=processor)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(ValueError, match="got 'ViTImageProcessor'"):
        load_processor(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_processor(tmp_path / "nowhere")


def test_constant_features_are_only_centred(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    args = tabular(write_parquet("train", a=[4.0, 4.0], b=[1.0, 3.0]))
    with caplog.at_level(logging.WARNING):
        batch = whole_batch(prepare_data(args, series_config(1, 2)))
    assert batch["input_values"][:, 0].tolist() == [[0.0, -1.0], [0.0, 1.0]]
    assert "['a']" in caplog.text


def test_statistics_of_many_batches_equal_those_of_all_values(write_parquet: Callable[..., str]) -> None:
    # Far from zero: sums of squares would lose everything here.
    values = np.random.default_rng(0).normal(1e6, 1.0, 1500)
    args = tabular(write_parquet("train", a=values))
    for streaming in (False, True):
        args.streaming = streaming
        processor: Any = build_processor(args, series_config(1, 1), load_splits(args)["train"])
        np.testing.assert_allclose([processor.mean[0], processor.std[0]], [values.mean(), values.std()], rtol=1e-9)


def test_large_sets_are_measured_on_a_sample(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_maskssl.data.tables.statistics.STATISTICS_ROWS", 10)
    path = write_parquet("train", a=np.arange(100.0))
    for streaming, words in ((False, "measured on 10 of 100 rows"), (True, "first 10 rows of the stream")):
        with caplog.at_level(logging.INFO):
            processor: Any = prepare_data(tabular(path, streaming=streaming), series_config(1, 1)).processor
        assert words in caplog.text
    assert processor.mean == [4.5]


@pytest.mark.slow
def test_rows_are_prepared_once_and_found_again_by_other_processes(tmp_path: Path, cache_folder: Path) -> None:
    np.savez(tmp_path / "train.npz", image=np.random.default_rng(0).normal(size=(9, 1, 4, 4)), label=np.arange(9))
    program = (
        "import sys, datasets; datasets.disable_progress_bars()\n"
        "from types import SimpleNamespace\n"
        "from hf_maskssl.data import data_arguments, prepare_data\n"
        "config = SimpleNamespace(modality='image', num_channels=1, image_size=[4, 4])\n"
        "args = data_arguments('numpy', data_files=sys.argv[1], input_column='image', label_column='label',\n"
        "    validation_fraction=0.3)\n"
        "print(prepare_data(args, config).train.table.cache_files[0]['filename'])\n"
    )
    # Texts have other hashes in every process: here and in a fresh interpreter.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache_folder), "PYTHONHASHSEED": seed}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", program, str(tmp_path / "train.npz")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before = {path: path.stat().st_mtime_ns for path in (cache_folder / "hf_maskssl").iterdir()}
    args = data_arguments(
        "numpy",
        data_files=str(tmp_path / "train.npz"),
        input_column="image",
        label_column="label",
        validation_fraction=0.3,
    )
    found: Any = prepare_data(args, image_config(1, 4, 4)).train
    assert found.table.cache_files[0]["filename"] == result.stdout.strip()
    assert before == {path: path.stat().st_mtime_ns for path in (cache_folder / "hf_maskssl").iterdir()}
    assert len(before) == 3


def test_other_settings_prepare_anew(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", a=[1.0, 2.0])
    for scale in (1.0, 2.0):
        args = tabular(path, standardize="none", scale=scale)
        assert whole_batch(prepare_data(args, series_config(1, 1)))["input_values"].flatten().tolist() == [
            scale,
            2 * scale,
        ]


def test_a_failed_preparation_leaves_nothing(write_parquet: Callable[..., str], cache_folder: Path) -> None:
    args = tabular(write_parquet("train", a=[1.0] * 300 + [np.nan]), standardize="none", missing="error")
    with pytest.raises(ValueError, match="row 300"):
        prepare_data(args, series_config(1, 1))
    assert list((cache_folder / "hf_maskssl").iterdir()) == []


def test_digits_write_no_file(tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    args = data_arguments(label_column="label", test_split="test", validation_fraction=0.1)
    data = prepare_data(args, image_config(1, 8, 8))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1293, 144, 360]
    assert not cache_folder.exists() and list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("cache", [True, False])
def test_prepared_rows_select_whole_arrays_and_workers(cache: bool) -> None:
    data = prepare_data(data_arguments(label_column="label", cache=cache), image_config(1, 8, 8))
    assert isinstance(data.train, PreparedRows if cache else TransformedRows)
    arrays = data.train.arrays()
    assert arrays["pixel_values"].shape == (1437, 1, 8, 8) and arrays["pixel_values"].dtype == np.float32
    chosen = data.train.select([5, 3, -1]).select([2, 0])
    assert [row["index"] for row in chosen] == [1436, 5] and len(chosen) == 2
    np.testing.assert_array_equal(chosen.arrays()["pixel_values"], arrays["pixel_values"][[1436, 5]])
    assert set(data.train.column_names) == {"pixel_values", "labels", "index"}
    with pytest.raises(IndexError):
        data.train[1437]
    loader = DataLoader(data.train, 500, collate_fn=data.collator, num_workers=1, multiprocessing_context="fork")
    batches = [batch["pixel_values"] for batch in loader]
    np.testing.assert_array_equal(torch.cat(batches).numpy(), arrays["pixel_values"])
    assert len(pickle.loads(pickle.dumps(data.train)).arrays()["labels"]) == 1437


def test_several_processes_prepare_the_same(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("train", t=["ACD"[: 1 + number % 3] for number in range(700)])
    common: dict[str, Any] = {"data_files": path, "kind": "tokens", "input_column": "t", "alphabet": "ACD"}
    one = prepare_data(data_arguments("parquet", cache=False, **common), token_config(6, 3))
    two = prepare_data(data_arguments("parquet", num_proc=2, **common), token_config(6, 3))
    torch.testing.assert_close(whole_batch(one), whole_batch(two))


def test_streams_stay_streams(write_parquet: Callable[..., str]) -> None:
    args = tabular(write_parquet("train", a=np.arange(600.0)), streaming=True)
    data = prepare_data(args, series_config(1, 1))
    assert isinstance(data.train, IterableDataset)
    loader = DataLoader(data.train, 100, collate_fn=data.collator)
    assert torch.cat([batch["index"] for batch in loader]).tolist() == list(range(600))


@pytest.mark.parametrize(
    ("name", "fields", "config", "shape", "labels"),
    [
        ("higgs_small", {"kind": "tabular"}, series_config(1, 28), (1, 28), 2),
        (
            "timeseries/japanese_vowels",
            {"kind": "series", "input_column": "series"},
            series_config(12, 25),
            (12, 25),
            9,
        ),
        ("clothing64", {"input_column": "image"}, image_config(3, 32, 32), (3, 32, 32), 10),
        (
            "spoken_digits",
            {"kind": "spectrogram", "input_column": "audio", "sampling_rate": 8000, "scale": 1 / 32768},
            image_config(1, 32, 32),
            (1, 32, 32),
            10,
        ),
    ],
)
def test_real_sets(
    shared_data: Callable[[str], Path],
    name: str,
    fields: dict[str, Any],
    config: Any,
    shape: tuple[int, ...],
    labels: int,
) -> None:
    folder = shared_data(name)
    files = {split: str(folder / f"{split}.parquet") for split in ("train", "test")}
    args = data_arguments(
        "parquet", data_files=files, label_column="label", test_split="test", max_train_samples=200, **fields
    )
    data = prepare_data(args, config)
    batch = whole_batch(data)
    values = batch["input_values"] if "input_values" in batch else batch["pixel_values"]
    assert values.shape == (200, *shape) and data.num_labels == labels
    assert abs(float(values.mean())) < 1e-3 and abs(float(values.std()) - 1) < 1e-2


def test_real_secondary_structure(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("proteins/secondary_structure") / "test.parquet"
    args = data_arguments(
        "parquet",
        data_files=str(path),
        kind="tokens",
        input_column="primary",
        alphabet=ALPHABET + "XUO",
        label_column="ss3",
        label_mask_column="mask",
        task="token_classification",
    )
    data = prepare_data(args, token_config(26, 128))
    batch = whole_batch(data)
    assert batch["input_ids"].shape == batch["labels"].shape == (364, 128)
    assert set(batch["labels"].unique().tolist()) == {-100, 0, 1, 2}
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
