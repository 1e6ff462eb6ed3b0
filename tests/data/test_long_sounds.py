"""Sounds that are longer than what the model hears at once: their windows, against slow references, and what is cut."""

import io
import pickle
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_configs import image_config
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile
from scipy.signal import resample_poly
from window_cases import IMPOSSIBLE_WINDOWS

from hf_maskssl.data import PreparedData, data_arguments, prepare_data
from hf_maskssl.data.tables.preparing import plain_rows
from hf_maskssl.data.tables.sound_windows import KEPT_BYTES, SoundReader, SoundWindows
from hf_maskssl.data.tables.sounds import read_part, read_waveform
from hf_maskssl.data.tables.windows import WindowedRows, window_starts
from hf_maskssl.models.feature_extraction_spectrogram import SpectrogramFeatureExtractor

RATE, FRAME, HOP, BANDS = 1000, 100, 50, 4
LENGTHS = [900, 320, 60, 651]  # samples
FIELDS: dict[str, Any] = {"kind": "spectrogram", "sampling_rate": RATE, "frame_length": FRAME, "hop_length": HOP}


def sounds(lengths: list[int] = LENGTHS) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.uniform(-0.9, 0.9, length) for length in lengths]


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, samples.astype(np.float32))
    return buffer.getvalue()


def frames_of(samples: int) -> int:
    """The frames in which every sample lies, counted one by one."""
    frames = 1
    while (frames - 1) * HOP + FRAME < samples:
        frames += 1
    return frames


def extractor(width: int, **fields: Any) -> SpectrogramFeatureExtractor:
    return SpectrogramFeatureExtractor(RATE, BANDS, width, frame_length=FRAME, hop_length=HOP, **fields)


def windowed(data: PreparedData) -> WindowedRows:
    rows = plain_rows(data.train)
    assert isinstance(rows, WindowedRows)
    return rows


def written(form: str, folder: Path, values: list[np.ndarray]) -> dict[str, Any]:
    """The sounds as a folder of files, a table of paths, or a column of numbers; and the fields that read them."""
    labels = ["ab"[number % 2] for number in range(len(values))]
    if form == "numbers":
        path = str(folder / "rows.parquet")
        Dataset.from_dict({"audio": [value.tolist() for value in values], "label": labels}).to_parquet(path)
        return {"source": "parquet", "data_files": path, "input_column": "audio"}
    paths = []
    for number, (value, label) in enumerate(zip(values, labels, strict=True)):
        paths.append(folder / "sounds" / label / f"{number}.wav")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(wav(value))
    if form == "folder":
        return {"source": "audiofolder", "data_dir": str(folder / "sounds"), "input_column": "audio"}
    rows = [f"{path},{label}" for path, label in zip(paths, labels, strict=True)]
    (folder / "rows.csv").write_text("\n".join(["path,label", *rows]))
    return {"source": "csv", "data_files": str(folder / "rows.csv"), "input_column": "path"}


def prepared(folder: Path, width: int = 8, form: str = "numbers", **fields: Any) -> PreparedData:
    values = fields.pop("values", None)
    given_ = written(form, folder, sounds() if values is None else values)
    return prepare_data(data_arguments(**given_, **{**FIELDS, **fields}), image_config(1, BANDS, width))


@pytest.mark.parametrize("form", ["numbers", "folder", "paths"])
@pytest.mark.parametrize("stride", [None, 3])
def test_windows_are_pictures_of_slices(form: str, stride: int | None, tmp_path: Path) -> None:
    order = [0, 1, 2, 3] if form != "folder" else [0, 2, 1, 3]  # files by class
    data = prepared(
        tmp_path, 8, form, window=6, stride=stride, standardize="none", padding="mask", label_column="label"
    )
    rows, values = windowed(data), sounds()
    wanted = [
        (row, int(start))
        for row, number in enumerate(order)
        for start in window_starts(frames_of(LENGTHS[number]), 6, stride or 6)
    ]
    assert list(zip(rows.owners.tolist(), rows.starts.tolist(), strict=True)) == wanted and len(rows) == len(wanted)
    plain = extractor(8, padding="mask")
    for number, (row, start) in enumerate(wanted):
        part = values[order[row]].astype(np.float32 if form != "numbers" else np.float64)
        part = part[start * HOP : (start + 5) * HOP + FRAME]
        np.testing.assert_allclose(rows[number]["pixel_values"], plain.prepare_sample(part), rtol=1e-5, atol=1e-4)
        assert (rows[number]["labels"], rows[number]["index"]) == (order[row] % 2, number)
    split = data.report.splits["train"]
    lengths = sorted(map(frames_of, LENGTHS))
    assert split.lengths == [lengths[0], int(np.median(lengths)), lengths[-1]]
    assert (split.rows, split.windows, split.shorter) == (4, len(wanted), sum(length < 6 for length in lengths))
    assert "  frames: 1 to 17, median 9" in data.report.lines()
    assert f"  windows: {len(wanted)}; 1 shorter sounds are padded" in data.report.lines()


