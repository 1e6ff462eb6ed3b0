"""`hf_maskssl.embed`: whatever holds the rows, the numbers are those of the files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from kinds import CASES, Made, assert_same_features
from PIL import Image
from scipy.io import wavfile
from transformers import AutoModel, AutoModelForPreTraining

import hf_maskssl
from hf_maskssl.data.processors import load_processor

Get = Callable[[str], Made]


def raw_rows(kind: str, data: str) -> list[Any]:
    """The rows of a case's files, as a user would hold them."""
    folder = Path(data)
    if kind == "image":
        return [Image.open(path) for path in sorted(folder.rglob("*.png"))]
    if kind == "spectrogram":
        return [wavfile.read(path)[1] / 32768 for path in sorted(folder.glob("*.wav"))]
    if kind == "series":
        return list(np.load(data))
    if kind == "tabular":
        return pd.read_csv(data).to_dict("records")
    if kind == "vision_language":
        rows = load_dataset("imagefolder", data_dir=data, split="train")
        return [{"image": row["image"], "text": row["caption"]} for row in rows]
    if kind == "multimodal":
        names = sorted(path.name for path in (folder / "rgb").iterdir())
        return [{one: Image.open(folder / one / name) for one in ("rgb", "depth")} for name in names]
    return [line for line in folder.read_text().split("\n") if line]


@pytest.mark.parametrize("kind", list(CASES))
def test_rows_of_this_process_are_those_of_the_files(made: Get, kind: str) -> None:
    it = made(kind)
    rows = raw_rows(kind, it.data)
    found = hf_maskssl.embed(it.model, rows, device="cpu", batch_size=4)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and len(found) == len(rows)
    if kind == "masked_text":  # whose file has blank lines, for which an array has no place
        with pytest.raises(ValueError, match="10 rows have nothing in column 'text'.*no place for gaps"):
            hf_maskssl.embed(it.model, it.data)
        return
    files = hf_maskssl.embed(it.model, it.data, device="cpu", batch_size=4)
    # A picture's path is in the order of its class folder; PNG keeps 8 and 16 bit as they are.
    assert_same_features(found, files)


def test_tables_arrays_and_data_sets(made: Get) -> None:
    table = made("tabular")
    frame = pd.read_csv(table.data)
    expected = hf_maskssl.embed(table.model, table.data)
    rows = Dataset.from_pandas(frame)
    for data in (frame, rows, rows.with_format("torch"), rows.with_format("pandas"), frame[list("abcdef")].to_numpy()):
        np.testing.assert_array_equal(hf_maskssl.embed(table.model, data), expected)
    series = made("series")
    np.testing.assert_array_equal(
        hf_maskssl.embed(series.model, np.load(series.data)), hf_maskssl.embed(series.model, series.data)
    )


def test_a_model_of_this_process(made: Get) -> None:
    it = made("tokens")
    texts = raw_rows("tokens", it.data)
    for kind in (AutoModel, AutoModelForPreTraining):
        model = kind.from_pretrained(it.model).train()
        found = hf_maskssl.embed(model, texts, processor=load_processor(it.model))
        np.testing.assert_array_equal(found, hf_maskssl.embed(it.model, texts))
        assert model.training  # as it was
    with pytest.raises(ValueError, match="data.*column 'input' holds str|name its data.tokenizer"):
        hf_maskssl.embed(model, texts)


def test_tokens_are_a_list_of_arrays(made: Get) -> None:
    it = made("tokens")
    texts = raw_rows("tokens", it.data)
    found = hf_maskssl.embed(it.model, texts, tokens=True, batch_size=3)
    assert [one.shape for one in found] == [(len(text), 16) for text in texts]
    alone = hf_maskssl.embed(it.model, texts[6:7], tokens=True)
    assert_same_features(found[6], alone[0])


def test_rows_may_lack_modalities(made: Get) -> None:
    it = made("multimodal")
    rows = raw_rows("multimodal", it.data)[:3]
    rows[1] = {"rgb": rows[1]["rgb"]}
    found = hf_maskssl.embed(it.model, rows)
    assert_same_features(found[1:2], hf_maskssl.embed(it.model, rows[1:2]))
    assert_same_features(found[1:2], hf_maskssl.embed(it.model, [rows[1]["rgb"]]))


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("tabular", [{"a": 1.0, "b": 2.0}], "row 0 has no 'c'"),
        ("tabular", [], "expected at least one row"),
        (
            "tokens",
            DatasetDict({"test": Dataset.from_dict({"text": ["a"]})}),
            r"a DatasetDict of the splits \['test'\]",
        ),
        ("tabular", {"a": 1.0, "b": 2.0, "c": 3.0}, "expected a path, .* got dict .*: put one row in a list"),
        ("tokens", Dataset.from_dict({"text": []}), "expected at least one row"),
        ("tokens", [None, "acgt"], "row 0 is None: drop empty rows"),
        ("series", np.zeros(12), r"row 0 is np.float64\(0.0\): drop empty rows, and put one row in a list"),
        ("tokens", None, "expected a path, .* got NoneType"),
        ("multimodal", [{"rbg": None}], "the model has no modality 'rbg'"),
        ("tokens", ["acgt", ""], "drop empty rows"),
        ("tokens", [{"x": "a", "y": "c"}], r"rows have the columns \['x', 'y'\]: say which is the input"),
        ("vision_language", ["acgt"], "expected dicts such as"),
        ("series", [np.zeros((3, 13))], "has 13 steps, more than the 12"),
    ],
)
def test_rows_that_do_not_fit_are_named(made: Get, kind: str, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hf_maskssl.embed(made(kind).model, rows)
