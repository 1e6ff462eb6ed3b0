"""Captions of and questions about three coloured things that stand side by side, made from where they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

COLOR_WORDS = ("red", "yellow", "green", "cyan", "blue", "magenta")
SHAPE_WORDS = ("box", "ball", "cone", "cylinder")
# Every word and mark of captions and questions.
WORDS = (
    *COLOR_WORDS,
    *SHAPE_WORDS,
    *("a", "and", "between", "colour", "does", "from", "have", "in", "is", "left", "of", "picture", "right", "shows"),
    *("the", "there", "thing", "to", "what", "which", ",", "?"),
)


class Thing(NamedTuple):
    """What the words say of a thing.

    Attributes:
        color: One of `COLOR_WORDS`.
        shape: One of `SHAPE_WORDS`.
    """

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Claim:
    """What a caption says.

    Attributes:
        things: Things that it names.
        order: What it says of their places. "left_to_right": they stand in this order. "either_way": in this order from one
            of the two sides. "none": nothing.
    """

    things: tuple[Thing, ...]
    order: Literal["left_to_right", "either_way", "none"] = "left_to_right"

    def is_true_of(self, scene: Sequence[Thing]) -> bool:
        """Whether it holds of a scene's things, given from left to right."""
        if not set(self.things) <= set(scene):
            return False
        places = [scene.index(thing) for thing in self.things]
        ways = [places, places[::-1]] if self.order == "either_way" else [places]
        return self.order == "none" or any(way == sorted(way) for way in ways)


@dataclass(frozen=True)
class CaptionForm:
    """A template of captions.

    Attributes:
        text: Words with a place for each thing.
        places: Which of the scene's things, by their place from the left among those drawn, go into the text, in its order.
        claim: From the things in their order from the left to what the text says.
    """

    text: str
    places: tuple[int, ...]
    claim: Callable[[tuple[Thing, ...]], Claim] = Claim


def _unordered(things: tuple[Thing, ...]) -> Claim:
    return Claim(things, "none")


def _either_way(things: tuple[Thing, ...]) -> Claim:
    return Claim(things, "either_way")


CAPTION_FORMS = (
    CaptionForm("a {} left of a {}", (0, 1)),
    CaptionForm("a {} right of a {}", (1, 0)),
    CaptionForm("there is a {} to the left of a {}", (0, 1)),
    CaptionForm("there is a {} to the right of a {}", (1, 0)),
    CaptionForm("the picture shows a {} and a {}", (0, 1), _unordered),
    CaptionForm("a {} and a {} in the picture", (1, 0), _unordered),
    CaptionForm("a {} between a {} and a {}", (1, 0, 2), _either_way),
    CaptionForm("a {} , a {} and a {} from left to right", (0, 1, 2)),
)
DIRECT_QUESTIONS = (
    "what colour is the {} ?",
    "which colour does the {} have ?",
    "what is the colour of the {} ?",
)
# By the place of the thing that is asked for: words, and the places of the things that they name by their shapes.
RELATIVE_QUESTIONS = (
    ("what colour is the thing left of the {} ?", (1,)),
    ("what colour is the thing between the {} and the {} ?", (0, 2)),
    ("what colour is the thing right of the {} ?", (1,)),
)
RELATIVE_SHARE = 0.25  # share of the questions that name a thing by its place


def draw_caption(generator: np.random.Generator, scene: Sequence[Thing], form: CaptionForm) -> tuple[str, Claim]:
    """A true caption of this form, and what it says.

    Args:
        generator: Source of the choice of the things that it names.
        scene: The three things of a scene from left to right.
        form: One of `CAPTION_FORMS`.
    """
    count = len(form.places)
    chosen = sorted(generator.choice(len(scene), count, replace=False)) if count < len(scene) else range(len(scene))
    things = tuple(scene[place] for place in chosen)
    return form.text.format(*(things[place] for place in form.places)), form.claim(things)


def draw_question(generator: np.random.Generator, scene: Sequence[Thing], asked: int) -> str:
    """A question whose answer is the colour of one thing, which it names by its shape or by its neighbours.

    Args:
        generator: Source of the choice of the words.
        scene: The three things of a scene, of different shapes, from left to right.
        asked: Place of the thing that is asked for.
    """
    if generator.random() < RELATIVE_SHARE:
        text, places = RELATIVE_QUESTIONS[asked]
    else:
        text, places = DIRECT_QUESTIONS[generator.integers(len(DIRECT_QUESTIONS))], (asked,)
    return text.format(*(scene[place].shape for place in places))
