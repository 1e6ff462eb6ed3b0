"""The three processors: values, shapes, errors, and loading them with and without this package."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor

from hf_maskssl.models.feature_extraction_series import SeriesFeatureExtractor
from hf_maskssl.models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from hf_maskssl.models.image_processing_array import ArrayImageProcessor

SERIES = SeriesFeatureExtractor(2, 3, scale=2.0, standardize="dataset", mean=[1.0, -1.0], std=[2.0, 4.0])
ROW = SeriesFeatureExtractor(
    1, 2, standardize="dataset", mean=[1, 2], std=[1, 2], statistics_axis="feature", feature_names=["a", "b"]
)
SOUND = SpectrogramFeatureExtractor(8000, 16, 10, standardize="dataset", mean=[-40.0], std=[20.0])
PICTURE = ArrayImageProcessor(13, [4, 6], standardize="dataset", mean=[0.5] * 13, std=[2.0] * 13)
TRANSPOSED = SeriesFeatureExtractor(2, 3, standardize="dataset", mean=[1, -1], std=[2, 4], channels_last=True)
PROCESSORS = [SERIES, ROW, SOUND, PICTURE, TRANSPOSED]
SAMPLES: list[Any] = [np.ones((2, 3)), np.ones(2), np.sin(np.arange(500)), np.ones((13, 8, 8)), np.ones((2, 3))]


def output(features: Any) -> Any:
    """The one value of a BatchFeature."""
    (value,) = features.values()
    return value


def test_series_are_scaled_then_standardised_by_channel() -> None:
    values = np.arange(6.0).reshape(2, 3)
    expected = (2 * values - [[1.0], [-1.0]]) / [[2.0], [4.0]]
    result = SERIES(values, return_tensors="pt")["input_values"]
    assert result.shape == (1, 2, 3) and result.dtype == torch.float32
    np.testing.assert_allclose(result[0], expected, rtol=1e-6)


def test_rows_are_standardised_by_feature() -> None:
    np.testing.assert_allclose(
        ROW([[1.0, 4.0], [0.0, 2.0]], return_tensors="np")["input_values"], [[[0, 1]], [[-1, 0]]]
    )


def test_channels_can_come_last_and_old_files_have_them_first(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    result = TRANSPOSED(values, return_tensors="pt")["input_values"]
    assert result.shape == (1, 3, 2) and result.is_contiguous()
    np.testing.assert_allclose(result[0].T, (values - [[1.0], [-1.0]]) / [[2.0], [4.0]], rtol=1e-6)
    row = SeriesFeatureExtractor(**{**ROW.to_dict(), "channels_last": True})
    np.testing.assert_allclose(row([1.0, 4.0], return_tensors="np")["input_values"], [[[0], [1]]])
    own = SeriesFeatureExtractor(2, 3, standardize="sample")
    last = SeriesFeatureExtractor(2, 3, standardize="sample", channels_last=True)
    np.testing.assert_array_equal(last.prepare_sample(values).T, own.prepare_sample(values))
    SERIES.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    del settings["channels_last"]
    file.write_text(json.dumps(settings))
    assert SeriesFeatureExtractor.from_pretrained(tmp_path).channels_last is False


@pytest.mark.parametrize(("processor", "sample"), list(zip(PROCESSORS, SAMPLES, strict=True)))
def test_one_sample_and_a_batch_of_it_agree(processor: Any, sample: np.ndarray) -> None:
    one = output(processor(sample, return_tensors="pt"))
    lists = output(processor(sample.tolist(), return_tensors="pt"))
    batch = output(processor([sample, sample], return_tensors="pt"))
    stacked = output(processor(np.stack([sample, sample]), return_tensors="pt"))
    arrays = output(processor([sample, sample]))
    assert one.shape[0] == 1 and batch.shape[0] == 2 and isinstance(arrays, list)
    for other in (lists, batch[:1], stacked[1:], torch.from_numpy(arrays[1])[None]):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize(("processor", "sample"), list(zip(PROCESSORS, SAMPLES, strict=True)))
def test_saved_and_loaded_they_do_the_same(processor: Any, sample: np.ndarray, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert isinstance(settings["mean"], list) and "mel_filters" not in settings and "window" not in settings
    again = type(processor).from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    torch.testing.assert_close(output(again(sample)), output(processor(sample)))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_auto_classes_find_them(processor: Any, tmp_path: Path) -> None:
    """Without this package too, as `test_cargo.py` shows."""
    import hf_maskssl  # noqa: F401  (registers the classes)

    auto = AutoImageProcessor if isinstance(processor, ArrayImageProcessor) else AutoFeatureExtractor
    processor.save_pretrained(tmp_path)
    assert type(auto.from_pretrained(tmp_path)) is type(processor)


@given(st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=8))
def test_samples_are_standardised_by_themselves(values: list[float]) -> None:
    result = SeriesFeatureExtractor(2, 4, standardize="sample").prepare_sample(np.reshape(values, (2, 4)))
    np.testing.assert_allclose(result.mean(axis=1), 0.0, atol=1e-3)
    assert np.isfinite(result).all() and (result.std(axis=1) < 1.001).all()


def test_spectrograms_have_one_size_whatever_the_length() -> None:
    processor = SpectrogramFeatureExtractor(8000, 16, 10)
    tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    assert processor.num_samples == 9 * 80 + 200
    short, exact, long = (processor.prepare_sample(tone[:length]) for length in (300, processor.num_samples, 4000))
    assert short.shape == exact.shape == long.shape == (1, 16, 10)
    np.testing.assert_array_equal(exact, long)
    np.testing.assert_array_equal(short[..., 0], exact[..., 0])
    # Silence after the end is `db_range` below the loudest place.
    assert short[..., -1].max() == pytest.approx(short.max() - 80.0, abs=1e-3)
    # Low bands first: the tone at 1 kHz lies in the lower half of the mel bands up to 4 kHz.
    assert exact[0].mean(axis=1).argmax() == processor.mel_filters[round(1000 / 4000 * 128)].argmax() < 8


def test_scale_makes_integers_and_floats_agree() -> None:
    samples = np.random.default_rng(0).integers(-32768, 32767, 900).astype(np.int16)
    integers = SpectrogramFeatureExtractor(8000, 16, 10, scale=1 / 32768).prepare_sample(samples)
    floats = SpectrogramFeatureExtractor(8000, 16, 10).prepare_sample(samples / 32768)
    np.testing.assert_allclose(integers, floats, rtol=1e-6)


def test_pictures_of_every_layout_agree() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    processor = ArrayImageProcessor(3, [5, 7], scale=1 / 255)
    expected = np.moveaxis(pixels, -1, 0) / np.float32(255)
    for image in (Image.fromarray(pixels), pixels, np.moveaxis(pixels, -1, 0), pixels.tolist()):
        np.testing.assert_allclose(output(processor(image))[0], expected, rtol=1e-6)
    grey = ArrayImageProcessor(1, [5, 7])
    np.testing.assert_array_equal(output(grey(pixels[..., 0]))[0][0], pixels[..., 0])
    assert grey.prepare_sample(Image.fromarray(pixels)).shape == (1, 5, 7)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) + 5000)
    np.testing.assert_array_equal(grey.prepare_sample(deep)[0], pixels[..., 0].astype(np.float32) + 5000)


def test_resizing_arrays_is_pillows_channel_by_channel() -> None:
    pixels = np.random.default_rng(0).normal(size=(13, 8, 8)).astype(np.float32)
    result = ArrayImageProcessor(13, [4, 6]).prepare_sample(pixels)
    expected = np.asarray(Image.fromarray(pixels[7]).resize((6, 4), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(result[7], expected, rtol=1e-6)
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 255, (8, 8, 3)).astype(np.uint8))
    by_picture = ArrayImageProcessor(3, 4).prepare_sample(photo)
    by_array = ArrayImageProcessor(3, 4).prepare_sample(np.asarray(photo))
    np.testing.assert_allclose(by_picture, by_array, atol=1.0)


@pytest.mark.parametrize(
    ("processor", "sample", "message"),
    [
        (SERIES, np.ones((3, 3)), "expected 2 channels .num_channels., got 3"),
        (SERIES, np.ones((2, 4)), "the series has 4 steps, more than the 3 of series_length"),
        (SERIES, np.ones((3, 2)), "looks like time x channels"),
        (SERIES, [[1.0, 2.0, np.inf], [1.0, 2.0, 3.0]], "channel 0, step 2 is inf"),
        (SERIES, [["a", "b", "c"]] * 2, "expected numbers"),
        (SERIES, [], "expected a sample of shape|at least one sample"),
        (ROW, [1.0, np.inf], "b is inf"),
        (SOUND, np.zeros(0), "empty"),
        (SOUND, [0.0, np.inf], "sample 1 of the waveform is inf"),
        (SOUND, [np.zeros((2, 9))], "mono waveform with one dimension"),
        (PICTURE, np.ones((3, 8, 8)), r"expected 13 channels .num_channels., got an array \(3, 8, 8\)"),
        (PICTURE, Image.new("RGB", (4, 4)), "got a picture in mode RGB"),
        (PICTURE, np.full((13, 8, 8), np.inf), "channel 0, row 0, column 0 is inf"),
        (PICTURE, np.ones(5), "expected an image of shape"),
        (PICTURE, [], "at least one"),
    ],
)
def test_bad_samples_are_refused(processor: Any, sample: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(sample)


@pytest.mark.parametrize(("processor", "sample"), list(zip(PROCESSORS, SAMPLES, strict=True)))
def test_misspelt_arguments_are_refused(processor: Any, sample: np.ndarray) -> None:
    with pytest.raises(TypeError, match="return_tensor"):
        processor(sample, return_tensor="pt")


def test_another_sampling_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="made for 8000 samples per second, got 16000"):
        SOUND(np.zeros(10), sampling_rate=16000)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SeriesFeatureExtractor(2, 3, mean=[1.0], std=[1.0]), "expected 2 numbers each, got 1 and 1"),
        (lambda: SeriesFeatureExtractor(1, 3, mean=[1.0]), "give both or neither"),
        (lambda: SeriesFeatureExtractor(1, 3, mean=[1.0], std=[0.0]), "std positive"),
        (lambda: SeriesFeatureExtractor(1, 3, standardize="batch"), "expected one of .*, got 'batch'"),
        (lambda: SeriesFeatureExtractor(1, 3, statistics_axis="time"), "expected 'channel' or 'feature'"),
        (lambda: SeriesFeatureExtractor(1, 3, feature_names=["a"]), "expected 3 names, got 1"),
        (lambda: SpectrogramFeatureExtractor(8000, 16, 0), "num_frames: expected at least 1, got 0"),
        (
            lambda: SpectrogramFeatureExtractor(8000, 16, 4, fft_length=64),
            "expected at least frame_length 200, got 64",
        ),
        (lambda: SpectrogramFeatureExtractor(8000, 16, 4, max_frequency=5000), "half of sampling_rate 8000"),
        (lambda: ArrayImageProcessor(3, [4]), r"image_size \[H, W\], got 3 and \[4\]"),
        (lambda: ArrayImageProcessor(3, 4, resample="cubic"), "got 'cubic'"),
    ],
)
def test_impossible_settings_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
