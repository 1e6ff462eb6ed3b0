"""Captioned scenes: what the words say, read by patterns of their own, against what the pixels show."""

import colorsys
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hf_maskssl
from hf_maskssl.data import DataArguments, build_config, data_arguments, load_splits
from hf_maskssl.data.builtin.captioned_scenes import (
    CLASS_OF_SHAPE,
    TRUTHS,
    CaptionedRow,
    make_row,
)
from hf_maskssl.data.builtin.scene_sentences import CAPTION_FORMS, COLOR_WORDS, SHAPE_WORDS, WORDS, Claim, Thing
from hf_maskssl.data.builtin.scenes import CLASSES, SCENE_SPLITS, View, render
from hf_maskssl.data.text.tokenizers import load_tokenizer
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.baselines import RawInputs, raw_inputs_probe
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint
from hf_maskssl.recipes import build_section, load_recipe
from hf_maskssl.training import load_pretraining_recipe, pretrain

SIDE = 40
ROWS = 120  # a multiple of the numbers of answers and of truths
COLOR, SHAPE = f"({'|'.join(COLOR_WORDS)})", f"({'|'.join(SHAPE_WORDS)})"
THING = f"{COLOR} {SHAPE}"
# What a caption says -> where its things stand: "<" for each thing that stands left of the next one.
CAPTIONS = {
    f"a {THING} left of a {THING}": "<",
    f"a {THING} right of a {THING}": ">",
    f"there is a {THING} to the left of a {THING}": "<",
    f"there is a {THING} to the right of a {THING}": ">",
    f"the picture shows a {THING} and a {THING}": "",
    f"a {THING} and a {THING} in the picture": "",
    f"a {THING} between a {THING} and a {THING}": "between",
    f"a {THING} , a {THING} and a {THING} from left to right": "<",
}
QUESTIONS = {
    f"what colour is the {SHAPE} \\?": "itself",
    f"which colour does the {SHAPE} have \\?": "itself",
    f"what is the colour of the {SHAPE} \\?": "itself",
    f"what colour is the thing left of the {SHAPE} \\?": "left",
    f"what colour is the thing right of the {SHAPE} \\?": "right",
    f"what colour is the thing between the {SHAPE} and the {SHAPE} \\?": "between",
}


@dataclass
class Seen:
    """What the pixels show of a thing: its columns, and the word for its hue."""

    columns: np.ndarray
    color: str


def look(view: View) -> dict[str, Seen]:
    """Shape -> what is seen of it."""
    found = {}
    for shape, name in CLASS_OF_SHAPE.items():
        rows, columns = np.nonzero(view.semseg == CLASSES.index(name))
        if len(rows):
            hues = [
                colorsys.rgb_to_hsv(*(view.rgb[row, column] / 255))[0]
                for row, column in zip(rows, columns, strict=True)
            ]
            sixths = Counter(round(6 * hue) % 6 for hue in hues)
            assert len(sixths) == 1, "a thing shows two colours"
            found[shape] = Seen(columns, ["red", "yellow", "green", "cyan", "blue", "magenta"][next(iter(sixths))])
    return found


def is_left(one: Seen, other: Seen) -> bool:
    """Whether all of one lies left of all of the other."""
    return bool(one.columns.max() < other.columns.min())


def is_true(caption: str, seen: dict[str, Seen]) -> bool:
    (match, relation), *more = [
        (found, relation) for pattern, relation in CAPTIONS.items() if (found := re.fullmatch(pattern, caption))
    ]
    assert not more
    words = match.groups()
    named = list(zip(words[::2], words[1::2], strict=True))
    if any(shape not in seen or seen[shape].color != color for color, shape in named):
        return False
    things = [seen[shape] for _, shape in named]
    if relation == "between":
        middle, one, other = things
        return (is_left(one, middle) and is_left(middle, other)) or (is_left(other, middle) and is_left(middle, one))
    pairs = itertools.pairwise(things)
    return all({"<": is_left(a, b), ">": is_left(b, a), "": True}[relation] for a, b in pairs)


def answers(question: str, seen: dict[str, Seen]) -> list[str]:
    """The colours of all things that the question may mean."""
    ((match, relation),) = [
        (found, relation) for pattern, relation in QUESTIONS.items() if (found := re.fullmatch(pattern, question))
    ]
    named = [seen[shape] for shape in match.groups()]
    if relation == "itself":
        return [named[0].color]
    others = [thing for shape, thing in seen.items() if shape not in match.groups()]
    if relation == "left":
        return [thing.color for thing in others if is_left(thing, named[0])]
    if relation == "right":
        return [thing.color for thing in others if is_left(named[0], thing)]
    left, right = sorted(named, key=lambda thing: thing.columns.min())
    return [thing.color for thing in others if is_left(left, thing) and is_left(thing, right)]


@pytest.fixture(scope="module")
def rows() -> list[CaptionedRow]:
    return [make_row(5, "train", number, SIDE, SIDE) for number in range(ROWS)]


