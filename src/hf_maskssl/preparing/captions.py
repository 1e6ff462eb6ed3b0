"""Pictures with texts: MSCOCO's captions, mismatched captions, and questions with answers."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from ..files import JsonObject
from .cuts import SEED
from .raw import Media, RawFolder
from .record import Rows

MSCOCO_SPLITS = {"train": "train2017", "test": "val2017"}
VQA_SPLITS = {"train": "train2014", "test": "val2014"}
SEPARATOR = " [SEP] "  # between question and answer, as BERT's tokenizer puts it between two texts


def mscoco(raw: RawFolder) -> Iterator[Rows]:
    """Each picture with its last caption, and the class of the last thing that is marked in it."""
    for split, part in MSCOCO_SPLITS.items():
        for file, caption, label in _captioned(raw, part):
            yield Rows(split, {"image": file, "caption": caption, "label": label})


def mismatched_caption(raw: RawFolder) -> Iterator[Rows]:
    """The same pictures, half of them with another one's caption: label 0."""
    for split, part in MSCOCO_SPLITS.items():
        rows = list(_captioned(raw, part))
        chance = random.Random(SEED)
        swapped = [row for row in range(len(rows)) if chance.random() < 0.5]
        captions = [caption for _, caption, _ in rows]
        if len(swapped) > 1:
            roll = chance.randint(1, len(swapped))
            for row, other in zip(swapped, swapped[roll:] + swapped[:roll], strict=True):
                captions[row] = rows[other][1]
        wrong = set(swapped)
        for row, (file, _, _) in enumerate(rows):
            yield Rows(split, {"image": file, "caption": captions[row], "label": int(row not in wrong)})


def vqa(raw: RawFolder) -> Iterator[Rows]:
    """Questions of version 1, half of them with a wrong choice as the answer: label 0."""
    chance = random.Random(SEED)
    for split, part in VQA_SPLITS.items():
        (questions,) = _lists(raw, f"MultipleChoice_mscoco_{part}_questions.json", "questions")
        asked = {entry["question_id"]: (entry["question"], entry["multiple_choices"]) for entry in questions}
        images = raw.find(part)
        (answers,) = _lists(raw, f"mscoco_{part}_annotations.json", "annotations")
        list_file = raw.current or images
        for entry in answers:
            question, choices = asked[entry["question_id"]]
            answer = entry["multiple_choice_answer"]
            if answer not in choices:
                continue  # DABS leaves these out
            others = [choice for choice in choices if choice != answer]
            is_wrong = chance.random() < 0.5 and bool(others)
            shown = chance.choice(others) if is_wrong else answer
            file = raw.listed(images / f"COCO_{part}_{entry['image_id']:012d}.jpg", list_file)
            if file is not None:
                yield Rows(split, {"image": file, "text": question + SEPARATOR + shown, "label": int(not is_wrong)})


def _captioned(raw: RawFolder, part: str) -> Iterator[tuple[Media, str, int]]:
    """(picture, caption, class) of each picture of a part that has both, in the order of the captions."""
    things, marks = _lists(raw, f"annotations/instances_{part}.json", "categories", "annotations")
    categories: list[int] = [entry["id"] for entry in things]
    marked: dict[int, int] = {entry["image_id"]: categories.index(entry["category_id"]) for entry in marks}
    (texts,) = _lists(raw, f"annotations/captions_{part}.json", "annotations")
    captions: dict[int, str] = {entry["image_id"]: entry["caption"] for entry in texts}
    list_file = raw.current or Path(part)
    images = raw.find(part)
    for image, caption in captions.items():
        if image in marked and (file := raw.listed(images / f"{image:012d}.jpg", list_file)) is not None:
            yield file, caption, marked[image]


def _lists(raw: RawFolder, name: str, *keys: str) -> list[list[JsonObject]]:
    """Lists of a JSON file, which is read whole: the largest have half a gigabyte.

    Raises:
        ValueError: A list is missing.
    """
    path = raw.find(name, name.rpartition("/")[2])
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path}: expected an object with the list {key!r}")
    return [content[key] for key in keys]
