"""Pictures: CIFAR-10, ImageNet32, CUB, VGG Flowers, DTD, Traffic Sign, Aircraft, and EuroSAT with its 13 bands."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.tables.pictures import bands_of_tiff
from ..extras import missing_extra
from .cuts import SHARE, cut_by_group, placed, shuffled
from .raw import Media, RawFolder
from .record import Rows

SIDE = 32
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_ROW = 1 + 3 * SIDE * SIDE
BANDS = 13
JPEG_QUALITY = 95  # with all colours kept: pictures are shrunk to 32 pixels, which takes away what it changes


def cifar10(raw: RawFolder) -> Iterator[Rows]:
    """The binary version: a byte of the class, then the three colours one after the other."""
    for split, names in (
        ("train", [f"data_batch_{number}.bin" for number in range(1, 6)]),
        ("test", ["test_batch.bin"]),
    ):
        for name in names:
            path = raw.find(f"cifar-10-batches-bin/{name}", name)
            content = np.fromfile(path, dtype=np.uint8)
            if content.size % CIFAR_ROW:
                raise ValueError(f"expected rows of {CIFAR_ROW} bytes, got {content.size:,} bytes: the file is cut")
            for row in content.reshape(-1, CIFAR_ROW):
                yield Rows(split, {"image": _png(row[1:]), "label": CIFAR_CLASSES[row[0]]})


def imagenet32(raw: RawFolder) -> Iterator[Rows]:
    """The NumPy version: `data` (rows, 3072) and `labels` from 1."""
    for split, pattern in (("train", "train_data_batch_*.npz"), ("validation", "val_data.npz")):
        for path in raw.every(pattern):
            raw.current = path
            with np.load(path, allow_pickle=False) as arrays:
                if not {"data", "labels"} <= set(arrays.files):
                    raise ValueError(f"expected the arrays data and labels, got {arrays.files}")
                pixels, labels = arrays["data"], arrays["labels"]
            if pixels.shape != (len(labels), 3 * SIDE * SIDE):
                raise ValueError(f"data: expected ({len(labels)}, {3 * SIDE * SIDE}), got {pixels.shape}")
            for row, label in zip(pixels, labels.tolist(), strict=True):
                yield Rows(split, {"image": _png(row), "label": label - 1})


def cub(raw: RawFolder) -> Iterator[Rows]:
    """Birds, with the release's own cut."""
    base = raw.base("images.txt")
    listed, splits, labels = (
        _pairs(raw.find(name)) for name in ("images.txt", "train_test_split.txt", "image_class_labels.txt")
    )
    raw.current = base / "images.txt"
    for number, name in listed.items():
        if (file := raw.listed(base / "images" / name, raw.current)) is not None:
            split = {"1": "train", "0": "test"}[splits[number]]
            yield Rows(split, {"image": file, "label": int(labels[number]) - 1, "name": name.partition("/")[0]})


def vgg_flowers(raw: RawFolder) -> Iterator[Rows]:
    """Flowers, DABS's cut: 80 / 20 of each class."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra("Reading imagelabels.mat", "prepare", error) from error
    path = raw.find("imagelabels.mat")
    labels = loadmat(path)["labels"].ravel().tolist()
    folder = raw.find("jpg")
    raw.current = path
    for number, (label, split) in enumerate(zip(labels, cut_by_group(labels, ("train", "test")), strict=True), 1):
        if (file := raw.listed(folder / f"image_{number:05d}.jpg", path)) is not None:
            yield Rows(split, {"image": file, "label": int(label) - 1})


def dtd(raw: RawFolder) -> Iterator[Rows]:
    """Textures, the first of the release's ten cuts; its validation part trains as well."""
    base = raw.base("labels/train1.txt")
    for split, names in (("train", ("train1", "val1")), ("test", ("test1",))):
        for name in names:
            path = raw.find(f"labels/{name}.txt")
            for line in path.read_text(encoding="utf-8").split():
                if (file := raw.listed(base / "images" / line, path)) is not None:
                    yield Rows(split, {"image": file, "label": line.partition("/")[0]})


def traffic_sign(raw: RawFolder) -> Iterator[Rows]:
    """The training pictures of GTSRB, DABS's cut: 80 / 20 of each class."""
    files = raw.every("Final_Training/Images/*/*.ppm")
    labels = [int(file.parent.name) for file in files]
    for file, label, split in zip(files, labels, cut_by_group(labels, ("train", "test")), strict=True):
        yield Rows(split, {"image": Media(file), "label": label})


def aircraft(raw: RawFolder) -> Iterator[Rows]:
    """Planes, cut to their boxes, with the release's own splits; its validation part trains as well."""
    base = raw.base("images_box.txt")
    boxes = {name: tuple(map(int, box.split())) for name, box in _pairs(raw.find("images_box.txt")).items()}
    for split, ending in (("train", "trainval"), ("test", "test")):
        path = raw.find(f"images_variant_{ending}.txt")
        for name, variant in _pairs(path).items():
            if (file := raw.listed(base / "images" / f"{name}.jpg", path)) is not None:
                yield Rows(split, {"image": _inside(file.path, boxes[name]), "label": variant})


def eurosat(raw: RawFolder) -> Iterator[Rows]:
    """Satellite pictures, DABS's cut: shuffled, nine tenths to pre-train on, one to probe, each cut 90 / 10."""
    files = raw.every("AnnualCrop/*.tif")
    root = files[0].parent.parent
    files = sorted(root.glob("*/*.tif"))
    order = shuffled(len(files))
    head = math.ceil(SHARE * len(files))
    splits = [""] * len(files)
    for part, names in ((order[:head], ("train", "held_out")), (order[head:], ("probe", "test"))):
        ranks = np.arange(len(part))
        for row, split in zip(part.tolist(), placed(ranks, names, math.ceil(SHARE * len(part))), strict=True):
            splits[row] = split
    for file, split in zip(files, splits, strict=True):
        if split != "held_out":
            raw.current = file
            yield Rows(split, {"image": _bands(file), "label": file.parent.name})


def _bands(path: Path) -> np.ndarray:
    """A picture of 13 bands, (64, 64, 13) uint16."""
    with open(path, "rb") as stream:
        pixels = bands_of_tiff(stream)
    if pixels.shape[-1] != BANDS:
        raise ValueError(f"expected {BANDS} bands, got shape {pixels.shape}: is it the release of all bands?")
    return pixels


def _png(colours: np.ndarray) -> bytes:
    """Red, green and blue one after the other, (3 x 32 x 32,), as a PNG."""
    content = io.BytesIO()
    Image.fromarray(np.moveaxis(colours.reshape(3, SIDE, SIDE), 0, -1)).save(content, format="PNG")
    return content.getvalue()


def _inside(path: Path, box: tuple[int, ...]) -> bytes:
    """The part of a picture inside a box, as DABS cuts it: (left, top, right, bottom) as the file has them."""
    content = io.BytesIO()
    with Image.open(path) as picture:
        left, top, right, bottom = box
        picture.convert("RGB").crop((left, top, right, bottom)).save(
            content, format="JPEG", quality=JPEG_QUALITY, subsampling=0
        )
    return content.getvalue()


def _pairs(path: Path) -> dict[str, str]:
    """The lines of a list, "key value": key -> value, which may hold blanks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(" ") for line in lines if line.strip())}
