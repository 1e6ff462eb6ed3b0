"""Pictures with maps of classes and depth: NYUv2 and ADE20K, and the making of such maps."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..extras import missing_extra
from .raw import NO_CLASS, ClassMap, Media, RawFolder
from .record import Rows

if TYPE_CHECKING:
    import h5py

NYU_SPLITS = {"train": "trainNdxs", "test": "testNdxs"}  # fields of splits.mat
NYU_FIELDS = ("images", "depths", "labels")
NYU_CLASSES, ADE_CLASSES = 40, 150
MAPPING = "classMapping40.mat"
# Of a depth map of 768 x 1024 pixels level 3 takes a third of the time that the usual level 6 does, and a fifth more bytes.
PNG_LEVEL = 3
ADE_SPLITS = {"train": "training", "val": "validation"}


def nyuv2(raw: RawFolder) -> Iterator[Rows]:
    """The 1,449 labelled frames, with the split of Gupta et al., and their 40 classes where the mapping is given.

    The file is one of MATLAB 7.3, so HDF5, whose axes are MATLAB's turned round: `images` (N, 3, W, H) uint8, `depths` (N, W, H)
    float32 in metres, with holes filled in, `labels` (N, W, H) uint16, 0 to 894, where 0 is none.
    """
    try:
        import h5py
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra("Reading NYUv2", "prepare", error) from error
    path, splits_path = raw.find("nyu_depth_v2_labeled.mat"), raw.find("splits.mat")
    splits = loadmat(splits_path)
    if missing := [field for field in NYU_SPLITS.values() if field not in splits]:
        raise ValueError(f"expected the numbers of frames {missing}, got {sorted(splits)}")
    mapping_path = raw.look(MAPPING)
    content = None if mapping_path is None else loadmat(mapping_path)
    mapping = None if content is None else _mapping(content)
    if content is not None and len(names := _names(content)) == NYU_CLASSES:
        raw.class_names["semseg"] = names
    if mapping is None:
        raw.remarks.append(
            f"the maps of classes (semseg) are left out, because {MAPPING} is not there: depth can be learnt, segmentation not"
        )
    raw.current = path
    with h5py.File(path) as file:
        missing = [name for name in NYU_FIELDS if name not in file]
        if missing:
            raise ValueError(f"expected {list(NYU_FIELDS)}, got {sorted(file)}: is it the labelled part?")
        for split, field in NYU_SPLITS.items():
            for number in splits[field].ravel().tolist()[: raw.max_rows]:
                yield Rows(split, _frame(file, int(number), mapping))


def _mapping(content: dict[str, np.ndarray]) -> np.ndarray:
    """Label of the release -> class number from 0, and `NO_CLASS` for label 0: (895,) uint8."""
    if "mapClass" not in content:
        raise ValueError(f"{MAPPING}: expected mapClass, got {sorted(content)}")
    classes = content["mapClass"].ravel().astype(np.int64)
    if classes.min() < 1 or classes.max() > NYU_CLASSES:
        raise ValueError(
            f"{MAPPING}: expected classes from 1 to {NYU_CLASSES}, got {classes.min()} to {classes.max()}"
        )
    return np.concatenate([[NO_CLASS], classes - 1]).astype(np.uint8)


def _names(content: dict[str, np.ndarray]) -> list[str]:
    """Names of the 40 classes, by their number, of a cell array of MATLAB; none where the file has none."""
    cells = content.get("className", np.zeros(0, dtype=object)).ravel()
    return [str(np.asarray(cell).ravel()[0]) for cell in cells if np.asarray(cell).size]


def _frame(file: "h5py.File", number: int, mapping: np.ndarray | None) -> dict[str, object]:
    if not 1 <= number <= len(file["images"]):
        raise ValueError(f"splits.mat names frame {number}, there are {len(file['images'])}")
    colours = file["images"][number - 1].transpose(2, 1, 0)
    row: dict[str, object] = {
        "name": f"all/{number:04d}",
        "rgb": png(np.ascontiguousarray(colours)),
        "depth": png(millimetres(file["depths"][number - 1].T)),
    }
    if mapping is not None:
        labels = file["labels"][number - 1].T
        if labels.max() >= len(mapping):
            raise ValueError(f"frame {number} has the label {labels.max()}, {MAPPING} goes to {len(mapping) - 1}")
        row["semseg"] = class_map(mapping[labels])
    return row


def ade20k(raw: RawFolder) -> Iterator[Rows]:
    """The scene parsing benchmark of 2016: maps of 0, other things, and the classes from 1 to 150."""
    base = raw.base("images/training")
    for split, part in ADE_SPLITS.items():
        folder = base / "images" / part
        raw.current = folder
        if not folder.is_dir():
            raw.find(f"images/{part}")
        for picture in sorted(folder.glob("*.jpg"))[: raw.max_rows]:
            file = raw.listed(base / "annotations" / part / f"{picture.stem}.png", folder)
            if file is not None:
                raw.current = file.path
                classes = _ade_classes(file.path)
                yield Rows(split, {"name": f"all/{picture.stem}", "rgb": Media(picture), "semseg": classes})


def _ade_classes(path: Path) -> ClassMap:
    with Image.open(path) as opened:
        values = np.asarray(opened)
    if values.ndim != 2 or values.dtype != np.uint8 or values.max() > ADE_CLASSES:
        raise ValueError(
            f"expected a map of 8 bit with 0 to {ADE_CLASSES}, got {values.dtype} of shape {values.shape} up to "
            f"{values.max()}: is it ADEChallengeData2016?"
        )
    return class_map(values - np.uint8(1))  # 0 becomes 255


def class_map(values: np.ndarray) -> ClassMap:
    """A map of classes as a PNG.

    Args:
        values: (H, W) uint8, `NO_CLASS` where there is none.
    """
    found = frozenset(np.flatnonzero(np.bincount(values.ravel(), minlength=NO_CLASS + 1)).tolist()) - {NO_CLASS}
    return ClassMap(png(values), found)


def millimetres(metres: np.ndarray) -> np.ndarray:
    """Depth as whole millimetres: (H, W) uint16, 0 where it is not known; what is farther than 65.535 m is at that.

    Args:
        metres: (H, W) float; NaN, infinite or not above 0 where it is not known.
    """
    depth = metres.astype(np.float64)
    known = np.isfinite(depth) & (depth > 0)
    limits = np.iinfo(np.uint16)
    found = np.clip(np.rint(1000 * np.where(known, depth, 0)), 1, limits.max)
    return np.where(known, found, 0).astype(np.uint16)


def png(pixels: np.ndarray) -> bytes:
    """A picture, (H, W) uint8 or uint16 or (H, W, 3) uint8, as a PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", compress_level=PNG_LEVEL)
    return content.getvalue()
