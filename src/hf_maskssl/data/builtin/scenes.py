"""Procedural scenes: rooms with textured solids, seen by a pinhole camera, with true depth, normals and class maps.

The class of a solid follows from its shape alone; its colours and patterns are drawn freely and often taken from the wall
or floor behind it, so that depth says more about classes than colour does.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import datasets
import numpy as np
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher
from PIL import Image

from .source import Source

if TYPE_CHECKING:
    from ..arguments import DataArguments

# Part of the cache key: raise it when the pixels of equal scenes change.
SCENES_VERSION = 2
SCENE_SPLITS = ("train", "validation", "test")
CLASSES = ("floor", "wall", "ceiling", "box", "slab", "pillar", "sphere", "cylinder", "disc", "cone")
# The first three are the room; a scene's label is the solid that covers most pixels.
SOLIDS = CLASSES[3:]
LAYOUT = (*CLASSES[:3], "solid")
# class -> (canonical shape, lowest and highest half width, lowest and highest half height), in metres.
SOLID_SIZES: dict[str, tuple[str, tuple[float, float], tuple[float, float]]] = {
    "box": ("box", (0.2, 0.45), (0.2, 0.45)),
    "slab": ("box", (0.4, 0.75), (0.05, 0.12)),
    "pillar": ("box", (0.1, 0.2), (0.5, 1.0)),
    "sphere": ("sphere", (0.2, 0.5), (0.2, 0.5)),
    "cylinder": ("cylinder", (0.15, 0.35), (0.25, 0.7)),
    "disc": ("cylinder", (0.35, 0.65), (0.05, 0.12)),
    "cone": ("cone", (0.2, 0.45), (0.25, 0.65)),
}
FLAT_TOPS = ("box", "slab", "cylinder", "disc")
PATTERNS = ("plain", "checker", "stripes", "noise")
# A row of a rendered data set: files of pictures, texts, class numbers.
Row: TypeAlias = dict[str, dict[str, bytes | None] | str | int]
# Depth is stored as 16-bit millimetres.
DEPTH_SCALE = 0.001
# Scenes that one process draws in a row.
BLOCK_SCENES = 50
MINIMUM_PIXELS = 0.03  # smallest share of solids in a picture; a scene with less is drawn again
NEAREST = 1e-4  # a ray that starts on a surface does not hit it


@dataclass(frozen=True)
class Texture:
    """Two colours and the pattern that mixes them, in metres of the solid itself."""

    pattern: str
    colors: np.ndarray  # (2, 3) in [0, 1]
    directions: np.ndarray  # (4, 3): of the stripes, and of the waves that make noise
    phases: np.ndarray  # (4,)
    size: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) points -> (n, 3) colours."""
        if self.pattern == "plain":
            mix = np.zeros(len(points))
        elif self.pattern == "checker":
            mix = np.floor(points / self.size + self.phases[:3]).sum(axis=1) % 2
        elif self.pattern == "stripes":
            mix = (np.sin(points @ self.directions[0] * (math.pi / self.size) + self.phases[0]) > 0).astype(float)
        else:
            waves = np.sin(points @ self.directions.T * (2.0 / self.size) + self.phases)
            mix = 0.5 + 0.5 * np.tanh(1.5 * (waves[:, 0] * waves[:, 1] + waves[:, 2] * waves[:, 3]))
        return self.colors[0] + mix[:, None] * (self.colors[1] - self.colors[0])


