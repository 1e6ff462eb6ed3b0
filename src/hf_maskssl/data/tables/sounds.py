"""Sounds of cells: the one way in which they are opened, mixed down and resampled."""

import io
import logging
import math
import os
from types import ModuleType
from typing import Any, BinaryIO, Literal

import datasets
import numpy as np

from ...extras import missing_extra
from ...models.feature_extraction_spectrogram import unit_range
from .raw_files import Cell, Encoded, encoded, reading, unreadable

WAV_STARTS = (b"RIFF", b"RIFX", b"RF64")
# Length of the samples of a file that was written before its end was known.
UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
# Far above all sounds; the filter that resamples a broken header's rate could need all memory.
LARGEST_RATE = 1_000_000
# Samples of floats lie in [-1, 1], but for some that a loud mix lifts above it. Far above they are on another scale.
LARGEST_FLOAT = 4.0
# A warning of the scale of floats is given once.
_TOLD: set[str] = set()

logger = logging.getLogger(__name__)


def read_waveform(value: Cell, sampling_rate: int, wanted_rate: int) -> np.ndarray:
    """A mono waveform, resampled where its rate is not the one wanted.

    Args:
        value: Raw samples as they come; or `{"array", "sampling_rate"}`; or an audio file, as bytes, a path or
            `{"bytes", "path"}`, which is mixed down to one channel, in [-1, 1).
        sampling_rate: Samples per second of raw samples; files know their own.
        wanted_rate: Samples per second of the result.

    Returns:
        (samples,) float64 array.

    Raises:
        ValueError: Missing, unreadable, or not one-dimensional.
    """
    if value is None:
        raise ValueError("the sound is missing")
    if isinstance(value, dict) and "array" in value:
        with reading("sound", value.get("path")):
            return _at_rate(np.asarray(value["array"], dtype=np.float64), value["sampling_rate"], wanted_rate)
    file = encoded(value, "sound")
    if file is not None:
        return _of_file(file, wanted_rate)
    waveform = np.asarray(value)
    if waveform.dtype.kind not in "iufb":
        raise ValueError(f"expected a waveform, a list of numbers, got {value!r:.80}")
    return _at_rate(waveform.astype(np.float64), sampling_rate, wanted_rate)


def native_waveform(value: Cell) -> tuple[np.ndarray, int]:
    """A sound at its own rate, of one channel: (samples,) float64, and samples per second.

    Args:
        value: `{"array", "sampling_rate"}`, or an audio file, as bytes, a path or `{"bytes", "path"}`.

    Raises:
        ValueError: Missing, unreadable, or raw samples, which do not know their rate.
    """
    if isinstance(value, dict) and "array" in value:
        return np.asarray(value["array"], dtype=np.float64), int(value["sampling_rate"])
    file = encoded(value, "sound")
    if file is None:
        raise ValueError("expected a sound file, got samples or nothing")
    return _decoded(file)


def read_part(value: Cell, wanted_rate: int, first: int, end: int) -> np.ndarray | None:
    """Samples `first` to before `end` of a WAV file, as slicing `read_waveform` gives them, of which no other one is read.

    Args:
        value: As of `read_waveform`.
        wanted_rate: Samples per second of the result.
        first, end: Places at that rate; those behind the end of the sound are left out.

    Returns:
        (samples,) float64 array; None where a part cannot be had without the rest: the cell holds more than a path on this
        machine, the file is no WAV file or one of 24 bits, its rate is another one, or its header does not know its length.

    Raises:
        ValueError: A WAV file that cannot be read.
    """
    file = encoded(value, "sound") if isinstance(value, str | dict) and "array" not in value else None
    path = "" if file is None or file.content is not None else str(file.path)
    if not os.path.isfile(path):
        return None
    with reading("sound", path):
        with open(path, "rb") as stream:
            if stream.read(4) not in WAV_STARTS or not _knows_its_length(stream):
                return None
        try:
            rate, samples = _wav_reader().read(path, mmap=True)
        except ValueError:
            return None  # what is wrong is found when it is read whole
    if rate != wanted_rate or not len(samples):
        return None
    return _of_one_channel(np.array(samples[first:end]), path)


