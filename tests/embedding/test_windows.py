"""Features of series that are read by windows, from a logger's table to one row a series, or one a window."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy.io import wavfile
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

import hf_maskssl
import tiny_models
from hf_maskssl.data import build_config, data_arguments, prepare_data
from hf_maskssl.embedding.arguments import EmbedArguments
from hf_maskssl.embedding.run import embed_to
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint

LENGTHS = [30, 12, 41, 25, 33, 7]
STRIDE = 5


@pytest.fixture(scope="module")
def logger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logger")
    random, parts = np.random.default_rng(0), []
    for number, length in enumerate(LENGTHS):
        channels = {name: random.normal(size=length) for name in "xyz"}
        time = 0.5 * np.arange(length)
        state = np.where(np.arange(length) < 14, "cold", "warm")
        rows = pd.DataFrame({"run": f"r{number}", "time": time, **channels, "state": state, "site": "ab"[number % 2]})
        parts.append(rows.drop(index=[2]))
    pd.concat(parts).to_csv(folder / "log.csv", index=False)
    return folder


def fields(folder: Path, **more: Any) -> dict[str, Any]:
    named = {"data_files": str(folder / "log.csv"), "kind": "series", "input_column": ["x", "y", "z"]}
    return {**named, "group_column": "run", "time_column": "time", "window": 12, "stride": STRIDE, **more}


@pytest.fixture(scope="module")
def model(logger: Path) -> str:
    config = build_config(tiny_models.section("metamae", **tiny_models.MODALITIES["metamae"]["series"]))
    torch.manual_seed(0)
    AutoModelForPreTraining.from_config(config).save_pretrained(logger / "model")
    data = prepare_data(data_arguments("csv", **fields(logger)), config)
    data.processor.save_pretrained(logger / "model")
    return str(logger / "model")


def words(folder: Path, **more: Any) -> list[str]:
    values = fields(folder, **more)
    values = {name: value for name, value in values.items() if name not in ("data_files", "kind")}
    found = []
    for name, value in values.items():
        found += [f"--{name}", f"[{', '.join(value)}]" if isinstance(value, list) else str(value)]
    return found


def written(
    model: str, folder: Path, name: str, shard_rows: int = 4, tokens: bool = False, **more: Any
) -> pd.DataFrame:
    output = str(folder / f"{name}.parquet")
    overrides = words(folder, **more)
    options: dict[str, Any] = {"tokens": tokens, "keep": ["run"], "shard_rows": shard_rows, "device": "cpu"}
    embed_to(EmbedArguments(model, output, str(folder / "log.csv"), None, overrides, **options))
    return pq.read_table(output).to_pandas()


def test_pooled_features_are_means_of_those_of_windows(model: str, logger: Path) -> None:
    each = written(model, logger, "each", pool_windows="false", label_column="state", window_label="majority")
    starts = [[*range(0, max(1, length - 12 + 1), STRIDE)] for length in LENGTHS]
    starts = [
        one if one[-1] + 12 >= length else [*one, length - 12] for one, length in zip(starts, LENGTHS, strict=True)
    ]
    assert each["window_start"].tolist() == [start for one in starts for start in one]
    assert each["row"].tolist() == [row for row, one in enumerate(starts) for _ in one]
    assert each["state"].tolist() == ["warm" if start >= 8 else "cold" for start in each["window_start"]]
    pooled = written(model, logger, "pooled", shard_rows=2)
    assert pooled["run"].tolist() == [f"r{number}" for number in range(6)] and "window_start" not in pooled
    expected = [np.mean(np.stack(list(rows)), axis=0) for _, rows in each.groupby("row")["embedding"]]
    np.testing.assert_allclose(np.stack(list(pooled["embedding"])), np.stack(expected), atol=1e-5)
    tokens = written(model, logger, "tokens", tokens=True)
    assert tokens.groupby(["row", "window_start"]).ngroups == len(each)


def test_in_python_and_without_any_field(model: str, logger: Path) -> None:
    expected = np.stack(list(written(model, logger, "again", stride=12)["embedding"]))
    found = hf_maskssl.embed(
        model, logger / "log.csv", device="cpu"
    )  # columns and window are those that the model knows
    np.testing.assert_allclose(found, expected, atol=1e-5)
    frame = pd.read_csv(logger / "log.csv")
    more = {name: value for name, value in fields(logger, stride=12).items() if name not in ("data_files", "kind")}
    np.testing.assert_allclose(hf_maskssl.embed(model, frame, device="cpu", **more), expected, atol=1e-5)
    series = [np.random.default_rng(row).normal(size=(3, length)) for row, length in enumerate((5, 30))]
    whole = hf_maskssl.embed(model, series, device="cpu", window=12)
    each = hf_maskssl.embed(model, series, device="cpu", window=12, pool_windows=False)
    assert (len(whole), len(each)) == (2, 4)
    np.testing.assert_allclose(whole[0], each[0], atol=1e-6)
    np.testing.assert_allclose(whole[1], np.mean(each[1:], axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="the series has 30 steps, more than the 12 of series_length"):
        hf_maskssl.embed(model, series, device="cpu")


@pytest.mark.parametrize(
    ("rule", "rows"),
    [({"label_column": "site"}, 3), ({"label_column": "state", "window_label": "last", "pool_windows": False}, None)],
)
def test_probes_read_rows_or_windows(model: str, logger: Path, rule: dict[str, Any], rows: int | None) -> None:
    args = data_arguments("csv", **fields(logger, validation_fraction=0.5, **rule))
    result = evaluate_checkpoint(model, args, ProbeArguments(k=1), features_dir=logger / f"features-{rows}")
    counts = result["rows"]
    assert counts["train"] == (rows or counts["train"]) and (rows is not None or counts["train"] > 6)
    assert set(result["baselines"]) == {"untrained", "raw_inputs", "majority"}
    assert len(np.load(logger / f"features-{rows}" / "train.npy")) == counts["train"]


# Sounds

SOUNDS = [900, 320, 60, 651]  # samples at 1,000 a second, of which 12 frames cover 280
FRAME, HOP = 60, 20


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WAV files, and a model that reads 12 frames."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for number, length in enumerate(SOUNDS):
        path = folder / "files" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, 1000, random.uniform(-0.9, 0.9, length).astype(np.float32))
    sizes = {"modality": "image", "image_size": [4, 12], "num_channels": 1, "patch_size": [2, 3]}
    config = build_config(tiny_models.section("metamae", **sizes))
    torch.manual_seed(0)
    AutoModelForPreTraining.from_config(config).save_pretrained(folder / "model")
    args = data_arguments("audiofolder", **sound_fields(folder), window=12)
    prepare_data(args, config).processor.save_pretrained(folder / "model")
    return folder


def sound_fields(folder: Path) -> dict[str, Any]:
    named = {"data_dir": str(folder / "files"), "kind": "spectrogram", "input_column": "audio"}
    return {**named, "sampling_rate": 1000, "frame_length": FRAME, "hop_length": HOP}


def test_features_of_long_sounds_are_means_of_those_of_windows(sounds: Path) -> None:
    files = sorted((sounds / "files").glob("*/*.wav"))
    model, processor = (
        AutoModel.from_pretrained(sounds / "model").eval(),
        AutoFeatureExtractor.from_pretrained(sounds / "model"),
    )
    expected, starts = [], []
    for path in files:
        _, samples = wavfile.read(path)
        frames = 1 + max(0, -(-(len(samples) - FRAME) // HOP))
        own = [*range(0, max(1, frames - 12 + 1), STRIDE)]
        own = own if own[-1] + 12 >= frames else [*own, frames - 12]
        parts = [samples[start * HOP : (start + 11) * HOP + FRAME] for start in own]
        with torch.no_grad():
            found = [model(**processor(part, return_tensors="pt")).pooler_output[0].numpy() for part in parts]
        expected.append(np.stack(found))
        starts.append(own)
    tables = {}
    for name, pooled in (("pooled", "true"), ("each", "false")):
        output = str(sounds / f"{name}.parquet")
        words = ["--window", "12", "--stride", str(STRIDE), "--pool_windows", pooled]
        options: dict[str, Any] = {"shard_rows": 2, "device": "cpu", "pooling": "pooler"}
        embed_to(EmbedArguments(str(sounds / "model"), output, str(sounds / "files"), None, words, **options))
        tables[name] = pq.read_table(output).to_pandas()
    means = np.stack([one.mean(axis=0) for one in expected])
    np.testing.assert_allclose(np.stack(list(tables["pooled"]["embedding"])), means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        np.stack(list(tables["each"]["embedding"])), np.concatenate(expected), rtol=1e-4, atol=1e-5
    )
    assert tables["each"]["window_start"].tolist() == [start for own in starts for start in own]
    assert [Path(path).name for path in tables["pooled"]["path"]] == [path.name for path in files]
    waveforms = [wavfile.read(path)[1] for path in files]
    found = hf_maskssl.embed(
        str(sounds / "model"), waveforms, device="cpu", window=12, stride=STRIDE, pooling="pooler"
    )
    np.testing.assert_allclose(found, means, rtol=1e-4, atol=1e-5)


def test_probes_of_long_sounds_read_rows(sounds: Path) -> None:
    args = data_arguments(
        "audiofolder", **sound_fields(sounds), window=12, label_column="label", validation_fraction=0.5
    )
    result = evaluate_checkpoint(str(sounds / "model"), args, ProbeArguments(k=1))
    assert (result["rows"]["train"], result["rows"]["validation"]) == (2, 2)
    assert set(result["baselines"]) == {"untrained", "raw_inputs", "majority"}