def test_words_are_true_of_the_pixels_or_false_as_the_label_says(rows: list[CaptionedRow]) -> None:
    forms: Counter[str] = Counter()
    for row in rows:
        view = render(row.drawn.scene, SIDE, SIDE)
        seen = look(view)
        assert len(seen) == len({thing.color for thing in seen.values()}) == 3
        assert [str(thing) for thing in row.drawn.things] == [
            f"{thing.color} {shape}" for shape, thing in sorted(seen.items(), key=lambda item: item[1].columns.mean())
        ]
        assert is_true(row.caption, seen)
        assert is_true(row.statement, seen) == (TRUTHS[row.truth] == "matched")
        assert answers(row.question, seen) == [COLOR_WORDS[row.answer]]
        # A false statement differs in its things alone, never in its form.
        assert re.sub(THING, "", row.statement) == re.sub(THING, "", row.caption)
        forms[re.sub(THING, "", row.caption)] += 1
        forms[re.sub(SHAPE, "", row.question)] += 1
    assert len(forms) == len(CAPTIONS) + len(QUESTIONS) == len(CAPTION_FORMS) + 6


def test_nothing_is_hidden_or_cut_off(rows: list[CaptionedRow]) -> None:
    for row in rows[:40]:
        view = render(row.drawn.scene, SIDE, SIDE)
        seen = sorted(look(view).values(), key=lambda thing: thing.columns.mean())
        for (low, high), thing in zip(row.drawn.spans, seen, strict=True):
            assert low * SIDE - 1 <= thing.columns.min() and thing.columns.max() <= high * SIDE
        is_solid = view.semseg >= CLASSES.index("box")
        assert not is_solid[0].any() and not is_solid[-1].any()
        assert min(len(thing.columns) for thing in seen) >= 12


@pytest.mark.parametrize(
    ("words", "order", "expected"),
    [
        (("red box", "blue ball"), "left_to_right", True),
        (("blue ball", "red box"), "left_to_right", False),
        (("blue ball", "red box"), "none", True),
        (("blue box", "red ball"), "none", False),
        (("red box", "green ball"), "none", False),
        (("green cone", "blue ball", "red box"), "either_way", True),
        (("red box", "green cone", "blue ball"), "either_way", False),
    ],
)
def test_a_claim_is_judged_by_things_and_order(words: tuple[str, ...], order: Any, expected: bool) -> None:
    scene = [Thing("red", "box"), Thing("blue", "ball"), Thing("green", "cone")]
    things = tuple(Thing(*word.split()) for word in words)
    assert Claim(things, order).is_true_of(scene) is expected


def test_labels_are_balanced_to_the_row(rows: list[CaptionedRow]) -> None:
    assert Counter(row.truth for row in rows) == {0: ROWS // 2, 1: ROWS // 2}
    assert Counter(row.answer for row in rows) == dict.fromkeys(range(6), ROWS // 6)
    # Any stretch is balanced as well, and no label follows from the row's number.
    assert all({one.truth, other.truth} == {0, 1} for one, other in zip(rows[::2], rows[1::2], strict=True))
    assert all(len({row.answer for row in rows[start : start + 6]}) == 6 for start in range(0, ROWS, 6))
    assert len({row.truth for row in rows[::2]}) == 2 and len({row.answer for row in rows[::6]}) == 6


def test_no_word_gives_the_label_away(rows: list[CaptionedRow]) -> None:
    """Every word is as frequent in true statements as in false ones, and in questions of every answer."""
    for words, labels, classes in (
        ([row.statement.split() for row in rows], [row.truth for row in rows], 2),
        ([row.question.split() for row in rows], [row.answer for row in rows], 6),
    ):
        for word in WORDS:
            has = np.array([word in text for text in words])
            if min(has.sum(), ROWS - has.sum()) < 10:
                continue
            expected = has.mean() * (1 - has.mean()) / (ROWS / classes) * (1 - 1 / classes)
            for label in range(classes):
                own = has[np.array(labels) == label].mean()
                assert abs(own - has.mean()) < 4 * expected**0.5, (word, label)


@pytest.mark.slow
def test_half_of_the_input_answers_nothing() -> None:
    """A linear model of the words' runs stays at the prior: 1/2 of statements, 1/6 of questions."""
    made = {split: [make_row(0, split, number, 32, 32) for number in range(count)] for split, count in SIZES.items()}
    for text, label, prior in (("statement", "truth", 1 / 2), ("question", "answer", 1 / 6)):
        inputs = {
            split: RawInputs(
                np.array([getattr(row, label) for row in found]),
                tokens=[np.array([WORDS.index(word) for word in getattr(row, text).split()]) for row in found],
                vocab_size=len(WORDS),
            )
            for split, found in made.items()
        }
        run, _ = raw_inputs_probe(inputs["train"], inputs["test"], "classification", ProbeArguments(), 0)
        spread = (prior * (1 - prior) / SIZES["test"]) ** 0.5
        assert abs(run.scores["accuracy"] - prior) < 3 * spread


SIZES = {"train": 3000, "test": 1200}


def test_rows_depend_on_seed_split_and_number_alone() -> None:
    found: dict[bytes, Any] = {}
    for seed, split, number in itertools.product((0, 1), SCENE_SPLITS, (0, 1)):
        row, again = (make_row(seed, split, number, 16, 16) for _ in range(2))
        pixels = render(row.drawn.scene, 16, 16).rgb.tobytes()
        assert pixels == render(again.drawn.scene, 16, 16).rgb.tobytes()
        words = [(one.caption, one.statement, one.truth, one.question, one.answer) for one in (row, again)]
        assert words[0] == words[1]
        found[pixels] = words[0]
    assert len(found) == 12


def test_the_data_set_is_the_same_for_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"kind": "vision_language", "scene_size": 16, "validation_split": "validation"}
    options |= {"num_scenes": {"train": 5, "validation": 2, "test": 3}, "test_split": "test"}
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "alone")
    alone = load_splits(data_arguments("captioned_scenes", **options))
    monkeypatch.setattr("hf_maskssl.data.builtin.scenes.BLOCK_SCENES", 2)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "shared")
    shared = load_splits(data_arguments("captioned_scenes", num_proc=2, **options))
    stream = load_splits(data_arguments("captioned_scenes", streaming=True, **options))["train"]
    assert alone["train"].column_names == ["image", "caption", "statement", "truth", "question", "answer"]
    assert alone["train"].with_format("arrow")[:].equals(shared["train"].with_format("arrow")[:])
    for number, (row, streamed) in enumerate(zip(alone["train"], stream, strict=True)):
        made = make_row(0, "train", number, 16, 16)
        np.testing.assert_array_equal(np.asarray(row["image"]), render(made.drawn.scene, 16, 16).rgb)
        assert {name: row[name] for name in row if name != "image"} == {
            name: getattr(made, name) for name in row if name != "image"
        }
        assert streamed["caption"] == row["caption"]
    pictures = {np.asarray(row["image"]).tobytes() for split in alone for row in alone[split]}
    assert len(pictures) == 10
    assert alone["test"].features["answer"].names == list(COLOR_WORDS)


