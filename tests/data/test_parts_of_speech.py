"""Tags and the parts of speech they stand for."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hf_maskssl.data.masked_text.parts_of_speech import PART_OF_TAG, UNIVERSAL_TAGS, task_ids, warn_of_unknown_tags
from hf_maskssl.models.configuration_pos_minimax_bert import PARTS_OF_SPEECH


def test_penn_tags_follow_the_published_mapping(shared_data: Callable[[str], Path]) -> None:
    """Petrov et al.'s en-ptb.map, and every tag that NLTK's tagger can give."""
    taggers = shared_data("nltk_data") / "taggers"
    universal = {tag: part for part, tags in UNIVERSAL_TAGS.items() for tag in tags}
    lines = (taggers / "universal_tagset" / "en-ptb.map").read_text(encoding="utf-8").split("\n")
    published = dict(line.split("\t") for line in lines if line)
    assert len(published) > 60
    differing = {tag for tag, part in published.items() if PART_OF_TAG[tag] != universal[part]}
    assert differing == {"UH"} and PART_OF_TAG["UH"] == "interjection"
    name = "averaged_perceptron_tagger_eng"
    classes = json.loads((taggers / name / f"{name}.classes.json").read_text(encoding="utf-8"))
    assert len(classes) == 45 and set(classes) <= set(PART_OF_TAG)


def test_every_scheme_is_known() -> None:
    petrov = "VERB NOUN PRON ADJ ADV ADP CONJ DET NUM PRT X .".split()
    dependencies = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
    assert set(petrov) | set(dependencies) <= set(PART_OF_TAG)
    assert {PART_OF_TAG[tag] for tag in dependencies} == {*PARTS_OF_SPEECH, None}


def test_ids_are_places_in_the_tasks() -> None:
    tags = ["DT", "NNP", "MD", "VERB", "CD", ".", "UH", "INTJ", "NN-TL", "IN", "ADP", "NN-TL", ""]
    ids = task_ids(tags, list(PARTS_OF_SPEECH))
    assert ids.dtype == np.int8 and ids.tolist() == [3, 1, 0, 0, -1, -1, 8, 8, -1, 6, 6, -1, -1]
    ids = task_ids(tags, ["preposition", "verb"])
    assert ids.tolist() == [-1, -1, 1, 1, -1, -1, -1, -1, -1, 0, 0, -1, -1]
    ids = task_ids(tags, ["mlm"])
    assert ids.dtype == np.int8 and not ids.any()
    assert task_ids([], list(PARTS_OF_SPEECH)).shape == (0,)


def test_unknown_tags_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_tags(Counter({"NN": 9, "VERB": 1}), "train", "tags")
        assert not caplog.records
        warn_of_unknown_tags(Counter({"NN": 826} | {f"T{n}": 20 - n for n in range(12)}), "train", "upos")
    (record,) = caplog.records
    message = record.getMessage()
    assert "train split, column 'upos': 174 of 1000 words have one of 12 tags" in message
    assert "'T0' (20), 'T1' (19)" in message and "'T9' (11), ..." in message and "T10" not in message