def _of_file(file: Encoded, wanted_rate: int) -> np.ndarray:
    samples, rate = _decoded(file)
    with reading("sound", file.path):
        return _at_rate(samples, rate, wanted_rate)


def _decoded(file: Encoded) -> tuple[np.ndarray, int]:
    with reading("sound", file.path), file.open() as stream:
        content = stream.read()
    if not content:
        raise unreadable("sound", file.path, "the file is empty (0 bytes)")
    is_wav = content[:4] in WAV_STARTS
    samples, rate = _read_wav(content, file.path) if is_wav else _decode_other_audio(content, file.path)
    if samples.size == 0:
        raise unreadable("sound", file.path, "the file is empty, it holds no samples")
    if not 1 <= rate <= LARGEST_RATE:
        raise unreadable("sound", file.path, f"expected 1 to {LARGEST_RATE:,} samples per second, got {rate}")
    return samples, rate


def _read_wav(content: bytes, path: str | None) -> tuple[np.ndarray, int]:
    wavfile = _wav_reader()
    with reading("WAV file", path):
        _knows_its_length(io.BytesIO(content))
        rate, samples = wavfile.read(io.BytesIO(content))
        return _of_one_channel(samples, path), rate


def _wav_reader() -> ModuleType:
    """SciPy's module, imported here, as below: only sounds need it, and it is an extra."""
    try:
        from scipy.io import wavfile
    except ImportError as error:
        raise missing_extra("Reading WAV files", "train", error) from error
    return wavfile


def _of_one_channel(samples: np.ndarray, path: str | None) -> np.ndarray:
    """Samples (n,) or (n, channels) of a file as (n,) float64 in [-1, 1)."""
    unit = unit_range(samples)
    _warn_of_scale(samples, path)
    if unit.ndim == 2:
        # Floats are averaged in their own type, as they always were.
        return samples.mean(axis=1).astype(np.float64) if samples.dtype.kind == "f" else unit.mean(axis=1)
    return unit


def _warn_of_scale(samples: np.ndarray, path: str | None) -> None:
    """Say once that a file's floats are not on the scale that integers are brought to."""
    if samples.dtype.kind != "f" or not samples.size or _TOLD:
        return
    largest = np.abs(samples).max()
    if np.isfinite(largest) and largest > LARGEST_FLOAT:
        _TOLD.add("scale")
        logger.warning(
            "%s: samples of floats reach %.3g, those of other files 1: divide them by their full scale, such as 32768",
            path or "a sound",
            largest,
        )


def _knows_its_length(stream: BinaryIO) -> bool:
    """Whether the header of a WAV file says how many bytes of samples follow; of its samples nothing is read.

    Raises:
        ValueError: The file is cut: SciPy gives the samples that it still has, without a word.
    """
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    order: Literal["big", "little"] = "big" if stream.read(4) == b"RIFX" else "little"
    place = 12
    while place + 8 <= length:
        stream.seek(place)
        name, size = stream.read(4), int.from_bytes(stream.read(4), order)
        left = length - place - 8
        if name == b"data":
            if size not in UNKNOWN_LENGTHS and size > left:
                raise ValueError(f"the file is cut: its header promises {size} bytes of samples, {left} are there")
            return size not in UNKNOWN_LENGTHS
        place += 8 + size + size % 2
    raise ValueError("the file is empty or cut: it has a header and no samples")


def _decode_other_audio(content: bytes, path: str | None) -> tuple[np.ndarray, int]:
    value: dict[str, Any] = {"bytes": content, "path": path}
    try:
        with reading("sound", path):
            samples = datasets.Audio().decode_example(value).get_all_samples()
            return samples.data.numpy().mean(axis=0).astype(np.float64), int(samples.sample_rate)
    except ImportError as error:
        raise ValueError(
            f"{path or 'the sound'} is not a WAV file; to read other formats install torchcodec "
            "(pip install torchcodec), or convert the files to WAV"
        ) from error


def _at_rate(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted or waveform.size == 0:
        return waveform
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise missing_extra("Resampling sounds", "train", error) from error
    divisor = math.gcd(rate, wanted)
    return resample_poly(waveform, wanted // divisor, rate // divisor)
