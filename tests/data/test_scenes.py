"""Procedural scenes: their geometry against formulas, and that they are the same everywhere."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from hf_maskssl.data import data_arguments, load_splits
from hf_maskssl.data.builtin.scenes import (
    CLASSES,
    DEPTH_SCALE,
    SCENE_SPLITS,
    SHAPES,
    SOLIDS,
    Camera,
    Scene,
    Solid,
    Texture,
    draw_scene,
    make_scene,
    render,
)

PLAIN = Texture("plain", np.full((2, 3), 0.8), np.eye(4, 3), np.zeros(4), 1.0)
# Looks along z from the origin of the room's floor plan, at a height of 1.
CAMERA = Camera(np.array([0.0, 1.0, 0.5]), np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, 1]]), 40.0)


def solid(shape: str, center: list[float], size: list[float], turn: float = 0.0, name: str = "box") -> Solid:
    return Solid(shape, CLASSES.index(name), np.array(center), np.array(size), turn, PLAIN)


def room(*solids: Solid, camera: Camera = CAMERA) -> Scene:
    """4 x 3 x 6 metres, one lamp."""
    shell = solid("box", [0.0, 1.5, 3.0], [2.0, 1.5, 3.0])
    return Scene(shell, (PLAIN, PLAIN, PLAIN), list(solids), np.array([[0.0, 2.8, 3.0]]), np.ones(1), 0.25, camera)


def pixel_rays(height: int, width: int, focal: float) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:height, :width]
    return (columns + 0.5 - width / 2) / focal, (rows + 0.5 - height / 2) / focal


def test_an_empty_room_has_the_depth_of_its_planes() -> None:
    # A little off the middle: no pixel lies exactly on an edge of the room.
    camera = Camera(CAMERA.position + [0.1, 0.0, 0.0], CAMERA.axes, 40.0)
    view = render(room(camera=camera), 40, 60)
    x, y = pixel_rays(40, 60, 40.0)
    with np.errstate(divide="ignore"):
        # Depths of the back wall, the side walls, the floor (1 below the camera) and the ceiling (2 above).
        planes = np.stack([np.full_like(x, 5.5), np.where(x > 0, 1.9 / x, 2.1 / -x), np.where(y > 0, 1 / y, 2 / -y)])
    np.testing.assert_allclose(view.depth, planes.min(axis=0), rtol=1e-5)
    surface = planes.argmin(axis=0)
    np.testing.assert_array_equal(view.semseg, np.where(surface == 2, np.where(y > 0, 0, 2), 1))
    expected = np.select(
        [(surface == 0)[..., None], (surface == 1)[..., None]],
        [np.array([0, 0, -1.0]), -np.sign(x)[..., None] * [1.0, 0, 0]],
        -np.sign(y)[..., None] * [0, 1.0, 0],
    )
    np.testing.assert_allclose(view.normals, expected, atol=1e-6)


def test_a_sphere_has_the_depth_and_normals_of_its_equation() -> None:
    view = render(room(solid("sphere", [0.1, 1.0, 2.5], [0.5] * 3, name="sphere")), 64, 64)
    x, y = pixel_rays(64, 64, 40.0)
    rays, center = np.stack([x, y, np.ones_like(x)], axis=-1), np.array([0.1, 0.0, 2.0])
    square, half = (rays**2).sum(-1), rays @ center
    inside = half**2 - square * (center @ center - 0.25)
    seen = inside > 0
    depth = (half - np.sqrt(np.where(seen, inside, 0))) / square
    np.testing.assert_array_equal(view.semseg == CLASSES.index("sphere"), seen)
    np.testing.assert_allclose(view.depth[seen], depth[seen], rtol=1e-5)
    np.testing.assert_allclose(view.normals[seen], ((depth[..., None] * rays - center) / 0.5)[seen], atol=1e-5)
    assert view.label == SOLIDS.index("sphere")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_hit_where_a_fine_march_enters_it(shape: str) -> None:
    """Inside the shape is a formula of its own; the first point of a ray inside is where it hits."""
    insides = {
        "sphere": lambda p: (p**2).sum(-1) < 1,
        "box": lambda p: np.abs(p).max(-1) < 1,
        "cylinder": lambda p: (np.hypot(p[..., 0], p[..., 2]) < 1) & (np.abs(p[..., 1]) < 1),
        "cone": lambda p: (np.hypot(p[..., 0], p[..., 2]) < (1 - p[..., 1]) / 2) & (np.abs(p[..., 1]) < 1),
    }
    generator = np.random.default_rng(0)
    origins = generator.normal(size=(300, 3)) * 0.8 + [0, 0, -3.5]
    directions = generator.normal(size=(300, 3)) * 0.15 + [0, 0, 1]
    one = solid(shape, [0.1, 0.0, 0.2], [0.9, 1.2, 0.7], turn=0.6)
    steps = np.arange(0, 8, 0.002)
    points = origins[:, None] + steps[None, :, None] * directions[:, None]
    is_inside = insides[shape](one.local(points - one.center))
    first = np.where(is_inside.any(1), steps[is_inside.argmax(1)], np.inf)
    hit = one.hit(origins, directions)
    grazing = np.isinf(first) & np.isfinite(hit)
    assert grazing.sum() <= 6 and np.isfinite(first).sum() > 80
    np.testing.assert_allclose(hit[~grazing], first[~grazing], atol=0.003)
    # Normals are those of the surface: a small step along them leaves the solid, one against them enters it.
    surface = (origins + hit[:, None] * directions)[np.isfinite(hit) & ~grazing]
    normals = one.normals(surface)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)
    assert not insides[shape](one.local(surface + 1e-4 * normals - one.center)).any()
    assert insides[shape](one.local(surface - 1e-4 * normals - one.center)).mean() > 0.97
    # Along the surface the same holds, which it would not for tilted normals.
    along = 1e-3 * np.cross(normals, generator.normal(size=normals.shape))
    assert insides[shape](one.local(surface + along - 5e-5 * normals - one.center)).mean() > 0.95


def test_normals_follow_from_depth() -> None:
    """The cross product of neighbouring points, away from edges, is the normal; classes and depth share their edges."""
    for number in range(4):
        view = make_scene(3, "train", number, 96, 128)
        np.testing.assert_allclose(np.linalg.norm(view.normals, axis=-1), 1.0, rtol=1e-5)
        scene = draw_scene(np.random.default_rng([3, 0, number]), 128)
        if not np.array_equal(render(scene, 96, 128).semseg, view.semseg):
            continue  # the first draw had too few solids in sight
        x, y = pixel_rays(96, 128, scene.camera.focal_length)
        points = view.depth[..., None].astype(np.float64) * np.stack([x, y, np.ones_like(x)], axis=-1)
        across = points[1:-1, 2:] - points[1:-1, :-2]
        down = points[2:, 1:-1] - points[:-2, 1:-1]
        normals = np.cross(down, across)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        given = view.normals[1:-1, 1:-1]
        # Flat neighbourhoods: all four neighbours look the same way.
        neighbours = [view.normals[1:-1, 2:], view.normals[1:-1, :-2], view.normals[2:, 1:-1], view.normals[:-2, 1:-1]]
        same = np.all([(one * given).sum(-1) > 0.9999 for one in neighbours], axis=0)
        same &= np.all([(view.semseg[a] == view.semseg[1:-1, 1:-1]) for a in _shifts()], axis=0)
        agreement = (normals * given).sum(-1)[same]
        assert same.mean() > 0.5 and (agreement > 0.999).mean() > 0.98
        # Seen surfaces face the camera.
        assert ((points * view.normals).sum(-1) < 1e-6).all()


def _shifts() -> list[tuple[slice, slice]]:
    middle, before, behind = slice(1, -1), slice(None, -2), slice(2, None)
    return [(middle, before), (middle, behind), (before, middle), (behind, middle)]


def test_nearer_things_hide_others_and_cast_shadows() -> None:
    near = solid("box", [0.0, 0.9, 1.5], [0.15, 0.15, 0.15], name="box")
    far = solid("sphere", [0.0, 1.0, 3.5], [0.6] * 3, name="sphere")
    view = render(room(near, far), 64, 64)
    assert view.semseg[36, 32] == CLASSES.index("box") and view.semseg[18, 32] != CLASSES.index("box")
    assert CLASSES.index("sphere") in view.semseg
    # Below the lamp, under a slab, the floor gets the ambient light alone.
    open_floor = render(room(), 64, 64).rgb.astype(int)
    slab = solid("box", [0.0, 1.6, 3.0], [0.5, 0.02, 0.5], name="slab")
    shaded = render(room(slab), 64, 64)
    floor = shaded.semseg == 0
    dark = shaded.rgb.astype(int)[floor] < open_floor[floor] - 20
    assert 0.05 < dark.mean() < 0.9
    np.testing.assert_allclose(shaded.rgb[floor][dark.all(-1)], round(255 * 0.8 * math.sqrt(0.25)), atol=1)


def test_scenes_depend_on_seed_split_and_number_alone() -> None:
    arrays = {}
    for seed, split, number in itertools.product((0, 1), SCENE_SPLITS, (0, 1)):
        view = make_scene(seed, split, number, 16, 24)
        again = make_scene(seed, split, number, 16, 24)
        assert view.rgb.tobytes() == again.rgb.tobytes() and view.depth.tobytes() == again.depth.tobytes()
        assert view.rgb.shape == (16, 24, 3) and view.semseg.max() >= 3
        arrays[view.depth.tobytes()] = (seed, split, number)
    assert len(arrays) == 12


def test_the_data_set_is_the_same_for_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "kind": "multimodal",
        "num_scenes": {"train": 6, "test": 2},
        "test_split": "test",
        "scene_size": [16, 24],
    }
    alone = load_splits(data_arguments("scenes", **options))
    monkeypatch.setattr("hf_maskssl.data.builtin.scenes.BLOCK_SCENES", 2)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "other")
    shared = load_splits(data_arguments("scenes", num_proc=2, **options))
    stream = load_splits(data_arguments("scenes", streaming=True, **options))["train"]
    assert alone["train"].column_names == ["rgb", "depth", "normals", "semseg", "layout", "label"]
    raw = alone["train"].with_format("arrow")[:]
    assert raw.equals(shared["train"].with_format("arrow")[:])
    for row, other, number in zip(alone["train"], stream, range(6), strict=True):
        view = make_scene(0, "train", number, 16, 24)
        np.testing.assert_array_equal(np.asarray(row["rgb"]), view.rgb)
        np.testing.assert_allclose(np.asarray(row["depth"]) * DEPTH_SCALE, view.depth, atol=DEPTH_SCALE)
        np.testing.assert_allclose(np.asarray(row["normals"]) / 127.5 - 1, view.normals, atol=0.005)
        np.testing.assert_array_equal(np.asarray(row["semseg"]), view.semseg)
        np.testing.assert_array_equal(np.asarray(row["layout"]), np.minimum(view.semseg, 3))
        np.testing.assert_array_equal(np.asarray(other["depth"]), np.asarray(row["depth"]))
        assert row["label"] == view.label and alone["train"].features["label"].names == list(SOLIDS)
    assert len(alone["test"]) == 2 and alone["test"][0]["depth"] != alone["train"][0]["depth"]


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"scene_size: .* at least 8, got \[4, 4\]"):
        data_arguments("scenes", kind="multimodal", scene_size=4)
    with pytest.raises(ValueError, match="num_scenes: .*'dev'"):
        data_arguments("scenes", kind="multimodal", num_scenes={"dev": 3})
    with pytest.raises(ValueError, match=r"splits \['train'\] \(data.num_scenes\), got 'test'"):
        load_splits(data_arguments("scenes", kind="multimodal", num_scenes={"train": 2}, test_split="test"))
