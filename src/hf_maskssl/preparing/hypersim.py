"""Hypersim: rendered rooms with colours, depth and NYU's 40 classes."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..extras import missing_extra
from .class_maps import NYU_CLASSES, class_map, millimetres, png
from .pictures import JPEG_QUALITY
from .raw import NO_CLASS, Media, RawFolder, wanted_columns
from .record import Rows

SPLITS = "metadata_images_split_scene_v1.csv"
COLUMNS = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
VIEW = math.radians(60)  # horizontal field of view of all cameras
# The release's own tone mapping: this percentile of the brightness is to become so bright, behind this gamma.
PERCENTILE, BRIGHT, GAMMA = 90, 0.8, 2.2
DARKEST = 1e-4  # a picture whose percentile is darker is black
LUMA = np.array([0.3, 0.59, 0.11], dtype=np.float32)
NOTHING = -1  # id of pixels without an entity or a class


def hypersim(raw: RawFolder) -> Iterator[Rows]:
    """Each frame of the release's split by scenes, its depth planar, its classes from 0.

    Colours are what the release's tone mapping makes of frame.NNNN.color.hdf5; where that is not there, the release's JPEG
    preview of the same, frame.NNNN.tonemap.jpg, is linked. Some scenes have cameras with a shifted lens (issue 24 of the source);
    they are taken as any other, so that their depth is not exact.
    """
    path = raw.find(SPLITS)
    images = {folder.parent.name: folder for folder in raw.every("ai_*/images")}
    taken: Counter[str] = Counter()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        wanted_columns(path, rows.fieldnames or (), COLUMNS)
        for row in rows:
            split = row["split_partition_name"]
            if row["included_in_public_release"].strip().lower() != "true" or taken[split] == raw.max_rows:
                continue
            content = _frame(raw, images, path, row)
            if content is not None:
                taken[split] += 1
                yield Rows(split, content)


def _frame(raw: RawFolder, scenes: dict[str, Path], splits: Path, row: dict[str, str]) -> dict[str, object] | None:
    """A row; None where one of its files is missing."""
    scene, camera, number = row["scene_name"], row["camera_name"], int(row["frame_id"])
    if row["split_partition_name"] not in ("train", "val", "test"):
        raise ValueError(f"split_partition_name: expected train, val or test, got {row['split_partition_name']!r}")
    images = scenes.get(scene, next(iter(scenes.values())).parent.parent / scene / "images")
    geometry, frame = images / f"scene_{camera}_geometry_hdf5", f"frame.{number:04d}"
    colours = images / f"scene_{camera}_final_hdf5" / f"{frame}.color.hdf5"
    preview = images / f"scene_{camera}_final_preview" / f"{frame}.tonemap.jpg"
    has_colours = colours.is_file()
    wanted = [geometry / f"{frame}.depth_meters.hdf5", geometry / f"{frame}.semantic.hdf5"]
    wanted += [geometry / f"{frame}.render_entity_id.hdf5"] if has_colours else [preview]
    if raw.all_listed(wanted, splits) is None:
        return None
    return {
        "name": f"{scene}/{camera}_{frame}",
        "rgb": _toned(raw, colours, wanted[2]) if has_colours else Media(preview),
        "depth": _depth(raw, wanted[0]),
        "semseg": _classes(raw, wanted[1]),
    }


def _array(raw: RawFolder, path: Path, dimensions: int) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("Reading Hypersim", "prepare", error) from error
    raw.current = path
    with h5py.File(path) as file:
        if "dataset" not in file:
            raise ValueError(f"expected dataset, got {sorted(file)}")
        found = np.asarray(file["dataset"][()])
    if found.ndim != dimensions:
        raise ValueError(f"expected {dimensions} axes, got shape {found.shape}")
    return found


def _depth(raw: RawFolder, path: Path) -> bytes:
    return png(millimetres(planar_depth(_array(raw, path, 2))))


def planar_depth(distance: np.ndarray) -> np.ndarray:
    """Depth along the view axis from the distance to the camera along each ray.

    A pixel at (x, y) from the middle of a picture that lies f pixels before the camera has the ray (x, y, f), so its depth is
    its distance times f / sqrt(x^2 + y^2 + f^2).

    Args:
        distance: (H, W) in metres; NaN where there is nothing.

    Returns:
        (H, W) float32 in metres.
    """
    height, width = distance.shape
    focal = width / 2 / math.tan(VIEW / 2)
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height) - (height - 1) / 2
    length = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2 + focal**2)
    return (distance.astype(np.float32) * (focal / length)).astype(np.float32)


def _classes(raw: RawFolder, path: Path) -> object:
    """NYU's classes, 1 to 40, from 0; the release has -1 where there is none."""
    values = _array(raw, path, 2).astype(np.int64)
    if values.min() < NOTHING or values.max() > NYU_CLASSES:
        raise ValueError(f"expected classes from -1 to {NYU_CLASSES}, got {values.min()} to {values.max()}")
    return class_map(np.where(values > 0, values - 1, NO_CLASS).astype(np.uint8))


def _toned(raw: RawFolder, colours: Path, entities: Path) -> bytes:
    content = io.BytesIO()
    is_something = _array(raw, entities, 2) != NOTHING
    Image.fromarray(tone_mapped(_array(raw, colours, 3), is_something)).save(
        content, format="JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return content.getvalue()


def tone_mapped(radiance: np.ndarray, is_something: np.ndarray) -> np.ndarray:
    """Radiance as a picture, with the exposure of the release's previews.

    Args:
        radiance: (H, W, 3) float, from 0 on.
        is_something: (H, W) bool: pixels that show an object, whose brightness decides the exposure.

    Returns:
        (H, W, 3) uint8.
    """
    colours = radiance.astype(np.float32)
    scale = 1.0
    if is_something.any():
        bright = float(np.percentile((colours @ LUMA)[is_something], PERCENTILE))
        scale = 0.0 if bright < DARKEST else BRIGHT**GAMMA / bright
    return np.rint(255 * np.clip(np.maximum(scale * colours, 0) ** (1 / GAMMA), 0, 1)).astype(np.uint8)
