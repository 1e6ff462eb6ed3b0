"""Reading single values of raw columns: images, waveforms, numbers."""

import io
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ...extras import missing_extra
from ...models.image_processing_array import Pictures
from .sources import AnyDataset, column_names

NPY_START = b"\x93NUMPY"
# Errors that NumPy and Pillow raise for broken files.
UNREADABLE = (OSError, EOFError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)


def require_columns(dataset: AnyDataset, wanted: Iterable[tuple[str, str | None]], split: str) -> None:
    """Check that columns exist.

    Args:
        dataset: Rows of any split.
        wanted: (field of the recipe, column name) pairs; a column that is None is not checked.
        split: Name of the split, for the error.

    Raises:
        ValueError: A column is missing; the error names the field, the column and the existing columns.
    """
    present = column_names(dataset)
    for field, name in wanted:
        if name is not None and name not in present:
            raise ValueError(f"data.{field}: the {split} split has no column {name!r}; its columns are {present}")


def numeric_columns(dataset: AnyDataset, without: Sequence[str | None]) -> list[str]:
    """Columns with one number per row, in order, but those named in `without`.

    Raises:
        ValueError: There is no such column, or the column types are unknown (some streams).
    """
    if dataset.features is None:
        raise ValueError("data.input_column: this stream does not tell its column types; list the feature columns")
    found = [
        name
        for name, feature in dataset.features.items()
        if name not in without and isinstance(feature, datasets.Value) and _is_number(feature.dtype)
    ]
    if not found:
        raise ValueError(f"data.input_column: no column holds one number per row; there are {list(dataset.features)}")
    return found


def _is_number(dtype: str) -> bool:
    return dtype == "bool" or dtype.startswith(("int", "uint", "float"))


def undecoded(dataset: AnyDataset, columns: Sequence[str]) -> AnyDataset:
    """Leave images and sounds as bytes, so that the preparer, which knows the row number, meets an unreadable one."""
    for name in columns:
        feature = (dataset.features or {}).get(name)
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(mode=feature.mode, decode=False))
        elif isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(name, datasets.Audio(decode=False))
    return dataset


def read_image(value: Any) -> Pictures:
    """A PIL image from encoded bytes or a path; anything else (PIL image, array) as it is.

    Raises:
        ValueError: The value is missing, or bytes that are no image.
    """
    if value is None:
        raise ValueError("the image is missing")
    if isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    if not isinstance(value, dict):
        return value
    try:
        return datasets.Image().decode_example(value)
    except (OSError, ValueError) as error:
        raise ValueError(f"unreadable image {value.get('path') or ''}: {error}") from error


def read_map(value: Any) -> Pictures:
    """A picture or a NumPy array from encoded bytes, a path, or `{"bytes", "path"}`; anything else as it is.

    Raises:
        ValueError: The value is missing or cannot be read.
    """
    if isinstance(value, str):
        value = {"bytes": None, "path": value}
    if isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    if not isinstance(value, dict) or not {"bytes", "path"} <= set(value):
        return read_image(value)
    content, path = value["bytes"], value["path"]
    try:
        if (path or "").lower().endswith(".npy") or (content or b"").startswith(NPY_START):
            return _read_array(value)
        return read_image(value)
    except UNREADABLE as error:
        raise ValueError(f"unreadable file {path or ''}: {error}") from error


def _read_array(value: dict[str, Any]) -> np.ndarray:
    content, path = value["bytes"], value["path"]
    try:
        return np.load(path if content is None else io.BytesIO(content), allow_pickle=False)
    except ValueError as error:  # NumPy raises it for a file that ends too early
        raise ValueError(f"unreadable file {path or ''}: {error}") from error


def path_of(value: object) -> str:
    """The file that a raw value of an image column comes from; empty where it has none."""
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else ""


def read_waveform(value: object, sampling_rate: int, wanted_rate: int) -> np.ndarray:
    """A mono waveform, resampled where its rate is not the one wanted.

    Args:
        value: Raw samples as they come; or `{"array", "sampling_rate"}`; or an audio file, as bytes or
            `{"bytes", "path"}`, which is mixed down to one channel, in [-1, 1).
        sampling_rate: Samples per second of raw samples; files know their own.
        wanted_rate: Samples per second of the result.

    Returns:
        (samples,) float64 array.

    Raises:
        ValueError: The value is missing, unreadable, or not one-dimensional.
    """
    if value is None:
        raise ValueError("the sound is missing")
    if isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    if isinstance(value, dict) and "array" in value:
        return _at_rate(np.asarray(value["array"], dtype=np.float64), value["sampling_rate"], wanted_rate)
    if isinstance(value, dict):
        return _at_rate(*_read_audio_file(value), wanted_rate)
    waveform = np.asarray(value)
    if waveform.dtype.kind not in "iufb":
        raise ValueError(f"expected a waveform, a list of numbers, got {value!r:.80}")
    return _at_rate(waveform.astype(np.float64), sampling_rate, wanted_rate)


def _read_audio_file(value: dict[str, Any]) -> tuple[np.ndarray, int]:
    content = value.get("bytes")
    path = value.get("path")
    if content is None:
        if path is None:
            raise ValueError("the sound has neither bytes nor a path")
        with open(path, "rb") as file:
            content = file.read()
    if content[:4] not in (b"RIFF", b"RIFX", b"RF64"):
        return _decode_other_audio({"bytes": content, "path": path})
    # The import stands here, as below, because only sounds need it, and it is an extra.
    try:
        from scipy.io import wavfile
    except ImportError as error:
        raise missing_extra("Reading WAV files", "train", error) from error
    try:
        rate, samples = wavfile.read(io.BytesIO(content))
    except (ValueError, EOFError) as error:
        raise ValueError(f"unreadable WAV file {path or ''}: {error}") from error
    if samples.ndim == 2:
        samples = samples.mean(axis=1).astype(np.float64) if samples.dtype.kind == "f" else _unit(samples).mean(axis=1)
        return samples, rate
    return _unit(samples), rate


def _unit(samples: np.ndarray) -> np.ndarray:
    """Integers of a WAV file in [-1, 1); floats as they are."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128.0) / 128.0
    if samples.dtype.kind == "i":
        return samples.astype(np.float64) / (np.iinfo(samples.dtype).max + 1.0)
    return samples.astype(np.float64)


def _decode_other_audio(value: dict[str, Any]) -> tuple[np.ndarray, int]:
    try:
        samples = datasets.Audio().decode_example(value).get_all_samples()
    except ImportError as error:
        raise ValueError(
            f"{value['path'] or 'the sound'} is not a WAV file; to read other formats install torchcodec "
            "(pip install torchcodec), or convert the files to WAV"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"unreadable sound {value['path'] or ''}: {error}") from error
    return samples.data.numpy().mean(axis=0).astype(np.float64), int(samples.sample_rate)


def _at_rate(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted or waveform.size == 0:
        return waveform
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise missing_extra("Resampling sounds", "train", error) from error
    divisor = math.gcd(rate, wanted)
    return resample_poly(waveform, wanted // divisor, rate // divisor)
