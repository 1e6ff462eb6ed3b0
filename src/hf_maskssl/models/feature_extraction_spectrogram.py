"""Feature extractor that turns waveforms into log-mel spectrograms of one size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.audio_utils import mel_filter_bank, optimal_fft_length, spectrogram, window_function
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import TensorType

from .standardization import (
    Array,
    Numbers,
    as_model_inputs,
    beyond_range,
    check_statistics,
    standardize,
    without_invalid,
)


def unit_range(samples: np.ndarray) -> np.ndarray:
    """Samples as float64: integers of a sound file in [-1, 1), by the range of their type; floats as they are."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128.0) / 128.0
    if samples.dtype.kind == "i":
        return samples.astype(np.float64) / (np.iinfo(samples.dtype).max + 1.0)
    return samples.astype(np.float64)


class SpectrogramFeatureExtractor(FeatureExtractionMixin):
    """Waveform -> log-mel spectrogram in decibels as a one-channel picture, lowest mel band first.

    The picture covers `(num_frames - 1) * hop_length + frame_length` samples: shorter waveforms are padded at the end, with
    silence or with missing frames (`padding`), longer ones cropped there.

    Args:
        sampling_rate: Samples per second.
        num_mel_bins: Mel bands H, the picture's height.
        num_frames: Frames W, the picture's width.
        frame_length: Samples in a frame; None means 25 ms.
        hop_length: Samples from one frame to the next; None means 10 ms.
        fft_length: Samples of a Fourier transform; None means the next power of two from `frame_length`.
        min_frequency: Lower edge of the lowest band in Hz.
        max_frequency: Upper edge of the highest band in Hz; None means half of `sampling_rate`.
        db_range: Decibels kept below the loudest place of each sample.
        scale: Raw samples are multiplied by this first (1/32768 for 16-bit integers).
        standardize: `"dataset"` (by `mean` and `std`), `"sample"` or `"none"`.
        mean: Mean for `"dataset"`: one number, in decibels.
        std: Standard deviation: one positive number, in decibels.
        unit_integers: Whether arrays of integers, as readers of sound files give them, are brought to [-1, 1) first
            (`unit_range`), as the files that it was made for were. False takes integers as they are.
        invalid_value: Raw sample that says that none was recorded, as NaN always does. A frame with such a sample is missing.
        padding: Filling behind the end of a shorter waveform: `"silence"`, or `"mask"`, by which frames that begin there are
            missing.

    Raises:
        ValueError: Sizes that cannot be, or statistics that do not fit.
    """

    model_input_names = ["pixel_values", "observed_mask"]

    def __init__(
        self,
        sampling_rate: int = 16000,
        num_mel_bins: int = 64,
        num_frames: int = 64,
        frame_length: int | None = None,
        hop_length: int | None = None,
        fft_length: int | None = None,
        min_frequency: float = 0.0,
        max_frequency: float | None = None,
        db_range: float = 80.0,
        scale: float = 1.0,
        standardize: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        unit_integers: bool = False,
        invalid_value: float | None = None,
        padding: str = "silence",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.num_frames = num_frames
        self.frame_length = round(0.025 * sampling_rate) if frame_length is None else frame_length
        self.hop_length = round(0.010 * sampling_rate) if hop_length is None else hop_length
        sizes = {"sampling_rate": sampling_rate, "num_mel_bins": num_mel_bins, "num_frames": num_frames}
        sizes |= {"frame_length": self.frame_length, "hop_length": self.hop_length}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        self.fft_length = optimal_fft_length(self.frame_length) if fft_length is None else fft_length
        if self.fft_length < self.frame_length:
            raise ValueError(f"fft_length: expected at least frame_length {self.frame_length}, got {self.fft_length}")
        self.min_frequency = min_frequency
        self.max_frequency = sampling_rate / 2 if max_frequency is None else max_frequency
        if not 0.0 <= self.min_frequency < self.max_frequency <= sampling_rate / 2:
            raise ValueError(
                f"min_frequency {self.min_frequency} and max_frequency {self.max_frequency}: expected "
                f"0 <= min < max <= half of sampling_rate {sampling_rate}"
            )
        self.db_range, self.scale = db_range, scale
        self.standardize = standardize
        self.mean, self.std = check_statistics(standardize, mean, std, 1)
        self.unit_integers = unit_integers
        self.invalid_value = invalid_value
        if padding not in ("silence", "mask"):
            raise ValueError(f"padding: expected 'silence' or 'mask', got {padding!r}")
        self.padding = padding
        # `to_dict` of the base class leaves these two out of the saved file.
        self.window = window_function(self.frame_length, "hann")
        self.mel_filters = mel_filter_bank(
            num_frequency_bins=self.fft_length // 2 + 1,
            num_mel_filters=num_mel_bins,
            min_frequency=self.min_frequency,
            max_frequency=self.max_frequency,
            sampling_rate=sampling_rate,
            norm="slaney",
            mel_scale="slaney",
        )

    @property
    def num_samples(self) -> int:
        """Samples the picture covers."""
        return (self.num_frames - 1) * self.hop_length + self.frame_length

    def __call__(
        self,
        waveforms: Array | Sequence[Numbers],
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Prepare one waveform or a batch.

        Args:
            waveforms: One mono waveform (a sequence of numbers or 1-D array), or a sequence of such.
            sampling_rate: The waveforms' rate; an error when it is not the extractor's.
            return_tensors: `"pt"` or `"np"` for one tensor, None for a list of arrays.

        Returns:
            `pixel_values`, (B, 1, H, W) float32; and where samples are missing, `observed_mask`, bool of the same shape, True =
            observed.

        Raises:
            ValueError: Another sampling rate, an empty waveform, infinite values, or one in which everything is missing.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate: this extractor was made for {self.sampling_rate} samples per second, got "
                f"{sampling_rate}; resample the waveforms first"
            )
        if isinstance(waveforms, Array):
            is_single = waveforms.ndim == 1
        else:
            is_single = len(waveforms) > 0 and np.asarray(waveforms[0]).ndim == 0
        samples = [self.prepare_sample(waveform) for waveform in ([waveforms] if is_single else waveforms)]
        if not samples:
            raise ValueError("waveforms: expected at least one, got an empty batch")
        return BatchFeature(as_model_inputs("pixel_values", samples), tensor_type=return_tensors)

    def prepare_sample(self, sample: Numbers) -> np.ndarray:
        """One mono waveform as a (1, H, W) float32 picture, NaN = missing.

        Raises:
            ValueError: Not a sequence of numbers, empty, or infinite.
        """
        return standardize(self.scaled_values(sample), self.standardize, self.mean, self.std).astype(np.float32)

    def scaled_values(self, sample: Numbers) -> np.ndarray:
        """The picture in float64 before standardising: the values whose mean and standard deviation are measured.

        Frames with a missing sample are NaN.
        """
        try:
            if self.unit_integers and isinstance(sample, Array):
                raw = np.asarray(sample)
                waveform = without_invalid(raw, self.invalid_value)
                waveform = (
                    unit_range(raw) if waveform is raw else np.where(np.isnan(waveform), np.nan, unit_range(raw))
                )
            else:
                waveform = without_invalid(np.asarray(sample, dtype=np.float64), self.invalid_value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected a waveform, a sequence of numbers: {error}") from error
        if waveform.ndim != 1:
            raise ValueError(f"expected a mono waveform with one dimension, got shape {waveform.shape}")
        if waveform.size == 0:
            raise ValueError("the waveform is empty: drop this row")
        if beyond_range(waveform).any():
            place = int(np.argmax(beyond_range(waveform)))
            raise ValueError(
                f"sample {place} of the waveform is {waveform[place]}: make it NaN (missing), or drop the sound"
            )
        waveform = waveform[: self.num_samples] * self.scale
        num_real = -(-waveform.size // self.hop_length)  # frames that begin before the end
        waveform = np.pad(waveform, (0, self.num_samples - waveform.size))
        is_missing = np.isnan(waveform)
        waveform = np.where(is_missing, 0.0, waveform) if is_missing.any() else waveform
        log_mel = spectrogram(
            waveform,
            self.window,
            frame_length=self.frame_length,
            hop_length=self.hop_length,
            fft_length=self.fft_length,
            power=2.0,
            center=False,
            mel_filters=self.mel_filters,
            log_mel="dB",
            db_range=self.db_range,
        )
        picture = log_mel[None].astype(np.float64)
        if is_missing.any():
            picture[..., self._frames_of(is_missing)] = np.nan
        if self.padding == "mask":
            picture[..., num_real:] = np.nan
        return picture

    def _frames_of(self, samples: np.ndarray) -> np.ndarray:
        """(W,) bool: the frames that have one of the marked samples, (num_samples,) bool."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.frame_length)[:: self.hop_length]
        return np.asarray(frames.any(axis=1))

    def first_missing(self, sample: Numbers) -> str | None:
        """The place of the first missing frame of a waveform, for messages; None where nothing is missing but padding."""
        num_real = -(-min(np.asarray(sample).size, self.num_samples) // self.hop_length)
        places = np.argwhere(np.isnan(self.scaled_values(sample)[..., :num_real]))
        return f"frame {places[:, 2].min()}" if len(places) else None
