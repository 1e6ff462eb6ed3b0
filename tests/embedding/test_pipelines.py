"""transformers' pipelines: ours for every kind of data, and those of transformers that work as they are."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from kinds import CASES, Made, assert_same_features
from PIL import Image
from test_in_python import raw_rows
from transformers import AutoModel, pipeline

import hf_maskssl

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