def test_frames_of_windows_are_those_of_the_whole_sound(tmp_path: Path) -> None:
    """But for the loudest place, by which each picture is cut below: here nothing is so quiet."""
    value = sounds([900])[0]
    rows = windowed(prepared(tmp_path, values=[value], window=8, standardize="none"))
    whole = extractor(frames_of(900)).prepare_sample(value)
    for number, start in enumerate(rows.starts.tolist()):
        np.testing.assert_allclose(rows[number]["pixel_values"], whole[..., start : start + 8], rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(1, 2000), min_size=1), st.integers(1, 300), st.integers(1, 300))
def test_every_sample_lies_in_a_frame(samples: list[int], frame: int, hop: int) -> None:
    found = SoundWindows(("a",), 1, 1, frame_length=frame, hop_length=hop).frames(np.array(samples))
    for count, frames in zip(samples, found.tolist(), strict=True):
        assert (frames - 1) * hop + frame >= count
        assert frames == 1 or (frames - 2) * hop + frame < count


def test_windows_are_drawn_by_row_epoch_and_seed(tmp_path: Path) -> None:
    data = prepared(tmp_path, window=6, standardize="none")
    rows = data.train
    assert isinstance(rows, WindowedRows)

    def pictures(of: WindowedRows, epoch: int, seed: int) -> np.ndarray:
        of.set_epoch(epoch, seed)
        return np.stack([of[number]["pixel_values"] for number in range(len(of))])

    first = pictures(rows, 1, 5)
    np.testing.assert_array_equal(first, pictures(pickle.loads(pickle.dumps(rows)), 1, 5))
    assert (first != pictures(rows, 2, 5)).any() and (first != pictures(rows, 1, 6)).any()
    possible = [
        extractor(8).prepare_sample(value[start * HOP : (start + 5) * HOP + FRAME])
        for value in sounds()
        for start in range(max(1, frames_of(len(value)) - 5))
    ]
    for picture in first:
        assert any(np.allclose(picture, one, rtol=1e-4, atol=1e-3) for one in possible)


@pytest.mark.parametrize("padding", ["silence", "mask"])
def test_statistics_are_those_of_the_pictures_of_windows(tmp_path: Path, padding: str) -> None:
    data = prepared(tmp_path, window=6, padding=padding)
    plain, values = extractor(8, padding=padding), []
    for value in sounds():
        for start in window_starts(frames_of(len(value)), 6, 6).tolist():
            values.append(plain.scaled_values(value[start * HOP : (start + 5) * HOP + FRAME]))
    np.testing.assert_allclose(data.processor.mean, np.nanmean(values))
    np.testing.assert_allclose(data.processor.std, np.nanstd(values))


def test_sounds_that_one_window_covers_are_read_as_without_windows(tmp_path: Path) -> None:
    values = sounds([450, 320, 60])
    whole = prepared(tmp_path, values=values, padding="mask")
    rows = windowed(prepared(tmp_path, values=values, padding="mask", window=8))
    assert len(rows) == 3
    for number in range(3):
        np.testing.assert_array_equal(rows[number]["pixel_values"], whole.train[number]["pixel_values"])


def test_sounds_of_another_rate_are_cut_where_they_are_resampled(tmp_path: Path) -> None:
    value = sounds([1803])[0].astype(np.float32)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(wav(value, 2 * RATE))
    args = data_arguments("audiofolder", data_dir=str(tmp_path), input_column="audio", window=8, **FIELDS)
    data = prepare_data(args, image_config(1, BANDS, 8))
    rows = windowed(data)
    heard = resample_poly(value.astype(np.float64), 1, 2)
    assert rows.lengths.tolist() == [frames_of(len(heard))]
    picture = data.processor.prepare_sample(heard[int(rows.starts[-1]) * HOP :])
    np.testing.assert_allclose(rows[len(rows) - 1]["pixel_values"], picture, rtol=1e-5, atol=1e-5)


def test_windows_of_which_nothing_was_recorded_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, holed = sounds([1200, 1200])
    holed[250:950] = np.nan
    with caplog.at_level("WARNING"):
        data = prepared(tmp_path, values=[whole, holed], window=6, standardize="none")
    rows = windowed(data)
    seen = [not np.isnan(holed[frame * HOP : frame * HOP + FRAME]).any() for frame in range(frames_of(1200))]
    starts = [start for start in window_starts(len(seen), 6, 6).tolist() if any(seen[start : start + 6])]
    assert rows.starts[rows.owners == 1].tolist() == starts and len(starts) < 4
    assert "train split: 2 windows, no step of which was observed, left out" in caplog.text
    assert data.report.splits["train"].windows_left_out == {"no step of which was observed": 2}
    assert isinstance(data.train, WindowedRows)
    for epoch in range(20):
        data.train.set_epoch(epoch, 0)
        assert all(np.isfinite(data.train[number]["pixel_values"]).any() for number in range(len(rows)))


def test_a_broken_file_is_named_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(wav(sounds()[0]))
    (tmp_path / "a" / "y.wav").write_bytes(b"RIFF")
    args = data_arguments("audiofolder", data_dir=str(tmp_path), input_column="audio", window=8, **FIELDS)
    with pytest.raises(ValueError, match=r"train split, row 1, column 'audio': .*y\.wav"):
        prepare_data(args, image_config(1, BANDS, 8))