def test_its_words_are_the_tokenizers() -> None:
    recipe = load_pretraining_recipe("captioned_scenes")
    config = build_config(recipe.model)
    tokenizer: Any = load_tokenizer("captioned_scenes", None, config)
    assert len(tokenizer) == config.vocab_size == len(WORDS) + 5
    longest = max((form.text.format(*["magenta cylinder"] * len(form.places)) for form in CAPTION_FORMS), key=len)
    ids = tokenizer(longest, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(longest.split()) <= config.max_position_embeddings
    assert tokenizer.convert_ids_to_tokens(ids) == longest.split()
    assert set(WORDS) == {word for form in CAPTION_FORMS for word in form.text.replace("{}", "").split()} | {
        word for pattern in QUESTIONS for word in re.sub(r"\(.*?\)|\\", "", pattern).split()
    } | set(COLOR_WORDS) | set(SHAPE_WORDS)


def test_it_is_the_default_of_its_kind() -> None:
    args = data_arguments("captioned_scenes", kind="vision_language")
    assert (args.input_column, args.text_column) == ("image", "caption")
    section = {"kind": "vision_language", "tokenizer": "captioned_scenes"}
    assert build_section("data", DataArguments, section).source == "captioned_scenes"
    with pytest.raises(
        ValueError, match=r"'captioned_scenes' has the splits \['train'\] \(data.num_scenes\), got 'test'"
    ):
        load_splits(
            data_arguments("captioned_scenes", kind="vision_language", num_scenes={"train": 2}, test_split="test")
        )


def test_pretrained_encoders_are_probed_on_statements_and_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    few = ["--num_scenes", "{train: 24, validation: 6, test: 12}", "--scene_size", "16", "--image_size", "[16, 16]"]
    small = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --intermediate_size 16 --decoder_hidden_size 16"
    small += " --decoder_num_hidden_layers 1 --decoder_num_attention_heads 2 --decoder_intermediate_size 16"
    times = "--max_steps 3 --warmup_steps 0 --batch_size 8 --eval_steps 0 --picture_steps 0"
    words = [*few, *small.split(), *times.split(), "--output_dir", str(tmp_path / "run")]
    state = pretrain(load_pretraining_recipe("captioned_scenes", words))
    assert state.step == 3
    features = hf_maskssl.embed(tmp_path / "run", "captioned_scenes", scene_size=16, num_scenes={"train": 24})
    assert features.shape == (24, 16)  # type: ignore[union-attr]  # pooled features are an array
    for name, classes in (("mismatch", 2), ("questions", 6)):
        probed = load_recipe(f"captioned_scenes_{name}", few[:4], {"data": DataArguments})["data"]
        result = evaluate_checkpoint(str(tmp_path / "run"), probed, ProbeArguments(solver="exact"))
        assert result["rows"]["test"] == 12 and 0 <= result["linear"][0]["accuracy"] <= 1
        assert result["baselines"]["majority"]["linear"][0]["accuracy"] == pytest.approx(1 / classes)
