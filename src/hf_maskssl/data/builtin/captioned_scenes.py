"""Captioned scenes: rooms with three coloured things, with captions and questions made from their own truth.

The rooms are those of `scenes.py`, in greys. Three of four shapes stand side by side, in three of six colours, none hidden by
another, so that a caption is true or false beyond doubt. What a row asks is balanced by its number: of two rows that follow each
other one has a false statement, and of six each has another answer.
"""

from __future__ import annotations

import colorsys
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import datasets
import numpy as np
from datasets import Dataset, IterableDataset

from .scene_sentences import CAPTION_FORMS, COLOR_WORDS, SHAPE_WORDS, WORDS, Thing, draw_caption, draw_question
from .scenes import (
    CLASSES,
    SCENE_SPLITS,
    SOLID_SIZES,
    Camera,
    Row,
    Scene,
    Solid,
    Texture,
    draw_camera,
    draw_lamp,
    draw_texture,
    png_file,
    read_rendered,
    render,
)
from .source import Source

if TYPE_CHECKING:
    from ..arguments import DataArguments

# Part of the cache key: raise it when rows of equal numbers change.
CAPTIONED_VERSION = 1
STREAM = 1  # makes these random numbers other ones than those of `scenes.py`
CLASS_OF_SHAPE = {"box": "box", "ball": "sphere", "cone": "cone", "cylinder": "cylinder"}
# Hue of each colour in [0, 1): a sixth of the circle apart, of which a colour may lie off by a fifteenth of that.
HUES = {name: number / len(COLOR_WORDS) for number, name in enumerate(COLOR_WORDS)}
HUE_SPREAD = 1 / (15 * len(COLOR_WORDS))
NUM_THINGS = 3
# In shares of the picture's width: how far apart the things stand at least, and how narrow one may be.
LEAST_GAP, LEAST_WIDTH = 0.03, 0.16
DISTANCES = (1.5, 3.0)  # distances of the things from the camera, in metres
GREY_CONTRAST = 0.2  # difference of the two greys of a surface
CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))  # (8, 3) of a canonical shape
TRUTHS = ("mismatched", "matched")  # label 0 is another picture's caption, as in DABS's sets


@dataclass(frozen=True)
class CaptionedScene:
    """A room and what its words can say.

    Attributes:
        scene: The room, for `render`.
        things: Its three things from left to right, as the camera sees them.
        spans: (3, 2) float64, columns between which each lies, in shares of the picture's width.
    """

    scene: Scene
    things: tuple[Thing, ...]
    spans: np.ndarray


@dataclass(frozen=True)
class CaptionedRow:
    """A row of the data set, before its picture is rendered.

    Attributes:
        drawn: The room.
        caption: A caption that is true of it.
        statement: The caption; or one of another room, of the same form, that is false here.
        truth: Number in `TRUTHS`.
        question: A question about the colour of a thing.
        answer: Number in `COLOR_WORDS`.
    """

    drawn: CaptionedScene
    caption: str
    statement: str
    truth: int
    question: str
    answer: int


def make_row(seed: int, split: str, number: int, height: int, width: int) -> CaptionedRow:
    """Draw one row; equal arguments give equal rows.

    Args:
        seed: Seed of the whole set.
        split: Name of a split, one of `SCENE_SPLITS`; no two splits share a room.
        number: Number of the row in its split.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
    """
    place = [seed, SCENE_SPLITS.index(split), STREAM]
    answer = _dealt(place, number, len(COLOR_WORDS))
    truth = _dealt(place, number, len(TRUTHS))
    generator = np.random.default_rng([*place, 0, number])
    asked = int(generator.integers(NUM_THINGS))
    drawn = draw_captioned_scene(generator, height, width, asked, COLOR_WORDS[answer])
    form = CAPTION_FORMS[generator.integers(len(CAPTION_FORMS))]
    caption, _ = draw_caption(generator, drawn.things, form)
    statement = caption
    while not truth:
        other = draw_captioned_scene(generator, height, width)
        statement, claim = draw_caption(generator, other.things, form)
        if not claim.is_true_of(drawn.things):
            break
    question = draw_question(generator, drawn.things, asked)
    return CaptionedRow(drawn, caption, statement, truth, question, answer)


def _dealt(place: list[int], number: int, count: int) -> int:
    """A number below `count`: each once among every `count` rows that follow each other, in an order drawn anew."""
    group, position = divmod(number, count)
    return int(np.random.default_rng([*place, count, group]).permutation(count)[position])


def draw_captioned_scene(
    generator: np.random.Generator, height: int, width: int, asked: int = 0, color: str | None = None
) -> CaptionedScene:
    """A random room in greys with three things side by side, of different shapes and colours.

    Args:
        generator: Source of the draws.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        asked: Place from the left of the thing whose colour is given.
        color: Its colour; None draws it like the others.
    """
    colors = list(generator.permutation(COLOR_WORDS))
    if color is not None:  # the two change places, so that no other thing has it
        own = colors.index(color)
        colors[asked], colors[own] = colors[own], colors[asked]
    shapes = generator.permutation(SHAPE_WORDS)
    pairs = zip(colors[:NUM_THINGS], shapes[:NUM_THINGS], strict=True)
    things = tuple(Thing(str(color), str(shape)) for color, shape in pairs)
    names = [CLASS_OF_SHAPE[thing.shape] for thing in things]
    bare = Texture("plain", np.ones((2, 3)), np.zeros((4, 3)), np.zeros(4), 1.0)
    while True:
        half = np.array([generator.uniform(2.2, 3.2), generator.uniform(1.2, 1.6), generator.uniform(2.5, 4.0)])
        camera = draw_camera(generator, half, width)
        solids: list[Solid] = []
        spans: list[tuple[float, float]] = []
        for place, name in enumerate(names):
            solid = _draw_solid(generator, name, place, camera, width, bare)
            span = _span(solid, camera, height, width) if _stands_inside(solid, half) else None
            if span is None or (spans and span[0] - spans[-1][1] < LEAST_GAP):
                break
            solids.append(solid)
            spans.append(span)
        if len(spans) == NUM_THINGS:
            break
    solids = [
        replace(solid, texture=_colored(generator, bare, thing)) for solid, thing in zip(solids, things, strict=True)
    ]
    floor, wall, ceiling = (_grey(generator, draw_texture(generator, generator.uniform(0.25, 0.8))) for _ in range(3))
    room = Solid("box", 0, np.array([0.0, half[1], half[2]]), half, 0.0, floor)
    lamps = np.stack([draw_lamp(generator, half) for _ in range(generator.integers(1, 3))])
    strengths = generator.uniform(0.6, 1.0, len(lamps)) / math.sqrt(len(lamps))
    scene = Scene(room, (floor, wall, ceiling), solids, lamps, strengths, 0.25, camera)
    return CaptionedScene(scene, things, np.array(spans))


