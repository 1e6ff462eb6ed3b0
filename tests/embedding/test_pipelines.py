"""transformers' pipelines: ours for every kind of data, and those of transformers that work as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import CASES, Made, assert_same_features
from PIL import Image
from test_in_python import raw_rows
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    pipeline,
)

import hf_maskssl
from tiny_models import MODALITIES, SIZES

Get = Callable[[str], Made]
TASK = "masked-feature-extraction"


@pytest.mark.parametrize("kind", list(CASES))
def test_every_kind_of_row(made: Get, kind: str) -> None:
    it = made(kind)
    rows = raw_rows(kind, it.data)[:4]
    extractor = pipeline(TASK, model=it.model, device="cpu")
    expected = hf_maskssl.embed(it.model, rows)
    assert_same_features([extractor(row) for row in rows], expected)
    batched = extractor(rows, batch_size=3, return_tensors=True)
    assert_same_features(torch.stack(batched), expected)
    tokens = extractor(rows, batch_size=3, tokens=True, return_tensors=True)
    for found, alone in zip(tokens, hf_maskssl.embed(it.model, rows, tokens=True), strict=True):
        assert_same_features(found, alone)


def test_a_model_of_this_process_with_its_tokenizer(made: Get) -> None:
    from transformers import AutoTokenizer

    it = made("tokens")
    model, tokenizer = AutoModel.from_pretrained(it.model), AutoTokenizer.from_pretrained(it.model)
    model.name_or_path = ""
    found = pipeline(TASK, model=model, tokenizer=tokenizer, device="cpu")("acgt")
    assert_same_features(found, hf_maskssl.embed(it.model, ["acgt"])[0])


def test_transformers_own_pipelines(made: Get) -> None:
    """Text: every token, of tokenizers that add nothing the model does not expect. Pictures: of one modality."""
    words = made("masked_text")
    found = np.array(pipeline("feature-extraction", model=words.model, device="cpu")("a b c"))
    assert_same_features(found[0], hf_maskssl.embed(words.model, ["a b c"], tokens=True)[0])
    image = made("image")
    path = sorted(raw.filename for raw in raw_rows("image", image.data))[0]  # type: ignore[attr-defined]
    extractor = pipeline("image-feature-extraction", model=image.model, device="cpu")
    found = np.array(extractor(path, pool=True))
    assert_same_features(found[0], hf_maskssl.embed(image.model, [Image.open(path)])[0])


def small_classifier(method: str, folder: Path, processor: Any, **shape: object) -> None:
    """A classifier of pictures with random weights, saved with its processor."""
    fields = SIZES[method] | MODALITIES[method]["image"] | {"id2label": {0: "cat", 1: "eel"}} | shape
    config = AutoConfig.for_model(method, **fields)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize("method", ["metamae", "sma"])
def test_classifiers_of_pictures_and_sounds(method: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    processor = hf_maskssl.ArrayImageProcessor(3, 16, scale=1 / 255)
    small_classifier(method, tmp_path / "pictures", processor, image_size=16, num_channels=3, patch_size=4)
    # Without an answer transformers asks whether a video processor's code may run, which there is not.
    pipe = pipeline("image-classification", tmp_path / "pictures", device="cpu", trust_remote_code=False)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "pictures").eval()
    expected = model(**processor(picture, return_tensors="pt")).logits.softmax(-1)[0].tolist()
    assert {one["label"]: one["score"] for one in pipe(picture)} == pytest.approx(
        dict(zip(("cat", "eel"), expected, strict=True)), abs=1e-6
    )
    sounds = hf_maskssl.SpectrogramFeatureExtractor(8000, num_mel_bins=16, num_frames=16)
    small_classifier(method, tmp_path / "sounds", sounds, image_size=16, num_channels=1, patch_size=4)
    wave = random.normal(size=2000)
    found = pipeline("audio-classification", tmp_path / "sounds", device="cpu")(wave)
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "sounds").eval()
    expected = model(**sounds(wave, sampling_rate=8000, return_tensors="pt")).logits.softmax(-1)[0].tolist()
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        dict(zip(("cat", "eel"), expected, strict=True)), abs=1e-6
    )