@dataclass(frozen=True)
class Solid:
    """A canonical shape in [-1, 1]^3, stretched, turned about the vertical axis and moved."""

    shape: str
    class_id: int
    center: np.ndarray  # (3,)
    size: np.ndarray  # (3,) half extents
    turn: float
    texture: Texture
    rotation: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        rotation = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
        object.__setattr__(self, "rotation", rotation)

    def local(self, vectors: np.ndarray) -> np.ndarray:
        """(..., 3) world directions in the canonical shape's frame; points once the centre is subtracted."""
        return (vectors @ self.rotation) / self.size

    def hit(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Distances (n,) to the surface from `origins` ((3,) or (n, 3)), in units of `directions` (n, 3); infinite for a miss."""
        return SHAPES[self.shape](self.local(origins - self.center), self.local(directions))

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (n, 3) of points (n, 3) on the surface."""
        local = NORMALS[self.shape](self.local(points - self.center))
        normals = (local / self.size) @ self.rotation.T
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def colors(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) colours of points on the surface."""
        return self.texture((points - self.center) @ self.rotation)


@dataclass(frozen=True)
class Camera:
    """A pinhole: columns of pixels run along `axes[0]`, rows along `axes[1]`, and it looks along `axes[2]`."""

    position: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3) unit rows: right, down, forward
    focal_length: float  # in pixels

    def rays(self, height: int, width: int) -> np.ndarray:
        """(height * width, 3) directions through the centres of the pixels; one of them is one unit of depth."""
        columns = (np.arange(width) + 0.5 - width / 2) / self.focal_length
        rows = (np.arange(height) + 0.5 - height / 2) / self.focal_length
        flat = np.stack([np.tile(columns, height), np.repeat(rows, width), np.ones(height * width)], axis=1)
        return flat @ self.axes


@dataclass(frozen=True)
class Scene:
    """A room, the solids in it, its lamps and a camera."""

    room: Solid
    surfaces: tuple[Texture, Texture, Texture]  # textures of floor, walls and ceiling
    solids: list[Solid]
    lamps: np.ndarray  # (L, 3) places
    strengths: np.ndarray  # (L,)
    ambient: float
    camera: Camera


@dataclass(frozen=True)
class View:
    """The pictures that a camera takes.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32, metres along the axis of the camera.
        normals: (H, W, 3) float32 unit vectors in the camera's frame (right, down, forward).
        semseg: (H, W) uint8, numbers of `CLASSES`.
    """

    rgb: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    semseg: np.ndarray

    @property
    def label(self) -> int:
        """Number in `SOLIDS` of the one that covers most pixels."""
        return int(self._counts().argmax())

    @property
    def solid_share(self) -> float:
        """Share of the pixels that show a solid."""
        return float(self._counts().sum() / self.semseg.size)

    def _counts(self) -> np.ndarray:
        return np.bincount(self.semseg.ravel(), minlength=len(CLASSES))[len(CLASSES) - len(SOLIDS) :]


def make_scene(seed: int, split: str, number: int, height: int, width: int) -> View:
    """Draw and render one scene; equal arguments give equal pixels.

    Args:
        seed: Seed of the whole set.
        split: Name of a split, one of `SCENE_SPLITS`; no two splits share a scene.
        number: Number of the scene in its split.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
    """
    generator = np.random.default_rng([seed, SCENE_SPLITS.index(split), number])
    while True:
        view = render(draw_scene(generator, width), height, width)
        if view.solid_share >= MINIMUM_PIXELS:
            return view


def render(scene: Scene, height: int, width: int) -> View:
    """Cast a ray through every pixel."""
    camera = scene.camera
    rays = camera.rays(height, width)
    # The room is seen from within, so a ray hits its far side.
    things = [scene.room, *scene.solids]
    distances = np.stack(
        [_far_side(scene.room, camera.position, rays)] + [s.hit(camera.position, rays) for s in things[1:]]
    )
    owner = distances.argmin(axis=0)
    depth = distances[owner, np.arange(len(rays))]
    points = camera.position + depth[:, None] * rays
    normals, colors = np.empty_like(points), np.empty_like(points)
    classes = np.empty(len(points), dtype=np.uint8)
    for number, thing in enumerate(things):
        mine = np.flatnonzero(owner == number)
        if number == 0:
            normals[mine] = -thing.normals(points[mine])
            classes[mine], colors[mine] = _room_surface(scene, normals[mine], points[mine])
        else:
            normals[mine] = thing.normals(points[mine])
            classes[mine], colors[mine] = thing.class_id, thing.colors(points[mine])
    light = _light(scene, points, normals)
    # Light adds up linearly; screens and cameras store its square root, roughly.
    rgb = np.sqrt(np.clip(colors**2 * light[:, None], 0.0, 1.0))
    return View(
        rgb=np.round(255 * rgb).astype(np.uint8).reshape(height, width, 3),
        depth=depth.astype(np.float32).reshape(height, width),
        normals=(normals @ camera.axes.T).astype(np.float32).reshape(height, width, 3),
        semseg=classes.reshape(height, width),
    )


def draw_scene(generator: np.random.Generator, width: int) -> Scene:
    """A random room for pictures `width` pixels wide."""
    half = np.array([generator.uniform(1.8, 3.2), generator.uniform(1.2, 1.6), generator.uniform(2.5, 4.0)])
    surfaces = tuple(draw_texture(generator, size=generator.uniform(0.25, 0.8)) for _ in range(3))
    room = Solid("box", 0, np.array([0.0, half[1], half[2]]), half, 0.0, surfaces[0])
    camera = draw_camera(generator, half, width)
    lamps = np.stack([draw_lamp(generator, half) for _ in range(generator.integers(1, 3))])
    strengths = generator.uniform(0.6, 1.0, len(lamps)) / math.sqrt(len(lamps))
    solids: list[Solid] = []
    reach = 0.5 * width / camera.focal_length
    for _ in range(int(generator.integers(3, 9))):
        solid = _draw_solid(generator, half, camera, reach, surfaces, solids)
        if solid is not None:
            solids.append(solid)
    return Scene(room, (surfaces[0], surfaces[1], surfaces[2]), solids, lamps, strengths, 0.25, camera)


def scene_rows(seed: int, split: str, size: tuple[int, int], blocks: list[tuple[int, int]]) -> Iterator[Row]:
    """Rows of the data set: PNG files and the label.

    Args:
        seed: Seed of the whole set.
        split: Name of a split, one of `SCENE_SPLITS`.
        size: Height and width.
        blocks: First scene and end of each block of scenes.
    """
    for number in (number for start, end in blocks for number in range(start, end)):
        view = make_scene(seed, split, number, *size)
        depth = np.round(view.depth / DEPTH_SCALE).astype(np.uint16)
        normals = np.round(127.5 * (view.normals + 1)).astype(np.uint8)
        pictures = {"rgb": view.rgb, "depth": depth, "normals": normals, "semseg": view.semseg}
        pictures["layout"] = np.minimum(view.semseg, LAYOUT.index("solid"))
        yield {**{name: png_file(pixels) for name, pixels in pictures.items()}, "label": view.label}


def scene_features() -> datasets.Features:
    """The columns of `scene_rows`."""
    pictures = {name: datasets.Image() for name in ("rgb", "depth", "normals", "semseg", "layout")}
    return datasets.Features({**pictures, "label": datasets.ClassLabel(names=list(SOLIDS))})


def png_file(pixels: np.ndarray) -> dict[str, bytes | None]:
    """A picture of bytes or of 16-bit greys, as an `Image` column stores it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


# Shapes: from local origins and directions to the distance of the first hit in front.


def _hit_sphere(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    square = (directions * directions).sum(axis=-1)
    half = (origins * directions).sum(axis=-1)
    rest = (origins * origins).sum(axis=-1) - 1.0
    root = np.sqrt(np.maximum(half * half - square * rest, 0.0))
    distance = _first((-half - root) / square, (-half + root) / square)
    return np.where(half * half >= square * rest, distance, np.inf)


def _hit_box(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    enter, leave = _slabs(origins, directions)
    return np.where(enter <= leave, _first(enter, leave), np.inf)


def _hit_cylinder(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    ox, oy, oz = np.moveaxis(origins, -1, 0)
    dx, dy, dz = directions.T
    square, half, rest = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - 1.0
    enter, leave = _roots(square, half, rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (-1.0 - oy) / dy, (1.0 - oy) / dy
    enter = np.maximum(enter, np.fmin(low, high))
    leave = np.minimum(leave, np.fmax(low, high))
    return np.where(enter <= leave, _first(enter, leave), np.inf)


def _hit_cone(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Apex at y = 1, radius 1 at y = -1: x^2 + z^2 = ((1 - y) / 2)^2."""
    ox, oy, oz = np.moveaxis(origins, -1, 0)
    dx, dy, dz = directions.T
    radius = (1.0 - oy) / 2.0
    square = dx * dx + dz * dz - dy * dy / 4.0
    half = ox * dx + oz * dz + radius * dy / 2.0
    rest = ox * ox + oz * oz - radius * radius
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(half * half - square * rest)
        sides = [(-half - root) / square, (-half + root) / square]
        base = (-1.0 - oy) / dy
        x, z = ox + base * dx, oz + base * dz
        candidates = [np.where((base > NEAREST) & (x * x + z * z <= 1.0), base, np.inf)]
        for side in sides:
            y = oy + side * dy
            candidates.append(np.where((side > NEAREST) & (y >= -1.0) & (y <= 1.0), side, np.inf))
    return np.minimum(np.minimum(candidates[0], candidates[1]), candidates[2])


def _first(enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
    return np.where(enter > NEAREST, enter, np.where(leave > NEAREST, leave, np.inf))


def _slabs(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays enter and leave the cube [-1, 1]^3."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / directions
        one, other = (-1.0 - origins) * inverse, (1.0 - origins) * inverse
    low, high = np.fmin(one, other), np.fmax(one, other)
    # It goes by column: NumPy is slow along an axis of three.
    enter = np.maximum(np.maximum(low[..., 0], low[..., 1]), low[..., 2])
    return enter, np.minimum(np.minimum(high[..., 0], high[..., 1]), high[..., 2])


def _roots(square: np.ndarray, half: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both solutions of `square t^2 + 2 half t + rest = 0`; without any, entering lies behind leaving."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(half * half - square * rest)
        enter, leave = (-half - root) / square, (-half + root) / square
    return np.where(np.isnan(enter), np.inf, enter), np.where(np.isnan(leave), -np.inf, leave)


def _box_normals(points: np.ndarray) -> np.ndarray:
    axis = np.abs(points).argmax(axis=1)
    normals = np.zeros_like(points)
    rows = np.arange(len(points))
    normals[rows, axis] = np.sign(points[rows, axis])
    return normals


def _cylinder_normals(points: np.ndarray) -> np.ndarray:
    on_cap = np.abs(points[:, 1]) > np.hypot(points[:, 0], points[:, 2])
    side = points * [1.0, 0.0, 1.0]
    return np.where(on_cap[:, None], np.sign(points) * [0.0, 1.0, 0.0], side)


def _cone_normals(points: np.ndarray) -> np.ndarray:
    x, y, z = points.T
    side = np.stack([x, (1.0 - y) / 4.0, z], axis=1)
    # At the apex the gradient vanishes: there it points up.
    side[np.abs(side).max(axis=1) < 1e-9] = (0.0, 1.0, 0.0)
    on_base = (y < -1.0 + 1e-6)[:, None]
    return np.where(on_base, (0.0, -1.0, 0.0), side)


SHAPES = {"sphere": _hit_sphere, "box": _hit_box, "cylinder": _hit_cylinder, "cone": _hit_cone}
NORMALS = {"sphere": lambda points: points, "box": _box_normals, "cylinder": _cylinder_normals, "cone": _cone_normals}


def _far_side(room: Solid, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    return _slabs(room.local(origin - room.center), room.local(rays))[1]


def _room_surface(scene: Scene, normals: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class and colour of points of the room."""
    surface = np.where(normals[:, 1] > 0.5, 0, np.where(normals[:, 1] < -0.5, 2, 1))
    colors = np.empty_like(points)
    for number, texture in enumerate(scene.surfaces):
        mine = surface == number
        colors[mine] = texture(points[mine])
    return surface, colors


def _light(scene: Scene, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(n,) light that falls on points: Lambert's law, with cast shadows."""
    light = np.full(len(points), scene.ambient)
    starts = points + 1e-3 * normals
    for lamp, strength in zip(scene.lamps, scene.strengths, strict=True):
        ways = lamp - starts
        distances = np.linalg.norm(ways, axis=1)
        facing = (ways * normals).sum(axis=1) / distances
        lit = np.flatnonzero(facing > 0)
        is_free = np.ones(len(lit), dtype=bool)
        for solid in scene.solids:
            is_free &= solid.hit(starts[lit], ways[lit]) > 1.0
        light[lit[is_free]] += strength * facing[lit[is_free]] * 4.0 / (2.0 + distances[lit[is_free]])
    return light


# Drawing.


def draw_texture(generator: np.random.Generator, size: float) -> Texture:
    """Any two colours in any pattern of this size in metres."""
    colors = generator.uniform(0.15, 1.0, (2, 3))
    return Texture(
        pattern=PATTERNS[generator.integers(len(PATTERNS))],
        colors=colors,
        directions=_unit(generator.normal(size=(4, 3))),
        phases=generator.uniform(0.0, 2 * math.pi, 4),
        size=size,
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def draw_camera(generator: np.random.Generator, half: np.ndarray, width: int) -> Camera:
    """A camera near the front wall of a room with half extents `half`, for pictures `width` pixels wide."""
    position = np.array(
        [generator.uniform(-0.4, 0.4) * half[0], generator.uniform(0.9, 1.7), generator.uniform(0.15, 0.5)]
    )
    turn, tilt = generator.uniform(-0.25, 0.25), generator.uniform(0.05, 0.4)
    angle = math.radians(generator.uniform(55.0, 75.0))
    forward = np.array([math.sin(turn) * math.cos(tilt), -math.sin(tilt), math.cos(turn) * math.cos(tilt)])
    right = np.array([math.cos(turn), 0.0, -math.sin(turn)])
    down = np.array([-math.sin(turn) * math.sin(tilt), -math.cos(tilt), -math.cos(turn) * math.sin(tilt)])
    return Camera(position, np.stack([right, down, forward]), 0.5 * width / math.tan(angle / 2))


def draw_lamp(generator: np.random.Generator, half: np.ndarray) -> np.ndarray:
    """The place (3,) of a lamp under the ceiling of a room with half extents `half`."""
    return np.array(
        [
            generator.uniform(-0.8, 0.8) * half[0],
            generator.uniform(1.7, 1.95) * half[1],
            generator.uniform(0.2, 1.6) * half[2],
        ]
    )


def _draw_solid(
    generator: np.random.Generator,
    half: np.ndarray,
    camera: Camera,
    reach: float,
    surfaces: tuple[Texture, ...],
    others: list[Solid],
) -> Solid | None:
    """A solid on the floor, or on a flat one there; None where no free place was found."""
    name = SOLIDS[generator.integers(len(SOLIDS))]
    shape, widths, heights = SOLID_SIZES[name]
    size = np.array([generator.uniform(*widths), generator.uniform(*heights), generator.uniform(*widths)])
    if shape != "box":
        size[2] = size[0]
    if name == "sphere":
        size[1] = size[0]
    # A solid often has the room's own pattern: then only shading and depth separate them.
    is_hidden = generator.random() < 0.4
    texture = surfaces[generator.integers(2)] if is_hidden else draw_texture(generator, generator.uniform(0.08, 0.3))
    radius = math.hypot(size[0], size[2]) if shape == "box" else size[0]
    turn = generator.uniform(0.0, math.pi)
    carriers = [other for other in others if CLASSES[other.class_id] in FLAT_TOPS and other.size[1] == other.center[1]]
    if carriers and generator.random() < 0.35:
        below = carriers[generator.integers(len(carriers))]
        shrink = min(1.0, 0.9 * min(below.size[0], below.size[2]) / radius)
        size = size * shrink
        center = below.center + np.array([0.0, below.size[1] + size[1], 0.0])
        is_free = not any(_near(center, 0.0, other) and other is not below for other in others)
        fits = center[1] + size[1] < 2 * half[1] and shrink > 0.3
        return Solid(shape, CLASSES.index(name), center, size, turn, texture) if is_free and fits else None
    for _ in range(10):
        far = generator.uniform(1.3, 2 * half[2] - 0.3)
        side = generator.uniform(-0.85, 0.85) * reach * far
        place = camera.position + far * camera.axes[2] + side * camera.axes[0]
        center = np.array([place[0], size[1], place[2]])
        inside = abs(center[0]) + radius < half[0] and 0.9 + radius < center[2] < 2 * half[2] - radius
        if inside and not any(_near(center, radius, other) for other in others):
            return Solid(shape, CLASSES.index(name), center, size, turn, texture)
    return None


def _near(center: np.ndarray, radius: float, other: Solid) -> bool:
    """Whether a circle on the floor touches another solid's."""
    own = math.hypot(other.size[0], other.size[2]) if other.shape == "box" else other.size[0]
    return math.hypot(*(center - other.center)[[0, 2]]) < radius + own


def read_scenes(args: DataArguments, split: str) -> Dataset | IterableDataset:
    """Scenes of `scene_size`, `num_scenes` and `scenes_seed`; the columns are those of `scene_features`.

    Raises:
        ValueError: A split that `num_scenes` does not have.
    """
    return read_rendered(args, split, scene_rows, scene_features(), [SCENES_VERSION])


def read_rendered(
    args: DataArguments,
    split: str,
    rows: Callable[..., Iterator[Row]],
    features: datasets.Features,
    key: list[str | int],
) -> Dataset | IterableDataset:
    """Rows that are drawn from `scene_size`, `num_scenes` and `scenes_seed`, kept in the datasets cache unless streamed.

    Args:
        args: The data section.
        split: Name of the split.
        rows: Generator of rows, with the arguments of `scene_rows`.
        features: Columns of the rows.
        key: What the cache tells rows of other generators, and of other versions of this one, apart by.

    Raises:
        ValueError: A split that `num_scenes` does not have.
    """
    if split not in args.num_scenes:
        raise ValueError(
            f"data.source {args.source!r} has the splits {list(args.num_scenes)} (data.num_scenes), got {split!r}"
        )
    size = (args.scene_size, args.scene_size) if isinstance(args.scene_size, int) else tuple(args.scene_size)
    settings: dict[str, Any] = {"seed": args.scenes_seed, "split": split, "size": size}
    count = args.num_scenes[split]
    # `num_proc` shares this list out; the rows are the same for every number of processes.
    settings["blocks"] = [(start, min(start + BLOCK_SCENES, count)) for start in range(0, count, BLOCK_SCENES)]
    if args.streaming:
        return IterableDataset.from_generator(rows, features=features, gen_kwargs=settings)
    processes = None if args.num_proc is None else min(args.num_proc, len(settings["blocks"]))
    return Dataset.from_generator(
        rows,
        features=features,
        gen_kwargs=settings,
        num_proc=processes,
        fingerprint=Hasher.hash([*key, settings["seed"], split, size, count]),
    )


SCENES = Source(
    "scenes",
    "procedural scenes",
    read_scenes,
    depth_scale=DEPTH_SCALE,
    class_names={"semseg": CLASSES, "layout": LAYOUT},
    is_rendered=True,
)
