"""Sounds as files: everything that is broken names its file, and tables of paths."""

import io
import struct
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from data_configs import image_config
from scipy.io import wavfile
from transformers import AutoFeatureExtractor

import hf_maskssl  # noqa: F401
from hf_maskssl.data import PreparedData, data_arguments, prepare_data
from hf_maskssl.data.tables.raw_files import UNREADABLE
from hf_maskssl.data.tables.sounds import read_waveform

FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)


def samples(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=2000) * 8000).astype(np.int16)


def wav(values: np.ndarray, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, values)
    return buffer.getvalue()


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def of_rate(rate: int) -> bytes:
    content = bytearray(wav(samples()))
    content[24:28] = struct.pack("<I", rate)
    return bytes(content)


BROKEN = {
    "nothing": (b"", r"the file is empty \(0 bytes\)"),
    "header": (riff(FORMAT), "it has a header and no samples"),
    "bare": (riff(b""), "it has a header and no samples"),
    "silent": (riff(FORMAT + b"data" + struct.pack("<I", 0)), "it holds no samples"),
    "unformatted": (riff(b"data" + struct.pack("<I", 4) + b"abcd"), "unreadable WAV file"),
    "cut": (wav(samples())[:-1000], "the file is cut: its header promises 4000 bytes of samples, 3000 are there"),
    "still": (of_rate(0), "unreadable (WAV file|sound)"),
    "racing": (of_rate(4_000_000_007), "unreadable (WAV file|sound)"),
    "text": (b"no sound", "is not a WAV file.*torchcodec"),
}


def write_folder(root: Path, **sounds: bytes) -> Path:
    (root / "a").mkdir(parents=True)
    for name, content in sounds.items():
        (root / "a" / f"{name}.wav").write_bytes(content)
    return root


def prepared(source: str, column: str, **fields: Any) -> PreparedData:
    args = data_arguments(source, kind="spectrogram", input_column=column, sampling_rate=8000, **fields)
    return prepare_data(args, image_config(1, 8, 8))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.TORCHCODEC_AVAILABLE", False)
    content, message = BROKEN[name]
    path = write_folder(tmp_path, **{name: content}) / "a" / f"{name}.wav"
    for value in (str(path), {"bytes": content, "path": str(path)}, {"bytes": None, "path": str(path)}):
        with pytest.raises(ValueError, match=rf"(?s){name}\.wav.*") as raised:
            read_waveform(value, 8000, 8000)
        raised.match(message)


def test_a_broken_file_is_named_with_its_row(tmp_path: Path) -> None:
    root = write_folder(tmp_path, good=wav(samples()), zero=b"")
    with pytest.raises(ValueError, match=r"train split, row 1, column 'audio': .*zero\.wav: the file is empty"):
        prepared("audiofolder", "audio", data_dir=str(root))
    not_finite = samples().astype(np.float32)
    not_finite[3] = np.inf
    root = write_folder(tmp_path / "other", good=wav(samples()), zero=wav(not_finite))
    with pytest.raises(ValueError, match=r"row 1, column 'audio': sample 3 of the waveform is inf.*zero\.wav"):
        prepared("audiofolder", "audio", data_dir=str(root))


@pytest.mark.parametrize("raised", UNREADABLE, ids=lambda error: error.__name__)
def test_whatever_scipy_raises_names_the_file(
    tmp_path: Path, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: object) -> None:
        raise raised.__new__(raised)

    path = write_folder(tmp_path, x=wav(samples())) / "a" / "x.wav"
    monkeypatch.setattr(wavfile, "read", broken)
    with pytest.raises(
        ValueError, match=r"unreadable WAV file .*x\.wav: .*; replace the file, or take it out of the data"
    ):
        read_waveform(str(path), 8000, 8000)


@pytest.mark.parametrize("mode", [{}, {"streaming": True}], ids=["whole", "stream"])
def test_a_table_of_paths_reads_from_its_folder(tmp_path: Path, mode: dict[str, Any]) -> None:
    root = write_folder(tmp_path / "files", x=wav(samples()), y=wav(samples(1)))
    (tmp_path / "rows.csv").write_text(f"path,label\nfiles/a/x.wav,0\n{root / 'a' / 'y.wav'},1\n")
    data = prepared("csv", "path", data_files=str(tmp_path / "rows.csv"), standardize="none", **mode)
    for row, seed in zip(data.train, (0, 1), strict=True):
        expected = data.processor(samples(seed) / 32768)["pixel_values"][0]  # type: ignore[operator,misc]
        np.testing.assert_allclose(row["pixel_values"], expected, rtol=1e-5)


@pytest.mark.parametrize("value", [{"array": [1.0], "sampling_rate": None}, {"array": "x", "sampling_rate": 8000}])
def test_waveforms_that_cannot_be_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unreadable sound"):
        read_waveform(value, 8000, 4000)


def test_integers_of_a_file_are_taken_alike_in_training_and_in_use(tmp_path: Path) -> None:
    """SciPy gives a file's integers; training reads them in [-1, 1)."""
    root = write_folder(tmp_path / "data", x=wav(samples()), y=wav((samples(1) // 256 + 128).astype(np.uint8)))
    data = prepared("audiofolder", "audio", data_dir=str(root))
    data.processor.save_pretrained(tmp_path / "saved")  # type: ignore[union-attr]
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "saved")
    for row, name in zip(data.train, "xy", strict=True):
        rate, values = wavfile.read(root / "a" / f"{name}.wav")
        np.testing.assert_allclose(
            extractor(values, sampling_rate=rate)["pixel_values"][0], row["pixel_values"], atol=1e-5
        )
    column = prepared("parquet", "audio", data_files=table_of(tmp_path, audio=[samples(), samples(1)]))
    np.testing.assert_allclose(
        column.processor(samples())["pixel_values"][0], column.train[0]["pixel_values"], atol=1e-5
    )  # type: ignore[operator,misc]


def table_of(folder: Path, **columns: Any) -> str:
    path = folder / "rows.parquet"
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return str(path)


def test_floats_on_another_scale_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hf_maskssl.data.tables.sounds._TOLD", set())
    for name, scale in (("loud", 1.5), ("1", 30_000.0), ("2", 30_000.0)):
        wavfile.write(tmp_path / f"{name}.wav", 8000, np.full(9, scale, dtype=np.float32))
        read_waveform(str(tmp_path / f"{name}.wav"), 8000, 8000)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path / '1.wav'}: samples of floats reach 3e+04, those of other files 1: divide")