def test_no_sound_has_no_length() -> None:
    windows = SoundWindows(("audio",), 6, 6, sampling_rate=RATE, wanted_rate=RATE)
    reader = windows.reader(Dataset.from_dict({"audio": [[0.5]]}).select([]), "train")
    assert len(reader.lengths()) == len(reader.holed()) == 0


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_a_window_of_a_wav_file_is_read_without_the_rest(
    dtype: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = np.random.default_rng(0).uniform(-0.9, 0.9, (651, channels) if channels else 651)
    largest = 1.0 if dtype.startswith("f") else np.iinfo(dtype).max
    path = tmp_path / "a.wav"
    wavfile.write(path, RATE, (unit * largest + (largest / 2 if dtype == "uint8" else 0)).astype(dtype))
    whole = read_waveform(str(path), RATE, RATE)
    reader = SoundWindows(
        ("audio",), 6, 6, sampling_rate=RATE, wanted_rate=RATE, frame_length=FRAME, hop_length=HOP
    ).reader(Dataset.from_dict({"audio": [str(path)]}), "train")
    monkeypatch.setattr("hf_maskssl.data.tables.sound_windows.read_waveform", None)
    for start, stop in ((0, 6), (3, 9), (11, 13), (12, 18)):
        expected = whole[start * HOP : (stop - 1) * HOP + FRAME]
        found = reader.steps("audio", 0, start, stop)["array"]
        assert isinstance(found, np.ndarray) and not isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, expected)
        assert reader.seen(0, start, stop).all()


def test_a_part_that_needs_the_rest_is_left_to_the_whole(tmp_path: Path) -> None:
    samples = (sounds()[0] * 2**15).astype(np.int16)
    path, unknown = tmp_path / "a.wav", tmp_path / "unknown.wav"
    wavfile.write(path, RATE, samples)
    content = path.read_bytes()
    unknown.write_bytes(content[:40] + b"\xff\xff\xff\xff" + content[44:])  # written before its end was known
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    deep = tmp_path / "deep.wav"
    with wave.open(str(deep), "wb") as file:
        file.setparams((1, 3, RATE, 0, "NONE", ""))
        file.writeframes(bytes(300))
    assert read_part(str(path), RATE, 5, 9) is not None
    for value, rate in (
        (str(path), 2 * RATE),
        (str(unknown), RATE),
        (str(deep), RATE),
        (str(tmp_path / "a.flac"), RATE),
        (str(tmp_path / "absent.wav"), RATE),
        ({"bytes": content, "path": None}, RATE),
        ([0.5, 0.25], RATE),
        (None, RATE),
    ):
        assert read_part(value, rate, 5, 9) is None
    (tmp_path / "cut.wav").write_bytes(content[:-100])
    for read in (lambda path: read_waveform(path, RATE, RATE), lambda path: read_part(path, RATE, 5, 9)):
        with pytest.raises(ValueError, match=r"cut\.wav: the file is cut: .* promises 1800 bytes of samples, 1700"):
            read(str(tmp_path / "cut.wav"))


def test_few_sounds_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = windowed(prepared(tmp_path, window=6))
    reader = rows.reader
    assert isinstance(reader, SoundReader) and KEPT_BYTES > 10**6
    monkeypatch.setattr("hf_maskssl.data.tables.sound_windows.KEPT_BYTES", 8 * 1000)
    expected = [rows[number]["pixel_values"] for number in range(len(rows))]
    for number in reversed(range(len(rows))):
        np.testing.assert_array_equal(rows[number]["pixel_values"], expected[number])
        assert sum(value.nbytes for value in reader._kept.values()) <= 8 * 1000


def test_what_is_cut_without_windows_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        data = prepared(tmp_path)  # 8 frames cover 450 samples
    share = 100 * (900 - 450 + 651 - 450) / sum(LENGTHS)
    assert "train split: 2 of 4 sounds are longer than the 0.45 s that the model reads" in caplog.text
    assert f"their ends are left out, {share:.2g} % of all" in caplog.text
    assert len(data.train) == 4
    assert data.report.to_json()["splits"]["train"]["cut"] == 2
    assert "  cut: the ends of 2 sounds" in data.report.lines()
    caplog.clear()
    assert prepared(tmp_path, 20).report.splits["train"].cut == 0
    assert "longer than" not in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *IMPOSSIBLE_WINDOWS,
        ({"window": 9}, r"data.window 9 is more than model.image_size\[1\] 8, the frames that the model reads"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, **fields)


def test_empty_sounds_are_counted_before_the_windows(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet("train", audio=[[], sounds([900])[0].tolist(), None])
    args = data_arguments("parquet", data_files=path, input_column="audio", window=8, **FIELDS)
    data = prepare_data(args, image_config(1, BANDS, 8))
    assert windowed(data).owners.tolist() == [0, 0, 0]
    assert data.report.splits["train"].left_out == {"nothing in column 'audio'": 2}