def _draw_solid(
    generator: np.random.Generator, name: str, place: int, camera: Camera, width: int, texture: Texture
) -> Solid:
    """A thing on the floor, in the left, middle or right third of what the camera sees."""
    shape, widths, heights = SOLID_SIZES[name]
    size = np.array([generator.uniform(*widths), generator.uniform(*heights), generator.uniform(*widths)])
    if shape != "box":
        size[2] = size[0]
    if name == "sphere":
        size[1] = size[0]
    far = generator.uniform(*DISTANCES)
    side = (2 / NUM_THINGS * (place - 1) + generator.uniform(-0.12, 0.12)) * 0.5 * width / camera.focal_length * far
    spot = camera.position + far * camera.axes[2] + side * camera.axes[0]
    center = np.array([spot[0], size[1], spot[2]])
    return Solid(shape, CLASSES.index(name), center, size, generator.uniform(0.0, math.pi), texture)


def _colored(generator: np.random.Generator, texture: Texture, thing: Thing) -> Texture:
    """The texture in a colour that the thing's word names."""
    hue = (HUES[thing.color] + generator.uniform(-HUE_SPREAD, HUE_SPREAD)) % 1.0
    color = colorsys.hsv_to_rgb(hue, generator.uniform(0.8, 1.0), generator.uniform(0.75, 1.0))
    return replace(texture, colors=np.array([color, color]))


def _grey(generator: np.random.Generator, texture: Texture) -> Texture:
    """The texture in two greys that lie near each other."""
    one = generator.uniform(0.4, 0.8)
    greys = np.array([one, one + generator.uniform(-GREY_CONTRAST, GREY_CONTRAST)])
    return replace(texture, colors=np.repeat(greys[:, None], 3, axis=1))


def _stands_inside(solid: Solid, half: np.ndarray) -> bool:
    reach = math.hypot(solid.size[0], solid.size[2])
    x, _, z = solid.center
    return abs(x) + reach < half[0] and 0.9 + reach < z < 2 * half[2] - reach


def _span(solid: Solid, camera: Camera, height: int, width: int) -> tuple[float, float] | None:
    """Columns between which the box around a solid appears, in shares of the width; None unless all of it is well in sight."""
    corners = CORNERS * solid.size @ solid.rotation.T + solid.center
    right, down, forward = camera.axes @ (corners - camera.position).T
    if forward.min() < 0.1:
        return None
    columns = 0.5 + camera.focal_length * right / forward / width
    rows = 0.5 + camera.focal_length * down / forward / height
    is_inside = min(columns.min(), rows.min()) >= 0.0 and max(columns.max(), rows.max()) <= 1.0
    span = float(columns.min()), float(columns.max())
    return span if is_inside and span[1] - span[0] >= LEAST_WIDTH else None


def captioned_rows(seed: int, split: str, size: tuple[int, int], blocks: list[tuple[int, int]]) -> Iterator[Row]:
    """Rows of the data set; the arguments are those of `scene_rows`."""
    for number in (number for start, end in blocks for number in range(start, end)):
        row = make_row(seed, split, number, *size)
        yield {
            "image": png_file(render(row.drawn.scene, *size).rgb),
            "caption": row.caption,
            "statement": row.statement,
            "truth": row.truth,
            "question": row.question,
            "answer": row.answer,
        }


def captioned_features() -> datasets.Features:
    """The columns of `captioned_rows`."""
    texts = {name: datasets.Value("string") for name in ("caption", "statement", "question")}
    labels = {"truth": datasets.ClassLabel(names=list(TRUTHS)), "answer": datasets.ClassLabel(names=list(COLOR_WORDS))}
    columns = {"image": datasets.Image(), **texts, **labels}
    order = ("image", "caption", "statement", "truth", "question", "answer")
    return datasets.Features({name: columns[name] for name in order})


def read_captioned_scenes(args: DataArguments, split: str) -> Dataset | IterableDataset:
    """Scenes of `scene_size`, `num_scenes` and `scenes_seed`; the columns are those of `captioned_features`.

    Raises:
        ValueError: A split that `num_scenes` does not have.
    """
    key: list[str | int] = ["captioned_scenes", CAPTIONED_VERSION]
    return read_rendered(args, split, captioned_rows, captioned_features(), key)


CAPTIONED_SCENES = Source(
    "captioned_scenes",
    "captioned procedural scenes",
    read_captioned_scenes,
    input_column="image",
    text_column="caption",
    words=WORDS,
    is_rendered=True,
)
